"""`tidemill feedback` as people meet it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from configs.loader import load_config
from flows.context import open_context
from store.erasure import known_exports

ROOT = Path(__file__).parents[2]
SKY = [{"role": "user", "content": "What color is the sky?"}]
DPO = {
    "input": {"messages": SKY},
    "preferred_output": [{"role": "assistant", "content": "Blue."}],
    "non_preferred_output": [{"role": "assistant", "content": "Green."}],
}


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    inbox = "ingest: {sources: [{kind: csv, path: inbox}]}\n"
    path.write_text(f"extends: smoke\nstate_dir: {tmp_path / 'state'}\n{inbox}", encoding="utf-8")
    return path


def feedback(profile: Path, *arguments: str) -> tuple[int, Any, str]:
    """`(exit code, JSON, stderr)` of one command."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "feedback", *arguments, "--profile", str(profile), "--json"],
        capture_output=True, text=True, timeout=120, cwd=ROOT,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def test_other_peoples_files_come_in_and_go_out(profile: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(DPO) + "\n" + json.dumps({**DPO, "input": 3}) + "\n")
    code, dry, _ = feedback(profile, "import", str(path), "--principal", "desk", "--scope", "review", "--dry-run")
    assert (code, dry["feedback"], dry["rejected"], dry["dry_run"]) == (3, 1, 1, True)
    assert f"{path}, line 2: `input`" in dry["errors"][0]
    code, report, _ = feedback(profile, "import", str(path), "--principal", "desk", "--scope", "review")
    assert (code, report["interactions"], report["feedback"], report["kinds"]) == (3, 1, 1, {"preference": 1})
    code, again, _ = feedback(
        profile, "import", str(path), "--format", "openai-dpo", "--principal", "desk", "--scope", "review"
    )
    assert (again["feedback"], again["repeated"]) == (0, 2)
    out = tmp_path / "out.json"
    code, sent, _ = feedback(
        profile, "export", str(out), "--format", "trl", "--kind", "preference", "--since", "2026-01-01"
    )
    assert (code, sent["lines"], sent["left_out"]) == (0, 1, 0)
    assert json.loads(out.read_text())["chosen"] == [{"role": "assistant", "content": "Blue."}]
    code, sent, _ = feedback(profile, "export", str(out), "--format", "openai-chat")
    assert (sent["lines"], sent["reasons"]) == (0, {"openai-chat: a preference in a file of corrections": 1})
    assert feedback(profile, "export", str(tmp_path / "all.jsonl"))[0] == 0
    (line,) = (tmp_path / "all.jsonl").read_text().splitlines()
    said = json.loads(line)["feedback"][0]
    assert (said["principal"], said["scope"], said["source"]) == ("desk", "review", "openai-dpo")


def test_a_row_calls_itself_reviewed_only_where_it_is_trusted(profile: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "own.jsonl", tmp_path / "out.jsonl"
    for trust in ([], ["--trust-scope"]):
        said = {"kind": "correction", "text": f"Blue {trust}.", "scope": "review"}
        path.write_text(json.dumps({"interaction": {"messages": SKY, "answer": "Green."}, "feedback": [said]}) + "\n")
        assert feedback(profile, "import", str(path), *trust)[1]["feedback"] == 1
    feedback(profile, "export", str(out))
    found = [said for line in out.read_text().splitlines() for said in json.loads(line)["feedback"]]
    assert {said["text"]: said["scope"] for said in found} == {
        "Blue [].": "user",
        "Blue ['--trust-scope'].": "review",
    }


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["import", "none.jsonl"], 3, "cannot be read"),
        (["import", "x", "--format", "word"], 3, "no such format"),
        (["import", "x", "--scope", "admin"], 3, "no such scope"),
        (["import", "x", "--principal", ""], 3, "1 to 128"),
        (["import", "x", "--experiment", "e"], 3, "only MLflow"),
        (["import", "http://127.0.0.1:9", "--format", "mlflow"], 3, "many experiments"),
        (["import", "http://127.0.0.1:9", "--format", "mlflow", "--experiment", "e"], 23, "MLflow cannot be read"),
        (["export", "/proc/none/x"], 3, "cannot be written"),
        (["export", "x", "--format", "auto"], 3, "no such format"),
        (["export", "x", "--kind", "praise"], 3, "no such kind"),
        (["export", "x", "--since", "soon"], 3, "not a date"),
    ],
)  # fmt: skip
def test_wrong_words_are_one_clear_error(profile: Path, arguments: list[str], code: int, words: str) -> None:
    found, error, _ = feedback(profile, *arguments)
    assert found == code
    assert words in error["error"]["message"]


def test_an_ambiguous_file_says_what_to_do(profile: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"prompt": "p", "chosen": "p a", "rejected": "p b", "messages": SKY}) + "\n")
    code, error, _ = feedback(profile, "import", str(path))
    assert code == 3
    assert error["error"]["message"] == "the format is ambiguous"
    assert error["error"]["fix"] == "name it with --format"
    assert feedback(profile, "import", str(path), "--format", "trl")[1]["feedback"] == 1


def test_the_sources_of_a_profile_are_listed(profile: Path, tmp_path: Path) -> None:
    code, (source,), _ = feedback(profile, "sources")
    assert code == 0
    assert (source["source"], source["pulled"], source["failures"]) == (f"csv:{tmp_path}/inbox", "never", 0)


def test_an_export_is_remembered_before_its_file_is_written(profile: Path) -> None:
    assert feedback(profile, "export", "/proc/none/x")[0] == 3  # it never got to its end
    context = open_context(load_config(profile))
    with context.store.read() as conn:
        assert known_exports(conn) == ["/proc/none/x"]
    context.store.close()
