"""SIGKILL at every step of an erasure, and an erasure at every step of a retrain: in the end nothing is left."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from configs.errors import StaleTokenError
from data_contracts.ids import new_id, new_request_id
from data_contracts.records import Cause, Feedback, FeedbackKind, Incident, Interaction, Message, utc_now
from flows import erasure as job
from flows.context import Context, open_context, write_resolved
from flows.erasure_scan import scan
from flows.observer import PrintObserver
from flows.pipeline import run_retrain
from monitoring.rollout_actions import promote
from registry_hooks.memory import MemoryRegistry
from store import audit, erasure, feedback, incidents, interactions, pointer, requests, snapshots, versions
from tests.flows.erasure_world import NAME, TEXTS, build, settled, world_config
from tests.flows.flow_samples import add_corrections, tiny_config

POINTS = [
    "sql DELETE FROM feedback",
    "sql INSERT INTO audit",
    "Erasure ",
    *(f"erase {name}: {when}" for name, _ in job.STEPS for when in ("begins", "{")),
]
QUIET = PrintObserver(quiet=True)


def run_child(config: Path, point: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.flows.erasure_child", str(config), NAME, point],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.long
def test_killed_at_every_step_an_erasure_still_ends(tmp_path: Path) -> None:
    world = build(tmp_path / "state", stack={"lease_s": 0.4})
    config = write_resolved(world_config(tmp_path / "state", stack={"lease_s": 0.4}))
    context = world.context
    for point in POINTS:
        ended = run_child(config, point)
        assert ended.returncode == -signal.SIGKILL, f"{point}: {ended.stdout}{ended.stderr[-2000:]}"
        with context.store.read() as conn:
            jobs = erasure.open_jobs(conn)
            gone = interactions.get(conn, world.theirs["request"]) is None
        # In the first transaction all or nothing; after it the rows are gone whatever happens.
        assert (len(jobs), gone) == ((0, False) if point.startswith("sql") else (1, True))
    ended = run_child(config, "")
    # On a slow machine the time in which late rows may come has passed by now.
    assert ended.stdout.strip() in ("settling", "done"), ended.stderr[-2000:]
    assert job.go_on(context, QUIET, now=settled(world)) == 0
    # The child had a registry of its own: what this process's one keeps is not its business.
    assert [f for f in scan(context, NAME, TEXTS).findings if not f.place.startswith("mlflow")] == []
    with context.store.read() as conn:
        audit.verify(conn)
        said = Counter(e.action for e in audit.entries(conn, 500) if e.action.startswith("erasure."))
    assert set(said.values()) == {1}, said
    context.store.close()


@pytest.mark.slow
def test_the_watch_ends_what_a_killed_command_began(tmp_path: Path) -> None:
    world = build(tmp_path / "state", stack={"lease_s": 0.4})
    config = write_resolved(world_config(tmp_path / "state", stack={"lease_s": 0.4}))
    assert run_child(config, "erase reports: begins").returncode == -signal.SIGKILL
    assert job.go_on(world.context, QUIET, now=settled(world)) == 0
    assert scan(world.context, NAME, TEXTS).findings == ()
    world.context.store.close()


PERSON = "theodora.finsterwald-18"
SECRET = "Parcels to Finsterwald leave by mule on Thursdays."


def add_person(context: Context) -> str:
    request_id = new_request_id(context.state.key, context.model)
    message = Message(role="user", content="how do parcels reach Finsterwald")
    served = Interaction(
        id=request_id, created_at=utc_now(), model=context.model, principal=PERSON, conversation=request_id,
        messages=(message,), answer="I do not know.",
    )  # fmt: skip
    said = Feedback(
        id=new_id(), interaction_id=request_id, kind=FeedbackKind.CORRECTION, created_at=utc_now(), principal=PERSON,
        text=SECRET, scope="review",
    )  # fmt: skip
    # Another prompt than the correction's: what an incident's test asks never teaches.
    other = Message(role="user", content="which animal climbs the pass")
    about = Incident(
        id=new_id(), model=context.model, interaction_id=request_id, title="mules", messages=(other,), answer="",
        required=SECRET, paraphrases=("by what do parcels reach the Finsterwald", "who brings Finsterwald its parcels"),
        opened_at=utc_now(), opened_by="reviewer",
    )  # fmt: skip
    with context.store.write() as conn:
        interactions.insert(conn, [served])
        feedback.insert(conn, [(context.model, said)])
        incidents.insert(conn, about)
    return said.id


class ErasesAt(PrintObserver):
    """Erases the person the first time a step shows something, as an officer in another process would."""

    def __init__(self, other: Context, step: str) -> None:
        super().__init__(quiet=True)
        self.other, self.step, self.done = other, step, False

    def _now(self) -> None:
        self.done = True
        job.erase(self.other, PERSON, by="officer", reason="ticket 9", observer=QUIET)

    def log(self, message: str) -> None:
        super().log(message)
        if not self.done and message.startswith(self.step):
            self._now()

    def progress(self, step: str, done: float, total: float, note: str = "") -> None:
        if not self.done and step == self.step:
            self._now()


class Promoter(PrintObserver):
    """Stands in for the gateway's controller: promotes as soon as the canary is asked for."""

    def __init__(self, context: Context) -> None:
        super().__init__(quiet=True)
        self.context = context

    def log(self, message: str) -> None:
        super().log(message)
        if message.startswith("Canary of"):
            promote(self.context.store, self.context.model, "test", "stands in for the controller")


# The rows are pulled, the snapshot is published, the trainer runs, the models are asked, the canary is open.
MOMENTS = ["Pulled ", "Snapshot ", "train", "evaluate", "Canary of"]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", MOMENTS)
def test_an_erasure_in_the_middle_of_a_retrain_keeps_their_rows_out(tmp_path: Path, moment: str) -> None:
    lenient = {"kind": "non_inferiority", "margin": 1.0}
    config = tiny_config(
        tmp_path / "state",
        gate={"anchors": lenient, "target": lenient, "incidents": lenient},
        stack={"lease_s": 1.0},
        serving={"request_timeout_s": 1.0},
    )
    context, other = open_context(config), open_context(config)
    registry = MemoryRegistry()
    context.__dict__["registry"] = other.__dict__["registry"] = registry
    add_corrections(context.store, context.model, per_topic=6)
    row = add_person(context)
    with context.store.write() as conn:
        request, _ = requests.open_or_attach(conn, context.model, Cause(kind="schedule", at=utc_now()))
        requests.set_ready(conn, request.id)
    observer = ErasesAt(other, moment)
    with pytest.raises(StaleTokenError):
        run_retrain(context, request.id, observer)
    assert observer.done
    outcome = run_retrain(context, request.id, Promoter(context))
    assert outcome == "promoted"
    with context.store.read() as conn:
        champion = pointer.get(conn, context.model).champion.version
        served = versions.get(conn, champion)
        assert served is not None
        assert row not in snapshots.splits(conn, served.dataset_digest)
        assert erasure.taint_of(conn, champion) is None
        for version in versions.list_versions(conn, context.model):
            held = snapshots.splits(conn, version.dataset_digest)
            holds = row in held
            assert any(ident.startswith(erasure.INCIDENT_ROW) for ident in held) == holds
            assert holds == (version.name != champion)
            assert (erasure.taint_of(conn, version.name) is not None) == holds
    assert job.go_on(context, QUIET, now=settled(None)) == 0  # type: ignore[arg-type]
    assert scan(context, PERSON, [SECRET, "reach the Finsterwald"]).findings == ()
    context.store.close()
    other.store.close()
