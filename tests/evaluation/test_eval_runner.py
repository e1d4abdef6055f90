"""One base, adapters switched, answers kept: with a tiny random model and a random adapter."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from configs.errors import AdapterRejectedError, EvaluationError
from configs.schema import JudgeSection
from data_contracts.records import AdapterRef, EvalItem, EvalReport, Message
from evaluation.answers import AnswerCache, Output
from evaluation.evaluator import evaluate
from evaluation.launch import evaluation_job, run_evaluation
from evaluation.runner import run
from models.files import model_digest
from models.tiny import build_tiny_base
from tests.evaluation.openai_server import serving


def items(suite: str = "anchors", count: int = 5) -> list[EvalItem]:
    def user(text: str) -> tuple[Message, ...]:
        return (Message(role="user", content=text),)

    mixed = [
        EvalItem(
            id="c", suite=suite, messages=user("Which?"), reference="a", scorer="choice", choices=("a", "the card")
        ),
        EvalItem(id="r", suite=suite, messages=user("Say it"), reference=".+", scorer="regex", max_new_tokens=4),
    ]
    plain = [
        EvalItem(id=f"x{i}", suite=suite, messages=user(f"Where is order {i}?"), reference="soon", max_new_tokens=3)
        for i in range(count - 2)
    ]
    return plain + mixed


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = build_tiny_base(tmp_path_factory.mktemp("tiny") / "base")
    return path, model_digest(path)


@pytest.fixture(scope="module")
def adapter(base: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> AdapterRef:
    import torch
    from peft import LoraConfig, get_peft_model

    from models.adapters import publish_adapter
    from models.loading import load_base

    torch.manual_seed(0)
    model, _ = load_base(base[0])
    peft = get_peft_model(
        model,
        LoraConfig(
            r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
        ),
    )
    root = tmp_path_factory.mktemp("adapters")
    peft.save_pretrained(root / "tmp")
    config = root / "tmp" / "adapter_config.json"
    data = json.loads(config.read_text())
    config.write_text(json.dumps({**data, "base_model_name_or_path": ""}))
    digest, path = publish_adapter(root / "tmp", root, {"base_digest": base[1], "rank": 4, "alpha": 8})
    return AdapterRef(version="support-bot@v1", digest=digest, path=str(path), base_digest=base[1])


def test_three_models_are_scored_and_nothing_is_asked_twice(
    base: tuple[Path, str], adapter: AdapterRef, tmp_path: Path
) -> None:
    events: list[dict[str, Any]] = []
    suites = {"anchors": items(), "target": items("target", 4), "incidents": []}
    models = {"base": None, "champion": None, "candidate": adapter}
    first = run(*base, models, suites, batch=2, cache_dir=tmp_path, progress=events.append, dataset_digest="e" * 64)
    assert set(first.scores) == {"anchors", "target"}
    assert first.champion_digest == first.base_digest == base[1]
    assert first.candidate_digest == adapter.digest
    anchors = first.scores["anchors"]
    assert [i.item_id for i in anchors["candidate"].items] == [i.id for i in suites["anchors"]]
    assert anchors["base"].items == anchors["champion"].items
    assert anchors["base"].items != anchors["candidate"].items, "the adapter changes likelihoods"
    assert anchors["base"].items[-1].nll is None, "a pattern has no likelihood"
    # Items of both suites with the same content are asked once per model: 5 for the base, 5 for the candidate.
    assert events[-1]["done"] == events[-1]["total"] >= 10
    assert {e["model"] for e in events} == {"base", "candidate"}
    again: list[dict[str, Any]] = []
    second = run(Path("gone"), base[1], models, suites, batch=2, cache_dir=tmp_path, progress=again.append)
    assert again == []
    assert second.scores == first.scores
    # The best accepted version is asked its suites only; this one's answers are known already.
    fourth = {**models, "candidate": None, "best": adapter}
    best = run(*base, fourth, suites, cache_dir=tmp_path, progress=again.append, best_suites=["anchors"])
    assert again == []
    assert best.best_digest == adapter.digest
    assert best.scores["anchors"]["best"].items == first.scores["anchors"]["candidate"].items
    assert set(best.scores["target"]) == {"base", "champion", "candidate"}
    assert first.best_digest == ""


def test_a_changed_item_alone_is_asked_again(base: tuple[Path, str], tmp_path: Path) -> None:
    models = {"base": None, "champion": None, "candidate": None}
    run(*base, models, {"anchors": items()}, cache_dir=tmp_path)
    changed = items()
    changed[0] = changed[0].model_copy(update={"reference": "later"})
    events: list[dict[str, Any]] = []
    run(*base, models, {"anchors": changed}, cache_dir=tmp_path, progress=events.append)
    assert [e["total"] for e in events] == [1]


def test_what_was_answered_before_a_stop_is_kept(base: tuple[Path, str], tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(_: dict[str, Any]) -> None:
        raise Stop

    models = {"base": None, "champion": None, "candidate": None}
    with pytest.raises(Stop):
        run(*base, models, {"anchors": items(count=7)}, batch=1, cache_dir=tmp_path, progress=stop)
    events: list[dict[str, Any]] = []
    run(*base, models, {"anchors": items(count=7)}, batch=1, cache_dir=tmp_path, progress=events.append)
    assert events[-1]["total"] == 7 - 4


def test_a_nan_adapter_or_a_missing_model_is_an_error(
    base: tuple[Path, str], adapter: AdapterRef, tmp_path: Path
) -> None:
    with pytest.raises(EvaluationError, match="missing"):
        run(*base, {"base": None, "champion": None}, {"anchors": items()}, cache_dir=tmp_path)
    forged = adapter.model_copy(update={"digest": "0" * 64})
    with pytest.raises(AdapterRejectedError):
        run(*base, {"base": None, "champion": None, "candidate": forged}, {"a": items()}, cache_dir=tmp_path)


def test_nan_weights_never_give_a_score(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = build_tiny_base(tmp_path / "base")
    weights = load_file(path / "model.safetensors")
    broken = {k: (v * float("nan") if "norm" in k else v) for k, v in weights.items()}
    save_file(broken, path / "model.safetensors", metadata={"format": "pt"})
    models = {"base": None, "champion": None, "candidate": None}
    with pytest.raises(EvaluationError, match="not a number"):
        run(path, "f" * 64, models, {"anchors": items()}, cache_dir=tmp_path / "cache")
    pattern = [item for item in items() if item.scorer == "regex"]
    with pytest.raises(EvaluationError, match="a logit is not a number"):
        run(path, "f" * 64, models, {"anchors": pattern}, cache_dir=tmp_path / "cache")


def test_an_item_longer_than_the_context_is_refused(base: tuple[Path, str], tmp_path: Path) -> None:
    limit = json.loads((base[0] / "config.json").read_text())["max_position_embeddings"]
    long = [items()[0].model_copy(update={"id": "long", "max_new_tokens": min(4096, limit)})]
    models: dict[Any, Any] = {"base": None, "champion": None, "candidate": None}
    with pytest.raises(EvaluationError, match="longer than the model's context") as caught:
        run(*base, models, {"a": long}, cache_dir=tmp_path)
    assert str(caught.value.where).endswith("/long")


def test_the_cache_ignores_torn_lines(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path, "m")
    cache.put([("one", Output("a", 1.0)), ("two", Output("b", None, (1.0, 2.0)))])
    with (tmp_path / "m.jsonl").open("a") as handle:
        handle.write('{"item": "three", "dec')
    AnswerCache(tmp_path, "m").put([("four", Output("d"))])
    again = AnswerCache(tmp_path, "m")
    assert again.get("one") == Output("a", 1.0)
    assert again.get("two") == Output("b", None, (1.0, 2.0))
    assert again.get("three") is None
    assert again.get("four") == Output("d")


def test_the_job_names_embedder_and_judge_and_counts_what_judging_took(base: tuple[Path, str], tmp_path: Path) -> None:
    rubric = EvalItem(
        id="judged", suite="a", messages=items()[0].messages, reference="tone", scorer="rubric", max_new_tokens=3
    )
    with serving(lambda _: '{"verdict": "pass"}') as server:
        job = evaluation_job(
            base_path=base[0],
            base_digest=base[1],
            models={"base": None, "champion": None, "candidate": None},
            suites={"anchors": [*items(), rubric]},
            cache_dir=tmp_path / "cache",
            embedder=tmp_path,
            judge=JudgeSection(url=server.url, model="judge", micro_dollars_per_1k_prompt_tokens=50),
        )
        again = json.loads(json.dumps({**job, "report_path": str(tmp_path / "report.json")}))
        evaluate(again, lambda _: None, threading.Event())
    report = EvalReport.model_validate_json((tmp_path / "report.json").read_bytes())
    assert [i.score for i in report.scores["anchors"]["candidate"].items if i.item_id == "judged"] == [1.0]
    # One model in three roles is judged once, in two orders.
    assert report.judge is not None
    assert (report.judge.requests, report.judge.micro_dollars) == (2, 1)


def test_the_evaluator_process_reports_and_fails_clearly(base: tuple[Path, str], tmp_path: Path) -> None:
    job = evaluation_job(
        base_path=base[0],
        base_digest=base[1],
        models={"base": None, "champion": None, "candidate": None},
        suites={"anchors": items()},
        cache_dir=tmp_path / "cache",
        batch=4,
        threads=1,
    )
    events: list[dict[str, Any]] = []
    report = run_evaluation(job, tmp_path / "work", events.append)
    assert len(report.scores["anchors"]["candidate"].items) == 5
    assert [e["event"] for e in events][-1] == "done"
    bad = {**job, "suites": {"anchors": [items()[0].model_dump(), items()[0].model_dump()]}}
    with pytest.raises(EvaluationError, match="same id"):
        run_evaluation(bad, tmp_path / "work", events.append)
    with pytest.raises(EvaluationError, match="lacks a key"):
        evaluate({"models": {}}, lambda _: None, threading.Event())
