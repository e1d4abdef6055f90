"""Intruder dimensions weakened: plain LoRA again, under a digest of its own."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "models"))
from adapter_files import make_adapter

from models.adapters import CARD, check_adapter, read_manifest
from models.loading import load_base
from training.intruders import reduce_intruders
from training.lora_weights import read_lora


def test_the_intruders_of_a_strong_adapter_are_weakened(tiny_base: Path, tmp_path: Path):
    card = {"base": {"reference": "tiny:0", "licence": "x"}, "data": {}, "training": {}, "seed": 1, "code_commit": "c"}
    ref = make_adapter(tiny_base, tmp_path, scale=0.5, card={**card, "result": {"metrics": {}}})
    digest, path, found = reduce_intruders(ref, tiny_base, tmp_path, kept=0.25)
    assert found > 0
    made = ref.model_copy(update={"digest": digest, "path": str(path)})
    check_adapter(made)
    manifest = read_manifest(path)
    assert manifest["parents"] == [ref.digest]
    assert manifest["intruders"]["found"] == found
    told = json.loads((path / CARD).read_text())
    assert told["derived"] == {"parents": [ref.digest], "intruders": manifest["intruders"]}
    assert told["base"] == card["base"]
    before, after = read_lora(ref), read_lora(made)
    assert after.config == before.config
    layer = "model.layers.0.self_attn.q_proj"
    base = load_base(tiny_base)[0].get_submodule(layer).weight.data
    strongest = [float(torch.linalg.svdvals(base + one.delta(layer))[0]) for one in (before, after)]
    assert strongest[1] < strongest[0], "what stood out stands out less"
    assert reduce_intruders(ref, tiny_base, tmp_path, kept=0.25)[0] == digest


@pytest.mark.parametrize("scale", [0.0, 1e-4])
def test_an_adapter_without_intruders_is_itself(tiny_base: Path, tmp_path: Path, scale: float):
    ref = make_adapter(tiny_base, tmp_path, scale=scale)
    assert reduce_intruders(ref, tiny_base, tmp_path) == (ref.digest, Path(ref.path), 0)
