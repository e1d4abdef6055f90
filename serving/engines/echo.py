"""An engine without a model: answers with the prompt's words, for tests and dry runs.

The answer of version V to "a b c" is "V: a b c" (`base` answers "base: a b c"); `replies` overrides it by version.
A token is a word. Sampling settings do not matter: the answer is always the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from configs.errors import AdapterRejectedError, NotFoundError, UnavailableError
from data_contracts.records import BASE_VERSION, AdapterRef, Message
from serving.engines.base import Delta, FinishReason, GenerationRequest, queue_full

Reply = Callable[[Sequence[Message]], str]


class EchoEngine:
    """In-memory double of an engine.

    Args:
        replies: version -> function of the conversation; a version without one echoes.
        delay_s: pause before each word.
        queue_limit: requests answered at a time; one more is refused.
        broken: versions whose adapters are refused.
    """

    def __init__(
        self,
        replies: dict[str, Reply] | None = None,
        *,
        delay_s: float = 0.0,
        queue_limit: int = 256,
        broken: frozenset[str] = frozenset(),
    ) -> None:
        self.replies = dict(replies or {})
        self.delay_s = delay_s
        self._queue_limit = queue_limit
        self._broken = broken
        self._loaded: set[str] = {BASE_VERSION}
        self._running = 0
        self._closed = False

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Delta]:
        """Stream the answer word by word."""
        if self._closed:
            raise UnavailableError("the engine is closed")
        if request.version not in self._loaded:
            raise NotFoundError("this version is not loaded", where=request.version)
        if self._running >= self._queue_limit:
            raise queue_full(self._queue_limit)
        self._running += 1
        try:
            text, reason, words = self._answer(request)
            tokens_in = self.count_tokens(request.messages)
            sent = 0
            for position in range(1, words + 1):
                await asyncio.sleep(self.delay_s)
                if self._closed:
                    raise UnavailableError("the engine was closed")
                end = len(text) if position == words else _end_of_word(text, position)
                yield Delta(text[sent:end])
                sent = end
            yield Delta("", finished=True, finish_reason=reason, tokens_in=tokens_in, tokens_out=words)
        finally:
            self._running -= 1

    def _answer(self, request: GenerationRequest) -> tuple[str, FinishReason, int]:
        reply = self.replies.get(request.version)
        prompt = next((m.content for m in reversed(request.messages) if m.role == "user"), "")
        full = reply(request.messages) if reply else f"{request.version}: {prompt}"
        for mark in request.stop:
            full = full.partition(mark)[0]
        words = full.split(" ")
        if len(words) > request.max_tokens:
            return " ".join(words[: request.max_tokens]), "length", request.max_tokens
        return full, "stop", len(words)

    def load(self, ref: AdapterRef) -> None:
        """Remember the version, unless it is one of `broken`."""
        if ref.version in self._broken:
            raise AdapterRejectedError("this adapter is broken", where=ref.version)
        self._loaded.add(ref.version)

    def unload(self, version: str) -> None:
        if version != BASE_VERSION:
            self._loaded.discard(version)

    def loaded(self) -> frozenset[str]:
        return frozenset(self._loaded)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(m.content.split()) for m in messages)

    def queued(self) -> int:
        return 0

    def close(self) -> None:
        self._closed = True


def _end_of_word(text: str, words: int) -> int:
    """Where the first `words` words of a text separated by single spaces end."""
    end = -1
    for _ in range(words):
        end = text.index(" ", end + 1)
    return end
