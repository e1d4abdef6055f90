import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import make_adapter
from safetensors.torch import load_file, save_file

from configs.errors import AdapterRejectedError
from data_contracts.records import AdapterRef
from models.adapters import CONFIG, MANIFEST, WEIGHTS, adapter_digest, check_adapter, publish_adapter, read_manifest


@pytest.fixture(scope="module")
def good(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterRef:
    return make_adapter(tiny_base, tmp_path_factory.mktemp("adapters"))


def _copy(good: AdapterRef, tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    shutil.copytree(good.path, folder)
    return folder


def _again(good: AdapterRef, folder: Path) -> AdapterRef:
    """A reference whose digest and manifest fit the changed files: the check itself must find what is wrong."""
    digest = adapter_digest(folder)
    (folder / MANIFEST).write_text(json.dumps({"digest": digest, "base_digest": good.base_digest}))
    return good.model_copy(update={"path": str(folder), "digest": digest})


def _with_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**config, **changes}))

    return change


def _with_tensor(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return apply


def _first(value: Any) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        key = sorted(tensors)[0]
        tensors[key] = value(tensors[key].clone())

    return change


def _rename(new: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[new] = tensors.pop(sorted(tensors)[0])

    return change


def _filled(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.index_fill_(0, torch.tensor([0]), value)


def test_a_good_adapter_passes_and_its_configuration_comes_back(good: AdapterRef):
    assert check_adapter(good, base_digest=good.base_digest)["r"] == 4
    assert Path(good.path).name == good.digest
    assert read_manifest(Path(good.path))["digest"] == good.digest


def test_a_description_is_allowed_if_the_manifest_names_it_and_is_no_part_of_the_digest(
    good: AdapterRef, tmp_path: Path
):
    folder = _copy(good, tmp_path)
    (folder / "README.md").write_text("words")
    with pytest.raises(AdapterRejectedError, match="description"):
        check_adapter(_again(good, folder))
    (folder / MANIFEST).unlink()
    digest, path = publish_adapter(folder, tmp_path / "root", {"base_digest": good.base_digest})
    assert digest == good.digest
    published = good.model_copy(update={"path": str(path)})
    check_adapter(published)
    (path / "README.md").write_text("other words")
    with pytest.raises(AdapterRejectedError, match="description"):
        check_adapter(published)


CHANGES: dict[str, Callable[[Path], Any]] = {
    "extra file": lambda f: (f / "run.py").write_text("print()"),
    "pickle": lambda f: (f / "adapter_model.bin").write_bytes(b"x"),
    "folder": lambda f: (f / "more").mkdir(),
    "no weights": lambda f: (f / WEIGHTS).unlink(),
    "bad json": lambda f: (f / CONFIG).write_text("{"),
    "a list": lambda f: (f / CONFIG).write_text("[]"),
    "no safetensors": lambda f: (f / WEIGHTS).write_bytes(b"\x80\x04 pickled"),
    "auto_map": _with_config(auto_mapping=None, nested={"auto_map": "evil.Model"}),
    "dora": _with_config(use_dora=True),
    "modules_to_save": _with_config(modules_to_save=["lm_head"]),
    "bias": _with_config(bias="all"),
    "another kind": _with_config(peft_type="PREFIX_TUNING"),
    "pissa": _with_config(init_lora_weights="pissa"),
    "rank": _with_config(r=65),
    "rank pattern": _with_config(rank_pattern={"q_proj": 512}),
    "rank text": _with_config(r="4"),
    "regex target": _with_config(target_modules="(a+)+$"),
    "path target": _with_config(target_modules=["../x"]),
    "nan": _with_tensor(_first(_filled(float("nan")))),
    "infinite": _with_tensor(_first(_filled(float("inf")))),
    "huge": _with_tensor(_first(_filled(1e6))),
    "three dimensions": _with_tensor(_first(lambda t: t[None].contiguous())),
    "integers": _with_tensor(_first(lambda t: t.to(torch.int64))),
    "wide": _with_tensor(_first(lambda t: t.repeat(9, 1).contiguous())),
    "not lora": _with_tensor(_rename("base_model.model.lm_head.weight")),
    "other layer": _with_tensor(_rename("base_model.model.model.embed_tokens.lora_A.weight")),
    "half a layer": _with_tensor(lambda t: t.pop(sorted(t)[0])),
    "empty": _with_tensor(lambda t: t.clear()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_adapter_is_refused_even_if_its_digest_fits(good: AdapterRef, tmp_path: Path, name: str):
    folder = _copy(good, tmp_path)
    CHANGES[name](folder)
    with pytest.raises(AdapterRejectedError) as caught:
        check_adapter(_again(good, folder))
    assert str(folder) in (caught.value.where or "")
    assert caught.value.fix


def test_symbolic_links_are_refused(good: AdapterRef, tmp_path: Path):
    folder = _copy(good, tmp_path)
    (tmp_path / "elsewhere").write_bytes((folder / WEIGHTS).read_bytes())
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AdapterRejectedError):
        check_adapter(good.model_copy(update={"path": str(folder)}))
    (tmp_path / "link").symlink_to(good.path)
    with pytest.raises(AdapterRejectedError):
        check_adapter(good.model_copy(update={"path": str(tmp_path / "link")}))


def test_another_digest_or_another_base_is_refused(good: AdapterRef, tmp_path: Path):
    with pytest.raises(AdapterRejectedError, match="not the ones"):
        check_adapter(good.model_copy(update={"digest": "0" * 64}))
    with pytest.raises(AdapterRejectedError, match="another base"):
        check_adapter(good.model_copy(update={"base_digest": "0" * 64}))
    with pytest.raises(AdapterRejectedError, match="another base"):
        check_adapter(good, base_digest="0" * 64)
    with pytest.raises(AdapterRejectedError, match="no adapter here"):
        check_adapter(good.model_copy(update={"path": str(tmp_path / "none")}))
    with pytest.raises(AdapterRejectedError, match="out of bounds"):
        check_adapter(good, max_rank=2)


def test_publishing_twice_keeps_the_first_manifest_and_leaves_nothing_else(good: AdapterRef, tmp_path: Path):
    for attempt in ("first", "second"):
        folder = tmp_path / attempt
        shutil.copytree(good.path, folder)
        (folder / MANIFEST).unlink()
        digest, path = publish_adapter(folder, tmp_path / "root", {"base_digest": "b", "attempt": attempt})
        assert digest == good.digest
        assert not folder.exists()
    assert read_manifest(path)["attempt"] == "first"
    assert [p.name for p in (tmp_path / "root").iterdir()] == [good.digest]
