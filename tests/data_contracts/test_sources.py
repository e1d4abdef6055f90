"""JSON Lines in and out: round trip, repeats, bad lines named, good ones kept, redacted on the way in."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import InputError
from configs.loader import build_config
from data_contracts.ids import new_request_id, request_id_is_ours
from data_contracts.records import Feedback, Interaction
from data_contracts.sources.base import MemorySource, Source
from data_contracts.sources.json_text import MAX_VALUE as MAX_LINE
from data_contracts.sources.jsonl import export_jsonl, import_jsonl
from data_contracts.sources.lines import parse_line
from data_contracts.sources.store_source import StoreSource
from store import feedback, interactions
from store.engine import Store

CONFIG = build_config({})
MODEL = CONFIG.model.name
KEY = b"k" * 32
USER = [{"role": "user", "content": "Where is my order?"}]


def write(tmp_path: Path, *lines: Any) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines) + b"\n")
    return path


def stored(store: Store) -> tuple[list[Interaction], list[Feedback]]:
    with store.read() as conn:
        served = [interaction for _, interaction in interactions.since(conn, MODEL, 0, 10_000)]
        said = [one for _, one in feedback.since(conn, MODEL, 0, 10_000)]
    return served, said


LINE = {
    "interaction": {"messages": USER, "answer": "No idea.", "principal": "ann", "created_at": "2026-01-05T10:00:00Z"},
    "feedback": [{"kind": "correction", "text": "It ships today.", "principal": "bob"}, {"kind": "thumb", "thumb": -1}],
}


def test_a_line_with_feedback_becomes_a_labelled_row(store: Store, tmp_path: Path) -> None:
    report = import_jsonl(store, CONFIG, write(tmp_path, LINE), KEY)
    assert (report.interactions, report.feedback, report.repeated, report.errors) == (1, 2, 0, ())
    rows = list(StoreSource(store).rows(MODEL))
    assert [(r.principal, r.prompt, r.answer, r.completion) for r in rows] == [
        ("bob", "Where is my order?", "No idea.", "It ships today.")
    ]
    served, said = stored(store)
    assert request_id_is_ours(KEY, MODEL, served[0].id)
    assert {one.principal for one in said} == {"ann", "bob"}
    assert len({one.salt for one in said}) == 2


def test_importing_twice_changes_nothing(sqlite_store: Store, tmp_path: Path) -> None:
    path = write(tmp_path, LINE, {"messages": USER, "answer": "Soon."})
    import_jsonl(sqlite_store, CONFIG, path, KEY)
    before = stored(sqlite_store)
    again = import_jsonl(sqlite_store, CONFIG, path, KEY)
    assert (again.interactions, again.feedback, again.repeated) == (0, 0, 4)
    assert stored(sqlite_store) == before


def test_ids_of_other_systems_are_derived_and_ours_are_kept(sqlite_store: Store, tmp_path: Path) -> None:
    ours = new_request_id(KEY, MODEL)
    path = write(
        tmp_path,
        {"id": "chatcmpl-foreign", "messages": USER, "answer": "a"},
        {"id": "chatcmpl-foreign", "messages": USER, "answer": "a", "created_at": "2026-01-05T10:00:00+01:00"},
        {"id": ours, "messages": USER, "answer": "b"},
    )
    report = import_jsonl(sqlite_store, CONFIG, path, KEY)
    assert (report.interactions, report.repeated) == (2, 1)
    served, _ = stored(sqlite_store)
    assert ours in {one.id for one in served}
    assert all(request_id_is_ours(KEY, MODEL, one.id) for one in served)


def test_everything_is_redacted_on_the_way_in(sqlite_store: Store, tmp_path: Path) -> None:
    line = {
        "interaction": {
            "messages": [{"role": "user", "content": "I am ann@example.com, +49 30 1234567"}],
            "answer": "Hello ann@example.com",
        },
        "feedback": [{"kind": "correction", "text": "Hello ann@example.com and bob@example.com"}],
    }
    import_jsonl(sqlite_store, CONFIG, write(tmp_path, line), KEY)
    served, said = stored(sqlite_store)
    assert served[0].messages[0].content == "I am <EMAIL_1>, <PHONE_1>"
    assert served[0].answer == "Hello <EMAIL_1>"
    assert said[0].text == "Hello <EMAIL_1> and <EMAIL_2>"


GOOD = {"messages": USER, "answer": "Soon."}
BAD: list[tuple[Any, str]] = [
    (b"{not json", "not valid JSON"),
    (b'{"messages": NaN}', "NaN"),
    (b'{"messages": 1e999}', "beyond the range"),
    (b'{"interaction": {"arm_share": -1E+4000}}', "beyond the range"),
    (b"[1, 2]", "JSON object"),
    (b'"text"', "JSON object"),
    (b"\xff\xfe{}", "not UTF-8"),
    (b'{"a":' * 100_000, "nested too deeply"),
    (b'{"answer": "' + b"x" * MAX_LINE + b'"}', "too long"),
    ({"answer": "x"}, "`messages`"),
    ({"messages": [], "answer": "x"}, "`messages`"),
    ({"messages": [{"role": "robot", "content": "x"}], "answer": "x"}, "messages.0.role"),
    ({"messages": [{"role": "assistant", "content": "x"}], "answer": "x"}, "no user message"),
    ({"messages": USER, "answer": 3}, "`answer`"),
    ({"messages": USER, "answer": "x", "colour": "red"}, "`<unknown key>`"),
    ({"messages": USER, "answer": "x", "model": "other"}, "another model"),
    ({"messages": USER, "answer": "x", "created_at": "2026-01-05T10:00:00"}, "created_at"),
    ({"messages": USER, "answer": "x", "principal": "p" * 200}, "principal"),
    ({"messages": USER, "answer": "x", "tokens_in": -1}, "tokens_in"),
    ({"messages": USER, "answer": "x\u0000y"}, "NUL"),
    (b'{"messages": [{"role": "user", "content": "\\ud800"}], "answer": "x"}', "surrogate"),
    ({"interaction": GOOD, "feedback": [{"kind": "correction"}]}, "feedback.0.text"),
    ({"interaction": GOOD, "feedback": [{"kind": "correction", "text": "  "}]}, "feedback.0.text"),
    ({"interaction": GOOD, "feedback": [{"kind": "thumb", "thumb": 0}]}, "feedback.0.thumb"),
    ({"interaction": GOOD, "feedback": [{"kind": "rating", "rating": 6}]}, "feedback.0.rating"),
    ({"interaction": GOOD, "feedback": [{"kind": "praise"}]}, "feedback.0.kind"),
    ({"interaction": GOOD, "feedback": [{"kind": "preference", "text": "a"}]}, "rejected"),
    ({"interaction": GOOD, "feedback": [{"kind": "incident", "text": "a"}]}, "feedback.0.label"),
    ({"interaction": GOOD, "feedback": {"kind": "thumb"}}, "feedback"),
    ({"interaction": None}, "interaction"),
]


def test_bad_lines_are_named_and_good_ones_kept(sqlite_store: Store, tmp_path: Path) -> None:
    lines: list[Any] = []
    for bad, _ in BAD:
        lines += [bad, {**GOOD, "id": f"good-{len(lines)}"}]
    report = import_jsonl(sqlite_store, CONFIG, write(tmp_path, *lines), KEY)
    assert report.interactions == len(BAD)
    assert [error.line for error in report.errors] == list(range(1, 2 * len(BAD), 2))
    for error, (bad, words) in zip(report.errors, BAD, strict=True):
        assert words in str(error), (str(bad)[:80], str(error))
        assert str(error).startswith(f"{tmp_path}/in.jsonl, line {error.line}: ")
    assert "Where is my order" not in " ".join(map(str, report.errors))


def test_blank_lines_and_a_byte_order_mark_are_fine(sqlite_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\n   \n")
    assert import_jsonl(sqlite_store, CONFIG, path, KEY).interactions == 1


def test_a_missing_file_is_one_clear_error(sqlite_store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        import_jsonl(sqlite_store, CONFIG, tmp_path / "none.jsonl", KEY)
    with pytest.raises(InputError, match="cannot be written"):
        export_jsonl(sqlite_store, CONFIG, Path("/proc/none/out.jsonl"))


def test_more_lines_than_a_batch_come_in_and_go_out(sqlite_store: Store, tmp_path: Path) -> None:
    path = write(tmp_path, *({**GOOD, "id": f"r{n}"} for n in range(1203)))
    assert import_jsonl(sqlite_store, CONFIG, path, KEY).interactions == 1203
    assert export_jsonl(sqlite_store, CONFIG, tmp_path / "out.jsonl") == 1203


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
SAID = st.one_of(
    st.fixed_dictionaries({"kind": st.just("correction"), "text": TEXT.filter(str.strip)}),
    st.fixed_dictionaries(
        {"kind": st.just("preference"), "text": TEXT.filter(str.strip), "rejected": TEXT.filter(str.strip)}
    ),
    st.fixed_dictionaries({"kind": st.just("thumb"), "thumb": st.sampled_from([-1, 1])}),
    st.fixed_dictionaries({"kind": st.just("rating"), "rating": st.integers(1, 5), "scope": st.just("review")}),
)
LINES = st.lists(
    st.fixed_dictionaries(
        {
            "interaction": st.fixed_dictionaries(
                {
                    "messages": st.lists(
                        st.fixed_dictionaries({"role": st.just("user"), "content": TEXT.filter(str.strip)}),
                        min_size=1,
                        max_size=3,
                    ),
                    "answer": TEXT,
                    "tokens_in": st.integers(0, 9),
                    "flags": st.lists(st.sampled_from(["refusal", "truncated"]), max_size=2),
                }
            ),
            "feedback": st.lists(SAID, max_size=3),
        }
    ),
    max_size=6,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES)
def test_what_is_exported_imports_as_it_was(tmp_path: Path, lines: list[Any]) -> None:
    first, second = (Store.open(f"sqlite:///{tmp_path}/{uuid.uuid4().hex}.db") for _ in range(2))
    assert import_jsonl(first, CONFIG, write(tmp_path, *lines), KEY, trust_scope=True).errors == ()
    out = tmp_path / "out.jsonl"
    export_jsonl(first, CONFIG, out)
    assert import_jsonl(second, CONFIG, out, KEY, trust_scope=True).errors == ()
    served, said = stored(first)
    served_again, said_again = stored(second)
    assert sorted(served_again, key=lambda i: i.id) == sorted(served, key=lambda i: i.id)
    unsalted = [one.model_copy(update={"salt": ""}) for one in said]
    assert sorted((f.model_copy(update={"salt": ""}) for f in said_again), key=lambda f: f.id) == sorted(
        unsalted, key=lambda f: f.id
    )
    first.close()
    second.close()


def test_the_memory_double_is_a_source() -> None:
    lines = [parse_line(LINE), parse_line({"interaction": GOOD})]
    source: Source = MemorySource(lines, batch_rows=1)
    batches = list(source.read())
    assert [batch.rows.num_rows for batch in batches] == [2, 1]
    assert [batch.rows.num_rows for batch in source.read(batches[0].cursor)] == [1]
    assert list(source.read(batches[1].cursor)) == []
