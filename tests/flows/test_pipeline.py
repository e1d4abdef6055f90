"""A retrain that is killed, cancelled or repeated: retried, closed, or found to be the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from configs.errors import RegistryError, WorkerLostError
from data_contracts.records import Arm, Cause, GateDecision, QuarantinedRow, RetrainRequest, utc_now
from flows.context import Context, open_context
from flows.observer import PrintObserver
from flows.pipeline import MAX_CLAIMS, run_retrain
from flows.review_feed import feed
from monitoring.rollout_actions import promote
from registry_hooks.memory import MemoryRegistry
from store import feedback, quarantine, requests, reviews, rollouts, snapshots, steps, versions
from tests.flows.flow_samples import add_corrections, tiny_config

pytestmark = pytest.mark.slow
LENIENT = {
    "anchors": {"kind": "non_inferiority", "margin": 1.0},
    "target": {"kind": "non_inferiority", "margin": 1.0},
    "suites": {"probes": {"kind": "shown"}},
}
ASKED_MORE = {"fragility": ["typo"], "fragility_items": 8, "probes": 1, "probe_prompts": 4}


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    opened = open_context(tiny_config(tmp_path / "state", gate=LENIENT, evaluation=ASKED_MORE, stack={"lease_s": 1.0}))
    opened.__dict__["registry"] = MemoryRegistry()  # the seam's in-memory double, in the place of the cached property
    add_corrections(opened.store, opened.model)
    yield opened
    opened.store.close()


def ask(context: Context) -> str:
    with context.store.write() as conn:
        request, _ = requests.open_or_attach(conn, context.model, Cause(kind="schedule", at=utc_now()))
        requests.set_ready(conn, request.id)
    return request.id


def state(context: Context, request_id: str) -> RetrainRequest:
    with context.store.read() as conn:
        found = requests.get(conn, request_id)
    assert found is not None
    return found


def trainers() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "training.trainer" in " ".join(p.cmdline())]


class AtTraining(PrintObserver):
    """Does something as soon as the trainer shows progress."""

    def __init__(self, action: str) -> None:
        super().__init__(quiet=True)
        self.action = action

    def progress(self, step: str, done: float, total: float, note: str = "") -> None:
        if step != "train":
            return
        if self.action == "kill":
            for process in trainers():
                process.kill()
        else:
            raise KeyboardInterrupt


class Promoter(PrintObserver):
    """Stands in for the gateway's controller: promotes as soon as the canary is asked for."""

    def __init__(self, context: Context) -> None:
        super().__init__(quiet=True)
        self.context = context

    def log(self, message: str) -> None:
        super().log(message)
        if message.startswith("Canary of"):
            promote(self.context.store, self.context.model, "test", "stands in for the controller")


def test_a_killed_trainer_costs_an_attempt_and_not_the_retrain(context: Context) -> None:
    request_id = ask(context)
    with pytest.raises(WorkerLostError, match="signal 9"):
        run_retrain(context, request_id, AtTraining("kill"))
    assert (state(context, request_id).status, state(context, request_id).attempt) == ("claimed", 1)
    time.sleep(1.1)
    assert run_retrain(context, request_id, Promoter(context)) == "promoted"


def test_a_cancelled_retrain_is_closed_and_its_trainer_ended(context: Context) -> None:
    request_id = ask(context)
    with pytest.raises(KeyboardInterrupt):
        run_retrain(context, request_id, AtTraining("cancel"), cancelled=lambda: True)
    assert (state(context, request_id).status, trainers()) == ("cancelled", [])


def test_rows_held_earlier_that_teach_now_leave_quarantine_and_review(context: Context) -> None:
    with context.store.write() as conn:
        rows = [row.id for row in feedback.labelled(conn, context.model)]
        held = [QuarantinedRow(row_id=row, digest="d" * 64, reason="uncorroborated") for row in rows]
        quarantine.put(conn, context.model, held, None)
    assert feed(context).added["quarantine"] == len(rows)
    with pytest.raises(KeyboardInterrupt):
        run_retrain(context, ask(context), AtTraining("stop"))
    with context.store.read() as conn:
        still = quarantine.statuses(conn, context.model)
        asked = {s for _, kind, s in reviews.open_subjects(conn, context.model) if kind == "quarantine"}
        teaching = snapshots.latest(conn, context.model)
    assert teaching is not None
    assert teaching.row_ids
    assert not still.keys() & set(teaching.row_ids)
    assert asked <= still.keys()


def test_a_stopped_machine_hands_the_retrain_on(context: Context) -> None:
    request_id = ask(context)
    with pytest.raises(KeyboardInterrupt):
        run_retrain(context, request_id, AtTraining("stop"))
    time.sleep(0.01)
    with context.store.read() as conn:
        assert requests.expired(conn, context.model) is not None


def test_the_same_rows_again_make_no_second_version_and_no_second_canary(context: Context) -> None:
    assert run_retrain(context, ask(context), Promoter(context)) == "promoted"
    assert run_retrain(context, ask(context), Promoter(context)) == "unchanged"
    with context.store.read() as conn:
        assert len(versions.list_versions(conn, context.model)) == 1
        assert len(rollouts.list_rollouts(conn, context.model)) == 1
        first = requests.list_requests(conn, context.model)[-1]
        pinned, judged = (steps.get(conn, first.id, name) for name in ("pin_best", "gate"))
    assert pinned is not None
    assert pinned.output == Arm().model_dump(mode="json"), "nothing was accepted before"
    assert judged is not None
    assert judged.output is not None
    decision = GateDecision.model_validate(judged.output["decision"])
    assert {v.suite: v.verdict for v in decision.suites} == {
        "target": "pass", "anchors": "pass", "fragility": "shown", "probes": "shown",
    }  # fmt: skip
    assert {f.measure for f in decision.findings} == {"log_likelihood", "negative_flips", "fragility"}
    html = Path(judged.output["report"]).read_text(encoding="utf-8")
    assert "hangs on the wording" in html
    assert "Negative flips" in html


def test_a_registry_that_is_away_is_tried_again_later(context: Context) -> None:
    class Away(MemoryRegistry):
        def register(self, version_request: object) -> None:  # type: ignore[override]
            raise RegistryError("the registry does not answer")

    request_id = ask(context)
    context.__dict__["registry"] = Away()
    with pytest.raises(RegistryError):
        run_retrain(context, request_id, PrintObserver(quiet=True))
    assert state(context, request_id).status == "claimed"
    time.sleep(1.1)
    context.__dict__["registry"] = MemoryRegistry()
    assert run_retrain(context, request_id, Promoter(context)) == "promoted"


def test_a_retrain_whose_process_dies_each_time_is_given_up(context: Context) -> None:
    request_id = ask(context)
    for _ in range(MAX_CLAIMS):
        with context.store.write() as conn:
            assert requests.claim(conn, request_id, "dies", 0.0) is not None
        time.sleep(0.002)
    assert run_retrain(context, request_id, PrintObserver(quiet=True)) == "error"
    assert state(context, request_id).status == "failed"
