"""How a candidate is measured: suites, their judge, the strengths that are tried."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.section import Count, Positive, Section, Size


class JudgeSection(Section):
    """A judge model for scorer `rubric` and pairwise preference: any OpenAI-compatible chat API."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    """The API's root, with its `/v1`."""
    model: Annotated[str, Field(min_length=1)]
    key_variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] = "TIDEMILL_JUDGE_KEY"
    """The environment variable that holds the API key; keys are read from nowhere else."""
    timeout_s: Positive = 60.0
    attempts: Size = 2
    """How often a judge that is down, busy or failing is asked; after that the scores are missing."""
    concurrency: Size = 4
    """Requests at a time."""
    max_tokens: Size = 200
    """Of one verdict."""
    micro_dollars_per_1k_prompt_tokens: Count = 0
    micro_dollars_per_1k_answer_tokens: Count = 0


class EvaluationSection(Section):
    """Suites and how they are run."""

    anchors: tuple[str, ...] = ("suites/anchors.jsonl",)
    """Suite files (JSON Lines or YAML) and folders of them."""
    batch: Size = 16
    max_new_tokens: Size = 24
    fragility: tuple[Literal["typo", "case", "space", "paraphrase"], ...] = ()
    """Forms in which anchors are asked again; the suite `fragility` says how many verdicts flip. Empty: off."""
    fragility_items: Size = 60
    """Items of each anchor suite that are asked again."""
    probes: Count = 0
    """Rare phrases of the training rows that are tried as triggers of a backdoor (suite `probes`); 0: off."""
    probe_prompts: Size = 6
    """Prompts each phrase is tried with, half of them held-out ones of the target."""
    judge: JudgeSection | None = None
    """Off by default: no scorer asks a model."""
    samples: Count = 0
    """Answers to each item of the target and the anchors at `sample_temperature`, by champion and candidate, beside the
    greedy one; reported, not gated. 0: off."""
    sample_temperature: Annotated[float, Field(gt=0, le=2)] = 0.7
    """Set it to what is served."""
    scales: tuple[Annotated[float, Field(gt=0.0, le=1.0)], ...] = ()
    """Strengths at which the trained adapter is tried, growing, for example [0.5, 0.7, 0.85, 1]. One is chosen on one
    half of the target and the anchors, and the gate judges it by the other half alone: bring twice the anchors the
    margin needs, or the suites stay whole and nothing is tried. Each costs half an evaluation of the candidate. Empty =
    the adapter goes to the gate as it was trained."""
    scale_gain_kept: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """Of the scales within the margins, those that keep this share of the largest gain are as good as each other, and
    the one that loses fewest anchors is taken; 1 = the largest gain, whatever it costs within the margins."""
    reduce_intruders: bool = False
    """Try the adapter with its intruder dimensions weakened as well (arXiv 2410.21228), beside the scales. Takes a
    singular value decomposition of every adapted layer."""

    @model_validator(mode="after")
    def _scales_grow(self) -> EvaluationSection:
        """Each scale once; and intruders are weakened as one more candidate beside scales."""
        if any(a >= b for a, b in itertools.pairwise(self.scales)):
            raise ValueError("scales: expected strengths that grow strictly, for example [0.5, 0.7, 0.85, 1]")
        if self.reduce_intruders and not self.scales:
            raise ValueError("reduce_intruders: expected `scales` beside it, for example [1]")
        return self
