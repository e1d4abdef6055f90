"""The customers' side of the HTTP API: ask, judge, give feedback; eight at a time, like a small shop's traffic."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from cli.demo.customers import Manner, Visit, correction_of
from cli.demo.story import IncidentStory, Thing, same_answer
from configs.errors import UnavailableError

CONCURRENCY = 8
_MAX_FAILURES = 20


@dataclass(frozen=True)
class Answer:
    """What the gateway answered."""

    request_id: str
    text: str
    version: str
    arm: str


@dataclass
class Tally:
    """What happened so far; `add` is safe to call from several threads."""

    requests: int = 0
    asked: int = 0
    """Requests about a thing of the company (not small talk)."""
    right: int = 0
    thumbs_down: int = 0
    corrections: Counter[str] = field(default_factory=Counter)
    """Corrections sent, by manner."""
    duplicates: int = 0
    """Feedback sent again and acknowledged as already known."""
    failures: list[str] = field(default_factory=list)
    by_version: dict[str, list[int]] = field(default_factory=dict)
    """version -> [asked, right]."""
    held_out: dict[str, bool] = field(default_factory=dict)
    """Held-out question -> answered the company's way, at its last time of asking."""
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, visit: Visit, answer: Answer) -> bool:
        """Count one answer; True if it is the company's."""
        with self.lock:
            self.requests += 1
            if visit.thing is None:
                return True
            good = same_answer(answer.text, visit.thing.answer)
            self.asked += 1
            self.right += good
            counts = self.by_version.setdefault(answer.version, [0, 0])
            counts[0] += 1
            counts[1] += good
            if visit.question in visit.thing.held_out:
                self.held_out[visit.question] = good
            return good

    def fail(self, sentence: str) -> None:
        """Note a request that failed."""
        with self.lock:
            self.requests += 1
            self.failures.append(sentence)

    @property
    def share_right(self) -> float:
        """Share of the company's questions answered its way; nan before the first."""
        return self.right / self.asked if self.asked else float("nan")


class Customers:
    """A pool of customers at one gateway."""

    def __init__(self, gateway_url: str, model: str, *, seed: int, timeout_s: float = 120.0) -> None:
        self.model = model
        self.seed = seed
        limits = httpx.Limits(max_connections=2 * CONCURRENCY)
        self.client = httpx.Client(base_url=gateway_url, timeout=timeout_s, limits=limits)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def ask(self, principal: str, prompt: str, model: str | None = None) -> Answer:
        """One question, one answer.

        Raises:
            UnavailableError: the gateway answered with an error or not at all.
        """
        body = {
            "model": model or self.model,
            "messages": [{"role": "user", "content": prompt}],
            "user": principal,
            "temperature": 0,
        }
        response = self._post("/v1/chat/completions", body)
        data = response.json()
        return Answer(
            request_id=data["id"],
            text=data["choices"][0]["message"]["content"] or "",
            version=response.headers.get("x-tidemill-version", ""),
            arm=response.headers.get("x-tidemill-arm", ""),
        )

    def feedback(self, body: dict[str, Any]) -> str:
        """Send one piece of feedback; returns its status, `accepted` or `duplicate`."""
        status: str = self._post("/feedback", body).json().get("status", "accepted")
        return status

    def open_incident(self, incident: IncidentStory, principal: str) -> str:
        """Report something that must never happen again, with the reviewed answer; returns what the model had said."""
        answer = self.ask(principal, incident.prompt)
        self._post(
            "/incidents",
            {
                "request_id": answer.request_id,
                "title": incident.title,
                "severity": incident.severity,
                "messages": [{"role": "user", "content": incident.prompt}],
                "required": incident.required,
                "paraphrases": list(incident.paraphrases),
                "user": principal,
            },
        )
        return answer.text

    def _post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        try:
            response = self.client.post(path, json=body)
        except httpx.HTTPError as error:
            raise UnavailableError(
                "the gateway did not answer", where=path, found=f"{type(error).__name__}: {error}"
            ) from error
        if response.status_code >= 400:
            raise UnavailableError(
                "the gateway refused a customer's request",
                where=path,
                expected="a 2xx status",
                found=f"{response.status_code} {response.text[:300]}",
            )
        return response

    def visit(self, visit: Visit, tally: Tally) -> None:
        """Ask, judge, and say so."""
        try:
            answer = self.ask(visit.principal, visit.prompt)
            good = tally.add(visit, answer)
            if visit.thing is not None:
                self._react(visit, answer, good, tally)
        except UnavailableError as error:
            tally.fail(str(error))

    def _react(self, visit: Visit, answer: Answer, good: bool, tally: Tally) -> None:
        about = {"request_id": answer.request_id, "user": visit.principal}
        self.feedback({**about, "kind": "thumb", "thumb": 1 if good else -1})
        if good:
            return
        with tally.lock:
            tally.thumbs_down += 1
        if visit.manner is Manner.THUMB:
            return
        rng = random.Random(f"{self.seed}/{visit.principal}/{visit.prompt}")
        correction = {**about, "kind": "correction", "text": correction_of(visit, rng)}
        self.feedback(correction)
        again = self.feedback(correction) if visit.manner is Manner.TWICE else ""
        with tally.lock:
            tally.corrections[visit.manner.value] += 1
            tally.duplicates += again == "duplicate"

    def talk(
        self,
        visits: Iterable[Visit],
        tally: Tally,
        *,
        stop: threading.Event | None = None,
        on_visit: Callable[[Tally], None] | None = None,
    ) -> Tally:
        """Let the customers come, eight at a time, until there are no more visits or `stop` is set.

        Raises:
            UnavailableError: too many requests failed; the gateway is not well.
        """
        source, turn = iter(visits), threading.Lock()

        def next_visit() -> Visit | None:
            if stop is not None and stop.is_set():
                return None
            with turn:
                return next(source, None)

        def customer() -> None:
            while (visit := next_visit()) is not None and len(tally.failures) < _MAX_FAILURES:
                self.visit(visit, tally)
                if on_visit is not None:
                    on_visit(tally)

        with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="customer") as pool:
            for future in [pool.submit(customer) for _ in range(CONCURRENCY)]:
                future.result()
        if len(tally.failures) >= _MAX_FAILURES:
            raise UnavailableError("the customers gave up", found=tally.failures[-1], fix="see the gateway's log")
        return tally

    def examine(
        self, things: Sequence[Thing], model: str, on_answer: Callable[[], None] | None = None
    ) -> dict[str, bool]:
        """Ask every held-out question of one pinned version; question -> answered the company's way."""

        def one(item: tuple[Thing, str]) -> tuple[str, bool]:
            thing, question = item
            good = same_answer(self.ask("examiner", question, model).text, thing.answer)
            if on_answer is not None:
                on_answer()
            return question, good

        items: Iterator[tuple[Thing, str]] = ((thing, q) for thing in things for q in thing.held_out)
        with ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="examiner") as pool:
            return dict(pool.map(one, items))
