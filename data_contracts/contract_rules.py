"""The expectations a rule may use, and the arguments each may have, checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from configs.errors import ContractError
from data_contracts.contract_columns import COLUMNS
from data_contracts.regex_bounds import one_engine

ANY = frozenset(("string", "integer", "boolean", "timestamp"))
TEXT = frozenset(("string",))
ORDERED = frozenset(("string", "integer", "timestamp"))
LISTED = frozenset(("string", "integer", "boolean"))
_RANGE = ("min_value", "max_value", "strict_min", "strict_max")


@dataclass(frozen=True)
class Takes:
    """What an expectation takes besides its column."""

    types: frozenset[str]
    """Logical types of columns it can judge."""
    needs: tuple[str, ...] = ()
    may: tuple[str, ...] = ()


EXPECTATIONS: dict[str, Takes] = {
    "expect_column_values_to_not_be_null": Takes(ANY),
    "expect_column_values_to_be_null": Takes(ANY),
    "expect_column_values_to_be_unique": Takes(ANY),
    "expect_column_values_to_be_in_set": Takes(LISTED, ("value_set",)),
    "expect_column_values_to_not_be_in_set": Takes(LISTED, ("value_set",)),
    "expect_column_values_to_be_between": Takes(frozenset(("integer", "timestamp")), (), _RANGE),
    "expect_column_value_lengths_to_be_between": Takes(TEXT, (), _RANGE),
    "expect_column_value_lengths_to_equal": Takes(TEXT, ("value",)),
    "expect_column_values_to_match_regex": Takes(TEXT, ("regex",)),
    "expect_column_values_to_not_match_regex": Takes(TEXT, ("regex",)),
    "expect_column_values_to_match_regex_list": Takes(TEXT, ("regex_list",), ("match_on",)),
    "expect_column_values_to_not_match_regex_list": Takes(TEXT, ("regex_list",)),
    "expect_column_pair_values_to_be_equal": Takes(ANY, (), ("ignore_row_if",)),
    "expect_column_pair_values_a_to_be_greater_than_b": Takes(ORDERED, (), ("or_equal", "ignore_row_if")),
}
"""Expectations that judge a row. `mostly` and `row_condition` let rows through unseen and are refused."""


def _fail(message: str, **more: Any) -> ContractError:
    return ContractError(message, **more)


def pattern(value: Any) -> str:
    """A pattern as Great Expectations gets it.

    Raises:
        ContractError: not a regular expression, or one whose meaning depends on the engine.
    """
    try:
        re.compile(value)
        return one_engine(value)
    except FutureWarning as error:
        fix = "escape the bracket, or write the characters out"
        raise _fail(
            "a set inside a set means something else in every engine", found=f"{value!r}: {error}", fix=fix
        ) from error
    except (re.error, TypeError, OverflowError, RecursionError) as error:
        raise _fail("not a regular expression", found=f"{value!r}: {error}") from error


def values(given: Any, logical: str, name: str) -> list[Any]:
    """A set of allowed or forbidden values, all of the column's type."""
    wanted: type = {"string": str, "integer": int, "boolean": bool}.get(logical, type(None))
    if wanted is type(None):
        raise _fail(f"`{name}` cannot list values of this type", expected=", ".join(sorted(LISTED)), found=logical)
    if not isinstance(given, list) or not given or any(type(value) is not wanted for value in given):
        raise _fail(f"`{name}` is a list of {logical} values, at least one", found=repr(given)[:200])
    return [_exact(value, f"`{name}`") for value in given]


def bound(value: Any, logical: str, name: str) -> Any:
    """A bound of the column's type; a moment becomes ISO 8601 text with its offset."""
    if logical in ("integer", "length"):
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or (logical == "length" and value < 0):
            raise _fail(
                f"{name} is a whole number", expected="0, 1, 2, ..." if logical == "length" else None, found=repr(value)
            )
        return _exact(value, name)
    if logical == "timestamp":
        moment = value
        if isinstance(value, str):
            try:
                moment = datetime.fromisoformat(value)
            except ValueError:
                moment = None
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            raise _fail(
                f"{name} is a moment with its offset", expected="for example 2026-01-31T12:00:00Z", found=repr(value)
            )
        return moment.isoformat()
    raise _fail(f"{name} cannot bound this type", expected="integer or timestamp", found=logical)


def _exact(value: Any, name: str) -> Any:
    """Great Expectations keeps numbers as floats, which are exact below 2^53."""
    if isinstance(value, int) and abs(value) >= 2**53:
        raise _fail(f"{name} is too large", expected="below 2^53", found=value)
    return value


def _columns(kwargs: Mapping[str, Any], pair: bool, takes: Takes) -> str:
    names = ("column_A", "column_B") if pair else ("column",)
    for key in names:
        if kwargs.get(key) not in COLUMNS:
            raise _fail("no such column", expected=", ".join(COLUMNS), found=kwargs.get(key))
    types = {COLUMNS[str(kwargs[key])] for key in names}
    if len(types) > 1:
        raise _fail("two columns of different types cannot be compared", found=", ".join(sorted(types)))
    (logical,) = types
    if logical not in takes.types:
        found = f"{', '.join(str(kwargs[key]) for key in names)}: {logical}"
        raise _fail(
            "this expectation cannot judge the column's type", expected=", ".join(sorted(takes.types)), found=found
        )
    return logical


def check_kwargs(expectation: str, kwargs: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The arguments of a custom rule as Great Expectations gets them.

    Raises:
        ContractError: an unknown, missing or wrong argument.
    """
    takes, pair = EXPECTATIONS[expectation], "_pair_" in expectation
    known = (*(("column_A", "column_B") if pair else ("column",)), *takes.needs, *takes.may)
    if "mostly" in kwargs:
        raise _fail("`mostly` lets bad rows through", found=kwargs["mostly"], fix="use severity: warning")
    for key in kwargs:
        if key not in known:
            raise _fail(
                f"`{key}` is not an argument that can be mapped, in {name}", expected=", ".join(known), found=key
            )
    for key in takes.needs:
        if key not in kwargs:
            raise _fail(f"`{key}` is missing, in {name}", expected=", ".join(known))
    logical = _columns(kwargs, pair, takes)
    checked = {key: _CHECKS[key](value, logical) if key in _CHECKS else value for key, value in kwargs.items()}
    if "min_value" in known:
        _range(checked, "length" if "lengths" in expectation else logical)
    return checked


def _range(kwargs: dict[str, Any], logical: str) -> None:
    for key in ("min_value", "max_value"):
        if kwargs.get(key) is None:
            kwargs.pop(key, None)
        else:
            kwargs[key] = bound(kwargs[key], logical, f"`{key}`")
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is None and high is None:
        raise _fail("a range needs `min_value` or `max_value`")
    if low is not None and high is not None:
        at = datetime.fromisoformat if logical == "timestamp" else _same
        if at(low) > at(high):
            raise _fail("`min_value` is above `max_value`", found=f"{low} > {high}")


def _same(value: Any) -> Any:
    return value


def _one_of(name: str, *allowed: Any) -> Callable[[Any, str], Any]:
    def check(value: Any, _logical: str) -> Any:
        if not any(value == one and type(value) is type(one) for one in allowed):
            raise _fail(f"`{name}` has another value", expected=", ".join(map(repr, allowed)), found=repr(value))
        return value

    return check


def _patterns(value: Any, _logical: str) -> list[str]:
    if not isinstance(value, list) or not value:
        raise _fail("`regex_list` is a list of patterns, at least one", found=repr(value)[:200])
    return [pattern(one) for one in value]


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "value_set": lambda value, logical: values(value, logical, "value_set"),
    "value": lambda value, _logical: bound(value, "length", "`value`"),
    "regex": lambda value, _logical: pattern(value),
    "regex_list": _patterns,
    "match_on": _one_of("match_on", "any", "all"),
    "strict_min": _one_of("strict_min", True, False),
    "strict_max": _one_of("strict_max", True, False),
    "or_equal": _one_of("or_equal", True, False),
    "ignore_row_if": _one_of("ignore_row_if", "both_values_are_missing", "either_value_is_missing", "neither"),
}
