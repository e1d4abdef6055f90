"""From a conversation to prompt ids, and to the part of it that other requests share."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from data_contracts.records import Message
from models.prompts import prompt_ids

KEPT_HEADS = 64


class Prompt(NamedTuple):
    """Prompt ids; the first `shared` of them are the system message's, the same for all requests that bring it."""

    ids: list[int]
    shared: int


class PromptEncoder:
    """Applies the chat template. Safe to use from several threads."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._heads: dict[str, list[int]] = {}
        self._special = tuple(sorted(filter(None, tokenizer.all_special_tokens), key=len, reverse=True))

    def encode(self, messages: Sequence[Message]) -> Prompt:
        """Ids of the conversation up to where the answer begins."""
        ids = self._ids(messages, answer=True)
        if not messages or messages[0].role != "system" or len(messages) == 1:
            return Prompt(ids, 0)
        head = self._head(messages[0])
        # A template that closes or reorders differently when more messages follow shares nothing.
        shared = len(head) if len(head) < len(ids) and ids[: len(head)] == head else 0
        return Prompt(ids, shared)

    def decode(self, ids: list[int]) -> str:
        """Text of ids, special tokens left out."""
        with self._lock:
            return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _head(self, system: Message) -> list[int]:
        kept = self._heads.get(system.content)
        if kept is None:
            kept = self._ids((system,), answer=False)
            if len(self._heads) >= KEPT_HEADS:
                self._heads.clear()
            self._heads[system.content] = kept
        return kept

    def _ids(self, messages: Sequence[Message], *, answer: bool) -> list[int]:
        plain = [{"role": m.role, "content": self._without_special(m.content)} for m in messages]
        with self._lock:
            return prompt_ids(self._tokenizer, plain, answer=answer)

    def _without_special(self, content: str) -> str:
        """Control tokens written out by a user must not end their message and begin a system one."""
        changed = True
        while changed:
            before = content
            for token in self._special:
                content = content.replace(token, "")
            changed = content != before
        return content
