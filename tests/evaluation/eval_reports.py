"""Synthetic evaluation reports for the gate and the HTML tests."""

from __future__ import annotations

from data_contracts.records import EvalReport, ItemScore, SuiteScores

DIGESTS = {"base": "b" * 64, "champion": "c" * 64, "candidate": "d" * 64, "best": "a" * 64}


def scores(suite: str, model: str, values: list[int], answers: list[str] | None = None) -> SuiteScores:
    items = tuple(
        ItemScore(
            item_id=f"{suite}-{i}", score=float(v), answer=answers[i] if answers else f"answer {i}", nll=1.0 + 0.1 * i
        )
        for i, v in enumerate(values)
    )
    return SuiteScores(suite=suite, suite_digest="5" * 64, model_digest=DIGESTS[model], items=items)


def report(
    suites: dict[str, dict[str, list[int]]],
    *,
    first_round: bool = False,
    slices: dict[str, dict[str, str]] | None = None,
) -> EvalReport:
    """`suites`: name -> model -> 0/1 per item. In a first round the champion is the base."""
    return EvalReport(
        candidate_digest=DIGESTS["candidate"],
        champion_digest=DIGESTS["base"] if first_round else DIGESTS["champion"],
        base_digest=DIGESTS["base"],
        dataset_digest="e" * 64,
        scores={
            name: {
                model: scores(name, "base" if first_round and model == "champion" else model, v)
                for model, v in by.items()
            }
            for name, by in suites.items()
        },
        slices=slices or {},
        best_digest=DIGESTS["best"] if any("best" in by for by in suites.values()) else "",
        seconds=12.5,
    )


def flipped(n: int, correct: int, lost: int = 0, gained: int = 0) -> tuple[list[int], list[int]]:
    """Reference and candidate: `correct` right in the reference, `lost` of them lost, `gained` others gained."""
    reference = [1] * correct + [0] * (n - correct)
    candidate = [0] * lost + [1] * (correct - lost + gained) + [0] * (n - correct - gained)
    return reference, candidate


def with_likelihoods(whole: EvalReport, suite: str, changes: list[float | None]) -> EvalReport:
    """The same report, the candidate's reference answers more likely by `changes` (nats per token, per item; None = the
    item's reference is a pattern).
    """

    def changed(of: SuiteScores, by: float) -> SuiteScores:
        pairs = zip(of.items, changes, strict=True)
        items = tuple(i.model_copy(update={"nll": None if c is None else 5.0 - by * c}) for i, c in pairs)
        return of.model_copy(update={"items": items})

    models = {model: changed(of, float(model == "candidate")) for model, of in whole.scores[suite].items()}
    return whole.model_copy(update={"scores": {**whole.scores, suite: models}})
