"""The verdict as one self-contained HTML page: verdict first, then the evidence. The template escapes all text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from data_contracts.records import (
    NAMES,
    AdapterArtifact,
    DatasetSnapshot,
    EvalItem,
    EvalReport,
    GateDecision,
    ItemScore,
    SuiteVerdict,
)
from evaluation.choice import ScaleChoice
from evaluation.report_findings import cost_rows, flip_rows, fragile, likelihood_rows, slice_rows, warnings
from evaluation.report_scales import STYLE as SCALES_STYLE
from evaluation.report_scales import scales_section
from evaluation.report_template import PAGE, STYLE
from evaluation.rounds import Round, heat_map

WORDS = {"pass": "Pass", "block": "Blocked", "inconclusive": "Inconclusive", "shown": "Shown"}
MARKS = {"pass": "✓", "block": "✗", "inconclusive": "?", "shown": "·"}
MAX_FLIPS = 40
"""Flips listed for each suite and direction."""
MAX_TEXT = 600
"""Characters shown of one answer or prompt."""
MAX_FLIP_BYTES = 1_000_000
"""All flips together, escaped: the page stays under 2 MB."""


def percent(share: float) -> str:
    """A share as a percentage; `-` where it is not a number."""
    return "-" if math.isnan(share) else f"{share * 100:.1f} %"


def _points(value: float) -> str:
    return f"{value * 100:+.1f}"


def _cut(text: str) -> str:
    shown = "".join(c if c.isprintable() or c == "\n" else "�" for c in text[:MAX_TEXT])
    return shown + (" ..." if len(text) > MAX_TEXT else "") if shown else "(empty)"


def _sentence(decision: GateDecision) -> str:
    better = decision.objective == "superiority"
    if decision.verdict == "pass":
        return (
            "Better at what it was retrained for, and no worse at anything else, within the policy's margins."
            if better
            else "No worse than before at anything, within the policy's margins."
        )
    if decision.verdict == "inconclusive":
        return "Nothing speaks clearly against it, but the suites cannot show that it is good enough."
    blocked = [v.suite for v in decision.suites if v.verdict == "block"]
    blocked += [f.suite for f in decision.findings if f.verdict == "block"]
    failed = dict.fromkeys(blocked)
    return f"It must not be served: {', '.join(failed)} did not pass."


def _limit(verdict: SuiteVerdict) -> float | None:
    """What the lower bound must exceed; a list, and what is only shown, has no such limit."""
    if verdict.listed or verdict.verdict == "shown":
        return None
    return verdict.margin if verdict.kind == "superiority" else -verdict.margin


def _bounds(verdict: SuiteVerdict) -> tuple[float, float]:
    """The interval to draw; a list of required behaviours has none."""
    if verdict.listed:
        return verdict.difference, verdict.difference
    return verdict.lower, verdict.upper


def _forest(verdicts: Sequence[SuiteVerdict]) -> dict[str, Any]:
    """Rows, zero and ticks of the interval chart; positions in percent of its width."""
    bounds = {(v.suite, v.against): _bounds(v) for v in verdicts}
    values = [0.0, *(x for v in verdicts for x in (*bounds[v.suite, v.against], _limit(v) or 0.0))]
    low, high = math.floor(min(values) * 10) / 10, math.ceil(max(values) * 10) / 10
    if high - low < 0.2:
        low, high = low - 0.1, high + 0.1

    def at(value: float) -> float:
        return round((value - low) / (high - low) * 100, 2)

    step = next(s for s in (0.05, 0.1, 0.2, 0.5, 1.0) if (high - low) / s <= 7)
    marks = [round(i * step, 2) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    anchors = {0.0: "start", 100.0: "end"}
    return {
        "zero": at(0.0),
        "ticks": [
            {"at": at(m), "text": f"{m * 100:+.0f}" if m else "0", "anchor": anchors.get(at(m), "middle")}
            for m in marks
        ],
        "forest": [
            {
                "suite": v.suite,
                "against": NAMES[v.against],
                "low": at(bounds[v.suite, v.against][0]),
                "high": at(bounds[v.suite, v.against][1]),
                "at": at(v.difference),
                "limit": None if (limit := _limit(v)) is None else at(limit),
                "verdict": v.verdict,
                "mark": f"{MARKS[v.verdict]} {WORDS[v.verdict].lower()}",
                "text": _points(v.difference) + ("" if v.listed else f" [{_points(v.lower)}, {_points(v.upper)}]"),
            }
            for v in verdicts
        ],
    }


def _pairs(report: EvalReport, suite: str) -> list[tuple[ItemScore, ItemScore]]:
    by_model = report.scores[suite]
    return list(zip(by_model["champion"].items, by_model["candidate"].items, strict=True))


def _tiles(report: EvalReport) -> list[dict[str, Any]]:
    tiles = []
    for suite, by_model in report.scores.items():
        pairs = _pairs(report, suite)
        tiles.append(
            {
                "suite": suite,
                "n": len(pairs),
                "candidate": percent(by_model["candidate"].mean),
                "champion": percent(by_model["champion"].mean),
                "lost": sum(a.score > b.score for a, b in pairs),
                "gained": sum(a.score < b.score for a, b in pairs),
            }
        )
    return tiles


def _means(report: EvalReport) -> list[dict[str, Any]]:
    return [
        {
            "suite": suite,
            "bars": [
                {"model": model, "width": round(scores.mean * 100, 2), "text": percent(scores.mean)}
                for model in ("base", "best", "champion", "candidate")
                if (scores := by_model.get(model)) is not None and scores.items
            ],
        }
        for suite, by_model in report.scores.items()
    ]


def _flip(before: ItemScore, after: ItemScore, item: EvalItem | None, slice_name: str) -> dict[str, Any]:
    lines = []
    if item is not None:
        asked = [m for m in item.messages if m.role != "system"]
        talk = "\n".join(m.content if len(asked) == 1 else f"{m.role}: {m.content}" for m in asked)
        lines = [("asked", _cut(talk)), ("required", _cut(item.reference))]
    lines += [("champion", _cut(before.answer)), ("candidate", _cut(after.answer))]
    return {"id": after.item_id, "slice": slice_name, "lines": lines}


def _flips(report: EvalReport, items: Mapping[str, Sequence[EvalItem]]) -> list[dict[str, Any]]:
    groups = []
    room = MAX_FLIP_BYTES
    for suite in report.scores:
        known = {item.id: item for item in items.get(suite, ())}
        slice_of = report.slices.get(suite, {})
        for word, chosen in (
            ("lost", [(a, b) for a, b in _pairs(report, suite) if a.score > b.score]),
            ("gained", [(a, b) for a, b in _pairs(report, suite) if a.score < b.score]),
        ):
            if chosen:
                shown = []
                for a, b in chosen[:MAX_FLIPS]:
                    row = _flip(a, b, known.get(b.item_id), slice_of.get(b.item_id, ""))
                    room -= 300 + len(escape(repr(row)).encode("utf-8"))
                    if room < 0:
                        break
                    shown.append(row)
                groups.append(
                    {
                        "title": f"{suite}: {len(chosen)} {word}",
                        "open": word == "lost" and len(chosen) <= 12,
                        "rows": shown,
                        "more": len(chosen) - len(shown),
                    }
                )
    return groups


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    every = max(1, len(points) // 400)
    return [point for i, point in enumerate(points) if i % every == 0 or i == len(points) - 1]


def _curve(losses: Sequence[float], held_out: Sequence[tuple[int, float]]) -> dict[str, Any] | None:
    """Polylines of both curves in a square of 100, on one scale; None where there is nothing to draw."""
    values = [*losses, *(loss for _, loss in held_out)]
    if len(losses) < 2 or not all(math.isfinite(x) for x in values):
        return None
    low, high = min(0.0, *values), max(values) or 1.0

    def line(points: Sequence[tuple[int, float]]) -> str:
        return " ".join(
            f"{(step - 1) / (len(losses) - 1) * 100:.2f},{(high - x) / (high - low) * 96 + 2:.2f}"
            for step, x in _thinned(points)
        )

    return {
        "points": line(list(enumerate(losses, start=1))),
        "held_out": line(held_out),
        "best": f"{min(loss for _, loss in held_out):.2f}" if held_out else "",
        "low": f"{low:.1f}",
        "high": f"{high:.1f}",
        "first": f"{losses[0]:.2f}",
        "last": f"{losses[-1]:.2f}",
        "steps": len(losses),
    }


def _training(artifact: AdapterArtifact) -> list[tuple[str, str]]:
    speed = artifact.tokens / artifact.seconds if artifact.seconds > 0 else 0.0
    facts = [
        ("adapter", f"LoRA, rank {artifact.rank}, alpha {artifact.alpha:g}"),
        ("steps", f"{artifact.steps}"),
        ("tokens", f"{artifact.tokens:,} ({speed:,.0f} a second)"),
    ]
    return facts + [(name, f"{value:.4g}") for name, value in sorted(artifact.metrics.items())]


def _lineage(
    report: EvalReport, decision: GateDecision, artifact: AdapterArtifact | None, snapshot: DatasetSnapshot | None
) -> list[tuple[str, str]]:
    lineage = [
        ("candidate", report.candidate_digest),
        ("champion", report.champion_digest),
        ("base", report.base_digest),
        *([("best accepted version", report.best_digest)] if report.best_digest else []),
        ("data", report.dataset_digest),
        *((f"suite {name}", by["candidate"].suite_digest) for name, by in report.scores.items()),
        ("policy", decision.policy_digest),
    ]
    if artifact is not None:
        lineage += [("configuration", artifact.config_digest), ("code", artifact.code_commit)]
    if snapshot is not None:
        lineage += [("contract", snapshot.contract_digest), *((f"replay {k}", v) for k, v in snapshot.replay.items())]
    lineage.append(("decided at", decision.decided_at.isoformat(timespec="seconds")))
    return [(name, text or "-") for name, text in lineage]


def _sampled(report: EvalReport) -> list[dict[str, Any]]:
    return [
        {
            "suite": suite,
            "n": s.n,
            "k": s.k,
            "temperature": f"{s.temperature:g}",
            "candidate": percent(s.candidate_mean),
            "champion": percent(s.champion_mean),
            "difference": f"{_points(s.difference)} [{_points(s.lower)}, {_points(s.upper)}]",
            "unsure": percent(s.unsure),
        }
        for suite, s in report.sampled.items()
    ]


def _data_rows(snapshot: DatasetSnapshot | None) -> list[tuple[str, int]]:
    if snapshot is None:
        return []
    return [*sorted(snapshot.counts.items()), *((f"left out: {k}", v) for k, v in sorted(snapshot.reasons.items()))]


def render_html(
    report: EvalReport,
    decision: GateDecision,
    *,
    artifact: AdapterArtifact | None,
    snapshot: DatasetSnapshot | None,
    title: str,
    items: Mapping[str, Sequence[EvalItem]] | None = None,
    alpha: float = 0.05,
    choice: ScaleChoice | None = None,
    rounds: Sequence[Round] = (),
) -> str:
    """Render the report.

    Args:
        report: per-item results; `decision` the gate's finding on them.
        artifact: the trained adapter, for the loss curve; `snapshot` its data.
        title: what people call the retrain, for example `retrain support-bot #12 - drift`.
        items: suite name -> items, so that flipped items show what was asked and required.
        alpha: level of the bounds, for the explanation.
        choice: how the adapter's strength was chosen, where it was.
        rounds: of this model, this one last, for the table of forgetting.

    Returns:
        One HTML page under 2 MB: no script, no external resource, every text escaped.
    """
    from jinja2 import Environment, StrictUndefined

    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(PAGE)
    return page.render(
        style=STYLE + SCALES_STYLE,
        title=title,
        decision=decision,
        word=WORDS[decision.verdict],
        mark=MARKS[decision.verdict],
        sentence=_sentence(decision),
        tiles=_tiles(report),
        means=_means(report),
        same_champion=report.champion_digest == report.base_digest,
        warnings=warnings(decision),
        slices=slice_rows(report, decision),
        with_best=any("best" in by_model for by_model in report.scores.values()),
        flips=_flips(report, items or {}),
        likelihoods=likelihood_rows(decision),
        negative_flips=flip_rows(decision),
        fragile=fragile(decision),
        artifact=artifact,
        curve=_curve(artifact.loss_curve, artifact.held_out_curve) if artifact else None,
        training=_training(artifact) if artifact else [],
        snapshot=snapshot,
        data_rows=_data_rows(snapshot),
        lineage=_lineage(report, decision, artifact, snapshot),
        cost=cost_rows(report, artifact),
        alpha=alpha,
        scales=scales_section(choice),
        heat=heat_map(rounds),
        sampled=_sampled(report),
        **_forest(decision.suites),
    )
