"""A real MLflow server's traces and assessments: late, changed, overridden, a machine's; and no server at all."""

from __future__ import annotations

import json
import time
import uuid
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from source_samples import KEY, MODEL, read_all

from configs.errors import InputError, SourceError
from data_contracts.ids import new_request_id
from data_contracts.sources.base import Cursor
from data_contracts.sources.export import stored
from data_contracts.sources.ingest import ingest
from data_contracts.sources.mlflow_traces import MlflowSource, answer_of, prompt_of
from store.engine import Store

ASK = {"messages": [{"role": "user", "content": "When do you open?"}]}
SAY = {"choices": [{"message": {"role": "assistant", "content": "At ten."}}]}


class Shop:
    """An application that traces with MLflow, and the people who assess its answers."""

    def __init__(self, uri: str) -> None:
        import mlflow

        self.mlflow = mlflow
        self.uri = uri
        self.experiment = f"shop-{uuid.uuid4().hex[:8]}"
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(self.experiment)

    def trace(self, inputs: Any = ASK, outputs: Any = SAY, **about: Any) -> str:
        with self.mlflow.start_span(name="chat") as span:
            span.set_inputs(inputs)
            span.set_outputs(outputs)
            if about:
                self.mlflow.update_current_trace(**about)
        self.mlflow.flush_trace_async_logging()
        return str(span.trace_id)

    def say(
        self, trace: str, name: str, value: Any, by: str = "ann", kind: str = "HUMAN", why: str | None = None
    ) -> Any:
        source = self.mlflow.entities.AssessmentSource(source_type=kind, source_id=by)
        return self.mlflow.log_feedback(trace_id=trace, name=name, value=value, source=source, rationale=why)

    def expect(self, trace: str, value: str, by: str = "ann") -> None:
        source = self.mlflow.entities.AssessmentSource(source_type="HUMAN", source_id=by)
        self.mlflow.log_expectation(trace_id=trace, name="expected_response", value=value, source=source)

    def source(self, **settings: Any) -> MlflowSource:
        return MlflowSource(self.uri, self.experiment, **settings)


@pytest.fixture
def shop(mlflow_server: str) -> Iterator[Shop]:
    # MLflow's tracer warns when it starts, and traces nothing if a warning is an error.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield Shop(mlflow_server)


def said(source: MlflowSource, cursor: Cursor | None = None) -> tuple[list[tuple[Any, ...]], list[str], Cursor]:
    rows, errors, after = read_all(source, cursor)
    values = ("feedback_thumb", "feedback_rating", "feedback_text")
    found = [(row["feedback_kind"], next(row[v] for v in values if row[v]), row["feedback_principal"]) for row in rows]
    return sorted(found, key=str), [str(e) for e in errors], json.loads(json.dumps(after))


def test_traces_with_assessments_become_rows(shop: Shop, sqlite_store: Store) -> None:
    ours = new_request_id(KEY, MODEL)
    trace = shop.trace(client_request_id=ours, metadata={"mlflow.trace.user": "eve", "mlflow.trace.session": "s1"})
    shop.say(trace, "thumbs", False, why="We open at nine.")
    shop.expect(trace, "At nine.", by="bob")
    shop.say(trace, "rating", 2)
    shop.say(trace, "user_comment", "Rude!")
    shop.say(trace, "correctness", 0.1, by="judge", kind="LLM_JUDGE")
    shop.say(trace, "thumbs", True, by="check", kind="CODE")
    shop.trace()  # nobody said anything of it
    found, errors, cursor = said(shop.source())
    assert errors == []
    assert found == [
        ("comment", "Rude!", "ann"), ("comment", "We open at nine.", "ann"), ("correction", "At nine.", "bob"),
        ("rating", 2, "ann"), ("thumb", -1, "ann"),
    ]  # fmt: skip
    assert said(shop.source(), cursor)[:2] == ([], [])
    skipped = [batch.skipped for batch in shop.source().read()]
    assert skipped[0] == {"mlflow: not a person's": 1, "mlflow: an assessment of another name": 1}
    report = ingest(sqlite_store, MODEL, KEY, shop.source())
    assert (report.interactions, report.feedback, report.kinds["comment"]) == (1, 5, 2)
    ((served, _),) = stored(sqlite_store, MODEL)
    assert (served.id, served.principal, served.conversation, served.answer) == (ours, "eve", "s1", "At ten.")
    assert [m.content for m in served.messages] == ["When do you open?"]
    assert ingest(sqlite_store, MODEL, KEY, shop.source()).feedback == 0


def test_an_assessment_long_after_its_trace_is_read_exactly_once(shop: Shop) -> None:
    first, second = shop.trace(), shop.trace()
    shop.say(second, "thumbs", True)
    found, _, cursor = said(shop.source())
    assert found == [("thumb", 1, "ann")]
    shop.say(first, "thumbs", False)  # the older trace, after the newer one was read
    shop.say(second, "thumbs", False, by="bob")
    found, _, cursor = said(shop.source(), cursor)
    assert found == [("thumb", -1, "ann"), ("thumb", -1, "bob")]
    assert said(shop.source(), cursor)[0] == []


def test_older_than_the_window_waits_for_the_sweep_and_is_not_lost(shop: Shop) -> None:
    trace = shop.trace()
    _, _, cursor = said(shop.source())
    time.sleep(0.05)
    narrow = {"lookback_days": 1e-7}  # 9 ms
    shop.say(trace, "thumbs", False)
    found, _, cursor = said(shop.source(**narrow), cursor)
    assert found == []
    found, _, cursor = said(shop.source(**narrow, sweep_every_s=0.0), cursor)
    assert found == [("thumb", -1, "ann")]
    assert said(shop.source(**narrow, sweep_every_s=0.0), cursor)[0] == []


def test_a_changed_assessment_is_a_new_one_and_an_overridden_one_is_none(shop: Shop) -> None:
    trace = shop.trace()
    thumb = shop.say(trace, "thumbs", False)
    _, _, cursor = said(shop.source())
    new = shop.mlflow.entities.Feedback(name="thumbs", value=True, source=thumb.source)
    shop.mlflow.update_assessment(trace_id=trace, assessment_id=thumb.assessment_id, assessment=new)
    found, _, cursor = said(shop.source(), cursor)
    assert found == [("thumb", 1, "ann")]
    shop.mlflow.override_feedback(trace_id=trace, assessment_id=thumb.assessment_id, value=False, source=thumb.source)
    found, _, _ = said(shop.source(), cursor)
    assert found == [("thumb", -1, "ann")]


def test_a_crash_after_any_page_loses_nothing(shop: Shop) -> None:
    for n in range(5):
        shop.say(shop.trace(), "thumbs", True, by=f"user-{n}")
    batches = list(shop.source(page=2).read())
    assert [batch.rows.num_rows for batch in batches] == [2, 2, 1, 0]
    assert "sweep" not in batches[-1].cursor
    for n, batch in enumerate(batches):
        rest, _, _ = said(shop.source(), batch.cursor)
        assert len(rest) == sum(b.rows.num_rows for b in batches[n + 1 :])


def test_a_sweep_that_is_stopped_goes_on_where_it_was(shop: Shop) -> None:
    traces = [shop.trace() for _ in range(6)]
    _, _, cursor = said(shop.source())
    for n, trace in enumerate(traces):
        shop.say(trace, "thumbs", True, by=f"user-{n}")
    found: list[Any] = []
    settings = {"page": 2, "lookback_days": 1e-7, "sweep_every_s": 0.0}
    places = []
    for _ in range(5):  # a page begins with the last trace of the one before
        batch = next(iter(shop.source(**settings).read(cursor)))  # the reader has time for one batch only
        cursor = json.loads(json.dumps(batch.cursor))
        places.append(cursor["sweep"][2])
        found += [row["feedback_principal"] for row in batch.rows.to_pylist()]
    assert sorted(found) == [f"user-{n}" for n in range(6)]
    assert places == sorted(places)
    assert places[0] < places[-1]


def test_traces_that_say_nothing_usable_are_named_once(shop: Shop) -> None:
    for inputs, outputs in [({"n": 1}, SAY), (ASK, {"n": 1}), ({"messages": [{"role": "tool", "content": "x"}]}, SAY)]:
        shop.say(shop.trace(inputs, outputs), "thumbs", True)
    shop.say(shop.trace("Where are you?", "In Ulm."), "thumbs", "thumbs up")
    found, errors, cursor = said(shop.source())
    assert found == [("thumb", 1, "ann")]
    assert len(errors) == 3
    assert all("trace tr-" in error for error in errors)
    assert sorted(error.split("`")[1] for error in errors) == ["inputs", "inputs.0.role", "outputs"]
    assert said(shop.source(), cursor)[:2] == ([], [])


def test_names_of_ones_own(shop: Shop) -> None:
    shop.say(shop.trace(), "Was it right?", "no")
    assert said(shop.source())[0] == []
    assert said(shop.source(names={"Was it right?": "thumb"}))[0] == [("thumb", -1, "ann")]


def test_a_server_that_is_down_or_an_unknown_experiment_is_said(mlflow_server: str) -> None:
    with pytest.raises(SourceError, match="cannot be read now"):
        list(MlflowSource("http://user:secret@127.0.0.1:9", "shop").read())
    with pytest.raises(SourceError, match="no such MLflow experiment"):
        list(MlflowSource(mlflow_server, "nobody's").read())
    assert "secret" not in MlflowSource("http://user:secret@127.0.0.1:9", "shop").name


@pytest.mark.parametrize(
    "inputs",
    [
        "q", {"question": "q"}, {"messages": "q"}, {"request": {"messages": [{"role": "user", "content": "q"}]}},
        {"messages": [{"type": "human", "content": "q"}]},
        [{"role": "user", "content": [{"type": "text", "text": "q"}]}],
        {"self": 1, "request": {"messages": [{"role": "user", "content": "q"}]}}, {"x": "q"}, {"input": "q", "k": 3},
    ],
)  # fmt: skip
def test_questions_as_libraries_trace_them(inputs: Any) -> None:
    assert prompt_of(inputs) == [{"role": "user", "content": "q"}]


@pytest.mark.parametrize(
    "outputs",
    [
        "a", {"content": "a"}, {"content": [{"type": "text", "text": "a"}]}, {"answer": "a", "sources": []}, {"x": "a"},
        {"choices": [{"message": {"content": "a"}, "index": 0}]}, {"messages": [{"content": "b"}, {"content": "a"}]},
        [{"role": "assistant", "content": "a"}],
    ],
)  # fmt: skip
def test_answers_as_libraries_trace_them(outputs: Any) -> None:
    assert answer_of(outputs) == "a"


@pytest.mark.parametrize("bad", [None, 3, [], {}, {"a": 1, "b": 2}, [[[]]], {"a": {"a": {"a": 1}}}])
def test_what_is_neither_is_an_error(bad: Any) -> None:
    for extract in (prompt_of, answer_of):
        with pytest.raises(InputError):
            extract(bad)
    bomb: Any = "x"
    for _ in range(5000):
        bomb = {"message": bomb}
    for extract in (prompt_of, answer_of):
        with pytest.raises(InputError):
            extract(bomb)
