"""Training under differential privacy: how much of any one person an adapter may give away."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Above = Annotated[float, Field(gt=0.0)]


class PrivacySection(BaseModel):
    """DP-SGD over people (docs/privacy.md): each person's gradient is clipped, and noise hides whose were in a step.

    Corrections only, the chosen answers of preferences among them: `objectives.dpo.weight` and `objectives.kto.weight`
    must be 0, and `early_stopping` off.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    epsilon: Above
    """Most that one retrain may spend. Below 1 is strong, above 8 little more than a word."""
    total_epsilon: Above
    """Most that all retrains of the model may spend together: each round trains on the people of the rounds before."""
    delta: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Chance that epsilon does not hold; default the smaller of 1e-5 and a tenth of 1 / people. Never above 1 / people:
    that would allow giving one of them away."""
    max_grad_norm: Above = 1.0
    """Longest gradient of one person, all their rows together; a longer one is scaled down to it."""
    people_per_step: Annotated[int, Field(ge=1)] = 64
    """People expected in one step: everybody is drawn for it with probability people_per_step / people, by themselves.
    The noise is shared by them, so more is better, as far as there are people and time."""
    incidents: Literal["private", "public"] = "private"
    """`public`: the paraphrases and answers of incidents train without clipping or noise, outside the guarantee,
    because reviewers wrote them. `private`: an incident counts like one person, and none is then learnt by heart."""

    @model_validator(mode="after")
    def _a_round_fits(self) -> PrivacySection:
        if self.total_epsilon < self.epsilon:
            raise ValueError("expected `total_epsilon` of at least `epsilon`, or no retrain could ever be paid for")
        return self
