"""Which signal teaches how: the objectives of training and their weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from configs.section import Count, NonNegative, Positive, Section

Weight = NonNegative
"""Of one objective in the loss of a step, where every row counts alike; 0 leaves the objective out."""


class SftObjective(Section):
    """Likelihood of the answer: corrections and incidents (and preferences, where `dpo.weight` is 0)."""

    weight: Weight = 1.0


class DpoObjective(Section):
    """Preferences: the chosen answer more likely than the rejected one, against the reference."""

    weight: Weight = 0.25
    beta: Positive = 0.1
    """How near the reference the model is held; larger is nearer."""
    sft: Weight = 1.0
    """Of the chosen answer's likelihood beside it: DPO alone lowers that too where the two answers are near each
    other."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    """Share of preferences that are expected to be the wrong way round; about .1 where they are noisy."""


class KtoObjective(Section):
    """Thumbs: an answer alone, more or less likely than the reference has it. With weight 0 thumbs are not read."""

    weight: Weight = 0.0
    beta: Positive = 0.1
    min_labels: Count = 1000
    min_people: Count = 100
    """Fewer thumbs, or thumbs of fewer people, teach nothing yet."""


class ObjectivesSection(Section):
    """Which signal teaches how, and how much."""

    sft: SftObjective = SftObjective()
    dpo: DpoObjective = DpoObjective()
    kto: KtoObjective = KtoObjective()
    reference: Literal["base", "champion"] = "base"
    """What preferences and thumbs are measured against; the champion is the one that serves when training begins."""
