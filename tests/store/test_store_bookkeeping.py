import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from store_samples import MODEL

from configs.errors import ConflictError, NotFoundError, StoreError
from data_contracts.records import DatasetSnapshot, Incident, Message, ModelVersion, QuarantinedRow, utc_now
from store import audit, drift, incidents, outbox, quarantine, snapshots, versions
from store.engine import Store


def filled(store: Store, n: int = 5) -> None:
    for k in range(n):
        with store.write() as conn:
            audit.append(conn, "controller", "ramp", f"rollout-{k}", {"share": 0.1 * k, "when": utc_now(), "é": None})


def test_the_audit_chain_verifies_and_lists_newest_first(store: Store) -> None:
    with store.read() as conn:
        assert audit.verify(conn) == 0
    filled(store)
    with store.read() as conn:
        assert audit.verify(conn) == 5
        newest, *_, oldest = audit.entries(conn)
    assert (newest.seq, oldest.seq, oldest.previous) == (5, 1, audit.GENESIS)
    assert oldest.subject == "rollout-0"


@pytest.mark.parametrize(
    ("tamper", "where"),
    [
        ("UPDATE audit SET actor = 'nobody' WHERE seq = 3", 3),
        ("UPDATE audit SET detail = '{\"share\": 1.0}' WHERE seq = 2", 2),
        ("UPDATE audit SET at = '2020-01-01 00:00:00.000000' WHERE seq = 4", 4),
        ("UPDATE audit SET hash = previous WHERE seq = 1", 1),
        ("DELETE FROM audit WHERE seq = 3", 3),
        ("DELETE FROM audit WHERE seq = 1", 1),
        ("DELETE FROM audit WHERE seq = 5", 6 - 1),
        ("UPDATE audit SET seq = 9 WHERE seq = 5", 5),
    ],
)
def test_tampering_with_the_audit_log_is_detected(store: Store, tamper: str, where: int) -> None:
    filled(store)
    with store.write() as conn:
        conn.execute(text(tamper))
    with pytest.raises(StoreError, match="tampered") as caught, store.read() as conn:
        audit.verify(conn)
    assert caught.value.where == f"audit entry {where}"


def test_a_rewritten_entry_with_its_own_hash_made_to_fit_breaks_the_next_link(store: Store) -> None:
    filled(store)
    with store.write() as conn:
        entry = next(e for e in audit.entries(conn) if e.seq == 2).model_dump()
        entry["actor"] = "nobody"
        conn.execute(
            text("UPDATE audit SET actor = 'nobody', hash = :hash WHERE seq = 2"), {"hash": audit._hash(entry)}
        )
    with pytest.raises(StoreError) as caught, store.read() as conn:
        audit.verify(conn)
    assert caught.value.where == "audit entry 3"


def test_concurrent_appends_and_rolled_back_ones_leave_one_chain(store: Store) -> None:
    def append(k: int) -> None:
        try:
            with store.write() as conn:
                audit.append(conn, "a", "b", str(k), {})
                if k % 3 == 0:
                    raise ValueError
        except ValueError:
            pass

    threads = [threading.Thread(target=append, args=(k,)) for k in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as conn:
        assert audit.verify(conn) == 20


def test_outbox_adds_a_key_once_and_keeps_what_failed(store: Store) -> None:
    with store.write() as conn:
        assert outbox.add(conn, "alias", "champion:1", {"number": 1})
        assert not outbox.add(conn, "alias", "champion:1", {"number": 2})
        assert outbox.add(conn, "alias", "champion:2", {"number": 2})
        assert outbox.add(conn, "webhook", "w", {})
        first, second = outbox.pending(conn, "alias")
        assert (first.payload, first.attempts) == ({"number": 1}, 0)
        outbox.failed(conn, first.id, "connection refused")
        outbox.delivered(conn, second.id)
        (first,) = outbox.pending(conn, "alias")
        assert (first.key, first.attempts, first.error) == ("champion:1", 1, "connection refused")
        assert not outbox.add(conn, "alias", "champion:2", {})
        assert [row.kind for row in outbox.pending(conn)] == ["alias", "webhook"]
        assert len(outbox.pending(conn, limit=1)) == 1


def held(row_id: str, reason: str = "uncorroborated") -> QuarantinedRow:
    return QuarantinedRow(row_id=row_id, digest="d", reason=reason)


def test_a_reviewers_word_on_a_row_stays(store: Store) -> None:
    with store.write() as conn:
        quarantine.put(conn, MODEL, [], "q0")
        quarantine.put(conn, MODEL, [held("a"), held("b"), held("c"), held("c")], "q1")
        quarantine.set_status(conn, "a", "released")
        quarantine.set_status(conn, "b", "dropped")
        quarantine.put(conn, MODEL, [held("a", "conflict"), held("b"), held("c", "cap")], None)
        assert quarantine.statuses(conn, MODEL) == {"a": "released", "b": "dropped", "c": "held"}
        assert [(r.row_id, r.reason) for r in quarantine.list_rows(conn, MODEL)] == [
            ("a", "conflict"),
            ("b", "uncorroborated"),
            ("c", "cap"),
        ]
        assert [r.row_id for r in quarantine.list_rows(conn, MODEL, "held")] == ["c"]
        quarantine.clear(conn, MODEL, ["a", "b", "c"])
        assert quarantine.statuses(conn, MODEL) == {"a": "released", "b": "dropped"}
        with pytest.raises(NotFoundError):
            quarantine.set_status(conn, "nobody", "held")


def test_a_released_row_that_loses_again_is_left_out_until_it_teaches(store: Store) -> None:
    def shown() -> list[tuple[str, str, str]]:
        return [(r.row_id, r.status, r.reason) for r in quarantine.left_out(conn, MODEL)]

    with store.write() as conn:
        quarantine.put(conn, MODEL, [held("a"), held("b"), held("c")], "q1")
        quarantine.set_status(conn, "a", "released")
        quarantine.set_status(conn, "b", "dropped")
        assert shown() == [("c", "held", "uncorroborated")]  # whether it loses again is for the next retrain to say
        quarantine.put(conn, MODEL, [held("a", "duplicate"), held("b", "duplicate"), held("c")], "q2")
        assert shown() == [("a", "released", "duplicate"), ("c", "held", "uncorroborated")]
        quarantine.clear(conn, MODEL, ["a", "c"])
        assert shown() == []
        assert quarantine.statuses(conn, MODEL) == {"a": "released", "b": "dropped"}
        assert quarantine.left_out(conn, "another") == []


def snapshot(digest: str, at: datetime) -> DatasetSnapshot:
    return DatasetSnapshot(
        digest=digest,
        path=f"/snapshots/{digest}",
        model=MODEL,
        created_at=at,
        contract_digest="c",
        base_digest="b",
        watermark=7,
        counts={"train.correction": 2},
        row_ids=("f1", "f2"),
    )


def test_snapshots_know_their_rows_and_rows_their_snapshots(store: Store) -> None:
    old = snapshot("d1", datetime(2026, 1, 1, tzinfo=UTC))
    new = snapshot("d2", datetime(2026, 1, 2, tzinfo=UTC))
    with store.write() as conn:
        assert snapshots.latest(conn, MODEL) is None
        for _ in range(2):
            snapshots.insert(conn, new, {"f1": "train", "f3": "target"})
            snapshots.insert(conn, old, {"f1": "train", "f2": "train"})
        assert snapshots.latest(conn, MODEL) == new
        assert snapshots.get(conn, "d1") == old
        assert snapshots.get(conn, "d3") is None
        assert snapshots.containing(conn, "f1") == [old, new]
        assert snapshots.containing(conn, "f3") == [new]
        assert snapshots.splits(conn, "d2") == {"f1": "train", "f3": "target"}


def version(number: int, **fields: Any) -> ModelVersion:
    digests = {"adapter_digest": f"a{number}", "base_digest": "b", "dataset_digest": "d", "config_digest": "c"}
    return ModelVersion(**{"model": MODEL, "number": number, "code_commit": "x", "gate": "pass", **digests, **fields})


def test_a_versions_name_is_immutable(store: Store) -> None:
    with store.write() as conn:
        for _ in range(2):
            versions.insert(conn, version(1), adapter_path="/a1", request_id="q1", approved_by="gate")
        versions.insert(conn, version(2), adapter_path="/a2", request_id=None, approved_by="ann")
        with pytest.raises(ConflictError, match="another adapter"):
            versions.insert(
                conn, version(1, adapter_digest="z"), adapter_path="/z", request_id=None, approved_by="gate"
            )
        name = f"{MODEL}@v1"
        assert versions.get(conn, name) == version(1)
        assert versions.by_digest(conn, "a2") == version(2)
        assert versions.by_digest(conn, "z") is None
        assert [v.number for v in versions.list_versions(conn, MODEL)] == [2, 1]
        ref = versions.adapter_ref(conn, name)
        assert ref is not None
        assert (ref.version, ref.digest, ref.path, ref.base_digest) == (name, "a1", "/a1", "b")
        assert versions.adapter_ref(conn, "base") is None
        assert versions.approved_by(conn, f"{MODEL}@v2") == "ann"
        assert versions.approved_by(conn, "base") is None
        assert versions.request_of(conn, name) == "q1"
        assert [v.number for v in versions.teaching(conn, "d")] == [1, 2]


def test_incidents_are_opened_once_and_fixed(store: Store) -> None:
    now = utc_now()
    first = Incident(
        id="n1",
        model=MODEL,
        title="promised a refund",
        messages=(Message(role="user", content="Refund?"),),
        answer="Yes, always.",
        required="Within 30 days.",
        paraphrases=("Money back?",),
        opened_at=now,
        opened_by="ann",
    )
    second = first.model_copy(update={"id": "n2", "opened_at": now + timedelta(seconds=1)})
    with store.write() as conn:
        incidents.insert(conn, second)
        incidents.insert(conn, first)
        incidents.insert(conn, first.model_copy(update={"title": "other"}))
        assert incidents.all(conn, MODEL) == [first, second]
        incidents.set_status(conn, "n1", "fixed")
        assert [i.id for i in incidents.all(conn, MODEL, "open")] == ["n2"]
        fixed = incidents.get(conn, "n1")
        assert fixed is not None
        assert fixed.status == "fixed"
        with pytest.raises(NotFoundError):
            incidents.set_status(conn, "n3", "fixed")


def test_drift_state_and_findings(store: Store) -> None:
    with store.write() as conn:
        assert drift.state(conn, MODEL) is None
        drift.save_state(conn, MODEL, 3, "ref", {"cusum": 1.5})
        drift.save_state(conn, MODEL, 4, "ref", {"cusum": 2.5})
        assert drift.state(conn, MODEL) == (4, "ref", {"cusum": 2.5})
        drift.add_finding(conn, MODEL, "novelty", "loans", {"examples": ["a"]})
        last = drift.add_finding(conn, MODEL, "local_share", "cards", {})
        found = drift.findings(conn, MODEL)
        assert [f.name for f in found] == ["cards", "loans"]
        assert found[0].id == last
        assert len(drift.findings(conn, MODEL, limit=1)) == 1
