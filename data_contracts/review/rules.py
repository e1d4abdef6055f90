"""When labels agree, what an item's labels amount to, and what a labeller may answer. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from configs.errors import InputError
from data_contracts.overlap import answer_key
from data_contracts.records import Record, ReviewAnswer, ReviewItem, ReviewLabel, ReviewStatus
from data_contracts.redaction import Redactor, contains_placeholder
from data_contracts.review.guidelines import Guidelines


class Settlement(Record):
    """What an item's labels amount to."""

    status: ReviewStatus
    answer: ReviewAnswer | None = None
    """The answer that counts, once done."""
    by: str = ""
    """Whose answer it is: the first of those who agree, or the adjudicator."""
    how: Literal["", "single", "agreed", "adjudicated"] = ""


def agree(one: ReviewAnswer, other: ReviewAnswer) -> bool:
    """The same verdict, the same right answer (case, spaces and final punctuation aside), no other severity or cause.

    A severity or cause that only one of them gave is no disagreement.
    """
    if one.verdict != other.verdict:
        return False
    if one.verdict == "correct" and answer_key(one.text) != answer_key(other.text):
        return False
    return all(not a or not b or a == b for a, b in _words(one, other))


def _words(one: ReviewAnswer, other: ReviewAnswer) -> tuple[tuple[str, str], tuple[str, str]]:
    return (one.severity, other.severity), (one.root_cause, other.root_cause)


def matches_gold(given: ReviewAnswer, expected: ReviewAnswer) -> bool:
    """True if a labeller answered a gold item as expected; severity and cause count where the gold names them."""
    if given.verdict != expected.verdict:
        return False
    if expected.verdict == "correct" and answer_key(given.text) != answer_key(expected.text):
        return False
    return all(not wanted or wanted == said for wanted, said in _words(expected, given))


def settle(item: ReviewItem, labels: Sequence[ReviewLabel]) -> Settlement:
    """What the labels given so far amount to.

    Args:
        item: a gold item stays open whatever is said.
        labels: oldest first.
    """
    if item.kind == "gold":
        return Settlement(status=item.status)
    for label in labels:
        if label.role == "adjudicate":
            return Settlement(status="done", answer=label.answer, by=label.labeller, how="adjudicated")
    given = [label for label in labels if label.role == "label"]
    if len(given) < item.labels_wanted:
        return Settlement(status="labelled" if given else "open")
    first, rest = given[0], given[1:]
    if not all(agree(first.answer, other.answer) for other in rest):
        return Settlement(status="adjudicate")
    # A word that only a later labeller gave completes the first one's answer.
    merged = first.answer.model_copy(
        update={
            name: next((getattr(label.answer, name) for label in given if getattr(label.answer, name)), "")
            for name in ("severity", "root_cause")
        }
    )
    return Settlement(status="done", answer=merged, by=first.labeller, how="agreed" if rest else "single")


def checked_answer(
    answer: ReviewAnswer, guideline: str, guidelines: Guidelines, *, max_chars: int, redactor: Redactor | None = None
) -> ReviewAnswer:
    """The answer as it is stored: texts trimmed, the note redacted.

    Args:
        answer: as the labeller gave it.
        guideline: key of the item's guideline.
        guidelines: the vocabulary.
        max_chars: of each text.
        redactor: with the installation's policy; None masks everything.

    Raises:
        InputError: a text that is missing, superfluous, too long or holds personal data; a word not in the vocabulary;
            an incident without severity and root cause.
    """
    redactor = redactor or Redactor()
    text, note = answer.text.strip(), redactor.redact(answer.note.strip())[0]
    if (answer.verdict == "correct") != bool(text):
        raise InputError(
            "`correct` needs the right answer, the other verdicts take none",
            where="text",
            expected="the answer in full" if answer.verdict == "correct" else "no text",
            found="nothing" if not text else f"{len(text)} characters",
        )
    for name, value in (("text", text), ("note", note)):
        if len(value) > max_chars:
            raise InputError(
                "the text is too long", where=name, expected=f"at most {max_chars} characters", found=len(value)
            )
    clean, counts = redactor.redact(text)
    if clean != text or contains_placeholder(text):
        raise InputError(
            "the right answer holds personal data and could not teach",
            where="text",
            expected="an answer that is right for everybody",
            found=", ".join(counts) or "a placeholder of it",
            fix="leave it out, or reject",
        )
    for name, said, known in (
        ("severity", answer.severity, guidelines.severities),
        ("root_cause", answer.root_cause, guidelines.root_causes),
    ):
        if said and said not in known:
            raise InputError("not a word of the guidelines", where=name, expected=", ".join(known), found=said[:64])
        if not said and guideline == "incident" and answer.verdict != "reject":
            raise InputError("an incident needs it", where=name, expected=", ".join(known), found="nothing")
    return answer.model_copy(update={"text": text, "note": note})
