"""`tidemill snapshot`: list, show, verify and diff, for people and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from configs.paths import StateDir
from data_contracts.records import DatasetSnapshot, Message, QuarantinedRow, SnapshotRow, utc_now
from data_contracts.snapshots import erase_rows, publish
from flows.context import open_context, write_resolved
from store import quarantine
from tests.flows.flow_samples import add_corrections, tiny_config


def tidemill(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "snapshot", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def published(state: Path, ids: list[str], age: int, contract: str = "c") -> DatasetSnapshot:
    rows = [
        SnapshotRow(
            digest=f"d-{row_id}",
            split="train",
            source="correction",
            messages=(Message(role="user", content=f"question {row_id}"),),
            completion="[bold]Soon.",
            row_id=row_id,
            slice="[red]soon",
        )
        for row_id in ids
    ]
    return publish(
        StateDir(state).snapshots, rows, model="support-bot", contract_digest=contract * 64, base_digest="b" * 64,
        watermark=9, reasons={"cap": 1}, replay={}, created_at=utc_now() - timedelta(hours=age),
    )  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> tuple[Path, list[str], DatasetSnapshot, DatasetSnapshot]:
    """A state directory with real corrections, one of them quarantined since, and two snapshots of them."""
    state = tmp_path / "state"
    context = open_context(tiny_config(state))
    ids = add_corrections(context.store, "support-bot", per_topic=3)
    with context.store.write() as conn:
        held = QuarantinedRow(row_id=ids[0], digest="d", reason="conflict")
        quarantine.put(conn, "support-bot", [held], None)
    context.store.close()
    one = published(state, [*ids[:4], "erased-long-ago"], age=2)
    two = published(state, [*ids[1:6]], age=1, contract="d")
    return state, ids, one, two


def test_list_shows_the_newest_first(world: tuple[Path, list[str], DatasetSnapshot, DatasetSnapshot]) -> None:
    state, _, one, two = world
    (state / "snapshots" / "unfinished").mkdir()
    listed = json.loads(tidemill("list", "--state", str(state), "--json").stdout)
    assert [entry["digest"] for entry in listed] == [two.digest, one.digest]
    assert two.digest[:12] in tidemill("list", "--state", str(state)).stdout


def test_show_and_verify_by_the_first_digits(world: tuple[Path, list[str], DatasetSnapshot, DatasetSnapshot]) -> None:
    state, ids, one, _ = world
    shown = json.loads(tidemill("show", one.digest[:8], "--state", str(state), "--json").stdout)
    assert shown["digest"] == one.digest
    done = tidemill("verify", one.digest[:8], "--state", str(state), "--json")
    assert json.loads(done.stdout) == {
        "digest": one.digest,
        "verified": True,
        "rows": 5,
        "erased": 0,
        "can_train": True,
    }
    erase_rows(one.path, {ids[1]})
    assert json.loads(tidemill("verify", one.path, "--state", str(state), "--json").stdout)["can_train"] is False
    assert "no, rows were erased" in tidemill("show", one.digest[:8], "--state", str(state)).stdout
    (Path(one.path) / "manifest.json").write_text("{}")
    done = tidemill("verify", one.digest, "--state", str(state), "--json")
    assert done.returncode == 8
    assert "manifest cannot be read" in json.loads(done.stdout)["error"]["message"]


def test_diff_says_why_rows_are_gone(world: tuple[Path, list[str], DatasetSnapshot, DatasetSnapshot]) -> None:
    state, ids, one, two = world
    done = tidemill("diff", one.digest[:10], two.digest[:10], "--state", str(state), "--json")
    found = json.loads(done.stdout)
    assert found["rows"] == {"added: new": 2, "removed: erased": 1, "removed: quarantine: conflict": 1}
    assert {c["row"]: c["reason"] for c in found["changes"] if c["change"] == "removed"} == {
        ids[0]: "quarantine: conflict",
        "erased-long-ago": "erased",
    }
    assert found["facts"]["contract"] == ["c" * 64, "d" * 64]
    table = tidemill("diff", one.digest, two.digest, "--state", str(state))
    assert table.returncode == 0
    assert "removed: quarantine: conflict" in table.stdout


def test_a_running_stacks_profile_is_read_rather_than_the_default_one(
    world: tuple[Path, list[str], DatasetSnapshot, DatasetSnapshot], tmp_path: Path
) -> None:
    """Its store may be elsewhere, and its model another: both are in the profile `tidemill up` resolved."""
    state, ids, one, two = world
    elsewhere = tmp_path / "elsewhere.db"
    (state / "tidemill.db").rename(elsewhere)
    write_resolved(tiny_config(state, store={"url": f"sqlite:///{elsewhere}"}))
    done = tidemill("diff", one.digest[:10], two.digest[:10], "--state", str(state), "--json")
    found = json.loads(done.stdout)
    assert {c["row"]: c["reason"] for c in found["changes"] if c["change"] == "removed"}[ids[0]] == (
        "quarantine: conflict"
    )
    assert len(json.loads(tidemill("list", "--state", str(state), "--json").stdout)) == 2
    assert not (state / "tidemill.db").exists()


def test_a_folder_is_verified_without_an_installation(
    world: tuple[Path, list[str], DatasetSnapshot, DatasetSnapshot], tmp_path: Path
) -> None:
    done = tidemill("verify", world[2].path, "--state", str(tmp_path / "none"), "--json")
    assert json.loads(done.stdout)["verified"]
    assert not (tmp_path / "none").exists()


def test_a_name_that_fits_none_or_several_is_one_clear_error(
    world: tuple[Path, list[str], DatasetSnapshot, DatasetSnapshot],
) -> None:
    state, _, _, _ = world
    done = tidemill("show", "zzz", "--state", str(state))
    assert done.returncode == 4
    assert "no such snapshot" in done.stderr
    assert "snapshot list" in done.stderr
    digits = "0123456789abcdef"
    # Seventeen snapshots: two of them begin with the same digit.
    for n in range(17):
        published(state, [f"x{n}"], age=n)
    several = [tidemill("show", digit, "--state", str(state)) for digit in digits[:4]]
    names = [p.name for p in (state / "snapshots").glob("[0-9a-f]*")]
    for digit, done in zip(digits, several, strict=False):
        fitting = sum(name.startswith(digit) for name in names)
        assert done.returncode == (0 if fitting == 1 else 3 if fitting > 1 else 4)
