"""Rows against their contract, with Great Expectations: each row is accepted, or quarantined with the rules it broke.

The only module that imports great_expectations. A fast pass over Arrow batches (`contract_scan`) finds every row that
some rule could refuse; Great Expectations judges those, and with them a random sample of the others, so that a
disagreement between the two is an error and never a silent verdict. Every call makes its own ephemeral context (a batch
definition shared between threads validates the other thread's rows) and reads the ids of failing rows whatever
`success` says.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.errors import ContractError
from data_contracts.contract import Contract, Rule, load_contract
from data_contracts.contract_columns import batches_of, labelled_columns, not_utf8, only, without
from data_contracts.contract_scan import Scanner
from data_contracts.contract_unique import Repeats
from data_contracts.digests import digest
from data_contracts.records import ContractReport, LabelledRow, QuarantinedRow

if TYPE_CHECKING:
    import pyarrow as pa

_LOCK = threading.Lock()
_RESULT = {
    "result_format": "COMPLETE",
    "exclude_unexpected_values": True,
    "return_unexpected_index_query": False,
    "partial_unexpected_count": 0,
}
TEXT_ENCODING = "text_encoding"
JUDGED_AT_ONCE = 25_000
"""Suspect rows gathered before Great Expectations judges them."""
SCANNERS = 2
"""Batches scanned at once."""
FIRST_SAMPLE = 1000
SAMPLE_SHARE = 0.001
SAMPLE_LEAST = 32
"""Rows without suspicion that are judged all the same: of the first batch, and of each later one."""


def _import() -> Any:
    """Great Expectations with its telemetry off; importing it warns of other packages' deprecations."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx

    return gx


class Judge:
    """Some rules as one Great Expectations suite over pandas frames."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        gx = _import()
        from great_expectations.data_context.types.base import ProgressBarsConfig
        from great_expectations.expectations.registry import get_expectation_impl

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
        batch = asset.add_batch_definition_whole_dataframe("rows")
        suite = context.suites.add(gx.ExpectationSuite("contract"))
        # Great Expectations keeps one of two equal expectations; their rules share its verdict.
        self._same: dict[str, list[str]] = {}
        for rule in rules:
            self._same.setdefault(digest([rule.expectation, dict(rule.kwargs)]), []).append(rule.name)
        shared = {names[0] for names in self._same.values()}
        for rule in rules:
            if rule.name not in shared:
                continue
            try:
                expectation = get_expectation_impl(rule.expectation)(**rule.kwargs, meta={"rule": rule.name})
            except Exception as error:  # whatever GX's own validation of the arguments raises
                first = str(error).replace("\n", " ")[:300]
                raise ContractError(
                    "Great Expectations refuses a rule's arguments", where=rule.name, found=first, fix="mend its kwargs"
                ) from error
            suite.add_expectation(expectation)
        self._definition = context.validation_definitions.add(
            gx.ValidationDefinition(name="rows", data=batch, suite=suite)
        )

    def broken(self, table: pa.Table, places: np.ndarray) -> dict[str, np.ndarray]:
        """Rule name -> places of the rows that break it, ascending."""
        frame = table.to_pandas()
        # Places as the frame's own index: a list of numbers. With a column of ids Great Expectations copies and
        # serialises a mapping, its value included, for every broken row several times over.
        frame.index = places
        result = self._definition.run(batch_parameters={"dataframe": frame}, result_format=_RESULT)
        found = {str(one.expectation_config.meta["rule"]): _places(one) for one in result.results}
        return {name: found[names[0]] for names in self._same.values() for name in names}


def _places(result: Any) -> np.ndarray:
    rule = result.expectation_config.meta["rule"]
    found = result.result or {}
    if "unexpected_index_list" not in found:
        raise ContractError("a rule could not be run", where=rule, found=str(result.exception_info)[:300])
    listed = found["unexpected_index_list"] or []
    places = np.array(listed, dtype=np.int64)
    if len(places) != found["unexpected_count"]:
        raise ContractError(
            "Great Expectations names fewer rows than it counts",
            where=rule,
            expected=found["unexpected_count"],
            found=len(places),
        )
    return np.sort(places)


@dataclass(frozen=True)
class TableVerdict:
    """A table against its contract, by places of rows (0, 1, 2, ... in the order of the batches)."""

    contract: Contract
    rows: int
    broken: Mapping[str, np.ndarray]
    """Rule name -> ascending places of the rows that break it; rules nothing breaks are there too. `text_encoding`
    holds rows with a text that is not UTF-8, which no other rule judges."""
    judged: int
    """Rows that Great Expectations saw for rules other than uniqueness: the suspects and the sample."""

    @property
    def critical(self) -> tuple[str, ...]:
        """Rules of severity `critical` that some row breaks: then no row is accepted."""
        return tuple(r.name for r in self.contract.rules if r.severity == "critical" and len(self.broken[r.name]))

    def refused(self) -> np.ndarray:
        """(rows,) True where the row may not pass."""
        refused = np.full(self.rows, bool(self.critical))
        warnings_ = {rule.name for rule in self.contract.rules if rule.severity == "warning"}
        for name, places in self.broken.items():
            if name not in warnings_:
                refused[places] = True
        return refused


def validate_table(batches: Iterable[pa.RecordBatch], contract: Contract, *, seed: int | None = None) -> TableVerdict:
    """Hold every row of a stream of Arrow batches against a contract.

    Memory is bounded by a few batches, `JUDGED_AT_ONCE` suspects, eight bytes a row for each column that must be
    unique (its values go to a temporary file) and eight bytes for each broken rule of a row.

    Args:
        batches: with at least the columns the contract's rules read, of the types of `contract_columns.COLUMNS`.
        contract: compiled.
        seed: of the sample that is judged without suspicion; None draws another one each time.

    Raises:
        ContractError: a column is missing or of another type, a rule cannot be run, or the fast pass overlooked a row.
    """
    # GX keeps the current context in a module-level variable: one validation at a time in a process.
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _Table(contract, seed).run(batches)


_Scanned = tuple["pa.RecordBatch", np.ndarray, dict[str, np.ndarray]]


class _Table:
    """One run of `validate_table`."""

    def __init__(self, contract: Contract, seed: int | None) -> None:
        self.contract = contract
        self.scanner = Scanner(contract)
        unique = {rule.name for rule in self.scanner.unique}
        self.plain = [rule for rule in contract.rules if rule.name not in unique]
        self.judge = Judge(self.plain) if self.plain else None
        self.random = np.random.default_rng(seed)
        self.broken: dict[str, list[np.ndarray]] = {TEXT_ENCODING: [], **{rule.name: [] for rule in contract.rules}}
        self.rows = self.judged = 0
        self._waiting: list[tuple[pa.RecordBatch, np.ndarray, dict[str, np.ndarray]]] = []

    def run(self, batches: Iterable[pa.RecordBatch]) -> TableVerdict:
        repeats = {column: Repeats(column) for column in {str(r.kwargs["column"]) for r in self.scanner.unique}}
        try:
            for batch, readable, suspects in self._scanned(batches):
                if not readable.all():
                    self.broken[TEXT_ENCODING].append(self.rows + np.flatnonzero(~readable))
                for column, known in repeats.items():
                    known.add(only(batch.column(column), readable))
                self._gather(batch, readable, suspects)
                self.rows += len(batch)
            self._decide()
            for column, known in repeats.items():
                self._decide_unique([r for r in self.scanner.unique if r.kwargs["column"] == column], known)
        finally:
            for known in repeats.values():
                known.close()
        found = {name: _joined(places) for name, places in self.broken.items()}
        return TableVerdict(self.contract, self.rows, found, self.judged)

    def _scanned(self, batches: Iterable[pa.RecordBatch]) -> Iterator[_Scanned]:
        """The batches with the fast pass's findings, in order; Arrow scans beside the reading of the next one."""
        with ThreadPoolExecutor(SCANNERS) as pool:
            ahead: deque[Future[_Scanned]] = deque()
            for raw in batches:
                ahead.append(pool.submit(self._scan, raw))
                if len(ahead) > SCANNERS:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _scan(self, raw: pa.RecordBatch) -> _Scanned:
        """The columns the rules read, nulls for texts that are not UTF-8; (n,) rows without one; suspects by rule."""
        batch = self.scanner.prepare(raw)
        readable = np.ones(len(batch), dtype=bool)
        arrays = list(batch.columns)
        for i, column in enumerate(arrays):
            bad = not_utf8(column)
            if len(bad):
                readable[bad] = False
                arrays[i] = without(column, bad)
        if not readable.all():
            batch = batch.from_arrays(arrays, names=batch.schema.names)
        return batch, readable, {name: mask & readable for name, mask in self.scanner.suspects(batch).items()}

    def _gather(self, batch: pa.RecordBatch, readable: np.ndarray, suspects: Mapping[str, np.ndarray]) -> None:
        """Put the suspects and a sample of the others before Great Expectations' door."""
        if self.judge is None or not len(batch):
            return
        import pyarrow as pa

        chosen = np.logical_or.reduce(list(suspects.values()))
        clean = np.flatnonzero(readable & ~chosen)
        wanted = FIRST_SAMPLE if not self.rows else max(SAMPLE_LEAST, int(SAMPLE_SHARE * len(batch)))
        chosen[self.random.choice(clean, min(wanted, len(clean)), replace=False)] = True
        places = np.flatnonzero(chosen)
        if not len(places):
            return
        part = batch.take(pa.array(places))
        self._waiting.append((part, self.rows + places, {name: mask[places] for name, mask in suspects.items()}))
        if sum(len(places) for _, places, _ in self._waiting) >= JUDGED_AT_ONCE:
            self._decide()

    def _decide(self) -> None:
        """Let Great Expectations judge what waits, and hold the fast pass against it."""
        if not self._waiting or self.judge is None:
            return
        import pyarrow as pa

        table = pa.Table.from_batches([part for part, _, _ in self._waiting])
        places = np.concatenate([where for _, where, _ in self._waiting])
        verdict = self.judge.broken(table, places)
        for rule in self.plain:
            suspect = places[np.concatenate([masks[rule.name] for _, _, masks in self._waiting])]
            overlooked = np.setdiff1d(verdict[rule.name], suspect, assume_unique=True)
            if len(overlooked):
                raise ContractError(
                    "the fast pass overlooked rows that Great Expectations refuses; no verdict of this run can be "
                    "trusted",
                    where=f"{rule.name} of {self.contract.name}",
                    expected="only suspect rows refused",
                    found=f"{len(overlooked)} more, the first at place {overlooked[0]}",
                    fix="report it with the rule; until then write the rule with a simpler pattern",
                )
            self.broken[rule.name].append(verdict[rule.name])
        self.judged += len(places)
        self._waiting.clear()

    def _decide_unique(self, rules: Sequence[Rule], repeats: Repeats) -> None:
        import pyarrow as pa

        judge = None
        for places, values in repeats.candidates():
            judge = judge or Judge(rules)
            verdict = judge.broken(pa.table({repeats.column: values}), places)
            for rule in rules:
                self.broken[rule.name].append(verdict[rule.name])


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.sort(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)


# --- rows in memory ----------------------------------------------------------------------------


def judge_rows(rows: Sequence[Any], contract: Contract, columns: Callable[[Any], Mapping[str, Any]]) -> TableVerdict:
    """Hold records in memory against a contract; `columns` says what a record's columns are (`contract_columns`)."""
    bad_text: list[int] = []
    verdict = validate_table(batches_of(rows, columns, bad_text), contract)
    if not bad_text:
        return verdict
    bad = np.unique(bad_text)
    # No rule judges a row that cannot be written down.
    others = {name: np.setdiff1d(places, bad) for name, places in verdict.broken.items() if name != TEXT_ENCODING}
    together = np.union1d(verdict.broken[TEXT_ENCODING], bad)
    return TableVerdict(verdict.contract, verdict.rows, {TEXT_ENCODING: together, **others}, verdict.judged)


@dataclass(frozen=True)
class Named:
    """What a report says of one row: who it is."""

    id: str
    digest: str


def report_of(verdict: TableVerdict, names: Sequence[Named], released: Set[str] = frozenset()) -> ContractReport:
    """The verdict as a report: accepted ids in the order given, and each other row with the rules it broke."""
    rules = verdict.contract.rules
    reasons: dict[int, list[str]] = {int(place): [TEXT_ENCODING] for place in verdict.broken[TEXT_ENCODING]}
    notes: list[str] = []
    for rule in rules:
        places = verdict.broken[rule.name]
        if not len(places):
            continue
        if rule.severity == "warning":
            notes.append(f"{len(places)} rows break {rule.name} (a warning): {rule.description}".rstrip(": "))
            continue
        for place in places:
            reasons.setdefault(int(place), []).append(rule.name)
        if rule.severity == "critical":
            notes.append(f"{len(places)} rows break {rule.name}, which is critical: the whole batch is quarantined")
    for name in verdict.critical:
        for place in range(len(names)):
            if name not in reasons.setdefault(place, []):
                reasons[place].append(f"batch_{name}")
    quarantined = []
    for place in sorted(reasons):
        row, broken = names[place], reasons[place]
        if row.id in released:
            notes.append(f"row {row.id} breaks {', '.join(broken)} and was released by a person")
        else:
            detail = "breaks " + ", ".join(broken)
            quarantined.append(
                QuarantinedRow(row_id=row.id, digest=row.digest, reason=f"contract.{broken[0]}", detail=detail)
            )
    held = {row.row_id for row in quarantined}
    return ContractReport(
        contract=verdict.contract.name,
        contract_digest=verdict.contract.digest,
        rows=len(names),
        accepted=tuple(row.id for row in names if row.id not in held),
        quarantined=tuple(quarantined),
        warnings=tuple(notes),
    )


def validate(rows: Sequence[LabelledRow], contract_path: Path, *, released: Set[str] = frozenset()) -> ContractReport:
    """Hold every row against one contract.

    Args:
        rows: in any order; ids should differ.
        contract_path: an ODCS 3.1 YAML file.
        released: ids a person let through; what they break is reported as a warning.

    Returns:
        accepted ids in the order given, and each other row with the first rule it broke as `contract.<rule>` and all
        of them in `detail`.

    Raises:
        ContractError: the contract is malformed or holds a rule that cannot be mapped or run.
    """
    verdict = judge_rows(rows, load_contract(contract_path), labelled_columns)
    return report_of(verdict, [Named(row.id, row.digest) for row in rows], released)
