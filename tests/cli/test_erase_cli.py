"""`tidemill erase`, `tidemill lineage` of a person and `tidemill retention` as people meet them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.context import open_context
from tests.flows.erasure_world import NAME, TEXTS, World, build, world_config


def tidemill(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
        check=False,
    )


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Closed: the commands open it themselves; its registry is an address where nobody answers."""
    built = build(tmp_path / "state")
    built.context.store.close()
    return built


@pytest.fixture
def profile(tmp_path: Path, world: World) -> list[str]:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"extends: smoke\nstate_dir: {tmp_path / 'state'}\nserving: {{request_timeout_s: 1}}\n"
        "drift: {enabled: false, reference_min: 120, clusters: 4, average_run_length: 500, window: 50}\n"
        "stack: {lease_s: 1}\nregistry: {uri: 'http://127.0.0.1:9'}\nretention: {ttl_days: {interaction: 90}}\n",
        encoding="utf-8",
    )
    return ["--profile", str(path)]


def test_a_dry_run_needs_no_reason_and_says_what_would_go(profile: list[str], world: World) -> None:
    done = tidemill("erase", NAME, "--dry-run", "--json", *profile)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["state"], said["versions"], said["erasure"]) == ("planned", [world.version], None)
    assert said["counts"]["feedback"] == 4
    assert tidemill("erase", NAME, "--dry-run", "--json", *profile).stdout == done.stdout


def test_an_erasure_needs_a_name_and_a_reason(profile: list[str]) -> None:
    done = tidemill("erase", NAME, *profile)
    assert done.returncode == 3
    assert "--by and --reason" in done.stderr
    named = tidemill("erase", NAME, "--by", "officer", "--reason", f"{NAME} asked", *profile)
    assert named.returncode == 3
    assert "may not hold the name" in named.stderr


def test_erase_lineage_and_scan(profile: list[str], world: World, tmp_path: Path) -> None:
    texts = tmp_path.parent / f"{tmp_path.name}-texts.txt"
    texts.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    before = json.loads(tidemill("erase", NAME, "--scan", "--text-file", str(texts), "--json", *profile).stdout)
    assert before["found"] > 10
    person = json.loads(tidemill("lineage", NAME, "--json", *profile).stdout)
    assert (person["kind"], person["taught"]) == ("principal", [world.version])

    done = tidemill("erase", NAME, "--by", "officer", "--reason", "ticket 12", *profile)
    assert done.returncode == 0, done.stderr
    assert world.version in done.stdout
    assert "moved.parquet" in done.stdout
    assert "`tidemill review tidy`" in done.stdout
    assert NAME not in done.stdout + done.stderr

    after = tidemill("erase", NAME, "--scan", "--text-file", str(texts), "--json", *profile)
    assert after.returncode == 1  # neither MLflow nor Prefect could be asked, and that is no all-clear
    found = json.loads(after.stdout)
    assert found["findings"] == []
    assert [line.split(":")[0] for line in found["skipped"]] == ["mlflow", "prefect"]

    findings = json.loads(tidemill("doctor", "--json", *profile).stdout)
    assert [f["state"] for f in findings if f["what"] == "erasure"] == ["note"]
    assert tidemill("lineage", NAME, *profile).returncode == 4
    row = json.loads(tidemill("lineage", world.theirs["taught"], "--json", *profile).stdout)
    assert row["erased"].startswith("by erasure ")
    assert (row["taught"], row["tainted"]) == ([world.version], [world.version])
    version = json.loads(tidemill("lineage", world.version, "--rows", "3", "--json", *profile).stdout)
    assert (version["train_rows"], version["erased_rows"], len(version["rows"])) == (6, 3, 3)
    again = json.loads(tidemill("erase", NAME, "--by", "officer", "--reason", "t", "--json", *profile).stdout)
    assert again["state"] in ("settling", "done")


def test_a_text_that_proves_nothing_is_refused(profile: list[str], tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("the kettle of Zwiesel\nhi\n", encoding="utf-8")
    done = tidemill("erase", NAME, "--scan", "--text-file", str(texts), *profile)
    assert done.returncode == 3
    assert "line 2" in done.stderr


def test_retention_says_what_it_would_delete(profile: list[str], world: World, tmp_path: Path) -> None:
    done = tidemill("retention", "run", "--dry-run", "--json", *profile)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"dry_run": True, "counts": {"interaction": 0}}
    context = open_context(world_config(tmp_path / "state"))
    context.store.close()
