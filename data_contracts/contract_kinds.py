"""Each row against the contract of its kind: corrections, preferences, thumbs, incidents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import ContractError
from data_contracts.contract import Contract, load_contract
from data_contracts.contract_columns import (
    COLUMNS,
    feedback_columns,
    incident_columns,
    labelled_columns,
    thumb_columns,
)
from data_contracts.digests import digest
from data_contracts.expectations import Named, TableVerdict, judge_rows, report_of
from data_contracts.records import ContractReport, Feedback, Incident, LabelledRow, QuarantinedRow

NO_CONTRACT = "contract.no_contract"


@dataclass(frozen=True)
class KindVerdict:
    """The rows of one kind against its contract."""

    kind: str
    contract: Contract | None
    """None where no contract is named for the kind: then every row is quarantined."""
    report: ContractReport
    counts: Mapping[str, int]
    """Rule -> rows that break it, warnings too; in the order of the contract."""


OF_LABELLED = frozenset(COLUMNS) - {"thumb", "rating", "label", "title", "severity", "paraphrases", "paraphrase_count"}
OF_KIND: dict[str, frozenset[str]] = {
    "correction": OF_LABELLED,
    "preference": OF_LABELLED,
    "thumb": frozenset(
        ("id", "interaction_id", "kind", "principal", "scope", "source", "created_at", "thumb", "rating", "label")
    ),
    "incident": frozenset(COLUMNS) - {"scope", "source", "version", "thumb", "rating", "label"},
}
"""The columns rows of a kind have."""


def check_kind(kind: str, contract: Contract, path: Path) -> None:
    """Refuse a contract that is for rows of another kind: it would quarantine every row, or fail at the first.

    Raises:
        ContractError: a rule reads a column these rows do not have, or wants another `kind`.
    """
    known = OF_KIND.get(kind)
    if known is None:
        return
    read = {str(rule.kwargs[key]) for rule in contract.rules for key in ("column", "column_A", "column_B")
            if key in rule.kwargs}  # fmt: skip
    sets = (r.kwargs for r in contract.rules if r.expectation == "expect_column_values_to_be_in_set")
    wanted = [str(one) for kwargs in sets if kwargs["column"] == "kind" for one in kwargs["value_set"]]
    if read <= known and (not wanted or kind in wanted):
        return
    raise ContractError(
        f"this contract is not for rows of kind {kind}",
        where=f"ingest.contracts.{kind}: {path}",
        expected=f"rules on columns of such rows ({', '.join(sorted(known))})",
        found=", ".join(sorted(read - known)) or f"a rule that wants kind {' or '.join(wanted)}",
        fix=f"name the contract of {kind}s there, or leave it out: the shipped one is taken",
    )


def _judge(
    kind: str,
    rows: Sequence[Any],
    path: Path,
    columns: Callable[[Any], Mapping[str, Any]],
    names: Sequence[Named],
    released: Set[str],
) -> KindVerdict:
    contract = load_contract(path)
    check_kind(kind, contract, path)
    verdict: TableVerdict = judge_rows(rows, contract, columns)
    counts = {name: len(places) for name, places in verdict.broken.items()}
    return KindVerdict(kind, verdict.contract, report_of(verdict, names, released), counts)


def _without_contract(kind: str, rows: Sequence[LabelledRow], released: Set[str]) -> KindVerdict:
    held = [row for row in rows if row.id not in released]
    report = ContractReport(
        contract="none",
        contract_digest=digest(["no contract", kind]),
        rows=len(rows),
        accepted=tuple(row.id for row in rows if row.id in released),
        quarantined=tuple(
            QuarantinedRow(
                row_id=row.id, digest=row.digest, reason=NO_CONTRACT, detail=f"no contract is named for kind {kind}"
            )
            for row in held
        ),
    )
    return KindVerdict(kind, None, report, {})


def judge_kinds(
    rows: Sequence[LabelledRow], contracts: Mapping[Any, Path], *, released: Set[str] = frozenset()
) -> list[KindVerdict]:
    """Hold every row against the contract of its kind; rows of a kind that has none are quarantined.

    Raises:
        ContractError: as `expectations.validate`.
    """
    kinds: dict[str, list[LabelledRow]] = {kind: [] for kind in ("correction", "preference") if kind in contracts}
    for row in rows:
        kinds.setdefault(row.kind.value, []).append(row)
    found = []
    for kind, some in kinds.items():
        if kind in contracts:
            names = [Named(row.id, row.digest) for row in some]
            found.append(_judge(kind, some, contracts[kind], labelled_columns, names, released))
        else:
            found.append(_without_contract(kind, some, released))
    return found


def judge_thumbs(rows: Sequence[Feedback], contract: Path, *, released: Set[str] = frozenset()) -> KindVerdict:
    """Hold thumbs (feedback without its interaction) against their contract."""
    # A feedback row's digest needs its interaction; a thumb's salt and id name it as well.
    names = [Named(row.id, digest(["thumb", row.salt, row.id])) for row in rows]
    return _judge("thumb", rows, contract, feedback_columns, names, released)


def judge_rated(rows: Sequence[LabelledRow], contract: Path, *, released: Set[str] = frozenset()) -> KindVerdict:
    """Hold thumbs that may teach, with the request each is about, against the contract of thumbs."""
    names = [Named(row.id, row.digest) for row in rows]
    return _judge("thumb", rows, contract, thumb_columns, names, released)


def judge_incidents(rows: Sequence[Incident], contract: Path, *, released: Set[str] = frozenset()) -> KindVerdict:
    """Hold incidents against their contract; the digest of one is over its id alone, so that it gives no text away."""
    names = [Named(row.id, digest(["incident", row.id])) for row in rows]
    return _judge("incident", rows, contract, incident_columns, names, released)


def together(verdicts: Sequence[KindVerdict], rows: Sequence[LabelledRow]) -> ContractReport:
    """One report of all kinds, accepted ids in the order of `rows`."""
    reports = [verdict.report for verdict in verdicts]
    held = {row.row_id for report in reports for row in report.quarantined}
    names = list(dict.fromkeys(report.contract for report in reports))
    digests = {verdict.kind: verdict.report.contract_digest for verdict in verdicts}
    one = len(set(digests.values())) == 1
    return ContractReport(
        contract=", ".join(names),
        contract_digest=next(iter(digests.values())) if one else digest(digests),
        rows=len(rows),
        accepted=tuple(row.id for row in rows if row.id not in held),
        quarantined=tuple(row for report in reports for row in report.quarantined),
        warnings=tuple(note for report in reports for note in report.warnings),
    )
