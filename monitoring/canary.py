"""The canary's evidence and what follows from it (SCIENCE: an anytime-valid test, watched on every request).

Pure: the controller reads committed rows in commit order, tells `CanaryState` what happened and asks `decide`.
Users are counted, not requests: `assign` once per user at the first assignment, `bad` once per user and metric for the
user's first bad event whichever arm it was on (with q of *that* request), `request` once per matured request.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from configs.errors import InputError
from configs.schema import RolloutSection
from data_contracts.records import Feedback, FeedbackKind, Interaction, RolloutDecision
from monitoring.sequential import CANARY, EProcess, RateBound, SampleRatio, promotion_process

CHAMPION = "champion"
FLAG_METRICS = ("error", "refusal", "safety_block", "truncated")
SLOW = "slow"
THUMBS_DOWN = "thumbs_down"
SRM_P = 0.001
"""A rollout whose assignment is this unlikely stops: its other evidence cannot be trusted."""
_MIN_LATENCIES = 20


def bad_events(interaction: Interaction, latency_limit_ms: float | None) -> frozenset[str]:
    """The bad events one served request shows by itself.

    Args:
        interaction: the request as stored; its flags hold `error`, `refusal`, `safety_block` or `truncated`.
        latency_limit_ms: above it a request is `slow`; None switches that off.
    """
    found = {f for f in interaction.flags if f in FLAG_METRICS}
    if latency_limit_ms is not None and interaction.latency_ms > latency_limit_ms:
        found.add(SLOW)
    return frozenset(found)


def feedback_is_bad(feedback: Feedback) -> bool:
    """True for a thumb down or a rating of 1 or 2."""
    if feedback.kind is FeedbackKind.THUMB:
        return feedback.thumb == -1
    return feedback.kind is FeedbackKind.RATING and feedback.rating is not None and feedback.rating <= 2


def canary_share(interaction: Interaction) -> float:
    """The canary's share of traffic when this request was routed (the record holds its own arm's share)."""
    return interaction.arm_share if interaction.arm == CANARY else 1.0 - interaction.arm_share


def latency_limit(latencies_ms: Sequence[int], config: RolloutSection) -> int:
    """The limit, in ms, above which a request of this rollout is `slow`: the champion's p95 times the slack.

    Args:
        latencies_ms: the champion's most recent latencies without errors; under 20 of them the default is taken.
        config: `default_latency_limit_ms`, `latency_slack`.
    """
    if len(latencies_ms) < _MIN_LATENCIES:
        return config.default_latency_limit_ms
    ordered = sorted(latencies_ms)
    return math.ceil(ordered[math.ceil(0.95 * len(ordered)) - 1] * config.latency_slack)


def _arm(arm: str) -> bool:
    if arm not in (CANARY, CHAMPION):
        raise InputError("unknown arm", expected=f"{CANARY} or {CHAMPION}", found=arm)
    return arm == CANARY


@dataclass
class CanaryState:
    """Everything the decision needs, of bounded size whatever the traffic."""

    harm: dict[str, EProcess]
    """Per metric: evidence that the canary is worse than the champion."""
    promotion: EProcess
    """Evidence that the decision metric is less than `promote_ratio` times the champion's."""
    rates: dict[str, RateBound]
    """Per guardrail: the canary's matured requests and how many were bad."""
    champion_bad: dict[str, int]
    """Per guardrail: the champion's matured bad requests (for people to compare, not for the decision)."""
    decision_metric: str
    srm: SampleRatio = field(default_factory=SampleRatio)
    users: dict[str, int] = field(default_factory=lambda: {CANARY: 0, CHAMPION: 0})
    """Users by the arm of their first request."""
    matured: dict[str, int] = field(default_factory=lambda: {CANARY: 0, CHAMPION: 0})
    """Matured requests by arm."""
    bad_users: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per metric: users by the arm of their first bad event."""

    @classmethod
    def new(cls, config: RolloutSection) -> CanaryState:
        """Evidence before the first event: every e-value is 1."""
        metrics = sorted({*config.guardrails, config.decision_metric})
        return cls(
            harm={m: EProcess() for m in metrics},
            promotion=promotion_process(config.promote_ratio),
            rates={m: RateBound(alpha=config.alpha) for m in sorted(config.guardrails)},
            champion_bad=dict.fromkeys(sorted(config.guardrails), 0),
            decision_metric=config.decision_metric,
            bad_users={m: {CANARY: 0, CHAMPION: 0} for m in metrics},
        )

    def assign(self, arm: str, q: float) -> None:
        """Count a user's first request of this rollout: the `arm` it was routed to at canary share `q`."""
        self.users[CANARY if _arm(arm) else CHAMPION] += 1
        self.srm.update(arm == CANARY, q)

    def bad(self, metric: str, arm: str, q: float) -> bool:
        """Count a user's first bad event of a metric in this rollout.

        Returns:
            False for a metric that is not watched (nothing is counted).
        """
        x = _arm(arm)
        if metric not in self.harm:
            return False
        self.harm[metric].update(x, q)
        if metric == self.decision_metric:
            self.promotion.update(x, self.at_risk_share(metric, q))
        self.bad_users[metric][arm] += 1
        return True

    def at_risk_share(self, metric: str, q: float) -> float:
        """The canary's share among users who can still have a *first* bad event: `q`, or less where it used up more.

        A worse canary runs out of uncounted users sooner, and its share of the later first events falls: at the margin
        that reads as health (benchmarks/canary_sim.py: wrong promotions 12-21 % without, 2-7 % with this). Under
        equal arms nothing changes, so the rollback tests take q as it is.
        """
        left = {
            arm: (max(0, self.users[arm] - bad) + 1) / (self.users[arm] + 1)
            for arm, bad in self.bad_users[metric].items()
        }
        shrink = min(1.0, left[CANARY] / left[CHAMPION])
        return q * shrink / (q * shrink + 1.0 - q)

    def request(self, arm: str, bad: Collection[str] = frozenset()) -> None:
        """Count one matured request with the bad events it had in the end."""
        x = _arm(arm)
        self.matured[arm] += 1
        for metric, bound in self.rates.items():
            if x:
                bound.update(metric in bad)
            elif metric in bad:
                self.champion_bad[metric] += 1

    def to_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        return {
            "harm": {m: e.to_dict() for m, e in self.harm.items()},
            "promotion": self.promotion.to_dict(),
            "rates": {m: r.to_dict() for m, r in self.rates.items()},
            "champion_bad": dict(self.champion_bad),
            "decision_metric": self.decision_metric,
            "srm": self.srm.to_dict(),
            "users": dict(self.users),
            "matured": dict(self.matured),
            "bad_users": {m: dict(c) for m, c in self.bad_users.items()},
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> CanaryState:
        """The state that `to_dict` described."""
        return cls(
            harm={m: EProcess.from_dict(e) for m, e in state["harm"].items()},
            promotion=EProcess.from_dict(state["promotion"]),
            rates={m: RateBound.from_dict(r) for m, r in state["rates"].items()},
            champion_bad=dict(state["champion_bad"]),
            decision_metric=str(state["decision_metric"]),
            srm=SampleRatio.from_dict(state["srm"]),
            users=dict(state["users"]),
            matured=dict(state["matured"]),
            bad_users={m: dict(c) for m, c in state["bad_users"].items()},
        )


def evidence(state: CanaryState, config: RolloutSection) -> dict[str, Any]:
    """The figures behind a decision, JSON-able: for the console, the report and the history.

    E-values are given as base-10 logarithms (`log10_e`) beside the threshold they must reach.
    """
    ten = math.log(10.0)
    metrics = {}
    for metric, process in state.harm.items():
        rate = state.rates.get(metric)
        metrics[metric] = {
            "log10_e": process.log_e / ten,
            "canary_users_bad": state.bad_users[metric][CANARY],
            "champion_users_bad": state.bad_users[metric][CHAMPION],
            "canary_bad": None if rate is None else rate.bad,
            "champion_bad": state.champion_bad.get(metric),
            "upper": None if rate is None else rate.upper,
            "slo": config.guardrails.get(metric),
        }
    return {
        "metrics": metrics,
        "rollback_at_log10_e": math.log(len(state.harm) / config.alpha) / ten,
        "promotion_log10_e": state.promotion.log_e / ten,
        "promote_at_log10_e": -math.log(config.alpha) / ten,
        "decision_metric": state.decision_metric,
        "srm_p": state.srm.p,
        "users": dict(state.users),
        "matured": dict(state.matured),
    }


def _rollback_reasons(state: CanaryState, config: RolloutSection) -> list[str]:
    limit = math.log(len(state.harm) / config.alpha)
    reasons = []
    for metric, process in state.harm.items():
        if process.log_e >= limit:
            users = state.bad_users[metric]
            reasons.append(
                f"{metric} is worse on the canary: {users[CANARY]} of {sum(users.values())} users with it were on the "
                f"canary, e-value {math.exp(min(process.log_e, 690)):.3g} reached {math.exp(limit):.3g}"
            )
    if state.srm.log_e >= -math.log(SRM_P):
        reasons.append(
            f"users are not assigned as the shares say (sample ratio mismatch, p < {SRM_P}): "
            f"{state.users[CANARY]} of {sum(state.users.values())} users started on the canary; the comparison is void"
        )
    return reasons


def _missing_for_promotion(state: CanaryState, config: RolloutSection) -> list[str]:
    missing = []
    if state.promotion.log_e < -math.log(config.alpha):
        missing.append(
            f"{state.decision_metric} is not yet shown to be below {config.promote_ratio:g} times the champion's "
            f"(e-value {math.exp(state.promotion.log_e):.3g} of {1 / config.alpha:.3g})"
        )
    for metric, slo in sorted(config.guardrails.items()):
        rate = state.rates.get(metric)
        if rate is None or not rate.below(slo):
            n, bad, upper = (0, 0, 1.0) if rate is None else (rate.n, rate.bad, rate.upper)
            missing.append(f"{metric}: {bad} of {n} matured canary requests, upper bound {upper:.2%}, SLO {slo:.2%}")
    return missing


def decide(
    state: CanaryState,
    config: RolloutSection,
    *,
    stage: int,
    stage_started_s_ago: float,
    started_s_ago: float,
    stage_requests: int,
) -> RolloutDecision:
    """What to do now: roll back, promote, expire, ramp or hold; in this order of precedence.

    Args:
        state: the evidence so far.
        config: stages, alpha, SLOs, horizon.
        stage: index of the current stage in `config.stages`.
        stage_started_s_ago: seconds in this stage.
        started_s_ago: seconds since the rollout started.
        stage_requests: matured canary requests of this stage.
    """
    figures = evidence(state, config)

    def answer(action: Any, reasons: Sequence[str]) -> RolloutDecision:
        return RolloutDecision(action=action, reasons=tuple(reasons), evidence=figures)

    if reasons := _rollback_reasons(state, config):
        return answer("rollback", reasons)
    missing = _missing_for_promotion(state, config)
    if not missing:
        return answer(
            "promote",
            [
                f"{state.decision_metric} is shown to be below {config.promote_ratio:g} times the champion's "
                f"(e-value {math.exp(min(state.promotion.log_e, 690)):.3g}), and every guardrail below its SLO "
                f"on {state.matured[CANARY]} matured canary requests"
            ],
        )
    if started_s_ago >= config.horizon_s:
        return answer("expire", [f"the horizon of {config.horizon_s:g} s is over without enough evidence", *missing])
    # Suspicion: half way (in logarithm) to a rollback. More traffic would only hurt more users.
    suspect = [m for m, e in state.harm.items() if e.log_e >= math.log(len(state.harm) / config.alpha) / 2]
    if stage + 1 < len(config.stages):
        waits = []
        if stage_requests < config.min_stage_requests:
            waits.append(f"{stage_requests} of {config.min_stage_requests} matured canary requests in this stage")
        if stage_started_s_ago < config.min_stage_s:
            waits.append(f"{stage_started_s_ago:.0f} of {config.min_stage_s:g} s in this stage")
        waits += [f"{m} looks worse on the canary (not yet proved)" for m in suspect]
        if not waits:
            share = config.stages[stage + 1]
            return answer(
                "ramp", [f"nothing bad in {stage_requests} requests of this stage: on to {share:.0%} of users"]
            )
        return answer("hold", waits)
    return answer("hold", missing)
