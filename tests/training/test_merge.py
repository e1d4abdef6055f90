import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "models"))
from adapter_files import make_adapter

from configs.errors import AdapterRejectedError, InputError, ModelUnavailableError
from data_contracts.records import AdapterRef
from models.cache import MANIFEST
from models.files import model_digest
from models.loading import attach, load_base
from training.merge import merge

TOKENS = torch.tensor([[5, 17, 300, 41, 8, 99]])


@pytest.fixture(scope="module")
def adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterRef:
    return make_adapter(tiny_base, tmp_path_factory.mktemp("adapters"), scale=0.05)


def test_a_merged_model_answers_like_base_and_adapter(tiny_base: Path, adapter: AdapterRef, tmp_path: Path):
    manifest = merge(tiny_base, adapter, tmp_path / "merged", base_reference="tiny:0")
    merged, _ = load_base(tmp_path / "merged")
    with torch.no_grad():
        base = load_base(tiny_base)[0](TOKENS).logits
        adapted = attach(load_base(tiny_base)[0], adapter)(TOKENS).logits
        found = merged(TOKENS).logits
    torch.testing.assert_close(found, adapted, rtol=1e-4, atol=1e-4)
    assert float((adapted - base).abs().max()) > 0.1
    assert manifest["digest"] == model_digest(tmp_path / "merged") != model_digest(tiny_base)
    assert manifest["merged"]["adapter_digest"] == adapter.digest
    assert json.loads((tmp_path / "merged" / MANIFEST).read_text()) == manifest
    assert [p.name for p in tmp_path.iterdir()] == ["merged"]


def test_a_quantised_base_another_base_and_a_folder_in_use_are_refused(
    tiny_base: Path, adapter: AdapterRef, tmp_path: Path
):
    out = tmp_path / "merged"
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "bitsandbytes"}}))
    with pytest.raises(ModelUnavailableError, match="quantised base"):
        merge(base, adapter, out)
    (base / "config.json").write_text(json.dumps({**config, "rope_theta": 1.0}))
    with pytest.raises(AdapterRejectedError, match="another base"):
        merge(base, adapter, out)
    with pytest.raises(InputError, match="folder of its own"):
        merge(tiny_base, adapter, tmp_path)
    assert not out.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["base"]
