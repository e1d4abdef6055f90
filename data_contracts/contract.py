"""A data contract (ODCS 3.1 YAML) compiled into named rules. What says something of a row and cannot be mapped to a
rule is an error, never skipped; what only describes (owners, tags, prices) is left alone.

What a property may say, and what it becomes:

    required: true, primaryKey: true       not null
    unique: true, primaryKey: true         no value twice
    enum: [{value: a}, ...]                one of these
    logicalTypeOptions                     minLength, maxLength, pattern; minimum, maximum, exclusiveMinimum,
                                           exclusiveMaximum (integers, timestamps); format i8 ... i32, u8 ... u32
    quality, type library, mustBe: 0       nullValues, missingValues, invalidValues, duplicateValues
    quality, type custom                   engine greatExpectations, one row-level expectation with its kwargs

`severity` of a quality rule: `error` (the default) quarantines the row, `critical` the whole batch, `warning` reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from configs.errors import ContractError
from data_contracts.digests import digest

Severity = Literal["critical", "error", "warning"]
SEVERITIES: tuple[Severity, ...] = ("warning", "error", "critical")
"""From the mildest."""
VERSIONS = ("v3.0.0", "v3.0.1", "v3.0.2", "v3.1.0", "v3.2.0")
"""Versions of the standard whose constructs are known here."""


@dataclass(frozen=True)
class Rule:
    """One named rule: a Great Expectations expectation with its arguments."""

    name: str
    expectation: str
    kwargs: Mapping[str, Any]
    severity: Severity = "error"
    description: str = ""
    place: str = ""
    """Where in the contract it stands, for people."""


@dataclass(frozen=True)
class Contract:
    """A compiled contract."""

    name: str
    """Its id and version."""
    digest: str
    rules: tuple[Rule, ...] = field(repr=False)
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Column -> logical type, of every property."""


@dataclass(frozen=True)
class Problem:
    """Something in a contract that cannot be compiled, and where."""

    message: str
    where: str
    expected: str | None = None
    found: str | None = None
    fix: str | None = None

    def error(self) -> ContractError:
        """The same as an exception."""
        return ContractError(self.message, where=self.where, expected=self.expected, found=self.found, fix=self.fix)

    @staticmethod
    def of(error: ContractError) -> Problem:
        """The same as a record."""
        return Problem(error.message, error.where or "", error.expected, error.found, error.fix)


class Places:
    """Lines of a YAML file's entries, by path (`("schema", 0, "properties", 2)`), and its keys that stand twice."""

    def __init__(self, file: str, node: yaml.Node | None) -> None:
        self.file = file
        self._lines: dict[tuple[str | int, ...], int] = {}
        self.twice: list[Problem] = []
        if node is not None:
            self._walk(node, ())

    def _walk(self, node: yaml.Node, path: tuple[str | int, ...]) -> None:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            for number, child in enumerate(node.value):
                self._walk(child, (*path, number))
        elif isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, child in node.value:
                name = str(key.value)
                if name in seen:
                    where = f"{self.file}, line {key.start_mark.line + 1}"
                    self.twice.append(Problem("a key stands twice, and YAML keeps only the last", where, found=name))
                seen.add(name)
                self._lines[(*path, name)] = key.start_mark.line + 1
                self._walk(child, (*path, name))

    def at(self, path: tuple[str | int, ...], label: str) -> str:
        """`FILE, line N: LABEL`; the line of the nearest entry above where there is none of its own."""
        while path and path not in self._lines:
            path = path[:-1]
        line = f", line {self._lines[path]}" if path in self._lines else ""
        return f"{self.file}{line}: {label}"


def _fail(message: str, where: object, **more: Any) -> ContractError:
    return ContractError(message, where=where, **more)


def _read(path: Path) -> tuple[dict[str, Any], Any, Places]:
    from open_data_contract_standard.model import OpenDataContractStandard
    from pydantic import ValidationError

    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except OSError as error:
        raise _fail(
            "the contract cannot be read",
            path,
            found=error.strerror or error,
            fix="mend the path, or `ingest.contracts`",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise _fail("not valid YAML", path, found=str(error).replace("\n", " ")) from error
    except RecursionError as error:
        raise _fail("nested too deeply", path) from error
    if not isinstance(data, dict):
        raise _fail("a contract is a mapping", path, found=type(data).__name__)
    try:
        parsed = OpenDataContractStandard.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise _fail(f"`{key}`: {first['msg']}", path, found=repr(first.get("input"))[:200]) from error
    if parsed.kind != "DataContract" or parsed.apiVersion not in VERSIONS:
        raise _fail(
            "not an ODCS 3 contract",
            path,
            expected="kind: DataContract and apiVersion one of " + ", ".join(VERSIONS),
            found=f"kind: {parsed.kind}, apiVersion: {parsed.apiVersion}",
        )
    return data, parsed, Places(path.name, node)


def _plain(value: Any) -> Any:
    """YAML's dates as text, so that a digest can be taken."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, (date, datetime)) else value


def check_contract(path: Path) -> tuple[Contract | None, tuple[Problem, ...]]:
    """Read and compile a contract file, and say everything that is wrong with it.

    Returns:
        The contract, None if there is any problem; and the problems in the order of the file.
    """
    from data_contracts.contract_compile import compile_rules

    try:
        data, parsed, places = _read(path)
    except ContractError as error:
        return None, (Problem.of(error),)
    rules, fields, problems = compile_rules(data, places)
    problems = [*places.twice, *problems]
    if not problems and not rules:
        fix = "add `required`, `logicalTypeOptions` or `quality`"
        problems.append(Problem("a contract without rules", places.at(("schema",), "schema"), fix=fix))
    try:
        name = digest(_plain(data))
    except ValueError as error:  # a NaN or an infinity
        problems.append(Problem("a value that no digest can be taken of", str(path), found=str(error)))
    if problems:
        return None, tuple(problems)
    return Contract(f"{parsed.id or parsed.name} {parsed.version}", name, tuple(rules), fields), ()


def load_contract(path: Path) -> Contract:
    """Read and compile a contract file.

    Raises:
        ContractError: unreadable, not ODCS 3, or a rule that cannot be mapped; names the rule and what is known.
    """
    contract, problems = check_contract(path)
    if contract is None:
        first = problems[0]
        if len(problems) == 1:
            raise first.error()
        more = f"{first.message} (and {len(problems) - 1} more: `tidemill contract lint`)"
        raise _fail(more, first.where, expected=first.expected, found=first.found, fix=first.fix)
    return contract
