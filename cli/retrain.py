"""What `tidemill retrain` does: record a manual cause, or say what a retrain now would do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data_contracts.records import Cause, FeedbackKind, LabelledRow, SnapshotRow, utc_now
from flows import triggers
from flows.context import Context
from flows.observer import PrintObserver
from store import requests

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

    from data_contracts.curation.incidents import IncidentTeaching


def ask_for_retrain(context: Context, *, here: bool) -> dict[str, Any]:
    """Record the request; the watch schedule (or, with `here`, this process) starts it."""
    request, created = triggers.record(context, Cause(kind="manual", at=utc_now(), detail={"title": "manual"}))
    current, waiting_for = triggers.update(context)
    outcome = ""
    if here and current is not None and current.status == "ready":
        from flows.pipeline import run_retrain

        outcome = run_retrain(context, request.id, PrintObserver())
    with context.store.read() as conn:
        latest = requests.get(conn, request.id) or request
    return {
        "request": latest.id,
        "title": latest.title,
        "status": latest.status,
        "new": created,
        "waiting_for": waiting_for,
        "outcome": outcome,
    }


def plan_retrain(context: Context) -> dict[str, Any]:
    """Rows, rejects by reason, replay, time and memory of a retrain now; nothing is written.

    The contract and the curation run for real on the rows of the store (on thumbs too, where they have a weight), the
    training is planned with the trainer's own tokeniser and timed for a few steps on the base; replay answers are taken
    to be as long as they may be.

    Raises:
        TrainingError: the training would not fit into memory; says what would.
    """
    from data_contracts.contract_kinds import judge_kinds, judge_rated, together
    from data_contracts.curation import held_prompts
    from flows.curating import curated as curated_rows
    from flows.curating import teaching_thumbs
    from flows.suites import evaluation_prompts, with_system
    from store import feedback, quarantine

    with context.store.read() as conn:
        rows, thumbs = feedback.labelled(conn, context.model), _thumbs(context, conn)
        statuses = quarantine.statuses(conn, context.model)
    released = {row_id for row_id, status in statuses.items() if status == "released"}
    contracts = {kind: context.resource(path) for kind, path in context.config.ingest.by_kind().items()}
    kinds = judge_kinds(rows, contracts, released=frozenset(released))
    if thumbs:
        kinds.append(judge_rated(thumbs, contracts["thumb"], released=frozenset(released)))
    report = together(kinds, [*rows, *thumbs])
    accepted = set(report.accepted)
    kept = [r for r in rows if r.id in accepted and statuses.get(r.id) != "dropped"]
    protected = evaluation_prompts(context)
    with context.store.read() as conn:
        curated = curated_rows(context, conn, kept, released, protected, utc_now())
    rated, waiting, _ = teaching_thumbs(context, thumbs, accepted, statuses, protected, beside=kept, result=curated)
    measured = [*protected, *held_prompts(kept, context.config.curation)]
    taught = _incidents(context, contracts["incident"], statuses, measured)
    teaching = [*curated.train, *rated.train, *taught.rows]
    left = Counter(row.reason for row in (*curated.left_out, *rated.left_out))
    rejects = dict(left + Counter(report.reasons) + Counter(taught.reasons) + waiting)
    replay = _replay_rows(context, len(teaching))
    system = context.config.model.system_prompt
    asked = [row.model_copy(update={"messages": with_system(row.messages, system)}) for row in teaching]
    return {
        "labelled_rows": len(rows),
        "thumbs": len(thumbs),
        "train_rows": len(teaching),
        "replay_rows": len(replay),
        "target_items": len(curated.target),
        "rejects": dict(sorted(rejects.items())),
        "estimate": _estimate(context, [*asked, *replay]),
    }


def _incidents(
    context: Context, contract: Path, statuses: Mapping[str, str], measured: Sequence[str]
) -> IncidentTeaching:
    """What the incidents teach now."""
    from data_contracts.contract_kinds import judge_incidents
    from data_contracts.curation import incident_teaching
    from flows.suites import open_incidents

    released = frozenset(row_id for row_id, status in statuses.items() if status == "released")
    known = open_incidents(context.store, context.model)
    learnable = set(judge_incidents(known, contract, released=released).report.accepted)
    found = [one for one in known if one.id in learnable and statuses.get(one.id) != "dropped"]
    return incident_teaching(found, measured, context.config.curation, context.redactor)


def _thumbs(context: Context, conn: Connection) -> list[LabelledRow]:
    """All thumbs, where the profile lets them teach."""
    from store import feedback

    if context.config.training.objectives.kto.weight <= 0:
        return []
    return feedback.labelled(conn, context.model, kinds=(FeedbackKind.THUMB.value,))


def _replay_rows(context: Context, train_rows: int) -> list[SnapshotRow]:
    """Rows as long as the replay of a retrain may be: its prompts, and answers of a word for each token allowed."""
    from flows.steps.snapshot import replay_count, replay_prompts

    settings = context.config.replay
    wanted = replay_count(settings, train_rows)
    answer = " ".join(["the"] * settings.max_new_tokens)
    return [
        SnapshotRow(digest=f"{n:064x}", split="train", source="replay", messages=prompt, completion=answer)
        for n, prompt in enumerate(replay_prompts(context, wanted))
    ]


def _estimate(context: Context, rows: Sequence[SnapshotRow]) -> dict[str, Any]:
    """What training on these rows costs; without rows nothing, and no base is needed.

    A private run that the budget does not allow costs nothing either: `refused` says why.
    """
    from cli.training_plans import plan_context_rows
    from configs.errors import PrivacyBudgetError

    nothing = {"rows": len(rows), "tokens": 0, "steps": 0, "minutes": 0.0, "memory_mb": 0}
    if not rows:
        return nothing
    try:
        return plan_context_rows(context, rows)
    except PrivacyBudgetError as error:  # a finding: the rows and what is left out are still worth knowing
        return {**nothing, "refused": str(error)}


def dry_run_rows(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """The plan as two columns."""
    flat = {k: v for k, v in plan.items() if not isinstance(v, dict)}
    flat |= {f"left out: {k}": v for k, v in plan["rejects"].items()}
    flat |= {f"privacy: {k}": v for k, v in plan["estimate"].get("privacy", {}).items()}
    flat |= {f"estimate: {k}": v for k, v in plan["estimate"].items() if not isinstance(v, dict)}
    return [{"what": key, "is": value} for key, value in flat.items()]
