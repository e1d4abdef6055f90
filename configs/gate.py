"""The gate's policy: which suite is judged how, what inconclusive means, who may override."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.section import Fraction, Section

Nats = Annotated[float, Field(gt=0.0)]
OWN_SECTIONS = ("target", "incidents")


class SuiteRule(Section):
    """How one suite is judged."""

    kind: Literal["superiority", "non_inferiority", "list", "shown"]
    """`superiority`: better by more than `min_gain` (where the retrain's cause asks for it, else no worse).
    `non_inferiority`: no worse than `margin`. `list`: things that must hold, not a sample: at most `margin` of them may
    be lost. `shown`: reported, never decides."""
    margin: Fraction = 0.02
    """Non-inferiority margin, as a share of items; against the base and the best accepted version twice that."""
    min_gain: Fraction = 0.0
    """Superiority: the lower bound of the gain must exceed this."""
    min_pass: Fraction = 0.0
    """Smallest share of items the candidate itself must pass."""
    max_discordance: Fraction | None = None
    """This suite's own expected share of items that change; default the policy's."""
    nll_margin: Nats | None = None
    """By how much the reference answers' log-likelihood may fall on average, nats per token (paired t bound; twice that
    against the base and the best accepted version). None: shown, not judged. For suites whose references are what the
    model itself would say; where they are bare key words the likelihood moves with the style of answers."""
    nll_sd: Nats = 1.0
    """Expected standard deviation of that change over items, nats per token, for the size check made before looking."""
    max_nfr: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """The upper bound of the negative flip rate (share of all items that the champion had right and the candidate has
    wrong) must stay below this. None: shown, not judged."""
    slices: dict[str, Fraction] = Field(default_factory=dict)
    """Slices that must each be no worse, with their margins: {slice: share of its items}. Others are shown only."""


class GateSection(Section):
    """When a candidate may be registered and served."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    target: SuiteRule = SuiteRule(kind="superiority", margin=0.02)
    incidents: SuiteRule = SuiteRule(kind="non_inferiority", margin=0.0, min_pass=1.0)
    """A list, whatever its kind."""
    anchors: SuiteRule = SuiteRule(kind="non_inferiority", margin=0.02)
    """Every suite that is not named otherwise."""
    suites: dict[str, SuiteRule] = Field(default_factory=dict)
    """Rules by suite name, in the place of `anchors`. A suite named here that was not run makes the verdict
    inconclusive. Without a rule of their own `probes` is a list of which none may be lost, `fragility` is shown."""
    max_discordance: Fraction = 0.25
    """Share of items expected to change, for the size check made before looking."""
    power: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Chance with which a candidate that changed nothing must be able to pass all non-inferiority tests; each of S
    tests needs 1 - (1 - power) / S, or its suite is too small and the verdict inconclusive."""
    inconclusive_blocks: bool = True
    override_by: tuple[str, ...] = ("*",)
    """Who may register a candidate past the gate: names, or patterns such as `*@risk.example`; empty = nobody. The name
    and the reason go into the audit log. A name is what the person at the command line says it is."""

    @model_validator(mode="after")
    def _own_sections(self) -> GateSection:
        for name in OWN_SECTIONS:
            if name in self.suites:
                raise ValueError(f"`gate.suites.{name}`: the rule of suite {name} stands in `gate.{name}`")
        return self
