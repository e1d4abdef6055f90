"""SIGKILL at every step: the next attempt goes on from the last proved step and makes no second model version."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from data_contracts.records import Cause, EvalReport, ModelVersion, utc_now
from evaluation.choice import ScaleChoice
from evaluation.suites import item_digest
from flows.context import Context, open_context, write_resolved
from flows.observer import PrintObserver
from flows.pipeline import run_retrain
from flows.suites import anchor_suites
from models.adapters import read_manifest
from monitoring.rollout_actions import promote
from registry_hooks.lineage import lineage_of_version
from store import audit, pointer, requests, rollouts, steps, versions
from tests.flows.flow_samples import add_corrections, tiny_config

STEPS = [
    "ingest", "validate", "snapshot", "track", "train", "pin_champion", "sweep", "evaluate", "gate", "register",
    "begin_rollout", "await_rollout",
]  # fmt: skip


def ask(context: Context) -> str:
    with context.store.write() as conn:
        request, _ = requests.open_or_attach(conn, context.model, Cause(kind="schedule", at=utc_now()))
        requests.set_ready(conn, request.id)
    return request.id


def spawn(config_path: Path, request_id: str) -> subprocess.Popen[str]:
    with (config_path.parent / "retrain.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.flows.retrain_child", str(config_path), request_id],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


def wait_for(child: subprocess.Popen[str], log: Path, seen: Callable[[], bool], limit_s: float = 120) -> None:
    deadline = time.monotonic() + limit_s
    while not seen():
        assert child.poll() is None, f"the retrain ended first: {log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, "the retrain did not get there"
        time.sleep(0.005)


def kill(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


def statuses(context: Context, request_id: str) -> dict[str, tuple[str, int]]:
    with context.store.read() as conn:
        return {s.name: (s.status, s.token) for s in steps.list_steps(conn, request_id)}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.stack
@pytest.mark.timeout(600)
def test_killed_at_every_step_a_retrain_still_makes_one_version(tmp_path: Path, mlflow_server: str) -> None:
    config = tiny_config(
        tmp_path / "state",
        model={"name": "killed-bot"},
        registry={"uri": mlflow_server},
        evaluation={"scales": [0.5, 1.0]},
        gate={
            "anchors": {"kind": "non_inferiority", "margin": 1.0},
            "target": {"kind": "non_inferiority", "margin": 1.0},
        },
    )
    path = write_resolved(config)
    context = open_context(config)
    add_corrections(context.store, context.model)
    request_id = ask(context)
    proved: dict[str, int] = {}
    for name in STEPS:
        child = spawn(path, request_id)
        wait_for(child, path.parent / "retrain.log", lambda name=name: name in statuses(context, request_id))  # type: ignore[misc]
        kill(child)
        for step, (status, token) in statuses(context, request_id).items():
            if status == "done":
                assert proved.setdefault(step, token) == token, f"{step} was done twice"
        time.sleep(config.stack.lease_s + 0.2)
    with context.store.read() as conn:
        assert rollouts.current(conn, context.model) is not None
    promote(context.store, context.model, "test", "stands in for the gateway's controller")
    child = spawn(path, request_id)
    out, _ = child.communicate(timeout=120)
    assert out.strip() == "promoted"

    with context.store.read() as conn:
        request = requests.get(conn, request_id)
        assert request is not None
        assert (request.status, request.outcome) == ("done", "promoted")
        made = versions.list_versions(conn, context.model)
        assert [v.number for v in made] == [1]
        assert pointer.get(conn, context.model).champion.version == made[0].name
        assert audit.verify(conn) > 0
    assert [v.number for v in context.registry.versions(context.model)] == [1]
    assert len(list(context.state.snapshots.glob("[0-9a-f]*"))) == 1
    assert len(list(context.state.adapters.glob("[0-9a-f]*"))) == 2, "as trained, and at half the strength"
    the_chosen_strength_is_what_serves(context, request_id, made[0])
    # The same rows again train the same weights, and the same strength of them is chosen.
    assert run_retrain(context, ask(context), PrintObserver(quiet=True)) == "unchanged"
    with context.store.read() as conn:
        assert len(versions.list_versions(conn, context.model)) == 1
    context.store.close()


def the_chosen_strength_is_what_serves(context: Context, request_id: str, version: ModelVersion) -> None:
    """The tiny model learns nothing, so both strengths are alike and the smaller one is taken."""
    with context.store.read() as conn:
        done = {s.name: s.output or {} for s in steps.list_steps(conn, request_id)}
        serving = pointer.get(conn, context.model).champion.adapter
        lineage = lineage_of_version(conn, version.name)
    trained = done["train"]["artifact"]["digest"]
    assert (done["sweep"]["chosen"], done["sweep"]["artifact"]["alpha"]) == ("0.5", 4.0)
    assert serving is not None
    assert version.adapter_digest == serving.digest == done["sweep"]["artifact"]["digest"] != trained
    manifest = read_manifest(Path(serving.path))
    assert (manifest["parents"], manifest["scale"]) == ([trained], 0.5)
    assert (lineage["parent"], lineage["scale"]) == (trained, "0.5")
    assert context.registry.versions(context.model)[0].tags["tidemill.parent"] == trained
    choice = ScaleChoice.model_validate_json(Path(done["sweep"]["path"]).read_text())
    judged = EvalReport.model_validate_json(Path(done["evaluate"]["path"]).read_text())
    assert judged.candidate_digest == version.adapter_digest
    anchors = {item.id: item_digest(item) for suite in anchor_suites(context).values() for item in suite}
    seen = [anchors[item.item_id] for item in judged.scores["anchors"]["candidate"].items]
    assert len(seen) == len(choice.selected_on["anchors"]) == 65
    assert not set(seen) & set(choice.selected_on["anchors"]), "what chose does not judge"
    report = Path(done["gate"]["report"]).read_text()
    assert "Gain against forgetting" in report
    assert "0.5</bdi> (chosen)" in report
