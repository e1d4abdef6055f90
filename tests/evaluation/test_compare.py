"""Base, adapter and a real gateway on the same items: asked once, ranked, priced."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import EvaluationError
from configs.schema import JudgeSection, ServingSection
from data_contracts.records import AdapterRef, EvalItem
from evaluation.answers import AnswerCache, Output
from evaluation.comparison import compare
from evaluation.contest import Bench, Contestant, Measured, Prices, measure, summary
from evaluation.endpoint import Endpoint
from evaluation.judge import Judge
from evaluation.ranking import fit, rank, wins
from evaluation.scorers.base import Score, Tools
from evaluation.suites import parse_item
from models.files import model_digest
from tests.evaluation.openai_server import serving
from tests.serving.serving_helpers import BASE_DIGEST, MODEL, config_for, make_adapter, running


def suite() -> dict[str, list[EvalItem]]:
    rows: list[dict[str, Any]] = [
        {"id": "c", "prompt": "Which?", "reference": "a", "scorer": "choice", "choices": ["a", "the card"]},
        {"id": "l", "prompt": "Hello!", "reference": "Hi", "scorer": "likelihood", "threshold": 0.0001},
        {"id": "t", "prompt": "Are you there?", "reference": "clean", "scorer": "toxicity", "slice": "tone"},
        *(
            {"id": f"x{n}", "prompt": f"Where is order {n}?", "reference": "soon", "scorer": "contains"}
            for n in range(4)
        ),
    ]
    return {"s": [parse_item({**row, "max_new_tokens": 4}, "s") for row in rows]}


def test_strengths_recover_what_made_the_wins() -> None:
    true = np.log([4.0, 2.0, 1.0])
    true -= true.mean()
    chances = 1.0 / (1.0 + np.exp(true[None, :] - true[:, None]))
    won = 100_000.0 * chances
    np.fill_diagonal(won, 0.0)
    assert np.allclose(fit(won), true, atol=1e-3)
    assert np.allclose(fit(np.zeros((2, 2))), 0.0), "nothing is known: all are average"
    never = fit(np.array([[0.0, 10.0], [0.0, 0.0]]))
    assert np.isfinite(never).all()
    assert never[0] == pytest.approx(np.log(10.5 / 0.5) / 2), "by hand: one tie was added"


def test_ranks_come_with_intervals_that_shrink_with_items() -> None:
    draw = np.random.default_rng(1)

    def standings(n: int) -> list[Any]:
        return rank(wins((draw.random((n, 3)) < [0.8, 0.5, 0.5]).astype(float)), seed=3)

    few, many = standings(20), standings(2_000)
    assert many[0].rank == many[0].worst_rank == 1
    assert many[0].high - many[0].low < few[0].high - few[0].low
    assert many[0].low > many[1].high
    assert all(one.low <= one.strength <= one.high for one in many)
    equal = rank(wins(np.ones((50, 2))))
    assert [one.rank for one in equal] == [1, 1]
    assert [one.strength for one in equal] == pytest.approx([0.0, 0.0])
    assert rank(wins(np.eye(2)), seed=5) == rank(wins(np.eye(2)), seed=5)
    with pytest.raises(ValueError, match="finite values"):
        wins(np.array([[1.0, float("nan")]]))


@pytest.fixture(scope="module")
def adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterRef:
    made = make_adapter(tiny_base, tmp_path_factory.mktemp("a"), 1, base_digest=model_digest(tiny_base)).adapter
    assert made is not None
    return made


def test_the_base_an_adapter_and_a_gateway_are_compared(tiny_base: Path, adapter: AdapterRef, tmp_path: Path) -> None:
    from serving.engines.transformers_engine import TransformersEngine

    asked: list[tuple[str, int, int]] = []
    bench = Bench(lambda: (tiny_base, model_digest(tiny_base)), tmp_path / "answers", batch=4)
    bench.progress = lambda *facts: asked.append(facts)
    prices = Prices(Decimal("0.5"), Decimal("2"))
    local = [
        Contestant("base", prices=prices),
        Contestant("tuned", adapter=adapter),
        Contestant("brief", system="Be brief."),
    ]
    measured = [measure(one, suite(), bench) for one in local]
    settings = ServingSection(max_batch=4, batch_wait_ms=2, max_prompt_tokens=200)
    engine = TransformersEngine(tiny_base, base_digest=BASE_DIGEST, settings=settings, threads=1)
    with running(config_for(tmp_path), engine) as gateway:
        remote = Contestant("gateway", endpoint=Endpoint(f"{gateway.url}/v1", MODEL), prices=prices)
        measured.append(measure(remote, suite(), bench))
    base, tuned, brief, served = measured
    spoken = [i for i, item in enumerate(base.items) if item.scorer in ("contains", "toxicity")]
    assert [served.outputs[i].answer for i in spoken] == [base.outputs[i].answer for i in spoken]  # type: ignore[union-attr]
    assert served.outputs[:2] == (None, None), "an endpoint gives no likelihoods"
    assert base.outputs[0] != tuned.outputs[0]
    assert base.outputs[2] != brief.outputs[2] or base.outputs[1] != brief.outputs[1], "the prompt changes something"

    found = compare(measured)
    assert (found.items, found.left_out, found.by) == (5, 2, "passed")
    by_name = {row.name: row for row in found.rows}
    assert by_name["gateway"].standing.rank == by_name["base"].standing.rank
    for name in ("base", "gateway"):
        row = by_name[name]
        assert row.prompt_tokens
        assert row.micro_dollars == -(-(row.prompt_tokens + 4 * row.answer_tokens) // 2)  # type: ignore[operator]
        assert row.seconds_median is not None
    assert by_name["base"].prompt_tokens == by_name["gateway"].prompt_tokens
    assert by_name["tuned"].micro_dollars is None
    rows = {(row["suite"], row["slice"]): row for row in summary(served)}
    assert rows["s", "all"]["not_asked"] == 2
    assert rows["s", "tone"]["items"] == 1

    asked.clear()
    again = [measure(one, suite(), bench) for one in (*local, remote)]  # the gateway is gone
    assert asked == []
    assert compare(again) == found
    with pytest.raises(EvaluationError, match="no item that all could be asked"):
        compare([Measured(one.contestant, one.items[:2], one.outputs[:2], one.scores[:2]) for one in measured])


def test_an_endpoint_that_fails_midway_keeps_what_it_said(tmp_path: Path) -> None:
    def tired(messages: list[dict[str, str]]) -> str | int:
        return 500 if "order 3" in messages[-1]["content"] else "It comes soon."

    suites = {"s": [item for item in suite()["s"] if item.scorer == "contains"]}
    with serving(tired) as server:
        chat = Endpoint(server.url, "m", attempts=2, pause_s=0.0)
        bench = Bench(lambda: (tmp_path, "b" * 64), tmp_path / "answers", batch=1, concurrency=1)
        contestant = Contestant("far", endpoint=chat)
        items = suites["s"] * 1
        with pytest.raises(EvaluationError, match="HTTP 500") as caught:
            measure(contestant, {"s": [items[0], items[1], items[2], items[3]]}, bench)
        assert chat.name in str(caught.value)
        assert len(server.bodies) == 3 + 2, "a failing endpoint is tried twice"
        assert server.bodies[0]["temperature"] == 0


def test_a_missing_score_is_no_comparison() -> None:
    items = tuple(suite()["s"][3:5])
    output = (Output("soon"), Output("later"))
    whole = Measured(Contestant("a"), items, output, (Score(1.0), Score(0.0)))
    torn = Measured(Contestant("b"), items, output, (Score(1.0), Score(None, "the judge is down")))
    with pytest.raises(EvaluationError, match="the judge is down"):
        compare([whole, torn])
    assert summary(torn)[0]["share"] is None
    assert summary(torn)[0]["missing"] == 1
    with pytest.raises(EvaluationError, match="different names"):
        compare([whole, whole])
    with pytest.raises(EvaluationError, match="same items"):
        compare([whole, Measured(Contestant("b"), items[:1], output[:1], (Score(1.0),))])


def test_a_judges_preference_ranks_too() -> None:
    def longest(messages: list[dict[str, str]]) -> str:
        document = json.loads(messages[1]["content"])
        return json.dumps({"better": "first" if len(document["first"]) > len(document["second"]) else "second"})

    items = tuple(suite()["s"][3:6])
    given = {"a": ("long answer", "longer answer", "x"), "b": ("short", "short", "x"), "c": ("s", "s", "much longer")}
    measured = [
        Measured(Contestant(name), items, tuple(map(Output, texts)), (Score(0.0),) * 3) for name, texts in given.items()
    ]
    with serving(longest) as server:
        judge = Judge(Endpoint(server.url, "judge"), JudgeSection(url=server.url, model="judge"))
        found = compare(measured, judge=judge, resamples=100)
    assert found.by == "preference"
    assert found.rows[0].name == "a"
    pair = found.pairs["a over b"]
    assert (pair.wins, pair.ties, pair.losses, pair.rate) == (2, 1, 0, pytest.approx(5 / 6))
    assert found.pairs["b over c"].losses == 1
    assert len(server.bodies) == 2 * (2 + 3 + 3), "two orders, and equal answers are not asked about"


def test_answers_of_earlier_versions_are_read_and_new_ones_say_what_they_took(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path, "m")
    cache.put([("old", Output("a", 1.0)), ("new", Output("b", None, (), 0.25, 12, 3))])
    text = (tmp_path / "m.jsonl").read_text()
    assert text.count("seconds") == 1, "what is not known is not written"
    assert AnswerCache(tmp_path, "m").get("new") == Output("b", None, (), 0.25, 12, 3)
    assert AnswerCache(tmp_path, "m").get("old") == Output("a", 1.0)
    assert Tools().embed is None
