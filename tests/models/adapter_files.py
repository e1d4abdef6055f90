"""Small adapters for the tests, made the way training makes them."""

from pathlib import Path
from typing import Any

import torch

from configs.schema import TrainingSection
from data_contracts.records import AdapterRef
from models.files import model_digest
from models.loading import load_base
from training.lora import add_lora, publish


def make_adapter(
    base: Path,
    root: Path,
    *,
    version: str = "bot@v1",
    seed: int = 1,
    scale: float = 0.5,
    rank: int = 4,
    card: dict[str, Any] | None = None,
):
    """A random adapter that changes what the tiny base says (`scale` 0 leaves it as it is)."""
    model: Any = add_lora(load_base(base)[0], TrainingSection(rank=rank, alpha=2.0 * rank), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    digest = model_digest(base)
    name, path = publish(model, root, base_reference="tiny:0", manifest={"base_digest": digest}, card=card)
    return AdapterRef(version=version, digest=name, path=str(path), base_digest=digest)
