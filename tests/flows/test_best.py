"""What small losses are measured against: a version promoted, still there, untainted, best by its known answers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from configs.errors import InputError
from data_contracts.ids import new_id
from data_contracts.records import AdapterArtifact, AdapterRef, Arm, EvalItem, ModelVersion, Rollout, utc_now
from evaluation.answers import AnswerCache, Output
from evaluation.suites import item_digest
from flows.best import best_accepted
from flows.context import Context, open_context
from flows.steps.register import register_override
from flows.suites import anchor_suites
from store import audit, erasure, rollouts, versions
from tests.flows.flow_samples import tiny_config


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    opened = open_context(tiny_config(tmp_path / "state", gate={"override_by": ["*@risk.example", "ada"]}))
    yield opened
    opened.store.close()


def accepted(context: Context, number: int, *, state: str = "promoted", base: str = "") -> Arm:
    """A registered version whose canary ended like this, in the order of numbers."""
    base_digest, digest = base or context.base().digest, f"{number:064x}"
    path = context.state.adapters / digest
    path.mkdir(parents=True)
    version = ModelVersion(
        model=context.model, number=number, adapter_digest=digest, base_digest=base_digest,
        dataset_digest="d" * 64, config_digest="c" * 64, code_commit="0", gate="pass",
    )  # fmt: skip
    ref = AdapterRef(version=version.name, digest=digest, path=str(path), base_digest=base_digest)
    at = utc_now() + timedelta(seconds=number)
    with context.store.write() as conn:
        versions.insert(conn, version, adapter_path=str(path), request_id=None, approved_by="gate")
        rollout = Rollout(
            id=new_id(), model=context.model, candidate=Arm(version=version.name, adapter=ref), previous=Arm(),
            state=state, created_at=at, ended_at=at, salt="s",
        )  # fmt: skip
        rollouts.create(conn, rollout)
    return rollout.candidate


def answers(context: Context, arm: Arm, right: int, of: int | None = None) -> None:
    """Known answers: the first `right` of the anchors as required, the others not."""
    items: list[EvalItem] = [item for suite in anchor_suites(context).values() for item in suite][:of]
    nlls = [tuple(0.0 if (c == i.reference) == (k < right) else 9.0 for c in i.choices) for k, i in enumerate(items)]
    said = [Output(i.reference if k < right else "no idea", 1.0, nlls[k]) for k, i in enumerate(items)]
    assert arm.adapter is not None
    cache = AnswerCache(context.state.cache / "evaluation", arm.adapter.digest)
    cache.put(zip([item_digest(item) for item in items], said, strict=True))


def test_the_best_is_the_promoted_version_that_knows_most(context: Context) -> None:
    assert best_accepted(context, Arm()) is None
    first = accepted(context, 1)
    assert best_accepted(context, first) is None, "the champion is no other version"
    second, third = accepted(context, 2), accepted(context, 3)
    unknown = best_accepted(context, third)
    assert unknown == second, "no answers known: the last promoted before the champion"
    answers(context, first, 40)
    answers(context, second, 20)
    assert best_accepted(context, third) == first
    answers(context, third, 30)
    assert best_accepted(context, third) == first
    assert best_accepted(context, first) is None, "nothing is better than the champion"
    answers(context, accepted(context, 4), 50, of=49)
    assert best_accepted(context, third) == first, "an answer short is not known"


def test_what_is_tainted_taken_back_gone_or_of_another_base_is_no_reference(context: Context) -> None:
    champion = accepted(context, 9)
    tainted, back, gone = accepted(context, 1), accepted(context, 2, state="rolled_back"), accepted(context, 3)
    foreign, expired = accepted(context, 4, base="f" * 64), accepted(context, 5, state="expired")
    for arm in (tainted, back, gone, foreign, expired):
        answers(context, arm, 50)
    with context.store.write() as conn:
        erasure.taint(conn, [tainted.version], "erasure-1", utc_now())
    assert gone.adapter is not None
    Path(gone.adapter.path).rmdir()
    assert best_accepted(context, champion) is None
    last = accepted(context, 6)
    assert best_accepted(context, champion) == last


def test_only_names_the_policy_lets_override_the_gate(context: Context) -> None:
    artifact = AdapterArtifact(
        digest="a" * 64, path="/nowhere", base_digest="b" * 64, dataset_digest="d" * 64, config_digest="c" * 64,
        code_commit="0", rank=4, alpha=8.0, steps=1, tokens=1, seconds=1.0,
    )  # fmt: skip
    with pytest.raises(InputError, match="may not override the gate"):
        register_override(context, artifact, by="mallory", reason="I want to")
    with context.store.read() as conn:
        refused = [e for e in audit.entries(conn) if e.action == "gate.override_refused"]
    assert [(e.actor, e.subject) for e in refused] == [("mallory", "a" * 64)]
    for name in ("ada", "grace@risk.example"):
        with pytest.raises(Exception, match="adapter"):
            register_override(context, artifact, by=name, reason="let through to the checks of the files")
