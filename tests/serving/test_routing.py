from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from serving_helpers import MODEL, fake_arm

from data_contracts.records import Arm, RoutePointer
from serving.routing import BUCKETS, bucket, choose, without_canary


def pointer(share: float, salt: str = "s") -> RoutePointer:
    return RoutePointer(
        model=MODEL, revision=3, champion=Arm(), canary=fake_arm(1), canary_share=share, salt=salt, rollout_id="r"
    )


@given(st.text(max_size=40), st.text(max_size=10), st.floats(0, 1), st.floats(0, 1))
def test_a_ramp_never_moves_a_user_back(principal: str, salt: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    if choose(pointer(low, salt), principal).name == "canary":
        assert choose(pointer(high, salt), principal).name == "canary"


@given(st.text(max_size=40), st.text(max_size=10))
def test_the_ends_of_the_ramp_are_all_or_nothing(principal: str, salt: str) -> None:
    assert 0 <= bucket(salt, principal) < BUCKETS
    assert choose(pointer(0.0, salt), principal).name == "champion"
    assert choose(pointer(1.0, salt), principal).name == "canary"
    assert choose(without_canary(pointer(1.0, salt)), principal) == ("champion", Arm(), 1.0)


def test_the_share_of_users_is_the_canary_share() -> None:
    names = [choose(pointer(0.25), f"user-{i}").name for i in range(4000)]
    assert abs(names.count("canary") / 4000 - 0.25) < 0.03


def test_shares_of_both_arms_add_up_and_a_new_salt_shuffles() -> None:
    chosen = {choose(pointer(0.25), f"user-{i}") for i in range(50)}
    assert sum(c.share for c in chosen) == 1.0
    assert any(bucket("a", f"u{i}") != bucket("b", f"u{i}") for i in range(3))
