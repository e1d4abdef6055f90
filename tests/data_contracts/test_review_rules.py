"""Agreement, settlement, gold, guidelines and what may be answered: no store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import ConfigError, InputError
from configs.loader import resource_path
from data_contracts.records import Message, ReviewAnswer, ReviewItem, ReviewLabel, ReviewPayload, utc_now
from data_contracts.redaction import RedactionPolicy, Redactor
from data_contracts.review.alpha import alpha_by_labeller, nominal_alpha
from data_contracts.review.guidelines import load_guidelines
from data_contracts.review.items import comes_to_review, is_sampled
from data_contracts.review.rules import agree, checked_answer, matches_gold, settle

SHIPPED = resource_path("review/guidelines.yaml")
NOW = utc_now()


def said(verdict: str, text: str = "", **words: str) -> ReviewAnswer:
    return ReviewAnswer.model_validate({"verdict": verdict, "text": text, **words})


def item(**fields: Any) -> ReviewItem:
    payload = ReviewPayload(messages=(Message(role="user", content="?"),))
    base = {"id": "rv-1", "model": "m", "kind": "conflict", "subject": "s", "guideline": "conflict", "labels_wanted": 2}
    return ReviewItem.model_validate({**base, "payload": payload, "created_at": NOW, **fields})


def labels(*answers: ReviewAnswer, third: ReviewAnswer | None = None) -> list[ReviewLabel]:
    made = [
        ReviewLabel(item="rv-1", labeller=f"p{n}", answer=a, at=NOW + timedelta(seconds=n))
        for n, a in enumerate(answers)
    ]
    if third is not None:
        made.append(ReviewLabel(item="rv-1", labeller="judge", role="adjudicate", answer=third, at=NOW))
    return made


# --- alpha ---------------------------------------------------------------------------------------

FOUR_OBSERVERS = (
    "1 2 3 3 2 1 4 1 2 * * *",
    "1 2 3 3 2 2 4 1 2 5 * 3",
    "* 3 3 3 2 3 4 2 2 5 1 *",
    "1 2 3 3 2 4 4 1 2 5 1 *",
)


@pytest.mark.parametrize(
    ("observers", "published", "units"),
    [
        # The worked examples A (binary), B (nominal) and C (missing values) of Krippendorff 2011.
        (("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0"), 0.095, 10),
        (("a a b b d c c c e d d a", "b a b b b c c c e d d d"), 0.692, 12),
        (FOUR_OBSERVERS, 0.743, 11),
    ],
)
def test_alpha_has_the_published_values(observers: Sequence[str], published: float, units: int) -> None:
    table = [line.split() for line in observers]
    found = nominal_alpha([[value for value in unit if value != "*"] for unit in zip(*table, strict=True)])
    assert found.alpha == pytest.approx(published, abs=5e-4)
    assert found.units == units


def test_alpha_is_undefined_where_chance_always_agrees() -> None:
    assert nominal_alpha([]).alpha is None
    assert nominal_alpha([("accept",)]).units == 0
    unanimous = nominal_alpha([("accept", "accept")] * 5)
    assert (unanimous.alpha, unanimous.observed, unanimous.labels) == (None, 1.0, 10)


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=0, max_size=4), max_size=12), st.randoms())
def test_alpha_ignores_order_and_is_at_most_one(units: list[list[str]], chance: Any) -> None:
    found = nominal_alpha(units)
    mixed = [chance.sample(unit, len(unit)) for unit in chance.sample(units, len(units))]
    again = nominal_alpha(mixed)
    assert (again.units, again.labels) == (found.units, found.labels)
    if found.alpha is not None and again.alpha is not None:
        assert again.alpha == pytest.approx(found.alpha)
        assert found.alpha <= 1 + 1e-9
        assert (found.alpha == pytest.approx(1.0)) == (found.observed == pytest.approx(1.0))


def test_alpha_by_labeller_shows_who_stands_alone() -> None:
    units = {f"u{n}": {"a": "x" if n % 2 else "y", "b": "x" if n % 2 else "y"} for n in range(20)}
    for n in range(10):
        units[f"u{n}"]["contrary"] = "y" if n % 2 else "x"
    found = alpha_by_labeller(units)
    assert found["contrary"].alpha is not None
    assert found["a"].alpha is not None
    assert found["contrary"].alpha < found["a"].alpha
    assert found["contrary"].units == 10


# --- settling ------------------------------------------------------------------------------------


def test_one_label_is_enough_where_one_is_wanted() -> None:
    one = item(kind="quarantine", labels_wanted=1)
    assert settle(one, []).status == "open"
    done = settle(one, labels(said("reject")))
    assert (done.status, done.by, done.how) == ("done", "p0", "single")


def test_two_that_agree_settle_and_two_that_differ_do_not() -> None:
    assert settle(item(), labels(said("accept"))).status == "labelled"
    agreed = settle(item(), labels(said("correct", "It is 4.5."), said("correct", " it is 4.5 ")))
    assert (agreed.status, agreed.how) == ("done", "agreed")
    assert agreed.answer is not None
    assert agreed.answer.text == "It is 4.5."
    for other in (said("reject"), said("correct", "It is 45.")):
        assert settle(item(), labels(said("correct", "It is 4.5."), other)).status == "adjudicate"


def test_the_adjudicator_decides() -> None:
    done = settle(item(), labels(said("accept"), said("reject"), third=said("correct", "Neither.")))
    assert (done.status, done.by, done.how) == ("done", "judge", "adjudicated")
    assert done.answer == said("correct", "Neither.")


def test_words_only_one_gave_complete_the_answer_and_different_ones_differ() -> None:
    both = labels(said("accept", severity="high"), said("accept", root_cause="outdated"))
    done = settle(item(kind="incident"), both)
    assert done.answer == said("accept", severity="high", root_cause="outdated")
    assert not agree(said("accept", severity="high"), said("accept", severity="low"))
    assert not agree(said("accept", root_cause="unsafe"), said("accept", root_cause="other"))


def test_a_gold_item_is_never_settled() -> None:
    gold = item(kind="gold", gold_expected=said("reject"))
    assert settle(gold, labels(said("reject"), said("accept"), said("reject"))).status == "open"


def test_gold_counts_verdict_text_and_the_words_it_names() -> None:
    assert matches_gold(said("correct", "Tuesday"), said("correct", "tuesday."))
    assert not matches_gold(said("correct", "Monday"), said("correct", "Tuesday"))
    assert not matches_gold(said("accept"), said("reject"))
    assert matches_gold(said("accept", severity="low"), said("accept"))
    assert not matches_gold(said("accept", severity="low"), said("accept", severity="high"))


# --- what may be answered ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "guideline", "where"),
    [
        (said("correct"), "quarantine", "text"),
        (said("correct", "  \n"), "quarantine", "text"),
        (said("accept", "but why not this"), "quarantine", "text"),
        (said("correct", "write to ann@example.com"), "quarantine", "text"),
        (said("correct", "write to <EMAIL_1>"), "quarantine", "text"),
        (said("correct", "x" * 101), "quarantine", "text"),
        (said("accept", note="x" * 101), "sample", "note"),
        (said("accept", severity="huge", root_cause="other"), "incident", "severity"),
        (said("accept", severity="high", root_cause="gremlins"), "incident", "root_cause"),
        (said("accept", severity="high"), "incident", "root_cause"),
        (said("accept", root_cause="other"), "incident", "severity"),
    ],
)
def test_a_bad_answer_is_one_clear_error(answer: ReviewAnswer, guideline: str, where: str) -> None:
    with pytest.raises(InputError) as raised:
        checked_answer(answer, guideline, load_guidelines(SHIPPED), max_chars=100)
    assert raised.value.where == where
    assert raised.value.expected


def test_a_good_answer_is_trimmed_and_its_note_redacted() -> None:
    clean = checked_answer(
        said("correct", " Tuesday. ", note="ask bob@example.com"), "sample", load_guidelines(SHIPPED), max_chars=100
    )
    assert (clean.text, clean.note) == ("Tuesday.", "ask <EMAIL_1>")
    rejected = checked_answer(said("reject"), "incident", load_guidelines(SHIPPED), max_chars=100)
    assert rejected.verdict == "reject"


def test_an_answer_is_judged_by_the_installations_policy() -> None:
    given = said("correct", "It answers at 10.1.2.3.", note="from 10.1.2.3")
    keeps = Redactor(policy=RedactionPolicy({"IP": "keep"}))
    guidelines = load_guidelines(SHIPPED)
    assert checked_answer(given, "sample", guidelines, max_chars=100, redactor=keeps) == given
    with pytest.raises(InputError, match="personal data"):
        checked_answer(given, "sample", guidelines, max_chars=100)


# --- guidelines ----------------------------------------------------------------------------------


def test_shipped_guidelines_load_and_their_digest_changes_with_a_word(tmp_path: Path) -> None:
    shipped = load_guidelines(SHIPPED)
    assert len(shipped.kinds) == 5
    assert len(shipped.root_causes) >= 8
    changed = yaml.safe_load(SHIPPED.read_text())
    changed["kinds"]["sample"]["text"] += " And be quick."
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(changed))
    assert load_guidelines(tmp_path / "g.yaml").digest != shipped.digest


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d["kinds"].pop("conflict"), "incomplete"),
        (lambda d: d["kinds"]["sample"]["verdicts"].pop("reject"), "incomplete"),
        (lambda d: d["kinds"]["sample"].update(extra=1), "kinds.sample.extra"),
        (lambda d: d["severities"].update(awful="bad"), "severities"),
        (lambda d: d.update(root_causes={}), "root_causes"),
        (lambda d: d.clear(), "severities"),
    ],
)
def test_bad_guidelines_are_refused(tmp_path: Path, change: Any, match: str) -> None:
    data = yaml.safe_load(SHIPPED.read_text())
    change(data)
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(data))
    with pytest.raises(ConfigError, match=match):
        load_guidelines(tmp_path / "g.yaml")


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\x00", b"- 1", b""])
def test_guidelines_that_are_no_mapping_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "g.yaml").write_bytes(content)
    with pytest.raises(ConfigError):
        load_guidelines(tmp_path / "g.yaml")


# --- what comes to review ------------------------------------------------------------------------


def test_patterns_choose_the_reasons() -> None:
    patterns = ("conflict", "suspect*")
    assert [r for r in ("conflict", "suspect.burst", "cap", "Conflict") if comes_to_review(r, patterns)] == [
        "conflict",
        "suspect.burst",
    ]


def test_sampling_is_a_keyed_hash_of_the_right_size() -> None:
    ids = [f"chatcmpl-{n}" for n in range(20_000)]
    chosen = [id for id in ids if is_sampled(b"k", id, 0.05)]
    assert 850 <= len(chosen) <= 1150  # 1000 expected, +- 5 standard deviations
    assert chosen == [id for id in ids if is_sampled(b"k", id, 0.05)]
    assert chosen != [id for id in ids if is_sampled(b"other", id, 0.05)]
    assert not any(is_sampled(b"k", id, 0.0) for id in ids)
    assert all(is_sampled(b"k", id, 1.0) for id in ids)
