"""Argilla's records: `dataset.records.to_json`, `to_list` and `to_dict` (by names or by index), nested or flattened.

A record has `fields`, `metadata` and `responses`: `{question: [{"value", "user_id"}]}`. Read are responses to questions
whose names are understood: a correction or a comment (text), good or bad (label), a rating of 1 to 5, and a preference
or ranking of two fields. Suggestions are a model's, not a person's. The user's id is the principal.

Argilla keeps no time with a response, and takes back only responses of its own users.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from configs.errors import InputError
from data_contracts.records import Feedback, FeedbackKind, Interaction
from data_contracts.sources.formats.annotated import (
    chosen_word,
    fields_of,
    groups,
    line_of,
    pair_of,
    preference_of,
    written,
)
from data_contracts.sources.formats.base import Format, RawLine, Rendered, Row

_FLAT = ".responses"
_HELD = tuple(kind for kind in FeedbackKind if kind is not FeedbackKind.INCIDENT)
_PARTS = ("id", "fields", "metadata", "responses")


def _matches(row: Row) -> bool:
    return "fields" in row or any(k.endswith(_FLAT) for k in row) or _by_index(row)


def _by_index(row: Row) -> bool:
    return bool(row) and all(isinstance(record, Mapping) and "fields" in record for record in row.values())


def _records(row: Row) -> Iterator[Mapping[str, Any]]:
    """The records of a row, which may be one, or a whole `to_dict`."""
    if _by_index(row):
        yield from row.values()
    elif isinstance(row.get("fields"), list):
        columns = {name: row[name] for name in _PARTS if isinstance(row.get(name), list)}
        if len({len(column) for column in columns.values()}) > 1:
            raise InputError("the columns of `to_dict` are not of one length")
        for n in range(len(row["fields"])):
            yield {name: column[n] for name, column in columns.items()}
    elif "fields" not in row:
        yield _unflattened(row)
    else:
        yield row


def _unflattened(row: Row) -> dict[str, Any]:
    responses: dict[str, list[dict[str, Any]]] = {}
    if not any(key.endswith(_FLAT) for key in row):
        raise InputError("no record", expected="`fields` and `responses`, or flattened `QUESTION.responses`")
    for key, values in row.items():
        if not key.endswith(_FLAT) or values is None:
            continue
        users = row.get(f"{key}.users")
        if users is None and isinstance(values, list):
            users = [None] * len(values)
        if not isinstance(values, list) or not isinstance(users, list) or len(users) != len(values):
            raise InputError(
                "`<question>.responses`: a list with a user for each value expected", found=type(values).__name__
            )
        given = [{"value": value, "user_id": user} for value, user in zip(values, users, strict=True)]
        responses[key.removesuffix(_FLAT)] = given
    fields = {key: value for key, value in row.items() if "." not in key}
    metadata = {key: row[key] for key in ("request_id", "principal") if key in row}
    return {"id": row.get("id"), "fields": fields, "metadata": metadata, "responses": responses}


def _parse(row: Row) -> list[RawLine]:
    return [_record(record) for record in _records(row)]


def _record(record: Mapping[str, Any]) -> RawLine:
    fields, responses = record.get("fields"), record.get("responses") or {}
    if not isinstance(fields, Mapping):
        raise InputError("`fields`: an object expected", found=type(fields).__name__)
    if not isinstance(responses, Mapping):
        raise InputError("`responses`: an object expected", found=type(responses).__name__)
    said: list[dict[str, Any]] = []
    skipped: list[str] = []
    for question, answers in responses.items():
        if not isinstance(answers, list):
            raise InputError("`responses.<question>`: a list expected", found=type(answers).__name__)
        for n, response in enumerate(answers):
            if not isinstance(response, Mapping):
                raise InputError(f"`responses.<question>.{n}`: an object expected", found=type(response).__name__)
            found = _answered(question, response.get("value"), fields)
            if found is None:
                skipped.append(f"argilla: question `{question[:40]}` is not understood")
                continue
            by = response.get("user_id")
            said.append({**found, "principal": by} if isinstance(by, str) else found)
    if not said:
        return {"skipped": skipped or ["argilla: no response"]}
    metadata = record.get("metadata")
    about = metadata if isinstance(metadata, Mapping) else {}
    more = {
        name: about[key]
        for name, key in (("id", "request_id"), ("principal", "principal"))
        if isinstance(about.get(key), str)
    }
    return {**line_of(fields, said, **more), "skipped": skipped}


def _answered(question: str, value: Any, fields: Mapping[str, Any]) -> dict[str, Any] | None:
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        # A ranking: the first of it is preferred to the second; with a tie nothing is.
        ranks = sorted(value, key=lambda one: one["rank"] if isinstance(one.get("rank"), int) else 99)
        tie = len(ranks) != 2 or ranks[0].get("rank") == ranks[1].get("rank")
        return None if tie else preference_of(fields, ranks[0].get("value"))
    if isinstance(value, int) and not isinstance(value, bool):
        return {"kind": "rating", "rating": value}
    if not isinstance(value, str):
        return None
    if value in (pair_of(fields) or ()):
        return preference_of(fields, value)
    return chosen_word(question, value) or written(question, value)


def _render(interaction: Interaction, said: Sequence[Feedback], _kind: FeedbackKind) -> Rendered:
    made = Rendered()
    held = [one for one in said if one.kind in _HELD]
    if len(said) > len(held):
        made.left_out["argilla: incidents"] += len(said) - len(held)
    if said and not held:
        return made
    for pair, together in groups(held):
        responses: dict[str, list[dict[str, Any]]] = {}
        for one in together:
            responses.setdefault(one.kind.value, []).append({"value": _value(one), "user_id": one.principal})
        made.rows.append(
            {
                "id": interaction.id if pair is None else pair.id,
                "fields": fields_of(interaction, pair),
                "metadata": {"request_id": interaction.id, "principal": interaction.principal},
                "suggestions": {},
                "responses": responses,
                "vectors": {},
            }
        )
    return made


def _value(said: Feedback) -> Any:
    if said.kind is FeedbackKind.PREFERENCE:
        return "answer_a"
    if said.kind is FeedbackKind.THUMB:
        return "good" if said.thumb == 1 else "bad"
    return said.rating if said.kind is FeedbackKind.RATING else said.text


ARGILLA = Format("argilla", _matches, _parse, _render, container="json", holds=_HELD, bare=True)
