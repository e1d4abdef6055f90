"""A source of any size to a snapshot: redaction, contract, curation, publication, in batches.

What is kept in memory is columns (some 250 bytes a row, see docs/scale.md), never the texts: they go to one Arrow file
that is memory-mapped. The list-based steps of a retrain (`flows.steps`) decide the same with the same rules.
The file `left_out.arrow` says of each row that is left out why.

    report = stream_snapshot(batches, work, root, contract=..., policy=..., ...)
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.curation import CurationSection
from data_contracts.contract import Contract
from data_contracts.curation import REASONS, TARGET, TRAIN, Embed, Person, Verdicts, curate_table
from data_contracts.curation.results import slice_of
from data_contracts.digests import digest
from data_contracts.records import DatasetSnapshot, FeedbackKind
from data_contracts.redaction import Redactor
from data_contracts.stream_batches import (
    LeftOut,
    contract_columns,
    labelled_schema,
    left_out_schema,
    only_readable,
    redact_batch,
)

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from data_contracts.expectations import TableVerdict

SPLITS = {TRAIN: "train", TARGET: "target"}
PIECE_ROWS = 16_384
"""Rows that are handled at a time after the first pass."""


@dataclass
class StreamReport:
    """What came of a stream."""

    snapshot: DatasetSnapshot | None = None
    """None if no row teaches."""
    rows: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Rows left out, by reason code: `contract.<rule>`, `contract.unreadable` and those of curation."""
    left_out: Path | None = None
    """An Arrow file in the folder `work`: `id` (null where that is what cannot be read) and `reason` of every row that
    was left out."""
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
    dropped: Set[str] = frozenset(),
    suspects: Set[str] = frozenset(),
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
        released: ids a person let through, past the contract too.
        dropped: ids a person ruled out for good.
        suspects: ids of rows that were new in a round that ended badly.
        people: what is known of principals.
        earlier: row id -> split in earlier snapshots.
        embed: sentence embeddings; without them prompts are compared by words.
        sources: source name -> its watermark.

    Raises:
        ContractError: see `expectations.validate_table`.
        InputError: a column is missing.
    """
    work.mkdir(parents=True, exist_ok=True)
    report = StreamReport(left_out=work / "left_out.arrow")
    with _writer(work / "left_out.arrow", left_out_schema()) as out:
        out_of = LeftOut(out, report.reasons)
        table = _mapped(_judged(batches, work, contract, redactor, released, report, out_of))
        with report.timed("curation"):
            verdicts = curate_table(
                table,
                released,
                policy,
                eval_prompts,
                dropped=dropped,
                people=people,
                suspects=suspects,
                earlier=earlier,
                embed=embed,
                now=created_at,
                redaction=redactor.policy,
            )
            start = 0
            for batch in _pieces(table):
                codes = verdicts.codes[start : start + len(batch)].tolist()
                out_of.add(batch.column("id"), ["" if code < 2 else REASONS[code - 2] for code in codes])
                start += len(batch)
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
    batches: Iterable[pa.RecordBatch],
    work: Path,
    contract: Contract,
    redactor: Redactor,
    released: Set[str],
    report: StreamReport,
    out_of: LeftOut,
) -> Path:
    """Redact and validate; the file of the accepted rows."""
    from data_contracts.expectations import validate_table

    everything, accepted = work / "rows.arrow", work / "accepted.arrow"
    inner: Counter[str] = Counter()

    def columns() -> Iterator[pa.RecordBatch]:
        with _writer(everything, labelled_schema()) as out:
            for batch in _timed_source(batches, inner):
                begun = time.perf_counter()
                report.rows += len(batch)
                clean = redact_batch(only_readable(batch, out_of), redactor)
                out.write_batch(clean)
                inner["redaction"] += time.perf_counter() - begun  # type: ignore[assignment]
                yield contract_columns(clean)

    begun = time.perf_counter()
    verdict = validate_table(columns(), contract)
    _write_accepted(everything, accepted, verdict, released, out_of)
    everything.unlink()
    total = time.perf_counter() - begun
    report.seconds.update(source=inner["source"], redaction=inner["redaction"])
    report.seconds["contract"] = total - inner["source"] - inner["redaction"]
    return accepted


def _write_accepted(
    everything: Path, accepted: Path, verdict: TableVerdict, released: Set[str], out_of: LeftOut
) -> None:
    """Keep what the contract accepts or a person let through, and say of each other row which rule it broke first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    codes, names = _first_broken(verdict)
    through = pa.array(sorted(released), pa.string())
    start = 0
    with _writer(accepted, labelled_schema()) as out:
        for batch in _pieces(_mapped(everything)):
            code = codes[start : start + len(batch)]
            start += len(batch)
            ids = batch.column("id")
            code[pc.is_in(ids, value_set=through).to_numpy(zero_copy_only=False)] = 0
            out_of.add(ids, [names[n] for n in code.tolist()])
            out.write_batch(batch.filter(pa.array(code == 0)))


def _first_broken(verdict: TableVerdict) -> tuple[np.ndarray, list[str]]:
    """(rows,) int16 codes and what they mean, as in `expectations.report_of`; code 0 is a row that broke nothing."""
    import numpy as np

    codes, names = np.zeros(verdict.rows, dtype=np.int16), [""]
    warnings = {rule.name for rule in verdict.contract.rules if rule.severity == "warning"}
    for name, places in verdict.broken.items():
        if name not in warnings and len(places):
            codes[places[codes[places] == 0]] = len(names)
            names.append(f"contract.{name}")
    if verdict.critical:
        codes[codes == 0] = len(names)
        names.append(f"contract.batch_{verdict.critical[0]}")
    return codes, names


def _timed_source(batches: Iterable[pa.RecordBatch], inner: Counter[str]) -> Iterator[pa.RecordBatch]:
    iterator = iter(batches)
    while True:
        begun = time.perf_counter()
        batch = next(iterator, None)
        inner["source"] += time.perf_counter() - begun  # type: ignore[assignment]
        if batch is None:
            return
        yield batch


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
        preferred = [kind == FeedbackKind.PREFERENCE.value for kind in part.column("kind").to_pylist()]
        pairs = zip(part.column("answer").to_pylist(), preferred, strict=True)
        rejected = [answer.strip() or None if paired else None for answer, paired in pairs]
        yield pa.table(
            {
                "digest": part.column("digest"),
                "split": pa.array([SPLITS[int(code)] for code in codes[places]]),
                "source": pa.array(["preference" if paired else "correction" for paired in preferred]),
                "completion": pa.array(completions),
                "row_id": part.column("id"),
                "slice": pa.array([slice_of(text) for text in completions]),
                "messages": part.column("messages"),
                "rejected": pa.array(rejected, pa.string()),
            }
        )


@contextmanager
def _writer(path: Path, schema: pa.Schema) -> Iterator[Any]:
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as out:
        yield out


def _mapped(path: Path) -> pa.Table:
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _pieces(table: pa.Table) -> Iterator[pa.RecordBatch]:
    return iter(table.to_batches(max_chunksize=PIECE_ROWS))
