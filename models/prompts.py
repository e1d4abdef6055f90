"""A conversation as tokens: the one place where the chat template is applied, for serving, training and scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def _plain(message: Any) -> dict[str, str]:
    if isinstance(message, Mapping):
        return {"role": str(message["role"]), "content": str(message["content"])}
    return {"role": message.role, "content": message.content}


def prompt_ids(tokenizer: Any, messages: Sequence[Any], *, answer: bool = True) -> list[int]:
    """Token ids of a conversation up to where the assistant begins to speak.

    Args:
        messages: mappings with `role` and `content`, or `Message` records.
        answer: False leaves out the turn the assistant is to begin.
    """
    text = tokenizer.apply_chat_template([_plain(m) for m in messages], add_generation_prompt=answer, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def completion_ids(tokenizer: Any, completion: str) -> list[int]:
    """Token ids of an answer and the end of turn: exactly what the model must emit after `prompt_ids`."""
    return [*tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end an answer: the tokenizer's end of turn and the generation config's."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    several = configured if isinstance(configured, (list, tuple)) else [configured]
    return frozenset(i for i in (*several, tokenizer.eos_token_id) if i is not None)
