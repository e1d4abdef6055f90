"""The report's tables of what else the gate found: slices, likelihoods, negative flips, warnings."""

from __future__ import annotations

from typing import Any

from data_contracts.records import NAMES, AdapterArtifact, EvalReport, Finding, GateDecision
from evaluation.slices import members

MAX_SLICES = 120
"""Slices listed for each suite."""
NOT_JUDGED = "shown, not judged"
WORDS = {"pass": "✓ pass", "block": "✗ blocked", "inconclusive": "? inconclusive"}
SLICE_WORDS = {**WORDS, "warning": "! lost"}


def _points(value: float) -> str:
    return f"{value * 100:+.1f}"


def _word(finding: Finding) -> str:
    return WORDS.get(finding.verdict, NOT_JUDGED)


def _found(finding: Finding) -> dict[str, Any]:
    return {"suite": finding.suite, "against": NAMES[finding.against], "n": finding.n, "verdict": finding.verdict,
            "word": _word(finding)}  # fmt: skip


def slice_rows(report: EvalReport, decision: GateDecision) -> list[dict[str, Any]]:
    """One row a slice of every suite: means of all models, flips against the champion, bounds and what came of it."""
    found = {(f.suite, f.slice): f for f in decision.findings if f.measure == "slice" and f.against == "champion"}
    rows = []
    for suite, by_model in report.scores.items():
        positions = members((i.item_id for i in by_model["candidate"].items), report.slices.get(suite, {}))
        for name, chosen in list(positions.items())[:MAX_SLICES]:
            scores = {model: [of.items[i].score for i in chosen] for model, of in by_model.items()}
            pairs = list(zip(scores["champion"], scores["candidate"], strict=True))
            finding = found.get((suite, name))
            limit = finding.limit if finding else None
            rows.append(
                {
                    "suite": suite,
                    "slice": name,
                    "n": len(chosen),
                    "means": {model: f"{sum(values) / len(values):.0%}" for model, values in scores.items()},
                    "lost": sum(a > b for a, b in pairs),
                    "gained": sum(a < b for a, b in pairs),
                    "bounds": f"[{_points(finding.lower)}, {_points(finding.upper)}]" if finding else "",
                    "margin": "" if limit is None else f"{_points(-limit)}",
                    "verdict": finding.verdict if finding else "shown",
                    "word": SLICE_WORDS.get(finding.verdict, "") if finding else "",
                }
            )
    return rows


def likelihood_rows(decision: GateDecision) -> list[dict[str, Any]]:
    """Paired t findings, in nats per token."""
    return [
        {
            **_found(f),
            "mean": f"{f.value:+.3f}",
            "low": f"{f.lower:+.3f}" if f.n >= 2 else "-",
            "high": f"{f.upper:+.3f}" if f.n >= 2 else "-",
            "limit": "-" if f.limit is None else f"{-f.limit:+.3f}",
        }
        for f in decision.findings
        if f.measure == "log_likelihood"
    ]


def flip_rows(decision: GateDecision) -> list[dict[str, Any]]:
    """Negative flip rates with their exact upper bounds."""
    return [
        {
            **_found(f),
            "lost": f.lost,
            "share": f"{f.value:.1%}",
            "high": f"{f.upper:.1%}",
            "limit": "-" if f.limit is None else f"{f.limit:.1%}",
        }
        for f in decision.findings
        if f.measure == "negative_flips"
    ]


def fragile(decision: GateDecision) -> dict[str, str] | None:
    """The suite `fragility` in one sentence and its bounds, if it was run."""
    for f in decision.findings:
        if f.measure == "fragility":
            return {"reason": f.reason, "share": f"{f.value:.1%}", "bounds": f"[{f.lower:.1%}, {f.upper:.1%}]"}
    return None


def warnings(decision: GateDecision) -> list[str]:
    """Sentences about what lost without deciding anything."""
    return [f"{f.suite}, slice {f.slice}: {f.reason}" for f in decision.findings if f.verdict == "warning"]


def cost_rows(report: EvalReport, artifact: AdapterArtifact | None) -> list[tuple[str, str]]:
    """What the retrain took: seconds, and what was paid for judging."""
    rows = [] if artifact is None else [("training", f"{artifact.seconds:,.0f} s, {artifact.tokens:,} tokens")]
    rows.append(("evaluation", f"{report.seconds:,.1f} s"))
    if (judge := report.judge) is not None:
        paid = f"{judge.requests:,} requests, {judge.prompt_tokens:,} + {judge.answer_tokens:,} tokens"
        rows += [
            ("judge model", f"{paid}, ${judge.micro_dollars / 1e6:,.4f}"),
            ("verdicts kept from before", f"{judge.kept:,}"),
            ("verdicts that turned with the order", f"{judge.order_flips:,}"),
        ]
    return rows
