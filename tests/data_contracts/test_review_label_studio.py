"""Items out, labels back: the same contract for the in-memory double and for a server over HTTP; files too."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_studio_server import LEGACY, PERSONAL, State, serving

from configs.errors import ConfigError, InputError, NotFoundError, UnavailableError
from configs.loader import load_config, resource_path
from data_contracts.ids import new_id
from data_contracts.records import Incident, Message, ReviewAnswer, ReviewItem, ReviewPayload, utc_now
from data_contracts.review.desk import Desk
from data_contracts.review.exchange import BORROWER, exported, pull, push, push_file, tidy
from data_contracts.review.guidelines import load_guidelines
from data_contracts.review.items import incident_item
from data_contracts.review.label_studio import (
    KEY,
    LabelStudio,
    MemoryLabelStudio,
    page_config,
    parse_export,
    read_export,
    results,
)
from data_contracts.review.label_studio_http import TOKEN_VARIABLE, HttpLabelStudio
from store import audit, incidents, review_leases, reviews
from store.engine import Store

MODEL = "support-bot"
ACCEPT = ReviewAnswer(verdict="accept")
REJECT = ReviewAnswer(verdict="reject")
PAGE = page_config(load_guidelines(resource_path("review/guidelines.yaml")))


class Pair:
    """A seam under test and the memory behind it, where people annotate."""

    def __init__(self, studio: LabelStudio, behind: MemoryLabelStudio) -> None:
        self.studio, self.behind = studio, behind


@pytest.fixture(params=["memory", "http-legacy", "http-personal"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    if request.param == "memory":
        memory = MemoryLabelStudio()
        yield Pair(memory, memory)
        return
    state = State()
    with ExitStack() as stack:
        url = stack.enter_context(serving(state))
        client = HttpLabelStudio(url, LEGACY if request.param == "http-legacy" else PERSONAL)
        stack.callback(client.close)
        yield Pair(client, state.studio)


# --- the seam's contract -------------------------------------------------------------------------


def test_a_project_is_found_by_its_title(pair: Pair) -> None:
    assert pair.studio.find("Project 2") is None
    many = [pair.studio.create(f"Project {n}", PAGE, n + 1) for n in range(4)]
    assert len(set(many)) == 4
    assert pair.studio.find("Project 2") == many[2]
    made = pair.behind.projects[many[2] - 1]
    assert (made["label_config"], made["maximum_annotations"]) == (PAGE, 3)


def test_projects_beyond_the_first_page_are_found(pair: Pair) -> None:
    pair.behind.projects.extend({"title": f"p{n}", "label_config": PAGE, "tasks": []} for n in range(230))
    assert pair.studio.find("p229") == 230


def test_only_annotated_tasks_come_back_with_what_went_out(pair: Pair) -> None:
    project = pair.studio.create("t", PAGE, 1)
    text = "line 1\nline 2 <b>&amp; \u202e \U0001f44d"
    tasks = [{"data": {KEY: f"rv-{n}", "conversation": text}} for n in range(3)]
    assert pair.studio.import_tasks(project, tasks) == 3
    assert pair.studio.export(project) == []
    pair.behind.annotate(project, "rv-1", 7, ReviewAnswer(verdict="correct", text="It is.\nSo.", note="n"))
    (task,) = pair.studio.export(project)
    assert task["data"] == {KEY: "rv-1", "conversation": text}
    ((one,), errors) = parse_export([task])
    assert errors == []
    assert (one.item, one.user, one.answer.text, one.answer.note) == ("rv-1", 7, "It is.\nSo.", "n")


def test_tasks_are_named_by_their_items_and_removed(pair: Pair) -> None:
    one, other = pair.studio.create("t", PAGE, 1), pair.studio.create("u", PAGE, 1)
    pair.studio.import_tasks(one, [{"data": {KEY: f"rv-{n}"}} for n in range(130)])
    pair.studio.import_tasks(one, [{"data": {"text": "somebody else's"}}])
    pair.studio.import_tasks(other, [{"data": {KEY: "rv-x"}}])
    there = pair.studio.items(one)
    assert set(there.values()) == {f"rv-{n}" for n in range(130)}
    some = [task for task, item in there.items() if item in ("rv-3", "rv-129")]
    assert pair.studio.remove(some) == 2
    assert set(pair.studio.items(one).values()) == {f"rv-{n}" for n in range(130)} - {"rv-3", "rv-129"}
    assert list(pair.studio.items(other).values()) == ["rv-x"]


def test_a_project_that_is_not_there_is_an_input_error(pair: Pair) -> None:
    with pytest.raises(InputError):
        pair.studio.export(99)
    with pytest.raises(InputError):
        pair.studio.import_tasks(99, [{"data": {}}])


# --- the HTTP client alone -----------------------------------------------------------------------


def test_without_a_token_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=TOKEN_VARIABLE):
        HttpLabelStudio("http://127.0.0.1:9")


@pytest.mark.parametrize("token", ["wrong", "a.wrong.one"])
def test_a_wrong_token_is_refused_and_never_shown(token: str) -> None:
    with serving(State()) as url:
        client = HttpLabelStudio(url, token)
        with pytest.raises(InputError) as raised:
            client.find("t")
        client.close()
    assert token not in str(raised.value)
    assert "401" in str(raised.value)


@pytest.mark.parametrize(("status", "error"), [(500, UnavailableError), (200, InputError), (302, InputError)])
def test_a_server_that_fails_is_one_clear_error(status: int, error: type[Exception]) -> None:
    state = State()
    state.status = status
    with serving(state) as url:
        client = HttpLabelStudio(url, LEGACY)
        with pytest.raises(error):
            client.find("t")
        client.close()
    assert len(state.requests) == 1  # a redirect is not followed: it could carry the token away


def test_no_server_is_unavailable() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    client = HttpLabelStudio(f"http://127.0.0.1:{port}", LEGACY)
    with pytest.raises(UnavailableError):
        client.export(1)
    client.close()


# --- the page and the tasks ----------------------------------------------------------------------


def test_the_page_is_xml_that_shows_user_text_as_text_only() -> None:
    page = ElementTree.fromstring(PAGE)  # noqa: S314 - our own text
    assert {tag.tag for tag in page.iter()} == {"View", "Header", "Text", "Choices", "Choice", "TextArea"}
    variables = {tag.get("value") for tag in page.iter() if (tag.get("value") or "").startswith("$")}
    assert variables == {"$heading", "$guideline", "$conversation", "$answer", "$proposed", "$options"}
    assert all(tag.tag == "Text" for tag in page.iter() if (tag.get("value") or "") in variables - {"$heading"})
    verdicts = next(tag for tag in page.iter("Choices") if tag.get("name") == "verdict")
    assert [choice.get("value") for choice in verdicts] == ["accept", "reject", "correct"]


# --- push and pull -------------------------------------------------------------------------------


def desk_of(store: Store, **review: Any) -> Desk:
    return Desk(store, load_config("default", {"review": {"gold_share": 0.0, **review}}), b"k" * 32)


def queue(store: Store, n: int, *, wanted: int = 1, people: tuple[str, ...] = (), kind: str = "sample") -> list[str]:
    ids = []
    with store.write() as conn:
        for place in range(n):
            item = ReviewItem.model_validate(
                {
                    "id": reviews.new_item_id(), "model": MODEL, "kind": kind, "subject": f"{kind}-{place}-{new_id()}",
                    "payload": ReviewPayload(messages=(Message(role="user", content=f"What is {place}?"),)),
                    "guideline": "sample", "labels_wanted": wanted, "created_at": utc_now(),
                    "gold_expected": REJECT if kind == "gold" else None,
                }
            )  # fmt: skip
            assert reviews.add(conn, item, people=people)
            ids.append(item.id)
    return ids


def state_of(store: Store, id: str) -> str:
    with store.read() as conn:
        return reviews.get(conn, id).status


def test_pushed_items_are_lent_and_come_back_labelled_once(store: Store, pair: Pair) -> None:
    desk = desk_of(store)
    ids = queue(store, 3)
    projects, pushed = push(desk, pair.studio, "Tidemill", "ops", limit=2)
    (project,) = projects.values()
    assert len(pushed.items) == 2
    left = desk.next("bea")
    assert left is not None
    assert {left.item, *pushed.items} == set(ids)
    assert desk.next("cem") is None
    assert push(desk, pair.studio, "Tidemill", "ops", limit=10)[1].items == ()
    pair.behind.annotate(project, pushed.items[0], 1, ACCEPT)
    report = pull(desk, exported(pair.studio, "Tidemill"), "ops", names={1: "bea"})
    assert (report.recorded, report.repeated, report.refused) == (1, 0, ())
    assert state_of(store, pushed.items[0]) == "done"
    report = pull(desk, exported(pair.studio, "Tidemill"), "ops", names={1: "bea"})
    assert (report.recorded, report.repeated, report.refused) == (0, 1, ())
    with store.read() as conn:
        assert [label.labeller for label in reviews.labels_of(conn, pushed.items[0])] == ["bea"]
        assert [e.action for e in audit.entries(conn)].count("review.labelled") == 1
        held = {lease.item: lease.labeller for lease in review_leases.live_leases(conn, MODEL)}
    assert held == {pushed.items[1]: BORROWER, left.item: "bea"}


def test_two_annotators_settle_or_go_to_an_adjudicator_here(sqlite_store: Store) -> None:
    desk, studio = desk_of(sqlite_store), MemoryLabelStudio()
    agreed, split = queue(sqlite_store, 2, wanted=2)
    projects, _ = push(desk, studio, "t", "ops", limit=10)
    (project,) = projects.values()
    for item, users in ((agreed, (ACCEPT, ACCEPT)), (split, (ACCEPT, REJECT))):
        studio.annotate(project, item, 1, users[0])
        assert pull(desk, studio.export(project), "ops").recorded == 1
        assert state_of(sqlite_store, item) == "labelled"
        assert desk.next("bea") is None  # still lent, for the second label
        studio.annotate(project, item, 2, users[1])
        assert pull(desk, studio.export(project), "ops").recorded == 1
    assert (state_of(sqlite_store, agreed), state_of(sqlite_store, split)) == ("done", "adjudicate")
    with sqlite_store.read() as conn:
        assert {label.labeller for label in reviews.labels_of(conn, split)} == {"label-studio:1", "label-studio:2"}
    task = desk.next("bea", role="adjudicate")
    assert task is not None
    assert task.item == split


def test_the_rules_of_the_queue_hold_for_annotators_too(sqlite_store: Store) -> None:
    desk, studio = desk_of(sqlite_store, labellers=["bea", "cem", "ann"]), MemoryLabelStudio()
    (hers,) = queue(sqlite_store, 1, people=("ann",))
    (withdrawn,) = queue(sqlite_store, 1)
    projects, _ = push(desk, studio, "t", "ops", limit=10)
    (project,) = projects.values()
    names = {1: "ann", 2: "bea", 3: "cem"}
    studio.annotate(project, hers, 1, ACCEPT)  # her own words
    studio.annotate(project, hers, 9, ACCEPT)  # not on the list of labellers
    studio.annotate(project, hers, 2, ReviewAnswer(verdict="correct"))  # without the right answer
    studio.annotate(project, withdrawn, 3, ACCEPT)
    desk.withdraw([withdrawn], "ops")
    report = pull(desk, studio.export(project), "ops", names=names)
    assert report.recorded == 0
    assert len(report.refused) == 4
    assert (state_of(sqlite_store, hers), state_of(sqlite_store, withdrawn)) == ("open", "withdrawn")
    assert desk.next("cem") is None  # still with Label Studio
    studio.annotate(project, hers, 2, ACCEPT)  # a second annotation of one person: the last counts
    assert pull(desk, studio.export(project), "ops", names=names).recorded == 1


def test_items_for_two_have_a_project_for_two(sqlite_store: Store) -> None:
    desk, studio = desk_of(sqlite_store), MemoryLabelStudio()
    (single,) = queue(sqlite_store, 1)
    (double,) = queue(sqlite_store, 1, wanted=2)
    projects, _ = push(desk, studio, "t", "ops", limit=10)
    made = {p["title"]: p["maximum_annotations"] for p in studio.projects}
    assert made == {"t": 1, "t, 2 labels each": 2}
    studio.annotate(projects["t"], single, 1, ACCEPT)
    studio.annotate(projects["t, 2 labels each"], double, 1, ACCEPT)
    assert pull(desk, exported(studio, "t"), "ops").recorded == 2
    with pytest.raises(NotFoundError):
        exported(studio, "never pushed")


def test_what_is_settled_or_erased_leaves_the_server(store: Store, pair: Pair) -> None:
    desk = desk_of(store)
    (done,), (waits,), (hers,) = queue(store, 1), queue(store, 1), queue(store, 1, people=("ann",))
    projects, _ = push(desk, pair.studio, "t", "ops", limit=10)
    pair.behind.annotate(projects["t"], done, 1, ACCEPT)
    assert tidy(desk, pair.studio, "t", "ops") == 0
    pull(desk, exported(pair.studio, "t"), "ops")
    with store.write() as conn:
        assert reviews.erase(conn, [], ["ann"]) == 1
    assert tidy(desk, pair.studio, "t", "ops") == 2
    assert list(pair.studio.items(projects["t"]).values()) == [waits]
    assert hers not in str(pair.behind.projects)


def test_changing_an_answer_that_was_recorded_is_refused(sqlite_store: Store) -> None:
    desk, studio = desk_of(sqlite_store), MemoryLabelStudio()
    (one,) = queue(sqlite_store, 1)
    projects, _ = push(desk, studio, "t", "ops", limit=10)
    (project,) = projects.values()
    studio.annotate(project, one, 1, ACCEPT)
    pull(desk, studio.export(project), "ops")
    studio.annotate(project, one, 1, REJECT)
    report = pull(desk, studio.export(project), "ops")
    assert (report.recorded, len(report.refused)) == (0, 1)


def test_gold_goes_along_unmarked_and_stays(sqlite_store: Store) -> None:
    desk, studio = desk_of(sqlite_store, gold_share=0.5), MemoryLabelStudio()
    queue(sqlite_store, 4)
    golds = queue(sqlite_store, 5, kind="gold")
    projects, pushed = push(desk, studio, "t", "ops", limit=10)
    (project,) = projects.values()
    sent = [id for id in pushed.items if id in golds]
    assert (len(pushed.items), len(sent)) == (6, 2)
    assert "gold" not in json.dumps(pushed.tasks)
    studio.annotate(project, sent[0], 1, ACCEPT)
    assert pull(desk, studio.export(project), "ops").recorded == 1
    assert state_of(sqlite_store, sent[0]) == "open"
    with sqlite_store.read() as conn:
        assert not [lease for lease in review_leases.live_leases(conn, MODEL) if lease.item in golds]


def test_an_incident_comes_back_with_severity_and_root_cause(sqlite_store: Store) -> None:
    desk, studio = desk_of(sqlite_store), MemoryLabelStudio()
    incident = Incident(
        id=new_id(), model=MODEL, title="dose", messages=(Message(role="user", content="How much?"),), answer="All.",
        required="One.", opened_at=utc_now(), opened_by="ops",
    )  # fmt: skip
    made = incident_item(incident, desk.config.review)
    with sqlite_store.write() as conn:
        incidents.insert(conn, incident)
        reviews.add(conn, made.item, people=made.people, about=made.about)
    projects, pushed = push(desk, studio, "t", "ops", limit=1)
    (project,) = projects.values()
    assert "[incident high]" in pushed.tasks[0]["data"]["conversation"]
    said = ReviewAnswer(verdict="correct", text="Two.", severity="critical", root_cause="unsafe")
    for user in (1, 2):
        studio.annotate(project, made.item.id, user, said)
    assert pull(desk, studio.export(project), "ops").recorded == 2
    with sqlite_store.read() as conn:
        (found,) = incidents.all(conn, MODEL)
    assert (found.required, found.severity, found.root_cause) == ("Two.", "critical", "unsafe")


def test_a_push_that_fails_lends_nothing(sqlite_store: Store, tmp_path: Path) -> None:
    desk = desk_of(sqlite_store)
    queue(sqlite_store, 2)
    state = State()
    state.status = 500
    with serving(state) as url:
        client = HttpLabelStudio(url, LEGACY)
        with pytest.raises(UnavailableError):
            push(desk, client, "t", "ops", limit=10)
        client.close()
    (tmp_path / "file").touch()
    with pytest.raises(InputError):
        push_file(desk, tmp_path / "file" / "tasks.json", "ops", limit=10)
    with sqlite_store.read() as conn:
        assert review_leases.live_leases(conn, MODEL) == []
    for act in (
        lambda: push(desk, MemoryLabelStudio(), "t", " ", limit=1),
        lambda: push_file(desk, tmp_path / "t.json", "", limit=1),
        lambda: pull(desk, [], ""),
    ):
        with pytest.raises(InputError, match="name"):
            act()


def test_files_go_out_and_come_back(sqlite_store: Store, tmp_path: Path) -> None:
    desk = desk_of(sqlite_store)
    (one,) = queue(sqlite_store, 1)
    path = tmp_path / "out" / "tasks.json"
    push_file(desk, path, "ops", limit=10)
    assert path.with_suffix(".xml").read_text() == PAGE
    tasks = json.loads(path.read_text())
    user = {"id": 3, "email": "bea@example.com", "first_name": "Bea"}
    annotation = {"id": 5, "completed_by": user, "was_cancelled": False, "result": results(ACCEPT), "lead_time": 3.1}
    path.write_text(json.dumps([{**tasks[0], "id": 1, "annotations": [annotation], "project": 1}]))
    assert pull(desk, read_export(path), "ops").recorded == 1
    with sqlite_store.read() as conn:
        (label,) = reviews.labels_of(conn, one)
        assert label.labeller == "label-studio:3"  # no e-mail address gets into the store


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff\xfe", b"[" * 200_000, b'"x"', b"null"])
def test_a_file_that_is_no_export_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError) as raised:
        read_export(tmp_path / "x.json")
    assert raised.value.where == str(tmp_path / "x.json")


def bad(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    annotation = {"id": 1, "completed_by": 1, "result": results(ACCEPT)}
    task: dict[str, Any] = {"data": {KEY: "rv-1"}, "annotations": [annotation]}
    change(task)
    return task


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("data"),
        lambda t: t["data"].clear(),
        lambda t: t["data"].update({KEY: 7}),
        lambda t: t["annotations"][0].update(result=[]),
        lambda t: t["annotations"][0].update(result=[{"from_name": "verdict", "value": {"choices": ["maybe"]}}]),
        lambda t: t["annotations"][0].update(completed_by=None),
        lambda t: t["annotations"][0].update(completed_by="bea"),
        lambda t: t["annotations"][0].update(result="x"),
        lambda t: t.update(annotations=7),
    ],
)
def test_a_bad_annotation_is_named_and_the_good_ones_are_kept(change: Callable[[dict[str, Any]], Any]) -> None:
    found, errors = parse_export([bad(change), bad(lambda _: None)])
    assert len(found) == 1
    assert len(errors) == 1
    assert errors[0].startswith("task 0")


def test_skipped_and_superfluous_parts_say_nothing() -> None:
    skipped = bad(lambda t: t["annotations"][0].update(was_cancelled=True))
    chatty = bad(lambda t: t["annotations"][0]["result"].extend(results(ReviewAnswer(verdict="correct", text="x"))[1:]))
    found, errors = parse_export([skipped, chatty])
    assert errors == []
    assert [one.answer for one in found] == [ACCEPT]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["data", KEY, "annotations", "result", "value", "choices", "completed_by", "from_name"]),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(JSON, max_size=4))
def test_no_json_makes_it_crash(tasks: list[Any]) -> None:
    found, errors = parse_export(tasks)
    assert len(found) + len(errors) <= sum(1 + len(str(task)) for task in tasks)
