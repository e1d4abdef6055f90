"""A fast pass over Arrow batches: for each rule, a superset of the rows that Great Expectations could refuse.

Nulls, sets, bounds, lengths and pairs are settled exactly by Arrow kernels. A pattern is searched with RE2 through
`regex_bounds` (all patterns a column must not match in one search first); what RE2 leaves open is searched with
Python's `re` in those rows only. Values that must be unique are left to `contract_unique`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.errors import ContractError
from data_contracts.contract import Contract, Rule
from data_contracts.contract_columns import COLUMNS, arrow_type
from data_contracts.regex_bounds import bounds

if TYPE_CHECKING:
    import pyarrow as pa

PREFIX = "expect_column_"
UNIQUE = PREFIX + "values_to_be_unique"
FORBIDS = {PREFIX + "values_to_not_match_regex", PREFIX + "values_to_not_match_regex_list"}
DEMANDS = {PREFIX + "values_to_match_regex", PREFIX + "values_to_match_regex_list"}


def rule_columns(rule: Rule) -> tuple[str, ...]:
    """Columns a rule reads."""
    return tuple(str(rule.kwargs[key]) for key in ("column", "column_A", "column_B") if key in rule.kwargs)


def columns_of(contract: Contract) -> tuple[str, ...]:
    """Columns the contract's rules read, in the order of `COLUMNS`."""
    named = {name for rule in contract.rules for name in rule_columns(rule)}
    return tuple(name for name in COLUMNS if name in named)


def patterns_of(rule: Rule) -> list[str]:
    """The patterns of a rule."""
    return list(rule.kwargs.get("regex_list") or [rule.kwargs["regex"]])


@dataclass(frozen=True)
class _Forbidden:
    """The rules that forbid patterns in one column, and one RE2 search for all of them."""

    column: str
    rules: tuple[Rule, ...]
    together: str | None
    """None where RE2 refuses it (too large): then each is searched alone."""


def _mask(found: Any) -> np.ndarray:
    import pyarrow.compute as pc

    return np.asarray(pc.fill_null(found, False).to_numpy(zero_copy_only=False), dtype=bool)


def _search(texts: Any, pattern: str) -> np.ndarray | None:
    """(n,) where RE2 finds the pattern (False for null); None if RE2 refuses the pattern."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        return _mask(pc.match_substring_regex(texts, pattern))
    except pa.ArrowInvalid:
        return None


class Scanner:
    """The fast pass of one contract."""

    def __init__(self, contract: Contract) -> None:
        import pyarrow as pa

        self.contract = contract
        self.columns = columns_of(contract)
        self.unique = tuple(rule for rule in contract.rules if rule.expectation == UNIQUE)
        by_column: dict[str, list[Rule]] = {}
        for rule in contract.rules:
            if rule.expectation in FORBIDS:
                by_column.setdefault(str(rule.kwargs["column"]), []).append(rule)
        self._forbidden = []
        for column, rules in by_column.items():
            wide = "|".join(f"(?:{bounds(pattern).wide})" for rule in rules for pattern in patterns_of(rule))
            usable = _search(pa.array([""]), wide) is not None
            self._forbidden.append(_Forbidden(column, tuple(rules), wide if usable else None))

    def prepare(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The columns the rules read, in the types of `COLUMNS`.

        Raises:
            ContractError: a column is missing or holds another type: a rule is never skipped.
        """
        import pyarrow as pa

        arrays = []
        for name in self.columns:
            place = batch.schema.get_field_index(name)
            if place < 0:
                raise ContractError(
                    "a column that the contract judges is missing",
                    where=name,
                    expected=", ".join(self.columns),
                    found=", ".join(batch.schema.names),
                )
            arrays.append(_typed(batch.column(place), name))
        return pa.RecordBatch.from_arrays(arrays, names=list(self.columns))

    def suspects(self, batch: pa.RecordBatch) -> dict[str, np.ndarray]:
        """Rule name -> (n,) bool: rows that it might refuse, for a batch from `prepare`."""
        found: dict[str, np.ndarray] = {}
        for group in self._forbidden:
            found |= _forbidden(group, batch.column(group.column))
        for rule in self.contract.rules:
            if rule.name not in found and rule.expectation != UNIQUE:
                found[rule.name] = _simple(rule, batch)
        return found


def _typed(column: Any, name: str) -> Any:
    import pyarrow as pa

    wanted, kind = arrow_type(COLUMNS[name]), column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.dictionary_decode(), kind.value_type
    same = {
        "string": pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view(),
        "integer": pa.types.is_integer(kind),
        "boolean": pa.types.is_boolean(kind),
        "timestamp": pa.types.is_timestamp(kind) and kind.tz is not None,
    }[COLUMNS[name]]
    if not same and not pa.types.is_null(kind):
        raise ContractError("a column has another type", where=name, expected=str(wanted), found=str(kind))
    # Text keeps its 32 or 64 bit offsets: no copy.
    if COLUMNS[name] == "string" and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return column
    return column if kind == wanted else column.cast(wanted)


# --- one rule ----------------------------------------------------------------------------------


def _simple(rule: Rule, batch: pa.RecordBatch) -> np.ndarray:
    import pyarrow.compute as pc

    kind, kwargs = rule.expectation.removeprefix(PREFIX), rule.kwargs
    if kind.startswith("pair_"):
        return _pair(kind, kwargs, batch)
    column = batch.column(str(kwargs["column"]))
    if rule.expectation in DEMANDS:
        return _demanded(rule, column)
    if kind == "values_to_not_be_null":
        return _mask(pc.is_null(column))
    if kind == "values_to_be_null":
        return _mask(pc.is_valid(column))
    if kind in ("values_to_be_in_set", "values_to_not_be_in_set"):
        import pyarrow as pa

        member = pc.is_in(column, value_set=pa.array(list(kwargs["value_set"]), column.type))
        bad = pc.invert(member) if kind == "values_to_be_in_set" else member
        return _mask(pc.and_(bad, pc.is_valid(column)))
    if kind == "value_lengths_to_equal":
        return _mask(pc.not_equal(pc.utf8_length(column), kwargs["value"]))
    if kind == "value_lengths_to_be_between":
        return _outside(pc.utf8_length(column), kwargs)
    if kind == "values_to_be_between":
        return _outside(column, kwargs)
    raise ContractError("no fast pass for this expectation", where=rule.name, found=rule.expectation)


def _outside(values: Any, kwargs: Mapping[str, Any]) -> np.ndarray:
    import pyarrow.compute as pc

    bad = np.zeros(len(values), dtype=bool)
    for key, strict, below, below_or_equal in (
        ("min_value", "strict_min", pc.less, pc.less_equal),
        ("max_value", "strict_max", pc.greater, pc.greater_equal),
    ):
        if kwargs.get(key) is not None:
            compare = below_or_equal if kwargs.get(strict) else below
            bad |= _mask(compare(values, _scalar(kwargs[key], values.type)))
    return bad


def _scalar(value: Any, kind: Any) -> Any:
    from datetime import datetime

    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return pa.scalar(datetime.fromisoformat(str(value)), kind)
    return pa.scalar(value, kind)


def _pair(kind: str, kwargs: Mapping[str, Any], batch: pa.RecordBatch) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    one, other = batch.column(str(kwargs["column_A"])), batch.column(str(kwargs["column_B"]))
    or_equal = pc.greater_equal if kwargs.get("or_equal") else pc.greater
    compare = pc.equal if kind == "pair_values_to_be_equal" else or_equal
    good = compare(one, other)
    if pa.types.is_integer(one.type):
        # pandas makes floats of a column of numbers with nulls; what two floats cannot tell apart stays suspect.
        good = pc.and_(good, compare(one.cast(pa.float64(), safe=False), other.cast(pa.float64(), safe=False)))
    missing = np.stack([_mask(pc.is_null(one)), _mask(pc.is_null(other))])
    ignored = {
        "both_values_are_missing": missing.all(axis=0),
        "either_value_is_missing": missing.any(axis=0),
        "neither": np.zeros(len(one), dtype=bool),
    }[str(kwargs.get("ignore_row_if") or "both_values_are_missing")]
    return ~_mask(good) & ~ignored


def _forbidden(group: _Forbidden, column: Any) -> dict[str, np.ndarray]:
    import pyarrow as pa

    size = len(column)
    anything = None if group.together is None else _search(column, group.together)
    places = np.arange(size) if anything is None else np.flatnonzero(anything)
    texts = column.take(pa.array(places)) if len(places) < size else column
    found = {}
    for rule in group.rules:
        bad = np.zeros(len(places), dtype=bool)
        for pattern in patterns_of(rule):
            bad |= _matches(pattern, texts, wide=True)
        found[rule.name] = np.zeros(size, dtype=bool)
        found[rule.name][places[bad]] = True
    return found


def _demanded(rule: Rule, column: Any) -> np.ndarray:
    import pyarrow.compute as pc

    each = [_matches(pattern, column, wide=False) for pattern in patterns_of(rule)]
    some = rule.expectation.endswith("_list") and rule.kwargs.get("match_on", "any") == "any"
    good = np.logical_or.reduce(each) if some else np.logical_and.reduce(each)
    return ~good & _mask(pc.is_valid(column))


def _matches(pattern: str, texts: Any, *, wide: bool) -> np.ndarray:
    """(n,) texts in which the pattern is found; wide: by `re` or RE2, else: by both."""
    import pyarrow as pa

    around = bounds(pattern)
    sure = _search(texts, around.narrow)
    if around.exact and sure is not None:
        return sure
    sure = np.zeros(len(texts), dtype=bool) if sure is None else sure
    possible = _search(texts, around.wide)
    open_ = ~sure if possible is None else possible & ~sure
    places = np.flatnonzero(open_)
    if not len(places):
        return sure
    some = texts.take(pa.array(places))
    python = _python_search(pattern, some.to_pylist())
    native = _search(some, pattern)
    if native is None:
        native = python
    found = sure.copy()
    found[places] = (python | native) if wide else (python & native)
    return found


def _python_search(pattern: str, texts: Sequence[str | None]) -> np.ndarray:
    find = re.compile(pattern).search
    known: dict[str | None, bool] = {None: False}
    for text in texts:
        if text not in known:
            known[text] = find(text) is not None  # type: ignore[arg-type]
    return np.fromiter((known[text] for text in texts), dtype=bool, count=len(texts))
