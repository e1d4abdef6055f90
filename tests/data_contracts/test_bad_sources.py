"""Hostile and broken rows in every format: each is named by file and line with its reason, the good ones are kept."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from source_samples import KEY, MODEL, memory_file, read_all

from configs.errors import InputError
from data_contracts.ids import request_id_is_ours
from data_contracts.sources.export import stored
from data_contracts.sources.files import FileSource
from data_contracts.sources.formats.registry import FORMATS
from data_contracts.sources.ingest import ERRORS_KEPT, ingest
from data_contracts.sources.json_text import MAX_VALUE
from data_contracts.sources.opening import file_source
from store.engine import Store

ASK = [{"role": "user", "content": "Where is my order?"}]
SAY = [{"role": "assistant", "content": "It ships today."}]
TURNS = [{"from": "human", "value": "Where is my order?"}, {"from": "gpt", "value": "It ships today."}]
GOOD: dict[str, dict[str, Any]] = {
    "jsonl": {"interaction": {"messages": ASK, "answer": "a"}, "feedback": [{"kind": "correction", "text": "b"}]},
    "openai-chat": {"messages": ASK + SAY},
    "openai-dpo": {"input": {"messages": ASK}, "preferred_output": SAY, "non_preferred_output": SAY},
    "sharegpt": {"conversations": TURNS},
    "alpaca": {"instruction": "Where is my order?", "input": "", "output": "It ships today."},
    "trl": {"prompt": ASK, "completion": SAY},
    "label-studio": {
        "data": {"prompt": "Where?", "answer": "There."},
        "annotations": [{"result": [{"from_name": "correction", "type": "textarea", "value": {"text": ["Here."]}}]}],
    },
    "argilla": {
        "fields": {"prompt": "Where?", "answer": "There."},
        "responses": {"correction": [{"value": "Here.", "user_id": "7"}]},
    },
    "flat": {
        "interaction_messages": ASK, "interaction_answer": "There.", "feedback_kind": "correction",
        "feedback_text": "b",
    },
}  # fmt: skip
TEXT = "Where is my order?"
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("openai-chat", {"messages": "hi"}, "`messages`"),
    ("openai-chat", {"messages": []}, "`messages`"),
    ("openai-chat", {"messages": [7]}, "`messages.0`"),
    ("openai-chat", {"messages": ASK}, "no answer"),
    ("openai-chat", {"messages": SAY}, "no answer"),
    ("openai-chat", {"messages": [*ASK, {"role": "tool", "content": "x"}, *SAY]}, "`messages.1.role`"),
    ("openai-chat", {"messages": [*ASK, {"role": "assistant", "content": None, "tool_calls": []}]}, "text expected"),
    ("openai-chat", {"messages": [*ASK, {**SAY[0], "weight": "x"}]}, "weight"),
    ("openai-chat", {"messages": [*ASK, {**SAY[0], "weight": 0}]}, "no answer"),
    ("openai-chat", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, *SAY]}, "only parts of type"),
    ("openai-chat", {"messages": [*ASK, {"role": "assistant", "content": "  "}]}, "`feedback.0.text`"),
    ("openai-dpo", {"input": [], "preferred_output": SAY, "non_preferred_output": SAY}, "`input`"),
    ("openai-dpo", {"input": {"messages": ASK}, "preferred_output": SAY}, "non_preferred_output"),
    (
        "openai-dpo",
        {"input": {"messages": ASK}, "preferred_output": SAY * 2, "non_preferred_output": SAY},
        "exactly one",
    ),
    ("openai-dpo", {"input": {"messages": ASK}, "preferred_output": ASK, "non_preferred_output": SAY}, "exactly one"),
    ("sharegpt", {"conversations": {}}, "a list of turns"),
    ("sharegpt", {"conversations": [{"from": "observation", "value": "x"}]}, "conversations.0.from"),
    ("sharegpt", {"conversations": [{"from": ["human"], "value": "x"}]}, "conversations.0.from"),
    ("sharegpt", {"conversations": [{"from": "human", "value": None}]}, "conversations.0.value"),
    ("sharegpt", {"conversations": TURNS[:1]}, "no answer"),
    ("sharegpt", {"conversations": TURNS, "kto_tag": "maybe"}, "kto_tag"),
    ("sharegpt", {"conversations": TURNS[:1], "chosen": TURNS[1]}, "`rejected`"),
    ("sharegpt", {"conversations": TURNS[:1], "chosen": TURNS[0], "rejected": TURNS[1]}, "from gpt"),
    ("alpaca", {"instruction": None, "output": "x"}, "`instruction`"),
    ("alpaca", {"instruction": TEXT, "output": ""}, "`output`"),
    ("alpaca", {"instruction": TEXT, "output": ["a", "b"]}, "`output`"),
    ("alpaca", {"instruction": TEXT, "input": 7, "output": "x"}, "`input`"),
    ("alpaca", {"instruction": TEXT, "output": "x", "history": [["a"]]}, "`history`"),
    ("alpaca", {"instruction": TEXT, "chosen": "a"}, "`rejected`"),
    ("trl", {"prompt": ASK}, "`completion`"),
    ("trl", {"completion": SAY}, "`prompt`"),
    ("trl", {"prompt": "  ", "completion": "x"}, "`prompt`"),
    ("trl", {"prompt": ASK, "completion": SAY, "label": "so-so"}, "`label`"),
    ("trl", {"prompt": ASK, "completion": SAY, "label": 1}, "`label`"),
    ("trl", {"prompt": ASK, "chosen": SAY}, "two texts or two lists"),
    ("trl", {"chosen": "blue", "rejected": "green"}, "share no beginning"),
    ("trl", {"chosen": ASK + SAY, "rejected": "x"}, "two texts or two lists"),
    ("trl", {"prompt": ASK, "chosen": ASK + SAY, "rejected": ASK + SAY}, "exactly one"),
    ("label-studio", {"data": "x"}, "`data`"),
    ("label-studio", {"data": {}, "annotations": {"a": 1}}, "`annotations`"),
    ("label-studio", {"data": {}, "annotations": [3]}, "`annotations.0`"),
    ("label-studio", {"data": {}, "annotations": [{"result": None}]}, "`annotations.0.result`"),
    ("label-studio", {"data": {}, "annotations": [{"result": [{}]}]}, "`annotations.0.result.0`"),
    ("label-studio", {**GOOD["label-studio"], "data": {"answer": "x"}}, "no prompt"),
    (
        "label-studio",
        {"data": {"prompt": "a"}, "annotations": [{"result": [{"type": "rating", "value": {"rating": 9}}]}]},
        "feedback.0.rating",
    ),
    (
        "label-studio",
        {**GOOD["label-studio"], "annotations": [{**GOOD["label-studio"]["annotations"][0], "created_at": "soon"}]},
        "feedback.0.created_at",
    ),
    ("argilla", {"fields": 3}, "`fields`"),
    ("argilla", {"fields": {}, "responses": []}, "no response"),
    ("argilla", {"fields": {}, "responses": [1]}, "`responses`"),
    ("argilla", {"fields": {}, "responses": {"correction": "x"}}, "responses.<question>"),
    ("argilla", {"fields": {}, "responses": {"correction": ["x"]}}, "responses.<question>.0"),
    ("argilla", {"fields": [{}, {}], "responses": [{}]}, "not of one length"),
    (
        "argilla",
        {"prompt": "x", "correction.responses": ["a"], "correction.responses.users": []},
        "<question>.responses",
    ),
    ("argilla", {"fields": {"answer": "x"}, "responses": {"correction": [{"value": "y"}]}}, "no prompt"),
    ("argilla", {"fields": {"prompt": "x"}, "responses": {"stars": [{"value": 11}]}}, "feedback.0.rating"),
    ("flat", {"interaction_messages": "x", "interaction_answer": "a"}, "messages"),
    ("flat", {**GOOD["flat"], "colour": "red"}, "`<unknown key>`"),
    ("flat", {**GOOD["flat"], "feedback_kind": "praise"}, "feedback.0.kind"),
    ("flat", {**GOOD["flat"], "interaction_tokens_in": 2**40}, "tokens_in"),
    ("flat", {**GOOD["flat"], "interaction_cost_microdollars": 2**70}, "cost_microdollars"),
    ("flat", {**GOOD["flat"], "interaction_created_at": "2026-01-01"}, "created_at"),
]
NOTHING = {"no response"}
"""Reasons that are counted as left out, not as an error."""


def lines(format: str, bodies: list[bytes], container: str = "jsonl") -> FileSource:
    body = b"[" + b",\n".join(bodies) + b"]" if container == "json" else b"\n".join(bodies)
    return FileSource(memory_file(f"x.{container}", body), format)


@pytest.mark.parametrize("container", ["jsonl", "json"])
@pytest.mark.parametrize("format", sorted(GOOD))
def test_bad_rows_of_every_format_are_named_and_good_ones_kept(format: str, container: str) -> None:
    bad = [(row, words) for name, row, words in BAD if name == format and words not in NOTHING]
    bodies = [json.dumps(row).encode() for row, _ in bad]
    good = json.dumps(GOOD[format]).encode()
    rows, errors, _ = read_all(lines(format, [x for body in bodies for x in (body, good)] + [good], container))
    assert len(rows) == len(bad) + 1
    assert [error.line for error in errors] == list(range(1, 2 * len(bad), 2))
    for error, (row, words) in zip(errors, bad, strict=True):
        assert words in str(error), (row, str(error))
        assert f"x.{container}, line {error.line}: " in str(error)
        assert TEXT not in str(error)


HOSTILE: list[tuple[bytes, str]] = [
    (b"[1, 2]", "JSON object"),
    (b'"text"', "JSON object"),
    (b"null", "JSON object"),
    (b'{"messages": 1, "messages": 2}', "twice"),
    (b'{"a": {"b": 1, "b": 1}}', "twice"),
    (b'{"a": NaN}', "not a JSON number"),
    (b'{"a": "\xff\xfe"}', "not UTF-8"),
    (b'{"a": "\\ud800"}', "surrogate"),
    (b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", ""),
    (b'{"a": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}", ""),
    (b'{"a": ' + b"9" * 6000 + b"}", ""),
    (b"{}", ""),
]


@pytest.mark.parametrize("format", sorted(GOOD))
def test_hostile_json_is_one_error_a_line_in_every_format(format: str) -> None:
    good = json.dumps(GOOD[format]).encode()
    huge = b'{"a": "' + b"x" * MAX_VALUE + b'"}'
    hostile = [*HOSTILE, (huge, "too long"), (b"\x00" * 50, "not valid JSON"), (b"{" * 100_000, "")]
    bodies = [x for body, _ in hostile for x in (body, good)]
    rows, errors, _ = read_all(lines(format, bodies))
    assert len(rows) == len(hostile)
    assert [error.line for error in errors] == list(range(1, 2 * len(hostile), 2))
    for error, (body, words) in zip(errors, hostile, strict=True):
        assert words in str(error), (body[:60], str(error))


@pytest.mark.parametrize("format", sorted(GOOD))
def test_wrong_types_anywhere_never_crash(format: str) -> None:
    """Each value of a good row, however deep, replaced by each other type: an error or a row, nothing else."""
    swaps: list[Any] = [None, True, 0, -1, 1.5, "", "x", [], {}, [[]], [{}], {"a": 1}, [None], "\0", 10**30]
    bodies = [
        json.dumps(changed).encode() for path in paths(GOOD[format]) for changed in swapped(GOOD[format], path, swaps)
    ]
    assert len(bodies) > 40
    rows, errors, _ = read_all(lines(format, bodies))
    assert {error.line for error in errors} <= set(range(1, len(bodies) + 1))
    assert len(errors) > len(bodies) / 3
    for row in rows:
        assert any(m["role"] == "user" and m["content"].strip() for m in row["interaction_messages"])
        assert "\0" not in str(row)


def paths(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [before, *(path for key, item in inside for path in paths(item, (*before, key)))] if before or inside else []


def swapped(row: Any, path: tuple[Any, ...], swaps: list[Any]) -> list[Any]:
    made = []
    for swap in swaps:
        copy = json.loads(json.dumps(row))
        if not path:
            made.append(swap)
            continue
        place = copy
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = swap
        made.append(copy)
    return made


@pytest.mark.parametrize("format", ["auto", *sorted(GOOD)])
@pytest.mark.parametrize("body", [b"", b"\n\n", b"\xef\xbb\xbf\n", b"[]", b" [ ] \n"])
def test_empty_files_are_no_error(format: str, body: bytes) -> None:
    rows, errors, _ = read_all(FileSource(memory_file("x.json", body), format))
    assert (rows, errors) == ([], [])


ARRAYS: list[tuple[bytes, list[int], int]] = [
    (b"[\n%s\n%s", [3], 1),
    (b"[\n%s\n,\n%s\n", [5], 2),
    (b"[%s,\n7,\n%s]", [2], 2),
    (b"[%s,\n{bad},\n%s]", [2], 1),
    (b"[%s,%s]\n{}", [2], 2),
    (b"[%s,,%s]", [1], 1),
    (b'[%s,\n{"a": "\xff"},\n%s]', [2], 2),
    (b"[%s,\n" + b"[" * 100_000 + b",%s]", [2], 1),
]


@pytest.mark.parametrize(("body", "wrong", "kept"), ARRAYS)
def test_broken_arrays_keep_what_came_before(body: bytes, wrong: list[int], kept: int) -> None:
    good = json.dumps(GOOD["trl"]).encode()
    rows, errors, _ = read_all(FileSource(memory_file("x.json", body.replace(b"%s", good)), "trl"))
    assert len(rows) == kept
    assert [error.line for error in errors] == wrong


def test_an_item_that_never_ends_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'[{"a": "' + b"x" * (3 * MAX_VALUE))
    _, (error,), _ = read_all(FileSource(str(path), "trl"))
    assert "too long" in error.message


CSV = b"interaction_messages,interaction_answer,feedback_kind,feedback_text\n"
ROW = b'"[{""role"": ""user"", ""content"": ""q""}]",a,correction,b\n'


@pytest.mark.parametrize(
    ("body", "words", "kept"),
    [
        (CSV + ROW + b"1,2\n" + ROW, "as long as the header", 2),
        (CSV + ROW + b"\xff,a,correction,b\n" + ROW, "not UTF-8", 2),
        (CSV + ROW + b"{x,a,correction,b\n" + ROW, "not valid JSON", 2),
        (CSV + ROW + b"[[[,a,correction,b\n" + ROW, "not valid JSON", 2),
        (CSV + ROW + b"[" * 100_000 + b",a,correction,b\n" + ROW, "nested", 2),
        (CSV + ROW + b"x" * (MAX_VALUE + 5) + b"\n" + ROW, "too long", 2),
        (CSV + ROW + b'"a" b,a,correction,b\n' + ROW, "not valid CSV", 2),
        (CSV + ROW + ROW + b'"never closed,a\n', "not valid CSV", 2),
        (CSV + ROW + ROW.replace(b"correction", b"praise"), "feedback.0.kind", 1),
        (b"a,a\n1,2\n", "given twice", 0),
        (b"\xff\xfe\n1\n", "begins with the names", 0),
    ],
)
def test_broken_csv_is_named(body: bytes, words: str, kept: int) -> None:
    rows, errors, _ = read_all(FileSource(memory_file("x.csv", body), "flat"))
    assert len(rows) == kept
    assert len(errors) == 1
    assert words in str(errors[0])


def test_broken_parquet_is_named(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for body in (b"", b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1", b"not parquet"):
        _, (error,), _ = read_all(FileSource(memory_file("x.parquet", body), "flat"))
        assert "not a Parquet file" in error.message
    text = pa.array([b"ok", b"\xff\xfe", b"ok"]).view(pa.string())
    table = pa.table({"prompt": pa.array(["q", "q", "q"]), "completion": text})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    rows, errors, _ = read_all(FileSource(memory_file("x.parquet", sink.getvalue()), "trl"))
    assert len(rows) == 2
    assert [error.line for error in errors] == [2]
    sink = io.BytesIO()
    pq.write_table(pa.table({"prompt": [1.5], "completion": [[1]]}), sink)
    _, (error,), _ = read_all(FileSource(memory_file("x.parquet", sink.getvalue()), "trl"))
    assert "`prompt`" in error.message


def test_errors_are_all_counted_and_the_first_are_kept(sqlite_store: Store) -> None:
    url = memory_file("x.jsonl", b"{bad\n" * (ERRORS_KEPT + 200) + json.dumps(GOOD["jsonl"]).encode())
    report = ingest(sqlite_store, MODEL, KEY, FileSource(url))
    assert (report.feedback, report.rejected, len(report.errors)) == (1, ERRORS_KEPT + 200, ERRORS_KEPT)
    assert [error.line for error in report.errors] == list(range(1, ERRORS_KEPT + 1))


def test_much_feedback_on_a_long_interaction_does_not_fill_the_memory() -> None:
    long = {"messages": [{"role": "user", "content": "x" * (2 << 20)}], "answer": "a"}
    bomb = {"interaction": long, "feedback": [{"kind": "thumb", "thumb": 1}] * 40_000}
    fine = {"interaction": long, "feedback": [{"kind": "thumb", "thumb": 1}] * 3}
    body = b"\n".join(json.dumps(row).encode() for row in (bomb, *[fine] * 6))
    batches = list(FileSource(memory_file("x.jsonl", body), "jsonl").read())
    (error,) = (e for batch in batches for e in batch.errors)
    assert error.line == 1
    assert "too long" in error.message
    assert [batch.rows.num_rows for batch in batches] == [9, 9, 0]  # by size, not by number


def test_endless_reasons_are_counted_as_others(sqlite_store: Store) -> None:
    records = [{"fields": {"prompt": "a"}, "responses": {f"q{n}": [{"value": "x"}]}} for n in range(300)]
    url = memory_file("x.json", json.dumps(records).encode())
    report = ingest(sqlite_store, MODEL, KEY, FileSource(url))
    assert len(report.skipped) == 51
    assert report.skipped["other reasons"] == 250
    assert sum(report.skipped.values()) == 300


@pytest.mark.parametrize("format", sorted(GOOD))
def test_rows_of_every_format_come_in_redacted_with_our_ids(sqlite_store: Store, format: str) -> None:
    text = json.dumps(GOOD[format]).replace("Where", "I am ann@example.com. Where").replace("There.", "bob@example.com")
    url = memory_file("x.jsonl", text.encode())
    assert ingest(sqlite_store, MODEL, KEY, file_source(url, "auto", "desk", "review")).feedback == 1
    ((served, (said,)),) = stored(sqlite_store, MODEL)
    assert request_id_is_ours(KEY, MODEL, served.id)
    assert served.messages[0].content.startswith("I am <EMAIL_1>. Where")
    assert "@example.com" not in served.model_dump_json() + said.model_dump_json()
    assert said.scope == "review"
    assert served.principal == "desk"
    assert said.principal == ("7" if format == "argilla" else "desk")
    assert said.source == ("import" if format in ("jsonl", "flat") else format)


def test_names_and_secrets_stay_out_of_messages() -> None:
    with pytest.raises(InputError, match="no such format") as caught:
        file_source("x", "word", "a", "user")
    assert "openai-chat" in str(caught.value.expected)
    assert FileSource("s3://me:secret@bucket/x").name == "auto:s3://***@bucket/x"
    assert set(FORMATS) == set(GOOD)
