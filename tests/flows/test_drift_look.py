"""Looking at the traffic again and again: each look goes on where the last ended, until something new is found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_contracts.ids import new_request_id
from data_contracts.records import Interaction, Message, utc_now
from flows.context import Context, open_context
from flows.drift import MIN_BATCH, look
from store import drift as drift_table
from store import interactions
from tests.flows.flow_samples import KEY, tiny_config

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
