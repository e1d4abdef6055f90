"""The review queue's promises, whoever asks and however many at once."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from store_samples import MODEL

from configs.errors import ConflictError, NotFoundError, StaleTokenError
from data_contracts.records import Message, ReviewAnswer, ReviewItem, ReviewPayload, utc_now
from store import incidents, review_leases, reviews
from store.engine import Store, _engine, migrate
from store.tables import metadata

ACCEPT = ReviewAnswer(verdict="accept")
REJECT = ReviewAnswer(verdict="reject")
NO_GOLD = {"gold_share": 0.0, "lease_s": 60.0}


def item(subject: str, **fields: Any) -> ReviewItem:
    payload = ReviewPayload(messages=(Message(role="user", content=f"What is {subject}?"),), proposed="A thing.")
    defaults = {"kind": "quarantine", "guideline": "quarantine", "payload": payload, "created_at": utc_now()}
    return ReviewItem.model_validate(
        {"id": reviews.new_item_id(), "model": MODEL, "subject": subject, **defaults, **fields}
    )


def add(store: Store, *items: ReviewItem, people: tuple[str, ...] = ()) -> list[str]:
    with store.write() as conn:
        for one in items:
            assert reviews.add(conn, one, people=people)
    return [one.id for one in items]


def take(store: Store, labeller: str, **more: Any) -> Any:
    with store.write() as conn:
        return review_leases.lease_next(conn, MODEL, labeller, **{**NO_GOLD, **more})


def answer(store: Store, lease: Any, said: ReviewAnswer = ACCEPT, **more: Any) -> bool:
    with store.write() as conn:
        return reviews.label(conn, lease.item, lease.labeller, lease.token, said, **more)


def test_the_same_subject_is_added_once_and_a_withdrawn_one_opens_again(store: Store) -> None:
    (first,) = add(store, item("row-1"))
    with store.write() as conn:
        assert not reviews.add(conn, item("row-1"))
        assert reviews.add(conn, item("row-1", kind="conflict"))  # another kind is another item
        assert reviews.withdraw(conn, [first]) == 1
        assert reviews.get(conn, first).status == "withdrawn"
        assert reviews.add(conn, item("row-1", priority=7))
        again = reviews.get(conn, first)
    assert (again.status, again.priority) == ("open", 7)


def test_a_done_item_is_neither_withdrawn_nor_opened_again(store: Store) -> None:
    (done,) = add(store, item("row-1"))
    with store.write() as conn:
        reviews.set_status(conn, done, "done", "reject")
        assert reviews.withdraw(conn, [done]) == 0
        assert not reviews.add(conn, item("row-1"))
        assert reviews.get(conn, done).outcome == "reject"


def test_items_come_by_priority_then_age(store: Store) -> None:
    old = utc_now() - timedelta(days=1)
    ids = add(store, item("b"), item("a", created_at=old), item("urgent", priority=9))
    got = [take(store, f"p{n}").item for n in range(3)]
    assert got == [ids[2], ids[1], ids[0]]
    assert take(store, "p4") is None


def test_asking_again_renews_the_own_lease(store: Store) -> None:
    add(store, item("a"), item("b"))
    first, second = take(store, "bea", lease_s=5), take(store, "bea", lease_s=60)
    assert (first.item, first.token) == (second.item, second.token)
    assert second.until > first.until
    assert take(store, "bea", exclude=[first.item]).item != first.item


def test_an_expired_lease_returns_and_its_token_is_stale(store: Store) -> None:
    (one,) = add(store, item("a"))
    lost = take(store, "bea", lease_s=10)
    later = utc_now() + timedelta(seconds=11)
    assert take(store, "cem") is None
    with pytest.raises(StaleTokenError):
        answer(store, lost, now=later)
    taken = take(store, "cem", now=later)
    assert taken.item == one
    assert taken.token != lost.token
    with pytest.raises(StaleTokenError):
        answer(store, lost)
    assert answer(store, taken, now=later)


def test_a_label_needs_the_own_token_and_counts_once(store: Store) -> None:
    add(store, item("a"))
    lease = take(store, "bea")
    for wrong in ({"token": "0" * 24}, {"token": ""}, {"labeller": "cem"}, {"token": "ü"}):
        with pytest.raises(StaleTokenError):
            answer(store, lease.model_copy(update=wrong))
    assert answer(store, lease)
    assert not answer(store, lease)  # sent twice, counts once
    with pytest.raises(ConflictError):
        answer(store, lease, REJECT)
    with pytest.raises(NotFoundError):
        answer(store, lease.model_copy(update={"item": "rv-none"}))
    with store.read() as conn:
        assert [(one.labeller, one.answer.verdict) for one in reviews.labels_of(conn, lease.item)] == [
            ("bea", "accept")
        ]


def test_nobody_gets_an_item_twice_or_their_own_words(store: Store) -> None:
    add(store, item("a", labels_wanted=2), people=("ann", "asker"))
    assert take(store, "ann") is None
    assert take(store, "asker") is None
    lease = take(store, "bea")
    answer(store, lease)
    assert take(store, "bea") is None
    assert take(store, "cem").item == lease.item


def test_an_adjudicator_is_a_third_person(store: Store) -> None:
    (one,) = add(store, item("a", labels_wanted=2))
    for person, said in (("bea", ACCEPT), ("cem", REJECT)):
        answer(store, take(store, person), said)
    with store.write() as conn:
        reviews.set_status(conn, one, "adjudicate")
    assert take(store, "dan") is None
    for person in ("bea", "cem"):
        assert take(store, person, role="adjudicate") is None
    lease = take(store, "dan", role="adjudicate")
    with pytest.raises(ConflictError, match="no such label"):
        answer(store, lease)
    assert answer(store, lease, role="adjudicate")


def test_gold_comes_in_turn_the_same_each_time_and_differs_between_people(store: Store) -> None:
    add(store, *(item(f"r{n}") for n in range(60)))
    gold = set(
        add(
            store,
            *(item(f"g{n}", kind="gold", gold_expected=REJECT.model_dump(), guideline="quarantine") for n in range(30)),
        )
    )
    mix = {"gold_share": 0.3, "key": b"secret"}
    patterns = {}
    for person in ("bea", "cem"):
        turns = []
        for _ in range(30):
            lease = take(store, person, **mix)
            assert take(store, person, **mix).item == lease.item
            turns.append(lease.item in gold)
            answer(store, lease)
        patterns[person] = turns
    assert patterns["bea"] != patterns["cem"]
    assert all(3 <= sum(turns) <= 16 for turns in patterns.values())
    with store.read() as conn:
        said = Counter(label.labeller for _, label in reviews.labelled_items(conn, MODEL, gold=True))
    assert said == Counter({person: sum(turns) for person, turns in patterns.items()})


def test_without_gold_left_the_ordinary_items_go_on(store: Store) -> None:
    add(store, item("r1"), item("g1", kind="gold", gold_expected=REJECT.model_dump()))
    for _ in range(2):
        answer(store, take(store, "bea", gold_share=1.0, key=b"k"))
    assert take(store, "bea", gold_share=1.0, key=b"k") is None


def test_eight_labellers_in_threads_never_hold_the_same_item(store: Store) -> None:
    ids = add(store, *(item(f"r{n}", labels_wanted=2) for n in range(24)))
    held: Counter[str] = Counter()
    guard, wrong, got = threading.Lock(), [], []

    done: list[str] = []

    def work(person: str) -> None:
        while len(done) < len(ids):
            lease = take(store, person)
            if lease is None:  # what is left is with others, or had this person's label
                time.sleep(0.01)
                continue
            with guard:
                held[lease.item] += 1
                if held[lease.item] > 1:
                    wrong.append(lease.item)
                got.append((lease.item, person))
            with store.write() as conn:
                with guard:
                    held[lease.item] -= 1
                reviews.label(conn, lease.item, person, lease.token, ACCEPT)
                settled = len(reviews.labels_of(conn, lease.item)) == 2
                if settled:
                    reviews.set_status(conn, lease.item, "done", "accept")
            if settled:
                done.append(lease.item)

    people = [threading.Thread(target=work, args=(f"p{n}",)) for n in range(8)]
    for person in people:
        person.start()
    for person in people:
        person.join(60)
    assert wrong == []
    assert len(set(got)) == len(got)
    assert Counter(id for id, _ in got) == Counter(dict.fromkeys(ids, 2))


def test_eight_labellers_in_processes_never_get_the_same_item(store: Store, store_url: str) -> None:
    ids = add(store, *(item(f"r{n}") for n in range(40)))
    child = Path(__file__).with_name("review_child.py")
    workers = [
        subprocess.Popen([sys.executable, child, store_url, MODEL, f"p{n}"], stdout=subprocess.PIPE, text=True)
        for n in range(8)
    ]
    lines = [line.split() for worker in workers for line in worker.communicate(timeout=120)[0].splitlines()]
    assert [worker.returncode for worker in workers] == [0] * 8
    assert sorted(id for id, _ in lines) == sorted(ids)
    assert len({token for _, token in lines}) == len(ids)


def test_erasing_removes_items_and_labels_and_asks_again(store: Store) -> None:
    (hers,) = add(store, item("row-of-ann"), people=("ann",))
    (other,) = add(store, item("row-of-eve"), people=("eve",))
    (two,) = add(store, item("row-of-flo", labels_wanted=2), people=("flo",))
    for person in ("bea", "cem"):
        with store.write() as conn:
            answer_two = review_leases.lease_next(conn, MODEL, person, exclude=[hers, other], **NO_GOLD)
            assert answer_two is not None
            reviews.label(conn, answer_two.item, person, answer_two.token, ACCEPT)
    with store.write() as conn:
        reviews.set_status(conn, two, "adjudicate")
        take_hers = review_leases.lease_next(conn, MODEL, "dan", exclude=[other], **NO_GOLD)
        assert take_hers is not None
        reviews.label(conn, hers, "dan", take_hers.token, ACCEPT)
        assert reviews.erase(conn, ["row-of-eve"], ["ann", "bea"]) == 4  # two items, dan's label on ann's, bea's label
        assert [one.id for one in reviews.list_items(conn, MODEL)] == [two]
        assert reviews.get(conn, two).status == "labelled"
        assert reviews.erase(conn, ["row-of-eve"], ["ann", "bea"]) == 0
        for name in ("review_items", "review_links", "review_leases", "review_labels"):
            rows = conn.execute(select(metadata.tables[name])).all()
            assert not any(person in str(rows) for person in ("ann", "bea", "row-of-eve"))


def test_a_store_from_before_the_queue_is_brought_up_with_its_incidents(store_url: str) -> None:
    old = Store(_engine(store_url, True), store_url)
    with old.write() as conn:
        migrate(conn, "0001")
        columns = "id, model, title, severity, messages, answer, required, paraphrases, status, opened_at, opened_by"
        values = "'i1', 'support-bot', 't', 'low', '[]', 'a', 'r', '[]', 'open', '2026-01-01 00:00:00', 'ops'"
        conn.execute(text(f"INSERT INTO incidents ({columns}) VALUES ({values})"))
    old.close()
    opened = Store.open(store_url)
    with opened.write() as conn:
        (found,) = incidents.all(conn, MODEL)
        assert (found.id, found.root_cause, found.severity) == ("i1", "", "low")
        assert reviews.add(conn, item("row-1"))
    opened.close()
