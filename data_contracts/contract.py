"""A data contract (ODCS 3.1 YAML) compiled into named rules. A rule that cannot be mapped is an error, never skipped.

What a property may say, and what it becomes:

    required: true                         not null
    unique: true                           no value twice
    enum: [{value: a}, ...]                one of these
    logicalTypeOptions                     minLength, maxLength, pattern, minimum, maximum
    quality, type library, mustBe: 0       nullValues, missingValues, invalidValues, duplicateValues
    quality, type custom                   engine greatExpectations, one row-level expectation with its kwargs

`severity` of a quality rule: `error` (the default) quarantines the row, `critical` the whole batch, `warning` reports.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from configs.errors import ContractError
from data_contracts.contract_columns import COLUMNS
from data_contracts.digests import digest

Severity = Literal["critical", "error", "warning"]

ROW_EXPECTATIONS = frozenset(
    "expect_column_" + name
    for name in (
        "values_to_not_be_null", "values_to_be_null", "values_to_be_unique", "values_to_be_in_set",
        "values_to_not_be_in_set", "values_to_be_between", "value_lengths_to_be_between", "value_lengths_to_equal",
        "values_to_match_regex", "values_to_not_match_regex", "values_to_match_regex_list",
        "values_to_not_match_regex_list", "pair_values_to_be_equal", "pair_values_a_to_be_greater_than_b",
    )
)  # fmt: skip

_STRING_OPTIONS = {"minLength": "min_value", "maxLength": "max_value"}
_NUMBER_OPTIONS = {"minimum": "min_value", "maximum": "max_value"}
_RULE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True)
class Rule:
    """One named rule: a Great Expectations expectation with its arguments."""

    name: str
    expectation: str
    kwargs: Mapping[str, Any]
    severity: Severity = "error"
    description: str = ""


@dataclass(frozen=True)
class Contract:
    """A compiled contract."""

    name: str
    digest: str
    rules: tuple[Rule, ...] = field(repr=False)


def _fail(message: str, where: str, **more: Any) -> ContractError:
    return ContractError(message, where=where, **more)


def _check_keys(data: Any, model: Any, where: str) -> None:
    """Refuse keys the standard does not have: its library drops them silently, and with them the rule they meant."""
    if not isinstance(data, Mapping):
        raise _fail("a mapping was expected", where, found=type(data).__name__)
    known = {f.alias or name for name, f in model.model_fields.items()}
    for key in data:
        if key not in known:
            raise _fail(f"`{key}` is not a key of ODCS 3.1", where, expected=", ".join(sorted(known)), found=key)


def _read(path: Path) -> tuple[dict[str, Any], Any]:
    from open_data_contract_standard.model import OpenDataContractStandard
    from pydantic import ValidationError

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _fail("the contract cannot be read", str(path), found=error, fix="mend `ingest.contract`") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _fail("not valid YAML", str(path), found=str(error).replace("\n", " ")) from error
    if not isinstance(data, dict):
        raise _fail("a contract is a mapping", str(path), found=type(data).__name__)
    try:
        parsed = OpenDataContractStandard.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise _fail(f"`{key}`: {first['msg']}", str(path), found=repr(first.get("input"))[:200]) from error
    if parsed.kind != "DataContract" or not str(parsed.apiVersion or "").startswith("v3."):
        raise _fail(
            "not an ODCS 3 contract",
            str(path),
            expected="kind: DataContract and apiVersion: v3.1.0",
            found=f"kind: {parsed.kind}, apiVersion: {parsed.apiVersion}",
        )
    return data, parsed


def load_contract(path: Path) -> Contract:
    """Read and compile a contract file.

    Raises:
        ContractError: unreadable, not ODCS 3, or a rule that cannot be mapped; names the rule and what is known.
    """
    from open_data_contract_standard.model import DataQuality, SchemaObject, SchemaProperty

    data, parsed = _read(path)
    tables = data.get("schema") or []
    if len(tables) != 1:
        raise _fail("one schema object is expected", str(path), found=f"{len(tables)}")
    _check_keys(tables[0], SchemaObject, str(path))
    where = f"{path.name}: {tables[0].get('name')}"
    rules = [*_quality(tables[0].get("quality"), None, where, DataQuality)]
    for raw in tables[0].get("properties") or []:
        _check_keys(raw, SchemaProperty, where)
        rules += _property(raw, where, DataQuality)
    names = [rule.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise _fail("two rules have the same name", where, found=name, fix="give each quality rule its own `name`")
    if not rules:
        raise _fail("a contract without rules", where, fix="add `required`, `logicalTypeOptions` or `quality`")
    return Contract(f"{parsed.id or parsed.name} {parsed.version}", digest(data), tuple(rules))


def _property(raw: Mapping[str, Any], where: str, quality_model: Any) -> Iterator[Rule]:
    name = str(raw.get("name"))
    where = f"{where}.{name}"
    if name not in COLUMNS:
        raise _fail("no such column", where, expected=", ".join(COLUMNS), found=name)
    logical = raw.get("logicalType")
    if logical is not None and logical != COLUMNS[name]:
        raise _fail("the column has another type", where, expected=COLUMNS[name], found=logical)
    for key in ("properties", "items", "map", "relationships"):
        if raw.get(key):
            raise _fail(f"`{key}` cannot be mapped to a rule", where, fix="remove it")
    if raw.get("required"):
        yield Rule(f"{name}_required", "expect_column_values_to_not_be_null", {"column": name})
    if raw.get("unique") or raw.get("primaryKey"):
        yield Rule(f"{name}_unique", "expect_column_values_to_be_unique", {"column": name})
    if raw.get("enum"):
        values = [entry["value"] for entry in raw["enum"]]
        yield Rule(f"{name}_enum", "expect_column_values_to_be_in_set", {"column": name, "value_set": values})
    yield from _options(name, raw.get("logicalTypeOptions") or {}, where)
    yield from _quality(raw.get("quality"), name, where, quality_model)


def _options(name: str, options: Mapping[str, Any], where: str) -> Iterator[Rule]:
    text = COLUMNS[name] == "string"
    bounds = _STRING_OPTIONS if text else _NUMBER_OPTIONS if COLUMNS[name] == "integer" else {}
    kind = "expect_column_value_lengths_to_be_between" if text else "expect_column_values_to_be_between"
    for key, value in options.items():
        if key in bounds and isinstance(value, int) and not isinstance(value, bool):
            snake = re.sub(r"([A-Z])", r"_\1", key).lower()
            yield Rule(f"{name}_{snake}", kind, {"column": name, bounds[key]: value})
        elif key == "pattern" and text:
            pattern = _regex(value, where)
            yield Rule(f"{name}_pattern", "expect_column_values_to_match_regex", {"column": name, "regex": pattern})
        else:
            known = [*bounds, *(["pattern"] if text else [])]
            raise _fail(
                f"`logicalTypeOptions.{key}` cannot be mapped to a rule",
                where,
                expected=", ".join(known) or "no options for this type",
                found=f"{key}: {value!r}",
            )


def _regex(value: Any, where: str) -> str:
    try:
        re.compile(value)
    except (re.error, TypeError) as error:
        raise _fail("not a regular expression", where, found=f"{value!r}: {error}") from error
    return str(value)


def _quality(entries: Any, column: str | None, where: str, quality_model: Any) -> Iterator[Rule]:
    for number, raw in enumerate(entries or [], 1):
        here = f"{where}.quality[{number}]"
        _check_keys(raw, quality_model, here)
        severity = raw.get("severity", "error")
        if severity not in ("critical", "error", "warning"):
            raise _fail("unknown severity", here, expected="critical, error or warning", found=severity)
        name = raw.get("name") or (f"{column}_{raw.get('metric') or raw.get('rule')}" if column else "")
        name = re.sub(r"([a-z])([A-Z])", r"\1_\2", str(name)).lower()
        if not _RULE_NAME.fullmatch(name):
            raise _fail("a quality rule needs a `name`", here, expected="a-z, 0-9 and _, at most 64", found=name)
        for key in ("schedule", "query", "unit"):
            if raw.get(key):
                raise _fail(f"`{key}` cannot be mapped to a rule", here, found=raw[key])
        kind = raw.get("type", "library")
        if kind == "library":
            expectation, kwargs = _library(raw, column, here)
        elif kind == "custom":
            expectation, kwargs = _custom(raw, column, here)
        else:
            raise _fail("this type of quality rule cannot be mapped", here, expected="library or custom", found=kind)
        yield Rule(name, expectation, kwargs, severity, str(raw.get("description") or ""))


def _library(raw: Mapping[str, Any], column: str | None, where: str) -> tuple[str, dict[str, Any]]:
    metric = raw.get("metric") or raw.get("rule")
    arguments = dict(raw.get("arguments") or {})
    operators = {key: value for key, value in raw.items() if key.startswith("must")}
    if column is None or metric not in ("nullValues", "missingValues", "invalidValues", "duplicateValues"):
        known = "nullValues, missingValues, invalidValues or duplicateValues of a property"
        raise _fail("this metric cannot be mapped to a rule on rows", where, expected=known, found=metric)
    if operators != {"mustBe": 0}:
        raise _fail("every row is judged, so the count of bad ones `mustBe: 0`", where, found=operators)
    if metric == "nullValues" and not arguments:
        return "expect_column_values_to_not_be_null", {"column": column}
    if metric == "duplicateValues" and not arguments:
        return "expect_column_values_to_be_unique", {"column": column}
    if metric == "missingValues" and set(arguments) == {"missingValues"}:
        values = [value for value in arguments["missingValues"] if value is not None]
        return "expect_column_values_to_not_be_in_set", {"column": column, "value_set": values}
    if metric == "invalidValues" and set(arguments) == {"validValues"}:
        return "expect_column_values_to_be_in_set", {"column": column, "value_set": list(arguments["validValues"])}
    if metric == "invalidValues" and set(arguments) == {"pattern"}:
        pattern = _regex(arguments["pattern"], where)
        return "expect_column_values_to_match_regex", {"column": column, "regex": pattern}
    raise _fail(f"these arguments of {metric} cannot be mapped", where, found=arguments)


def _custom(raw: Mapping[str, Any], column: str | None, where: str) -> tuple[str, dict[str, Any]]:
    body = raw.get("implementation")
    if raw.get("engine") != "greatExpectations" or body is None:
        raise _fail(
            "a custom rule needs engine greatExpectations and an implementation", where, found=raw.get("engine")
        )
    if isinstance(body, str):
        try:
            body = yaml.safe_load(body)
        except yaml.YAMLError as error:
            raise _fail("the implementation is not YAML", where, found=str(error).replace("\n", " ")) from error
    if not isinstance(body, Mapping) or set(body) - {"type", "expectation_type", "kwargs"}:
        raise _fail("the implementation has a `type` and `kwargs`", where, found=repr(body)[:200])
    expectation = body.get("type") or body.get("expectation_type")
    if expectation not in ROW_EXPECTATIONS:
        raise _fail(
            "not an expectation on rows", where, expected=", ".join(sorted(ROW_EXPECTATIONS)), found=expectation
        )
    kwargs = dict(body.get("kwargs") or {})
    if "mostly" in kwargs:
        raise _fail("`mostly` lets bad rows through", where, found=kwargs["mostly"], fix="use severity: warning")
    if column is not None and "_pair_" not in str(expectation):
        kwargs.setdefault("column", column)
    for key in ("regex", "regex_list"):
        for pattern in [kwargs[key]] if key == "regex" and key in kwargs else kwargs.get(key) or []:
            _regex(pattern, where)
    for key in ("column", "column_A", "column_B"):
        if key in kwargs and kwargs[key] not in COLUMNS:
            raise _fail("no such column", where, expected=", ".join(COLUMNS), found=kwargs[key])
    return str(expectation), kwargs
