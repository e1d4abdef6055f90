"""Tasks of lm-evaluation-harness as suites: its documents, prompts, filters and metrics, offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.errors import EvaluationError
from data_contracts.records import EvalItem
from evaluation.answers import Output
from evaluation.lm_eval_tasks import items_of
from evaluation.scoring import score_outputs
from evaluation.suites import parse_item, problems_of, read_suite

pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")

CHOICES = {
    "output_type": "multiple_choice",
    "description": "Answer for the shop.",
    "doc_to_text": "Question: {{ask}}",
    "doc_to_choice": "{{options}}",
    "doc_to_target": "right",
    "num_fewshot": 1,
    "fewshot_split": "train",
    "fewshot_config": {"sampler": "first_n"},
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
SUMS = {
    "output_type": "generate_until",
    "doc_to_text": "{{ask}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 12},
    "filter_list": [
        {
            "name": "number",
            "filter": [{"function": "regex", "regex_pattern": "([0-9]+)"}, {"function": "take_first"}],
        }
    ],
    "metric_list": [
        {"metric": "bleu", "aggregation": "bleu", "higher_is_better": True},
        {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True},
    ],
}


def write_task(folder: Path, name: str, settings: dict[str, Any], docs: list[dict[str, Any]]) -> Path:
    """A task file and its documents; the first document is the worked example."""
    folder.mkdir(exist_ok=True)
    for split, rows in (("train", docs[:1]), ("test", docs[1:])):
        (folder / f"{name}-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {split: str(folder / f"{name}-{split}.jsonl") for split in ("train", "test")}
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        "training_split": "train",
        "test_split": "test",
        **settings,
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


def test_choices_are_asked_with_description_and_examples_as_turns(tmp_path: Path) -> None:
    docs = [
        {"ask": "Colour of the sky?", "options": ["green", "blue"], "right": 1},
        {"ask": "Colour of grass?", "options": ["green ", "blue"], "right": 0},
        {"ask": "Either?", "options": ["same", "same"], "right": 0},
        {"ask": "Which?", "options": ["a", "b"], "right": 5},
    ]
    found = items_of("colours", write_task(tmp_path / "tasks", "colours", CHOICES, docs))
    assert dict(found.left_out) == {
        "colours: empty choices, or two the same": 1,
        "colours: not exactly one right choice": 1,
    }
    item = parse_item(found.items[0], "s")
    assert [(m.role, m.content) for m in item.messages] == [
        ("system", "Answer for the shop."),
        ("user", "Question: Colour of the sky?"),
        ("assistant", "blue"),
        ("user", "Question: Colour of grass?"),
    ]
    assert (item.scorer, item.choices, item.reference, item.slice) == ("choice", ("green", "blue"), "green", "colours")
    assert problems_of(item) == []
    plain = parse_item(items_of("colours", tmp_path / "tasks", few_shot=0, limit=1).items[0], "s")
    assert len(plain.messages) == 2


def sums(folder: Path) -> list[EvalItem]:
    docs = [{"ask": f"{n} + 1?", "answer": str(n + 1)} for n in range(4)]
    return [
        parse_item(one, "s") for one in items_of("sums", write_task(folder, "sums", SUMS, docs), max_new_tokens=9).items
    ]


def test_answers_are_scored_by_the_tasks_own_stops_filters_and_metric(tmp_path: Path) -> None:
    items = sums(tmp_path / "tasks")
    assert [item.max_new_tokens for item in items] == [9, 9, 9]
    told = json.loads(items[0].reference)
    # A metric of the whole corpus says nothing of one answer.
    assert (told["metric"], told["filter"], told["doc"]["answer"]) == ("exact_match", "number", "2")
    outputs = [Output("It is 2."), Output("I know!\n3"), Output("4 of course, or 5")]
    assert [one.score for one in score_outputs(items, outputs)] == [1.0, 0.0, 1.0]


def test_a_task_that_scores_in_another_way_than_before_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "tasks"
    items = sums(folder)
    other = {**SUMS, "filter_list": [{"name": "number", "filter": [{"function": "take_first"}]}]}
    write_task(folder, "sums", other, [{"ask": "1 + 1?", "answer": "2"}] * 2)
    from evaluation.lm_eval_tasks import _task

    _task.cache_clear()
    with pytest.raises(EvaluationError, match="changed since the suite was made"):
        score_outputs(items, [Output("2")] * 3)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"output_type": "loglikelihood"}, "output_type loglikelihood"),
        ({"gen_prefix": "It is"}, "begun for the model"),
        ({"unsafe_code": True}, "run as programs"),
    ],
)
def test_a_task_that_cannot_be_asked_in_a_chat_is_refused(tmp_path: Path, change: dict[str, Any], found: str) -> None:
    docs = [{"ask": f"{n}?", "answer": str(n)} for n in range(3)]
    folder = write_task(tmp_path / "tasks", "sums", {**SUMS, **change}, docs)
    with pytest.raises(EvaluationError, match="cannot become a suite") as caught:
        items_of("sums", folder)
    assert found in str(caught.value.found)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no such folder"):
        items_of("sums", tmp_path / "nowhere")
    folder = write_task(tmp_path / "tasks", "sums", SUMS, [{"ask": "1?", "answer": "1"}] * 2)
    with pytest.raises(EvaluationError, match="no such task") as caught:
        items_of("summs", folder)
    assert caught.value.expected == "sums"
    (folder / "sums-test.jsonl").unlink()
    with pytest.raises(EvaluationError, match="does not load"):
        items_of("sums", folder)


def test_a_reference_of_ones_own_is_no_reference_of_lm_eval(tmp_path: Path) -> None:
    item = parse_item({"id": "a", "prompt": "?", "reference": "two", "scorer": "lm_eval"}, "s")
    assert problems_of(item) == ["the reference of scorer `lm_eval` is made by `tidemill suite new --lm-eval TASK`"]


def test_the_command_writes_a_suite_that_lints(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from cli.main import app

    docs = [{"ask": f"{n} + 1?", "answer": str(n + 1)} for n in range(4)]
    folder = write_task(tmp_path / "tasks", "sums", SUMS, docs)
    path = tmp_path / "sums.jsonl"
    arguments = ["suite", "new", str(path), "--lm-eval", "sums", "--tasks", str(folder), "--limit", "2", "--json"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert json.loads(done.stdout)["items"] == 2
    assert [item.scorer for item in read_suite(path).items] == ["lm_eval", "lm_eval"]
