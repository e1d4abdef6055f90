"""`tidemill eval`: compare models, have people judge answers, and see how far they agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson, Profile, StateOption, Who, opened

eval_app = typer.Typer(help="Compare models; human evaluation.", no_args_is_help=True, rich_markup_mode=None)

Suite = Annotated[
    list[str] | None, typer.Option("--suite", "-s", help="File, folder or name; default those the gate uses.")
]
MODELS = "[NAME=]base, a version, an adapter's folder, or openai:URL#MODEL; may be given more than once."


@eval_app.command("compare")
def compare(
    model: Annotated[list[str], typer.Option("--model", "-m", help=MODELS)],
    suite: Suite = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", help="NAME=FILE: a system prompt; every model is asked under each of them."),
    ] = None,
    price: Annotated[
        list[str] | None, typer.Option("--price", help="NAME=PROMPT,ANSWER: dollars per million tokens of a model.")
    ] = None,
    prefer: Annotated[
        bool, typer.Option("--prefer", help="Rank by the judge's preference between answers, asked in both orders.")
    ] = False,
    resamples: Annotated[int, typer.Option("--resamples", min=100, help="Bootstrap samples of items.")] = 1_000,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Rank models, endpoints and system prompts on suites, with cost and latency. Keys: $TIDEMILL_ENDPOINT_KEY."""
    from cli.comparing import compare_models, pair_rows, standing_rows
    from cli.output import print_json, print_line, print_rows

    with opened(profile, state) as context:
        facts = compare_models(
            context, model, suite or [], prompt or [], price or [], prefer=prefer, resamples=resamples, quiet=as_json
        )
    if as_json:
        print_json(facts)
        return
    print_rows(standing_rows(facts), f"{facts['items']} items, by {facts['by']}")
    if facts["pairs"]:
        print_rows(pair_rows(facts), "preference")
    if facts["left_out"]:
        print_line(f"{facts['left_out']} items left out: they need likelihoods, which endpoints do not give")


@eval_app.command("sample")
def sample(
    by: Who,
    suite: Suite = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="base, a version, a folder, or openai:URL#MODEL.")
    ] = "base",
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Answers.")] = 20,
    labels: Annotated[int, typer.Option("--labels", min=1, max=2, help="Independent labels wanted of each.")] = 2,
    rubric: Annotated[str, typer.Option("--rubric", help="A rubric's name or text, shown with each answer.")] = "",
    seed: Annotated[int, typer.Option("--seed", help="Another one chooses other answers.")] = 0,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Put answers into the review queue, for people to judge; which model gave them is not shown."""
    from cli.human_eval import sample_answers
    from cli.output import show

    with opened(profile, state) as context:
        facts = sample_answers(
            context, suite or [], model, count, labels, rubric=rubric, seed=seed, by=by, quiet=as_json
        )
    show(facts, [{k: v for k, v in facts.items() if k != "ids"}], as_json=as_json, title="eval sample")


@eval_app.command("agreement")
def agreement(
    suite: Suite = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Also compare people with the scorers on this model's answers.")
    ] = None,
    ratings: Annotated[
        Path | None, typer.Option("--ratings", help="JSON Lines {item, rater, rating} instead of the queue's labels.")
    ] = None,
    level: Annotated[str, typer.Option("--level", help="Of --ratings: nominal or ordinal.")] = "nominal",
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Krippendorff's alpha over people's judgements of answers, and how far scorers agree with them."""
    from cli.human_eval import agreement_of_answers, agreement_of_file
    from cli.output import show

    if ratings is not None:
        rows = agreement_of_file(ratings, level)
    else:
        with opened(profile, state) as context:
            rows = agreement_of_answers(context, suite or [], model, quiet=as_json)
    show(rows, rows, as_json=as_json, title="eval agreement")
