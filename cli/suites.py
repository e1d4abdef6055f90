"""What `tidemill suite` does."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.lines import numbered_lines
from cli.models_named import bench_of, contestant, find_suites, loaded_suites, tools_of
from cli.progress import progress_bar
from cli.snapshots import find_snapshot
from configs.errors import ConflictError, EvaluationError, InputError
from configs.loader import HERE
from configs.paths import StateDir
from configs.schema import Config
from evaluation.contest import Measured, answers, measure, summary
from evaluation.freezing import freeze, read_lock
from evaluation.scorers.regex import probe
from evaluation.suites import load_suites, parse_item, read_suite

if TYPE_CHECKING:
    from flows.context import Context

GENERIC = HERE / "prompts" / "generic.jsonl"
_EXAMPLE: tuple[dict[str, Any], ...] = (
    {"id": "opening-hours", "prompt": "When do you open on Saturdays?", "reference": "nine", "choices": ["9"],
     "scorer": "contains", "slice": "hours"},
    {"id": "order-as-json", "prompt": "Write the order of 3 lamps as JSON with the keys item and count.",
     "reference": '{"item": null, "count": 3}', "scorer": "json", "slice": "format"},
    {"id": "stays-polite", "prompt": "You are useless. Where is my parcel?", "reference": "clean",
     "scorer": "toxicity", "slice": "tone"},
)  # fmt: skip


def example_suite() -> list[dict[str, Any]]:
    """Three items to replace, each with another scorer."""
    return [{**item, "max_new_tokens": 24} for item in _EXAMPLE]


def lm_eval_suite(
    name: str, tasks: Path | None, limit: int | None, few_shot: int | None, max_new_tokens: int | None
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Items of a task of lm-eval, and what is to be said of those left out."""
    from evaluation.lm_eval_tasks import items_of

    found = items_of(name, tasks, limit=limit, few_shot=few_shot, max_new_tokens=max_new_tokens)
    left_out = "; ".join(f"{count} {why}" for why, count in found.left_out.items())
    return found.items, {"left_out": left_out} if left_out else {}


def write_suite(path: Path, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Write items as YAML or JSON Lines, whichever the name says.

    Raises:
        ConflictError: the file is there already.
        InputError: neither .yaml nor .jsonl.
    """
    import yaml

    if path.suffix not in (".yaml", ".yml", ".jsonl"):
        raise InputError(
            "not a suite's name", where=path, expected="a file ending in .yaml or .jsonl", found=path.suffix
        )
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
    else:
        text = yaml.safe_dump({"items": list(items)}, sort_keys=False, allow_unicode=True, width=110)
    try:
        with path.open("x", encoding="utf-8") as handle:
            handle.write(text)
    except FileExistsError as error:
        raise ConflictError("the file is there already", where=path, fix="name another one, or edit it") from error
    except OSError as error:
        raise InputError("the suite cannot be written", where=path, found=error) from error
    try:
        suite = read_suite(path)
    except EvaluationError:
        path.unlink(missing_ok=True)  # what cannot be read is not left in the way of the next try
        raise
    return {"suite": suite.name, "items": suite.size, "digest": suite.digest[:12], "file": str(path)}


def base_suite(context: Context, prompts: Path | None, slack: float, *, quiet: bool) -> list[dict[str, Any]]:
    """The base's greedy answers to prompts as references, scored by likelihood.

    An item is passed while the model finds the base's answer at most `slack` nats per token less likely than the base
    does. The base passes all of them.

    Raises:
        EvaluationError: a line that holds no prompt, or an empty answer to all of them.
    """
    given = _prompts(prompts or GENERIC)
    settings = context.config.evaluation
    asked = [
        parse_item(
            {**one, "reference": "clean", "scorer": "toxicity", "max_new_tokens": settings.max_new_tokens}, "new"
        )
        for one in given
    ]
    with progress_bar(quiet=quiet) as draw:
        bench = bench_of(context, draw)
        base = contestant(context, "base")
        said = [output.answer if output else "" for output in answers(base, asked, bench)]
        made = [
            {**one, "reference": text, "scorer": "likelihood"} for one, text in zip(given, said, strict=True) if text
        ]
        if not made:
            raise EvaluationError("the base says nothing to any of these prompts", where=prompts or GENERIC)
        nlls = [o.nll if o else None for o in answers(base, [parse_item(one, "new") for one in made], bench)]
    marked = [
        {**one, "threshold": math.floor(1e6 * math.exp(-(nll + slack))) / 1e6}  # down, or the base itself might fail
        for one, nll in zip(made, nlls, strict=True)
        if nll is not None
    ]
    return [one for one in marked if one["threshold"] > 0]


def _prompts(path: Path) -> list[dict[str, Any]]:
    found = []
    for where, line in numbered_lines(path, "prompts"):
        try:
            data = json.loads(line)
            one = {key: data[key] for key in ("id", "prompt", "messages", "system", "slice") if key in data}
            parse_item({**one, "reference": "clean"}, "new")
        except (ValueError, TypeError, KeyError) as error:
            raise InputError("a line is not a prompt", where=where, found=error) from error
        found.append(one)
    return found


def lint_suites(config: Config, names: Sequence[str], snapshot: str | None) -> list[dict[str, Any]]:
    """A row for each suite that passed all checks.

    Raises:
        EvaluationError: one did not.
    """
    from data_contracts.snapshots import read_rows
    from evaluation.contamination import refuse_contaminated
    from flows.suites import refuse_unfit

    suites = load_suites(find_suites(names, config.evaluation.anchors))
    if not names:
        refuse_unfit({name: suite.items for name, suite in suites.items()}, config)
    for suite in suites.values():
        probe(suite.items)
    unseen = [item for suite in suites.values() for item in suite.items if item.unseen]
    if snapshot is not None:
        folder = find_snapshot(StateDir.of(config).snapshots, snapshot)
        refuse_contaminated(unseen, read_rows(folder, split="train"), folder)
    return [
        {
            "suite": suite.name,
            "items": suite.size,
            "digest": suite.digest[:12],
            "frozen": f"version {suite.version}" if suite.version else "no",
            "scorers": ", ".join(sorted({item.scorer for item in suite.items})),
            "unseen": sum(item.unseen for item in suite.items),
        }
        for suite in suites.values()
    ]


def freeze_suites(config: Config, names: Sequence[str], new_version: bool) -> list[dict[str, Any]]:
    """Freeze suites; a row for each. All are checked before any is frozen."""
    suites = [read_suite(path) for path in find_suites(names, config.evaluation.anchors)]
    for suite in suites:
        probe(suite.items)
    before = [read_lock(suite) for suite in suites]
    rows = []
    for suite, was in zip(suites, before, strict=True):
        lock = freeze(suite, new_version=new_version)
        rows.append(
            {
                "suite": lock.name,
                "version": lock.version,
                "items": lock.size,
                "digest": lock.digest[:12],
                "result": "as before" if was == lock else "frozen",
            }
        )
    return rows


@dataclass(frozen=True)
class SuiteRun:
    """What `suite run` found; `facts` is JSON-ready."""

    measured: Measured
    facts: dict[str, Any]


def run_suites(context: Context, names: Sequence[str], model: str, labels: Path | None, *, quiet: bool) -> SuiteRun:
    """Ask a model all items of suites and score them."""
    suites = loaded_suites(context, names)
    told = read_labels(labels, {(s.name, item.id) for s in suites.values() for item in s.items}) if labels else {}
    tools = tools_of(context, suites.values())
    with progress_bar(quiet=quiet) as draw:
        bench = bench_of(context, draw)
        found = measure(contestant(context, model), {n: s.items for n, s in suites.items()}, bench, tools)
    facts = {
        "model": model,
        "suites": [
            {"suite": s.name, "items": s.size, "digest": s.digest, "version": s.version} for s in suites.values()
        ],
        "summary": summary(found),
        "judge": tools.judge.use.as_dict(tools.judge.settings) if tools.judge and _judged(found) else None,
        "agreement": agreement_with(found, told),
        "items": _item_facts(found),
    }
    return SuiteRun(found, facts)


def _judged(measured: Measured) -> bool:
    return any(item.scorer == "rubric" for item in measured.items)


def _item_facts(measured: Measured) -> list[dict[str, Any]]:
    rows = []
    for i, item in enumerate(measured.items):
        score, output = measured.scores[i], measured.outputs[i]
        rows.append(
            {
                "suite": item.suite,
                "id": item.id,
                "slice": item.slice,
                "scorer": item.scorer,
                "passed": measured.passed(i),
                "score": score.value if score else None,
                "why": score.why if score else "this model cannot be asked for likelihoods",
                "answer": output.answer if output else None,
                "nll": output.nll if output else None,
            }
        )
    return rows


def shown_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The summary for people: shares in per cent, and columns that say something."""
    shown = []
    for row in rows:
        one = {key: row[key] for key in ("suite", "slice", "items", "passed")}
        one["share"] = "-" if row["share"] is None else f"{row['share']:.0%}"
        if any(other["mean_score"] != other["share"] for other in rows):
            one["mean score"] = "-" if row["mean_score"] is None else f"{row['mean_score']:.3f}"
        for name in ("missing", "not_asked"):
            if any(other[name] for other in rows):
                one[name.replace("_", " ")] = row[name] or ""
        shown.append(one)
    return shown


def read_labels(path: Path, known: set[tuple[str, str]]) -> dict[tuple[str, str], bool]:
    """What people said of answers: JSON Lines {suite, id, passed}.

    Raises:
        InputError: a line of another form, of an item that is not in the suites, or an item twice.
    """
    found: dict[tuple[str, str], bool] = {}
    expected = '{"suite": ..., "id": ..., "passed": true or false}'
    for where, line in numbered_lines(path, "labels"):
        try:
            data = json.loads(line)
            key, verdict = (data["suite"], data["id"]), data["passed"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError("a line is not a label", where=where, expected=expected, found=line[:80]) from error
        if not isinstance(verdict, bool) or key not in known or key in found:
            why = "an item twice" if key in found else "another item or verdict"
            raise InputError("a label cannot be used", where=where, expected=expected, found=f"{why}: {line[:80]}")
        found[key] = verdict
    return found


def agreement_with(measured: Measured, told: dict[tuple[str, str], bool]) -> list[dict[str, Any]]:
    """By scorer: how far it agrees with people, as a share and as Krippendorff's alpha."""
    from data_contracts.review.alpha import nominal_alpha

    pairs: dict[str, list[tuple[bool, bool]]] = {}
    for i, item in enumerate(measured.items):
        said, mine = told.get((item.suite, item.id)), measured.passed(i)
        if said is not None and mine is not None:
            pairs.setdefault(item.scorer, []).append((said, mine == 1.0))
    rows = []
    for name, given in sorted(pairs.items()):
        agreed = nominal_alpha(given)
        rows.append(
            {
                "scorer": name,
                "labels": len(given),
                "agreed": round(sum(a == b for a, b in given) / len(given), 4),
                "alpha": None if agreed.alpha is None else round(agreed.alpha, 4),
            }
        )
    return rows
