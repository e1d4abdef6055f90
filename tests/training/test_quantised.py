"""QLoRA on a CPU: the base's linear layers in 4 or 8 bits, the adapter in fp32."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from training_samples import make_job

from configs.errors import ConfigError
from data_contracts.records import AdapterArtifact, AdapterRef
from models.adapters import check_adapter
from training.trainer import train


@pytest.mark.parametrize(("kind", "layer"), [("nf4", "Linear4bit"), ("int8", "Linear8bitLt")])
def test_an_adapter_is_trained_on_a_quantised_base(tiny_base: Path, tmp_path: Path, kind: str, layer: str) -> None:
    from models.loading import load_base

    model, _ = load_base(tiny_base, quantization=kind)
    assert layer in {type(module).__name__ for module in model.modules()}
    job = {**make_job(tiny_base, tmp_path, epochs=8, quantization=kind), "work_dir": str(tmp_path / "work")}
    events: list[dict[str, object]] = []
    done = train(job, events.append, threading.Event())["artifact"]
    artifact = AdapterArtifact.model_validate(done)
    assert artifact.loss_curve[-1] < 1 < 5 < artifact.loss_curve[0]
    ref = AdapterRef(version="bot@v1", digest=artifact.digest, path=artifact.path, base_digest=artifact.base_digest)
    assert check_adapter(ref)["r"] == 8
    again = train({**job, "out_dir": str(tmp_path / "again")}, events.append, threading.Event())["artifact"]
    assert again["digest"] == artifact.digest


def test_without_bitsandbytes_it_is_one_clear_error(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.loading import load_base

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as Python marks what cannot be imported
    with pytest.raises(ConfigError, match="needs bitsandbytes") as caught:
        load_base(tiny_base, quantization="int8")
    assert caught.value.where == "training.quantization: int8"
    assert "tidemill[gpu]" in str(caught.value.fix)
