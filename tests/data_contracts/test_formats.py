"""Every format: what is written reads as it was; the shapes its documentation shows are recognised and understood."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_samples import ANY, WORDS, conversations, memory_file, read_all, spoken, written

from configs.errors import InputError
from data_contracts.records import Feedback, FeedbackKind, Interaction
from data_contracts.sources.base import Defaults, schema
from data_contracts.sources.files import FileSource
from data_contracts.sources.formats.annotated import ANSWER, CONVERSATION, PROMPT
from data_contracts.sources.formats.registry import FORMATS, NAMES, detect
from data_contracts.sources.formats.trl import TRL
from data_contracts.sources.tables import neutralise, restore

K = FeedbackKind
OWN = Defaults(trust_scope=True)
"""For files of our own, whose rows say themselves that they are reviewed."""
PROPERTIES = settings(max_examples=40, deadline=None)


def said_of(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What was asked and said, row by row, without ids, times and names."""
    return [
        (
            [(m["role"], m["content"]) for m in row["interaction_messages"]],
            row["interaction_answer"],
            row["feedback_kind"],
            *(row[f"feedback_{name}"] for name in ("thumb", "rating", "text", "rejected", "label")),
        )
        for row in rows
    ]


def expected(interaction: Interaction, said: Feedback, answer: str | None = None) -> tuple[Any, ...]:
    return (
        [(m.role, m.content) for m in interaction.messages],
        interaction.answer if answer is None else answer,
        said.kind.value,
        said.thumb,
        said.rating,
        said.text,
        said.rejected,
        said.label,
    )


def key(row: tuple[Any, ...]) -> str:
    return json.dumps(row, default=str)


# --- round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
@PROPERTIES
@given(st.lists(spoken(list(K)), max_size=4))
def test_our_own_columns_lose_nothing(format: str, pairs: list[tuple[Interaction, list[Feedback]]]) -> None:
    rows, errors, _ = read_all(FileSource(written(format, pairs, K.CORRECTION), defaults=OWN))
    assert errors == []
    names = [n for n in schema().names if n not in ("origin", "line")]
    found = [{name: row[name] for name in names} for row in rows]
    wanted = []
    for interaction, said in pairs:
        served = {f"interaction_{name}": value for name, value in interaction}
        served["interaction_messages"] = [m.model_dump() for m in interaction.messages]
        served["interaction_flags"] = list(interaction.flags)
        blank = {name: None for name in names if name.startswith("feedback_")}
        for one in said or [None]:
            told = {f"feedback_{name}": value for name, value in one} if one else {}
            wanted.append({name: {**blank, **served, **told}[name] for name in names})
    assert found == wanted


@pytest.mark.parametrize("format", ["trl", "sharegpt", "alpaca"])
@pytest.mark.parametrize("kind", [K.CORRECTION, K.PREFERENCE, K.THUMB])
@PROPERTIES
@given(data=st.data())
def test_files_of_one_kind_come_back(format: str, kind: FeedbackKind, data: st.DataObject) -> None:
    pairs = data.draw(st.lists(spoken([K.CORRECTION, K.PREFERENCE, K.THUMB]), max_size=4))
    rows, errors, _ = read_all(FileSource(written(format, pairs, kind)))
    assert errors == []
    # The answer that was corrected is not held, and the rejected one stands for it.
    answers = {K.CORRECTION: lambda f: "", K.PREFERENCE: lambda f: f.rejected, K.THUMB: lambda f: None}[kind]
    wanted = [expected(i, f, answers(f)) for i, said in pairs for f in said if f.kind is kind]
    assert said_of(rows) == wanted


@pytest.mark.parametrize(("format", "kind"), [("openai-chat", K.CORRECTION), ("openai-dpo", K.PREFERENCE)])
@PROPERTIES
@given(data=st.data())
def test_openai_files_come_back(format: str, kind: FeedbackKind, data: st.DataObject) -> None:
    pairs = data.draw(st.lists(spoken([K.CORRECTION, K.PREFERENCE, K.RATING]), max_size=4))
    rows, errors, _ = read_all(FileSource(written(format, pairs, kind)))
    assert errors == []
    wanted = [expected(i, f, f.rejected or "") for i, said in pairs for f in said if f.kind is kind]
    assert said_of(rows) == wanted


@pytest.mark.parametrize("format", ["label-studio", "argilla"])
@PROPERTIES
@given(data=st.data())
def test_annotations_come_back_with_who_said_them(format: str, data: st.DataObject) -> None:
    kinds = [kind for kind in K if kind is not K.INCIDENT]
    pairs = data.draw(st.lists(spoken(kinds), max_size=3))
    rows, errors, _ = read_all(FileSource(written(format, pairs, K.CORRECTION), defaults=OWN))
    assert errors == []
    wanted = [(i, f) for i, said in pairs for f in said]
    assert sorted(map(key, said_of(rows))) == sorted(key(expected(i, f)) for i, f in wanted)
    who = sorted((r["interaction_id"], r["interaction_principal"], r["feedback_principal"]) for r in rows)
    assert who == sorted((i.id, i.principal, f.principal) for i, f in wanted)
    if format == "label-studio":
        told = sorted((r["feedback_created_at"], r["feedback_scope"], r["feedback_source"]) for r in rows)
        assert told == sorted((f.created_at, f.scope, f.source) for _, f in wanted)


@given(ANY)
def test_a_neutralised_cell_is_no_formula_and_comes_back(text: str) -> None:
    cell = neutralise(text)
    assert restore(cell) == text
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "＝"))


def test_no_cell_of_an_exported_csv_is_run_by_a_spreadsheet() -> None:
    import csv
    import io

    import fsspec

    line = {"messages": [{"role": "user", "content": "=HYPERLINK(1)"}], "answer": "=cmd|' /C calc'!A0"}
    interaction = Interaction.model_validate(
        {**line, "id": "i", "created_at": "2026-01-01T00:00:00Z", "model": "m", "principal": "+1", "conversation": "@c"}
    )
    with fsspec.open(written("csv", [(interaction, [])], K.CORRECTION), "rb") as handle:
        text = handle.read().decode()
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert "'=cmd|' /C calc'!A0" in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


# --- shapes from the documentation of each format ------------------------------------------------

SKY = [{"role": "user", "content": "What color is the sky?"}]
BLUE, GREEN = [{"role": "assistant", "content": "It is blue."}], [{"role": "assistant", "content": "It is green."}]
ASKED = [("user", "What color is the sky?")]
DEMO = (ASKED, "", "correction", None, None, "It is blue.", None, None)
PAIR = (ASKED, "It is green.", "preference", None, None, "It is blue.", "It is green.", None)
GOOD = (ASKED, "It is blue.", "thumb", 1, None, None, None, None)
PARTS = [{"type": "text", "text": "It is "}, {"type": "text", "text": "blue."}]
TURNS = [{"from": "human", "value": "What color is the sky?"}]
UP = {"value": "up"}
VERDICT = {"from_name": "verdict", "type": "choices"}
SHAPES: list[tuple[str, dict[str, Any], tuple[Any, ...]]] = [
    ("trl", {"prompt": SKY, "completion": BLUE}, DEMO),
    ("trl", {"prompt": "What color is the sky?", "completion": "It is blue."}, DEMO),
    ("trl", {"prompt": SKY, "chosen": BLUE, "rejected": GREEN}, PAIR),
    ("trl", {"prompt": "What color is the sky?", "chosen": "It is blue.", "rejected": "It is green."}, PAIR),
    ("trl", {"chosen": SKY + BLUE, "rejected": SKY + GREEN}, PAIR),
    ("trl", {"prompt": "What color is the sky?", "chosen": SKY + BLUE, "rejected": SKY + GREEN}, PAIR),
    (
        "trl",
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        ([("user", "The sky is")], " green.", "preference", None, None, " blue.", " green.", None),
    ),
    ("trl", {"prompt": SKY, "completion": BLUE, "label": True}, GOOD),
    ("trl", {"prompt": "What color is the sky?", "completion": "It is blue.", "label": True}, GOOD),
    ("openai-chat", {"messages": SKY + BLUE}, DEMO),
    ("openai-chat", {"messages": [*SKY, *BLUE, {**GREEN[0], "weight": 0}]}, DEMO),
    ("openai-chat", {"messages": [*SKY, {"role": "assistant", "content": PARTS}]}, DEMO),
    (
        "openai-dpo",
        {
            "input": {"messages": SKY, "tools": [], "parallel_tool_calls": True},
            "preferred_output": BLUE,
            "non_preferred_output": GREEN,
        },
        PAIR,
    ),
    ("sharegpt", {"conversations": [*TURNS, {"from": "gpt", "value": "It is blue."}]}, DEMO),
    (
        "sharegpt",
        {
            "conversations": TURNS,
            "chosen": {"from": "gpt", "value": "It is blue."},
            "rejected": {"from": "gpt", "value": "It is green."},
        },
        PAIR,
    ),
    ("sharegpt", {"conversations": [*TURNS, {"from": "gpt", "value": "It is blue."}], "kto_tag": True}, GOOD),
    (
        "sharegpt",
        {"conversations": [*TURNS, {"from": "gpt", "value": "It is blue."}], "system": "Be brief."},
        ([("system", "Be brief."), *ASKED], *DEMO[1:]),
    ),
    ("alpaca", {"instruction": "What color is the sky?", "input": "", "output": "It is blue."}, DEMO),
    (
        "alpaca",
        {"instruction": "What color is", "input": "the sky?", "output": "It is blue."},
        ([("user", "What color is\nthe sky?")], *DEMO[1:]),
    ),
    (
        "alpaca",
        {"instruction": "What color is the sky?", "input": "", "chosen": "It is blue.", "rejected": "It is green."},
        PAIR,
    ),
    ("alpaca", {"instruction": "What color is the sky?", "output": "It is blue.", "kto_tag": True}, GOOD),
    (
        "alpaca",
        {"instruction": "And now?", "output": "Black.", "system": "S", "history": [["Sky?", "Blue."]]},
        (
            [("system", "S"), ("user", "Sky?"), ("assistant", "Blue."), ("user", "And now?")],
            "", "correction", None, None, "Black.", None, None,
        ),
    ),
    (
        "label-studio",
        {
            "id": 1,
            "created_at": "2021-03-09T21:52:49.513742Z",
            "project": 83,
            "data": {"prompt": "What color is the sky?", "answer": "It is green."},
            "annotations": [
                {
                    "id": 1001,
                    "result": [
                        {
                            "from_name": "corrected_answer", "to_name": "answer", "type": "textarea", "id": "Dx",
                            "value": {"text": ["It is blue."]},
                        }
                    ],
                    "was_cancelled": False, "ground_truth": False, "completed_by": {"id": 10, "email": "ann@x.org"},
                    "created_at": "2021-03-09T22:16:08.728353Z",
                }
            ],
            "predictions": [],
        },
        (ASKED, "It is green.", *DEMO[2:]),
    ),
    (
        "label-studio",
        {
            "data": {"question": "What color is the sky?", "text1": "It is green.", "text2": "It is blue."},
            "annotations": [
                {
                    "completed_by": 10,
                    "result": [{"from_name": "pw", "type": "pairwise", "value": {"selected": "right"}}],
                }
            ],
        },
        PAIR,
    ),
    (
        "label-studio",
        {
            "data": {"messages": SKY, "answer": "It is blue."},
            "annotations": [{"result": [{**VERDICT, "value": {"choices": ["Good answer"]}}]}],
        },
        GOOD,
    ),
    (
        "argilla",
        {
            "id": "1", "fields": {"prompt": "What color is the sky?", "response": "It is green."}, "metadata": {},
            "suggestions": {"correction": {"value": "It is red.", "score": 0.9, "agent": "m"}},
            "responses": {"correction": [{"value": "It is blue.", "user_id": "7c1"}]}, "vectors": {},
        },
        (ASKED, "It is green.", *DEMO[2:]),
    ),
    (
        "argilla",
        {
            "fields": {"prompt": "What color is the sky?", "answer_a": "It is green.", "answer_b": "It is blue."},
            "responses": {
                "preference": [
                    {"value": [{"value": "answer_b", "rank": 1}, {"value": "answer_a", "rank": 2}], "user_id": "7c1"}
                ]
            },
        },
        PAIR,
    ),
    (
        "argilla",
        {
            "id": "1", "prompt": "What color is the sky?", "answer": "It is blue.",
            "quality.responses": ["good"], "quality.responses.users": ["7c1"],
        },
        GOOD,
    ),
    ("argilla", {"r1": {"fields": {"chat": SKY, "answer": BLUE[0]["content"]}, "responses": {"thumb": [UP]}}}, GOOD),
    (
        "argilla",
        {"id": ["1"], "fields": [{"chat": SKY, "answer": "It is blue."}], "responses": [{"thumb": [{"value": "yes"}]}]},
        GOOD,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("format", "row", "wanted"), SHAPES)
def test_documented_shapes_are_recognised_and_understood(
    format: str, row: dict[str, Any], wanted: tuple[Any, ...]
) -> None:
    assert detect([row], "x").name == format
    for url in (memory_file("x.jsonl", json.dumps(row).encode()), memory_file("x.json", json.dumps([row]).encode())):
        rows, errors, _ = read_all(FileSource(url))
        assert errors == []
        assert said_of(rows) == [wanted]
        assert rows[0]["feedback_source"] == format


def test_who_labelled_is_the_principal() -> None:
    for format, row, _ in SHAPES:
        (found, *_), _, _ = read_all(FileSource(memory_file("x.jsonl", json.dumps(row).encode())))
        text = json.dumps(row)
        wanted = "ann@x.org" if "ann@x.org" in text else "label-studio-10" if '"completed_by": 10' in text else None
        wanted = "7c1" if "7c1" in text else wanted
        assert found["feedback_principal"] == wanted, format


@PROPERTIES
@given(conversations(), WORDS, WORDS)
def test_a_shared_beginning_is_the_prompt(messages: Any, chosen: str, rejected: str) -> None:
    """As `trl.extract_prompt`: explicit and implicit prompts say the same, wherever the answers differ."""
    if chosen == rejected:
        return
    prompt = [m.model_dump() for m in messages]
    better, worse = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
    implicit = TRL.parse({"chosen": prompt + better, "rejected": prompt + worse})
    assert implicit == TRL.parse({"prompt": prompt, "chosen": better, "rejected": worse})


def test_trl_reads_its_plain_prompts_as_trl_does() -> None:
    for chosen, rejected in [
        ("The sky is blue.", "The sky is green."),
        ("a b c", "a b d"),
        ("x y", "x yz"),
        ("ab", "ac"),
    ]:
        from trl.data_utils import extract_prompt

        theirs = extract_prompt({"chosen": chosen, "rejected": rejected})
        (ours,) = TRL.parse({"chosen": chosen, "rejected": rejected})
        assert ours["interaction"]["messages"] == [{"role": "user", "content": theirs["prompt"]}]
        assert (ours["feedback"][0]["text"], ours["feedback"][0]["rejected"]) == (theirs["chosen"], theirs["rejected"])


def test_an_unlabelled_or_unknown_question_is_counted_and_never_guessed() -> None:
    tasks = [
        {"data": {"prompt": "a"}},
        {"data": {"prompt": "a"}, "annotations": [{"was_cancelled": True, "result": []}]},
        {"data": {"prompt": "a"}, "annotations": [{"result": [{**VERDICT, "from_name": "topic", "value": {}}]}]},
    ]  # fmt: skip
    (batch,) = FileSource(memory_file("x.json", json.dumps(tasks).encode())).read()
    assert (batch.rows.num_rows, batch.errors) == (0, ())
    assert batch.skipped == {
        "label-studio: not labelled": 1,
        "label-studio: cancelled": 1,
        "label-studio: choices `topic` is not understood": 1,
    }
    records = [{"fields": {"prompt": "a"}, "responses": {"topic": [{"value": "sport"}]}}, {"fields": {"prompt": "a"}}]
    (batch,) = FileSource(memory_file("x.json", json.dumps(records).encode())).read()
    assert batch.skipped == {"argilla: question `topic` is not understood": 1, "argilla: no response": 1}


# --- recognition ---------------------------------------------------------------------------------


def test_every_format_is_named_once_and_has_a_shape_above() -> None:
    assert {format for format, _, _ in SHAPES} | {"jsonl"} == set(NAMES)
    assert len(FORMATS) == len(NAMES) + 1
    assert not set(CONVERSATION) & set(PROMPT)
    assert not set(PROMPT) & set(ANSWER)


AMBIGUOUS = [
    {"prompt": "p", "chosen": "a", "rejected": "b", "messages": SKY},
    {"prompt": "p", "completion": "c", "interaction": {}},
    {"data": {}, "conversations": []},
]


@pytest.mark.parametrize("row", AMBIGUOUS)
def test_fields_of_two_formats_are_one_clear_error(row: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="ambiguous") as caught:
        list(FileSource(memory_file("x.jsonl", json.dumps(row).encode())).read())
    assert " or " in str(caught.value.found)
    assert caught.value.fix == "name it with --format"


def test_rows_of_two_formats_in_one_file_are_ambiguous_and_unknown_fields_not_recognised() -> None:
    mixed = b"\n".join(
        json.dumps(row).encode() for row in ({"messages": SKY + BLUE}, {"prompt": "a", "completion": "b"})
    )
    with pytest.raises(InputError, match="ambiguous"):
        list(FileSource(memory_file("x.jsonl", mixed)).read())
    with pytest.raises(InputError, match="not recognised") as caught:
        list(FileSource(memory_file("x.jsonl", b'{"colour": "red"}')).read())
    assert caught.value.found == "fields colour"


def test_columns_of_other_formats_are_understood_in_csv_and_parquet() -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    csv = b'prompt,completion,label\n"What color is the sky?",It is blue.,true\n'
    rows, errors, _ = read_all(FileSource(memory_file("x.csv", csv)))
    assert (said_of(rows), errors) == ([GOOD], [])
    chat = 'messages\n"{}"\n'.format(json.dumps(SKY + BLUE).replace('"', '""')).encode()
    assert said_of(read_all(FileSource(memory_file("x.csv", chat)))[0]) == [DEMO]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([{"prompt": SKY, "chosen": BLUE, "rejected": GREEN}]), sink)
    assert said_of(read_all(FileSource(memory_file("x.parquet", sink.getvalue().to_pybytes())))[0]) == [PAIR]
