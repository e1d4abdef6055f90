"""`tidemill gate`: the last verdict as people read it, and who may go past it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.gates import decision_rows, judged_request, override
from configs.errors import InputError, NotFoundError, TidemillError
from data_contracts.records import AdapterArtifact, Cause, Finding, GateDecision, SuiteVerdict, utc_now
from flows.context import Context, open_context
from store import audit, requests, steps
from tests.flows.flow_samples import tiny_config

ARTIFACT = AdapterArtifact(
    digest="a" * 64, path="/nowhere", base_digest="b" * 64, dataset_digest="d" * 64, config_digest="c" * 64,
    code_commit="0", rank=4, alpha=8.0, steps=1, tokens=1, seconds=1.0,
)  # fmt: skip
VERDICT = SuiteVerdict(
    suite="anchors", against="champion", kind="non_inferiority", n=130, reference_mean=0.6, candidate_mean=0.5,
    difference=-0.1, lower=-0.15, upper=-0.05, margin=0.1, lost=15, gained=2, verdict="block", reason="worse",
)  # fmt: skip
FLIPS = Finding(
    suite="anchors", against="champion", measure="negative_flips", n=130, value=0.115, lower=0.07, upper=0.17,
    limit=0.1, lost=15, gained=2, verdict="block", reason="15 of 130",
)  # fmt: skip


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    opened = open_context(tiny_config(tmp_path / "state", gate={"override_by": ["ada"]}))
    yield opened
    opened.store.close()


def judged(context: Context, verdict: str) -> int:
    """A retrain the gate has judged; its number."""
    decision = GateDecision(
        verdict=verdict, objective="superiority", suites=(VERDICT,), reasons=("worse",), findings=(FLIPS,),
        policy_digest="p" * 64, decided_at=utc_now(),
    )  # fmt: skip
    outputs = {
        "train": {"artifact": ARTIFACT.model_dump(mode="json")},
        "gate": {"decision": decision.model_dump(mode="json"), "report": "/r.html"},
    }
    with context.store.write() as conn:
        request, _ = requests.open_or_attach(conn, context.model, Cause(kind="feedback", at=utc_now()))
        requests.set_ready(conn, request.id)
        claimed = requests.claim(conn, request.id, "test", 60.0)
        assert claimed is not None
        for name, output in outputs.items():
            steps.begin(conn, request.id, name, "i", claimed.token)
            steps.complete(conn, request.id, name, claimed.token, output)
        requests.finish(conn, request.id, claimed.token, "done", "blocked", "")
    return request.number


def test_the_verdict_is_shown_with_all_that_was_judged(context: Context) -> None:
    with pytest.raises(NotFoundError, match="no such verdict"):
        judged_request(context, None)
    number = judged(context, "block")
    request, decision, artifact = judged_request(context, None)
    assert (request.number, decision.verdict, artifact) == (number, "block", ARTIFACT)
    rows = decision_rows(decision)
    assert [(row["what"], row["verdict"]) for row in rows] == [
        ("anchors", "block"),
        ("anchors, negative flips", "block"),
    ]
    with pytest.raises(NotFoundError, match="number 99"):
        judged_request(context, 99)


def test_the_policy_names_who_may_override_and_every_try_is_recorded(context: Context) -> None:
    judged(context, "block")
    with pytest.raises(InputError, match="a name and a reason"):
        override(context, None, "ada", "  ")
    with pytest.raises(InputError, match="may not override the gate"):
        override(context, None, "mallory", "because")
    with context.store.read() as conn:
        assert ("mallory", "gate.override_refused") in [(e.actor, e.action) for e in audit.entries(conn)]
    with pytest.raises(TidemillError) as refused:
        override(context, None, "ada", "the anchors are wrong")
    assert refused.value.code == "adapter_rejected", "her word does not reach past the checks of the files"


def test_there_is_nothing_to_override_where_the_gate_let_pass(context: Context) -> None:
    judged(context, "pass")
    with pytest.raises(InputError, match="nothing to override"):
        override(context, None, "ada", "because")
