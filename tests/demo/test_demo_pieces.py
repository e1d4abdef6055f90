"""The narrator, the memory sampler, the bad adapter, the state directory and the verdict about the story."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from cli.demo.bad_adapter import make_bad_adapter
from cli.demo.memory import PeakMemory, resident_bytes, stack_pids
from cli.demo.narrator import Narrator
from cli.demo.result import DemoResult
from cli.demo.runner import check_story, fresh_state
from cli.demo.script import FULL, SHORT
from configs.errors import DemoError
from configs.paths import StateDir
from configs.schema import TrainingSection
from data_contracts.records import AdapterRef, ModelVersion
from models.adapters import check_adapter, publish_adapter


def good(short: bool = False) -> DemoResult:
    return DemoResult(
        short=short,
        exact_match_before=0.0,
        exact_match_after=0.9,
        gate="pass",
        promoted_versions=1 if short else 2,
        rolled_back_versions=1,
        drift_detected=None if short else True,
        retrains=1 if short else 2,
        rows_accepted=100,
        rows_quarantined=10,
    )


def test_a_story_that_happened_exits_0() -> None:
    for short, script in ((False, FULL), (True, SHORT)):
        result = good(short)
        check_story(result, script)
        assert result.failures == []
        assert result.exit_code == 0


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("exact_match_after", 0.2, "answers got better"),
        ("exact_match_before", None, "answers got better"),
        ("drift_detected", None, "drift"),
        ("promoted_versions", 1, "promoted"),
        ("rolled_back_versions", 0, "rolled back"),
        ("retrains", 3, "retrain"),
        ("gate", "block", "gate"),
        ("rows_quarantined", 0, "quarantined"),
        ("failed_requests", 1, "no request failed"),
    ],
)
def test_a_story_that_did_not_happen_says_which_part(field: str, value: object, says: str) -> None:
    result = good()
    setattr(result, field, value)
    check_story(result, FULL)
    assert len(result.failures) == 1
    assert says in result.failures[0]
    assert result.exit_code != 0


def test_the_json_has_the_promised_keys() -> None:
    data = json.loads(json.dumps(good().as_dict()))
    assert {
        *("exact_match_before", "exact_match_after", "gate", "promoted_versions", "rolled_back_versions"),
        *("drift_detected", "retrains", "rows_accepted", "rows_quarantined", "wall_s", "peak_rss_mb"),
    } <= data.keys()


def test_without_a_terminal_the_narrator_writes_plain_lines() -> None:
    out = io.StringIO()
    narrator = Narrator(Console(file=out, force_terminal=False, width=100))
    narrator.chapter("Act 1")
    narrator.say("a [sentence] with brackets")
    narrator.link("MLflow", "http://127.0.0.1:5000/#/models")
    with narrator.bar("training", total=8) as bar:
        for done in range(9):
            bar.update(done, "x")
    narrator.table("end", [("a", "1")])
    text = out.getvalue()
    assert "\x1b" not in text
    assert "a [sentence] with brackets" in text
    assert "http://127.0.0.1:5000/#/models" in text
    assert text.count("training") == 4  # a line every quarter


def test_on_a_terminal_the_narrator_shows_a_bar() -> None:
    out = io.StringIO()
    narrator = Narrator(Console(file=out, force_terminal=True, width=100))
    with narrator.bar("training", total=4) as bar:
        bar.update(2, "half [way]")
        narrator.say("meanwhile")
    assert "training" in out.getvalue()
    assert "half [way]" in out.getvalue()


def test_memory_counts_children_and_what_the_stack_file_names(tmp_path: Path) -> None:
    stack_file = tmp_path / "stack.json"
    code = "x = bytearray(b'1') * 60_000_000; print(len(x), flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        stack_file.write_text(json.dumps({"info": {"port": 1}, "children": [{"name": "x", "pid": child.pid}]}))
        assert stack_pids(stack_file) == {child.pid}
        with PeakMemory(stack_file) as memory:
            assert child.stdout is not None
            child.stdout.readline()
            memory._sample()
        assert memory.peak_bytes >= resident_bytes({os.getpid()})
        assert memory.peak_mb >= 50
    finally:
        child.communicate(b"\n", timeout=30)
    assert stack_pids(tmp_path / "none.json") == set()


def test_a_state_directory_that_is_not_the_demos_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("x")
    with pytest.raises(DemoError, match="of its own"):
        fresh_state(StateDir(mine))
    assert (mine / "thesis.txt").exists()


def test_an_earlier_demos_state_is_removed(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "demo")
    fresh_state(state)
    (state.root / "old.db").write_text("x")
    fresh_state(state)
    assert [p.name for p in state.root.iterdir()] == ["demo.json"]


def test_the_bad_adapter_passes_the_loading_checks_and_is_noise(tmp_path: Path, tiny_base: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from models.loading import load_base
    from training.lora import add_lora

    model, _ = load_base(tiny_base)
    peft_model = add_lora(model, TrainingSection(rank=4, alpha=8.0), seed=1)
    made = tmp_path / "made"
    peft_model.save_pretrained(made)
    (made / "README.md").unlink(missing_ok=True)
    digest, path = publish_adapter(made, tmp_path / "adapters", {"base_digest": "b" * 64})
    champion = AdapterRef(version="support-bot@v1", digest=digest, path=str(path), base_digest="b" * 64)
    version = ModelVersion(
        model="support-bot",
        number=1,
        adapter_digest=digest,
        base_digest="b" * 64,
        dataset_digest="d" * 64,
        config_digest="c" * 64,
        code_commit="x",
        gate="pass",
    )
    bad = make_bad_adapter(champion, version, tmp_path / "adapters")
    check_adapter(AdapterRef(version="bad", digest=bad.digest, path=bad.path, base_digest="b" * 64))
    weights = load_file(Path(bad.path) / "adapter_model.safetensors")
    assert all(bool(torch.isfinite(w).all()) for w in weights.values())
    assert {n: w.shape for n, w in weights.items()} == {
        n: w.shape for n, w in load_file(path / "adapter_model.safetensors").items()
    }
    assert bad.rank == 4
    assert make_bad_adapter(champion, version, tmp_path / "adapters").digest == bad.digest
    assert sorted(p.name for p in (tmp_path / "adapters").iterdir()) == sorted([digest, bad.digest])
