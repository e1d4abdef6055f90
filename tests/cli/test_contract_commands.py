"""`tidemill contract`: every problem with its place, rules as a table, a verdict on a file, breaking changes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli.contracts_app import contract_app
from configs.errors import InputError
from configs.loader import resource_path

THUMB = resource_path("contracts/thumb.yaml")
BROKEN = """
apiVersion: v3.1.0
kind: DataContract
id: t
version: 1.0.0
schema:
  - name: thumb
    properties:
      - name: id
        requird: true
      - name: colour
      - name: thumb
        logicalTypeOptions: {multipleOf: 2}
        quality:
          - {name: ok, metric: nullValues, mustBe: 0}
          - {name: bad, metric: rowCount, mustBe: 0}
"""
ROW = {
    "id": "a", "interaction_id": "i", "kind": "thumb", "thumb": 1, "scope": "user", "principal": "ann",
    "created_at": "2026-01-05T10:00:00Z",
}  # fmt: skip


def run(*arguments: object) -> Any:
    return CliRunner().invoke(contract_app, [str(a) for a in arguments])


def lines(path: Path, *rows: Any) -> Path:
    path.write_bytes(b"\n".join(r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows))
    return path


def test_lint_lists_every_problem_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(BROKEN, encoding="utf-8")
    result = run("lint", path, "--json")
    assert result.exit_code == 7
    found = json.loads(result.stdout)
    assert [p["where"].split(":")[0] for p in found["problems"]] == [
        "c.yaml, line 9", "c.yaml, line 11", "c.yaml, line 13", "c.yaml, line 16",
    ]  # fmt: skip
    text = run("lint", path)
    assert text.exit_code == 7
    assert "`requird` is not a key" in text.stdout
    assert run("lint", tmp_path / "none.yaml").exit_code == 7


@pytest.mark.parametrize("name", ["feedback_correction", "preference", "thumb", "incident"])
def test_shipped_contracts_are_clean_and_can_be_shown(name: str) -> None:
    path = resource_path(f"contracts/{name}.yaml")
    assert run("lint", path).exit_code == 0
    shown = json.loads(run("show", path, "--json").stdout)
    assert shown["rules"]
    assert {"rule", "column", "severity", "expects", "argument", "why"} == set(shown["rules"][0])
    assert shown["rules"][0]["rule"] in run("show", path).stdout


def test_a_file_of_rows_is_held_against_a_contract(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "rows.jsonl", ROW, b"", {**ROW, "id": "b", "thumb": 0}, {**ROW, "id": "c", "thumb": "1"}, b"{",
        b"\xff{}", b"[]",
        {**ROW, "id": "d", "principal": "x\ud800"},
        {**ROW, "id": "e", "created_at": "2026-01-05"},
        {**ROW, "id": "e"},
        b"[" * 100_000, {**ROW, "id": "f", "thumb": 2**70},
    )  # fmt: skip
    result = run("test", THUMB, path, "--json")
    assert result.exit_code == 1
    facts = json.loads(result.stdout)
    assert facts["accepted"] == 2
    assert {r["row"]: r["breaks"] for r in facts["refused"]} == {
        3: "thumb_enum",
        4: "unreadable (thumb: integer expected, str found)",
        5: "unreadable (not valid JSON)",
        6: "unreadable (not UTF-8)",
        7: "unreadable (a JSON object expected, list found)",
        8: "unreadable (principal: string expected, half a surrogate pair found)",
        9: "unreadable (created_at: timestamp expected, a moment without an offset found)",
        11: "unreadable (nested too deeply)",
        12: "unreadable (thumb: integer expected, a number beyond 64 bits found)",
    }
    assert facts["counts"] == {"unreadable": 8, "thumb_enum": 1}
    assert "thumb_enum" in run("test", THUMB, path).stdout


def test_parquet_and_clean_files_pass_and_a_missing_column_is_an_error(tmp_path: Path) -> None:
    good = lines(tmp_path / "rows.jsonl", ROW)
    assert run("test", THUMB, good).exit_code == 0
    moment = datetime(2026, 1, 5, tzinfo=UTC)
    table = pa.Table.from_pylist([{**ROW, "thumb": n, "created_at": moment} for n in (1, -1)])
    pq.write_table(table, tmp_path / "rows.parquet")
    facts = json.loads(run("test", THUMB, tmp_path / "rows.parquet", "--json").stdout)
    assert facts["counts"] == {"id_unique": 2}
    lacking = lines(tmp_path / "lacking.jsonl", {k: v for k, v in ROW.items() if k != "thumb"})
    result = run("test", THUMB, lacking)
    assert isinstance(result.exception, InputError)
    assert "thumb" in str(result.exception)
    assert isinstance(run("test", THUMB, tmp_path / "none.jsonl").exception, InputError)


def test_derived_columns_are_derived(tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "When do you open?"}]
    row = {**ROW, "kind": "correction", "messages": asked, "answer": "No idea.", "completion": "At nine."}
    contract = resource_path("contracts/feedback_correction.yaml")
    path = lines(tmp_path / "rows.jsonl", row, {**row, "id": "b", "completion": "no idea"})
    facts = json.loads(run("test", contract, path, "--json").stdout)
    assert facts["counts"] == {"completion_differs_from_answer": 1}


def test_diff_exits_with_one_on_a_breaking_change(tmp_path: Path) -> None:
    tighter = tmp_path / "thumb.yaml"
    text = THUMB.read_text(encoding="utf-8")
    tighter.write_text(text.replace("maxLength: 128", "maxLength: 64"), encoding="utf-8")
    result = run("diff", THUMB, tighter, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["changes"] == [
        {"breaking": True, "where": "principal_max_length", "what": "maximum lowered from 128 to 64"}
    ]
    assert run("diff", tighter, THUMB).exit_code == 0
    assert run("diff", THUMB, THUMB).exit_code == 0
