"""The suites of a retrain: target (held-out feedback), incident regressions, anchors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.loader import suite_place
from configs.schema import Config
from data_contracts.digests import digest
from data_contracts.records import DatasetSnapshot, EvalItem, Incident, Message, SnapshotRow
from flows.context import Context
from store import feedback, incidents, interactions
from store.engine import Store

TRAFFIC = 20_000
"""Requests that say which phrases people use."""


def with_system(messages: Sequence[Message], system_prompt: str) -> tuple[Message, ...]:
    """The conversation as the gateway would send it to the model."""
    if not system_prompt or any(m.role == "system" for m in messages):
        return tuple(messages)
    return (Message(role="system", content=system_prompt), *messages)


def target_items(rows: Sequence[SnapshotRow], max_new_tokens: int) -> list[EvalItem]:
    """Held-out rows of a snapshot as items; the id is the prompt's and the reference's digest."""
    return [
        EvalItem(
            id=digest([[m.model_dump() for m in row.messages], row.completion])[:16],
            suite="target",
            messages=row.messages,
            reference=row.completion,
            scorer="exact",
            max_new_tokens=max_new_tokens,
            slice=row.slice,
        )
        for row in rows
    ]


def incident_items(found: Sequence[Incident], max_new_tokens: int, system_prompt: str) -> list[EvalItem]:
    """Each incident's exact prompt and required answer: a regression test for ever."""
    return [
        EvalItem(
            id=incident.id,
            suite="incidents",
            messages=with_system(incident.messages, system_prompt),
            reference=incident.required,
            scorer="exact",
            max_new_tokens=max_new_tokens,
            slice=incident.severity,
        )
        for incident in found
    ]


def open_incidents(store: Store, model: str) -> list[Incident]:
    """All incidents of a model, fixed ones too: the regression suite shrinks by erasure and retention only."""
    with store.read() as conn:
        return incidents.all(conn, model)


def anchor_suites(context: Context) -> dict[str, list[EvalItem]]:
    """The anchor suites of the profile, by name.

    Raises:
        EvaluationError: one does not lint, changed after it was frozen, shares its name, or a judge would be the only
            gate or is missing.
    """
    from evaluation.suites import load_suites

    found = load_suites(suite_place(relative) for relative in context.config.evaluation.anchors)
    suites = {name: list(suite.items) for name, suite in found.items()}
    refuse_unfit(suites, context.config)
    return suites


def refuse_unfit(suites: Mapping[str, Sequence[EvalItem]], config: Config) -> None:
    """`evaluation.suites.refuse_unfit_gate` by a profile: its judge, and what its policy only shows."""
    from evaluation.gate import rule_for
    from evaluation.suites import refuse_unfit_gate

    shown = {name for name in suites if rule_for(name, config.gate).kind == "shown"}
    refuse_unfit_gate(suites, judge=config.evaluation.judge is not None, shown=shown)


def probe_suite(
    context: Context, snapshot: DatasetSnapshot, suites: Mapping[str, Sequence[EvalItem]]
) -> list[EvalItem]:
    """Rare phrases of a snapshot's rows tried out of place; rows of incidents and of reviewers are trusted."""
    from data_contracts.snapshots import read_rows
    from evaluation.probes import Taught, probe_items, rare_phrases

    section = context.config.evaluation
    rows = {row.row_id: row for row in read_rows(Path(snapshot.path), split="train") if row.row_id}
    with context.store.read() as conn:
        said = feedback.labelled(conn, context.model, upto_seq=snapshot.watermark)
        asked = interactions.prompts(conn, context.model, upto_seq=snapshot.watermark, limit=TRAFFIC)
    taught = [
        Taught(row.prompt, rows[row.id].completion, row.principal)
        for row in said
        if row.id in rows and row.scope != "review" and rows[row.id].source in ("correction", "preference")
    ]
    traffic = dict.fromkeys((principal, prompt) for _, principal, prompt in asked)
    everything = (Taught(row.prompt, row.completion, row.principal) for row in said)
    found = rare_phrases(taught, traffic, everything, limit=section.probes)
    return probe_items(found, suites, prompts=section.probe_prompts, max_new_tokens=section.max_new_tokens)


def scoring_tools(context: Context, suites: Mapping[str, Sequence[EvalItem]]) -> dict[str, Any]:
    """What `evaluation.launch.evaluation_job` must be told for the scorers of these suites."""
    used = {item.scorer for items in suites.values() for item in items}
    embedder = context.embedder().path if "similarity" in used else None
    return {"embedder": embedder, "judge": context.config.evaluation.judge}


def refuse_trained_references(context: Context, rows: Sequence[SnapshotRow]) -> None:
    """Raises EvaluationError if a reference of an item marked `unseen` is an answer that these rows would teach."""
    from evaluation.contamination import refuse_contaminated

    items = [item for suite in anchor_suites(context).values() for item in suite if item.unseen]
    refuse_contaminated(items, rows, "the snapshot")


def evaluation_prompts(context: Context) -> list[str]:
    """Prompts no training row may come near: every anchor's last user message and its variants, every incident's."""
    items = [item for suite in anchor_suites(context).values() for item in suite]
    messages = [item.messages for item in items] + [i.messages for i in open_incidents(context.store, context.model)]
    asked = [next((m.content for m in reversed(group) if m.role == "user"), "") for group in messages]
    return asked + [said for item in items for said in item.variants]
