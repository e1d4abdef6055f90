"""Every served request becomes an `Interaction`: redacted, then committed before the response ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_contracts.records import Interaction, Message, utc_now
from data_contracts.redaction import Redactor
from serving.engines.base import Delta
from serving.router import Route
from serving.signals import answer_flags
from store.writer import GroupCommitWriter

COMMIT_TIMEOUT_S = 15.0


@dataclass
class Exchange:
    """One request on its way: what was asked, by whom, what has come so far."""

    id: str
    principal: str
    conversation: str
    messages: tuple[Message, ...]
    route: Route
    started: float = field(default_factory=time.perf_counter)
    text: list[str] = field(default_factory=list)
    first_at: float | None = None
    last: Delta | None = None

    def add(self, delta: Delta) -> None:
        """Take note of a piece of the answer."""
        if delta.text:
            self.text.append(delta.text)
        if self.first_at is None:
            self.first_at = time.perf_counter()
        if delta.finished:
            self.last = delta

    @property
    def answer(self) -> str:
        """The answer so far."""
        return "".join(self.text)

    @property
    def seconds(self) -> float:
        """Time since the request came."""
        return time.perf_counter() - self.started


class Recorder:
    """Turns exchanges into committed interactions."""

    def __init__(
        self, writer: GroupCommitWriter, redactor: Redactor, *, model: str, prompt_version: str, price_per_1k: int
    ) -> None:
        self._writer = writer
        self._redactor = redactor
        self._model = model
        self._prompt_version = prompt_version
        self._price = price_per_1k

    def submit(self, exchange: Exchange, extra_flags: Sequence[str] = ()) -> asyncio.Future[None]:
        """Hand the exchange to the writer; the future resolves after its COMMIT."""
        return asyncio.wrap_future(self._writer.submit_interaction(self._interaction(exchange, extra_flags)))

    async def commit(self, exchange: Exchange, extra_flags: Sequence[str] = ()) -> None:
        """Wait until the exchange is durable.

        Raises:
            StoreError, InputError: the store refused it.
            TimeoutError: the store did not answer in time.
        """
        await asyncio.wait_for(asyncio.shield(self.submit(exchange, extra_flags)), COMMIT_TIMEOUT_S)

    def _interaction(self, exchange: Exchange, extra_flags: Sequence[str]) -> Interaction:
        session = self._redactor.session()
        messages, _ = self._redactor.redact_messages(list(exchange.messages), session)
        answer, _ = session.redact(exchange.answer)
        done, route = exchange.last, exchange.route
        flags = list(extra_flags)
        if done is not None:
            flags += answer_flags(exchange.answer, done.finish_reason)
        tokens_in = done.tokens_in if done else 0
        tokens_out = done.tokens_out if done else 0
        first = exchange.first_at
        return Interaction(
            id=exchange.id,
            created_at=utc_now(),
            model=self._model,
            principal=exchange.principal,
            conversation=exchange.conversation,
            messages=tuple(messages),
            prompt_version=self._prompt_version,
            answer=answer,
            arm=route.arm,
            version=route.version,
            rollout_id=route.rollout_id,
            route_revision=route.revision,
            arm_share=route.share,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            latency_ms=round(exchange.seconds * 1000),
            ttft_ms=round((first - exchange.started) * 1000) if first is not None else 0,
            cost_microdollars=-(-(tokens_in + tokens_out) * self._price // 1000),
            flags=tuple(dict.fromkeys(flags)),
        )
