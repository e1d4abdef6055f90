"""The watch: pull feedback, look at drift, move requests on, deliver what waits.

Runs on a schedule; safe to run twice at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from configs.errors import RegistryError
from data_contracts.ids import new_id
from data_contracts.records import RetrainRequest
from flows import delivery, triggers
from flows import drift as drift_look
from flows.context import Context
from flows.observer import Observer
from flows.pull import Pulled, pull
from store import leases, outbox

LEASE_S = 120.0


@dataclass(frozen=True)
class WatchResult:
    """What one watch saw and did."""

    drift: drift_look.DriftLook
    request: RetrainRequest | None
    waiting_for: str
    events: int
    started: tuple[str, ...]
    aliases: int
    pulled: tuple[Pulled, ...] = ()


def watch(context: Context, scheduler: delivery.Scheduler, observer: Observer) -> WatchResult | None:
    """One pass; None if another watch is at it."""
    owner = new_id()
    name = f"watch:{context.model}"
    with context.store.write() as conn:
        if leases.acquire(conn, name, owner, LEASE_S) is None:
            observer.log("Another watch is running.")
            return None
    try:
        return _pass(context, scheduler, observer)
    finally:
        with context.store.write() as conn:
            leases.release(conn, name, owner)


def _pass(context: Context, scheduler: delivery.Scheduler, observer: Observer) -> WatchResult:
    pulled = pull(context, observer)
    looked = drift_look.look(context)
    for finding in looked.findings:
        observer.log(f"Drift ({finding.test}): {finding.name}")
        observer.table(
            "drift", [{"prompt": text} for text in finding.detail.get("examples", [])], f"Drift: {finding.name}"
        )
    request, waiting_for = triggers.update(context)
    events = delivery.deliver_events(context, scheduler)
    started = tuple(delivery.reconcile(context, scheduler))
    aliases = deliver_aliases(context, observer)
    if request is not None:
        observer.log(f"{request.title}: {request.status}" + (f", waits for {waiting_for}" if waiting_for else ""))
    return WatchResult(looked, request, waiting_for, events, started, aliases, pulled)


def deliver_aliases(context: Context, observer: Observer) -> int:
    """Mirror the serving pointer into the registry's aliases; a registry that is down is tried again later."""
    with context.store.read() as conn:
        if not outbox.pending(conn, kind="alias", limit=1):
            return 0
    from registry_hooks.outbox import deliver_aliases as deliver

    try:
        return deliver(context.store, context.registry)
    except RegistryError as error:
        observer.log(f"Aliases wait: {error}")
        return 0
