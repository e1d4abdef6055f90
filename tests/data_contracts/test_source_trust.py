"""What a row of a source may not do: promote itself, take another's id, come back erased, leave its text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from source_samples import KEY, MODEL, memory_file, read_all

from configs.errors import InputError
from data_contracts.ids import new_request_id
from data_contracts.records import utc_now
from data_contracts.sources.base import Defaults
from data_contracts.sources.export import stored
from data_contracts.sources.files import FileSource
from data_contracts.sources.ingest import ImportReport, ingest
from data_contracts.sources.lines import parse_line
from data_contracts.sources.mlflow_traces import _what
from data_contracts.sources.opening import file_source
from data_contracts.sources.tables import csv_rows
from store import erasure, feedback, interactions
from store.engine import Store

MAIL = "ann@example.com"
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "When do you open?"}], "answer": "At ten."}
SAID: dict[str, Any] = {"kind": "correction", "text": "At nine."}


def lines(*rows: Any) -> str:
    return memory_file("x.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rows))


def bring(store: Store, *rows: Any, **more: Any) -> ImportReport:
    return ingest(store, MODEL, KEY, FileSource(lines(*rows), "jsonl"), **more)


# --- scope ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "trust", "said", "kept"),
    [
        ("user", False, "review", "user"),
        ("user", True, "review", "review"),
        ("review", False, "review", "review"),
        ("review", False, "user", "user"),
        ("review", False, None, "review"),
        ("user", True, None, "user"),
    ],
)
def test_a_row_is_only_reviewed_where_the_configuration_says_so(
    sqlite_store: Store, scope: str, trust: bool, said: str | None, kept: str
) -> None:
    row = {"interaction": ASK, "feedback": [{**SAID, **({"scope": said} if said else {})}]}
    ingest(sqlite_store, MODEL, KEY, file_source(lines(row), "jsonl", "desk", scope, trust_scope=trust))
    ((_, (one,)),) = stored(sqlite_store, MODEL)
    assert one.scope == kept


def test_no_format_lets_a_row_promote_itself() -> None:
    region = {"type": "textarea", "from_name": "correction", "value": {"text": ["x"]}, "meta": {"scope": "review"}}
    task = {"data": {"prompt": "q", "answer": "a"}, "annotations": [{"result": [region]}]}
    flat = {"interaction_messages": ASK["messages"], "interaction_answer": "a", "feedback_kind": "thumb"}
    for row in (task, {**flat, "feedback_thumb": 1, "feedback_scope": "review"}):
        rows, errors, _ = read_all(FileSource(lines(row)))
        assert ([one["feedback_scope"] for one in rows], errors) == (["user"], [])


# --- ids -----------------------------------------------------------------------------------------


def test_one_foreign_feedback_id_of_two_systems_is_two_pieces(store: Store) -> None:
    first = {"interaction": {**ASK, "id": "a-1"}, "feedback": [{**SAID, "id": "1"}]}
    second = {"interaction": {**ASK, "id": "b-1"}, "feedback": [{**SAID, "id": "1", "text": "At eight."}]}
    assert bring(store, first).feedback == 1
    report = bring(store, second)
    assert (report.feedback, report.repeated) == (1, 0)
    again = bring(store, first, second)
    assert (again.feedback, again.repeated) == (0, 4)
    assert sorted(one.text or "" for _, said in stored(store, MODEL) for one in said) == ["At eight.", "At nine."]


def test_a_feedback_id_is_kept_on_a_request_of_ours(sqlite_store: Store) -> None:
    bring(sqlite_store, {"interaction": {**ASK, "id": new_request_id(KEY, MODEL)}, "feedback": [{**SAID, "id": "f-1"}]})
    ((_, (one,)),) = stored(sqlite_store, MODEL)
    assert one.id == "f-1"


# --- erased --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dry_run", [False, True])
def test_erased_rows_are_counted_as_erased(store: Store, dry_run: bool) -> None:
    rows = [
        {"interaction": {**ASK, "id": f"r-{n}"}, "feedback": [{**SAID, "id": "1"}, {"kind": "thumb", "thumb": -1}]}
        for n in range(3)
    ]
    bring(store, *rows[:2])
    (asked, told), (_, (one, _)) = stored(store, MODEL)
    with store.write() as conn:
        job = erasure.create(conn, pseudonym="p-1", by="x", reason="y", deadline=utc_now(), upto_seq=0, places={})
        erasure.remember(conn, job.id, [asked.id, *(f.id for f in told)], "row")
        erasure.remember(conn, job.id, [one.id], "row")
        conn.execute(feedback.table.delete().where(feedback.table.c.id.in_([one.id, *(f.id for f in told)])))
        conn.execute(interactions.table.delete().where(interactions.table.c.id == asked.id))
    report = bring(store, *rows, dry_run=dry_run)
    # Of the first line all, of the second one piece; the third is new.
    assert (report.interactions, report.feedback, report.repeated) == (1, 2, 2)
    assert report.skipped == {"erased": 4}
    assert report.kinds == {"correction": 1, "thumb": 1}


# --- personal data beside the texts ---------------------------------------------------------------


def test_what_is_beside_the_texts_is_redacted_too(sqlite_store: Store) -> None:
    about = {"prompt_version": f"v {MAIL}", "flags": ["refusal", f"from {MAIL}"]}
    rows = [
        {"interaction": {**ASK, **about, "id": str(n), "conversation": who}, "feedback": [{**SAID, "source": MAIL}]}
        for n, who in enumerate([MAIL, MAIL, f"bob.{MAIL}", "c-17"])
    ]
    assert bring(sqlite_store, *rows).rejected == 0
    found = list(stored(sqlite_store, MODEL))
    served = [one for one, _ in found]
    assert "example.com" not in "".join(one.model_dump_json() + told.model_dump_json() for one, (told,) in found)
    assert {(one.prompt_version, one.flags) for one in served} == {("v <EMAIL_1>", ("refusal", "from <EMAIL_1>"))}
    assert {told.source for _, (told,) in found} == {"<EMAIL_1>"}
    names = [one.conversation for one in served]
    assert "c-17" in names
    # Two conversations stay two, and one stays one.
    assert sorted(names.count(name) for name in set(names)) == [1, 1, 2]


# --- what an error says ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"interaction": {**ASK, "model": MAIL}},
        {"interaction": {**ASK, MAIL: 1}},
        {"interaction": ASK, MAIL: 1},
        {"interaction": ASK, "feedback": [{**SAID, MAIL: 1}]},
        {"interaction": {**ASK, "messages": [{"role": "user", "content": "x", MAIL: 1}]}},
        {"interaction": ASK, "feedback": [{**SAID, "scope": MAIL}]},
        {"interaction": {**ASK, "created_at": MAIL}},
    ],
)
def test_an_error_never_holds_the_rows_text(sqlite_store: Store, row: dict[str, Any]) -> None:
    (error,) = bring(sqlite_store, row).errors
    assert MAIL not in str(error) + error.reason
    assert error.reason in error.message


@pytest.mark.parametrize(
    ("format", "row"),
    [
        ("argilla", {"fields": {"prompt": "x"}, "responses": {MAIL: "x"}}),
        ("argilla", {"fields": {"prompt": "x"}, "responses": {MAIL: [1]}}),
        ("argilla", {"prompt": "x", f"{MAIL}.responses": 3}),
        ("flat", {"interaction_messages": ASK["messages"], "interaction_answer": "a", MAIL: "x"}),
        (
            "label-studio",
            {
                "data": {"prompt": "x"},
                "annotations": [{"result": [{"type": "textarea", "from_name": MAIL, "value": {"text": 3}}]}],
            },
        ),
    ],
)
def test_no_formats_error_holds_a_key_of_the_row(format: str, row: dict[str, Any]) -> None:
    _, (error,), _ = read_all(FileSource(lines(row), format))
    assert MAIL not in str(error) + error.reason


# --- numbers -------------------------------------------------------------------------------------


def test_numbers_beyond_a_double_are_bad_rows_in_every_container(sqlite_store: Store) -> None:
    good = json.dumps(ASK)
    bad = good[:-1] + ', "arm_share": 1e999}'
    for name, body in (("x.jsonl", f"{good}\n{bad}\n{good}"), ("x.json", f"[{good}, {bad}]")):
        rows, (error,), _ = read_all(FileSource(memory_file(name, body.encode()), "jsonl"))
        assert "beyond the range of a double" in error.message
        assert len(rows) == body.count("messages") - 1
    tasks = '[{"data": {"prompt": "x"}, "annotations": [{"result": [{"type": "rating", "from_name": "stars", '
    tasks += '"value": {"rating": -1e999}}]}]}]'
    _, (error,), _ = read_all(FileSource(memory_file("x.json", tasks.encode()), "label-studio"))
    assert "beyond the range of a double" in error.message
    rows = list(csv_rows(_handle(b'interaction_messages\n"[1e999]"\n"[NaN]"\n')))
    assert [isinstance(row, InputError) for _, row in rows] == [True, True]


def _handle(body: bytes) -> Any:
    import io

    return io.BytesIO(body)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 2.5, True])
def test_a_rating_that_is_no_whole_number_is_none(value: Any) -> None:
    assert _what("rating", value) is None
    assert _what("rating", 4.0) == {"kind": "rating", "rating": 4}


def test_a_line_that_says_review_wrongly_is_still_an_error() -> None:
    with pytest.raises(InputError, match="scope"):
        parse_line({"interaction": ASK, "feedback": [{**SAID, "scope": ["review"]}]}, Defaults())
