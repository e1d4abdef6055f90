"""Which rows are older than their time, on both databases: incidents, review items, requests an incident is about."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import text
from store_samples import MODEL, interaction

from data_contracts.records import (
    Cause,
    Incident,
    Message,
    QuarantinedRow,
    ReviewAnswer,
    ReviewItem,
    ReviewPayload,
    utc_now,
)
from store import erasure, incidents, interactions, people, quarantine, requests, retention, review_leases, reviews
from store.engine import Store, _engine, migrate
from store.tables import incidents as incident_table

MONTH = timedelta(days=30)


def incident(ident: str, **more: Any) -> Incident:
    ask = (Message(role="user", content="Why?"),)
    defaults: dict[str, Any] = {"model": MODEL, "title": "t", "messages": ask, "answer": "", "required": "Because."}
    return Incident(id=ident, **{**defaults, "opened_at": utc_now(), "opened_by": "reviewer", **more})


def item(subject: str, **more: Any) -> ReviewItem:
    payload = ReviewPayload(messages=(Message(role="user", content="Why?"),))
    defaults = {"kind": "quarantine", "guideline": "quarantine", "payload": payload, "created_at": utc_now()}
    return ReviewItem.model_validate(
        {"id": reviews.new_item_id(), "model": MODEL, "subject": subject, **defaults, **more}
    )


def test_an_incident_is_as_old_as_its_closing(store: Store) -> None:
    long_ago, soon = utc_now() - timedelta(days=400), utc_now() + timedelta(hours=1)
    with store.write() as conn:
        for ident in ("open", "fixed", "rejected", "earlier"):
            incidents.insert(conn, incident(ident, opened_at=long_ago))
        for ident, status in (("fixed", "fixed"), ("rejected", "rejected"), ("earlier", "superseded")):
            incidents.set_status(conn, ident, status)  # type: ignore[arg-type]
        # Nobody said when it was closed: then it is as old as its opening.
        conn.execute(incident_table.update().where(incident_table.c.id == "earlier").values(closed_at=None))
    with store.read() as conn:
        assert retention.count_incidents(conn, MODEL, utc_now() - MONTH) == 1
        assert retention.count_incidents(conn, MODEL, soon) == 3
        assert retention.count_incidents(conn, "another", soon) == 0
    with store.write() as conn:
        assert retention.drop_incidents(conn, MODEL, utc_now() - MONTH) == ["earlier"]
        incidents.set_status(conn, "rejected", "open")
        assert retention.drop_incidents(conn, MODEL, soon) == ["fixed"]
        assert [i.id for i in incidents.all(conn, MODEL)] == ["open", "rejected"]


def test_an_incident_goes_with_its_salt_its_quarantine_and_its_item(store: Store) -> None:
    with store.write() as conn:
        for ident in ("old", "new"):
            incidents.insert(conn, incident(ident))
        salt = erasure.salt_of(conn, "incident:old")
        quarantine.put(conn, MODEL, [QuarantinedRow(row_id="old", digest="d", reason="contract.x")], None)
        assert reviews.add(conn, item("old", kind="incident"))
        # The item of the one that took its place is about both.
        assert reviews.add(conn, item("new", kind="incident", status="done"), about=["old"])
        cause = Cause(kind="incident", at=utc_now(), detail={"incident_id": "old", "title": "incident: a name"})
        request, _ = requests.open_or_attach(conn, MODEL, cause)
        incidents.set_status(conn, "old", "superseded")
        assert retention.drop_incidents(conn, MODEL, utc_now() + MONTH) == ["old"]
    with store.write() as conn:
        assert erasure.salt_of(conn, "incident:old") != salt
        assert quarantine.statuses(conn, MODEL) == {}
        assert [one.subject for one in reviews.list_items(conn, MODEL)] == ["new"]
        found = requests.get(conn, request.id)
    assert found is not None
    assert found.causes[0].detail["title"] == "incident: deleted by retention"


def test_what_a_running_retrain_is_held_to_waits_for_its_end(store: Store) -> None:
    soon = utc_now() + timedelta(hours=1)
    with store.write() as conn:
        for ident in ("fixed", "rejected"):
            incidents.insert(conn, incident(ident))
            incidents.set_status(conn, ident, ident)  # type: ignore[arg-type]
        request, _ = requests.open_or_attach(conn, MODEL, Cause(kind="manual", at=utc_now()), status="ready")
        claimed = requests.claim(conn, request.id, "worker", 60.0)
        assert claimed is not None
        assert retention.count_incidents(conn, MODEL, soon) == 1
        assert retention.drop_incidents(conn, MODEL, soon) == ["rejected"]
        requests.finish(conn, request.id, claimed.token, "done", "promoted")
        assert retention.drop_incidents(conn, MODEL, soon) == ["fixed"]


def test_a_request_stays_as_long_as_an_incident_quotes_it(store: Store) -> None:
    """Or nobody could tell whose words the incident holds, and an erasure would leave them."""
    soon = utc_now() + timedelta(hours=1)
    with store.write() as conn:
        interactions.insert(conn, [interaction("i1"), interaction("i2")])
        incidents.insert(conn, incident("n1", interaction_id="i1"))
        assert retention.count_interactions(conn, MODEL, soon) == 1
        assert retention.drop_interactions(conn, MODEL, soon, str) == ["i2"]
        incidents.set_status(conn, "n1", "fixed")
        retention.drop_incidents(conn, MODEL, soon)
        assert retention.drop_interactions(conn, MODEL, soon, str) == ["i1"]


def test_settled_and_withdrawn_items_go_with_their_labels(store: Store) -> None:
    soon = utc_now() + timedelta(hours=1)
    with store.write() as conn:
        for subject in ("done", "withdrawn", "open", "half"):
            reviews.add(conn, item(subject, labels_wanted=2 if subject == "half" else 1), people=["ann"])
        named = {one.subject: one.id for one in reviews.list_items(conn, MODEL)}
        incidents.insert(conn, incident("n1"))
        reviews.add(conn, item("n1", kind="incident", status="done"))
        for subject in ("done", "half"):
            others = [ident for name, ident in named.items() if name != subject]
            lease = review_leases.lease_next(
                conn, MODEL, "bea", lease_s=60.0, gold_share=0.0, key=b"k" * 32, exclude=others
            )
            assert lease is not None
            assert lease.item == named[subject]
            reviews.label(conn, lease.item, "bea", lease.token, ReviewAnswer(verdict="accept"))
        reviews.set_status(conn, named["done"], "done", "accept")
        reviews.set_status(conn, named["half"], "labelled")
        reviews.withdraw(conn, [named["withdrawn"]])
        assert retention.count_reviews(conn, MODEL, utc_now() - MONTH) == 0
        assert retention.count_reviews(conn, MODEL, soon) == 2
        assert set(retention.drop_reviews(conn, MODEL, soon)) == {named["done"], named["withdrawn"]}
        assert {one.subject for one in reviews.list_items(conn, MODEL)} == {"open", "half", "n1"}
        assert (reviews.labels_of(conn, named["done"]), len(reviews.labels_of(conn, named["half"]))) == ([], 1)
        assert reviews.people(conn, named["done"]) == []
        incidents.set_status(conn, "n1", "rejected")
        assert len(retention.drop_reviews(conn, MODEL, soon)) == 1


def test_a_store_from_before_is_brought_up_with_its_incidents_and_its_quarantine(store_url: str) -> None:
    began = utc_now()
    old = Store(_engine(store_url, True), store_url)
    with old.write() as conn:
        migrate(conn, "0004")
        columns = "id, model, title, severity, messages, answer, required, paraphrases, status, opened_at, opened_by"
        for ident, status in (("i1", "fixed"), ("i2", "superseded"), ("i3", "open")):
            values = f"'{ident}', '{MODEL}', 't', 'low', '[]', 'a', 'r', '[]', '{status}', '2025-01-01 00:00:00', 'ops'"
            conn.execute(text(f"INSERT INTO incidents ({columns}) VALUES ({values})"))
        columns = "row_id, model, digest, reason, detail, status, request_id, updated_at"
        for ident, status in (("a", "released"), ("b", "held")):
            values = f"'{ident}', '{MODEL}', 'd', 'cap', '', '{status}', 'q1', '2026-01-01 00:00:00'"
            conn.execute(text(f"INSERT INTO quarantine ({columns}) VALUES ({values})"))
    old.close()
    opened = Store.open(store_url)
    with opened.write() as conn:
        assert [row.row_id for row in quarantine.left_out(conn, MODEL)] == ["b"]
        # Opened long ago, but closed nobody knows when: their time runs from the migration.
        assert retention.drop_incidents(conn, MODEL, began) == []
        assert retention.drop_incidents(conn, MODEL, utc_now()) == ["i1", "i2"]
        assert [i.id for i in incidents.all(conn, MODEL)] == ["i3"]
        people.remember(conn, MODEL, {"p-1": utc_now()})
        assert people.remembered(conn, "p-1") == 1
    opened.close()
