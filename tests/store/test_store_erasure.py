"""Erasure in the tables, on both databases: one transaction beside busy writers, ids that stay gone, taints."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from store_samples import MODEL, correction, interaction

from configs.errors import ConflictError, NotFoundError, SnapshotError
from data_contracts.ids import asked_at, derived_request_id, new_request_id
from data_contracts.records import Cause, DatasetSnapshot, Incident, Message, ModelVersion, utc_now
from store import erasure, feedback, incidents, interactions, person, requests, retention, snapshots, steps, versions
from store.engine import Store
from store.rows import take


def job(conn: Any, pseudonym: str = "p-1", **more: Any) -> erasure.Erasure:
    defaults: dict[str, Any] = {"by": "x", "reason": "y", "deadline": utc_now(), "upto_seq": 0, "places": {}}
    return erasure.create(conn, pseudonym=pseudonym, **{**defaults, **more})


def incident(ident: str, **more: Any) -> Incident:
    ask = (Message(role="user", content="Why?"),)
    defaults: dict[str, Any] = {"model": MODEL, "title": "t", "messages": ask, "answer": "", "required": "Because."}
    return Incident(id=ident, **{**defaults, "opened_at": utc_now(), "opened_by": "reviewer", **more})


def snapshot(conn: Any, digest: str, splits: dict[str, str]) -> None:
    record = DatasetSnapshot(
        digest=digest, path="p", model=MODEL, created_at=utc_now(), contract_digest="c", base_digest="b", watermark=1,
        counts={"train.correction": len(splits)}, row_ids=tuple(splits),
    )  # fmt: skip
    snapshots.insert(conn, record, splits)


def version(number: int, dataset: str) -> ModelVersion:
    return ModelVersion(
        model=MODEL, number=number, adapter_digest=f"{number}", base_digest="b", dataset_digest=dataset,
        config_digest="c", code_commit="x", gate="pass",
    )  # fmt: skip


def test_a_persons_rows_are_found_whoever_wrote_them(store: Store) -> None:
    with store.write() as conn:
        interactions.insert(conn, [interaction("i1"), interaction("i2", principal="bob")])
        said = [
            correction("f1", "i1"),
            correction("f2", "i1", principal="bob"),
            correction("f3", "i2"),
            correction("f4", "i2", principal="bob"),
            correction("f5", "not-there-yet"),
        ]
        feedback.insert(conn, [(MODEL, one) for one in said])
        incidents.insert(conn, incident("n1", interaction_id="i1"))
        incidents.insert(conn, incident("n2", opened_by="ann"))
        incidents.insert(conn, incident("n3", interaction_id="i2"))
    with store.read() as conn:
        theirs = person.find(conn, "ann")
    assert (theirs.requests, theirs.incidents) == (("i1",), ("n1", "n2"))
    assert theirs.rows == ("f1", "f2", "f3", "f5")
    assert theirs.first_teaching_seq == 3
    assert theirs.prompts == {"What is i1?"}
    assert person.find.__doc__


def test_a_name_is_matched_whole(store: Store) -> None:
    with store.write() as conn:
        interactions.insert(
            conn, [interaction("i1"), interaction("i2", principal="anna"), interaction("i3", principal="An")]
        )
    with store.read() as conn:
        assert person.find(conn, "ann").requests == ("i1",)
        assert person.find(conn, "%").empty


def test_one_open_erasure_a_person(store: Store) -> None:
    with store.write() as conn:
        first = job(conn)
        job(conn, "p-2")
        with pytest.raises(ConflictError, match="open"):
            job(conn)
        erasure.finish(conn, first.id)
        erasure.finish(conn, first.id)
        again = job(conn)
        assert [one.id for one in erasure.of_person(conn, "p-1")] == [again.id, first.id]
        assert [one.pseudonym for one in erasure.open_jobs(conn)] == ["p-2", "p-1"]


def test_steps_and_places_add_up(store: Store) -> None:
    with store.write() as conn:
        made = job(conn, places={"snapshots": ["a"]})
        erasure.set_step(conn, made.id, "drift", {"rebuilt": 1})
        erasure.set_step(conn, made.id, "files", {"files": 2})
        erasure.add_places(conn, made.id, {"snapshots": ["b", "a"], "versions": ["v"]})
        found = erasure.get(conn, made.id)
        with pytest.raises(NotFoundError):
            erasure.set_step(conn, "none", "drift", {})
    assert found is not None
    assert found.places == {"snapshots": ["a", "b"], "versions": ["v"]}
    assert {name: facts.get("files") or facts.get("rebuilt") for name, facts in found.steps.items()} == {
        "drift": 1,
        "files": 2,
    }


def test_erased_ids_do_not_come_back(store: Store) -> None:
    with store.write() as conn:
        made = job(conn)
        erasure.remember(conn, made.id, ["i1"], "request")
        erasure.remember(conn, made.id, ["i1", "f9"], "row")
        interactions.insert(conn, [interaction("i1"), interaction("i2")])
        new = feedback.insert_new(
            conn, [(MODEL, one) for one in (correction("f1", "i1"), correction("f9", "i2"), correction("f2", "i2"))]
        )
        incidents.insert(conn, incident("n1", interaction_id="i1"))
        with pytest.raises(SnapshotError, match="erased"):
            snapshot(conn, "s1", {"f9": "train", "f2": "train"})
        assert new == {"f2"}
        assert interactions.existing(conn, ["i1", "i2"]) == {"i2"}
        assert incidents.all(conn, MODEL) == []
        assert erasure.tombstone(conn, "f9") == ("row", made.id)
        assert erasure.tombstone(conn, "f2") is None


def test_a_version_is_tainted_by_training_rows_only(store: Store) -> None:
    with store.write() as conn:
        snapshot(conn, "taught", {"f1": "train", "f2": "target"})
        snapshot(conn, "measured", {"f1": "target", "f2": "train"})
        snapshot(conn, "incident", {"incident:n1": "train"})
        deadline = utc_now() + timedelta(days=3)
        made = job(conn, deadline=deadline)
        erasure.remember(conn, made.id, ["f1"], "row")
        for number, dataset in enumerate(("taught", "measured", "incident"), 1):
            versions.insert(conn, version(number, dataset), adapter_path="p", request_id=None, approved_by="gate")
        assert erasure.tainted_among(conn, [f"{MODEL}@v{n}" for n in (1, 2, 3)]) == {f"{MODEL}@v1"}
        taint = erasure.taint_of(conn, f"{MODEL}@v1")
        assert taint is not None
        assert taint.deadline == deadline
        earlier = job(conn, "p-2", deadline=deadline - timedelta(days=1))
        assert erasure.taint(conn, [f"{MODEL}@v1"], earlier.id, earlier.deadline) == [f"{MODEL}@v1"]
        assert erasure.taint(conn, [f"{MODEL}@v1"], earlier.id, earlier.deadline) == []
        taint = erasure.taint_of(conn, f"{MODEL}@v1")
        assert taint is not None
        assert taint.deadline == earlier.deadline
        assert erasure.erased_in_snapshot(conn, "taught") == 1
        erasure.remember(conn, made.id, ["n1"], "incident")
        assert erasure.erased_in_snapshot(conn, "incident", "train") == 1
        assert erasure.snapshot_row_ids(conn, made.id) == {"f1", "incident:n1"}


def test_salts_are_kept_until_they_are_forgotten(store: Store) -> None:
    with store.write() as conn:
        first = erasure.salt_of(conn, "incident:n1")
        assert erasure.salt_of(conn, "incident:n1") == first
        assert erasure.forget_salts(conn, ["incident:n1", "incident:n2"]) == 1
        assert erasure.salt_of(conn, "incident:n1") != first


def test_a_request_somebody_works_on_is_sent_back_to_its_beginning(store: Store) -> None:
    with store.write() as conn:
        request, _ = requests.open_or_attach(conn, MODEL, Cause(kind="manual", at=utc_now()), status="ready")
        assert not requests.restart(conn, request.id)
        claimed = requests.claim(conn, request.id, "worker", 60.0)
        assert claimed is not None
        steps.begin(conn, request.id, "ingest", "i", claimed.token)
        assert requests.restart(conn, request.id)
        assert steps.list_steps(conn, request.id) == []
        again = requests.claim(conn, request.id, "another", 60.0)
    assert again is not None
    assert (again.token, again.attempt) == (claimed.token + 2, 2)


def test_an_erasure_beside_busy_writers_leaves_none_of_theirs(store: Store) -> None:
    """Feedback on their requests comes from four threads: what commits before goes, what comes after is refused."""
    with store.write() as conn:
        interactions.insert(conn, [interaction(f"i{n}") for n in range(20)])
    stop, errors = threading.Event(), []

    def work(who: int) -> None:
        n = 0
        while not stop.is_set():
            try:
                with store.write() as conn:
                    row = correction(f"f{who}-{n}", f"i{n % 20}", principal=f"w{who}")
                    feedback.insert(conn, [(MODEL, row)])
            except Exception as error:
                errors.append(error)
            n += 1

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    try:
        while True:
            with store.read() as conn:
                if interactions.latest_seq(conn) > 120:
                    break
        with store.write() as conn:
            take(conn, "seq", 0)
            theirs = person.find(conn, "ann")
            made = job(conn)
            erasure.remember(conn, made.id, theirs.requests, "request")
            erasure.remember(conn, made.id, theirs.rows, "row")
            person.remove(conn, "ann", theirs)
            before = interactions.latest_seq(conn)
        while True:
            with store.read() as conn:
                if interactions.latest_seq(conn) > before + 40:
                    break
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert len(theirs.rows) > 50
    with store.read() as conn:
        assert feedback.since(conn, MODEL, 0) == []
        assert interactions.count(conn, MODEL) == 0


def test_old_feedback_goes_before_the_request_it_is_about(store: Store) -> None:
    old, young = utc_now() - timedelta(days=40), utc_now()
    with store.write() as conn:
        interactions.insert(
            conn,
            [
                interaction("lonely", created_at=old),
                interaction("kept", created_at=old),
                interaction("with-old", created_at=old),
                interaction("new", created_at=young),
            ],
        )
        said = [correction("f-old", "with-old", created_at=old), correction("f-new", "kept", created_at=young)]
        feedback.insert(conn, [(MODEL, one) for one in said])
    before = utc_now() - timedelta(days=30)
    with store.read() as conn:
        assert retention.count_feedback(conn, MODEL, before) == 1
        assert retention.count_interactions(conn, MODEL, before) == 1
    with store.write() as conn:
        assert retention.drop_feedback(conn, MODEL, before) == ["f-old"]
        assert retention.drop_interactions(conn, MODEL, before, str) == ["lonely", "with-old"]
        assert retention.drop_interactions(conn, MODEL, before, str) == []
        assert interactions.existing(conn, ["kept", "new", "lonely"]) == {"kept", "new"}


def test_a_request_id_says_when_it_was_asked() -> None:
    key = b"k" * 32
    asked = asked_at(new_request_id(key, MODEL))
    assert asked is not None
    assert abs((utc_now() - asked).total_seconds()) < 5
    assert asked_at("chatcmpl-short") is None
    derived = derived_request_id(key, MODEL, b"a line")
    assert asked_at("i1") is None
    assert derived.startswith("chatcmpl-")


def test_the_log_of_a_sqlite_file_is_emptied(sqlite_store: Store) -> None:
    from pathlib import Path

    path = Path(sqlite_store.url.removeprefix("sqlite:///"))
    words = "a heliotrope kettle of Zwiesel"
    with sqlite_store.write() as conn:
        interactions.insert(conn, [interaction(f"i{n}", answer=words * 50) for n in range(40)])
    with sqlite_store.write() as conn:
        assert erasure.is_scrubbed(conn)
        person.remove(conn, "ann", person.find(conn, "ann"))
    assert words.encode() in path.with_name(path.name + "-wal").read_bytes()
    sqlite_store.scrub(rewrite=False)
    assert path.with_name(path.name + "-wal").stat().st_size == 0
    assert words.encode() not in path.read_bytes()
    sqlite_store.scrub(rewrite=True)
    with sqlite_store.read() as conn:
        assert interactions.count(conn, MODEL) == 0


def test_a_file_from_before_is_rewritten_once(tmp_path: Any) -> None:
    """Rows deleted while deleted bytes were not overwritten are still in the file until it is."""
    from sqlalchemy import text

    from configs.loader import load_config
    from flows.context import open_context
    from flows.erasure_places import scrub_database

    context = open_context(load_config("smoke", {"state_dir": str(tmp_path / "state")}))
    words = "an ocarina of Grafenau"
    with context.store.write() as conn:
        conn.exec_driver_sql("PRAGMA secure_delete = OFF")
        interactions.insert(conn, [interaction(f"i{n}", answer=words * 50) for n in range(40)])
    with context.store.write() as conn:
        conn.exec_driver_sql("PRAGMA secure_delete = OFF")
        conn.execute(text("DELETE FROM interactions"))
        conn.execute(text("UPDATE counters SET value = 0 WHERE name = 'scrubbed'"))
    context.store.scrub(rewrite=False)
    assert words.encode() in context.state.database.read_bytes()
    with context.store.write() as conn:
        made = job(conn)
    assert scrub_database(context, made) == {"database": "sqlite", "rewritten": True}
    assert words.encode() not in context.state.database.read_bytes()
    assert scrub_database(context, made) == {"database": "sqlite", "rewritten": False}
    context.store.close()
