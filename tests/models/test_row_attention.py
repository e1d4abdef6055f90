"""Packed rows that attend by row: what each alone would give, forward and backward; the mask where it must be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from models.packing import Pack, TokenRow, pack, token_log_probabilities, token_nll
from models.row_attention import NAME, attend_by_row, row_lengths

SIZES: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "attn_implementation": "sdpa", "tie_word_embeddings": False,
}  # fmt: skip
ROWS = [
    TokenRow(tuple(range(1, 6)), (7, 8, 9)),
    TokenRow((3,), (4,)),
    TokenRow(tuple(range(10, 30)), tuple(range(30, 45))),
]


def llama(**more: Any) -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, **more))


def alone(model: Any) -> torch.Tensor:
    return torch.cat([token_nll(model, pack([row])) for row in ROWS])


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_rows_of_a_pack_are_what_each_is_alone(key_heads: int) -> None:
    model = llama() if key_heads == 2 else LlamaForCausalLM(LlamaConfig(**{**SIZES, "num_key_value_heads": key_heads}))
    expected = alone(model)
    gradients = torch.autograd.grad(expected.sum(), list(model.parameters()))
    attend_by_row(model)
    assert row_lengths(model, (8, 2, 35)) == {"row_lengths": (8, 2, 35)}
    packed = pack(ROWS)
    assert packed.lengths == (8, 2, 35)
    found = token_nll(model, packed)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for one, other in zip(torch.autograd.grad(found.sum(), list(model.parameters())), gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    whole = token_log_probabilities(model, packed)
    picked = whole[packed.at].gather(1, packed.targets[:, None])[:, 0]
    torch.testing.assert_close(-picked, expected, atol=1e-5, rtol=1e-5)


def test_a_pass_without_lengths_has_the_mask_it_always_had() -> None:
    model = llama()
    ids = torch.tensor([[1, 2, 3, 4], [0, 0, 5, 6]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    packed = pack(ROWS)

    def outcomes() -> list[torch.Tensor]:
        padded = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[mask.bool()]
        by_positions = model(input_ids=packed.ids, position_ids=packed.positions, use_cache=False).logits
        return [padded, by_positions]

    before = outcomes()
    attend_by_row(model)
    for one, other in zip(outcomes(), before, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


def test_a_window_is_kept() -> None:
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4))
    expected = alone(model)
    attend_by_row(model)
    assert model.config._attn_implementation == NAME
    torch.testing.assert_close(token_nll(model, pack(ROWS)), expected, atol=1e-5, rtol=1e-5)
    model.config.sliding_window = None
    for layer in model.model.layers:
        layer.self_attn.sliding_window = None
    assert (token_nll(model, pack(ROWS)) - expected).abs().max() > 1e-4, "the window is what made the difference"


def test_an_architecture_that_hands_nothing_on_keeps_its_attention() -> None:
    model = llama()
    model._supports_attention_backend = False
    attend_by_row(model)
    assert model.config._attn_implementation == "sdpa"
    assert row_lengths(model, (1,)) == {}
    torch.testing.assert_close(token_nll(model, pack(ROWS)), alone(model), atol=1e-5, rtol=1e-5)
    assert isinstance(pack(ROWS), Pack)
