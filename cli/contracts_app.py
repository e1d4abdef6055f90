"""`tidemill contract`: look at a contract, try it on rows, compare two versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from data_contracts.contract import Rule

contract_app = typer.Typer(help="Look at data contracts and try them.", no_args_is_help=True, rich_markup_mode=None)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
File = Annotated[Path, typer.Argument(help="An ODCS 3.1 YAML file.")]
MAX_SHOWN = 20


@contract_app.command()
def lint(file: File, as_json: AsJson = False) -> None:
    """Compile a contract and list everything that is wrong with it; exit 7 if anything is."""
    from cli.output import print_json, print_line
    from configs.errors import ContractError
    from data_contracts.contract import check_contract

    contract, problems = check_contract(file)
    if as_json:
        listed = [p.error().as_dict() for p in problems]
        print_json({"ok": not problems, "rules": len(contract.rules) if contract else 0, "problems": listed})
    else:
        for problem in problems:
            more = [f"{k}: {v}" for k in ("expected", "found", "fix") if (v := getattr(problem, k)) is not None]
            print_line(f"{problem.where}: {problem.message}" + "".join(f"\n    {line}" for line in more))
        if contract:
            print_line(f"{contract.name}: {len(contract.rules)} rules, nothing wrong")
    if problems:
        raise SystemExit(ContractError.exit_code)


def _argument(rule: Rule) -> str:
    skip = ("column", "column_A", "column_B")
    return ", ".join(f"{key} {value}" for key, value in rule.kwargs.items() if key not in skip)


@contract_app.command()
def show(file: File, as_json: AsJson = False) -> None:
    """The rules of a contract as a table."""
    from cli.output import show as print_table
    from data_contracts.contract import load_contract
    from data_contracts.contract_scan import rule_columns

    contract = load_contract(file)
    rows: list[dict[str, Any]] = [
        {
            "rule": rule.name,
            "column": ", ".join(rule_columns(rule)),
            "severity": rule.severity,
            "expects": rule.expectation.removeprefix("expect_column_").replace("_", " "),
            "argument": _argument(rule),
            "why": rule.description,
        }
        for rule in contract.rules
    ]
    value = {"contract": contract.name, "digest": contract.digest, "fields": dict(contract.fields), "rules": rows}
    print_table(value, rows, as_json=as_json, title=f"{contract.name} ({contract.digest[:12]})")


@contract_app.command("test")
def try_rows(
    file: File,
    rows: Annotated[Path, typer.Argument(help="JSON Lines or Parquet: one row an object, columns by their names.")],
    as_json: AsJson = False,
) -> None:
    """Hold a file of rows against a contract; exit 1 if a row is refused."""
    from cli.output import print_json, print_line, print_rows

    facts = try_contract(file, rows)
    if as_json:
        print_json(facts)
    else:
        print_line(f"{facts['contract']}: {facts['accepted']} of {facts['rows']} rows accepted")
        if facts["counts"]:
            print_rows([{"rule": k, "rows": v} for k, v in facts["counts"].items()], "rows that break a rule")
        if facts["refused"]:
            print_rows(facts["refused"][:MAX_SHOWN], "rows refused")
            if len(facts["refused"]) > MAX_SHOWN:
                print_line(f"and {len(facts['refused']) - MAX_SHOWN} more (--json lists all)")
    if facts["refused"]:
        raise SystemExit(1)


def try_contract(file: Path, rows: Path) -> dict[str, Any]:
    """The verdict of a contract on a file of rows, as plain data.

    Raises:
        ContractError: the contract cannot be compiled or run.
        InputError: the file cannot be read.
    """
    from data_contracts.contract import load_contract
    from data_contracts.contract_files import RowsFile
    from data_contracts.expectations import validate_table

    contract = load_contract(file)
    given = RowsFile(rows, contract)
    verdict = validate_table(given.batches(), contract)
    severity = {rule.name: rule.severity for rule in contract.rules}
    # Of a row that cannot be read the rules saw nulls only.
    judged = {
        name: [p for p in places.tolist() if p not in given.unreadable] for name, places in verdict.broken.items()
    }
    counts = {name: len(places) for name, places in judged.items() if places}
    if given.unreadable:
        counts = {"unreadable": len(given.unreadable), **counts}
    broken: dict[int, list[str]] = {place: [f"unreadable ({why})"] for place, why in given.unreadable.items()}
    for name, places in judged.items():
        if severity.get(name) != "warning":
            for place in places:
                broken.setdefault(place, []).append(name)
    batch = [f"batch_{name}" for name, places in judged.items() if places and severity.get(name) == "critical"]
    refused = range(verdict.rows) if batch else sorted(broken)
    return {
        "contract": contract.name,
        "digest": contract.digest,
        "rows": verdict.rows,
        "accepted": verdict.rows - len(refused),
        "counts": counts,
        "warnings": {name: n for name, n in counts.items() if severity.get(name) == "warning"},
        "refused": [
            {"row": given.places[place], "id": given.ids[place], "breaks": ", ".join(broken.get(place) or batch)}
            for place in refused
        ],
    }


@contract_app.command()
def diff(
    old: Annotated[Path, typer.Argument(help="The version in use.")],
    new: Annotated[Path, typer.Argument(help="The version to come.")],
    as_json: AsJson = False,
) -> None:
    """What changed between two versions; exit 1 if rows that passed may now fail."""
    from cli.output import show as print_table
    from data_contracts.contract import load_contract
    from data_contracts.contract_diff import compare

    one, other = load_contract(old), load_contract(new)
    changes = compare(one, other)
    rows = [{"": "BREAKING" if c.breaking else "safe", "where": c.where, "what": c.what} for c in changes]
    breaking = any(change.breaking for change in changes)
    value = {
        "old": one.name,
        "new": other.name,
        "breaking": breaking,
        "changes": [{"breaking": c.breaking, "where": c.where, "what": c.what} for c in changes],
    }
    print_table(value, rows, as_json=as_json, title=f"{one.name} -> {other.name}")
    if breaking:
        raise SystemExit(1)
