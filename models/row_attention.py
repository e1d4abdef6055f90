"""Attention of packed rows, one row at a time: its cost grows with the rows, not with the square of the pack.

A pack's block-diagonal mask makes every token look at all others and throws most of it away, so packs must be short;
but short packs read all weights for few tokens. On two cores packs of 640 tokens with attention by row train 1.2 times
as fast as packs of 192 with the mask. A GPU keeps the mask: there a kernel for each row would cost more than it saves.
"""

from __future__ import annotations

from functools import cache
from typing import Any

NAME = "tidemill_rows"
"""Of the implementation, among those of transformers."""
_MORE_THAN_CAUSAL = ("sliding_window", "softcap", "s_aux", "position_bias", "cache")
"""Arguments of layers whose attention is more than causal; they keep the mask."""


def _attend(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> tuple[Any, None]:
    """Scaled dot-product attention; within rows if their lengths are given, by the mask otherwise.

    Args: query (1, heads, T, d); key and value (1, key heads, T, d); the rest as transformers passes it, and
        `row_lengths`, which sum to T.

    Returns:
        ((1, T, heads, d), None).
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    lengths = kwargs.pop("row_lengths", None)
    if lengths is None or any(kwargs.get(name) is not None for name in _MORE_THAN_CAUSAL):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    rows = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    attended = [
        torch.nn.functional.scaled_dot_product_attention(
            q,
            k,
            v,
            dropout_p=kwargs.get("dropout", 0.0),
            is_causal=True,
            scale=kwargs.get("scaling"),
            enable_gqa=k.shape[1] != q.shape[1],
        )
        for q, k, v in rows
    ]
    return torch.cat(attended, 2).transpose(1, 2).contiguous(), None


@cache
def _register() -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, _attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def can_attend_by_row(model: Any) -> bool:
    """True for an architecture that hands all arguments on to its attention."""
    return bool(getattr(model, "_supports_attention_backend", False))


def attend_by_row(model: Any) -> None:
    """Let a base model on a CPU attend within the rows of its packs, if its architecture can."""
    if model.device.type == "cpu" and can_attend_by_row(model) and model.config._attn_implementation == "sdpa":
        _register()
        model.set_attn_implementation(NAME)


def row_lengths(model: Any, lengths: tuple[int, ...]) -> dict[str, Any]:
    """What to add to the arguments of a packed forward pass."""
    return {"row_lengths": lengths} if model.config._attn_implementation == NAME else {}
