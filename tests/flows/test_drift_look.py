"""Looking at the traffic again and again: each look goes on where the last ended, until something new is found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_contracts.ids import new_request_id
from data_contracts.records import Interaction, Message, utc_now
from flows.context import Context, open_context
from flows.delivery import MemoryScheduler
from flows.drift import MIN_BATCH, look
from flows.observer import PrintObserver
from flows.watch import watch
from store import drift as drift_table
from store import interactions, pointer, requests
from tests.flows.flow_samples import KEY, add_corrections, tiny_config

COMMON = ("parcel", "refund", "invoice", "address", "voucher", "delivery", "order", "receipt", "courier", "return")
FRESH = ("zymurgy", "quokka", "xylem", "vortex", "jigsaw", "kazoo", "zephyr", "quartz", "bijou", "jukebox")


@pytest.fixture
def context(tmp_path: Path, tiny_base: Path) -> Iterator[Context]:
    config = tiny_config(
        tmp_path / "state",
        model={"name": "support-bot", "embedder": str(tiny_base)},
        drift={"enabled": True, "reference_min": 150, "clusters": 5, "window": 60, "average_run_length": 5000},
    )
    opened = open_context(config)
    yield opened
    opened.store.close()


def ask(context: Context, count: int, words: tuple[str, ...], seed: int) -> None:
    """`count` people with one question each."""
    rng = random.Random(seed)
    rows = []
    for n in range(count):
        ident = new_request_id(KEY, context.model)
        text = f"where is my {' '.join(rng.sample(words, 3))} number {rng.randrange(10_000)}"
        rows.append(
            Interaction(
                id=ident,
                created_at=utc_now(),
                model=context.model,
                principal=f"person-{seed}-{n}",
                conversation=ident,
                messages=(Message(role="user", content=text),),
                answer="Soon.",
            )
        )
    with context.store.write() as conn:
        interactions.insert(conn, rows)


def reached(context: Context) -> int:
    """The commit up to which the traffic was looked at."""
    with context.store.read() as conn:
        known = drift_table.state(conn, context.model)
    assert known is not None
    return known[0]


def test_each_look_goes_on_where_the_last_ended(context: Context) -> None:
    ask(context, 100, COMMON, 1)
    assert look(context).state == "warming"
    ask(context, 150, COMMON, 2)
    assert look(context).state == "watching"
    marks = [reached(context)]
    for seed in range(3, 8):
        ask(context, MIN_BATCH + 4, COMMON, seed)
        seen = look(context)
        assert (seen.state, seen.prompts, seen.findings) == ("watching", MIN_BATCH + 4, ())
        marks.append(reached(context))
    assert marks == sorted(set(marks))
    ask(context, MIN_BATCH - 1, COMMON, 9)
    assert look(context).state == "waiting"
    for seed in range(10, 20):
        ask(context, MIN_BATCH + 4, FRESH, seed)
        if look(context).findings:
            break
    with context.store.read() as conn:
        assert drift_table.findings(conn, context.model)


@pytest.mark.parametrize("harm", ["both", "npz", "cut", "not json", "another's"])
def test_a_reference_that_is_lost_or_damaged_is_frozen_anew(context: Context, harm: str) -> None:
    ask(context, 250, COMMON, 1)
    assert look(context).state == "watching"
    with context.store.read() as conn:
        known = drift_table.state(conn, context.model)
    assert known is not None
    manifest = context.state.drift / f"{known[1]}.json"
    block = manifest.with_suffix(".npz")
    if harm in ("both", "npz"):
        block.unlink()
    if harm == "both":
        manifest.unlink()
    if harm == "cut":
        block.write_bytes(block.read_bytes()[:2000])
    if harm == "not json":
        manifest.write_text("{")
    if harm == "another's":
        manifest.write_text(manifest.read_text().replace(known[1], "0" * 64))
    ask(context, MIN_BATCH + 4, COMMON, 2)
    lost = look(context)
    assert lost.state == "warming"
    assert "its reference is lost" in lost.note
    assert look(context).state == "watching"
    ask(context, MIN_BATCH + 4, COMMON, 3)
    again = look(context)
    assert (again.state, again.prompts, again.note) == ("watching", MIN_BATCH + 4, "")


def test_a_lost_reference_whose_traffic_did_not_change_is_written_again(context: Context) -> None:
    ask(context, 250, COMMON, 1)
    look(context)
    with context.store.read() as conn:
        known = drift_table.state(conn, context.model)
        champion = pointer.get(conn, context.model).champion.version
    assert known is not None
    (context.state.drift / f"{known[1]}.npz").write_bytes(b"")
    with context.store.write() as conn:  # the last traffic is to be looked at again
        drift_table.save_state(conn, context.model, 0, known[1], {"champion": champion, "monitor": None})
    assert [look(context).state for _ in range(2)] == ["warming", "watching"]
    with context.store.read() as conn:
        again = drift_table.state(conn, context.model)
    assert again is not None
    assert again[1] == known[1]
    ask(context, MIN_BATCH + 4, COMMON, 3)
    assert look(context).prompts == MIN_BATCH + 4


def test_a_fault_of_drift_stops_nothing_else_of_the_watch(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path / "state",
        model={"name": "support-bot", "embedder": str(tmp_path / "no-embedder-here")},
        drift={"enabled": True, "reference_min": 150, "clusters": 5, "window": 60},
    )
    context = open_context(config)
    ask(context, 250, COMMON, 1)
    add_corrections(context.store, context.model)
    observer = PrintObserver(quiet=True)
    result = watch(context, MemoryScheduler(), observer)
    assert result is not None
    assert (result.drift.state, result.events) == ("failed", 1)
    assert any(line.startswith("Drift waits") and "Error" in line for line in observer.lines)
    with context.store.read() as conn:
        assert requests.current(conn, context.model) is not None
    context.store.close()
