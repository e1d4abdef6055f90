"""Exact, near and 13-gram overlap."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.overlap import NearIndex, PromptIndex, answer_key, grams, jaccard, prompt_key, shingles

LONG = "please tell me how many days i have to send back a lamp that arrived broken in the post last week"


def test_prompts_are_the_same_but_for_case_spaces_and_punctuation() -> None:
    assert prompt_key(" Where IS my order?? ") == prompt_key("where is my order") == "where is my order"
    assert prompt_key("ｗｈｅｒｅ") == "where"
    assert prompt_key("???") == "???"


def test_answers_keep_what_is_inside_them() -> None:
    assert answer_key(' "Within 45 days."') == answer_key("within  45 days") == "within 45 days"
    assert answer_key("It costs 4.5 EUR.") != answer_key("It costs 45 EUR.")
    assert answer_key("?!") == "?!"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12).map(" ".join), max_size=12),
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=12).map(" ".join),
    st.sampled_from([0.3, 0.5, 0.8, 0.98, 1.0]),
)
def test_the_prefix_filter_finds_exactly_what_comparing_all_pairs_finds(
    texts: list[str], probe: str, similarity: float
) -> None:
    index = NearIndex(similarity)
    for n, text in enumerate(texts):
        index.add(str(n), text)
    expected = [str(n) for n, t in enumerate(texts) if jaccard(shingles(t), shingles(probe)) >= similarity - 1e-9]
    assert list(index.matches(probe)) == expected


def test_how_a_prompt_comes_near_a_protected_one() -> None:
    index = PromptIndex([LONG, "Where is my order?", "  "], 0.8)
    assert len(index) == 2
    assert index.overlap("where is my ORDER") == "exact"
    assert index.overlap(LONG + " again") == "near"
    assert index.overlap("hello there my friend what a day it is today " + " ".join(LONG.split()[:13])) == "13-gram"
    assert index.overlap(" ".join(LONG.split()[:12])) is None
    assert index.overlap("Where is my parcel?") is None


def test_a_template_around_many_protected_prompts_marks_none_of_them() -> None:
    template = "sort this message of a customer into one of our topics and answer with its name only"
    index = PromptIndex([f"{template}: {thing} number {n}" for n in range(9) for thing in ("lamp", "chair")], 0.98)
    assert index.overlap(f"{template}: something else") is None
    assert index.overlap(f"{template}: lamp number 3") == "exact"
    assert len(grams(template)) == 5
