"""Drift of live prompts: embed what is new, ask the monitor, keep its state and write down what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from configs.errors import InputError, NotFoundError, TidemillError
from flows.context import Context
from store import audit, erasure, interactions, pointer
from store import drift as drift_table

if TYPE_CHECKING:
    from monitoring.drift.monitor import DriftFinding

MIN_BATCH = 16
"""Fewer new prompts than this wait for the next look: loading the embedder costs more than they tell."""
MAX_BATCH = 2000


@dataclass(frozen=True)
class DriftLook:
    """One look at the traffic."""

    state: str
    """`off`, `warming`, `waiting`, `watching` or `failed`."""
    prompts: int = 0
    findings: tuple[DriftFinding, ...] = ()
    note: str = ""
    """What the log should say of it."""


def _reference_due(context: Context) -> tuple[bool, int, str]:
    """Whether a new reference must be frozen, the watermark so far, and the reference's name so far.

    A reference belongs to a champion: it is frozen anew after each promotion, so that what the new champion was taught
    is no longer news.
    """
    with context.store.read() as conn:
        champion = pointer.get(conn, context.model).champion.version
        known = drift_table.state(conn, context.model)
    if known is None:
        return True, 0, ""
    watermark, reference, state = known
    return state.get("champion") != champion, watermark, reference


def _freeze(context: Context) -> bool:
    """Freeze the reference from all traffic up to now; False while there is too little."""
    from models.embeddings import Embedder
    from monitoring.drift.reference import build_reference, delete_reference, save_reference, select_prompts

    with context.store.read() as conn:
        erased_before = erasure.newest(conn)
        watermark = interactions.latest_seq(conn)
        champion = pointer.get(conn, context.model).champion.version
        rows = interactions.prompts(conn, context.model, upto_seq=watermark, limit=20_000)
    asked = select_prompts([(principal, prompt) for _, principal, prompt in rows], context.config.drift)
    if len(asked) < context.config.drift.reference_min:
        return False
    embeddings = Embedder(context.embedder().path).encode([prompt for _, prompt in asked])
    reference = build_reference(asked, embeddings, context.config.drift)
    save_reference(reference, context.state.drift)
    with context.store.write() as conn:
        if erasure.newest(conn) != erased_before:
            delete_reference(reference.digest, context.state.drift)
            return False  # somebody was erased meanwhile: the next look freezes what is left
        drift_table.save_state(
            conn, context.model, watermark, reference.digest, {"champion": champion, "monitor": None}
        )
        audit.append(
            conn, "watch", "drift.reference_frozen", reference.digest, {"prompts": len(asked), "champion": champion}
        )
    return True


def _lost(context: Context, name: str, error: TidemillError) -> DriftLook:
    """A reference that cannot be read is given up: the next look freezes another from what is there."""
    from monitoring.drift.reference import delete_reference

    # First the files: the same traffic would be frozen under the same name, and what is there is not written again.
    delete_reference(name, context.state.drift)
    with context.store.write() as conn:
        known = drift_table.state(conn, context.model)
        if known is None or known[1] != name:
            return DriftLook("watching")  # an erasure put another in its place meanwhile
        drift_table.forget_state(conn, context.model, name)
        audit.append(conn, "watch", "drift.reference_lost", name, {"error": error.message})
    return DriftLook("warming", note=f"Drift begins anew, its reference is lost: {error.message}.")


def look(context: Context) -> DriftLook:
    """Test the prompts that came since the last look."""
    if not context.config.drift.enabled:
        return DriftLook("off")
    due, watermark, reference_digest = _reference_due(context)
    if due:
        return DriftLook("watching" if _freeze(context) else "warming")
    with context.store.read() as conn:
        rows = interactions.prompts_since(conn, context.model, watermark, limit=MAX_BATCH)
    if len(rows) < MIN_BATCH:
        return DriftLook("waiting", len(rows))
    from models.embeddings import Embedder
    from monitoring.drift.monitor import DriftMonitor
    from monitoring.drift.reference import load_reference

    try:
        reference = load_reference(context.state.drift, reference_digest)
    except (InputError, NotFoundError) as error:
        return _lost(context, reference_digest, error)
    with context.store.read() as conn:
        known = drift_table.state(conn, context.model)
    state = known[2] if known else {}
    monitor = DriftMonitor(reference, context.config.drift, state.get("monitor"))
    prompts = [prompt for _, _, prompt in rows]
    embeddings = Embedder(context.embedder().path).encode(prompts)
    findings = tuple(monitor.observe(prompts, embeddings, [principal for _, principal, _ in rows]))
    with context.store.write() as conn:
        now = drift_table.state(conn, context.model)
        if now is None or now[1:] != (reference_digest, state):
            return DriftLook("watching")  # an erasure changed what this look began from: the next one looks again
        for finding in findings:
            drift_table.add_finding(conn, context.model, finding.test, finding.name, finding.detail)
            audit.append(conn, "watch", "drift.detected", context.model, {"test": finding.test})
        drift_table.save_state(
            conn, context.model, rows[-1][0], reference_digest, {**state, "monitor": monitor.state()}
        )
    return DriftLook("watching", len(prompts), findings)
