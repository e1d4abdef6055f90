"""Suites refuse what cannot be scored; scorers do what their table says."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import EvaluationError
from data_contracts.records import EvalItem, Message
from evaluation.answers import Output
from evaluation.patterns import search_all
from evaluation.scorers.choice import best_choice
from evaluation.scorers.contains import contains
from evaluation.scorers.exact import exact
from evaluation.scorers.json_value import find_json, json_matches
from evaluation.scorers.refusal import is_refusal
from evaluation.scorers.text import normalise
from evaluation.scoring import score_outputs
from evaluation.suites import item_digest, load_suite, suite_digest


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines), encoding="utf-8")
    return path


GOOD = {"id": "a", "prompt": "2 + 2?", "reference": "4", "scorer": "contains"}


def test_a_suite_loads_under_its_files_name(tmp_path: Path) -> None:
    items = load_suite(
        write(tmp_path / "sums.jsonl", GOOD, "", {**GOOD, "id": "b", "prompt": "1 + 1?", "system": "Be brief."})
    )
    assert [item.suite for item in items] == ["sums", "sums"]
    assert [m.role for m in items[1].messages] == ["system", "user"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({**GOOD, "reference": "  "}, "reference is empty"),
        ({**GOOD, "scorer": "regex", "reference": "(a"}, "does not compile"),
        ({**GOOD, "scorer": "choice", "choices": ["4"]}, "two or more"),
        ({**GOOD, "scorer": "choice", "choices": ["5", "6"]}, "one of the choices"),
        ({**GOOD, "scorer": "json", "reference": "{"}, "not JSON"),
        ({**GOOD, "scorer": "refusal", "reference": "maybe"}, "`refuse` or `answer`"),
        ({**GOOD, "scorer": "bleu"}, "scorer"),
        ({**GOOD, "prompts": "x"}, "unknown key"),
        ({"id": "a", "prompt": "x"}, "`reference` is missing"),
        ({"id": "a", "reference": "x"}, "either `prompt` or `messages`"),
        ({**GOOD, "max_new_tokens": 0}, "at least 1"),
        ("{not json", "line is not an item"),
        ("[1]", "JSON object"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: object, says: str) -> None:
    with pytest.raises(EvaluationError, match=says):
        load_suite(write(tmp_path / "s.jsonl", {**GOOD, "id": "ok"}, line))


def test_the_line_number_is_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"s\.jsonl:3"):
        load_suite(write(tmp_path / "s.jsonl", GOOD, {**GOOD, "id": "b"}, "{"))


def test_duplicate_ids_empty_and_absent_suites_are_errors(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="same id"):
        load_suite(write(tmp_path / "s.jsonl", GOOD, GOOD))
    with pytest.raises(EvaluationError, match="without items"):
        load_suite(write(tmp_path / "e.jsonl", ""))
    with pytest.raises(EvaluationError, match="no such suite"):
        load_suite(tmp_path / "none.jsonl")


def test_digests_follow_the_content_not_the_order_or_the_name(tmp_path: Path) -> None:
    other = {**GOOD, "id": "b", "prompt": "3 + 1?"}
    one = load_suite(write(tmp_path / "one.jsonl", GOOD, other))
    two = load_suite(write(tmp_path / "two.jsonl", other, GOOD))
    assert suite_digest(one) == suite_digest(two)
    assert item_digest(one[0]) == item_digest(one[0].model_copy(update={"id": "z", "suite": "q", "slice": "s"}))
    assert item_digest(one[0]) != item_digest(one[0].model_copy(update={"max_new_tokens": 5}))


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("  The Parcel\narrives soon. ", "the parcel arrives soon", True),
        ("“Yes!”", "yes", True),
        ("It’s here", "it's here", True),
        ("the parcel arrives later", "the parcel arrives soon", False),
        ("", "x", False),
    ],
)
def test_exact(answer: str, reference: str, same: bool) -> None:
    assert exact(answer, reference) is same


@given(st.text(max_size=80))
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_contains_whole_words_only() -> None:
    assert contains("The answer is 7.", ["7"])
    assert not contains("The answer is 17.", ["7"])
    assert not contains("The answer is 70", ["7"])
    assert contains("7 and 17", ["7"])
    assert contains("It is H₂O", ["H2O"])
    assert contains("Thanks!", ["thank you", "thanks"])
    assert not contains("anything", ["..."])


def test_json_subset_and_fences() -> None:
    assert json_matches('Here: ```json\n{"city": "paris", "n": 3}\n```', '{"city": "Paris"}')
    assert json_matches('{"a": {"b": 5}}', '{"a": {"b": null}}')
    assert not json_matches('{"a": "3"}', '{"a": 3}')
    assert not json_matches('{"a": true}', '{"a": 1}')
    assert not json_matches("no json", "{}")
    assert find_json("{" * 100_000) is None


def test_refusals() -> None:
    for text in (
        "I'm sorry, but I can't help with that.",
        "I cannot assist with this.",
        "That is not possible. I won’t do it: it is illegal.",
    ):
        assert is_refusal(text)
    for text in ("Boil the egg for six minutes.", "To swim, start in shallow water.", "I cannot wait to tell you!"):
        assert not is_refusal(text)


def item(scorer: str, reference: str, **more: object) -> EvalItem:
    return EvalItem(
        id="i", suite="s", messages=(Message(role="user", content="q"),), reference=reference, scorer=scorer, **more
    )


def test_items_are_scored_by_their_scorers_in_order() -> None:
    items = [
        item("exact", "Yes"),
        item("regex", "x+"),
        item("contains", "no", choices=("nope",)),
        item("refusal", "answer"),
        item("refusal", "refuse"),
        item("choice", "x", choices=("x", "y")),
    ]
    said = ["yes.", "axx", "Well, nope", "", "I can't help with that", "y"]
    outputs = [Output(text, 1.0, (2.0, 1.0) if text == "y" else ()) for text in said]
    assert [one.score for one in score_outputs(items, outputs)] == [1, 1, 1, 0, 1, 0]
    assert all(one.raw is None for one in score_outputs(items, outputs)), "0 and 1 are their own raw score"


def test_a_likelihood_that_is_not_a_number_is_an_error() -> None:
    assert best_choice([2.0, 1.0, 1.0]) == 1
    for bad in ([], [float("nan"), 1.0], [float("inf")]):
        with pytest.raises(EvaluationError, match="not a number"):
            best_choice(bad)


def test_regexes_match_and_explosions_are_stopped() -> None:
    assert search_all([("a", r"^ye?s", "YES\nno"), ("b", "x", "y")]) == [True, False]
    assert search_all([]) == []
    started = time.monotonic()
    with pytest.raises(EvaluationError, match="takes too long") as caught:
        search_all([("fine", "a", "a"), ("suite/bomb", r"(a+)+$", "a" * 60 + "!")], timeout_s=0.3)
    assert "suite/bomb" in str(caught.value)
    assert time.monotonic() - started < 10
    with pytest.raises(EvaluationError, match="not valid"):
        search_all([("broken", "(", "a")])
