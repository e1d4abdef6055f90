import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[1] / "models"))
from adapter_files import make_adapter

from configs.errors import InputError
from data_contracts.records import AdapterRef
from models.adapters import CARD, CONFIG, README, WEIGHTS, check_adapter, publish_adapter, read_manifest
from training.card import write_card
from training.lora_weights import LoraWeights, read_lora
from training.scales import publish_scaled, publish_soup, scaled, soup

LAYERS = {"model.layers.0.q_proj": (24, 40), "model.layers.1.down_proj": (40, 12)}


def _weights(seed: int, rank: int = 4, alpha: float = 8.0, *, rslora: bool = False) -> LoraWeights:
    generator = torch.Generator().manual_seed(seed)
    layers = {
        name: (torch.randn(rank, inputs, generator=generator), torch.randn(outputs, rank, generator=generator))
        for name, (outputs, inputs) in LAYERS.items()
    }
    return LoraWeights({"r": rank, "lora_alpha": alpha, "use_rslora": rslora}, layers)


@given(scale=st.floats(0.01, 1.0), rslora=st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_scaled_adapter_changes_every_weight_by_that_share(scale: float, rslora: bool):
    whole = _weights(1, rslora=rslora)
    for name in LAYERS:
        torch.testing.assert_close(scaled(whole, scale).delta(name), scale * whole.delta(name))


@pytest.mark.parametrize("scale", [0.0, -0.5, 1.5, float("nan")])
def test_another_scale_is_refused(scale: float):
    with pytest.raises(InputError, match="scale"):
        scaled(_weights(1), scale)


@given(weights=st.lists(st.floats(0.1, 5.0), min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_a_soup_is_the_weighted_mean_of_the_dense_changes(weights: list[float]):
    parts = [_weights(n, rank=2 + n, alpha=4.0 + n, rslora=n == 1) for n in range(len(weights))]
    made, lost = soup(parts, weights)
    assert lost == 0
    assert made.rank == sum(part.rank for part in parts)
    for name in LAYERS:
        dense = sum(w * part.delta(name) for w, part in zip(weights, parts, strict=True)) / sum(weights)
        torch.testing.assert_close(made.delta(name), dense, rtol=1e-4, atol=1e-5)


def test_the_mean_of_the_factors_is_another_matrix():
    one, two = _weights(1), _weights(2)
    name = "model.layers.0.q_proj"
    naive = (
        one.scaling
        * ((one.layers[name][1] + two.layers[name][1]) / 2)
        @ ((one.layers[name][0] + two.layers[name][0]) / 2)
    )
    right = (one.delta(name) + two.delta(name)) / 2
    assert float((naive - right).norm() / right.norm()) > 0.5


def test_a_soup_of_too_high_a_rank_is_the_best_approximation_of_the_mean():
    parts = [_weights(n, rank=6) for n in range(3)]
    made, lost = soup(parts, max_rank=8)
    assert made.rank == 8
    shares = []
    for name in LAYERS:
        dense = sum(part.delta(name) for part in parts) / 3
        u, s, v = torch.linalg.svd(dense.double(), full_matrices=False)
        best = (u[:, :8] * s[:8]) @ v[:8]
        torch.testing.assert_close(made.delta(name).double(), best, rtol=1e-3, atol=1e-4)
        shares.append(float(s[8:].norm() / s.norm()))
    assert lost == pytest.approx(max(shares), rel=1e-3)


def test_a_layer_narrower_than_the_rank_keeps_the_rank_on_disk():
    parts = [_weights(n, rank=10) for n in range(3)]
    made, lost = soup(parts, max_rank=28)
    a, b = made.layers["model.layers.1.down_proj"]
    assert a.shape == (28, 12)
    assert b.shape == (40, 28)
    assert lost < 1e-6  # the layer has no more than 12 directions
    dense = sum(part.delta("model.layers.1.down_proj") for part in parts) / 3
    torch.testing.assert_close(made.delta("model.layers.1.down_proj"), dense, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("inf")]])
def test_weights_that_do_not_fit_are_refused(weights: list[float]):
    with pytest.raises(InputError, match="soup"):
        soup([_weights(1), _weights(2)], weights)


def test_adapters_of_other_layers_are_no_soup():
    other = LoraWeights(_weights(1).config, {"model.layers.0.q_proj": _weights(1).layers["model.layers.0.q_proj"]})
    with pytest.raises(InputError, match="same layers"):
        soup([_weights(2), other])


@pytest.fixture(scope="module")
def pair(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterRef]:
    root = tmp_path_factory.mktemp("adapters")
    return [make_adapter(tiny_base, root, version=f"bot@v{n}", seed=n, scale=0.05) for n in (1, 2)]


def test_published_scales_pass_the_checks_and_name_their_parent(
    pair: list[AdapterRef], tiny_base: Path, tmp_path: Path
):
    from models.loading import attach, load_base

    made = publish_scaled(pair[0], tmp_path, (0.5, 1.0))
    assert made[1.0] == (pair[0].digest, Path(pair[0].path))
    digest, path = made[0.5]
    half = pair[0].model_copy(update={"digest": digest, "path": str(path), "version": "bot@half"})
    check_adapter(half)
    manifest = read_manifest(path)
    assert (manifest["parents"], manifest["scale"]) == ([pair[0].digest], 0.5)
    assert manifest["base_digest"] == pair[0].base_digest
    layer = "model.layers.0.self_attn.q_proj"
    model = attach(load_base(tiny_base)[0], half)
    found = model.get_submodule(f"base_model.model.{layer}").get_delta_weight("bot@half")
    torch.testing.assert_close(found, 0.5 * read_lora(pair[0]).delta(layer))
    assert publish_scaled(pair[0], tmp_path, (0.5,))[0.5] == made[0.5]


def test_a_published_soup_is_the_mean_where_it_is_loaded(pair: list[AdapterRef], tiny_base: Path, tmp_path: Path):
    from models.loading import attach, load_base

    digest, path = publish_soup(pair, tmp_path, [3, 1])
    ref = pair[0].model_copy(update={"digest": digest, "path": str(path), "version": "bot@soup"})
    assert read_manifest(path)["parents"] == [one.digest for one in pair]
    assert read_manifest(path)["weights"] == [0.75, 0.25]
    model = attach(load_base(tiny_base)[0], ref)
    layer = "model.layers.1.mlp.down_proj"
    one, two = (read_lora(part).delta(layer) for part in pair)
    found = model.get_submodule(f"base_model.model.{layer}").get_delta_weight("bot@soup")
    torch.testing.assert_close(found, 0.75 * one + 0.25 * two, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="one base"):
        publish_soup([pair[0], pair[1].model_copy(update={"base_digest": "0" * 64})], tmp_path)


def test_a_scaled_adapter_shares_its_weights_and_brings_the_card_of_its_parent(pair: list[AdapterRef], tmp_path: Path):
    card = {"base": {"reference": "tiny:0", "licence": "x"}, "data": {}, "training": {}, "seed": 1, "code_commit": "c"}
    parent = _with_card(pair[0], tmp_path, {**card, "result": {"metrics": {}}})
    made = publish_scaled(parent, tmp_path, (0.3, 0.7))
    for scale, (digest, path) in made.items():
        assert (path / WEIGHTS).read_bytes() == (Path(parent.path) / WEIGHTS).read_bytes()
        assert (path / WEIGHTS).stat().st_ino == (Path(parent.path) / WEIGHTS).stat().st_ino, "on disk once"
        assert json.loads((path / CARD).read_text())["derived"] == {"parents": [parent.digest], "scale": scale}
        assert "Made from another adapter" in (path / README).read_text()
        check_adapter(parent.model_copy(update={"digest": digest, "path": str(path)}))
    shutil.rmtree(parent.path)
    digest, path = made[0.3]
    check_adapter(parent.model_copy(update={"digest": digest, "path": str(path)}))


def test_on_another_file_system_the_weights_are_copied(pair: list[AdapterRef], tmp_path: Path):
    memory = Path("/dev/shm")  # noqa: S108 - the one other file system there is on most machines
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("one file system")
    with tempfile.TemporaryDirectory(dir=memory) as elsewhere:
        copied = publish_scaled(pair[0], Path(elsewhere), (0.5,))[0.5]
        assert copied[0] == publish_scaled(pair[0], tmp_path, (0.5,))[0.5][0]
        assert (copied[1] / WEIGHTS).read_bytes() == (Path(pair[0].path) / WEIGHTS).read_bytes()


def test_a_soup_names_the_data_of_all_its_parents(pair: list[AdapterRef], tmp_path: Path):
    taught = [_with_card(ref, tmp_path, None, dataset_digest=name * 64) for ref, name in zip(pair, "ab", strict=True)]
    digest, path = publish_soup(taught, tmp_path)
    assert read_manifest(path)["dataset_digests"] == ["a" * 64, "b" * 64]
    more = pair[0].model_copy(update={"digest": digest, "path": str(path)})
    again = publish_soup([more, _with_card(pair[0], tmp_path, None, dataset_digest="c" * 64, alpha=3.0)], tmp_path)
    assert read_manifest(again[1])["dataset_digests"] == ["a" * 64, "b" * 64, "c" * 64]


PRIVATE = {"epsilon": 2.0, "delta": 1e-5, "incidents": "private", "not_covered": ["x"]}


@pytest.mark.parametrize(("private", "says"), [((), ""), ((0,), "claims none"), ((0, 1), "None of these is claimed")])
def test_a_soups_card_names_all_parents_and_claims_no_privacy(
    pair: list[AdapterRef], tmp_path: Path, private: tuple[int, ...], says: str
):
    parents = []
    for n, ref in enumerate(pair):
        card = {"base": {"reference": "tiny:0", "licence": "x"}, "data": {"dataset_digest": f"{n}" * 64}, "seed": n}
        card |= {"training": {"rank": 4, "epochs": n}, "code_commit": "c", "result": {"steps": n, "metrics": {}}}
        parents.append(_with_card(ref, tmp_path, {**card, "privacy": PRIVATE} if n in private else card))
    digest, path = publish_soup(parents, tmp_path)
    check_adapter(pair[0].model_copy(update={"digest": digest, "path": str(path)}))
    told = json.loads((path / CARD).read_text())
    assert told["derived"]["parents"] == [parent.digest for parent in parents]
    assert told["data"] == {p.digest[:12]: {"dataset_digest": f"{n}" * 64} for n, p in enumerate(parents)}
    assert told["training"] == {"rank": 4}, "what is alike"
    assert "privacy" not in told
    shown = (path / README).read_text()
    assert all(parent.digest in shown for parent in parents)
    assert ("## Privacy" in shown) == bool(private)
    assert "Differentially private by person" not in shown
    if says:
        assert says in told["privacy_not_claimed"]
        assert told["privacy_not_claimed"] in shown
        with_half = publish_soup(
            [pair[0].model_copy(update={"digest": digest, "path": str(path)}), parents[0]], tmp_path
        )
        assert "claims none" in (with_half[1] / README).read_text()


def test_a_soup_with_a_parent_without_a_card_has_none(pair: list[AdapterRef], tmp_path: Path):
    card = {"base": {"reference": "tiny:0", "licence": "x"}, "data": {}, "training": {}, "seed": 1, "code_commit": "c"}
    one = _with_card(pair[0], tmp_path, {**card, "result": {"metrics": {}}})
    assert not (publish_soup([one, pair[1]], tmp_path)[1] / CARD).exists()


def _with_card(
    ref: AdapterRef, root: Path, card: dict[str, Any] | None, *, alpha: float | None = None, **facts: str
) -> AdapterRef:
    """A copy of an adapter, published with a card and more facts in its manifest."""
    folder = root / f"copy-{ref.digest[:6]}-{len(list(root.iterdir()))}"
    shutil.copytree(ref.path, folder)
    (folder / "manifest.json").unlink()
    if card is not None:
        write_card(folder, card)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, "lora_alpha": alpha or config["lora_alpha"] + len(facts)}))
    digest, path = publish_adapter(folder, root, {"base_digest": ref.base_digest, **facts})
    return ref.model_copy(update={"digest": digest, "path": str(path)})
