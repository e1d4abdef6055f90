"""A source of any size to a snapshot: redaction, contract, curation, publication, in batches.

What is kept in memory is columns (some 250 bytes a row, see docs/scale.md), never the texts: they go to one Arrow file
that is memory-mapped. The list-based steps of a retrain (`flows.steps`) decide the same with the same rules.

    report = stream_snapshot(batches, work, root, contract=..., policy=..., ...)
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.curation import CurationSection
from data_contracts.contract import Contract
from data_contracts.curation import TARGET, TRAIN, Embed, Person, Verdicts, curate_table
from data_contracts.digests import digest
from data_contracts.overlap import answer_key
from data_contracts.records import DatasetSnapshot
from data_contracts.redaction import Redactor

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = {TRAIN: "train", TARGET: "target"}
PIECE_ROWS = 16_384
"""Rows that are handled at a time after the first pass."""


def labelled_schema() -> pa.Schema:
    """Columns of the batches: the fields of `records.LabelledRow`; `created_at` is UTC in microseconds."""
    import pyarrow as pa

    message = pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())])
    texts = ("id", "digest", "interaction_id", "kind", "principal", "scope")
    more = ("answer", "completion", "version", "source", "asked_by")
    return pa.schema(
        [
            *((name, pa.string()) for name in texts),
            ("created_at", pa.timestamp("us", "UTC")),
            ("messages", pa.list_(message)),
            *((name, pa.string()) for name in more),
        ]
    )


@dataclass
class StreamReport:
    """What came of a stream."""

    snapshot: DatasetSnapshot | None = None
    """None if no row teaches."""
    rows: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Rows left out, by reason code: `contract.<rule>` and those of curation."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage: source, redaction, contract, curation, snapshot."""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the time inside as the stage's."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - begun


def stream_snapshot(
    batches: Iterable[pa.RecordBatch],
    work: Path,
    root: Path,
    *,
    contract: Contract,
    policy: CurationSection,
    redactor: Redactor,
    eval_prompts: Iterable[str],
    model: str,
    base_digest: str,
    watermark: int,
    created_at: datetime,
    released: Set[str] = frozenset(),
    people: Mapping[str, Person] | None = None,
    earlier: Mapping[str, str] | None = None,
    embed: Embed | None = None,
    sources: Mapping[str, str] | None = None,
) -> StreamReport:
    """Read everything, decide what teaches, publish it.

    Args:
        batches: labelled rows (`labelled_schema`) in any order and of any number.
        work: an empty folder for the texts meanwhile; about the size of the rows, twice.
        root: the folder of all snapshots.
        contract: compiled.
        policy: who may teach.
        redactor: with this installation's policy.
        eval_prompts: prompts no training row may come near.
        model: the product model they teach.
        base_digest: of the base that is trained.
        watermark: highest commit sequence number among the rows.
        created_at: aware; also when accounts' ages are taken.
        released: ids a person let through.
        people: what is known of principals.
        earlier: row id -> split in earlier snapshots.
        embed: sentence embeddings; without them prompts are compared by words.
        sources: source name -> its watermark.

    Raises:
        ContractError: see `expectations.validate_table`.
        InputError: a column is missing.
    """
    report = StreamReport()
    work.mkdir(parents=True, exist_ok=True)
    accepted = _judged(batches, work, contract, redactor, report)
    with report.timed("curation"):
        table = _mapped(accepted)
        verdicts = curate_table(
            table,
            released,
            policy,
            eval_prompts,
            people=people,
            earlier=earlier,
            embed=embed,
            now=created_at,
            redaction=redactor.policy,
        )
    for reason, count in verdicts.reasons.items():
        report.reasons[reason] = report.reasons.get(reason, 0) + count
    if not (verdicts.codes < 2).any():
        return report
    with report.timed("snapshot"):
        from data_contracts.snapshot_publish import publish_stream

        report.snapshot = publish_stream(
            root,
            _teaching(table, verdicts),
            model=model,
            contract_digest=contract.digest,
            base_digest=base_digest,
            watermark=watermark,
            reasons=report.reasons,
            replay={},
            created_at=created_at,
            sources=sources,
            config_digest=digest(policy.model_dump(mode="json")),
        )
    return report


def _judged(
    batches: Iterable[pa.RecordBatch], work: Path, contract: Contract, redactor: Redactor, report: StreamReport
) -> Path:
    """Redact and validate; the file of the accepted rows."""
    from data_contracts.expectations import validate_table

    everything, accepted = work / "rows.arrow", work / "accepted.arrow"
    inner: Counter[str] = Counter()

    def columns() -> Iterator[pa.RecordBatch]:
        with _writer(everything) as out:
            for batch in _timed_source(batches, inner):
                begun = time.perf_counter()
                clean = redact_batch(batch, redactor)
                out.write_batch(clean)
                report.rows += len(clean)
                inner["redaction"] += time.perf_counter() - begun  # type: ignore[assignment]
                yield contract_columns(clean)

    begun = time.perf_counter()
    verdict = validate_table(columns(), contract)
    refused = verdict.refused()
    warnings = {rule.name for rule in contract.rules if rule.severity == "warning"}
    first = _first_reasons(verdict.broken, refused, warnings, verdict.critical)
    report.reasons.update(first)
    with _writer(accepted) as out:
        start = 0
        for batch in _pieces(_mapped(everything)):
            import pyarrow as pa

            out.write_batch(batch.filter(pa.array(~refused[start : start + len(batch)])))
            start += len(batch)
    everything.unlink()
    total = time.perf_counter() - begun
    report.seconds.update(source=inner["source"], redaction=inner["redaction"])
    report.seconds["contract"] = total - inner["source"] - inner["redaction"]
    return accepted


def _timed_source(batches: Iterable[pa.RecordBatch], inner: Counter[str]) -> Iterator[pa.RecordBatch]:
    iterator = iter(batches)
    while True:
        begun = time.perf_counter()
        batch = next(iterator, None)
        inner["source"] += time.perf_counter() - begun  # type: ignore[assignment]
        if batch is None:
            return
        yield batch


def _first_reasons(
    broken: Mapping[str, Any], refused: Any, warnings: Set[str], critical: Sequence[str]
) -> dict[str, int]:
    """Refused rows by the first rule each broke; the rest of a batch a critical rule took by that rule."""
    import numpy as np

    seen = np.zeros(len(refused), dtype=bool)
    counts: dict[str, int] = {}
    for name, places in broken.items():
        if name in warnings or not len(places):
            continue
        new = places[~seen[places]]
        seen[new] = True
        if len(new):
            counts[f"contract.{name}"] = len(new)
    rest = int((refused & ~seen).sum())
    if rest:
        counts[f"contract.batch_{critical[0]}"] = rest
    return counts


def redact_batch(batch: pa.RecordBatch, redactor: Redactor) -> pa.RecordBatch:
    """A batch with the same columns, its messages, answer and completion redacted, one conversation a row."""
    import pyarrow as pa

    names = batch.schema.names
    texts = {name: batch.column(name).to_pylist() for name in ("messages", "answer", "completion")}
    changed = False
    for place, messages in enumerate(texts["messages"]):
        session = redactor.session()
        said = [{"role": m["role"], "content": m["content"] or ""} for m in messages or ()]
        clean, counts = redactor.redact_messages(said, session)
        found = bool(counts)
        for name in ("answer", "completion"):
            text = texts[name][place]
            if text:
                texts[name][place], more = session.redact(text)
                found = found or bool(more)
        if found:
            texts["messages"][place] = clean
            changed = True
    if not changed:
        return batch
    arrays = [
        pa.array(texts[name], batch.schema.field(name).type) if name in texts else batch.column(name) for name in names
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def contract_columns(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The columns a contract may name, those of the conversation derived."""
    import pyarrow as pa

    from data_contracts.contract_columns import COLUMNS, arrow_type

    plain = ("id", "interaction_id", "kind", "principal", "scope", "source", "version", "created_at")
    columns: dict[str, Any] = {name: batch.column(name).cast(arrow_type(COLUMNS[name])) for name in plain}
    messages = batch.column("messages").to_pylist()
    answers, completions = batch.column("answer").to_pylist(), batch.column("completion").to_pylist()
    derived: dict[str, list[Any]] = {
        "prompt": [next((m["content"] for m in reversed(row or ()) if m["role"] == "user"), "") for row in messages],
        "conversation": ["\n".join(m["content"] for m in row or ()) for row in messages],
        "last_role": [row[-1]["role"] if row else None for row in messages],
        "turns": [len(row or ()) for row in messages],
        "answer": answers,
        "completion": completions,
        "completion_words": [len((text or "").split()) for text in completions],
        "repeats_answer": [
            a == b or answer_key(b or "") == answer_key(a or "") for a, b in zip(answers, completions, strict=True)
        ],
    }
    columns.update({name: pa.array(values, arrow_type(COLUMNS[name])) for name, values in derived.items()})
    return pa.RecordBatch.from_pydict(columns)


def _teaching(table: pa.Table, verdicts: Verdicts) -> Iterator[pa.Table]:
    """Rows of a snapshot, in pieces."""
    import numpy as np
    import pyarrow as pa

    start = 0
    for batch in _pieces(table):
        codes = verdicts.codes[start : start + len(batch)]
        start += len(batch)
        places = np.flatnonzero(codes < 2)
        if not len(places):
            continue
        part = batch.take(pa.array(places))
        completions = [text.strip() for text in part.column("completion").to_pylist()]
        yield pa.table(
            {
                "digest": part.column("digest"),
                "split": pa.array([SPLITS[int(code)] for code in codes[places]]),
                "source": pa.array(["correction"] * len(part)),
                "completion": pa.array(completions),
                "row_id": part.column("id"),
                "slice": pa.array([answer_key(text)[:48] for text in completions]),
                "messages": part.column("messages"),
            }
        )


@contextmanager
def _writer(path: Path) -> Iterator[Any]:
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, labelled_schema()) as out:
        yield out


def _mapped(path: Path) -> pa.Table:
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _pieces(table: pa.Table) -> Iterator[pa.RecordBatch]:
    return iter(table.to_batches(max_chunksize=PIECE_ROWS))
