"""What changed between two versions of a contract, and whether rows that passed the old one may fail the new one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from data_contracts.contract import SEVERITIES, Contract, Rule


@dataclass(frozen=True)
class Change:
    """One difference."""

    breaking: bool
    """True if a row (or a reader of the rows) the old contract served may not be served by the new one."""
    where: str
    """A field or a rule."""
    what: str


def compare(old: Contract, new: Contract) -> list[Change]:
    """All differences, breaking ones first."""
    found = [*_fields(old, new), *_rules(old, new)]
    return sorted(found, key=lambda change: not change.breaking)


def _fields(old: Contract, new: Contract) -> Iterator[Change]:
    for name, kind in old.fields.items():
        if name not in new.fields:
            yield Change(True, name, "field removed")
        elif new.fields[name] != kind:
            yield Change(True, name, f"type changed from {kind} to {new.fields[name]}")
    for name in new.fields:
        if name not in old.fields:
            yield Change(False, name, "field added")


def _subject(rule: Rule) -> tuple[Any, ...]:
    columns = tuple(rule.kwargs.get(key) for key in ("column", "column_A", "column_B"))
    return rule.expectation, columns


def _rules(old: Contract, new: Contract) -> Iterator[Change]:
    before, after = {rule.name: rule for rule in old.rules}, {rule.name: rule for rule in new.rules}
    gone = [rule for name, rule in before.items() if name not in after]
    come = [rule for name, rule in after.items() if name not in before]
    for name, rule in before.items():
        if name in after:
            yield from _changed(rule, after[name])
    for rule in gone:
        # Under another name the same rule, or one on the same subject, is a change and not a loss.
        same = next((new for new in come if new.expectation == rule.expectation and new.kwargs == rule.kwargs), None)
        same = same or next((new for new in come if _subject(new) == _subject(rule)), None)
        if same is None:
            yield Change(False, rule.name, "rule removed")
        else:
            come.remove(same)
            yield Change(False, same.name, f"rule renamed from {rule.name}")
            yield from _changed(rule, same)
    for rule in come:
        yield Change(rule.severity != "warning", rule.name, f"rule added ({_short(rule)}, severity {rule.severity})")


def _short(rule: Rule) -> str:
    return rule.expectation.removeprefix("expect_column_").replace("_", " ")


def _changed(old: Rule, new: Rule) -> Iterator[Change]:
    raised = SEVERITIES.index(new.severity) - SEVERITIES.index(old.severity)
    if raised:
        word = "raised" if raised > 0 else "lowered"
        yield Change(raised > 0, new.name, f"severity {word} from {old.severity} to {new.severity}")
    # What only a warning watches refuses no row.
    counts = new.severity != "warning"
    if _subject(old) != _subject(new):
        yield Change(counts, new.name, f"now another rule: {_short(old)} became {_short(new)}")
        return
    for breaking, what in _arguments(old.expectation, old.kwargs, new.kwargs):
        yield Change(breaking and counts, new.name, what)


def _arguments(expectation: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    if expectation.endswith("_be_between"):
        yield from _range(old, new)
    elif expectation.endswith("_be_in_set"):
        forbids = "_not_" in expectation
        yield from _sets("values", old["value_set"], new["value_set"], more_is_tighter=forbids)
    elif expectation.endswith("_regex_list"):
        all_needed = "_not_" in expectation or new.get("match_on") == "all"
        yield from _sets("patterns", old["regex_list"], new["regex_list"], more_is_tighter=all_needed)
        if old.get("match_on", "any") != new.get("match_on", "any"):
            yield new.get("match_on", "any") == "all", f"now {new.get('match_on', 'any')} of the patterns must match"
    elif old.get("regex") != new.get("regex"):
        # Whether one pattern admits all that another does is not decided here: a changed one counts as tighter.
        yield True, f"pattern changed from {old.get('regex')} to {new.get('regex')}"
    elif dict(old) != dict(new):
        yield True, f"arguments changed from {dict(old)} to {dict(new)}"


def _sets(name: str, old: Sequence[Any], new: Sequence[Any], *, more_is_tighter: bool) -> Iterator[tuple[bool, str]]:
    added = [value for value in new if value not in old]
    removed = [value for value in old if value not in new]
    if added:
        yield more_is_tighter, f"{name} added: {', '.join(map(repr, added))}"
    if removed:
        yield not more_is_tighter, f"{name} removed: {', '.join(map(repr, removed))}"


def _range(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    for key, strict, name, sign in (
        ("min_value", "strict_min", "minimum", 1),
        ("max_value", "strict_max", "maximum", -1),
    ):
        before, after = old.get(key), new.get(key)
        if before is None and after is not None:
            yield True, f"{name} added: {after}"
        elif before is not None and after is None:
            yield False, f"{name} removed: it was {before}"
        elif before is not None and before != after:
            up = _order(after) > _order(before)
            yield up == (sign > 0), f"{name} {'raised' if up else 'lowered'} from {before} to {after}"
        elif before is not None and bool(old.get(strict)) != bool(new.get(strict)):
            yield bool(new.get(strict)), f"{name} {after} is now {'excluded' if new.get(strict) else 'included'}"


def _order(value: Any) -> Any:
    return datetime.fromisoformat(value) if isinstance(value, str) else value
