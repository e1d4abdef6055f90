"""Which thumbs teach: one vote each, of trusted people who asked, nothing that measures, no disagreements."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from labelled_rows import START, labelled

from configs.curation import CurationSection, TrustRule
from data_contracts.curation import CurationResult, Person, curate, curate_thumbs, is_held_out
from data_contracts.records import FeedbackKind, LabelledRow, Message

POLICY = CurationSection(holdout_share=0.0, trust=TrustRule(min_account_age_days=0))
ANSWERS = ("We deliver on Mondays.", "The shop is in Mill Lane.", "Cards are fine.")


def thumb(n: int, up: bool = True, **changes: Any) -> LabelledRow:
    answer = changes.pop("answer", ANSWERS[n % 3] + f" Lot {n}.")
    data = {"kind": FeedbackKind.THUMB, "thumb": 1 if up else -1, "answer": answer, "completion": answer}
    person = changes.pop("principal", f"user-{n}")
    return labelled(n, **{"principal": person, "asked_by": person, **data, **changes})


def run(rows: list[LabelledRow], policy: CurationSection = POLICY, **more: Any) -> CurationResult:
    return curate_thumbs(rows, more.pop("released", set()), policy, more.pop("eval_prompts", ()), **more)


def reasons(result: CurationResult) -> dict[str, str]:
    return {row.row_id: row.reason for row in result.left_out}


def test_a_thumb_becomes_a_label_row_whatever_the_order() -> None:
    rows = [thumb(n, n % 2 == 0) for n in range(12)]
    result = run(rows)
    assert result.left_out == result.target == []
    found = {row.row_id: row for row in result.train}
    assert (found["f0"].label, found["f1"].label) == (1, -1)
    assert (found["f1"].source, found["f1"].completion, found["f1"].slice) == (
        "thumb",
        rows[1].completion,
        "thumb down",
    )
    shuffled = list(rows)
    random.Random(1).shuffle(shuffled)
    assert {row.row_id: row for row in run(shuffled).train} == found


def test_both_sides_cancel_and_the_majority_is_one_row() -> None:
    same = {"prompt": "When do you deliver to the coast?", "answer": "On Mondays."}
    assert reasons(run([thumb(0, **same), thumb(1, False, **same)])) == {"f0": "conflict", "f1": "conflict"}
    rows = [thumb(0, **same), thumb(1, False, **same), thumb(2, False, **same)]
    assert reasons(run(rows)) == {"f0": "conflict", "f2": "duplicate"}
    reviewed = thumb(3, **same, scope="review")
    assert [row.row_id for row in run([*rows[:2], reviewed]).train] == ["f0"], "a reviewer is heard twice"


def test_one_person_has_one_vote_and_a_stranger_none() -> None:
    same = {"prompt": "When do you deliver to the coast?", "principal": "ann"}
    rows = [thumb(0, **same), thumb(1, False, **same), thumb(2, asked_by="bob"), thumb(3)]
    assert reasons(run(rows)) == {"f0": "duplicate", "f2": "uncorroborated"}


def test_only_trusted_people_teach_by_thumbs() -> None:
    policy = CurationSection(holdout_share=0.0)
    old = START - timedelta(days=30)
    people = {"user-0": Person(old), "user-1": Person(old, gold_right=0, gold_seen=5), "user-2": Person(START)}
    rows = [thumb(0), thumb(1), thumb(2), thumb(3, scope="review")]
    result = run(rows, policy, people=people, now=START + timedelta(hours=2))
    assert reasons(result) == {"f1": "untrusted", "f2": "untrusted"}
    assert reasons(run(rows, policy, people=people, now=START, released={"f1", "f2"})) == {}


def test_what_measures_is_taught_by_no_thumb() -> None:
    policy = CurationSection(holdout_share=0.3, trust=TrustRule(min_account_age_days=0))
    held = [name for name in (f"user-{n}" for n in range(40)) if is_held_out(name, policy)]
    free = [name for name in (f"user-{n}" for n in range(40)) if not is_held_out(name, policy)]
    asked = "Which way is it from the station to your shop in Mill Lane?"
    correction = labelled(50, prompt=asked, principal=held[0], asked_by=held[0])
    rows = [thumb(0, principal=held[1]), thumb(1, principal=free[0], prompt=asked), thumb(2, principal=free[1])]
    rows.append(thumb(3, principal=free[2], prompt="What is the capital of the valley?"))
    result = run(rows, policy, beside=[correction], eval_prompts=["What is the capital of the valley?"])
    assert reasons(result) == {"f0": "held_out", "f1": "contaminated", "f3": "contaminated"}


def test_a_thumb_against_a_correction_is_left_out() -> None:
    asked = "How long may I keep it?"
    right = [labelled(n, prompt=asked, principal=f"user-{n}") for n in (50, 51)]
    taught = curate(right, set(), POLICY, ()).train
    rows = [
        thumb(0, prompt=asked, answer="For ever."),
        thumb(1, False, prompt=asked, answer="For a week."),
        thumb(2, False, prompt=asked, answer=right[0].completion),
        thumb(3, prompt=asked.upper(), answer=right[0].completion),
    ]
    assert reasons(run(rows, taught=taught)) == {"f0": "conflict", "f2": "conflict"}


def test_dictated_personal_and_dropped_thumbs_teach_nothing() -> None:
    rows = [
        thumb(0, prompt="Say that returns are open for ever.", answer="returns are open for ever"),
        thumb(1, answer="Write to ann@example.com."),
        thumb(2), thumb(3), thumb(4),
    ]  # fmt: skip
    result = run(rows, dropped={"f2"}, suspects={"f3"})
    assert reasons(result) == {"f0": "dictated", "f1": "personal_data", "f2": "dropped", "f3": "suspect"}


def test_one_busy_person_is_capped() -> None:
    rows = [thumb(n, principal="ann", prompt=f"Question about shelf {n} of hall {n * 7}?") for n in range(9)]
    assert run(rows).reasons == {"cap": 6}


def test_no_thumbs_are_no_rows() -> None:
    assert run([]) == CurationResult([], [], [])
    rated = thumb(0).model_copy(update={"messages": (Message(role="user", content="Hi?"),)})
    assert len(run([rated]).train) == 1
