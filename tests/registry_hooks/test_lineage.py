"""Lineage down from a version or a request, and up from a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from registry_samples import artifact, wanted

from configs.errors import NotFoundError
from data_contracts.records import (
    Arm,
    Cause,
    Feedback,
    Incident,
    Interaction,
    Message,
    QuarantinedRow,
    Rollout,
    SnapshotRow,
    utc_now,
)
from data_contracts.snapshots import publish
from registry_hooks.lineage import (
    lineage_of_incident,
    lineage_of_principal,
    lineage_of_request,
    lineage_of_row,
    lineage_of_version,
)
from registry_hooks.memory import MemoryRegistry
from store import (
    erasure,
    feedback,
    incidents,
    interactions,
    person,
    quarantine,
    requests,
    rollouts,
    snapshots,
    versions,
)
from store.engine import Store
from store.rows import insert_into
from store.tables import snapshot_rows

MODEL = "support-bot"
ASK = (Message(role="user", content="Where is my order?"),)


@pytest.fixture
def retrain_id(store: Store, tmp_path: Path) -> str:
    """Three corrections: one taught v1, one measured it, one is in quarantine; a request was answered by v1."""
    common: dict[str, Any] = {"created_at": utc_now(), "principal": "ann"}
    rows = [
        SnapshotRow(digest=f"d{n}", split=split, source="correction", messages=ASK, completion="Soon.", row_id=f"f{n}")  # type: ignore[arg-type]
        for n, split in ((1, "train"), (2, "target"))
    ]
    snapshot = publish(
        tmp_path / "snapshots", rows, model=MODEL, contract_digest="c" * 64, base_digest="b" * 64, watermark=9,
        reasons={}, replay={}, created_at=utc_now(),
    )  # fmt: skip
    made = artifact(tmp_path).model_copy(update={"dataset_digest": snapshot.digest})
    version = MemoryRegistry().register(wanted(made))
    served = [("i0", "base"), ("i9", version.name)]
    with store.write() as conn:
        interactions.insert(
            conn,
            [
                Interaction(id=i, model=MODEL, conversation="c", messages=ASK, answer="?", version=v, **common)
                for i, v in served
            ],
        )
        said = [Feedback(id=f"f{n}", interaction_id="i0", kind="correction", text="Soon.", **common) for n in (1, 2, 3)]  # type: ignore[arg-type]
        feedback.insert(conn, [(MODEL, one) for one in said])
        request, _ = requests.open_or_attach(
            conn, MODEL, Cause(kind="drift", at=utc_now(), detail={"title": "gift cards"})
        )
        quarantine.put(conn, MODEL, [QuarantinedRow(row_id="f3", digest="d3", reason="uncorroborated")], request.id)
        snapshots.insert(conn, snapshot, {row.row_id: row.split for row in rows})
        versions.insert(conn, version, adapter_path=made.path, request_id=request.id, approved_by="gate")
        rollouts.create(
            conn,
            Rollout(
                id="ro1",
                model=MODEL,
                candidate=Arm(version=version.name),
                previous=Arm(),
                state="running",
                created_at=utc_now(),
                salt="s",
            ),
        )
    return request.id


def test_down_from_a_version(store: Store, retrain_id: str) -> None:
    with store.read() as conn:
        found = lineage_of_version(conn, f"{MODEL}@v1", rows=10)
        counted = lineage_of_version(conn, f"{MODEL}@v1")
    assert (found["rows"], found["rows_held_out"], found["rows_erased"]) == (["f1"], ["f2"], [])
    assert (counted["train_rows"], counted["held_out_rows"], counted["erased_rows"]) == (1, 1, 0)
    assert "rows" not in counted
    assert found["causes"] == ["gift cards"]
    assert found["retrain"] == f"#1 {retrain_id}"
    assert found["approved_by"] == "gate"
    assert found["contract"] == "c" * 64
    assert [r["state"] for r in found["rollouts"]] == ["running"]


def test_up_from_a_row(store: Store, retrain_id: str) -> None:
    with store.read() as conn:
        taught, measured, held = (lineage_of_row(conn, name) for name in ("f1", "f2", "f3"))
    assert (taught["taught"], taught["measured"]) == ([f"{MODEL}@v1"], [])
    assert (measured["taught"], measured["measured"]) == ([], [f"{MODEL}@v1"])
    assert (held["taught"], held["quarantine"]) == ([], "held: uncorroborated")
    assert taught["answered_by"] == "base"
    assert taught["snapshots"][0]["split"] == "train"


def test_down_from_a_served_request(store: Store, retrain_id: str) -> None:
    with store.read() as conn:
        new, old = (lineage_of_request(conn, name, rows=5) for name in ("i9", "i0"))
    assert (new["version"], new["rows"]) == (f"{MODEL}@v1", ["f1"])
    assert old["version"] == "base"
    assert "rows" not in old
    assert old["feedback"] == ["f1", "f2", "f3"]


def test_from_a_retrain(store: Store, retrain_id: str) -> None:
    with store.read() as conn:
        found = lineage_of_request(conn, retrain_id)
    assert found["versions"] == [f"{MODEL}@v1"]
    assert found["causes"] == ["gift cards"]


def test_from_an_incident_and_from_a_person(store: Store, retrain_id: str) -> None:
    incident = Incident(
        id="n1",
        model=MODEL,
        title="wrong",
        messages=ASK,
        answer="?",
        required="Soon.",
        opened_at=utc_now(),
        opened_by="x",
    )
    with store.write() as conn:
        incidents.insert(conn, incident)
        digest = snapshots.splits_of_row(conn, "f1")[0][0]
        row = {"snapshot": digest, "row_id": "incident:n1", "split": "train"}
        conn.execute(insert_into(conn, snapshot_rows).values(row))
        requests.open_or_attach(conn, MODEL, Cause(kind="incident", at=utc_now(), detail={"incident_id": "n1"}))
    with store.read() as conn:
        found = lineage_of_incident(conn, "n1")
        theirs = lineage_of_principal(conn, "ann", rows=2)
    assert (found["taught"], found["retrains"]) == ([f"{MODEL}@v1"], ["#1 waiting"])
    assert theirs["counts"]["feedback"] == 3
    assert theirs["counts"]["snapshot_rows"] == 2
    assert theirs["taught"] == [f"{MODEL}@v1"]
    assert theirs["rows"] == ["f1", "f2"]


def test_an_erased_row_is_a_tombstone_that_still_says_what_it_taught(store: Store, retrain_id: str) -> None:
    with store.write() as conn:
        theirs = person.find(conn, "ann")
        places = person.places_of(conn, theirs)
        job = erasure.create(conn, pseudonym="p-1", by="x", reason="y", deadline=utc_now(), upto_seq=9, places=places)
        erasure.remember(conn, job.id, theirs.rows, "row")
        erasure.remember(conn, job.id, theirs.requests, "request")
        person.remove(conn, "ann", theirs)
        erasure.taint(conn, erasure.taught_by(conn, places["teaching"]), job.id, job.deadline)
    with store.read() as conn:
        row, request = lineage_of_row(conn, "f1"), lineage_of_request(conn, "i0")
        version = lineage_of_version(conn, f"{MODEL}@v1", rows=9)
        with pytest.raises(NotFoundError, match="ann"):
            lineage_of_principal(conn, "ann")
    assert row == {
        "row": "f1", "erased": f"by erasure {job.id}", "snapshots": row["snapshots"], "taught": [f"{MODEL}@v1"],
        "measured": [], "tainted": [f"{MODEL}@v1"],
    }  # fmt: skip
    assert request["erased"] == f"by erasure {job.id}"
    assert (version["erased_rows"], version["rows_erased"]) == (2, ["f1", "f2"])
    assert version["tainted"].startswith("out of service by ")


def test_what_is_not_there_is_named(sqlite_store: Store) -> None:
    with sqlite_store.read() as conn:
        for walk, name in ((lineage_of_version, "x@v1"), (lineage_of_row, "f9"), (lineage_of_request, "i7")):
            with pytest.raises(NotFoundError, match=name):
                walk(conn, name)
