"""What `tidemill eval sample` and `tidemill eval agreement` do: answers to people, and their judgements back."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.lines import numbered_lines
from cli.models_named import bench_of, contestant, loaded_suites, tools_of
from cli.progress import progress_bar
from configs.errors import EvaluationError, InputError
from data_contracts.digests import digest
from data_contracts.records import EvalItem, ReviewPayload
from data_contracts.redaction import Redactor
from data_contracts.review.alpha import Agreement, Level, alpha_of
from data_contracts.review.items import answer_item
from evaluation.answers import Output
from evaluation.contest import answers, measure
from evaluation.scorers.registry import scorer
from evaluation.scorers.rubric import RUBRICS
from evaluation.suites import item_digest
from store import audit, reviews

if TYPE_CHECKING:
    from flows.context import Context


def subject_of(item: EvalItem, output: Output) -> str:
    """Id of one answer to one item in the review queue: the same answer is asked about once, whoever gave it."""
    return "answer-" + digest([item_digest(item), output.answer])[:32]


def sample_answers(
    context: Context,
    suites: Sequence[str],
    model: str,
    count: int,
    labels: int,
    *,
    rubric: str,
    seed: int,
    by: str,
    quiet: bool,
) -> dict[str, Any]:
    """Ask a model and put `count` of its answers, drawn at random, into the review queue.

    Raises:
        EvaluationError: no item asks for an answer.
    """
    items = [item for suite in loaded_suites(context, suites).values() for item in suite.items]
    spoken = [item for item in items if scorer(item.scorer).asks == "answer"]
    if not spoken:
        raise EvaluationError("there is nothing to show people", expected="items that ask for an answer", found="none")
    drawn = random.Random(f"eval sample {seed}").sample(spoken, min(count, len(spoken)))
    with progress_bar(quiet=quiet) as draw:
        said = answers(contestant(context, model), drawn, bench_of(context, draw))
    settings = context.config.review
    added, ids = 0, []
    with context.store.write() as conn:
        for item, output in zip(drawn, said, strict=True):
            if output is None:
                continue
            payload = ReviewPayload(
                messages=item.messages,
                answer=output.answer,
                proposed=item.reference if scorer(item.scorer).reference_is_answer else "",
                title=RUBRICS.get(rubric, rubric),
            )
            subject = subject_of(item, output)
            found = answer_item(context.model, subject, payload, settings, redactor=context.redactor)
            wanted = found.item.model_copy(update={"labels_wanted": labels})
            if reviews.add(conn, wanted):
                added += 1
                ids.append(wanted.id)
        actor = Redactor(context.state.key).pseudonym(by)
        audit.append(conn, actor, "eval.sampled", context.model, {"answers": added, "of": len(spoken)})
    return {"added": added, "in the queue before": len(drawn) - added, "of": len(spoken), "ids": ids}


def _facts(what: str, found: Agreement) -> dict[str, Any]:
    return {
        "what": what,
        "alpha": None if found.alpha is None else round(found.alpha, 4),
        "agreed": None if found.observed is None else round(found.observed, 4),
        "units": found.units,
        "labels": found.labels,
    }


def agreement_of_answers(
    context: Context, suites: Sequence[str], model: str | None, *, quiet: bool
) -> list[dict[str, Any]]:
    """Agreement of labellers on sampled answers (nominal), and with `model` of each scorer with their outcome.

    `accept` is right, `reject` and `correct` are wrong when a scorer is compared.
    """
    units: dict[str, list[str]] = {}
    outcomes: dict[str, str] = {}
    with context.store.read() as conn:
        for asked, label in reviews.labelled_items(conn, context.model):
            if asked.kind == "answer":
                units.setdefault(asked.subject, []).append(label.answer.verdict)
                outcomes[asked.subject] = asked.outcome
    rows = [_facts("labellers", alpha_of(units.values(), "nominal"))]
    if model is None:
        return rows
    loaded = loaded_suites(context, suites)
    with progress_bar(quiet=quiet) as draw:
        tools = tools_of(context, loaded.values())
        chosen = contestant(context, model)
        found = measure(chosen, {n: s.items for n, s in loaded.items()}, bench_of(context, draw), tools)
    pairs: dict[str, list[tuple[bool, bool]]] = {}
    for i, item in enumerate(found.items):
        output, mine = found.outputs[i], found.passed(i)
        outcome = outcomes.get(subject_of(item, output)) if output is not None else None
        if outcome and mine is not None:
            pairs.setdefault(item.scorer, []).append((outcome == "accept", mine == 1.0))
    return rows + [_facts(f"scorer {name}", alpha_of(given, "nominal")) for name, given in sorted(pairs.items())]


def agreement_of_file(path: Path, level: str) -> list[dict[str, Any]]:
    """Agreement of raters in a file of JSON Lines {item, rater, rating}; ordinal ratings are numbers.

    Raises:
        InputError: a line of another form, a rater twice on an item, or no such level.
    """
    if level not in ("nominal", "ordinal"):
        raise InputError("no such level", where="--level", expected="nominal or ordinal", found=level)
    chosen: Level = "ordinal" if level == "ordinal" else "nominal"
    expected = '{"item": ..., "rater": ..., "rating": ' + ("a number}" if chosen == "ordinal" else "a word or number}")
    given: dict[str, dict[str, Any]] = {}
    for where, line in numbered_lines(path, "ratings"):
        try:
            data = json.loads(line)
            item, rater, rating = str(data["item"]), str(data["rater"]), data["rating"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError("a line is not a rating", where=where, expected=expected) from error
        kinds = (int, float) if chosen == "ordinal" else (int, float, str)
        if not isinstance(rating, kinds) or isinstance(rating, bool) or rating != rating:
            raise InputError("not a rating", where=where, expected=expected, found=str(rating)[:80])
        if rater in given.setdefault(item, {}):
            raise InputError("a rater rated an item twice", where=where, found=f"{rater} on {item}")
        given[item][rater] = rating
    return [_facts(f"{chosen} ratings", alpha_of([tuple(one.values()) for one in given.values()], chosen))]
