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
    Interaction,
    Message,
    QuarantinedRow,
    Rollout,
    SnapshotRow,
    utc_now,
)
from data_contracts.snapshots import publish
from registry_hooks.lineage import lineage_of_request, lineage_of_row, lineage_of_version
from registry_hooks.memory import MemoryRegistry
from store import feedback, interactions, quarantine, requests, rollouts, snapshots, versions
from store.engine import Store

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
        found = lineage_of_version(conn, f"{MODEL}@v1")
    assert found["rows"] == ["f1"]
    assert found["held_out_rows"] == ["f2"]
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
        new, old = lineage_of_request(conn, "i9"), lineage_of_request(conn, "i0")
    assert (new["version"], new["rows"]) == (f"{MODEL}@v1", ["f1"])
    assert (old["version"], old["rows"]) == ("base", [])
    assert old["feedback"] == ["f1", "f2", "f3"]


def test_from_a_retrain(store: Store, retrain_id: str) -> None:
    with store.read() as conn:
        found = lineage_of_request(conn, retrain_id)
    assert found["versions"] == [f"{MODEL}@v1"]
    assert found["causes"] == ["gift cards"]


def test_what_is_not_there_is_named(sqlite_store: Store) -> None:
    with sqlite_store.read() as conn:
        for walk, name in ((lineage_of_version, "x@v1"), (lineage_of_row, "f9"), (lineage_of_request, "i7")):
            with pytest.raises(NotFoundError, match=name):
                walk(conn, name)
