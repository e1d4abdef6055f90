"""Curate the accepted rows, add the base's own answers as replay, publish an immutable snapshot."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from configs.errors import SnapshotError, StaleTokenError
from configs.schema import ReplaySection
from data_contracts.curation.results import CurationResult
from data_contracts.digests import digest, salted_digest
from data_contracts.records import (
    ContractReport,
    DatasetSnapshot,
    Incident,
    LabelledRow,
    Message,
    QuarantinedRow,
    SnapshotRow,
    utc_now,
)
from flows import review_feed
from flows.context import Context
from flows.curating import curated, teaching_thumbs
from flows.files import read_records
from flows.ledger import Output
from flows.run import Run
from flows.suites import evaluation_prompts, refuse_trained_references, with_system
from store import erasure, quarantine, requests
from store import snapshots as snapshot_table


def replay_prompts(context: Context, count: int) -> list[tuple[Message, ...]]:
    """The first `count` prompts of the replay set, taken round-robin over its skills so that few still vary."""
    by_skill: dict[str, list[tuple[Message, ...]]] = {}
    with context.resource(context.config.replay.prompts).open(encoding="utf-8") as handle:
        for line in handle:
            if line.strip():
                entry = json.loads(line)
                messages = tuple(Message.model_validate(m) for m in entry["messages"])
                by_skill.setdefault(entry["skill"], []).append(messages)
    picked: list[tuple[Message, ...]] = []
    depth = 0
    while len(picked) < count and any(depth < len(group) for group in by_skill.values()):
        picked += [group[depth] for group in by_skill.values() if depth < len(group)]
        depth += 1
    return picked[:count]


def replay_count(settings: ReplaySection, train_rows: int) -> int:
    """How many replay rows make up their share of the mix."""
    return round(train_rows * settings.share / max(1e-9, 1 - settings.share))


def replay_rows(run: Run, train_rows: int, measured: Sequence[str]) -> tuple[list[SnapshotRow], dict[str, str]]:
    """The base's own greedy answers to replay prompts, `share` of the mix, and their provenance.

    A prompt that an evaluation suite asks (`measured`) is never among them.
    """
    from data_contracts.curation.rules.contaminated import exam_index
    from training.replay import answer_prompts

    context, settings = run.context, run.context.config.replay
    if settings.share <= 0:
        return [], {}
    exam = exam_index(measured, context.config.curation.decontamination)
    prompts = [
        p for p in replay_prompts(context, replay_count(settings, train_rows)) if exam.overlap(p[-1].content) is None
    ]
    base = context.base()
    decoding = f"greedy, at most {settings.max_new_tokens} tokens"

    def show(done: int, total: int) -> None:
        run.ledger.check()
        run.observer.progress("replay", done, total, "base answers for replay")

    answers = answer_prompts(
        base_path=base.path,
        base_digest=base.digest,
        prompts=prompts,
        max_new_tokens=settings.max_new_tokens,
        batch=settings.batch,
        cache_dir=context.state.cache / "replay",
        work_dir=run.work_dir / "replay",
        threads=context.config.model.threads,
        progress=show,
    )
    rows = [
        SnapshotRow(
            digest=digest(["replay", base.digest, [m.model_dump() for m in prompt], answer]),
            split="train",
            source="replay",
            messages=prompt,
            completion=answer,
        )
        for prompt, answer in zip(prompts, answers, strict=True)
        if answer.strip()
    ]
    provenance = {
        "base": base.digest,
        "prompts": digest([[m.model_dump() for m in p] for p in prompts]),
        "decoding": decoding,
    }
    return rows, provenance


def _traceable(run: Run, pinned: Sequence[Incident], rows: Sequence[SnapshotRow]) -> list[SnapshotRow]:
    """Rows of incidents with a digest salted by a salt that is deleted with the incident.

    Raises:
        SnapshotError: a row of no incident; what cannot be erased must not teach.
    """
    with run.context.store.write() as conn:
        salts = {i.id: erasure.salt_of(conn, erasure.INCIDENT_ROW + i.id) for i in sorted(pinned, key=lambda i: i.id)}
    named = []
    for row in rows:
        # By the row's own word: its texts were redacted since, and two incidents may say the same.
        ident = row.row_id.removeprefix(erasure.INCIDENT_ROW)
        if ident not in salts or row.row_id != erasure.INCIDENT_ROW + ident:
            raise SnapshotError("a row is the paraphrase of no incident", where=run.request_id, fix="try again")
        salted = salted_digest(salts[ident].encode(), [ident, row.messages[-1].content, row.completion])
        named.append(row.model_copy(update={"digest": salted}))
    return named


def _store_left_out(run: Run, rows: Sequence[QuarantinedRow], used: Sequence[str]) -> None:
    with run.context.store.write() as conn:
        quarantine.put(conn, run.context.model, rows, run.request_id)
        quarantine.clear(conn, run.context.model, used)
    review_feed.feed(run.context)


def _thumbs(
    run: Run,
    accepted: Set[str],
    statuses: Mapping[str, str],
    protected: Sequence[str],
    rows: Sequence[LabelledRow],
    result: CurationResult,
) -> tuple[CurationResult, Counter[str]]:
    """The thumbs that teach, and reasons of those that wait for more without a place in quarantine."""
    found, reasons, waiting = teaching_thumbs(
        run.context, run.thumbs, accepted, statuses, protected, beside=rows, result=result
    )
    if waiting:
        run.observer.log(f"Thumbs do not teach yet: {waiting}.")
    return found, reasons


def snapshot(run: Run) -> Output:
    """Publish the snapshot; `trainable` is the number of new teaching rows without replay."""
    from data_contracts.curation import held_prompts, incident_teaching
    from data_contracts.snapshots import publish

    context = run.context
    report = ContractReport.model_validate_json(Path(run.outputs["validate"]["path"]).read_text(encoding="utf-8"))
    accepted = set(report.accepted)
    rows = [r for r in read_records(Path(run.outputs["ingest"]["path"]), LabelledRow) if r.id in accepted]
    with context.store.read() as conn:
        statuses = quarantine.statuses(conn, context.model)
    rows = [row for row in rows if statuses.get(row.id) != "dropped"]
    released = {row_id for row_id, status in statuses.items() if status == "released"}
    protected = evaluation_prompts(context)
    with context.store.read() as conn:
        result = curated(context, conn, rows, released, protected, utc_now())
    thumbs, thumb_reasons = _thumbs(run, accepted, statuses, protected, rows, result)
    measured = [*(row.messages[-1].content for row in result.target), *held_prompts(rows, context.config.curation)]
    pinned = run.incidents
    found = incident_teaching(pinned, [*protected, *measured], context.config.curation, context.redactor)
    used = [row.row_id for row in (*result.train, *result.target, *thumbs.train)]
    untaught = {row.row_id for row in found.untaught}
    used += [incident.id for incident in pinned if incident.id not in untaught]
    _store_left_out(run, [*result.left_out, *thumbs.left_out, *found.untaught], used)
    teaching = [*result.train, *thumbs.train, *_traceable(run, pinned, found.rows)]
    left = Counter(row.reason for row in (*result.left_out, *thumbs.left_out))
    reasons = dict(left + Counter(report.reasons) + Counter(found.reasons) + thumb_reasons)
    for row in found.untaught:
        run.observer.log(f"Incident {row.row_id} measures, and {row.detail}.")
    if not teaching:
        return {"trainable": 0, "reasons": reasons, "snapshot": None}
    replay, provenance = replay_rows(run, len(teaching), [*protected, *measured])
    prompt = context.config.model.system_prompt
    rows_out = [
        row if row.source == "replay" else row.model_copy(update={"messages": with_system(row.messages, prompt)})
        for row in [*teaching, *result.target, *replay]
    ]
    refuse_trained_references(context, rows_out)
    published = publish(
        context.state.snapshots,
        rows_out,
        model=context.model,
        contract_digest=report.contract_digest,
        base_digest=context.base().digest,
        watermark=int(run.outputs["ingest"]["watermark"]),
        reasons=reasons,
        replay=provenance,
        created_at=utc_now(),
        sources={"store": str(run.outputs["ingest"]["watermark"]), **run.outputs["ingest"].get("sources", {})},
        config_digest=digest(run.section("curation")),
    )
    _record(run, published, {row.row_id: row.split for row in rows_out if row.row_id})
    run.observer.log(f"Snapshot {published.digest[:12]}: {published.counts}; left out: {reasons or 'nothing'}.")
    run.observer.table(
        "snapshot",
        [{"rows": n, "kind": kind} for kind, n in published.counts.items()],
        f"Snapshot {published.digest[:12]}",
    )
    return {"trainable": len(teaching), "reasons": reasons, "snapshot": published.model_dump(mode="json")}


def _record(run: Run, published: DatasetSnapshot, splits: dict[str, str]) -> None:
    if not published.feedback_rows and not splits:
        # A snapshot of incidents only teaches from reviewed answers; it has no feedback rows to list.
        run.observer.log("The snapshot holds no feedback rows, only incidents.")
    if not Path(published.path).is_dir():
        raise SnapshotError("the published snapshot is not there", where=published.path, fix="run the retrain again")
    try:
        with run.context.store.write() as conn:
            requests.check_token(conn, run.request_id, run.ledger.request.token)
            snapshot_table.insert(conn, published, splits)
    except (SnapshotError, StaleTokenError):
        with run.context.store.read() as conn:
            known = snapshot_table.get(conn, published.digest) is not None
        if not known:
            # Its rows were taken back while it was made: nobody may find them here.
            shutil.rmtree(published.path, ignore_errors=True)
        raise
