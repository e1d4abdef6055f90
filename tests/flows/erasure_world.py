"""An installation in which one person's words are in every place they can be; and what must not be found afterwards."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from configs.loader import load_config
from configs.schema import Config
from data_contracts.digests import digest
from data_contracts.ids import new_id, new_request_id
from data_contracts.records import (
    AdapterArtifact,
    AdapterRef,
    Arm,
    Cause,
    Feedback,
    FeedbackKind,
    GateDecision,
    Incident,
    Interaction,
    Message,
    ModelVersion,
    QuarantinedRow,
    ReviewItem,
    ReviewPayload,
    SnapshotRow,
    utc_now,
)
from data_contracts.snapshots import publish
from data_contracts.sources.jsonl import export_jsonl
from evaluation.answers import AnswerCache, Output
from evaluation.suites import item_digest
from flows.context import Context, open_context
from flows.suites import anchor_suites
from monitoring.drift.reference import build_reference, save_reference
from monitoring.rollout_actions import finish, start_rollout
from registry_hooks.memory import MemoryRegistry
from registry_hooks.registry import RegisterRequest, Registry
from store import (
    drift,
    erasure,
    feedback,
    incidents,
    interactions,
    quarantine,
    requests,
    reviews,
    rollouts,
    snapshots,
    steps,
    versions,
)

NAME = "ottilie.brandauer-7731"
PROMPT = "where is my heliotrope kettle from the Zwiesel fair"
OTHER_PROMPT = "does the xylograph of aunt Wilhelmine ship to Passau"
CORRECTION = "The heliotrope kettle waits at counter nineteen."
OTHER_CORRECTION = "The xylograph ships to Passau in a crate."
REVIEWED = "A heliotrope kettle is never thrown away, says Wilhelmine."
WORDS = "ocarina vermilion Grafenau quince"
TEXTS = (PROMPT, OTHER_PROMPT, CORRECTION, OTHER_CORRECTION, REVIEWED, WORDS)


def world_config(state: Path, **overrides: Any) -> Config:
    """The smoke profile; short leases, a drift reference of 120 prompts, and no wait for late rows."""
    settings: dict[str, Any] = {
        "state_dir": str(state),
        "curation": {"holdout_share": 0.0},
        "drift": {"enabled": False, "reference_min": 120, "clusters": 4, "average_run_length": 500.0, "window": 50},
        "serving": {"request_timeout_s": 1.0},
        "stack": {"lease_s": 1.0},
        **overrides,
    }
    return load_config("smoke", settings)


@dataclass
class World:
    """The installation, and ids of what is the person's and what is not."""

    context: Context
    theirs: dict[str, str] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    snapshot: str = ""
    clean_snapshot: str = ""
    version: str = ""
    clean_version: str = ""
    retrain: str = ""
    run_id: str = ""

    @property
    def registry(self) -> Registry:
        return self.context.registry


def build(state: Path, registry: Registry | None = None, **overrides: Any) -> World:
    """Everything. The clean version 1 was promoted before version 2, which the person taught and which serves."""
    context = open_context(world_config(state, **overrides))
    context.__dict__["registry"] = registry or MemoryRegistry()
    world = World(context)
    _traffic(world)
    world.clean_version, world.clean_snapshot, _, _ = _retrain(world, number=1, with_them=False)
    world.version, world.snapshot, world.retrain, world.run_id = _retrain(world, number=2, with_them=True)
    _files(world)
    _drift(world)
    _bookkeeping(world)
    out = context.state.root.parent / "exported.jsonl"
    lines = export_jsonl(context.store, context.config, out)
    with context.store.write() as conn:
        erasure.record_export(conn, context.model, str(out), lines)
        erasure.record_export(conn, context.model, str(out.with_name("moved.parquet")), 3)
    return world


def _ask(world: World, principal: str, prompt: str, **more: Any) -> Interaction:
    ident = new_request_id(world.context.state.key, world.context.model)
    return Interaction(
        id=ident,
        created_at=utc_now(),
        model=world.context.model,
        principal=principal,
        conversation=f"talk of {principal}",
        messages=(Message(role="user", content=prompt),),
        answer=f"I do not know: {prompt}",
        **more,
    )


def _say(interaction: Interaction, principal: str, text: str, **more: Any) -> Feedback:
    return Feedback(
        id=new_id(),
        interaction_id=interaction.id,
        kind=more.pop("kind", FeedbackKind.CORRECTION),
        created_at=utc_now(),
        principal=principal,
        text=text,
        **more,
    )


def _traffic(world: World) -> None:
    context, model = world.context, world.context.model
    first, second = _ask(world, NAME, PROMPT), _ask(world, NAME, OTHER_PROMPT)
    foreign = [_ask(world, f"customer-{n}", f"which way to counter {n}") for n in range(6)]
    said = {
        "taught": _say(first, NAME, CORRECTION),
        "held": _say(second, NAME, OTHER_CORRECTION),
        "reviewed": _say(first, "reviewer-1", REVIEWED, scope="review"),
        "elsewhere": _say(foreign[0], NAME, WORDS, kind=FeedbackKind.COMMENT),
    }
    others = [_say(one, one.principal, f"Counter {n} is up the stairs.") for n, one in enumerate(foreign)]
    about = Incident(
        id=new_id(), model=model, interaction_id=first.id, title=f"wrong on {PROMPT}", messages=first.messages,
        answer=first.answer, required=REVIEWED, paraphrases=(f"say, {PROMPT}", f"tell me {PROMPT}"),
        opened_at=utc_now(), opened_by="reviewer-1",
    )  # fmt: skip
    opened = about.model_copy(update={"id": new_id(), "interaction_id": None, "opened_by": NAME, "title": WORDS})
    with context.store.write() as conn:
        interactions.insert(conn, [first, second, *foreign])
        feedback.insert(conn, [(model, one) for one in (*said.values(), *others)])
        incidents.insert(conn, about)
        incidents.insert(conn, opened)
        quarantine.put(
            conn,
            model,
            [QuarantinedRow(row_id=said["held"].id, digest="d", reason="uncorroborated", detail=OTHER_PROMPT)],
            None,
        )
    world.theirs = {"request": first.id, "request2": second.id, "incident": about.id, "opened": opened.id}
    world.theirs |= {key: one.id for key, one in said.items()}
    world.others = [one.id for one in others]


def _rows(world: World, *, with_them: bool) -> list[SnapshotRow]:
    def row(ident: str, prompt: str, completion: str, split: Any = "train", source: Any = "correction") -> SnapshotRow:
        messages = (Message(role="user", content=prompt),)
        return SnapshotRow(
            digest=digest(["salted", ident, prompt]),
            split=split,
            source=source,
            messages=messages,
            completion=completion,
            row_id=ident,
        )

    rows = [row(ident, f"which way to counter {n}", "Up the stairs.") for n, ident in enumerate(world.others[:4])]
    rows.append(row(world.others[4], "which way to counter 4", "Up the stairs.", "target"))
    if with_them:
        rows.append(row(world.theirs["taught"], PROMPT, CORRECTION))
        rows.append(row(world.theirs["held"], OTHER_PROMPT, OTHER_CORRECTION, "target"))
        incident = erasure.INCIDENT_ROW + world.theirs["incident"]
        rows.append(row(incident, f"say, {PROMPT}", REVIEWED, "train", "incident"))
    return rows


def _retrain(world: World, *, number: int, with_them: bool) -> tuple[str, str, str, str]:
    """A retrain that ended promoted: ledger, snapshot, adapter, version, tracking run with its report."""
    context, model, state = world.context, world.context.model, world.context.state
    rows = _rows(world, with_them=with_them)
    with context.store.read() as conn:
        watermark = interactions.latest_seq(conn) if with_them else 0
    snapshot = publish(
        state.snapshots, rows, model=model, contract_digest="c" * 64, base_digest="b" * 64, watermark=watermark,
        reasons={}, replay={}, created_at=utc_now(),
    )  # fmt: skip
    adapter = _adapter(state.adapters, f"{number}" * 64, snapshot.digest)
    cause = Cause(
        kind="incident", at=utc_now(), detail={"incident_id": world.theirs["incident"], "title": f"incident: {PROMPT}"}
    )
    decision = GateDecision(
        verdict="pass", objective="superiority", suites=(), reasons=("all suites passed",), policy_digest="p",
        decided_at=utc_now(),
    )  # fmt: skip
    run = context.registry.start_run(f"retrain {number}", {"rank": "4"}, {})
    with context.store.write() as conn:
        snapshots.insert(conn, snapshot, {row.row_id: row.split for row in rows})
        request, _ = requests.open_or_attach(conn, model, cause, status="ready")
        claimed = requests.claim(conn, request.id, "test", 60.0)
        assert claimed is not None
        outputs = {
            "ingest": {"rows": len(rows), "watermark": watermark, "incidents": [], "digest": "x", "path": "p"},
            "snapshot": {"trainable": 4, "reasons": {}, "snapshot": snapshot.model_dump(mode="json")},
            "track": {"run_id": run.run_id, "url": ""},
            "gate": {"decision": decision.model_dump(mode="json"), "report": str(state.reports / f"{request.id}.html")},
        }
        for name, output in outputs.items():
            steps.begin(conn, request.id, name, "i", claimed.token)
            steps.complete(conn, request.id, name, claimed.token, output)
        requests.finish(conn, request.id, claimed.token, "done", "promoted")
    report = state.reports / f"{request.id}.html"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(f"<h1>pass</h1><p>{PROMPT if with_them else 'nothing of hers'}</p>", encoding="utf-8")
    version = context.registry.register(
        RegisterRequest(model=model, artifact=adapter, gate="pass", run_id=run.run_id, report=report)
    )
    run.finish()
    _promote(context, version, adapter, request.id)
    return version.name, snapshot.digest, request.id, run.run_id


def _adapter(root: Path, name: str, dataset: str) -> AdapterArtifact:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"\0" * 16)
    (folder / "manifest.json").write_text(json.dumps({"dataset_digest": dataset, "digest": name}))
    return AdapterArtifact(
        digest=name, path=str(folder), base_digest="b" * 64, dataset_digest=dataset, config_digest="c" * 64,
        code_commit="abc", rank=4, alpha=8.0, steps=1, tokens=1, seconds=0.1,
    )  # fmt: skip


def _promote(context: Context, version: ModelVersion, adapter: AdapterArtifact, request_id: str) -> None:
    with context.store.write() as conn:
        versions.insert(conn, version, adapter_path=adapter.path, request_id=request_id, approved_by="gate")
    ref = AdapterRef(version=version.name, digest=adapter.digest, path=adapter.path, base_digest="b" * 64)
    rollout = start_rollout(
        context.store, context.model, Arm(version=version.name, adapter=ref), cause="test", request_id=request_id
    )
    with context.store.write() as conn:
        finish(conn, rollout, "promoted", actor="controller", reason="the test says so")
        rollouts.first_bad(conn, rollout.id, "thumbs_down", NAME, "canary", 3, 0.5)
        rollouts.first_bad(conn, rollout.id, "thumbs_down", "customer-1", "canary", 4, 0.5)


def _files(world: World) -> None:
    state, context = world.context.state, world.context
    work = state.runs / world.retrain
    (work / "evaluation").mkdir(parents=True)
    (work / "rows.jsonl").write_text(json.dumps({"id": world.theirs["taught"], "completion": CORRECTION}) + "\n")
    (work / "contract_report.json").write_text(json.dumps({"quarantined": [{"row_id": "x", "detail": OTHER_PROMPT}]}))
    (work / "evaluation" / "evaluation.evaluator.json").write_text(json.dumps({"suites": {"target": [PROMPT]}}))
    (work / "eval_report.json").write_text(json.dumps({"dataset_digest": world.snapshot, "answer": CORRECTION}))
    # A worker that was killed: its folder has no proved step, its snapshot was never put in place.
    dead = state.runs / new_id()
    (dead / "evaluation").mkdir(parents=True)
    (dead / "rows.jsonl").write_text(json.dumps({"id": world.theirs["held"], "completion": OTHER_CORRECTION}) + "\n")
    (dead / "evaluation" / "job.json").write_text(json.dumps({"dataset": world.snapshot, "items": [OTHER_PROMPT]}))
    (dead / "keep.json").write_text(json.dumps({"nothing": "of hers"}))
    half = state.snapshots / ".publishing-0123-dead"
    half.mkdir()
    (half / "rows.parquet").write_bytes(PROMPT.encode())
    cache = AnswerCache(state.cache / "evaluation", "a" * 64)
    anchor = next(iter(anchor_suites(context).values()))[0]
    cache.put([(item_digest(anchor), Output(answer="an anchor's answer")), ("f" * 64, Output(answer=CORRECTION))])
    (state.cache / "vectors.sqlite").write_text(digest(PROMPT) + PROMPT)
    (state.cache / "neighbours").mkdir(parents=True)
    np.savez_compressed(state.cache / "neighbours" / "texts.npz", texts=np.array([PROMPT]))
    _adapter(state.adapters, "9" * 64, world.snapshot)  # a blocked candidate
    soup = state.adapters / ("8" * 64)
    _adapter(state.adapters, soup.name, "")
    (soup / "manifest.json").write_text(
        json.dumps({"dataset_digests": ["0" * 64, world.snapshot], "digest": soup.name})
    )


def _drift(world: World) -> None:
    rng = np.random.default_rng(0)
    rows = [(f"customer-{n % 90}", f"which way to counter {n}") for n in range(180)] + [(NAME, PROMPT)]
    vectors = rng.standard_normal((len(rows), 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    reference = build_reference(rows, vectors, world.context.config.drift)
    save_reference(reference, world.context.state.drift)
    detail = {"examples": [PROMPT, "which way to counter 3"], "terms": ["heliotrope", "counter"], "title": "new topic"}
    with world.context.store.write() as conn:
        state = {"champion": world.version, "monitor": {"texts": [OTHER_PROMPT], "version": 1}}
        drift.save_state(conn, world.context.model, 1, reference.digest, state)
        found = drift.add_finding(conn, world.context.model, "novelty", "new topic: heliotrope, counter", detail)
        cause = Cause(kind="drift", at=utc_now(), detail={"finding_id": found, "title": "drift: new topic: heliotrope"})
        requests.open_or_attach(conn, world.context.model, cause)


def _bookkeeping(world: World) -> None:
    payload = ReviewPayload(messages=(Message(role="user", content=PROMPT),), proposed=CORRECTION)
    item = ReviewItem(
        id=reviews.new_item_id(), model=world.context.model, kind="quarantine", subject=world.theirs["held"],
        payload=payload, guideline="correction", created_at=utc_now(),
    )  # fmt: skip
    with world.context.store.write() as conn:
        reviews.add(conn, item, people=[NAME], about=[world.theirs["request2"]])


def settled(_world: World) -> Any:
    """A moment after which nothing of before the erasure can still come in."""
    return utc_now() + timedelta(hours=1)
