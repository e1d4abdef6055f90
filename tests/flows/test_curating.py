"""What a retrain tells curation: ages, suspects of a bad round until released, earlier splits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from data_contracts.ids import new_id
from data_contracts.records import Cause, DatasetSnapshot, LabelledRow, utc_now
from flows import curating
from flows.context import Context, open_context
from store import feedback, requests, snapshots, steps
from tests.flows.flow_samples import add_corrections, tiny_config


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    opened = open_context(tiny_config(tmp_path / "state"))
    yield opened
    opened.store.close()


def a_round(context: Context, outcome: str, splits: dict[str, str], *, inline: bool = True) -> None:
    """A retrain that ended, with the rows of its snapshot; a large one's record does not name them."""
    now = utc_now()
    record = DatasetSnapshot(
        digest=new_id(), path="", model=context.model, created_at=now, contract_digest="c", base_digest="b",
        watermark=1, counts={}, row_ids=tuple(splits) if inline else (),
    )  # fmt: skip
    with context.store.write() as conn:
        request, _ = requests.open_or_attach(conn, context.model, Cause(kind="manual", at=now), status="ready")
        claimed = requests.claim(conn, request.id, "test", 60)
        assert claimed is not None
        steps.begin(conn, request.id, "snapshot", "d", claimed.token)
        output = {"snapshot": record.model_dump(mode="json")}
        steps.complete(conn, request.id, "snapshot", claimed.token, output)
        snapshots.insert(conn, record, splits)
        requests.finish(conn, request.id, claimed.token, "done", outcome)


def test_new_rows_of_a_bad_round_are_suspect_and_older_ones_are_not(context: Context) -> None:
    a_round(context, "promoted", {"a": "train", "b": "target"})
    a_round(context, "blocked", {"a": "train", "b": "target", "c": "train"})
    a_round(context, "inconclusive", {"a": "train", "d": "train"})
    a_round(context, "rolled_back", {"c": "train", "d": "train", "e": "target"})
    with context.store.read() as conn:
        assert curating.suspects(conn, context.model, ("blocked", "rolled_back")) == {"c", "e"}
        assert curating.suspects(conn, context.model, ()) == set()
        assert curating.suspects(conn, "another", ("blocked",)) == set()
        assert snapshots.sides(conn, context.model) == {
            "a": "train", "b": "target", "c": "train", "d": "train", "e": "target",
        }  # fmt: skip


def test_rows_of_a_snapshot_too_large_to_name_them_are_suspect_too(context: Context) -> None:
    a_round(context, "promoted", {"a": "train"}, inline=False)
    a_round(context, "blocked", {"a": "train", "b": "train", "c": "target"}, inline=False)
    with context.store.read() as conn:
        assert curating.suspects(conn, context.model, ("blocked",)) == {"b", "c"}


def test_a_person_is_as_old_as_the_first_request(context: Context) -> None:
    now = utc_now()
    add_corrections(context.store, context.model, per_topic=2, at=now - timedelta(days=9))
    with context.store.read() as conn:
        found = curating.people(conn, context.model, str, {"returns-customer-0": (3, 4), "reviewer": (1, 1)})
        assert curating.people(conn, "another", str) == {}
    age = now - (found["returns-customer-0"].first_seen or now)
    assert timedelta(days=8) < age < timedelta(days=10)
    assert (found["returns-customer-0"].gold_right, found["returns-customer-0"].gold_seen) == (3, 4)
    assert found["reviewer"].first_seen is None
    assert len(found) == 7


def test_suspects_teach_nothing_until_released(context: Context) -> None:
    add_corrections(context.store, context.model)
    rows: list[LabelledRow]
    with context.store.read() as conn:
        rows = feedback.labelled(conn, context.model)
        taught = curating.curated(context, conn, rows, set(), (), utc_now()).train
    one = taught[0].row_id
    a_round(context, "blocked", {one: "train"})
    with context.store.read() as conn:
        after = curating.curated(context, conn, rows, set(), (), utc_now())
        assert {r.row_id: r.reason for r in after.left_out}[one] == "suspect"
        assert one in {r.row_id for r in curating.curated(context, conn, rows, {one}, (), utc_now()).train}
