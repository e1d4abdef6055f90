"""One set of LoRA weights at several strengths: told apart by digest, loaded once.

An adapter adds s B A to a weight, s = alpha / r (alpha / sqrt(r) where rank-stabilised). Two published adapters whose
weights are the same bytes and whose configurations differ in alpha alone are one adapter at two strengths: the second
needs no loading, only another s in each layer.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from data_contracts.digests import digest, file_digest
from models.adapters import WEIGHTS


def weights_key(folder: Path, config: dict[str, Any]) -> str:
    """What two strengths of one adapter share: a digest of the weights file and of the configuration without alpha.

    Args:
        folder: an adapter that passed `check_adapter`.
        config: what `check_adapter` returned.
    """
    if config.get("alpha_pattern"):
        # Layers with an alpha of their own have no single strength: such an adapter is like no other.
        return digest([json.dumps(config, sort_keys=True), file_digest(folder / WEIGHTS)])
    shape = {key: value for key, value in config.items() if key != "lora_alpha"}
    return digest([json.dumps(shape, sort_keys=True), file_digest(folder / WEIGHTS)])


def set_alpha(peft_model: Any, version: str, alpha: float) -> None:
    """Give a loaded adapter another alpha, in place; bit for bit what loading it with that alpha gives.

    Args:
        peft_model: holds `version`.
        version: name of the loaded adapter.
        alpha: as in adapter_config.json.
    """
    from peft.tuners.lora import LoraLayer

    for module in peft_model.modules():
        if isinstance(module, LoraLayer) and version in module.scaling:
            rank = module.r[version]
            stable = module.use_rslora.get(version, False)
            module.scaling[version] = alpha / (math.sqrt(rank) if stable else rank)
            module.lora_alpha[version] = alpha
