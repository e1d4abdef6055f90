"""From an item to its effect: one transaction, audited, once."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import pytest
from sqlalchemy import delete

from configs.errors import ConflictError, InputError, NotFoundError, StaleTokenError
from configs.loader import load_config
from configs.schema import Config
from data_contracts.ids import new_id
from data_contracts.records import (
    Feedback,
    Incident,
    Interaction,
    Message,
    QuarantinedRow,
    ReviewAnswer,
    ReviewPayload,
    utc_now,
)
from data_contracts.redaction import RedactionPolicy, Redactor
from data_contracts.review.desk import Desk, Task
from data_contracts.review.items import Proposal, answer_item, incident_item, row_items, sample_item
from data_contracts.review.operator import decide_rows
from data_contracts.review.stats import gold_agreement, review_stats
from store import audit, feedback, incidents, interactions, quarantine, reviews
from store.engine import Store
from store.rows import take
from store.tables import quarantine as quarantine_table

MODEL = "support-bot"
KEY = b"k" * 32
SECRET = "Leaving on Tuesday"


def desk_of(store: Store, **review: Any) -> Desk:
    config = load_config("default", {"review": {"gold_share": 0.0, **review}})
    return Desk(store, config, KEY)


def served(id: str, **fields: Any) -> Interaction:
    return Interaction.model_validate(
        {
            "id": id,
            "created_at": utc_now(),
            "model": MODEL,
            "principal": "ann",
            "conversation": id,
            "messages": (Message(role="user", content=f"When does parcel {id} leave?"),),
            "answer": "I do not know.",
            **fields,
        }
    )


def hold(store: Store, row: str, reason: str = "uncorroborated", author: str = "ann", text: str = SECRET) -> None:
    """A correction of a request, held in quarantine."""
    said = Feedback(
        id=row, interaction_id=f"req-{row}", kind="correction", created_at=utc_now(), principal=author, text=text
    )
    with store.write() as conn:
        interactions.insert(conn, [served(f"req-{row}", principal=author)])
        feedback.insert(conn, [(MODEL, said)])
        quarantine.put(conn, MODEL, [QuarantinedRow(row_id=row, digest="d" * 64, reason=reason)], None)


def queue_row(store: Store, config: Config, row: str) -> str:
    with store.write() as conn:
        held = quarantine.get(conn, MODEL, row)
        assert held is not None
        rows = feedback.labelled_by_id(conn, [row])
        (made,) = row_items([(held, rows[row])], MODEL, config.review)
        assert reviews.add(conn, made.item, people=made.people, about=made.about)
    return made.item.id


def queue(store: Store, made: Proposal) -> str:
    with store.write() as conn:
        assert reviews.add(conn, made.item, people=made.people, about=made.about)
    return made.item.id


def answer(desk: Desk, who: str, verdict: str, text: str = "", role: Any = "label", **words: str) -> Task:
    task = desk.next(who, role=role)
    assert task is not None
    said = ReviewAnswer.model_validate({"verdict": verdict, "text": text, **words})
    assert desk.label(task.item, who, task.token, said, role=role).new
    return task


def status_of(store: Store, row: str) -> str:
    with store.read() as conn:
        held = quarantine.get(conn, MODEL, row)
    assert held is not None
    return held.status


def test_accept_releases_the_row_and_says_so_in_the_audit_log(store: Store) -> None:
    desk = desk_of(store)
    hold(store, "row-1")
    id = queue_row(store, desk.config, "row-1")
    task = answer(desk, "yuki", "accept", note="checked with bob@example.com")
    assert (task.kind, task.reason, task.payload.proposed) == ("quarantine", "uncorroborated", SECRET)
    assert status_of(store, "row-1") == "released"
    with store.read() as conn:
        assert reviews.get(conn, id).status == "done"
        entries = audit.entries(conn)
        assert audit.verify(conn) == 2
    assert [e.action for e in entries] == ["review.settled", "review.labelled"]
    assert entries[0].detail["effect"] == "released"
    assert entries[0].detail["subject"] == "row-1"
    shown = str([e.model_dump() for e in entries])
    assert not any(text in shown for text in (SECRET, "yuki", "ann", "bob", "checked"))


def test_reject_drops_the_row(sqlite_store: Store) -> None:
    desk = desk_of(sqlite_store)
    hold(sqlite_store, "row-1")
    queue_row(sqlite_store, desk.config, "row-1")
    answer(desk, "bea", "reject")
    assert status_of(sqlite_store, "row-1") == "dropped"


def test_correct_drops_the_row_and_adds_one_reviewed_correction(store: Store) -> None:
    desk = desk_of(store)
    hold(store, "row-1")
    id = queue_row(store, desk.config, "row-1")
    task = answer(desk, "bea", "correct", "It leaves on Wednesday.")
    again = desk.label(
        id, "bea", task.token, ReviewAnswer(verdict="correct", text="It leaves on Wednesday.")
    )  # sent twice: counts once
    assert not again.new
    assert status_of(store, "row-1") == "dropped"
    with store.read() as conn:
        (row,) = (r for r in feedback.labelled(conn, MODEL) if r.scope == "review")
        assert len(feedback.for_interaction(conn, "req-row-1")) == 2
    assert (row.id, row.principal, row.source) == (f"review-{id}", "bea", "review")
    assert (row.interaction_id, row.completion) == ("req-row-1", "It leaves on Wednesday.")


def test_nothing_is_kept_of_a_label_that_fails(sqlite_store: Store) -> None:
    desk = desk_of(sqlite_store)
    hold(sqlite_store, "row-1")
    id = queue_row(sqlite_store, desk.config, "row-1")
    task = desk.next("bea")
    assert task is not None
    for error, token, said in (
        (StaleTokenError, "0" * 24, ReviewAnswer(verdict="accept")),
        (InputError, task.token, ReviewAnswer(verdict="correct")),
        (InputError, task.token, ReviewAnswer(verdict="correct", text="nul \0 here")),
    ):
        with pytest.raises(error):
            desk.label(id, "bea", token, said)
    with pytest.raises(NotFoundError):
        desk.label("rv-none", "bea", task.token, ReviewAnswer(verdict="accept"))
    assert status_of(sqlite_store, "row-1") == "held"
    with sqlite_store.read() as conn:
        assert reviews.labels_of(conn, id) == []
        assert audit.entries(conn) == []


def test_a_conflict_needs_two_and_a_third_decides(store: Store) -> None:
    desk = desk_of(store)
    hold(store, "row-1", reason="conflict")
    id = queue_row(store, desk.config, "row-1")
    answer(desk, "bea", "accept")
    assert status_of(store, "row-1") == "held"
    assert desk.next("bea") is None
    answer(desk, "cem", "reject")
    assert desk.next("dan") is None
    assert desk.next("bea", role="adjudicate") is None
    seen = answer(desk, "dan", "reject", role="adjudicate")
    assert {other.verdict for other in seen.others} == {"accept", "reject"}
    assert status_of(store, "row-1") == "dropped"
    with store.read() as conn:
        assert reviews.get(conn, id).outcome == "reject"
        assert audit.entries(conn)[0].detail["how"] == "adjudicated"


def test_two_that_agree_release_a_conflict(sqlite_store: Store) -> None:
    desk = desk_of(sqlite_store)
    hold(sqlite_store, "row-1", reason="conflict")
    queue_row(sqlite_store, desk.config, "row-1")
    assert answer(desk, "bea", "accept").others == ()
    assert answer(desk, "cem", "accept").others == ()
    assert status_of(sqlite_store, "row-1") == "released"


def test_nobody_reviews_their_own_row(sqlite_store: Store) -> None:
    desk = desk_of(sqlite_store)
    hold(sqlite_store, "row-1", author="bea")
    queue_row(sqlite_store, desk.config, "row-1")
    assert desk.next("bea") is None
    assert desk.next("cem") is not None


def test_a_row_settled_elsewhere_is_left_as_it_is(sqlite_store: Store) -> None:
    desk = desk_of(sqlite_store)
    hold(sqlite_store, "row-1")
    id = queue_row(sqlite_store, desk.config, "row-1")
    task = desk.next("bea")
    assert task is not None
    assert decide_rows(sqlite_store, MODEL, ["row-1"], "dropped", by="ops", reason="spam") == 1
    with sqlite_store.read() as conn:
        assert reviews.get(conn, id).status == "withdrawn"
    with pytest.raises(ConflictError):
        desk.label(id, "bea", task.token, ReviewAnswer(verdict="accept"))
    assert status_of(sqlite_store, "row-1") == "dropped"


def an_incident(store: Store) -> Incident:
    found = Incident(
        id=new_id(),
        model=MODEL,
        title="Wrong dose",
        severity="high",
        messages=(Message(role="user", content="How much of it may I take?"),),
        answer="As much as you like.",
        required="At most two a day.",
        paraphrases=("what is the most I can take", "how many of these a day"),
        opened_at=utc_now(),
        opened_by="ops",
    )
    with store.write() as conn:
        incidents.insert(conn, found)
    return found


def test_an_incident_gets_its_answer_severity_and_root_cause(store: Store) -> None:
    desk = desk_of(store)
    incident = an_incident(store)
    queue(store, incident_item(incident, desk.config.review))
    for who in ("bea", "cem"):
        seen = answer(desk, who, "correct", "At most one a day.", severity="critical", root_cause="unsafe")
        assert seen.severities
        assert seen.root_causes
    with store.read() as conn:
        (found,) = incidents.all(conn, MODEL)
        old = incidents.get(conn, incident.id)
        known = reviews.queued(conn, "incident", [found.id])
        assert audit.entries(conn)[0].detail["incident"] == found.id
    assert (found.required, found.severity, found.root_cause) == ("At most one a day.", "critical", "unsafe")
    assert (found.status, found.paraphrases, found.messages) == ("open", incident.paraphrases, incident.messages)
    assert old is not None
    assert (old.status, old.required) == ("superseded", incident.required)
    assert known == {found.id}  # it was just reviewed


def test_a_confirmed_incident_keeps_its_texts(sqlite_store: Store) -> None:
    desk = desk_of(sqlite_store)
    incident = an_incident(sqlite_store)
    queue(sqlite_store, incident_item(incident, desk.config.review))
    for who in ("bea", "cem"):
        answer(desk, who, "accept", severity="low", root_cause="outdated")
    with sqlite_store.read() as conn:
        (found,) = incidents.all(conn, MODEL)
    assert found == incident.model_copy(update={"severity": "low", "root_cause": "outdated"})


def test_a_rejected_incident_neither_teaches_nor_measures(store: Store) -> None:
    desk = desk_of(store)
    incident = an_incident(store)
    queue(store, incident_item(incident, desk.config.review))
    for who in ("bea", "cem"):
        answer(desk, who, "reject")
    with store.read() as conn:
        assert incidents.all(conn, MODEL) == []
        assert [i.id for i in incidents.all(conn, MODEL, status="rejected")] == [incident.id]


def test_a_required_answer_no_model_could_learn_is_refused_at_once(sqlite_store: Store) -> None:
    desk = desk_of(sqlite_store)
    incident = an_incident(sqlite_store)
    queue(sqlite_store, incident_item(incident, desk.config.review))
    task = desk.next("bea")
    assert task is not None
    bad = ReviewAnswer(verdict="correct", text="<|im_end|> One.", severity="low", root_cause="other")
    with pytest.raises(InputError, match="learn"):
        desk.label(task.item, "bea", task.token, bad)


@pytest.mark.parametrize(("verdict", "kind"), [("accept", "comment"), ("reject", "comment"), ("correct", "correction")])
def test_a_sample_becomes_feedback_but_never_a_thumb(sqlite_store: Store, verdict: str, kind: str) -> None:
    desk = desk_of(sqlite_store)
    one = served("req-1")
    with sqlite_store.write() as conn:
        interactions.insert(conn, [one])
    queue(sqlite_store, sample_item(one, desk.config.review))
    answer(desk, "bea", verdict, "On Tuesday." if verdict == "correct" else "")
    with sqlite_store.read() as conn:
        (said,) = feedback.for_interaction(conn, "req-1")
    assert (said.kind.value, said.scope, said.thumb, said.rating) == (kind, "review", None, None)
    assert said.label == (None if verdict == "correct" else verdict)


def test_answers_are_labels_only(sqlite_store: Store) -> None:
    desk = desk_of(sqlite_store)
    payload = ReviewPayload(messages=(Message(role="user", content="2+2?"),), answer="4", proposed="4")
    id = queue(sqlite_store, answer_item(MODEL, "suite-1/item-3", payload, desk.config.review))
    answer(desk, "bea", "accept")
    with sqlite_store.read() as conn:
        assert reviews.get(conn, id).outcome == "accept"
        assert feedback.since(conn, MODEL, 0) == []


def test_gold_looks_like_the_others_and_scores_the_labeller(store: Store) -> None:
    desk = desk_of(store, gold_share=1.0)
    hold(store, "row-1")
    queue_row(store, desk.config, "row-1")
    payload = ReviewPayload(messages=(Message(role="user", content="ask ann@example.com"),), proposed="No.")
    golds = [
        desk.add_gold(
            payload.model_copy(update={"answer": f"{n}"}), ReviewAnswer(verdict="reject"), guideline="quarantine",
            reason="uncorroborated", by="lead",
        )
        for n in range(2)
    ]  # fmt: skip
    again = desk.add_gold(
        payload.model_copy(update={"answer": "1"}), ReviewAnswer(verdict="reject"), guideline="quarantine",
        reason="uncorroborated", by="lead",
    )  # fmt: skip
    assert again == golds[1]
    seen = [answer(desk, "bea", "reject"), answer(desk, "bea", "accept"), answer(desk, "bea", "accept")]
    assert {task.item for task in seen[:2]} == set(golds)
    ordinary, gold = seen[2].model_dump(), seen[0].model_dump()
    assert {k: gold[k] for k in ("kind", "reason", "guideline", "others")} == {
        k: ordinary[k] for k in ("kind", "reason", "guideline", "others")
    }
    assert "gold" not in str(gold).lower().replace(gold["item"], "")
    assert "<EMAIL_1>" in seen[0].payload.messages[0].content
    answer(desk, "cem", "reject")
    with store.read() as conn:
        assert gold_agreement(conn) == {"bea": (1, 2), "cem": (1, 1)}
        assert {reviews.get(conn, id).status for id in golds} == {"open"}
        stats = review_stats(conn, MODEL)
    assert (stats.labellers["bea"].gold_agreed, stats.labellers["bea"].gold_total) == (1, 2)
    assert stats.labellers["bea"].labels == 1
    assert stats.rules["uncorroborated"].units == 0


def test_alpha_per_rule_and_labeller_with_units(sqlite_store: Store) -> None:
    desk = desk_of(sqlite_store)
    for n in range(10):
        hold(sqlite_store, f"row-{n}", reason="conflict", author=f"user-{n}")
        queue_row(sqlite_store, desk.config, f"row-{n}")
    for who in ("bea", "cem"):
        for n in range(10):
            task = desk.next(who)
            assert task is not None
            good = sum(map(ord, task.item)) % 2 == 0
            contrary = who == "cem" and n == 0
            said = ReviewAnswer(verdict="accept" if good != contrary else "reject")
            desk.label(task.item, who, task.token, said)
    with sqlite_store.read() as conn:
        stats = review_stats(conn, MODEL)
    rule = stats.rules["conflict"]
    assert (rule.units, rule.labels) == (10, 20)
    assert rule.observed == pytest.approx(0.9)
    assert stats.labellers["bea"].agreement == rule
    assert stats.counts["conflict"] == {"done": 9, "adjudicate": 1}


@pytest.mark.parametrize("name", ["", "  ", "x" * 129, "two\nlines", "esc\x1b[31m"])
def test_bad_names_may_not_label(sqlite_store: Store, name: str) -> None:
    with pytest.raises(InputError):
        desk_of(sqlite_store).next(name)


def test_a_list_of_labellers_is_kept_to(sqlite_store: Store) -> None:
    desk = desk_of(sqlite_store, labellers=["bea"])
    assert desk.next("bea") is None
    with pytest.raises(InputError, match="bea"):
        desk.next("mallory")


def test_labellers_and_operators_at_once_never_block_each_other_for_good(store: Store) -> None:
    desk = desk_of(store)
    rows = [f"row-{n:02d}" for n in range(40)]
    for n, row in enumerate(rows):
        hold(store, row, author=f"user-{n}")
        queue_row(store, desk.config, row)
    errors: list[BaseException] = []

    def guarded(work: Any) -> Any:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)

        return threading.Thread(target=run)

    def labels(who: str) -> None:
        while (task := desk.next(who)) is not None:
            try:
                desk.label(task.item, who, task.token, ReviewAnswer(verdict="correct", text="On Monday."))
            except (ConflictError, NotFoundError, StaleTokenError):
                continue  # withdrawn or erased meanwhile

    def drops(step: int) -> None:
        for row in rows[::step]:
            with contextlib.suppress(NotFoundError):  # erased meanwhile
                decide_rows(store, MODEL, [row, rows[-1]], "dropped", by="ops", reason="spam")

    def erases() -> None:
        for n in range(0, 40, 5):
            with store.write() as conn:  # rows before items, as an erasure does
                take(conn, "seq", 0)
                conn.execute(delete(quarantine_table).where(quarantine_table.c.row_id == f"row-{n:02d}"))
                reviews.erase(conn, [f"row-{n:02d}"], [f"user-{n}", "p1"])

    threads = [guarded(lambda who=f"p{n}": labels(who)) for n in range(4)]  # type: ignore[misc]
    threads += [guarded(lambda: drops(3)), guarded(lambda: drops(-2)), guarded(erases)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    assert not any(thread.is_alive() for thread in threads)
    with store.read() as conn:
        assert set(quarantine.statuses(conn, MODEL).values()) <= {"dropped", "held"}
        assert audit.verify(conn) > 40


def test_an_operator_releases_all_or_none_with_name_and_reason(store: Store) -> None:
    for n in range(3):
        hold(store, f"row-{n}")
    hold(store, "row-test", reason="contaminated")
    with pytest.raises(ConflictError, match="evaluation prompt"):
        decide_rows(store, MODEL, ["row-0", "row-test"], "released", by="ops", reason="fine")
    with pytest.raises(NotFoundError):
        decide_rows(store, MODEL, ["row-0", "row-9"], "released", by="ops", reason="fine")
    with pytest.raises(InputError):
        decide_rows(store, MODEL, ["row-0"], "released", by="ops", reason=" ")
    assert status_of(store, "row-0") == "held"
    many = ["row-0", "row-1", "row-2", "row-0"]
    assert decide_rows(store, MODEL, many, "released", by="ops", reason="seen by a@b.example") == 3
    assert decide_rows(store, MODEL, many, "released", by="ops", reason="again") == 0
    with store.read() as conn:
        entries = audit.entries(conn)
    assert [(e.actor, e.action, e.subject) for e in entries[:1]] == [("ops", "quarantine.released", "row-2")]
    assert len(entries) == 3
    assert entries[0].detail["reason"] == "seen by <EMAIL_1>"


def test_an_operators_reason_names_nobody_a_row_is_of(store: Store) -> None:
    hold(store, "row-0", author="ann lee")
    hold(store, "row-1", author="bert")
    with store.write() as conn:
        said = Feedback(
            id="row-2",
            interaction_id="req-row-1",
            kind="correction",
            created_at=utc_now(),
            principal="cyd",
            text=SECRET,
        )
        feedback.insert(conn, [(MODEL, said)])
        quarantine.put(conn, MODEL, [QuarantinedRow(row_id="row-2", digest="d" * 64, reason="burst")], None)
    opened = an_incident(store)
    with store.write() as conn:
        quarantine.put(conn, MODEL, [QuarantinedRow(row_id=opened.id, digest="d" * 64, reason="r")], None)
    refused = {"row-0": "Ann  Lee asked", "row-1": "(bert)", "row-2": "bert was asked", opened.id: opened.opened_by}
    for row, reason in refused.items():
        with pytest.raises(InputError, match="may not hold the name"):
            decide_rows(store, MODEL, [row], "dropped", by="ops", reason=reason)
    with store.read() as conn:
        assert audit.entries(conn) == []
    # Parts of words, and people of rows that were not chosen, are no names here.
    assert decide_rows(store, MODEL, ["row-1"], "dropped", by="ops", reason="Bertram and Ann Lee say so") == 1


def test_the_desk_redacts_by_the_installations_policy(sqlite_store: Store) -> None:
    keeps = Redactor(policy=RedactionPolicy({"IP": "keep"}))
    text = "It answers at 10.1.2.3."
    desk = Desk(sqlite_store, desk_of(sqlite_store).config, KEY, keeps)
    hold(sqlite_store, "row-1", text=text)
    with sqlite_store.read() as conn:
        held, rows = quarantine.get(conn, MODEL, "row-1"), feedback.labelled_by_id(conn, ["row-1"])
    assert held is not None
    pairs = [(held, rows["row-1"])]
    (masked,) = row_items(pairs, MODEL, desk.config.review)
    (made,) = row_items(pairs, MODEL, desk.config.review, keeps)
    assert (masked.item.payload.proposed, made.item.payload.proposed) == ("It answers at <IP_1>.", text)
    incident = an_incident(sqlite_store)
    queue(sqlite_store, incident_item(incident, desk.config.review, keeps))
    answer(desk, "bea", "correct", text, severity="low", root_cause="other")
    gold = desk.add_gold(
        ReviewPayload(messages=(Message(role="user", content="Is it 10.1.2.3?"),)),
        ReviewAnswer(verdict="correct", text=text), guideline="sample", reason="", by="lead",
    )  # fmt: skip
    with sqlite_store.read() as conn:
        assert reviews.get(conn, gold).payload.messages[0].content == "Is it 10.1.2.3?"
    assert decide_rows(
        sqlite_store, MODEL, ["row-1"], "dropped", by="ops", reason="from 10.1.2.3", redactor=keeps
    ) == 1  # fmt: skip
    with sqlite_store.read() as conn:
        said = [e.detail for e in audit.entries(conn) if e.action == "quarantine.dropped"]
    assert [detail["reason"] for detail in said] == ["from 10.1.2.3"]
