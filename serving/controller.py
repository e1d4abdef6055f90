"""The rollout controller: committed rows in, one decision out, all in one transaction.

It runs on a thread beside every gateway; one of them leads, by lease. Each turn it folds what was committed since the
watermark into the evidence, asks `monitoring.canary.decide`, and applies the answer (pointer, rollout, audit, outbox)
in the same transaction. A crash or a new leader goes on from the stored watermark: no event counts twice.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

import store.feedback
import store.gateways
import store.interactions
import store.leases
import store.rollouts
from configs.errors import ConflictError
from configs.schema import RolloutSection
from data_contracts.digests import digest
from data_contracts.ids import is_the_asker, new_id
from data_contracts.records import Feedback, Interaction, Rollout, RolloutDecision, utc_now
from monitoring.canary import (
    THUMBS_DOWN,
    CanaryState,
    bad_events,
    canary_share,
    decide,
    evidence,
    feedback_is_bad,
    latency_limit,
)
from monitoring.erasure_deadline import overdue_version, retire_overdue
from monitoring.rollout_actions import begin, finish, ramp
from serving.http_errors import unexpected
from store.engine import Store

ACTOR = "controller"
FOLD_LIMIT = 2000
HISTORY_POINTS = 500
CLOCK_SKEW = timedelta(seconds=5)
"""By how much the clocks of two gateways may differ."""
_ASSIGNED = "assigned"
"""Row of `rollout_evidence` for a user's first request."""
_CANCELLED = "cancelled"


@dataclass
class Evidence:
    """What is stored of a rollout between two turns."""

    canary: CanaryState
    matured_to: int
    """Commit number up to which requests were counted as matured."""
    stage_requests: int = 0
    stage: int = 0
    assigned_to: str = ""
    """Time (ISO) up to which users' first requests were counted; empty = none yet."""
    marks: list[tuple[str, int]] = field(default_factory=list)
    """(time, commit number then) of recent turns: what began after a time was committed after its number."""
    history: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without the history."""
        return {
            "canary": self.canary.to_dict(),
            "matured_to": self.matured_to,
            "assigned_to": self.assigned_to,
            "marks": self.marks,
            "stage": self.stage,
            "stage_requests": self.stage_requests,
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any], history: list[dict[str, Any]]) -> Evidence:
        """The evidence that `to_dict` described."""
        return cls(
            canary=CanaryState.from_dict(state["canary"]),
            matured_to=int(state["matured_to"]),
            assigned_to=str(state.get("assigned_to", "")),
            marks=[(str(at), int(seq)) for at, seq in state.get("marks", ())],
            stage=int(state["stage"]),
            stage_requests=int(state["stage_requests"]),
            history=history,
        )


class Controller:
    """Watches the open rollout of one model and acts on it.

    Args:
        store: where everything is.
        model: the product model's name.
        config: stages, tests, intervals.
    """

    def __init__(self, store_: Store, model: str, config: RolloutSection) -> None:
        self.id = new_id()
        self._store = store_
        self._model = model
        self._config = config
        self._lease = f"rollout:{digest(model)[:40]}"
        self._lease_s = max(5.0, 5 * config.controller_interval_s)
        self._blind_since: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rollout-controller", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the current turn and let another gateway lead."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)
        # A store that is gone cannot be told; the lease runs out by itself.
        with contextlib.suppress(Exception), self._store.write() as conn:
            store.leases.release(conn, self._lease, self.id)

    def _run(self) -> None:
        while not self._stop.wait(self._config.controller_interval_s):
            self.look()

    def look(self) -> None:
        """One turn that raises nothing; a canary nobody has been able to judge for too long is taken back."""
        try:
            self.turn()
            self._blind_since = None
        except ConflictError:
            return  # somebody promoted, rolled back or aborted in between: look again
        except Exception as error:
            unexpected(error)  # the store was away; evidence is where it was
            self._fail_safe(type(error).__name__)

    def _fail_safe(self, fault: str) -> None:
        now = time.monotonic()
        if self._blind_since is None:
            self._blind_since = now
        if now - self._blind_since < self._config.blind_rollback_s:
            return
        # A store that is away refuses this too, and the next turn tries again.
        with contextlib.suppress(Exception), self._store.write() as conn:
            rollout = store.rollouts.current(conn, self._model)
            leads = store.leases.acquire(conn, self._lease, self.id, self._lease_s) is not None
            if leads and rollout is not None and rollout.state == "running":
                seconds = f"{self._config.blind_rollback_s:g} s"
                finish(
                    conn,
                    rollout,
                    "rolled_back",
                    actor=ACTOR,
                    reason=f"its evidence could not be judged for {seconds} ({fault})",
                )
                self._blind_since = None

    def turn(self, now: datetime | None = None) -> RolloutDecision | None:
        """One look at the open rollout; None if there is none, it cannot begin yet, or another gateway leads.

        Raises:
            ConflictError: the pointer or the rollout was changed meanwhile; nothing was written.
        """
        now = now or utc_now()
        with self._store.read() as conn:
            overdue = overdue_version(conn, self._model, now)
            if store.rollouts.current(conn, self._model) is None and overdue is None:
                return None
        with self._store.write() as conn:
            if store.leases.acquire(conn, self._lease, self.id, self._lease_s, now) is None:
                return None
            retire_overdue(conn, self._model, now, actor=ACTOR)
            rollout = store.rollouts.current(conn, self._model)
            if rollout is None:
                return None
            if rollout.state == "pending":
                self._begin(conn, rollout, now)
                return None
            return self._watch(conn, rollout, now)

    def _begin(self, conn: Connection, rollout: Rollout, now: datetime) -> None:
        """Start once every live gateway has the candidate; give up if one cannot load it."""
        live = store.gateways.live(conn, self._model)
        version = rollout.candidate.version
        for gateway in live:
            broken = next((e for e in gateway.error.split(" ; ") if e.startswith(f"{version}: ")), None)
            if broken is not None:
                reason = f"a gateway cannot load the candidate: {broken}"
                finish(conn, rollout, "rolled_back", actor=ACTOR, reason=reason)
                return
        if (now - rollout.created_at).total_seconds() > self._config.horizon_s:
            finish(conn, rollout, "expired", actor=ACTOR, reason="no gateway was ready for it within the horizon")
            return
        if not live or any(version not in gateway.loaded for gateway in live):
            return
        timings = store.interactions.latencies(conn, self._model, rollout.previous.version)
        begin(
            conn,
            rollout,
            share=self._config.stages[0],
            latency_limit_ms=latency_limit(timings, self._config),
            actor=ACTOR,
        )
        start = store.interactions.latest_seq(conn)
        fresh = Evidence(canary=CanaryState.new(self._config), matured_to=start)
        store.rollouts.save_state(conn, rollout.id, start, fresh.to_dict(), [])

    def _watch(self, conn: Connection, rollout: Rollout, now: datetime) -> RolloutDecision:
        watermark, state, history = store.rollouts.state(conn, rollout.id)
        # A rollout begun without a stored state (put to running by hand) is judged from its first request on.
        known = Evidence.from_dict(state, history) if state else Evidence(CanaryState.new(self._config), watermark)
        watermark = self._fold(conn, rollout, known, watermark)
        self._count_users(conn, rollout, known, now)
        self._mature(conn, rollout, known, now)
        decision = decide(
            known.canary,
            self._config,
            stage=rollout.stage,
            stage_started_s_ago=_seconds(now, rollout.stage_started_at),
            started_s_ago=_seconds(now, rollout.started_at),
            stage_requests=known.stage_requests,
        )
        self._note(known, rollout, decision, now)
        self._apply(conn, rollout, known, decision)
        store.rollouts.save_state(conn, rollout.id, watermark, known.to_dict(), known.history)
        return decision

    def _fold(self, conn: Connection, rollout: Rollout, known: Evidence, watermark: int) -> int:
        """Fold requests and feedback committed after the watermark, in the order of commits."""
        served = store.interactions.since(conn, self._model, watermark, FOLD_LIMIT, rollout_id=rollout.id)
        said = store.feedback.for_rollout(conn, rollout.id, watermark, FOLD_LIMIT)
        # Where a limit cut one list, the other is read only as far.
        ends = [rows[-1][0] for rows in (served, said) if len(rows) >= FOLD_LIMIT]
        horizon = min(ends) if ends else None
        events: list[tuple[int, int, Interaction, Feedback | None]] = [(seq, 0, i, None) for seq, i in served]
        events += [(seq, 1, i, f) for seq, f, i in said]
        for seq, _, interaction, feedback in sorted(events, key=lambda e: e[:2]):
            if horizon is not None and seq > horizon:
                break
            if feedback is None:
                self._fold_request(conn, rollout, known, seq, interaction)
            elif feedback_is_bad(feedback) and _counts(feedback, interaction):
                self._fold_bad(conn, rollout, known, seq, interaction, THUMBS_DOWN)
            watermark = seq
        return watermark

    def _fold_request(
        self, conn: Connection, rollout: Rollout, known: Evidence, seq: int, interaction: Interaction
    ) -> None:
        for metric in sorted(bad_events(interaction, rollout.latency_limit_ms)):
            self._fold_bad(conn, rollout, known, seq, interaction, metric)

    def _count_users(self, conn: Connection, rollout: Rollout, known: Evidence, now: datetime) -> None:
        """Count each user at their first request, in the order requests began, once all of that time have ended.

        In the order of commits a slow arm's users would come late, and look as if they were missing.
        """
        upto = now - timedelta(seconds=self._config.settle_s)
        after = datetime.fromisoformat(known.assigned_to) if known.assigned_to else rollout.started_at
        known.marks.append((now.isoformat(), store.interactions.latest_seq(conn)))
        if after is None or upto <= after:
            return
        earlier = [seq for at, seq in known.marks if datetime.fromisoformat(at) <= after - CLOCK_SKEW]
        first = max(earlier, default=0)
        for seq, interaction in store.interactions.settled(conn, rollout.id, first, after, upto):
            q = canary_share(interaction)
            if store.rollouts.first_bad(conn, rollout.id, _ASSIGNED, interaction.principal, interaction.arm, seq, q):
                known.canary.assign(interaction.arm, q)
        known.assigned_to = upto.isoformat()
        known.marks = [
            (at, seq) for at, seq in known.marks if datetime.fromisoformat(at) > after - CLOCK_SKEW or seq == first
        ]

    def _fold_bad(
        self, conn: Connection, rollout: Rollout, known: Evidence, seq: int, interaction: Interaction, metric: str
    ) -> None:
        q = canary_share(interaction)
        first = store.rollouts.first_bad(conn, rollout.id, metric, interaction.principal, interaction.arm, seq, q)
        if first:
            known.canary.bad(metric, interaction.arm, q)

    def _mature(self, conn: Connection, rollout: Rollout, known: Evidence, now: datetime) -> None:
        """Count requests that are old enough for their feedback to have come, each once, in the order of commits."""
        if rollout.stage != known.stage:
            known.stage, known.stage_requests = rollout.stage, 0
        old_enough = now - timedelta(seconds=self._config.feedback_maturity_s)
        rows = store.interactions.since(conn, self._model, known.matured_to, FOLD_LIMIT, rollout_id=rollout.id)
        for seq, interaction in rows:
            if interaction.created_at > old_enough:
                break
            known.matured_to = seq
            if _CANCELLED in interaction.flags:
                continue
            bad = set(bad_events(interaction, rollout.latency_limit_ms))
            said = store.feedback.for_interaction(conn, interaction.id)
            thumbs = [f for f in said if (f.thumb or f.rating) and _counts(f, interaction)]
            if thumbs and feedback_is_bad(thumbs[-1]):
                bad.add(THUMBS_DOWN)
            known.canary.request(interaction.arm, bad)
            if interaction.arm == "canary" and _in_stage(interaction, rollout):
                known.stage_requests += 1

    def _note(self, known: Evidence, rollout: Rollout, decision: RolloutDecision, now: datetime) -> None:
        """Add a point to the history when something changed; past its limit every second point goes."""
        figures = evidence(known.canary, self._config)
        point = {
            "stage": rollout.stage,
            "share": self._config.stages[min(rollout.stage, len(self._config.stages) - 1)],
            "users": figures["users"],
            "matured": figures["matured"],
            "log10_e": {metric: round(m["log10_e"], 4) for metric, m in figures["metrics"].items()},
            "promotion_log10_e": round(figures["promotion_log10_e"], 4),
            "action": decision.action,
        }
        if known.history and {**known.history[-1], "at": None} == {**point, "at": None}:
            return
        known.history.append({**point, "at": now.isoformat()})
        if len(known.history) > HISTORY_POINTS:
            del known.history[1:-1:2]

    def _apply(self, conn: Connection, rollout: Rollout, known: Evidence, decision: RolloutDecision) -> None:
        reason = "; ".join(decision.reasons)
        if decision.action == "ramp":
            stage = rollout.stage + 1
            ramp(conn, rollout, stage=stage, share=self._config.stages[stage], actor=ACTOR, reason=reason)
            known.stage, known.stage_requests = stage, 0
        elif decision.action == "promote":
            finish(conn, rollout, "promoted", actor=ACTOR, reason=reason)
        elif decision.action == "rollback":
            finish(conn, rollout, "rolled_back", actor=ACTOR, reason=reason)
        elif decision.action == "expire":
            finish(conn, rollout, "expired", actor=ACTOR, reason=reason)


def _counts(feedback: Feedback, interaction: Interaction) -> bool:
    """True for a verdict of the one who asked, or of a reviewer."""
    return feedback.scope == "review" or is_the_asker(feedback.principal, interaction.principal)


def _in_stage(interaction: Interaction, rollout: Rollout) -> bool:
    """True for a request that came in the current stage, not one of an earlier stage that matured in it."""
    return rollout.stage_started_at is None or interaction.created_at >= rollout.stage_started_at


def _seconds(now: datetime, since: datetime | None) -> float:
    return (now - since).total_seconds() if since is not None else 0.0
