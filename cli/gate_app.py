"""`tidemill gate`: the verdict on a candidate, and a person's word against it."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import AsJson, Profile, StateOption, Who, Why, opened

gate_app = typer.Typer(help="The gate's verdict, and overriding it.", no_args_is_help=True, rich_markup_mode=None)

Number = Annotated[int | None, typer.Option("--number", min=1, help="The retrain's number; default the last judged.")]


@gate_app.command("show")
def gate_show(
    number: Number = None, profile: Profile = "default", state: StateOption = None, as_json: AsJson = False
) -> None:
    """What the gate found on a retrain's candidate."""
    from cli.gates import decision_rows, judged_request
    from cli.output import show

    with opened(profile, state) as context:
        request, decision, _ = judged_request(context, number)
    title = f"{request.title}: {decision.verdict}"
    show(decision.model_dump(mode="json"), decision_rows(decision), as_json=as_json, title=title)


@gate_app.command("override")
def gate_override(
    by: Who,
    reason: Why,
    number: Number = None,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Register a candidate that was stopped and begin its canary; `gate.override_by` says who may."""
    from cli.gates import override
    from cli.output import show

    with opened(profile, state) as context:
        facts = override(context, number, by, reason)
    show(facts, [facts], as_json=as_json, title="override of the gate")
