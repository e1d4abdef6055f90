import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import event, text
from store_samples import MODEL, correction, interaction

from configs.errors import InputError, StoreError, UnavailableError
from store import feedback, interactions
from store.engine import Store
from store.writer import GroupCommitWriter


@pytest.fixture
def writer(store: Store):
    made = GroupCommitWriter(store, delay_ms=5, max_rows=256)
    yield made
    made.close()


def test_a_future_resolves_after_the_commit(store: Store, writer: GroupCommitWriter) -> None:
    assert writer.submit_interaction(interaction("i1")).result(10) is None
    assert writer.submit_feedback(MODEL, correction("f1", "i1")).result(10) is True
    with store.read() as conn:
        assert interactions.get(conn, "i1") is not None
        assert feedback.get(conn, "f1") is not None


def test_the_same_feedback_is_new_once_in_one_batch_or_in_two(writer: GroupCommitWriter) -> None:
    futures = [writer.submit_feedback(MODEL, correction("f1", "i1")) for _ in range(3)]
    assert [f.result(10) for f in futures] == [True, False, False]
    assert writer.submit_feedback(MODEL, correction("f1", "i1")).result(10) is False


def test_many_rows_share_a_commit(store: Store) -> None:
    commits = []
    event.listen(store.engine, "commit", commits.append)
    writer = GroupCommitWriter(store, delay_ms=50, max_rows=1000)
    for future in [writer.submit_interaction(interaction(f"i{n}")) for n in range(500)]:
        future.result(10)
    writer.close()
    assert 1 <= len(commits) <= 5
    with store.read() as conn:
        assert [row.id for _, row in interactions.since(conn, MODEL, 0)] == [f"i{n}" for n in range(500)]


def test_one_bad_row_fails_alone(store: Store) -> None:
    writer = GroupCommitWriter(store, delay_ms=100, max_rows=256)
    futures = [
        writer.submit_interaction(interaction(f"i{n}", principal="x" * 200 if n == 3 else "ann")) for n in range(8)
    ]
    bad = writer.submit_feedback(MODEL, correction("f0", "i1", "nul \0"))
    good = writer.submit_feedback(MODEL, correction("f1", "i1"))
    for n, future in enumerate(futures):
        if n == 3:
            with pytest.raises(InputError, match="too long"):
                future.result(10)
        else:
            future.result(10)
    with pytest.raises(InputError, match="NUL"):
        bad.result(10)
    assert good.result(10) is True
    writer.close()
    with store.read() as conn:
        assert interactions.count(conn, MODEL) == 7


def test_a_cancelled_future_is_written_all_the_same(store: Store) -> None:
    writer = GroupCommitWriter(store, delay_ms=100, max_rows=256)
    assert writer.submit_interaction(interaction("i1")).cancel()
    writer.submit_interaction(interaction("i2")).result(10)
    writer.close()
    with store.read() as conn:
        assert interactions.get(conn, "i1") is not None


def test_close_writes_what_is_queued_and_refuses_more(store: Store) -> None:
    writer = GroupCommitWriter(store, delay_ms=1000, max_rows=10)
    futures = [writer.submit_interaction(interaction(f"i{n}")) for n in range(95)]
    writer.close()
    writer.close()
    assert all(f.done() and f.exception() is None for f in futures)
    with pytest.raises(UnavailableError):
        writer.submit_interaction(interaction("late"))
    with store.read() as conn:
        assert interactions.count(conn, MODEL) == 95


def test_a_refusal_by_the_database_reaches_the_caller_and_the_writer_lives_on(store: Store) -> None:
    with store.write() as conn:
        conn.execute(text("ALTER TABLE feedback RENAME TO gone"))
    writer = GroupCommitWriter(store, delay_ms=50, max_rows=10)
    served = writer.submit_interaction(interaction("i1"))
    said = writer.submit_feedback(MODEL, correction("f1", "i1"))
    with pytest.raises(StoreError, match="feedback"):
        said.result(10)
    # SQLite calls a missing table an operational error, which no row is blamed for: then this one fails too.
    assert served.exception(10) is None or store.dialect == "sqlite"
    with store.write() as conn:
        conn.execute(text("ALTER TABLE gone RENAME TO feedback"))
    assert writer.submit_feedback(MODEL, correction("f1", "i1")).result(10) is True
    writer.close()


@pytest.mark.postgres
def test_a_lost_connection_is_made_again(postgres_url: str) -> None:
    store = Store.open(postgres_url)
    writer = GroupCommitWriter(store, delay_ms=1, max_rows=10)
    other = Store.open(postgres_url)
    for n in range(5):
        writer.submit_interaction(interaction(f"i{n}")).result(10)
        with other.write() as conn:
            conn.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
    writer.close()
    with other.read() as conn:
        assert interactions.count(conn, MODEL) == 5
    other.close()
    store.close()


def test_what_was_acknowledged_survives_kill_9(store_url: str) -> None:
    Store.open(store_url).close()
    child = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("writer_child.py")), store_url],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    acknowledged = [child.stdout.readline().strip() for _ in range(500)]
    time.sleep(0.05)
    child.kill()
    acknowledged += child.stdout.read().split("\n")[:-1]  # the last line may be cut
    child.wait()
    child.stdout.close()
    store = Store.open(store_url)
    with store.read() as conn:
        stored = interactions.existing(conn, [i for i in acknowledged if i.startswith("i")])
        said = {row.id for _, row in feedback.since(conn, MODEL, 0, limit=10**6)}
        numbers = [s for s, _ in interactions.since(conn, MODEL, 0, 10**6)]
        numbers += [s for s, _ in feedback.since(conn, MODEL, 0, 10**6)]
        assert interactions.latest_seq(conn) == max(numbers)
    store.close()
    assert len(acknowledged) >= 500
    assert set(acknowledged) <= stored | said
    assert len(numbers) == len(set(numbers))
