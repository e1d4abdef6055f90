"""Scorers by name: ours, and those of other distributions through the entry point group `tidemill.scorers`.

A distribution adds one in its own pyproject.toml,

    [project.entry-points."tidemill.scorers"]
    polite = "my_package.scorers:POLITE"

where the object is a `Scorer` (for most, a `TextScorer`) or a class that makes one without arguments. It is loaded when
an item names it. Examples: docs/evaluation.md.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import cast

from configs.errors import EvaluationError
from evaluation.scorers.base import Scorer

GROUP = "tidemill.scorers"
_MODULES = {
    "exact": "exact",
    "contains": "contains",
    "regex": "regex",
    "choice": "choice",
    "likelihood": "likelihood",
    "json": "json_value",
    "json_schema": "json_schema",
    "similarity": "similarity",
    "faithfulness": "faithfulness",
    "refusal": "refusal",
    "toxicity": "toxicity",
    "rubric": "rubric",
    "lm_eval": "lm_eval",
}
BUILT_IN = tuple(_MODULES)


def known() -> list[str]:
    """All names, ours first."""
    return [*BUILT_IN, *sorted({found.name for found in entry_points(group=GROUP)} - set(BUILT_IN))]


@cache
def scorer(name: str) -> Scorer:
    """A scorer by name. A third-party one cannot take the name of one of ours.

    Raises:
        EvaluationError: none has this name, or a third-party one cannot be used.
    """
    if name in _MODULES:
        return cast("Scorer", import_module(f"evaluation.scorers.{_MODULES[name]}").SCORER)
    found = [one for one in entry_points(group=GROUP) if one.name == name]
    if not found:
        raise EvaluationError("no such scorer", where="scorer", expected=", ".join(known()), found=name)
    if len({one.value for one in found}) > 1:
        raise EvaluationError(
            "two distributions have a scorer of this name", where=name, found=[o.value for o in found]
        )
    try:
        loaded = found[0].load()
        made = loaded() if isinstance(loaded, type) else loaded
    except Exception as error:  # somebody else's code: whatever goes wrong, the scorer cannot be used
        raise EvaluationError("a scorer does not load", where=f"{GROUP}: {name}", found=f"{error!r}") from error
    if not isinstance(made, Scorer):
        expected = "asks, threshold, reference_is_answer, judged, problems() and score()"
        raise EvaluationError("not a scorer", where=f"{GROUP}: {name}", expected=expected, found=type(made).__name__)
    return made
