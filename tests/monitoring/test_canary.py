import json
from datetime import UTC, datetime

import pytest

from configs.errors import InputError
from configs.schema import RolloutSection
from data_contracts.records import Feedback, Interaction, Message
from monitoring.canary import (
    CanaryState,
    bad_events,
    canary_share,
    decide,
    feedback_is_bad,
    latency_limit,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG = RolloutSection(guardrails={"thumbs_down": 0.2, "error": 0.05, "slow": 0.10}, min_stage_requests=20)
TIMES = {"stage": 0, "stage_started_s_ago": 100.0, "started_s_ago": 100.0, "stage_requests": 50}


def interaction(**changes):
    facts = {
        "id": "i",
        "created_at": NOW,
        "model": "m",
        "principal": "u",
        "conversation": "c",
        "messages": (Message(role="user", content="hello"),),
        "answer": "a",
    }
    return Interaction(**{**facts, **changes})


def said(kind, **changes):
    return Feedback(id="f", interaction_id="i", kind=kind, created_at=NOW, principal="u", **changes)


def healthy(requests=2000, bad_champions=60, q=0.25):
    state = CanaryState.new(CONFIG)
    for i in range(requests):
        state.request("canary", {"slow"} if i % 25 == 0 else ())
    for i in range(bad_champions):
        state.assign("canary" if i % 4 == 0 else "champion", q)
        state.bad("thumbs_down", "champion", q)
    return state


def test_what_counts_as_bad():
    assert bad_events(interaction(flags=("error", "pinned"), latency_ms=900), 800) == {"error", "slow"}
    assert bad_events(interaction(latency_ms=900), None) == frozenset()
    assert feedback_is_bad(said("thumb", thumb=-1))
    assert feedback_is_bad(said("rating", rating=2))
    assert not feedback_is_bad(said("thumb", thumb=1))
    assert not feedback_is_bad(said("rating", rating=3))
    assert not feedback_is_bad(said("comment", text="no"))


def test_the_canary_share_comes_from_either_arm():
    assert canary_share(interaction(arm="canary", arm_share=0.1)) == pytest.approx(0.1)
    assert canary_share(interaction(arm="champion", arm_share=0.9)) == pytest.approx(0.1)


def test_the_latency_limit_is_frozen_from_enough_requests():
    assert latency_limit([100] * 19, CONFIG) == CONFIG.default_latency_limit_ms
    assert latency_limit(list(range(1, 101)), CONFIG) == 105


def test_no_data_holds():
    decision = decide(CanaryState.new(CONFIG), CONFIG, **{**TIMES, "stage_requests": 0})
    assert decision.action == "hold"
    assert "0 of 20" in decision.reasons[0]


def test_gross_harm_rolls_back_and_says_why():
    state = CanaryState.new(CONFIG)
    for _ in range(4):
        state.bad("error", "canary", 0.01)
    decision = decide(state, CONFIG, **TIMES)
    assert decision.action == "rollback"
    assert "error" in decision.reasons[0]
    assert json.loads(json.dumps(decision.evidence))["metrics"]["error"]["canary_users_bad"] == 4


def test_a_better_canary_with_quiet_guardrails_is_promoted():
    assert decide(healthy(), CONFIG, **TIMES).action == "promote"


def test_not_promoted_while_a_guardrail_is_unproved():
    decision = decide(healthy(requests=60), CONFIG, **{**TIMES, "stage": 4})
    assert decision.action == "hold"
    assert any(r.startswith("error: 0 of 60") for r in decision.reasons)


def test_rollback_comes_before_promotion():
    state = healthy()
    for _ in range(6):
        state.bad("error", "canary", 0.05)
    assert decide(state, CONFIG, **TIMES).action == "rollback"


def test_mismatched_assignment_stops_the_rollout():
    state = healthy()
    for _ in range(30):
        state.assign("canary", 0.05)
    decision = decide(state, CONFIG, **TIMES)
    assert decision.action == "rollback"
    assert "sample ratio" in decision.reasons[0]


def test_the_horizon_ends_without_promotion():
    decision = decide(CanaryState.new(CONFIG), CONFIG, **{**TIMES, "started_s_ago": CONFIG.horizon_s})
    assert decision.action == "expire"


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        ({}, "ramp"),
        ({"stage_requests": 19}, "hold"),
        ({"stage_started_s_ago": 59.0}, "hold"),
        ({"stage": 4}, "hold"),
    ],
)
def test_ramp_needs_requests_and_time_and_a_next_stage(changes, action):
    state = CanaryState.new(CONFIG)
    for _ in range(50):
        state.request("canary")
    assert decide(state, CONFIG, **{**TIMES, **changes}).action == action


def test_suspicion_stops_the_ramp():
    state = CanaryState.new(CONFIG)
    for _ in range(2):
        state.bad("error", "canary", 0.05)
    decision = decide(state, CONFIG, **TIMES)
    assert decision.action == "hold"
    assert "error looks worse" in decision.reasons[0]


def test_state_survives_json_and_a_stranger_metric_is_not_counted():
    state = healthy()
    assert not state.bad("unheard_of", "canary", 0.5)
    state.request("champion", {"error", "unheard_of"})
    again = CanaryState.from_dict(json.loads(json.dumps(state.to_dict())))
    assert again == state
    assert decide(again, CONFIG, **TIMES) == decide(state, CONFIG, **TIMES)


def test_an_unknown_arm_is_refused():
    with pytest.raises(InputError, match="arm"):
        CanaryState.new(CONFIG).assign("control", 0.1)


def test_a_canary_that_used_up_its_users_is_not_taken_for_a_healthy_one():
    """First bad events stop coming from an arm whose users all had theirs: the promotion test must not gain from it."""
    state = CanaryState.new(CONFIG)
    for _ in range(100):
        state.assign("canary", 0.5)
        state.assign("champion", 0.5)
    assert state.at_risk_share("thumbs_down", 0.5) == pytest.approx(0.5)
    for _ in range(95):
        state.bad("thumbs_down", "canary", 0.5)
    assert state.at_risk_share("thumbs_down", 0.5) < 0.1
    before = state.promotion.log_e
    for _ in range(40):
        state.bad("thumbs_down", "champion", 0.5)
    assert state.promotion.log_e - before < 1.0
