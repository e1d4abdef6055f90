"""The labeller's desk: take the next item, answer it, decide where others differ. Each answer is one transaction.

    desk = Desk(store, config, key)
    task = desk.next("bea")                                    # None: nothing waits
    desk.label(task.item, "bea", task.token, ReviewAnswer(verdict="accept"))

The label, what it settles, what that changes and the audit entries are committed together or not at all.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property

from sqlalchemy import Connection

from configs.errors import InputError, NotFoundError
from configs.schema import Config
from data_contracts.digests import digest
from data_contracts.records import (
    Record,
    ReviewAnswer,
    ReviewItem,
    ReviewPayload,
    UtcDatetime,
    utc_now,
)
from data_contracts.redaction import Redactor
from data_contracts.review import effects
from data_contracts.review.guidelines import Guideline, Guidelines, load_guidelines
from data_contracts.review.rules import checked_answer, settle
from store import audit, review_leases, reviews
from store.engine import Store
from store.reviews import Role


class Task(Record):
    """What a labeller sees: nothing in it tells a gold item from another."""

    item: str
    kind: str
    """The guideline's key."""
    reason: str
    payload: ReviewPayload
    guideline: Guideline
    severities: dict[str, str]
    """Words to choose from, with their meaning; empty where none is asked for."""
    root_causes: dict[str, str]
    others: tuple[ReviewAnswer, ...] = ()
    """For an adjudicator: the labels that differ, without names, in an order that says nothing."""
    token: str
    until: UtcDatetime


class Receipt(Record):
    """That an answer was recorded. What it settled is not said: a gold item would give itself away."""

    item: str
    new: bool
    """False if this very answer was recorded before."""


@dataclass(frozen=True)
class Desk:
    """One model's review queue for labellers.

    Args:
        store: where the queue lives.
        config: the profile; its `review` section rules.
        key: this installation's secret: whose turn is gold, and pseudonyms in the audit log.
        redactor: with the installation's policy; by default everything is masked.
    """

    store: Store
    config: Config
    key: bytes
    redactor: Redactor = field(default_factory=Redactor)

    @property
    def model(self) -> str:
        return self.config.model.name

    @cached_property
    def guidelines(self) -> Guidelines:
        return load_guidelines(self.config.review.guidelines)

    def next(
        self, labeller: str, *, role: Role = "label", kinds: Collection[str] = (), exclude: Collection[str] = ()
    ) -> Task | None:
        """Lend the next item; None if nothing waits for this labeller.

        Raises:
            InputError: the name may not label, or a kind does not exist.
        """
        self.check_labeller(labeller)
        settings = self.config.review
        with self.store.write() as conn:
            lease = review_leases.lease_next(
                conn,
                self.model,
                labeller,
                lease_s=settings.lease_s,
                role=role,
                kinds=kinds,
                gold_share=settings.gold_share,
                key=self.key,
                exclude=exclude,
            )
            if lease is None:
                return None
            item = reviews.get(conn, lease.item)
            said = reviews.labels_of(conn, item.id) if role == "adjudicate" else []
        others = sorted((label.answer for label in said), key=lambda a: digest([item.id, a.model_dump()]))
        return self._task(item, lease.token, lease.until, tuple(others))

    def _task(self, item: ReviewItem, token: str, until: UtcDatetime, others: tuple[ReviewAnswer, ...]) -> Task:
        guideline = self.guidelines.kinds.get(item.guideline)
        if guideline is None:
            raise NotFoundError(
                "the guidelines lack this kind", where=self.config.review.guidelines, found=item.guideline
            )
        words = item.guideline == "incident"
        return Task(
            item=item.id,
            kind=item.guideline,
            reason=item.reason,
            payload=item.payload,
            guideline=guideline,
            severities=self.guidelines.severities if words else {},
            root_causes=self.guidelines.root_causes if words else {},
            others=others,
            token=token,
            until=until,
        )

    def check_labeller(self, name: str) -> None:
        """Refuse a name that may not label.

        Raises:
            InputError: blank, too long, not printable, or not among `review.labellers`.
        """
        allowed = self.config.review.labellers
        if not name.strip() or len(name) > 128 or not name.isprintable() or (allowed and name not in allowed):
            raise InputError(
                "this name may not label",
                where="labeller",
                expected="one of " + ", ".join(allowed) if allowed else "1 to 128 printable characters",
                found=ascii(name[:64]),
            )

    def label(self, item: str, labeller: str, token: str, answer: ReviewAnswer, *, role: Role = "label") -> Receipt:
        """Record an answer and carry out what it settles.

        Raises:
            InputError: the answer cannot be accepted.
            NotFoundError, ConflictError, StaleTokenError: see `store.reviews.label`.
        """
        self.check_labeller(labeller)
        with self.store.write() as conn:
            reviews.in_line(conn)
            new = self.record(conn, item, labeller, token, answer, role=role)
        return Receipt(item=item, new=new)

    def record(
        self, conn: Connection, item: str, labeller: str, token: str, answer: ReviewAnswer, *, role: Role = "label"
    ) -> bool:
        """`label` in a transaction that began with `reviews.in_line`; False if this very answer was recorded before."""
        limit = self.config.serving.max_feedback_chars
        found = reviews.get(conn, item)
        answer = checked_answer(answer, found.guideline, self.guidelines, max_chars=limit, redactor=self.redactor)
        effects.check(conn, found, answer, self.config.curation, self.redactor)
        new = reviews.label(conn, item, labeller, token, answer, role=role)
        if new:
            self._settle(conn, found, labeller, answer, role)
        return new

    def _settle(self, conn: Connection, item: ReviewItem, labeller: str, answer: ReviewAnswer, role: Role) -> None:
        settled = settle(item, reviews.labels_of(conn, item.id))
        reviews.set_status(conn, item.id, settled.status, settled.answer.verdict if settled.answer else "")
        # What it changes first, the log last: everybody takes the numbers of rows before those of the log.
        effect = effects.apply(conn, item, settled)
        actor = Redactor(self.key).pseudonym(labeller)
        facts = {"verdict": answer.verdict, "role": role, "guidelines": self.guidelines.digest[:16]}
        audit.append(conn, actor, "review.labelled", item.id, {**facts, "status": settled.status})
        if settled.answer is None:
            return
        detail = {"kind": item.kind, "subject": item.subject, "outcome": settled.answer.verdict, "how": settled.how}
        if effect in ("corrected", "noted"):
            detail["feedback"] = effects.feedback_id(item)
        if effect == "superseded":
            detail["incident"] = effects.successor_id(item)
        audit.append(conn, actor, "review.settled", item.id, {**detail, "effect": effect})

    def give_back(self, task: Task, labeller: str) -> None:
        """End the loan without an answer."""
        with self.store.write() as conn:
            review_leases.give_back(conn, task.item, labeller, task.token)

    def withdraw(self, ids: Collection[str], by: str) -> int:
        """Take items out of the queue on a person's word; returns how many were still open."""
        with self.store.write() as conn:
            changed = reviews.withdraw(conn, ids)
            for id in sorted(set(ids)):
                audit.append(conn, Redactor(self.key).pseudonym(by), "review.withdrawn", id, {})
        return changed

    def add_gold(self, payload: ReviewPayload, expected: ReviewAnswer, *, guideline: str, reason: str, by: str) -> str:
        """Add a gold item, which looks like one of kind `guideline`; the same one twice is one. Returns its id.

        Raises:
            InputError: no such guideline, or an answer no labeller could give.
        """
        if guideline not in self.guidelines.kinds:
            known = ", ".join(self.guidelines.kinds)
            raise InputError("no such guideline", where="guideline", expected=known, found=guideline)
        limit = self.config.serving.max_feedback_chars
        expected = checked_answer(expected, guideline, self.guidelines, max_chars=limit, redactor=self.redactor)
        payload = redacted(payload, self.redactor)
        item = ReviewItem(
            id=reviews.new_item_id(),
            model=self.model,
            kind="gold",
            subject=digest(["gold", self.model, guideline, payload.model_dump(mode="json")]),
            payload=payload,
            guideline=guideline,
            labels_wanted=2 if guideline in self.config.review.two_labels else 1,
            gold_expected=expected,
            reason=reason,
            created_at=utc_now(),
        )
        with self.store.write() as conn:
            if reviews.add(conn, item):
                audit.append(conn, Redactor(self.key).pseudonym(by), "review.gold_added", item.id, {"kind": guideline})
                return item.id
            known_item = reviews.find(conn, "gold", item.subject)
        assert known_item is not None  # noqa: S101 - it was there before
        return known_item.id


def redacted(payload: ReviewPayload, redactor: Redactor | None = None) -> ReviewPayload:
    """The payload with one set of placeholders over all its texts; without a redactor everything is masked."""
    redactor = redactor or Redactor()
    session = redactor.session()
    messages, _ = redactor.redact_messages(payload.messages, session)

    def clean(text: str) -> str:
        return session.redact(text)[0]

    return payload.model_copy(
        update={
            "messages": tuple(messages),
            "answer": clean(payload.answer),
            "proposed": clean(payload.proposed),
            "options": tuple(clean(option) for option in payload.options),
            "title": clean(payload.title),
        }
    )
