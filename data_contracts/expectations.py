"""Rows against their contract, with Great Expectations: each row is accepted, or quarantined with the rules it broke.

The only module that imports great_expectations. Every call makes its own ephemeral context (a batch definition shared
between threads validates the other thread's rows) and reads the ids of failing rows whatever `success` says.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from configs.errors import ContractError
from data_contracts.contract import COLUMNS, Contract, Rule, load_contract
from data_contracts.overlap import answer_key
from data_contracts.records import ContractReport, LabelledRow, QuarantinedRow

_LOCK = threading.Lock()
_INDEX = "_row"


def _import() -> Any:
    """Great Expectations with its telemetry off; importing it warns of other packages' deprecations."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx

    return gx


def _encodes(row: LabelledRow) -> bool:
    """False where a text holds a lone surrogate: it can be neither stored nor digested."""
    try:
        for text in (row.completion, row.answer, row.principal, *(m.content for m in row.messages)):
            text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def frame(rows: Sequence[LabelledRow]) -> Any:
    """A pandas frame of the columns a contract may name (`contract.COLUMNS`) and the row's place, `_row`."""
    import pandas as pd

    values: dict[str, list[Any]] = {
        name: [getattr(row, name) for row in rows]
        for name in (
            "id",
            "interaction_id",
            "principal",
            "scope",
            "source",
            "version",
            "prompt",
            "answer",
            "completion",
        )
    }
    values["kind"] = [str(row.kind) for row in rows]
    values["last_role"] = [row.messages[-1].role if row.messages else None for row in rows]
    data: dict[str, Any] = {name: pd.Series(column, dtype=object) for name, column in values.items()}
    data["created_at"] = pd.Series([row.created_at for row in rows], dtype="datetime64[us, UTC]")
    data["turns"] = pd.Series([len(row.messages) for row in rows], dtype="int64")
    data["completion_words"] = pd.Series([len(row.completion.split()) for row in rows], dtype="int64")
    same = [answer_key(row.completion) == answer_key(row.answer) for row in rows]
    data["repeats_answer"] = pd.Series(same, dtype=bool)
    return pd.DataFrame({**{name: data[name] for name in COLUMNS}, _INDEX: range(len(rows))})


def _broken(rows: Sequence[LabelledRow], contract: Contract) -> dict[str, list[int]]:
    """Rule name -> places of the rows that break it."""
    gx = _import()
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.expectations.registry import get_expectation_impl

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("rows")
    suite = context.suites.add(gx.ExpectationSuite("contract"))
    for rule in contract.rules:
        try:
            expectation = get_expectation_impl(rule.expectation)(**rule.kwargs, meta={"rule": rule.name})
        except Exception as error:  # whatever GX's own validation of the arguments raises
            first = str(error).replace("\n", " ")[:300]
            raise ContractError(
                "Great Expectations refuses a rule's arguments", where=rule.name, found=first, fix="mend its kwargs"
            ) from error
        suite.add_expectation(expectation)
    definition = context.validation_definitions.add(gx.ValidationDefinition(name="rows", data=batch, suite=suite))
    result = definition.run(
        batch_parameters={"dataframe": frame(rows)},
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [_INDEX]},
    )
    return {str(one.expectation_config.meta["rule"]): _places(one) for one in result.results}


def _places(result: Any) -> list[int]:
    rule = result.expectation_config.meta["rule"]
    found = result.result or {}
    if "unexpected_index_list" not in found:
        raise ContractError("a rule could not be run", where=rule, found=str(result.exception_info)[:300])
    places = [int(entry[_INDEX]) for entry in found["unexpected_index_list"] or []]
    if len(places) != found["unexpected_count"]:
        raise ContractError(
            "Great Expectations names fewer rows than it counts",
            where=rule,
            expected=found["unexpected_count"],
            found=len(places),
        )
    return places


def validate(rows: Sequence[LabelledRow], contract_path: Path, *, released: Set[str] = frozenset()) -> ContractReport:
    """Hold every row against the contract.

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
    contract = load_contract(contract_path)
    reasons: list[list[str]] = [[] if _encodes(row) else ["text_encoding"] for row in rows]
    readable = [place for place, broken in enumerate(reasons) if not broken]
    notes: list[str] = []
    # GX keeps the current context in a module-level variable: one validation at a time in a process.
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        broken = _broken([rows[place] for place in readable], contract)
    for rule in contract.rules:
        places = [readable[i] for i in broken[rule.name]]
        if places:
            _apply(rule, places, reasons, notes)
    quarantined = []
    for row, names in zip(rows, reasons, strict=True):
        if names and row.id in released:
            notes.append(f"row {row.id} breaks {', '.join(names)} and was released by a person")
        elif names:
            quarantined.append(
                QuarantinedRow(
                    row_id=row.id, digest=row.digest, reason=f"contract.{names[0]}", detail="breaks " + ", ".join(names)
                )
            )
    held = {row.row_id for row in quarantined}
    return ContractReport(
        contract=contract.name,
        contract_digest=contract.digest,
        rows=len(rows),
        accepted=tuple(row.id for row in rows if row.id not in held),
        quarantined=tuple(quarantined),
        warnings=tuple(notes),
    )


def _apply(rule: Rule, places: Sequence[int], reasons: list[list[str]], notes: list[str]) -> None:
    if rule.severity == "warning":
        notes.append(f"{len(places)} rows break {rule.name} (a warning): {rule.description}".rstrip(": "))
        return
    for place in places:
        reasons[place].append(rule.name)
    if rule.severity == "critical":
        notes.append(f"{len(places)} rows break {rule.name}, which is critical: the whole batch is quarantined")
        for names in reasons:
            if rule.name not in names:
                names.append(f"batch_{rule.name}")
