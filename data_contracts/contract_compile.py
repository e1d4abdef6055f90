"""From ODCS properties and quality entries to rules. A part that fails is a problem of its own; the rest is read on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from configs.errors import ContractError
from data_contracts.contract import SEVERITIES, Places, Problem, Rule
from data_contracts.contract_columns import COLUMNS
from data_contracts.contract_rules import EXPECTATIONS, bound, check_kwargs, pattern, values

Path = tuple[str | int, ...]
Parts = tuple[str, str, dict[str, Any]]
"""A suffix to the rule's name, an expectation, its kwargs."""

REFUSED_TOP = ("slaProperties", "slaDefaultElement")
"""Promises about the data that no rule on rows can hold."""
REFUSED_PROPERTY = ("properties", "items", "map", "relationships")
INTEGERS = {f"i{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32)} | {
    f"u{bits}": (0, 2**bits - 1) for bits in (8, 16, 32)
}
_STRING_OPTIONS = {"minLength": "min_value", "maxLength": "max_value"}
_NUMBER_OPTIONS = {
    "minimum": ("min_value", None),
    "maximum": ("max_value", None),
    "exclusiveMinimum": ("min_value", "strict_min"),
    "exclusiveMaximum": ("max_value", "strict_max"),
}
_NO_ROWS = ({"mustBe": 0}, {"mustBeLessThan": 1}, {"mustBeLessOrEqualTo": 0})
_RULE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class _Reader:
    """One contract being compiled: its rules, its fields and the problems so far."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.rules: list[Rule] = []
        self.fields: dict[str, str] = {}
        self.problems: list[Problem] = []

    def part(self, path: Path, label: str, found: Iterator[Rule]) -> None:
        """Take the rules of one entry; what fails is noted with its line."""
        where = self.places.at(path, label)
        try:
            for rule in found:
                self.rules.append(
                    Rule(rule.name, rule.expectation, rule.kwargs, rule.severity, rule.description, where)
                )
        except ContractError as error:
            self.problems.append(Problem(error.message, where, error.expected, error.found, error.fix))

    def table(self, table: Mapping[str, Any]) -> None:
        from open_data_contract_standard.model import SchemaObject

        path: Path = ("schema", 0)
        label = str(table.get("name"))
        self.part(path, label, _known_keys(table, SchemaObject))
        self.part(path, label, _table_says(table))
        self.quality(table.get("quality"), None, (*path, "quality"), label)
        keys = 0
        for number, raw in enumerate(table.get("properties") or []):
            here: Path = (*path, "properties", number)
            keys += bool(isinstance(raw, Mapping) and raw.get("primaryKey"))
            self.property(raw, here, f"{label}.{raw.get('name') if isinstance(raw, Mapping) else number}")
        if keys > 1:
            where = self.places.at((*path, "properties"), label)
            fix = "put `unique: true` on the one column that is unique by itself"
            self.problems.append(Problem("a key of several columns cannot be mapped to a rule on rows", where, fix=fix))

    def property(self, raw: Any, path: Path, label: str) -> None:
        from open_data_contract_standard.model import SchemaProperty

        before = len(self.problems)
        self.part(path, label, _known_keys(raw, SchemaProperty))
        if len(self.problems) == before:
            self.part(path, label, _property_says(raw))
        name = str(raw.get("name")) if isinstance(raw, Mapping) else ""
        if name not in COLUMNS:
            return
        if name in self.fields:
            self.problems.append(Problem("a property stands twice", self.places.at(path, label), found=name))
        self.fields[name] = COLUMNS[name]
        for key, read in (("enum", _enum), ("logicalTypeOptions", _options)):
            self.part((*path, key), label, read(name, raw.get(key)))
        self.quality(raw.get("quality"), name, (*path, "quality"), label)

    def quality(self, entries: Any, column: str | None, path: Path, label: str) -> None:
        if entries is not None and not isinstance(entries, list):
            where = self.places.at(path, label)
            self.problems.append(Problem("`quality` is a list of rules", where, found=type(entries).__name__))
            return
        for number, raw in enumerate(entries or []):
            self.part((*path, number), f"{label}.quality[{number + 1}]", _quality_rule(raw, column))

    def names(self) -> None:
        """Every rule has a name of its own."""
        seen: set[str] = set()
        for rule in self.rules:
            if rule.name in seen:
                fix = "give each quality rule its own `name`"
                self.problems.append(Problem("two rules have the same name", rule.place, found=rule.name, fix=fix))
            seen.add(rule.name)


def compile_rules(data: Mapping[str, Any], places: Places) -> tuple[list[Rule], dict[str, str], list[Problem]]:
    """Rules, columns with their types, and problems of a contract's plain data."""
    reader = _Reader(places)
    for key in REFUSED_TOP:
        if data.get(key):
            where = places.at((key,), key)
            reader.problems.append(Problem(f"`{key}` cannot be mapped to a rule on rows", where, fix="remove it"))
    tables = data.get("schema") or []
    if len(tables) != 1:
        where = places.at(("schema",), "schema")
        reader.problems.append(Problem("one schema object is expected", where, found=f"{len(tables)}"))
    elif isinstance(tables[0], Mapping):
        reader.table(tables[0])
        reader.names()
    return reader.rules, reader.fields, reader.problems


def _fail(message: str, **more: Any) -> ContractError:
    return ContractError(message, **more)


def _known_keys(data: Any, model: Any) -> Iterator[Rule]:
    """Refuse keys the standard does not have: its library drops them silently, and with them the rule they meant."""
    if not isinstance(data, Mapping):
        raise _fail("a mapping was expected", found=type(data).__name__)
    known = {f.alias or name for name, f in model.model_fields.items()}
    for key in data:
        if key not in known:
            raise _fail(f"`{key}` is not a key of ODCS 3.1", expected=", ".join(sorted(known)), found=key)
    return
    yield  # a generator, like the other parts of an entry


def _table_says(table: Mapping[str, Any]) -> Iterator[Rule]:
    if table.get("relationships"):
        raise _fail("`relationships` cannot be mapped to a rule on rows", fix="remove it")
    if table.get("logicalType") not in (None, "object"):
        raise _fail("a table is an object", expected="logicalType: object", found=table["logicalType"])
    return
    yield


def _flag(raw: Mapping[str, Any], key: str) -> bool:
    value = raw.get(key)
    if value is not None and not isinstance(value, bool):
        raise _fail(f"`{key}` is true or false", expected="true or false, without quotes", found=repr(value))
    return bool(value)


def _property_says(raw: Mapping[str, Any]) -> Iterator[Rule]:
    name = str(raw.get("name"))
    if name not in COLUMNS:
        raise _fail("no such column", expected=", ".join(COLUMNS), found=name)
    logical = raw.get("logicalType")
    if logical is not None and logical != COLUMNS[name]:
        raise _fail("the column has another type", expected=COLUMNS[name], found=logical)
    for key in REFUSED_PROPERTY:
        if raw.get(key):
            raise _fail(f"`{key}` cannot be mapped to a rule", fix="remove it")
    if raw.get("physicalName") not in (None, name):
        raise _fail(
            "a column is read by its `name`", expected=name, found=raw["physicalName"], fix="remove physicalName"
        )
    if raw.get("semanticType") not in (None, "column"):
        raise _fail("`semanticType` cannot be mapped to a rule", expected="column", found=raw["semanticType"])
    primary = _flag(raw, "primaryKey")
    if _flag(raw, "required") or primary:
        yield Rule(f"{name}_required", "expect_column_values_to_not_be_null", {"column": name})
    if _flag(raw, "unique") or primary:
        yield Rule(f"{name}_unique", "expect_column_values_to_be_unique", {"column": name})


def _enum(name: str, entries: Any) -> Iterator[Rule]:
    if entries is None:
        return
    from open_data_contract_standard.model import EnumValue

    if not isinstance(entries, list):
        raise _fail("`enum` is a list of `value`s", found=type(entries).__name__)
    for entry in entries:
        yield from _known_keys(entry, EnumValue)
        if "value" not in entry:
            raise _fail("an entry of `enum` has a `value`", found=repr(entry)[:200])
    chosen = values([entry["value"] for entry in entries], COLUMNS[name], "enum")
    yield Rule(f"{name}_enum", "expect_column_values_to_be_in_set", {"column": name, "value_set": chosen})


def _options(name: str, options: Any) -> Iterator[Rule]:
    logical = COLUMNS[name]
    if options is not None and not isinstance(options, Mapping):
        raise _fail("`logicalTypeOptions` is a mapping", found=type(options).__name__)
    for key, value in (options or {}).items():
        snake = re.sub(r"([A-Z])", r"_\1", str(key)).lower()
        if logical == "string" and key in _STRING_OPTIONS:
            kwargs: dict[str, Any] = {"column": name, _STRING_OPTIONS[key]: bound(value, "length", f"`{key}`")}
            yield Rule(f"{name}_{snake}", "expect_column_value_lengths_to_be_between", kwargs)
        elif logical == "string" and key == "pattern":
            kwargs = {"column": name, "regex": pattern(value)}
            yield Rule(f"{name}_pattern", "expect_column_values_to_match_regex", kwargs)
        elif logical in ("integer", "timestamp") and key in _NUMBER_OPTIONS:
            side, strict = _NUMBER_OPTIONS[key]
            kwargs = {"column": name, side: bound(value, logical, f"`{key}`")}
            if strict:
                kwargs[strict] = True
            yield Rule(f"{name}_{snake}", "expect_column_values_to_be_between", kwargs)
        elif logical == "integer" and key == "format" and value in INTEGERS:
            low, high = INTEGERS[value]
            kwargs = {"column": name, "min_value": low, "max_value": high}
            yield Rule(f"{name}_format", "expect_column_values_to_be_between", kwargs)
        else:
            known = {"string": [*_STRING_OPTIONS, "pattern"], "integer": [*_NUMBER_OPTIONS, "format"]}
            known["timestamp"] = list(_NUMBER_OPTIONS)
            raise _fail(
                f"`logicalTypeOptions.{key}` cannot be mapped to a rule",
                expected=", ".join(known.get(logical, ())) or "no options for this type",
                found=f"{key}: {value!r}",
            )


# --- quality -----------------------------------------------------------------------------------


def _quality_rule(raw: Any, column: str | None) -> Iterator[Rule]:
    from open_data_contract_standard.model import DataQuality

    yield from _known_keys(raw, DataQuality)
    severity = raw.get("severity", "error")
    if severity not in SEVERITIES:
        raise _fail("unknown severity", expected="critical, error or warning", found=severity)
    name = raw.get("name") or (f"{column}_{raw.get('metric') or raw.get('rule')}" if column else "")
    name = re.sub(r"([a-z])([A-Z])", r"\1_\2", str(name)).lower()
    if not _RULE_NAME.fullmatch(name):
        raise _fail("a quality rule needs a `name`", expected="a-z, 0-9 and _, at most 64", found=name)
    kind = raw.get("type", "library")
    for key in ("schedule", "scheduler", "query", "method"):
        if raw.get(key):
            raise _fail(f"`{key}` cannot be mapped to a rule", found=raw[key])
    if raw.get("unit") not in (None, "rows", "percent"):
        raise _fail("`unit` cannot be mapped to a rule", expected="rows or percent", found=raw["unit"])
    if kind == "library":
        parts = _library(raw, column)
    elif kind == "custom":
        parts = [_custom(raw, column, name)]
    else:
        raise _fail("this type of quality rule cannot be mapped", expected="library or custom", found=kind)
    for suffix, expectation, kwargs in parts:
        yield Rule(name + suffix, expectation, kwargs, severity, str(raw.get("description") or ""))


def _library(raw: Mapping[str, Any], column: str | None) -> list[Parts]:
    metric, other = raw.get("metric") or raw.get("rule"), raw.get("rule") or raw.get("metric")
    arguments = dict(raw.get("arguments") or {})
    operators = {key: value for key, value in raw.items() if str(key).startswith("must")}
    for key in ("engine", "implementation"):
        if raw.get(key):
            raise _fail(f"`{key}` belongs to a rule of type custom", found=raw[key], fix="add `type: custom`")
    if column is None or metric != other or metric not in _METRICS:
        known = ", ".join(_METRICS) + " of a property"
        raise _fail("this metric cannot be mapped to a rule on rows", expected=known, found=metric)
    if operators not in _NO_ROWS or isinstance(next(iter(operators.values())), bool):
        raise _fail("every row is judged, so the count of bad ones `mustBe: 0`", found=operators)
    if set(arguments) not in _METRICS[metric]:
        expected = " or ".join(" and ".join(sorted(keys)) or "none" for keys in _METRICS[metric])
        raise _fail(f"these arguments of {metric} cannot be mapped", expected=expected, found=arguments)
    logical = COLUMNS[column]
    not_null = ("", "expect_column_values_to_not_be_null", {"column": column})
    if metric == "nullValues":
        return [not_null]
    if metric == "duplicateValues":
        return [("", "expect_column_values_to_be_unique", {"column": column})]
    parts: list[Parts] = []
    if metric == "missingValues":
        given = arguments["missingValues"]
        if isinstance(given, list) and None in given:
            parts.append(("_null", not_null[1], {"column": column}))
            given = [value for value in given if value is not None]
        if given or not parts:
            kwargs = {"column": column, "value_set": values(given, logical, "missingValues")}
            parts.append(("", "expect_column_values_to_not_be_in_set", kwargs))
        return parts
    if "validValues" in arguments:
        kwargs = {"column": column, "value_set": values(arguments["validValues"], logical, "validValues")}
        parts.append(("", "expect_column_values_to_be_in_set", kwargs))
    if "pattern" in arguments:
        if logical != "string":
            raise _fail("a pattern is for text", expected="a column of type string", found=logical)
        kwargs = {"column": column, "regex": pattern(arguments["pattern"])}
        parts.append(("_pattern" if parts else "", "expect_column_values_to_match_regex", kwargs))
    return parts


_METRICS: dict[str, list[set[str]]] = {
    "nullValues": [set()],
    "duplicateValues": [set()],
    "missingValues": [{"missingValues"}],
    "invalidValues": [{"validValues"}, {"pattern"}, {"validValues", "pattern"}],
}
"""Metrics of the standard that speak of rows, and the arguments they may have."""


def _custom(raw: Mapping[str, Any], column: str | None, name: str) -> Parts:
    body = raw.get("implementation")
    if raw.get("engine") != "greatExpectations" or body is None:
        raise _fail("a custom rule needs engine greatExpectations and an implementation", found=raw.get("engine"))
    for key in raw:
        if str(key).startswith("must") or key in ("metric", "rule", "arguments"):
            raise _fail(f"`{key}` belongs to a rule of type library", found=raw[key], fix="remove it")
    if isinstance(body, str):
        try:
            body = yaml.safe_load(body)
        except yaml.YAMLError as error:
            raise _fail("the implementation is not YAML", found=str(error).replace("\n", " ")) from error
    if not isinstance(body, Mapping) or set(body) - {"type", "expectation_type", "kwargs"}:
        raise _fail("the implementation has a `type` and `kwargs`", found=repr(body)[:200])
    expectation = body.get("type") or body.get("expectation_type")
    if expectation not in EXPECTATIONS:
        raise _fail("not an expectation on rows", expected=", ".join(sorted(EXPECTATIONS)), found=expectation)
    if not isinstance(body.get("kwargs") or {}, Mapping):
        raise _fail("`kwargs` is a mapping", found=type(body["kwargs"]).__name__)
    kwargs = dict(body.get("kwargs") or {})
    if column is not None and "_pair_" not in expectation:
        kwargs.setdefault("column", column)
    return "", expectation, check_kwargs(expectation, kwargs, name)
