"""Rows as compact columns: numbers in arrays, texts by place on demand. A million rows are some 60 MB of columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np

from data_contracts.ids import is_the_asker
from data_contracts.overlap import answer_key, prompt_key
from data_contracts.records import FeedbackKind, LabelledRow, Message
from data_contracts.redaction import Redactor

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_US = 86_400_000_000


def microseconds(when: datetime) -> int:
    """Microseconds since 1970 (UTC)."""
    delta = when - EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


class Rows(Protocol):
    """Rows in an order of their own (time, then id), whatever the order they came in."""

    def __len__(self) -> int: ...

    def ids(self) -> Sequence[str]:
        """Row ids."""
        ...

    def values(self, column: str) -> Iterable[Any]:
        """`principal`, `asked_by`, `interaction_id` or `scope` of every row."""
        ...

    def times(self) -> np.ndarray:
        """int64 (n,): created_at in microseconds since 1970."""
        ...

    def messages(self, place: int) -> Sequence[tuple[str, str]]:
        """The conversation before the answer: (role, text)."""
        ...

    def completion(self, place: int) -> str:
        """The correction."""
        ...

    def rejected(self, place: int) -> str | None:
        """A preference's other answer, else None."""
        ...


class ListedRows:
    """Records in memory, redacted again like new ones: rows from before a better redaction, or imported."""

    def __init__(self, rows: Sequence[LabelledRow], redactor: Redactor) -> None:
        ordered = sorted(rows, key=lambda row: (row.created_at, row.id))
        self.records = [_redacted(row, redactor) for row in ordered]

    def __len__(self) -> int:
        return len(self.records)

    def ids(self) -> Sequence[str]:
        """Row ids."""
        return [row.id for row in self.records]

    def values(self, column: str) -> Iterable[Any]:
        """One field of every row."""
        return (getattr(row, column) for row in self.records)

    def times(self) -> np.ndarray:
        """int64 (n,)."""
        return np.array([microseconds(row.created_at) for row in self.records], dtype=np.int64)

    def messages(self, place: int) -> Sequence[tuple[str, str]]:
        """(role, text) of the conversation."""
        return [(message.role, message.content) for message in self.records[place].messages]

    def completion(self, place: int) -> str:
        """The correction."""
        return self.records[place].completion

    def rejected(self, place: int) -> str | None:
        """A preference's other answer."""
        return rejected_of(self.records[place])


def rejected_of(row: LabelledRow) -> str | None:
    """What a row says should not have been answered; only a preference says so, and its answer must differ."""
    return row.answer if row.kind is FeedbackKind.PREFERENCE and row.answer.strip() else None


def _redacted(row: LabelledRow, redactor: Redactor) -> LabelledRow:
    session = redactor.session()
    messages, _ = redactor.redact_messages(row.messages, session)
    texts = {"completion": session.redact(row.completion)[0]}
    if row.kind is FeedbackKind.PREFERENCE:
        texts["answer"] = session.redact(row.answer)[0]
    return row.model_copy(update={"messages": tuple(messages), **texts})


def conversation_text(messages: Iterable[Message] | Iterable[tuple[str, str]]) -> str:
    """All that was said, without the system message."""
    pairs = ((m.role, m.content) if isinstance(m, Message) else m for m in messages)
    return "\n".join(text for role, text in pairs if role != "system")


def text_hash(text: str) -> int:
    """64 bits of BLAKE2b: among a million texts two agree by chance once in 40 million times."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def codes(hashes: np.ndarray) -> np.ndarray:
    """int32 codes of equal values, numbered by first appearance."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int32)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first), dtype=np.int32)
    return rank[inverse.reshape(-1)]


@dataclass(frozen=True)
class Columns:
    """Arrays over n rows in time order."""

    principal: np.ndarray
    """int32 code of who said it; `principals` has the names."""
    principals: tuple[str, ...]
    prompt: np.ndarray
    """int32 code of the conversation, case, spaces and punctuation aside."""
    prompt_row: np.ndarray
    """int32 (prompts,): the first row of each."""
    answer: np.ndarray
    """int32 code of the correction, normalised."""
    answer_row: np.ndarray
    """int32 (answers,): the first row of each."""
    paired: np.ndarray
    """bool: a preference, which has a rejected answer too."""
    interaction: np.ndarray
    when: np.ndarray
    """int64 microseconds since 1970."""
    asked: np.ndarray
    """bool: said by whoever made the request."""
    released: np.ndarray
    """bool: a person let it through."""
    reviewed: np.ndarray
    """bool: released, or said with scope `review`."""
    review_scope: np.ndarray
    """bool."""


def columns_of(rows: Rows, released: Set[str]) -> Columns:
    """Read the rows once."""
    n = len(rows)
    prompt, answer = np.empty(n, dtype=np.uint64), np.empty(n, dtype=np.uint64)
    interaction = np.empty(n, dtype=np.uint64)
    asked, review, paired = np.empty(n, dtype=bool), np.empty(n, dtype=bool), np.empty(n, dtype=bool)
    names: dict[str, int] = {}
    principal = np.empty(n, dtype=np.int32)
    fields = zip(*(rows.values(c) for c in ("principal", "asked_by", "interaction_id", "scope")), strict=True)
    for place, (name, asked_by, request, scope) in enumerate(fields):
        principal[place] = names.setdefault(name, len(names))
        asked[place] = is_the_asker(name, asked_by or "")
        interaction[place] = text_hash(request)
        review[place] = scope == "review"
        prompt[place] = text_hash(prompt_key(conversation_text(rows.messages(place))))
        answer[place] = text_hash(answer_key(rows.completion(place)))
        paired[place] = rows.rejected(place) is not None
    ids = rows.ids()
    free = np.fromiter((id in released for id in ids), dtype=bool, count=n) if released else np.zeros(n, dtype=bool)
    prompts, answers = codes(prompt), codes(answer)
    return Columns(
        principal=principal,
        principals=tuple(names),
        prompt=prompts,
        prompt_row=_first_rows(prompts),
        answer=answers,
        answer_row=_first_rows(answers),
        paired=paired,
        interaction=codes(interaction),
        when=rows.times(),
        asked=asked,
        released=free,
        reviewed=free | review,
        review_scope=review,
    )


def _first_rows(numbers: np.ndarray) -> np.ndarray:
    return np.unique(numbers, return_index=True)[1].astype(np.int32)
