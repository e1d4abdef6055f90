"""From the outbox to Prefect: an event for every request that became ready, and a run for every one that got lost.

An event emitted while the Prefect server is down is lost without an error, so an event is only a hint: the reconcile
pass starts whatever is ready but unclaimed, or claimed by a run that died. Its idempotency key is request and attempt,
so a repeat returns the same run, and a dead run can be followed by a new one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from data_contracts.records import RetrainRequest, utc_now
from flows.context import Context
from store import outbox, requests

EVENT = "tidemill.retrain.requested"
GRACE = timedelta(seconds=15)
"""How long an event may take to become a claimed run before reconcile starts one."""


class Scheduler(Protocol):
    """What starts flows. Prefect, or the in-memory double beside it."""

    def available(self) -> bool:
        """True if the server answers."""

    def emit(self, event: str, resource: str, payload: dict[str, str]) -> None:
        """Emit an event that an automation turns into a run."""

    def start(self, request: RetrainRequest, key: str) -> str:
        """Start a retrain run under an idempotency key; returns the run's id."""


@dataclass
class MemoryScheduler:
    """In-memory double: keeps what was emitted and started; `up` says whether it answers."""

    up: bool = True

    def __post_init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, str]]] = []
        self.runs: dict[str, str] = {}

    def available(self) -> bool:
        """As set."""
        return self.up

    def emit(self, event: str, resource: str, payload: dict[str, str]) -> None:
        """Keep the event; while down it is lost without an error, as in the real server."""
        if self.up:
            self.events.append((event, resource, payload))

    def start(self, request: RetrainRequest, key: str) -> str:
        """Keep the run; a repeat of the key returns the same run."""
        return self.runs.setdefault(key, request.id)


def deliver_events(context: Context, scheduler: Scheduler) -> int:
    """Emit the events in the outbox; returns how many. Nothing is emitted while the server does not answer."""
    with context.store.read() as conn:
        waiting = outbox.pending(conn, kind="event")
    if not waiting or not scheduler.available():
        return 0
    for entry in waiting:
        payload = {key: str(value) for key, value in entry.payload.items()}
        scheduler.emit(EVENT, f"tidemill.model.{payload['model']}", payload)
        with context.store.write() as conn:
            outbox.delivered(conn, entry.id)
    return len(waiting)


def reconcile(context: Context, scheduler: Scheduler, now: datetime | None = None) -> list[str]:
    """Start every ready request nobody claimed and every claimed one whose run is dead; returns the run ids."""
    now = now or utc_now()
    with context.store.read() as conn:
        request = requests.current(conn, context.model)
        dead = requests.expired(conn, context.model, now)
    if dead is not None:
        request = dead
    elif request is None or request.status != "ready" or request.updated_at + GRACE > now:
        return []
    if not scheduler.available():
        return []
    return [scheduler.start(request, f"{request.id}:{request.attempt}")]
