"""The best accepted version: what small losses, round by round, are measured against besides the base.

Accepted is what was promoted and not taken back. The answers such versions gave to today's anchors are in the cache, as
long as neither the anchors nor the version's cache changed; the best is the one that had most of them right. A version
that an erasure tainted, that is gone from the machine or that stands on another base is no reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from configs.errors import EvaluationError
from data_contracts.records import Arm, EvalItem
from flows.context import Context
from flows.ledger import Output
from flows.run import Run
from flows.suites import anchor_suites
from store import erasure, rollouts, versions


def promoted(context: Context) -> list[Arm]:
    """Versions that were promoted and may still be compared with, the last promoted first."""
    base = context.base().digest
    with context.store.read() as conn:
        ended = rollouts.list_rollouts(conn, context.model, limit=1000)
        ended.sort(key=lambda r: r.ended_at or r.created_at, reverse=True)
        back = {r.candidate.version for r in ended if r.state == "rolled_back"}
        arms = list({r.candidate.version: r.candidate for r in ended if r.state == "promoted"}.values())
        tainted = erasure.tainted_among(conn, [arm.version for arm in arms])
        known = {arm.version for arm in arms if versions.get(conn, arm.version) is not None}
    return [
        arm
        for arm in arms
        if arm.adapter is not None
        and arm.version in known - tainted - back
        and arm.adapter.base_digest == base
        and Path(arm.adapter.path).is_dir()
    ]


def known_mean(context: Context, model_digest: str, items: Sequence[EvalItem]) -> float | None:
    """Share of items a model has right by its cached answers; None if any answer is not there."""
    from evaluation.answers import AnswerCache
    from evaluation.runner import score_outputs
    from evaluation.suites import item_digest

    cache = AnswerCache(context.state.cache / "evaluation", model_digest)
    outputs = [cache.get(item_digest(item)) for item in items]
    known = [output for output in outputs if output is not None]
    if not items or len(known) < len(items):
        return None
    try:
        return sum(s.score for s in score_outputs(items, known)) / len(items)
    except EvaluationError:  # a scorer needs a tool that only the evaluation's process has
        return None


def best_accepted(context: Context, champion: Arm) -> Arm | None:
    """The best accepted version where it is not the champion; None if there is none.

    Where no cache tells (other anchors than then), it is the last one promoted before the champion, which is asked.
    """
    own = None if champion.adapter is None else champion.adapter.digest
    others = [arm for arm in promoted(context) if arm.adapter is not None and arm.adapter.digest != own]
    items = [item for suite in anchor_suites(context).values() for item in suite]
    means = {
        arm.version: mean
        for arm in others
        if arm.adapter is not None and (mean := known_mean(context, arm.adapter.digest, items)) is not None
    }
    if not means:
        return others[0] if others else None
    best = max((arm for arm in others if arm.version in means), key=lambda arm: means[arm.version])
    serving = None if own is None else known_mean(context, own, items)
    return None if serving is not None and serving >= means[best.version] else best


def pin_best(run: Run) -> Output:
    """Note the best accepted version. A resumed run keeps it: its own candidate may have been promoted meanwhile."""
    champion = Arm.model_validate(run.outputs["pin_champion"])
    best = best_accepted(run.context, champion) or Arm()
    if best.adapter is not None:
        run.observer.log(f"Anchors are also compared with {best.version}, the best version accepted so far.")
    return best.model_dump(mode="json")


def pinned_best(run: Run) -> Arm | None:
    """The pinned version, if it may still be compared with: an erasure or a cleaning may have come in between."""
    best = Arm.model_validate(run.outputs["pin_best"])
    return best if best.version in {arm.version for arm in promoted(run.context)} else None
