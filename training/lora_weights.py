"""A published adapter's weights as matrices: read, as dense deltas, and written again.

W' = W + s B A with s = alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA (Hu et al., arXiv 2106.09685;
Kalajdzievski, arXiv 2312.03732). A: (r, inputs), B: (outputs, r).
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import AdapterRejectedError
from configs.limits import MAX_RANK
from data_contracts.records import AdapterRef
from models.adapters import CONFIG, WEIGHTS, check_adapter, publish_adapter
from training.card import write_card

PREFIX = "base_model.model."


@dataclass(frozen=True)
class LoraWeights:
    """An adapter.

    Attributes:
        config: adapter_config.json.
        layers: name of the base's layer -> (A (r, inputs), B (outputs, r)), fp32.
    """

    config: dict[str, Any]
    layers: dict[str, tuple[Any, Any]]

    @property
    def rank(self) -> int:
        return int(self.config["r"])

    @property
    def scaling(self) -> float:
        """s in W + s B A, the same for all layers."""
        root = math.sqrt(self.rank) if self.config.get("use_rslora") else self.rank
        return float(self.config["lora_alpha"]) / root

    def delta(self, layer: str) -> Any:
        """The dense s B A of a layer (outputs, inputs), fp32."""
        a, b = self.layers[layer]
        return self.scaling * (b @ a)


def refuse_patterns(ref: AdapterRef, config: dict[str, Any]) -> None:
    """Refuse an adapter whose rank or scale differs from layer to layer.

    Raises:
        AdapterRejectedError: as said.
    """
    for name in ("rank_pattern", "alpha_pattern"):
        if config.get(name):
            raise AdapterRejectedError(
                "only an adapter with one rank and one scale for all layers can be rewritten",
                where=Path(ref.path) / CONFIG,
                expected=f"an empty {name}",
                found=config[name],
            )


def read_lora(ref: AdapterRef, *, max_rank: int = MAX_RANK) -> LoraWeights:
    """Read an adapter after its checks.

    Raises:
        AdapterRejectedError: see `check_adapter`; or ranks or scales that differ from layer to layer.
    """
    from safetensors.torch import load_file

    config = check_adapter(ref, max_rank=max_rank)
    refuse_patterns(ref, config)
    tensors = load_file(Path(ref.path) / WEIGHTS)
    names = sorted(key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight"))
    return LoraWeights(
        config,
        {
            name.removeprefix(PREFIX): (
                tensors[f"{name}.lora_A.weight"].float(),
                tensors[f"{name}.lora_B.weight"].float(),
            )
            for name in names
        },
    )


def publish_lora(
    weights: LoraWeights, adapters_root: Path, manifest: dict[str, Any], *, card: dict[str, Any] | None = None
) -> tuple[str, Path]:
    """Write an adapter and publish it under its digest.

    Args:
        weights: the adapter.
        adapters_root: where adapters are.
        manifest: as for `publish_adapter`; names the parents.
        card: the training card (`training.card`); None writes none.

    Returns:
        (digest, folder).
    """
    from safetensors.torch import save_file

    adapters_root.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".publishing-", dir=adapters_root))
    try:
        tensors = {}
        for name, (a, b) in weights.layers.items():
            tensors[f"{PREFIX}{name}.lora_A.weight"] = a.contiguous()
            tensors[f"{PREFIX}{name}.lora_B.weight"] = b.contiguous()
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        text = json.dumps(weights.config, indent=1, sort_keys=True)
        (temporary / CONFIG).write_text(text + "\n", encoding="utf-8")
        if card is not None:
            write_card(temporary, card)
        return publish_adapter(temporary, adapters_root, manifest)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
