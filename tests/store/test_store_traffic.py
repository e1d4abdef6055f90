import random
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import MODEL, correction, interaction

from configs.errors import InputError
from data_contracts.records import FeedbackKind, Message
from store import feedback, interactions
from store.engine import Store


def test_an_interaction_comes_back_as_it_was(store: Store) -> None:
    row = interaction(
        "i1",
        created_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=2))),
        messages=(Message(role="user", content="snow ☃ 𝔘 \n\t \x01"),),
        flags=("error", "slow"),
        arm="canary",
        version=f"{MODEL}@v3",
        rollout_id="r1",
        arm_share=0.05,
        tokens_in=3,
        cost_microdollars=2**40,
    )
    with store.write() as conn:
        interactions.insert(conn, [row])
    with store.read() as conn:
        stored = interactions.get(conn, "i1")
    assert stored == row
    assert stored is not None
    assert stored.created_at.utcoffset() == timedelta(0)
    with store.read() as conn:
        assert interactions.get(conn, "other") is None


def test_an_id_is_stored_once_and_the_first_stays(store: Store) -> None:
    with store.write() as conn:
        interactions.insert(conn, [])
        interactions.insert(conn, [interaction("i1", answer="first"), interaction("i1", answer="second")])
        interactions.insert(conn, [interaction("i2"), interaction("i1", answer="third")])
    with store.read() as conn:
        assert [row.id for _, row in interactions.since(conn, MODEL, 0)] == ["i1", "i2"]
        first = interactions.get(conn, "i1")
    assert first is not None
    assert first.answer == "first"


def test_since_pages_in_order_of_commits(store: Store) -> None:
    with store.write() as conn:
        interactions.insert(conn, [interaction(f"i{n}", rollout_id="r" if n % 2 else None) for n in range(10)])
        interactions.insert(conn, [interaction("other", model="other")])
        assert interactions.latest_seq(conn) == 11
        pages, seq = [], 0
        while page := interactions.since(conn, MODEL, seq, limit=3):
            pages.append([row.id for _, row in page])
            seq = page[-1][0]
        assert pages == [["i0", "i1", "i2"], ["i3", "i4", "i5"], ["i6", "i7", "i8"], ["i9"]]
        assert [r.id for _, r in interactions.since(conn, MODEL, 3, rollout_id="r")] == ["i3", "i5", "i7", "i9"]
        assert interactions.count(conn, MODEL) == 10


def test_latencies_leave_out_errors_and_other_versions(store: Store) -> None:
    with store.write() as conn:
        rows = [interaction(f"i{n}", latency_ms=n, flags=("error",) if n == 3 else ("slow",)) for n in range(6)]
        interactions.insert(conn, [*rows, interaction("v", latency_ms=99, version="v2")])
        assert interactions.latencies(conn, MODEL, "base", limit=4) == [5, 4, 2, 1]


def test_prompts_are_the_newest_last_user_messages_in_order(store: Store) -> None:
    with store.write() as conn:
        interactions.insert(conn, [interaction(f"i{n}", principal=f"p{n}") for n in range(5)])
        assert interactions.prompts(conn, MODEL, upto_seq=4, limit=2) == [
            (3, "p2", "What is i2?"),
            (4, "p3", "What is i3?"),
        ]
        assert interactions.prompts_since(conn, MODEL, 2, limit=2) == [
            (3, "p2", "What is i2?"),
            (4, "p3", "What is i3?"),
        ]


@pytest.mark.parametrize(
    ("field", "value"),
    [("principal", "x" * 129), ("answer", "nul \0 here"), ("conversation", "\0")],
)
def test_what_one_database_cannot_hold_is_refused_by_both(store: Store, field: str, value: str) -> None:
    with pytest.raises(InputError) as caught, store.write() as conn:
        interactions.insert(conn, [interaction("good"), interaction("bad", **{field: value})])
    assert caught.value.where == f"interactions.{field}"
    with store.read() as conn:
        assert interactions.count(conn, MODEL) == 0


def test_feedback_counts_once(store: Store) -> None:
    with store.write() as conn:
        assert feedback.insert(conn, []) == 0
        assert feedback.insert(conn, [(MODEL, correction("f1", "i1")), (MODEL, correction("f1", "i1", "other"))]) == 1
        assert feedback.insert(conn, [(MODEL, correction("f1", "i1")), (MODEL, correction("f2", "i1"))]) == 1
        stored = feedback.get(conn, "f1")
        assert stored is not None
        assert stored.text == "It is a thing."
        assert len(stored.salt) == 32
        assert stored.kind is FeedbackKind.CORRECTION
        assert [f.id for f in feedback.for_interaction(conn, "i1")] == ["f1", "f2"]
        assert [(s, f.id) for s, f in feedback.since(conn, MODEL, 0)] == [(1, "f1"), (3, "f2")]
        assert feedback.get(conn, "f3") is None


def test_feedback_that_comes_first_waits_and_joins(store: Store) -> None:
    with store.write() as conn:
        feedback.insert(conn, [(MODEL, correction("f1", "i1"))])
        assert feedback.labelled(conn, MODEL) == []
        assert feedback.count_corrections_since(conn, MODEL, 0) == 0
        interactions.insert(conn, [interaction("i1")])
        (row,) = feedback.labelled(conn, MODEL)
        assert row.completion == "It is a thing."
        assert row.prompt == "What is i1?"
        # It became complete with the interaction, number 2: a watermark of 1 has not seen it.
        assert feedback.count_corrections_since(conn, MODEL, 1) == 1
        assert feedback.count_corrections_since(conn, MODEL, 2) == 0
        assert feedback.labelled(conn, MODEL, upto_seq=1) == []


def test_labelled_holds_corrections_and_preferences_only(store: Store) -> None:
    with store.write() as conn:
        interactions.insert(conn, [interaction("i1"), interaction("i2", model="other")])
        said = [
            correction("f1", "i1"),
            correction("f2", "i1", None, kind="thumb", thumb=-1),
            correction("f3", "i1", "better", kind="preference", rejected="worse"),
            correction("f4", "i1", None),
            correction("f5", "i2"),
        ]
        feedback.insert(conn, [(MODEL, row) for row in said])
        rows = {row.id: row for row in feedback.labelled(conn, MODEL)}
    assert list(rows) == ["f1", "f3", "f4"]
    assert (rows["f3"].answer, rows["f3"].completion) == ("worse", "better")
    assert rows["f4"].completion == ""


def test_a_rows_digest_depends_on_its_salt_and_not_on_the_time_zone_it_came_in(store: Store) -> None:
    at = datetime(2026, 1, 2, 12, tzinfo=UTC)
    elsewhere = at.astimezone(timezone(timedelta(hours=-7)))
    with store.write() as conn:
        interactions.insert(conn, [interaction("i1")])
        feedback.insert(conn, [(MODEL, correction("f1", "i1", created_at=elsewhere, salt="s"))])
        (row,) = feedback.labelled(conn, MODEL)
        said = feedback.get(conn, "f1")
    assert said is not None
    rebuilt = {
        salt: feedback.labelled_row(
            said.model_copy(update={"created_at": at, "salt": salt}), row.messages, row.answer, row.version
        ).digest
        for salt in ("s", "t")
    }
    assert rebuilt["s"] == row.digest
    assert rebuilt["t"] != row.digest


def test_for_rollout_pages_without_losing_feedback_that_waited(store: Store) -> None:
    with store.write() as conn:
        # Five pieces wait for i1: all become complete with it, under one number.
        feedback.insert(conn, [(MODEL, correction(f"early{n}", "i1", principal=f"p{n}")) for n in range(5)])
        interactions.insert(conn, [interaction("i1", rollout_id="r"), interaction("x", rollout_id="other")])
        feedback.insert(conn, [(MODEL, correction("late", "i1")), (MODEL, correction("not", "x"))])
        page = feedback.for_rollout(conn, "r", 0, limit=2)
        assert [(seq, said.id) for seq, said, _ in page] == [(6, f"early{n}") for n in range(5)]
        page = feedback.for_rollout(conn, "r", page[-1][0], limit=2)
        assert [(seq, said.id, served.id) for seq, said, served in page] == [(8, "late", "i1")]
        assert feedback.for_rollout(conn, "r", 8) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_folding_a_rollout_sees_each_pair_once_whatever_the_order(sqlite_store: Store, seed: int, limit: int) -> None:
    chance = random.Random(seed)
    rollout = f"r{seed}-{limit}"
    ids = [f"{rollout}-{n}" for n in range(6)]
    events = [("i", i) for i in ids] + [("f", i) for i in ids for _ in range(2)]
    chance.shuffle(events)
    seen, watermark = [], 0
    for n, (kind, ident) in enumerate(events):
        with sqlite_store.write() as conn:
            if kind == "i":
                interactions.insert(conn, [interaction(ident, rollout_id=rollout)])
            else:
                feedback.insert(conn, [(MODEL, correction(f"{rollout}-f{n}", ident))])
        if chance.random() < 0.4:
            with sqlite_store.read() as conn:
                page = feedback.for_rollout(conn, rollout, watermark, limit)
            seen += [said.id for _, said, _ in page]
            watermark = page[-1][0] if page else watermark
    with sqlite_store.read() as conn:
        while page := feedback.for_rollout(conn, rollout, watermark, limit):
            seen += [said.id for _, said, _ in page]
            watermark = page[-1][0]
    assert sorted(seen) == sorted(f"{rollout}-f{n}" for n, (kind, _) in enumerate(events) if kind == "f")


def test_pages_of_a_long_rollout_come_quickly(store: Store) -> None:
    """A join over the wrong index took minutes here."""
    with store.write() as conn:
        for start in range(0, 12_000, 2000):
            ids = [f"i{n}" for n in range(start, start + 2000)]
            interactions.insert(conn, [interaction(i, rollout_id="r") for i in ids])
            feedback.insert(conn, [(MODEL, correction(f"f-{i}", i)) for i in ids[::2]])
    began = time.perf_counter()
    with store.read() as conn:
        assert len(feedback.for_rollout(conn, "r", 17_900, limit=200)) == 100
        assert len(feedback.for_rollout(conn, "r", 0, limit=200)) == 200
        assert feedback.count_corrections_since(conn, MODEL, 17_900) == 100
    assert time.perf_counter() - began < 5.0
