"""What comes to review by itself, what does not, and what leaves again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from data_contracts.curation import is_held_out
from data_contracts.ids import new_id
from data_contracts.records import Feedback, Incident, Interaction, Message, QuarantinedRow, ReviewAnswer, utc_now
from data_contracts.review.desk import Desk
from flows import delivery
from flows.context import Context, open_context
from flows.observer import PrintObserver
from flows.review_feed import feed
from flows.watch import watch
from store import feedback, incidents, interactions, quarantine, review_feeds, reviews
from tests.flows.flow_samples import tiny_config

Make = Callable[..., Context]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    opened: list[Context] = []

    def one(**review: Any) -> Context:
        review = {"sample_share": 0.0, **review}
        opened.append(open_context(tiny_config(tmp_path / f"state{len(opened)}", review=review)))
        return opened[-1]

    yield one
    for context in opened:
        context.store.close()


def serve(context: Context, id: str, principal: str = "ann", prompt: str = "When?", **fields: Any) -> None:
    row = Interaction.model_validate(
        {
            "id": id,
            "created_at": utc_now(),
            "model": context.model,
            "principal": principal,
            "conversation": id,
            "messages": (Message(role="user", content=prompt),),
            "answer": "Later.",
            **fields,
        }
    )
    with context.store.write() as conn:
        interactions.insert(conn, [row])


def hold(context: Context, row: str, reason: str, author: str, text: str = "On Tuesday.", **served: Any) -> None:
    serve(context, f"req-{row}", author, **served)
    said = Feedback(
        id=row, interaction_id=f"req-{row}", kind="correction", created_at=utc_now(), principal=author, text=text
    )
    with context.store.write() as conn:
        feedback.insert(conn, [(context.model, said)])
        quarantine.put(conn, context.model, [QuarantinedRow(row_id=row, digest="d" * 64, reason=reason)], None)


def queue_of(context: Context, *statuses: str) -> dict[str, str]:
    """subject -> kind."""
    with context.store.read() as conn:
        found = reviews.list_items(conn, context.model, statuses=statuses or ("open",))
    return {item.subject: item.kind for item in found}


def test_held_rows_come_by_reason_and_once(make: Make) -> None:
    context = make()
    for row, reason in (
        ("a", "uncorroborated"), ("b", "conflict"), ("c", "cap"), ("d", "duplicate"), ("e", "contaminated"),
        ("f", "contract.completion_not_blank"), ("g", "suspect"),
    ):  # fmt: skip
        hold(context, row, reason, f"user-{row}")
    assert feed(context).added == {"quarantine": 2, "conflict": 1}
    assert queue_of(context) == {"a": "quarantine", "b": "conflict", "g": "quarantine"}
    assert feed(context).added == {}


def test_other_corrections_of_the_same_prompt_are_shown_and_everything_is_redacted(make: Make) -> None:
    context = make()
    hold(context, "a", "conflict", "u1", "Ask bob@example.com.", prompt="When does it leave?")
    hold(context, "b", "conflict", "u2", "On Friday.", prompt="when does it leave")
    hold(context, "c", "conflict", "u3", "on friday", prompt="When does it leave?")
    hold(context, "d", "conflict", "u4", "Never.", prompt="Why?")
    feed(context)
    with context.store.read() as conn:
        shown = {i.subject: i.payload for i in reviews.list_items(conn, context.model)}
    assert shown["a"].proposed == "Ask <EMAIL_1>."
    assert shown["a"].options == ("On Friday.",)
    assert shown["c"].options == ("Ask <EMAIL_1>.",)
    assert shown["d"].options == ()


def test_what_settled_elsewhere_leaves_and_what_is_held_again_returns(make: Make) -> None:
    context = make()
    for row in ("a", "b", "c"):
        hold(context, row, "uncorroborated", f"user-{row}")
    feed(context)
    held = QuarantinedRow(row_id="c", digest="d" * 64, reason="conflict")
    with context.store.write() as conn:
        quarantine.set_status(conn, "a", "dropped")
        quarantine.clear(conn, context.model, ["b"])
        quarantine.put(conn, context.model, [held], None)
    result = feed(context)
    assert (result.withdrawn, result.added) == (3, {"conflict": 1})
    assert queue_of(context) == {"c": "conflict"}
    with context.store.write() as conn:
        quarantine.put(conn, context.model, [held.model_copy(update={"row_id": "b", "reason": "uncorroborated"})], None)
    assert feed(context).added == {"quarantine": 1}
    assert queue_of(context) == {"b": "quarantine", "c": "conflict"}


def test_one_person_cannot_fill_the_queue(make: Make) -> None:
    context = make(max_items_per_principal=3, max_open_items=10)
    for n in range(30):
        hold(context, f"flood-{n}", "uncorroborated", "mallory")
    for n in range(4):
        hold(context, f"honest-{n}", "uncorroborated", f"user-{n}")
    feed(context)
    feed(context)
    shown = Counter("flood" if subject.startswith("flood") else "honest" for subject in queue_of(context))
    assert shown == {"flood": 3, "honest": 4}


def test_the_queue_has_a_size_and_everybody_is_served_before_anybody_twice(make: Make) -> None:
    context = make(max_open_items=5)
    for n in range(4):
        for author in ("u1", "u2", "u3", "u4", "u5"):
            hold(context, f"{author}-{n}", "uncorroborated", author)
    assert feed(context).added == {"quarantine": 5}
    assert {subject.split("-")[0] for subject in queue_of(context)} == {"u1", "u2", "u3", "u4", "u5"}
    assert feed(context).added == {}


def test_people_at_their_cap_keep_nobody_else_out(make: Make) -> None:
    """However many they are and however early they came: free places go to those who have none yet."""
    context = make(max_items_per_principal=2, max_open_items=10)
    for author in ("u1", "u2", "u3", "u4"):
        for n in range(5):
            hold(context, f"{author}-{n}", "uncorroborated", author)
    assert feed(context).added == {"quarantine": 8}
    # One who has one open item may have one more, whoever asked or answered.
    serve(context, "req-both", "v1")
    both = Feedback(
        id="both", interaction_id="req-both", kind="correction", created_at=utc_now(), principal="v2", text="At noon."
    )
    with context.store.write() as conn:
        feedback.insert(conn, [(context.model, both)])
        quarantine.put(conn, context.model, [QuarantinedRow(row_id="both", digest="d" * 64, reason="conflict")], None)
    assert feed(context).added == {"conflict": 1}
    for n in range(3):
        hold(context, f"v1-{n}", "uncorroborated", "v1")
    assert feed(context).added == {"quarantine": 1}
    with context.store.write() as conn:
        quarantine.set_status(conn, "u1-0", "dropped")
    assert (feed(context).added, feed(context).added) == ({"quarantine": 1}, {})
    assert sorted(queue_of(context)) == [
        "both",
        "u1-1",
        "u1-2",
        *(f"u{a}-{n}" for a in (2, 3, 4) for n in (0, 1)),
        "v1-0",
    ]


def test_an_incident_always_comes_first_of_all(make: Make) -> None:
    context = make(max_open_items=1)
    hold(context, "a", "uncorroborated", "ann")
    feed(context)
    with context.store.write() as conn:
        incidents.insert(
            conn,
            Incident(
                id=new_id(), model=context.model, title="bad", severity="critical", opened_by="ops",
                messages=(Message(role="user", content="How much?"),), answer="All.", required="One.",
                opened_at=utc_now(),
            ),
        )  # fmt: skip
    assert feed(context).added == {"incident": 1}
    with context.store.read() as conn:
        kinds = [item.kind for item in reviews.list_items(conn, context.model)]
        wanted = [item.labels_wanted for item in reviews.list_items(conn, context.model)]
    assert (kinds, wanted) == (["incident", "quarantine"], [2, 1])


def test_samples_are_a_share_capped_per_day_and_never_of_held_out_people(make: Make) -> None:
    context = make(sample_share=0.5, sample_per_day=20)
    for n in range(120):
        serve(context, f"r{n}", f"user-{n}")
    yesterday = utc_now() - timedelta(hours=23)
    for n in range(6):
        serve(context, f"old{n}", f"user-{n}", created_at=yesterday)
    serve(context, "blank", answer="")
    feed(context)
    with context.store.read() as conn:
        items = reviews.list_items(conn, context.model, kinds=("sample",))
        assert review_feeds.sampled_upto(conn, context.model) >= 126
        people = [interactions.get(conn, item.subject) for item in items]
    today = [item for item in items if item.subject.startswith("r")]
    assert 15 <= len(today) <= 20
    assert not any(is_held_out(p.principal, context.config.curation) for p in people if p is not None)
    assert feed(context).added == {}


def test_the_first_pass_on_an_old_store_samples_the_last_day_only(make: Make) -> None:
    context = make(sample_share=1.0)
    for n in range(5):
        serve(context, f"old{n}", f"user-{n}", created_at=utc_now() - timedelta(days=40))
    feed(context)
    assert queue_of(context) == {}


def test_the_watch_feeds_the_queue(make: Make) -> None:
    context = make()
    hold(context, "a", "uncorroborated", "ann")
    result = watch(context, delivery.MemoryScheduler(), PrintObserver(quiet=True))
    assert result is not None
    assert result.review.added == {"quarantine": 1}
    desk = Desk(context.store, context.config, context.state.key)
    task = desk.next("bea", exclude=())
    assert task is not None
    desk.label(task.item, "bea", task.token, ReviewAnswer(verdict="accept"))
    with context.store.read() as conn:
        assert quarantine.statuses(conn, context.model) == {"a": "released"}
