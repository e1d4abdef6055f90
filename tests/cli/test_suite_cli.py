"""`tidemill suite` and `tidemill eval` as people meet them, in this process: a tiny model, the shipped suites."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from configs.errors import ConflictError, EvaluationError, InputError, NotFoundError, TidemillError
from configs.loader import HERE
from data_contracts.records import ReviewAnswer
from data_contracts.review.desk import Desk
from evaluation.suites import load_suite, read_suite
from flows.context import open_context
from flows.suites import anchor_suites, refuse_trained_references
from store import audit, reviews
from tests.evaluation.openai_server import serving
from tests.flows.flow_samples import tiny_config

SMALL = """
max_new_tokens: 6
items:
  - {id: a, prompt: "Are you there?", reference: clean, scorer: toxicity, slice: tone}
  - {id: b, prompt: "Where is my order?", reference: on its way, scorer: contains, slice: orders}
  - {id: c, prompt: "Which?", reference: "yes", choices: ["yes", "no"], scorer: choice, slice: orders}
"""
Run = Callable[..., Any]


@pytest.fixture
def tidemill(tmp_path: Path) -> Run:
    def one(*arguments: str, raises: type[TidemillError] | None = None, **profile: Any) -> Any:
        written = {"extends": "smoke", "state_dir": str(tmp_path / "state"), **profile}
        path = tmp_path / "mine.yaml"
        if profile or not path.exists():
            path.write_text(json.dumps(written), encoding="utf-8")
        done = CliRunner().invoke(app, [*arguments, "--profile", str(path)])
        if raises is not None:
            assert isinstance(done.exception, raises), done.output
            return done.exception
        assert done.exit_code == 0, f"{done.output} {done.exception!r}"
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    return one


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return path


def test_a_suite_is_made_linted_frozen_and_a_change_is_refused(tidemill: Run, tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    assert tidemill("suite", "new", str(path), "--json")["items"] == 3
    tidemill("suite", "new", str(path), raises=ConflictError)
    tidemill("suite", "new", str(tmp_path / "shop.txt"), raises=InputError)
    assert tidemill("suite", "lint", str(path), "--json")[0]["frozen"] == "no"
    assert tidemill("suite", "freeze", str(path), "--json")[0]["version"] == 1
    path.write_text(path.read_text().replace("Saturdays", "Sundays"))
    changed = tidemill("suite", "lint", str(path), raises=EvaluationError)
    assert changed.found == "changed: opening-hours"
    tidemill("suite", "freeze", str(path), raises=EvaluationError)
    assert tidemill("suite", "freeze", str(path), "--new-version", "--json")[0]["version"] == 2
    assert "shop" in tidemill("suite", "lint", str(path))


def test_the_shipped_suites_lint_and_are_frozen(tidemill: Run) -> None:
    rows = {row["suite"]: row for row in tidemill("suite", "lint", str(HERE / "suites"), "--json")}
    assert set(rows) == {"anchors", "anchors-short", "formats", "safety"}
    assert {row["frozen"] for row in rows.values()} == {"version 1"}
    assert [row["suite"] for row in tidemill("suite", "lint", "--json")] == ["anchors"], "by default what the gate asks"
    assert "no such suite" in tidemill("suite", "lint", "nothing", raises=NotFoundError).message


def test_a_bad_suite_is_one_error_with_a_stable_exit_code(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl"
    path.write_text('{"id": "a", "prompt": "p", "reference": "(a+)+$", "scorer": "regex"}\n', encoding="utf-8")
    command = [sys.executable, "-m", "cli.main", "suite", "lint", str(path), "--profile", "smoke"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=HERE.parent)
    assert done.returncode == 14
    assert "takes too long" in done.stderr
    assert "bomb/a" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_suite_is_run_and_judged_and_people_are_compared(tidemill: Run, small: Path, tmp_path: Path) -> None:
    judged = tmp_path / "judged.yaml"
    judged.write_text(SMALL + '  - {id: r, prompt: "Hello!", reference: tone, scorer: rubric}\n', encoding="utf-8")
    labels = tmp_path / "labels.jsonl"
    said = [{"suite": "judged", "id": "a", "passed": True}, {"suite": "judged", "id": "r", "passed": False}]
    labels.write_text("\n".join(map(json.dumps, said)), encoding="utf-8")
    with serving(lambda _: '{"verdict": "pass"}') as server:
        judge = {"url": server.url, "model": "judge", "micro_dollars_per_1k_prompt_tokens": 1000, "attempts": 1}
        arguments = ("suite", "run", str(judged), "--labels", str(labels), "--json")
        facts = tidemill(*arguments, evaluation={"judge": judge})
    total = next(row for row in facts["summary"] if row["slice"] == "all")
    assert (total["items"], total["missing"], total["not_asked"]) == (4, 0, 0)
    assert {row["slice"] for row in facts["summary"]} == {"orders", "tone", "all"}
    assert (facts["judge"]["requests"], facts["judge"]["micro_dollars"]) == (2, 20)
    agreed = {row["scorer"]: row for row in facts["agreement"]}
    assert (agreed["rubric"]["labels"], agreed["rubric"]["agreed"]) == (1, 0.0)
    assert [row["passed"] for row in facts["items"] if row["id"] == "r"] == [1.0]
    shown = tidemill("suite", "run", str(small))
    assert "small" in shown
    assert "orders" in shown
    other = tmp_path / "other.yaml"
    other.write_text(judged.read_text().replace("Hello!", "Good day!"), encoding="utf-8")
    down = tidemill("suite", "run", str(other), "--json", raises=EvaluationError)
    assert "scores are missing, so there is no verdict" in down.message
    labels.write_text('{"suite": "small", "id": "zz", "passed": true}', encoding="utf-8")
    tidemill("suite", "run", str(small), "--labels", str(labels), raises=InputError)


def test_the_bases_own_behaviour_is_a_suite_that_the_base_passes(tidemill: Run, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"id": f"p{n}", "prompt": f"Say {n}."}) + "\n" for n in range(4)))
    path = tmp_path / "behaviour.jsonl"
    made = tidemill("suite", "new", str(path), "--from-base", "--prompts", str(prompts), "--slack", "0.1", "--json")
    items = load_suite(path)
    assert made["items"] == len(items) >= 1
    assert {item.scorer for item in items} == {"likelihood"}
    assert all(item.threshold for item in items)
    facts = tidemill("suite", "run", str(path), "--json")
    assert facts["summary"][-1]["share"] == 1.0
    assert all(row["nll"] is not None for row in facts["items"])


def test_models_endpoints_and_prompts_are_compared(tidemill: Run, small: Path, tmp_path: Path) -> None:
    (tmp_path / "kind.txt").write_text("You are kind.", encoding="utf-8")
    with serving(lambda m: "It is on its way." if m[0]["role"] == "system" else "No idea.") as server:
        arguments = ["eval", "compare", "-s", str(small), "-m", f"far=openai:{server.url}#m", "-m", "base"]
        arguments += ["--prompt", f"kind={tmp_path / 'kind.txt'}", "--price", "far=1,2", "--resamples", "100"]
        facts = tidemill(*arguments, "--json")
        assert [body["messages"][0]["content"] for body in server.bodies] == ["You are kind."] * 2
    assert (facts["items"], facts["left_out"]) == (2, 1)
    first = facts["rows"][0]
    assert (first["name"], first["share"], first["micro_dollars"]) == ("far, kind", 1.0, 2 * (10 + 3 * 2))
    assert "far, kind" in tidemill(*arguments), "kept answers need no endpoint"
    bad = [
        (["--price", "far=cheap"], InputError),
        (["--price", "nobody=1,2"], InputError),
        (["--prompt", "kind"], InputError),
        (["--prefer"], TidemillError),
        (["-m", "openai:nowhere"], InputError),
        (["-m", "shop@v9"], NotFoundError),
        (["-m", "base"], InputError),
    ]
    for more, error in bad:
        tidemill(*arguments, *more, raises=error)


def test_answers_go_to_people_and_their_agreement_comes_back(tidemill: Run, small: Path, tmp_path: Path) -> None:
    arguments = ("eval", "sample", "-s", str(small), "--by", "mira", "--rubric", "tone", "--json")
    first = tidemill(*arguments)
    assert (first["added"], first["of"]) == (2, 2)
    assert tidemill(*arguments)["added"] == 0, "the same answers are asked about once"
    config = tiny_config(tmp_path / "state", review={"gold_share": 0.0})
    context = open_context(config)
    desk = Desk(context.store, config, context.state.key)
    for labeller, verdicts in (("bea", ["accept", "reject"]), ("dan", ["accept", "accept"])):
        for verdict in verdicts:
            task = desk.next(labeller)
            assert task is not None
            assert "polite" in task.payload.title
            desk.label(task.item, labeller, task.token, ReviewAnswer.model_validate({"verdict": verdict}))
    with context.store.read() as conn:
        assert {i.status for i in reviews.list_items(conn, context.model, kinds=["answer"])} == {"done", "adjudicate"}
        assert [e.action for e in audit.entries(conn)].count("eval.sampled") == 2
    context.store.close()
    rows = tidemill("eval", "agreement", "-s", str(small), "-m", "base", "--json")
    assert (rows[0]["what"], rows[0]["units"], rows[0]["agreed"]) == ("labellers", 2, 0.5)
    assert [row["what"] for row in rows[1:]] in (["scorer contains"], ["scorer toxicity"]), "only what people settled"


def test_ratings_of_a_file_agree_as_published(tidemill: Run, tmp_path: Path) -> None:
    """The worked example of Krippendorff (2011), section C to D: 12 units, 4 observers, values 1 to 5."""
    observers = {
        "A": "1 2 3 3 2 1 4 1 2 . . .", "B": "1 2 3 3 2 2 4 1 2 5 . 3",
        "C": ". 3 3 3 2 3 4 2 2 5 1 .", "D": "1 2 3 3 2 4 4 1 2 5 1 .",
    }  # fmt: skip
    path = tmp_path / "ratings.jsonl"
    lines = [
        json.dumps({"item": str(n), "rater": rater, "rating": int(value)})
        for rater, values in observers.items()
        for n, value in enumerate(values.split())
        if value != "."
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    for level, alpha in (("nominal", 0.743), ("ordinal", 0.815)):
        row = tidemill("eval", "agreement", "--ratings", str(path), "--level", level, "--json")[0]
        assert row["alpha"] == pytest.approx(alpha, abs=5e-4)
        assert (row["units"], row["labels"]) == (11, 40)
    tidemill("eval", "agreement", "--ratings", str(path), "--level", "ratio", raises=InputError)
    path.write_text(lines[0] + "\n" + lines[0], encoding="utf-8")
    assert "twice" in tidemill("eval", "agreement", "--ratings", str(path), raises=InputError).message


def test_a_retrain_is_stopped_by_bad_anchors_and_by_trained_references(tmp_path: Path, small: Path) -> None:
    only_judged = tmp_path / "soft.yaml"
    only_judged.write_text("- {id: a, prompt: p, reference: tone, scorer: rubric}", encoding="utf-8")
    context = open_context(tiny_config(tmp_path / "state", evaluation={"anchors": [str(only_judged)]}))
    with pytest.raises(EvaluationError, match="only gate"):
        anchor_suites(context)
    context.store.close()
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "facts.yaml").write_text(
        "- {id: a, prompt: p, reference: We open at nine on Mondays., unseen: true}", encoding="utf-8"
    )
    context = open_context(tiny_config(tmp_path / "state", evaluation={"anchors": [str(folder), str(small)]}))
    assert set(anchor_suites(context)) == {"facts", "small"}
    from tests.evaluation.test_suite_files import row

    refuse_trained_references(context, [row("We open at ten.")])
    with pytest.raises(EvaluationError, match="would be trained on"):
        refuse_trained_references(context, [row("We open at nine, on Mondays.")])
    context.store.close()
    assert read_suite(small).size == 3
