"""Merged export: the base's weights with an adapter's change added, as a model folder that needs no adapter.

Tensor by tensor over the safetensors files, so no more than one file is in memory and names and types stay the base's.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from configs.errors import AdapterRejectedError, InputError, ModelUnavailableError
from data_contracts.digests import file_digest
from data_contracts.records import AdapterRef
from data_contracts.snapshot_files import fsync
from models.adapters import check_tokenizer
from models.cache import MANIFEST
from models.files import check_model_files, model_digest, model_files
from models.jobs import write_json
from training.lora_weights import LoraWeights, read_lora


def _refuse_quantised(base: Path) -> None:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if config.get("quantization_config"):
        raise ModelUnavailableError(
            "an adapter cannot be merged into a quantised base: its change is finer than the base's steps",
            where=base / "config.json",
            expected="no quantization_config",
            found=config["quantization_config"].get("quant_method", "quantised"),
            fix="merge into the base in full precision, or serve base and adapter side by side",
        )


def _merged_file(source: Path, target: Path, weights: LoraWeights) -> set[str]:
    """Write one file with the changes of its layers added in fp32; returns the layers it held."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    met: set[str] = set()
    tensors: dict[str, Any] = {}
    with safe_open(source, framework="pt") as opened:
        for key in opened.keys():  # noqa: SIM118 - not a mapping
            tensor = opened.get_tensor(key)
            layer = key.removesuffix(".weight")
            if key.endswith(".weight") and layer in weights.layers:
                change = weights.delta(layer)
                if change.shape != tensor.shape or not tensor.is_floating_point():
                    raise AdapterRejectedError(
                        "the adapter's layer has another shape or type than the base's",
                        where=f"{source}: {key}",
                        expected=f"{tuple(tensor.shape)} {tensor.dtype}",
                        found=tuple(change.shape),
                        fix="merge an adapter of this base",
                    )
                tensor = (tensor.float() + change).to(tensor.dtype)
                met.add(layer)
            tensors[key] = tensor.contiguous()
        metadata = opened.metadata()
    save_file(tensors, target, metadata=metadata)
    return met


def check_out(out: Path) -> None:
    """Refuse a folder that is there already.

    Raises:
        InputError: as said.
    """
    if out.exists():
        raise InputError("the merged model needs a folder of its own", where=out, expected="no such folder yet")


def merge(base: Path, ref: AdapterRef, out: Path, *, base_reference: str = "") -> dict[str, Any]:
    """Write base and adapter as one model to `out`: nothing is there before all of it is.

    Args:
        base: folder of the base model, in full precision.
        ref: the adapter.
        out: a folder that does not exist yet.
        base_reference: how the base is named, for the manifest.

    Returns:
        The manifest: digest of the merged model, digests of base and adapter, and of each file.

    Raises:
        InputError: `out` exists.
        ModelUnavailableError: the base is quantised, or its files must not be loaded.
        AdapterRejectedError: the adapter does not pass its checks, or was trained on another base.
    """
    check_out(out)
    check_model_files(base)
    _refuse_quantised(base)
    found = model_digest(base)
    if found != ref.base_digest:
        raise AdapterRejectedError("trained on another base", where=ref.path, expected=ref.base_digest, found=found)
    check_tokenizer(ref, base)
    weights = read_lora(ref)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        met: set[str] = set()
        for source in model_files(base):
            if source.suffix == ".safetensors":
                met |= _merged_file(source, temporary / source.name, weights)
            else:
                shutil.copyfile(source, temporary / source.name)
        if missing := sorted(weights.layers.keys() - met):
            raise AdapterRejectedError(
                "the adapter adapts a layer the base's files do not name", where=ref.path, found=missing[0]
            )
        manifest = _manifest(temporary, ref, base_reference)
        for path in temporary.iterdir():
            path.chmod(0o644)
            fsync(path)
        write_json(temporary / MANIFEST, manifest)
        temporary.chmod(0o755)
        os.replace(temporary, out)
        fsync(out.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def _manifest(folder: Path, ref: AdapterRef, base_reference: str) -> dict[str, Any]:
    return {
        "digest": model_digest(folder),
        "reference": f"{base_reference or 'base'} + {ref.version}",
        "merged": {
            "base": base_reference,
            "base_digest": ref.base_digest,
            "adapter": ref.version,
            "adapter_digest": ref.digest,
        },
        "files": {path.name: file_digest(path) for path in model_files(folder)},
    }
