"""Suites from JSON Lines, YAML and folders; frozen ones; references that were trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from configs.errors import EvaluationError
from data_contracts.records import SnapshotRow
from evaluation.contamination import contaminated, is_telling, refuse_contaminated
from evaluation.freezing import freeze, lock_path
from evaluation.suites import item_digest, load_suite, load_suites, open_suite, parse_item, read_suite

YAML = """
scorer: contains
system: Be brief.
max_new_tokens: 9
items:
  - {id: a, prompt: "2 + 2?", reference: "4"}
  - {id: b, prompt: "Capital of Italy?", reference: Rome, scorer: similarity, threshold: 0.7, unseen: true}
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_yaml_and_json_lines_hold_the_same_suite(tmp_path: Path) -> None:
    suite = open_suite(write(tmp_path / "s.yaml", YAML))
    assert (suite.name, suite.size, suite.version) == ("s", 2, None)
    a, b = suite.items
    assert ([m.role for m in a.messages], a.scorer, a.max_new_tokens, a.unseen) == (
        ["system", "user"],
        "contains",
        9,
        False,
    )
    assert (b.scorer, b.threshold, b.unseen) == ("similarity", 0.7, True)
    lines = [
        {"id": "b", "prompt": "Capital of Italy?", "reference": "Rome", "scorer": "similarity", "threshold": 0.7},
        {"id": "a", "prompt": "2 + 2?", "reference": "4", "scorer": "contains"},
    ]
    other = tmp_path / "t.jsonl"
    other.write_text("\n".join(json.dumps({**x, "system": "Be brief.", "max_new_tokens": 9}) for x in lines))
    assert open_suite(other).digest == suite.digest, "order, name, file form and `unseen` do not count"


def test_items_without_the_new_fields_keep_their_digest() -> None:
    """Cached answers of earlier versions stay valid: this digest was made before there were thresholds."""
    item = parse_item({"id": "a", "prompt": "2 + 2?", "reference": "4", "scorer": "contains"}, "sums")
    assert item_digest(item) == GOLDEN
    assert item_digest(item.model_copy(update={"unseen": True})) == GOLDEN
    assert item_digest(item.model_copy(update={"threshold": 0.5})) != GOLDEN


GOLDEN = "4b0a261ec5e6854786b442bedfc6a0668260cc2075172abb5f4ff43f394cbf1d"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("items: [", "not valid YAML"),
        ("a: 1", "unknown key of a suite"),
        ("scorer: exact", "a list of items, or a mapping with `items`"),
        ("just text", "a list of items"),
        ("- {id: a, prompt: p, reference: 4}", "item 1"),
        ("- {id: a, prompt: p, reference: x}\n- {id: a, prompt: q, reference: x}", "same id"),
        ("- {id: a, prompt: p, reference: ''}", "reference is empty"),
        ("- {id: a, prompt: p, reference: x, threshold: 2}", "threshold must be"),
        ("- {id: a, prompt: p, reference: x, scorer: bleu}", "no such scorer; known: exact"),
        ("- a", "not str"),
        ("- {id: a, messages: 5, reference: x}", "not an item"),
        ("", "a list of items"),
    ],
)
def test_a_bad_yaml_suite_is_one_clear_error(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(EvaluationError, match=says) as caught:
        open_suite(write(tmp_path / "s.yaml", text))
    assert "s.yaml" in str(caught.value)


def test_a_folder_is_all_its_suites_and_names_are_unique(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(EvaluationError, match="folder without suites"):
        load_suites([folder])
    write(folder / "b.yaml", YAML)
    write(folder / "a.jsonl", '{"id": "a", "prompt": "p", "reference": "x"}')
    write(folder / "notes.txt", "no suite")
    freeze(read_suite(folder / "b.yaml"))
    found = load_suites([folder])
    assert {name: suite.version for name, suite in found.items()} == {"a": None, "b": 1}
    with pytest.raises(EvaluationError, match="same name"):
        load_suites([folder, write(tmp_path / "a.yaml", YAML)])
    with pytest.raises(EvaluationError, match="suite made of feedback"):
        load_suites([write(tmp_path / "target.yaml", YAML)])
    with pytest.raises(EvaluationError, match="JSON Lines or YAML"):
        open_suite(folder / "notes.txt")
    (tmp_path / "bad.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(EvaluationError, match="cannot be read"):
        open_suite(tmp_path / "bad.jsonl")


def test_a_frozen_suite_that_changed_says_which_items(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", YAML)
    first = freeze(read_suite(path))
    assert (first.version, first.size) == (1, 2)
    assert "Italy" not in lock_path(read_suite(path)).read_text(), "a lock holds no text"
    assert open_suite(path).version == 1
    write(path, YAML.replace('"4"', '"5"').replace("id: b", "id: c"))
    for opening in (load_suite, lambda p: freeze(read_suite(p))):
        with pytest.raises(EvaluationError, match="frozen suite was changed") as caught:
            opening(path)
        assert caught.value.found == "changed: a; added: c; removed: b"
        assert "version 1, 2 items" in str(caught.value)
    assert freeze(read_suite(path), new_version=True).version == 2
    assert open_suite(path).version == 2
    assert freeze(read_suite(path), new_version=True).version == 2, "unchanged: the lock stays"
    lock_path(read_suite(path)).write_text("{", encoding="utf-8")
    with pytest.raises(EvaluationError, match="lock cannot be read"):
        open_suite(path)


def row(completion: str, **more: Any) -> SnapshotRow:
    fields = {"digest": "d" * 64, "split": "train", "source": "correction", "messages": ()}
    return SnapshotRow.model_validate({**fields, "completion": completion, **more})


def item(id: str, reference: str, **more: Any) -> Any:
    return parse_item({"id": id, "prompt": "q", "reference": reference, "unseen": True, **more}, "s")


def test_a_reference_that_trains_is_an_error_and_a_common_one_is_not() -> None:
    telling = "Parcels leave our mill every Tuesday."
    rows = [row("Well: PARCELS leave our mill, every Tuesday!", row_id="r1"), row("Yes. 42. Rome, of course.")]
    hits = contaminated([item("a", telling), item("b", "yes"), item("c", "42"), item("d", "Rome")], rows)
    assert [(hit.item, hit.row) for hit in hits] == [("a", "r1")]
    with pytest.raises(EvaluationError, match="would be trained on") as caught:
        refuse_contaminated([item("a", telling)], rows, "the snapshot")
    assert "s/a in row r1" in str(caught.value)
    assert not contaminated([item("a", telling, unseen=False)], rows), "only where a suite asks for it"
    assert not contaminated([item("a", telling, scorer="rubric")], rows), "a rubric is no answer"
    assert not contaminated([item("a", telling)], [row(telling, split="target")])
    assert not contaminated([item("a", telling)], [row("Parcels leave every Tuesday our mill.")])
    assert not is_telling("the year 2014")
    assert is_telling("Donaudampfschifffahrtsgesellschaft")


def test_a_frozen_suite_cannot_be_weakened_by_its_marks(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", YAML)
    first = freeze(read_suite(path))
    write(path, YAML.replace("unseen: true", "unseen: false"))
    with pytest.raises(EvaluationError, match="how its items count"):
        open_suite(path)
    with pytest.raises(EvaluationError, match="how its items count"):
        freeze(read_suite(path))
    assert freeze(read_suite(path), new_version=True).version == first.version + 1
    assert open_suite(path).version == 2


def test_a_lock_from_before_there_were_marks_gets_them_without_a_new_version(tmp_path: Path) -> None:
    path = write(tmp_path / "s.yaml", YAML)
    lock = freeze(read_suite(path)).model_dump(mode="json")
    del lock["marks"]
    lock_path(read_suite(path)).write_text(json.dumps(lock))
    assert open_suite(path).version == 1
    again = freeze(read_suite(path))
    assert (again.version, bool(again.marks)) == (1, True)


def test_lines_end_at_newlines_only(tmp_path: Path) -> None:
    line = {"id": "a", "prompt": "one\u2028two\u0085three", "reference": "yes it is"}
    path = write(tmp_path / "s.jsonl", json.dumps(line, ensure_ascii=False) + "\n")
    assert open_suite(path).items[0].messages[0].content == line["prompt"]


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("The shop closes at nine.", "**The shop** closes&nbsp;at _nine_ o'clock."),
        ("营业时间到晚上九点为止", "您好，营业时间到晚上九点为止。谢谢"),
    ],
)
def test_markup_and_writings_without_spaces_hide_no_reference(reference: str, answer: str) -> None:
    item = parse_item({"id": "a", "prompt": "?", "reference": reference, "unseen": True}, "s")
    row = SnapshotRow.model_validate(
        {"digest": "d", "split": "train", "source": "correction", "messages": item.messages, "completion": answer}
    )
    assert [hit.item for hit in contaminated([item], [row])] == ["a"]
    other = {"id": "a", "prompt": "?", "reference": "no", "choices": [reference], "scorer": "contains", "unseen": True}
    assert contaminated([parse_item(other, "s")], [row]), "what else is accepted counts too"


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ({"reference": "***"}, "nothing is left"),
        ({"reference": "nine", "choices": ["!!!"], "scorer": "contains"}, "nothing is left"),
        ({"reference": ".*", "scorer": "regex"}, "accepts an empty answer"),
        ({"reference": "a{99999999999}", "scorer": "regex"}, "does not compile"),
        ({"reference": "null", "scorer": "json"}, "any JSON"),
        ({"reference": "{}", "scorer": "json"}, "any object"),
        ({"reference": '{"title": "x"}', "scorer": "json_schema"}, "accepts anything"),
        ({"reference": '{"$ref": "#"}', "scorer": "json_schema"}, "without end"),
        ({"reference": '{"type": "object", "$ref": "#/nope"}', "scorer": "json_schema"}, "points to nothing"),
        ({"reference": "x", "max_new_tokens": 10**9}, "at most 4096"),
        ({"reference": "\ud800 yes"}, "valid Unicode"),
    ],
)
def test_a_reference_that_decides_nothing_is_named(tmp_path: Path, item: dict[str, Any], says: str) -> None:
    path = write(tmp_path / "s.jsonl", json.dumps({"id": "a", "prompt": "?", **item}))
    with pytest.raises(EvaluationError, match=says):
        open_suite(path)


def test_a_pattern_of_what_must_not_be_said_is_one(tmp_path: Path) -> None:
    line = {"id": "a", "prompt": "?", "reference": "^(?!.*sorry)", "scorer": "regex"}
    assert open_suite(write(tmp_path / "s.jsonl", json.dumps(line))).size == 1


@pytest.mark.parametrize("value", ["2024-13-45", '!!int "x"'])
def test_a_yaml_value_that_is_none_is_one_clear_error(tmp_path: Path, value: str) -> None:
    path = write(tmp_path / "s.yaml", f"items:\n  - {{id: a, prompt: p, reference: {value}}}\n")
    with pytest.raises(EvaluationError, match="not valid YAML"):
        open_suite(path)
