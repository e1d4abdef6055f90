"""LoRA on a base model: wrapping it with a fresh adapter, and writing a trained one to files."""

from __future__ import annotations

import json
import shutil
import tempfile
from enum import Enum
from pathlib import Path
from typing import Any

from configs.errors import TrainingError
from configs.schema import TrainingSection
from models.adapters import CONFIG, WEIGHTS, publish_adapter
from models.row_attention import attend_by_row
from training.card import write_card
from training.faults import writing


def linear_layers(model: Any) -> list[str]:
    """Last names of all linear layers but the language model head, sorted (for example q_proj, up_proj)."""
    import torch

    head = model.get_output_embeddings()
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    if not names:
        raise TrainingError("the base has no linear layers to adapt", found=type(model).__name__)
    return sorted(names)


def add_lora(model: Any, config: TrainingSection, *, seed: int) -> Any:
    """Wrap `model` with a fresh plain LoRA adapter on all linear layers; B starts at zero, A from the seed.

    On a CPU the model attends by row from then on (`models.row_attention`): packs may be long.

    Returns:
        A PeftModel with one adapter `default`; only its weights require gradients.
    """
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    attend_by_row(model)
    if config.quantization != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # peft takes any number
        lora_dropout=config.dropout,
        use_rslora=config.rslora,
        target_modules=linear_layers(model),
        bias="none",
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)
    wrapped = get_peft_model(model, lora)
    if config.gradient_checkpointing:
        wrapped.enable_input_require_grads()  # or nothing that is computed again would lead to an adapter
        wrapped.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return wrapped


def _plain(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Enum):
        return value.value
    return str(value)


def publish(
    model: Any,
    adapters_root: Path,
    *,
    base_reference: str,
    manifest: dict[str, Any],
    card: dict[str, Any] | None = None,
) -> tuple[str, Path]:
    """Write the adapter `default` of a PeftModel, and its training card if there is one; publish it under its digest.

    The configuration names the base by its reference, not by this machine's path, so the digest is the same anywhere.

    Returns:
        (digest, folder).

    Raises:
        TrainingError: the disk is full; nothing is published.
    """
    adapters_root.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".publishing-", dir=adapters_root))
    try:
        with writing(adapters_root):
            return _write(model, temporary, adapters_root, base_reference, manifest, card)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(
    model: Any,
    temporary: Path,
    adapters_root: Path,
    base_reference: str,
    manifest: dict[str, Any],
    card: dict[str, Any] | None,
) -> tuple[str, Path]:
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    tensors = {k: v.detach().float().cpu().contiguous() for k, v in get_peft_model_state_dict(model).items()}
    save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
    settings = {**model.peft_config["default"].to_dict(), "base_model_name_or_path": base_reference}
    settings["inference_mode"] = True
    text = json.dumps(settings, indent=1, sort_keys=True, default=_plain)
    (temporary / CONFIG).write_text(text + "\n", encoding="utf-8")
    if card is not None:
        write_card(temporary, card)
    return publish_adapter(temporary, adapters_root, manifest)
