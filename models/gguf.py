"""One-time conversion of a GGUF file to fp32 safetensors that every library reads."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from models.quiet import quiet
from models.tiny import forget_writer_version


def convert_gguf(source: Path, folder: Path) -> None:
    """Read weights, configuration and tokenizer of a GGUF file and write them to `folder`.

    A model loaded from GGUF refuses `save_pretrained` (it counts as quantized), so the dequantised weights are
    copied into a fresh model made from the same configuration without its quantisation.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet()
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar has no other switch
        loaded = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = AutoModelForCausalLM.from_config(config).to(torch.float32)
    fresh.load_state_dict(loaded.state_dict())
    eos = tokenizer.eos_token_id
    if fresh.generation_config.eos_token_id is None and eos is not None:
        fresh.generation_config.eos_token_id = eos
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name in ("config.json", "generation_config.json"):
        if (folder / name).is_file():
            forget_writer_version(folder / name)
