"""The watch: pull feedback, look at drift, move requests on, deliver what waits.

Runs on a schedule; safe to run twice at once.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from configs.errors import ConflictError, RegistryError, StoreError, TidemillError
from data_contracts.ids import new_id
from data_contracts.records import RetrainRequest, utc_now
from flows import delivery, erasure, retention, review_feed, triggers
from flows import drift as drift_look
from flows.context import Context
from flows.observer import Observer
from flows.pull import Pulled, pull
from monitoring.erasure_deadline import overdue_version, retire_overdue
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
    review: review_feed.FeedResult
    erasures: int = 0
    """Erasures that are still open."""
    retired: str | None = None
    """A tainted version taken out of service."""
    deleted: dict[str, int] = field(default_factory=dict)
    """What retention deleted, by kind."""
    pulled: tuple[Pulled, ...] = ()


def watch(context: Context, scheduler: delivery.Scheduler, observer: Observer) -> WatchResult | None:
    """One pass; None if another watch is at it."""
    owner = new_id()
    name = f"watch:{context.model}"
    with context.store.write() as conn:
        if leases.acquire(conn, name, owner, LEASE_S) is None:
            observer.log("Another watch is running.")
            return None
    stop = threading.Event()
    keeper = threading.Thread(target=_keep, args=(context, name, owner, stop), name="watch-lease", daemon=True)
    keeper.start()
    try:
        return _pass(context, scheduler, observer)
    finally:
        stop.set()
        keeper.join()
        with context.store.write() as conn:
            leases.release(conn, name, owner)


def _keep(context: Context, name: str, owner: str, stop: threading.Event) -> None:
    """Renew the lease: embedding a whole reference takes longer than it lasts."""
    while not stop.wait(LEASE_S / 4):
        try:
            with context.store.write() as conn:
                leases.acquire(conn, name, owner, LEASE_S)
        except Exception:  # noqa: S112 - tolerated: a busy or restarting database; the next renewal tries again
            continue


def _pass(context: Context, scheduler: delivery.Scheduler, observer: Observer) -> WatchResult:
    pulled = pull(context, observer)
    looked = _look(context, observer)
    for finding in looked.findings:
        # What people asked is shown by the console only: Prefect keeps what it is told beyond the reach of an erasure.
        facts = {key: finding.detail.get(key) for key in ("prompts", "share", "statistic", "threshold", "prompts_seen")}
        observer.log(f"Drift found by {finding.test}; the console and `tidemill status` name it.")
        observer.table("drift", [{"test": finding.test, **facts}], f"Drift: {finding.test}")
    retired = retire(context, observer)
    erasures = erasure.go_on(context, observer)
    deleted = _retain(context, observer)
    request, waiting_for = triggers.update(context)
    events = delivery.deliver_events(context, scheduler)
    started = tuple(delivery.reconcile(context, scheduler))
    aliases = deliver_aliases(context, observer)
    fed = review_feed.feed(context)
    if fed.added or fed.withdrawn:
        observer.log(f"Review queue: {sum(fed.added.values())} items added, {fed.withdrawn} withdrawn.")
    if request is not None:
        observer.log(f"{request.title}: {request.status}" + (f", waits for {waiting_for}" if waiting_for else ""))
    return WatchResult(
        looked,
        request,
        waiting_for,
        events,
        started,
        aliases,
        review=fed,
        erasures=erasures,
        retired=retired,
        deleted=deleted,
        pulled=pulled,
    )


def _look(context: Context, observer: Observer) -> drift_look.DriftLook:
    """One look at drift; whatever fails there (an embedder that cannot be fetched), the rest of the pass goes on."""
    try:
        looked = drift_look.look(context)
    except Exception as error:
        # Our own words only: what a library says of a text may quote it.
        said = f": {error.message}" if isinstance(error, TidemillError) else ""
        observer.log(f"Drift waits, tried again with the next pass: {type(error).__name__}{said}")
        return drift_look.DriftLook("failed")
    if looked.note:
        observer.log(looked.note)
    return looked


def retire(context: Context, observer: Observer) -> str | None:
    """Take a tainted champion out of service once its deadline has passed (the controller does the same)."""
    with context.store.read() as conn:
        if overdue_version(conn, context.model, utc_now()) is None:
            return None
    try:
        with context.store.write() as conn:
            retired = retire_overdue(conn, context.model, utc_now(), actor="watch")
    except ConflictError:
        return None  # somebody moved the pointer in between: the next look decides anew
    if retired is not None:
        observer.log(f"{retired} left service: its erasure's deadline has passed.")
    return retired


def _retain(context: Context, observer: Observer) -> dict[str, int]:
    """One pass of retention; without limits in the profile there is nothing to do."""
    try:
        deleted = {kind: n for kind, n in retention.retain(context).items() if n}
    except StoreError as error:
        observer.log(f"Retention waits: {error.message}")
        return {}
    except OSError as error:
        observer.log(f"Retention waits: {type(error).__name__}")
        return {}
    if deleted:
        observer.log(f"Retention deleted {deleted}.")
    return deleted


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
