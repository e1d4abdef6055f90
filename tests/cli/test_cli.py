"""The command line as people meet it: one clear error, stable exit codes, JSON on request."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from configs.paths import StateDir
from data_contracts.records import Cause, utc_now
from flows import triggers
from flows.context import open_context
from tests.flows.flow_samples import add_corrections, add_thumbs, tiny_config

TIDEMILL = [sys.executable, "-m", "cli.main"]


def tidemill(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TIDEMILL, *arguments], capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2]
    )


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: smoke\nstate_dir: {tmp_path / 'state'}\n", encoding="utf-8")
    return path


def test_help_answers_quickly_and_names_every_command() -> None:
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        done = tidemill("--help")
        seconds.append(time.perf_counter() - began)
        assert done.returncode == 0
    for command in [
        "up",
        "down",
        "status",
        "doctor",
        "demo",
        "deploy",
        "retrain",
        "feedback",
        "rollout",
        "lineage",
        "gate",
    ]:
        assert command in done.stdout
    assert statistics.median(seconds) < 0.4


def test_an_unknown_key_is_named_with_a_suggestion(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("serving:\n  prot: 80\n", encoding="utf-8")
    done = tidemill("status", "--profile", str(path))
    assert done.returncode == 2
    assert "unknown key `serving.prot`" in done.stderr
    assert "did you mean `port`?" in done.stderr
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_value_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("serving:\n  port: soon\n", encoding="utf-8")
    done = tidemill("status", "--json", "--profile", str(path))
    assert done.returncode == 2
    assert "serving.port" in json.loads(done.stdout)["error"]["message"]


def test_a_missing_profile_lists_the_shipped_ones() -> None:
    done = tidemill("status", "--profile", "nowhere")
    assert done.returncode == 2
    assert "demo" in done.stderr


def test_status_of_a_fresh_state_says_that_the_base_serves(profile: Path) -> None:
    done = tidemill("status", "--json", "--profile", str(profile))
    facts = json.loads(done.stdout)
    assert facts["serving"]["champion"]["version"] == "base"
    assert (facts["request"], facts["rollout"], facts["versions"]) == (None, None, [])


def test_a_state_directory_from_a_newer_tidemill_is_refused(profile: Path, tmp_path: Path) -> None:
    assert tidemill("status", "--profile", str(profile)).returncode == 0
    with create_engine(f"sqlite:///{tmp_path / 'state' / 'tidemill.db'}").begin() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999_future'"))
    done = tidemill("status", "--profile", str(profile))
    assert done.returncode == 10
    assert "9999_future" in done.stderr
    assert "Traceback" not in done.stderr


def test_doctor_finds_a_contract_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"extends: smoke\nstate_dir: {tmp_path / 'state'}\n"
        "ingest: {contracts: {correction: contracts/incident.yaml}}\n",
        encoding="utf-8",
    )
    rows = json.loads(tidemill("doctor", "--json", "--profile", str(path)).stdout)
    (wrong,) = [row for row in rows if row["what"] == "contracts"]
    assert wrong["state"] == "wrong"
    assert "not for rows of kind correction" in wrong["found"]
    assert "ingest.contracts.correction" in wrong["found"]


def test_doctor_finds_a_missing_base_model_folder(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    missing = tmp_path / "no-such-model"
    path.write_text(f"extends: smoke\nstate_dir: {tmp_path / 'state'}\nmodel: {{base: {missing}}}\n", encoding="utf-8")
    rows = json.loads(tidemill("doctor", "--json", "--profile", str(path)).stdout)
    base = next(row for row in rows if row["what"] == "base model")
    assert base["state"] != "ok"
    assert str(missing) in base["found"]


def test_up_with_a_missing_base_model_fails_with_its_name_and_leaves_nothing_running(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    missing = tmp_path / "no-such-model"
    path.write_text(f"extends: smoke\nstate_dir: {tmp_path / 'state'}\nmodel: {{base: {missing}}}\n", encoding="utf-8")
    done = tidemill("up", "--profile", str(path))
    assert done.returncode == 5, done.stderr
    assert str(missing) in done.stderr
    assert not (tmp_path / "state" / "stack.json").exists()


def test_dry_run_says_rows_and_rejects_and_changes_nothing(tmp_path: Path) -> None:
    few = {"objectives": {"kto": {"weight": 0.2, "min_labels": 3, "min_people": 3}}}
    config = tiny_config(tmp_path / "state", training=few)
    context = open_context(config)
    add_corrections(context.store, context.model)
    add_thumbs(context.store, context.model, [f"lamp-customer-{n}" for n in range(6)])
    context.store.close()
    path = tmp_path / "mine.yaml"
    path.write_text(config_text(config), encoding="utf-8")
    done = tidemill("retrain", "--dry-run", "--json", "--profile", str(path))
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["labelled_rows"], plan["thumbs"]) == (48, 6)
    assert plan["train_rows"] + plan["target_items"] + sum(plan["rejects"].values()) == 54
    assert plan["estimate"]["thumbs"] >= 2
    assert plan["estimate"]["calibrated_steps"] > 0
    # Questions that differ from a held-out person's by a number only are not taught.
    assert plan["train_rows"] >= 12
    assert set(plan["rejects"]) <= {"contaminated", "held_out"}
    assert tidemill("status", "--json", "--profile", str(path)).stdout.count('"request": null') == 1


def config_text(config: object) -> str:
    return json.dumps(config.model_dump(mode="json"))  # type: ignore[attr-defined]


def test_overruling_without_a_rollout_is_one_clear_error(profile: Path) -> None:
    done = tidemill("rollout", "promote", "--by", "mira", "--reason", "because", "--profile", str(profile))
    assert done.returncode == 4
    assert "error:" in done.stderr
    blank = tidemill("rollout", "promote", "--by", " ", "--reason", "because", "--profile", str(profile))
    assert blank.returncode == 3


def test_lineage_of_something_unknown_says_what_it_looks_for(profile: Path) -> None:
    done = tidemill("lineage", "support-bot@v99", "--profile", str(profile))
    assert done.returncode == 4
    assert "support-bot@v99" in done.stderr


def test_a_manual_retrain_is_recorded_once(tmp_path: Path) -> None:
    context = open_context(tiny_config(tmp_path / "state"))
    first, created = triggers.record(context, Cause(kind="manual", at=utc_now(), detail={"title": "manual"}))
    second, again = triggers.record(context, Cause(kind="manual", at=utc_now(), detail={"title": "manual"}))
    assert (first.id, created, again) == (second.id, True, False)
    context.store.close()


def test_bad_lines_of_an_import_are_named_and_good_ones_kept(profile: Path, tmp_path: Path) -> None:
    good = {
        "interaction": {
            "model": "support-bot",
            "principal": "ada",
            "created_at": "2026-01-02T03:04:05Z",
            "messages": [{"role": "user", "content": "when do you open?"}],
            "answer": "At ten.",
        },
        "feedback": [{"kind": "correction", "text": "We open at nine.", "principal": "ada"}],
    }
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps(good) + "\n{broken\n" + json.dumps({"interaction": {}}) + "\n", encoding="utf-8")
    done = tidemill("feedback", "import", str(path), "--json", "--profile", str(profile))
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert (report["interactions"], report["feedback"], report["rejected"]) == (1, 1, 2)
    assert any("2" in error for error in report["errors"])
    out = tmp_path / "out.jsonl"
    assert tidemill("feedback", "export", str(out), "--profile", str(profile)).returncode == 0
    assert "We open at nine." in out.read_text(encoding="utf-8")


def test_the_state_directory_is_made_where_the_profile_says(profile: Path, tmp_path: Path) -> None:
    tidemill("status", "--profile", str(profile))
    assert StateDir(tmp_path / "state").database.exists()
