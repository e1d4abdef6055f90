"""A deliberately bad adapter: the champion's shapes filled with noise. Finite, bounded, loadable, and useless.

It passes every check before loading, as a broken training run would; only live traffic can tell. It never passes the
gate, so it is registered with an override that is recorded by name.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from configs.errors import DemoError
from data_contracts.digests import digest
from data_contracts.records import AdapterArtifact, AdapterRef, ModelVersion
from models.adapters import CONFIG, WEIGHTS, publish_adapter

NOISE = 0.06
"""Standard deviation of every weight: enough to drown the base's own signal in each layer."""


def _fill_with_noise(source: Path, target: Path, seed: int) -> int:
    """Write tensors of the same names and shapes full of noise; returns the largest rank."""
    import torch
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(seed)
    tensors = load_file(source)
    noise = {
        name: (NOISE * torch.randn(tensor.shape, generator=generator)).contiguous()
        for name, tensor in sorted(tensors.items())
    }
    save_file(noise, target, metadata={"format": "pt"})
    return max(min(tensor.shape) for tensor in tensors.values())


def make_bad_adapter(champion: AdapterRef, version: ModelVersion, out_dir: Path, *, seed: int = 5) -> AdapterArtifact:
    """Publish the bad adapter beside the good ones.

    Args:
        champion: whose shapes are copied.
        version: the champion's registered version (for the dataset digest it falsely claims).
        out_dir: the folder of adapters.
        seed: of the noise.

    Raises:
        DemoError: the champion's files are not there.
    """
    source = Path(champion.path)
    if not (source / WEIGHTS).is_file():
        raise DemoError("the champion's adapter is not on disk", where=source, expected=WEIGHTS)
    out_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".bad-", dir=out_dir))
    try:
        shutil.copyfile(source / CONFIG, folder / CONFIG)
        rank = _fill_with_noise(source / WEIGHTS, folder / WEIGHTS, seed)
        config_digest = digest(["noise", NOISE, seed])
        manifest = {
            "base_digest": champion.base_digest,
            "dataset_digest": version.dataset_digest,
            "config_digest": config_digest,
            "code_commit": version.code_commit,
            "note": "noise, made by the demo to be rolled back",
        }
        adapter_digest, path = publish_adapter(folder, out_dir, manifest)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return AdapterArtifact(
        digest=adapter_digest,
        path=str(path),
        base_digest=champion.base_digest,
        dataset_digest=version.dataset_digest,
        config_digest=config_digest,
        code_commit=version.code_commit,
        rank=rank,
        alpha=float(2 * rank),
        steps=0,
        tokens=0,
        seconds=0.0,
    )
