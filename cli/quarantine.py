"""What `tidemill quarantine` shows and chooses."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

from cli.visible import indented, visible, visible_line
from configs.errors import InputError, NotFoundError
from data_contracts.records import Incident, QuarantinedRow, ReviewPayload
from data_contracts.redaction import Redactor
from data_contracts.review.desk import redacted
from flows.context import Context
from store import feedback, incidents, quarantine, reviews
from store.review_feeds import ROW_KINDS

STATUSES = ("left-out", "held", "released", "dropped", "all")
"""`left-out`: held, or released and left out again by a later rule."""


def matching(context: Context, reason: str, status: str) -> list[QuarantinedRow]:
    """Rows of a reason (shell pattern) and status.

    Raises:
        InputError: no such status.
    """
    if status not in STATUSES:
        raise InputError("no such status", where="--status", expected=", ".join(STATUSES), found=ascii(status))
    with context.store.read() as conn:
        if status == "left-out":
            found = quarantine.left_out(conn, context.model)
        else:
            found = quarantine.list_rows(conn, context.model, None if status == "all" else status)
    return [row for row in found if fnmatch.fnmatchcase(row.reason, reason)]


def table_rows(rows: Sequence[QuarantinedRow]) -> list[dict[str, Any]]:
    """For people; the detail may quote, so it is made visible."""
    return [
        {"row": row.row_id, "reason": row.reason, "detail": visible_line(row.detail), "status": row.status}
        for row in rows
    ]


def chosen(context: Context, rows: Sequence[str], code: str | None) -> list[str]:
    """The rows a command is about: those named, or all that are held for a reason code.

    Raises:
        InputError: neither or both are given.
        NotFoundError: nothing is held for the reason code.
    """
    if bool(rows) == (code is not None):
        raise InputError(
            "which rows?",
            where="ROW / --reason-code",
            expected="row ids, or one reason code",
            found="both" if rows else "neither",
        )
    if code is None:
        return list(rows)
    ids = [row.row_id for row in matching(context, code, "held")]
    if not ids:
        raise NotFoundError("nothing is held for this reason", where="--reason-code", found=code)
    return ids


def row_facts(context: Context, row_id: str) -> dict[str, Any]:
    """A row or an incident with its texts, redacted once more, and its review item.

    Raises:
        NotFoundError: it is not in quarantine.
    """
    with context.store.read() as conn:
        held = quarantine.get(conn, context.model, row_id)
        row = feedback.labelled_by_id(conn, [row_id]).get(row_id)
        incident = incidents.get(conn, row_id)
        items = [item for kind in (*ROW_KINDS, "incident") if (item := reviews.find(conn, kind, row_id)) is not None]
    if held is None:
        raise NotFoundError(
            "The row is not in quarantine.", where="quarantine", found=row_id, fix="`tidemill quarantine list`"
        )
    if row is not None:
        shown = redacted(
            ReviewPayload(messages=row.messages, answer=row.answer, proposed=row.completion), context.redactor
        )
        row = row.model_copy(update={"messages": shown.messages, "answer": shown.answer, "completion": shown.proposed})
    return {
        **held.model_dump(mode="json"),
        "row": None if row is None else row.model_dump(mode="json"),
        "incident": None if incident is None else _clean(incident, context.redactor).model_dump(mode="json"),
        "review_items": [{"item": item.id, "kind": item.kind, "status": item.status} for item in items],
    }


def _clean(incident: Incident, redactor: Redactor) -> Incident:
    payload = ReviewPayload(
        messages=incident.messages,
        answer=incident.answer,
        proposed=incident.required,
        options=incident.paraphrases,
        title=incident.title,
    )
    shown = redacted(payload, redactor)
    texts = {"answer": shown.answer, "required": shown.proposed, "paraphrases": shown.options, "title": shown.title}
    return incident.model_copy(update={"messages": shown.messages, **texts})


def row_text(facts: dict[str, Any]) -> str:
    """For the terminal: texts indented, control characters shown."""
    lines = [f"row {facts['row_id']}: {facts['status']}, {facts['reason']}", visible(facts["detail"])]
    lines += [f"review item {item['item']} ({item['kind']}): {item['status']}" for item in facts["review_items"]]
    row, incident = facts["row"], facts["incident"]
    if incident is not None:
        opener = visible_line(incident["opened_by"])
        lines += ["", f"incident of severity {incident['severity']} by {opener}: {visible_line(incident['title'])}"]
        said = [(m["role"], m["content"]) for m in incident["messages"]]
        said += [("the model answered", incident["answer"]), ("required", incident["required"])]
        said += [("another way of asking", text) for text in incident["paraphrases"]]
        return "\n".join([*lines, *(line for name, text in said for line in ("", f"{name}:", indented(text)))])
    if row is None:
        return "\n".join([*lines, "", "The row itself is not in the store (any more)."])
    lines += ["", f"{row['kind']} by {visible_line(row['principal'])} ({row['scope']}), source {row['source']}"]
    for message in row["messages"]:
        lines += ["", f"{message['role']}:", indented(message["content"])]
    for name, text in (("the model answered", row["answer"]), ("should have said", row["completion"])):
        lines += ["", f"{name}:", indented(text)]
    return "\n".join(lines)
