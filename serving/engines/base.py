"""The seam between the gateway and whatever generates text.

An engine keeps the base and several adapters loaded and answers requests for any of them. `EchoEngine` is the
in-memory double; both pass the same contract tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from configs.errors import UnavailableError
from data_contracts.records import BASE_VERSION, AdapterRef, Message

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One answer to generate."""

    messages: tuple[Message, ...]
    max_tokens: int
    version: str = BASE_VERSION
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these; they are not part of it."""
    seed: int | None = None


@dataclass(frozen=True)
class Delta:
    """A piece of the answer. The last one has `finished` set and carries the counts."""

    text: str
    finished: bool = False
    finish_reason: FinishReason | None = None
    tokens_in: int = 0
    tokens_out: int = 0


class Engine(Protocol):
    """Generates text with the base or a loaded adapter."""

    def generate(self, request: GenerationRequest) -> AsyncIterator[Delta]:
        """Stream one answer; closing the iterator cancels the request.

        Raises:
            InputError: the prompt does not fit the engine's context (code `context_length_exceeded`).
            NotFoundError: the version is not loaded.
            UnavailableError: the queue is full (code `queue_full`), or the engine is closed.
        """
        ...

    def load(self, ref: AdapterRef) -> None:
        """Check an adapter and make its version answerable; loading it again does nothing. Blocks.

        Raises:
            AdapterRejectedError: the adapter did not pass the checks.
        """
        ...

    def unload(self, version: str) -> None:
        """Forget an adapter; requests already running on it finish first. Blocks. Unknown versions are ignored."""
        ...

    def loaded(self) -> frozenset[str]:
        """Versions that can be asked for now; `base` always."""
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Prompt tokens of a conversation, chat template included."""
        ...

    def queued(self) -> int:
        """Requests that wait for a place in the batch."""
        ...

    def close(self) -> None:
        """Stop; what still runs ends with UnavailableError."""
        ...


def queue_full(limit: int) -> UnavailableError:
    """The error of one request too many."""
    error = UnavailableError("too many requests are waiting", expected=f"at most {limit}", fix="try again in a moment")
    error.code = "queue_full"
    return error
