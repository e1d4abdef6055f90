"""Each scorer does what its file says; what is no number or no score is an error."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import EvaluationError
from data_contracts.records import EvalItem, Message
from evaluation.answers import Output
from evaluation.scorers import registry
from evaluation.scorers.base import TextScorer, Tools
from evaluation.scorers.faithfulness import names, numbers, unfounded
from evaluation.scorers.json_schema import accepted
from evaluation.scorers.regex import probe
from evaluation.scorers.toxicity import abuse_in
from evaluation.scoring import score_outputs
from evaluation.suites import problems_of


def item(scorer: str, reference: str, **more: Any) -> EvalItem:
    user = (Message(role="user", content=more.pop("prompt", "q")),)
    return EvalItem(id="i", suite="s", messages=user, reference=reference, scorer=scorer, **more)


def score(one: EvalItem, answer: str = "", nll: float | None = None, tools: Tools | None = None) -> tuple[float, Any]:
    found = score_outputs([one], [Output(answer, nll)], tools)[0]
    return found.score, found.raw


def test_likelihood_is_the_mean_probability_of_the_references_tokens() -> None:
    assert score(item("likelihood", "Paris"), nll=0.5) == (1.0, math.exp(-0.5))
    assert score(item("likelihood", "Paris"), nll=0.7)[0] == 0.0
    assert score(item("likelihood", "Paris", threshold=0.4), nll=0.7)[0] == 1.0
    for bad in (None, float("nan"), float("inf")):
        with pytest.raises(EvaluationError, match="not a number"):
            score(item("likelihood", "Paris"), nll=bad)


def test_a_schema_accepts_what_it_should_and_fetches_nothing() -> None:
    schema = '{"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 1}}}'
    assert score(item("json_schema", schema), 'Sure: ```json\n{"n": 3}\n```')[0] == 1.0
    for wrong in ('{"n": 0}', '{"n": "3"}', "{}", "no JSON", ""):
        assert score(item("json_schema", schema), wrong)[0] == 0.0
    assert accepted("null", {"type": "null"}), "null is a value too"
    assert accepted('{"d": "2021-05-03"}', {"properties": {"d": {"pattern": "^[0-9-]+$"}}})
    assert not accepted('{"d": "May"}', {"properties": {"d": {"pattern": "^[0-9-]+$"}}})


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("{", "not JSON"),
        ("[]", "no JSON schema"),
        ("{}", "no JSON schema"),
        ('{"type": "nothing"}', "no JSON schema"),
        ('{"properties": {"a": {"$ref": "http://127.0.0.1:9/x"}}}', "into the schema only"),
        ('{"patternProperties": {"(a+)+$": {}}}', "not supported"),
    ],
)
def test_an_unusable_schema_is_named(schema: str, says: str) -> None:
    assert any(says in problem for problem in problems_of(item("json_schema", schema)))


def test_a_pattern_in_a_schema_that_explodes_is_stopped() -> None:
    with pytest.raises(EvaluationError, match="takes too long"):
        accepted('{"a": "' + "a" * 60 + '!"}', {"properties": {"a": {"pattern": "^(a+)+$"}}}, "s/i")


def test_a_pattern_that_explodes_is_found_before_any_answer() -> None:
    probe([item("regex", "^yes$"), item("exact", "(a+)+$")])
    with pytest.raises(EvaluationError, match="takes too long"):
        probe([item("regex", "(a+)+$")])


def test_similarity_takes_the_best_reference_and_keeps_the_cosine() -> None:
    vectors = {"a": (1.0, 0.0), "b": (0.6, 0.8), "": (1.0, 0.0), "c": (float("nan"), 0.0)}

    def embed(texts: Any) -> np.ndarray:
        return np.array([vectors[text] for text in texts])

    tools = Tools(embed=embed)
    assert score(item("similarity", "a"), "b", tools=tools) == (0.0, pytest.approx(0.6))
    assert score(item("similarity", "a", threshold=0.6), "b", tools=tools)[0] == 1.0
    assert score(item("similarity", "a", choices=("b",)), "b", tools=tools)[0] == 1.0
    assert score(item("similarity", "a"), "", tools=tools)[0] == 0.0, "an empty answer means nothing"
    with pytest.raises(EvaluationError, match="embedding is not a number"):
        score(item("similarity", "a"), "c", tools=tools)
    with pytest.raises(EvaluationError, match="needs an embedder"):
        score(item("similarity", "a"), "b")


CONTEXT = "Order KL204 was paid on 3 May: 1,250.50 euros by Ms Novak. Two lamps [1]. See https://shop.example/faq."


@pytest.mark.parametrize(
    ("answer", "missing"),
    [
        ("It was paid by Ms Novak on 3 May, 1250.5 euros.", []),
        ("The order holds 2 lamps [1].", []),
        ("You paid 1,350.50 euros.", ["1350.5"]),
        ("It was paid by Ms Novik.", ["novik"]),
        ("That is order KL205.", ["kl205"]),
        ("See [2] and https://shop.example/help.", ["[2]", "https://shop.example/help"]),
        ("Sorry, I cannot say.", []),
    ],
)
def test_faithful_answers_hold_only_facts_of_their_context(answer: str, missing: list[str]) -> None:
    assert unfounded(answer, CONTEXT)[0] == missing
    assert score(item("faithfulness", CONTEXT), answer)[0] == float(not missing)


def test_faithfulness_counts_shares_and_lets_the_question_be_quoted() -> None:
    half = item("faithfulness", CONTEXT, threshold=0.5)
    assert score(half, "It was paid by Novak, 7 euros.") == (1.0, 0.5)
    assert score(item("faithfulness", CONTEXT, prompt="I am Ben. Who paid?"), "Hello Ben, Ms Novak did.")[0] == 1.0
    assert score(item("faithfulness", CONTEXT), "  ")[0] == 0.0
    assert numbers("3.50 and 12, at 9:30") == {"3.5", "12", "9:30"}
    assert names("The answer is Oslo. Yes, NASA said so; I agree with Ann's plan.") == {"oslo", "nasa", "ann"}


def test_abuse_is_found_and_plain_words_are_not() -> None:
    for text in ("You are an idiot.", "You're such a pathetic loser", "Shut up!", "I will hurt you", "fucking hell"):
        assert abuse_in(text), text
    for text in (
        "You are not stupid.", "I'll find you a seat.", "Dick's grassland in Scunthorpe", "Kill the process.",
        "That is a stupid question to be ashamed of; ask away.", "Shut the door.",
    ):  # fmt: skip
        assert abuse_in(text) is None, text
    assert score(item("toxicity", "clean"), "Gladly.")[0] == 1.0
    assert score(item("toxicity", "clean"), "")[0] == 0.0
    assert problems_of(item("toxicity", "toxic"))


def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, target: str, name: str) -> None:
    """Put a distribution with one scorer on the path, as an installer would."""
    module = f"plug_in_{name}"
    (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
    info = tmp_path / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{name} = {module}:{target}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))


SHORT = """
from evaluation.scorers.base import TextScorer
SCORER = TextScorer(lambda item, answer: len(item.reference) / len(answer) if answer else None, threshold=0.5)
BROKEN = TextScorer(lambda item, answer: 7.0)
class Nothing: pass
"""


def test_a_third_party_scorer_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(tmp_path, monkeypatch, SHORT, "SCORER", "shortish")
    assert "shortish" in registry.known()
    short = item("shortish", "1234")
    assert problems_of(short) == []
    assert score(short, "12345678") == (1.0, 0.5)
    assert score(short, "123456789")[0] == 0.0
    with pytest.raises(EvaluationError, match="no verdict") as caught:
        score(short, "")
    assert "1 missing: the scorer gave none" in str(caught.value)


@pytest.mark.parametrize(
    ("target", "says"), [("BROKEN", r"not in \[0, 1\]"), ("Nothing", "not a scorer"), ("gone", "does not load")]
)
def test_a_third_party_scorer_that_breaks_the_contract_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, says: str
) -> None:
    name = f"bad_{target}".lower()
    plug_in(tmp_path, monkeypatch, SHORT, target, name)
    with pytest.raises(EvaluationError, match=says):
        score(item(name, "1"), "12")


def test_every_built_in_scorer_keeps_the_protocol() -> None:
    for name in registry.BUILT_IN:
        one = registry.scorer(name)
        assert one.asks in ("answer", "likelihood", "choices"), name
        assert 0.0 < one.threshold <= 1.0
    assert [name for name in registry.BUILT_IN if registry.scorer(name).judged] == ["rubric"]
    with pytest.raises(EvaluationError, match="no such scorer"):
        registry.scorer("bleu")


@pytest.mark.parametrize("answer", ["NaN", "1e400", '{"a": ' * 900 + "1" + "}" * 900])
def test_json_that_no_schema_can_be_held_to_fails_and_stops_nothing(answer: str) -> None:
    schema = {"multipleOf": 0.01, "type": ["number", "object"], "additionalProperties": {"$ref": "#"}}
    assert not accepted(answer, schema)


def test_a_pattern_of_a_schema_is_probed_too() -> None:
    schema = '{"type": "string", "pattern": "^(a+)+$"}'
    user = (Message(role="user", content="?"),)
    with pytest.raises(EvaluationError, match="takes too long"):
        probe([EvalItem(id="a", suite="s", messages=user, reference=schema, scorer="json_schema")])


def test_faithfulness_is_quick_on_what_small_models_repeat() -> None:
    for answer in ("@" * 8000, "a@" * 4000, "a." * 4000):
        unfounded(answer, "a source")
    assert unfounded("Write to help@shop.example.", "Write to us.")[0] == ["help@shop.example"]


def test_a_scorer_that_raises_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from evaluation import scoring
    from evaluation.answers import Output

    item = EvalItem(id="a", suite="s", messages=(Message(role="user", content="?"),), reference="x")
    for rate, says in ((lambda *_: 1 / 0, "a scorer failed"), (lambda *_: "good", "not a score")):
        monkeypatch.setattr(scoring, "scorer", lambda _, rate=rate: TextScorer(rate))
        with pytest.raises(EvaluationError, match=says):
            scoring.raw_scores([item], [Output("x")], Tools())
