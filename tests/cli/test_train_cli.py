"""`tidemill train`: what a run will cost, as JSON and as one clear error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1] / "models"))
from adapter_files import make_adapter

from configs.errors import InputError, NotFoundError
from configs.loader import load_config
from configs.paths import StateDir
from data_contracts.records import Message, ModelVersion, SnapshotRow, utc_now
from data_contracts.snapshots import publish
from flows.context import open_context
from models.files import model_digest
from store import erasure, versions
from tests.flows.flow_samples import tiny_config

ROOT = Path(__file__).parents[2]


def tidemill(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile on the tiny base with one snapshot of twelve rows."""
    root = tmp_path_factory.mktemp("train-cli")
    config = tiny_config(root / "state")
    rows = [
        SnapshotRow(
            digest=f"{n:064x}",
            split="train",
            source="correction",
            messages=(Message(role="user", content=f"When does parcel {n} leave?"),),
            completion="Every Tuesday.",
            row_id=f"row-{n}",
        )
        for n in range(12)
    ]
    publish(
        StateDir.of(config).snapshots,
        rows,
        model=config.model.name,
        contract_digest="c" * 64,
        base_digest="b" * 64,
        watermark=12,
        reasons={},
        replay={},
        created_at=utc_now(),
    )
    path = root / "mine.yaml"
    path.write_text(json.dumps(config.model_dump(mode="json")), encoding="utf-8")
    return path


def test_a_plan_of_the_newest_snapshot(profile: Path) -> None:
    done = tidemill("train", "plan", "--json", "--profile", str(profile))
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["rows"], facts["steps"]) == (12, 1)
    assert facts["trainable_parameters"] > 0
    assert facts["memory_mb"] > 0
    assert facts["calibrated_steps"] == 1
    named = tidemill("train", "plan", "--quick", "--snapshot", facts["snapshot"][:12], "--profile", str(profile))
    assert named.returncode == 0, named.stderr
    assert "trainable_parameters" in named.stdout


def test_a_device_that_is_too_small_is_one_clear_error(profile: Path) -> None:
    done = tidemill("train", "plan", "--memory-mb", "20", "--json", "--profile", str(profile))
    assert done.returncode == 13
    error = json.loads(done.stdout)["error"]
    assert "does not fit" in error["message"]
    assert error["fix"]


def test_no_such_snapshot(profile: Path) -> None:
    done = tidemill("train", "plan", "--snapshot", "ffff", "--profile", str(profile))
    assert done.returncode == 4
    assert "no such snapshot" in done.stderr


def test_a_registered_version_is_merged_into_its_base(profile: Path, tmp_path: Path) -> None:
    config = load_config(str(profile))
    context = open_context(config)
    ref = make_adapter(context.base().path, context.state.adapters, version="support-bot@v1")
    version = ModelVersion(
        model=config.model.name,
        number=1,
        adapter_digest=ref.digest,
        base_digest=ref.base_digest,
        dataset_digest="d" * 64,
        config_digest="c" * 64,
        code_commit="x",
        gate="pass",
    )
    with context.store.write() as conn:
        versions.insert(conn, version, adapter_path=ref.path, request_id=None, approved_by="gate")
    context.store.close()
    out = tmp_path / "merged"
    done = tidemill("train", "merge", "support-bot@v1", "--out", str(out), "--json", "--profile", str(profile))
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["merged"]["adapter_digest"] == ref.digest
    assert made["digest"] == model_digest(out)
    context = open_context(config)
    with context.store.read() as conn:
        assert erasure.known_exports(conn) == [str(out.resolve())], "an erasure can name it"
    context.store.close()
    again = tidemill("train", "merge", "support-bot@v1", "--out", str(out), "--profile", str(profile))
    assert again.returncode == 3
    unknown = tidemill("train", "merge", "support-bot@v9", "--out", str(tmp_path / "x"), "--profile", str(profile))
    assert unknown.returncode == 4
    assert "support-bot@v1" in unknown.stderr


def test_adapters_at_other_strengths_and_averaged(profile: Path) -> None:
    from typer.testing import CliRunner

    from cli.main import app
    from models.adapters import read_manifest

    context = open_context(load_config(str(profile)))
    refs = [make_adapter(context.base().path, context.state.adapters, seed=n, scale=0.05) for n in (8, 9)]
    context.store.close()
    ask = ["--json", "--profile", str(profile)]

    done = tidemill("train", "scales", refs[0].digest[:10], "--scale", "0.7", "--scale", "0.5", *ask)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["parent"] == refs[0].digest
    assert [one["scale"] for one in made["adapters"]] == [0.5, 0.7]
    assert read_manifest(Path(made["adapters"][0]["path"]))["parents"] == [refs[0].digest]

    def here(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["train", *arguments, *ask])

    soup = here("soup", refs[0].digest, refs[1].digest, "--weight", "3", "--weight", "1")
    assert soup.exit_code == 0, soup.output
    facts = json.loads(soup.stdout)
    assert facts["parents"] == [ref.digest for ref in refs]
    assert facts["weights"] == [0.75, 0.25]
    assert facts["rank"] == 8
    for arguments, error in (
        (("scales", "ffffff"), NotFoundError),
        (("scales", refs[0].digest, "--scale", "2"), InputError),
        (("soup", refs[0].digest, refs[1].digest, "--weight", "1"), InputError),
    ):
        assert isinstance(here(*arguments).exception, error)
