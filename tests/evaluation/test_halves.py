"""Two halves that never meet: balanced, stable, chosen by nothing but the items, and large enough for the gate."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.schema import GateSection, SuiteRule
from data_contracts.records import EvalItem, Message
from evaluation.halves import make_halves, split, undecidable, without
from evaluation.suites import item_digest

POLICY = GateSection(
    anchors=SuiteRule(kind="non_inferiority", margin=0.15, max_discordance=0.15),
    target=SuiteRule(kind="superiority"),
    power=0.8,
)


def items(suite: str, count: int, slices: int = 3) -> list[EvalItem]:
    return [
        EvalItem(
            id=f"{suite}-{n}",
            suite=suite,
            messages=(Message(role="user", content=f"{suite}: question {n}?"),),
            reference="yes",
            slice=f"skill {n % slices}",
        )
        for n in range(count)
    ]


@given(count=st.integers(0, 60), slices=st.integers(1, 12), seed=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_halves_are_disjoint_whole_balanced_and_the_same_in_any_order(count: int, slices: int, seed: int) -> None:
    suite = items("anchors", count, slices)
    selection, gating = split(suite)
    assert sorted(i.id for i in selection + gating) == sorted(i.id for i in suite)
    assert len(gating) - len(selection) == count % 2
    chose, judged = Counter(i.slice for i in selection), Counter(i.slice for i in gating)
    assert all(abs(chose[name] - judged[name]) <= 1 for name in chose | judged)
    mixed = random.Random(seed).sample(suite, count)
    assert {i.id for i in split(mixed)[0]} == {i.id for i in selection}


def test_a_change_of_name_moves_no_item_and_a_change_of_text_may() -> None:
    suite = items("anchors", 40)
    chosen = {item_digest(i) for i in split(suite)[0]}
    renamed = [i.model_copy(update={"id": f"other-{i.id}"}) for i in suite]
    assert {item_digest(i) for i in split(renamed)[0]} == chosen
    assert [i.id for i in split(suite)[0]] != [i.id for i in suite[:20]], "not by place"


def test_a_suite_too_small_in_half_is_left_whole() -> None:
    whole = {"target": items("target", 60), "anchors": items("anchors", 130), "incidents": items("incidents", 3)}
    halves = make_halves(whole, POLICY, "superiority")
    assert not halves.note
    assert {name: len(part) for name, part in halves.selection.items()} == {
        "target": 30,
        "anchors": 65,
        "incidents": 3,
    }
    probed = make_halves({**whole, "probes": items("probes", 5)}, POLICY, "superiority")
    assert len(probed.selection["probes"]) == len(probed.gating["probes"]) == 5, "a list, as incidents are"
    assert {name: len(part) for name, part in halves.gating.items()} == {"target": 30, "anchors": 65, "incidents": 3}
    fine = POLICY.model_copy(update={"anchors": SuiteRule(kind="non_inferiority", margin=0.10, max_discordance=0.15)})
    left = make_halves(whole, fine, "superiority")
    assert "65 of anchors" in left.note
    assert (left.selection, {k: len(v) for k, v in left.gating.items()}) == (
        {},
        {"target": 60, "anchors": 130, "incidents": 3},
    )
    assert undecidable({"anchors": [""] * 65, "target": [""] * 30}, fine, "superiority") == ["anchors"]
    assert undecidable({"anchors": [""] * 130, "target": [""] * 30}, fine, "superiority") == []


@pytest.mark.parametrize("count", [1, 5, 12])
def test_a_target_too_small_in_half_is_not_looked_at(count: int) -> None:
    whole = {"target": items("target", count), "anchors": items("anchors", 130)}
    halves = make_halves(whole, POLICY, "superiority")
    assert not halves.note
    assert set(halves.selection) == {"anchors"}
    assert len(halves.gating["target"]) == count


def test_without_anchors_nothing_is_chosen() -> None:
    halves = make_halves({"target": items("target", 60), "incidents": []}, POLICY, "superiority")
    assert "no anchor suite" in halves.note
    assert set(halves.gating) == {"target"}


def test_the_gate_never_sees_an_item_that_chose_though_the_suite_changed() -> None:
    whole = {"anchors": items("anchors", 130), "incidents": items("incidents", 2)}
    chosen = make_halves(whole, POLICY, "non_inferiority").selection
    digests = {name: [item_digest(i) for i in part] for name, part in chosen.items()}
    grown = {**whole, "anchors": items("anchors", 150), "incidents": items("incidents", 2)}
    left = without(grown, digests, POLICY)
    assert not {i.id for i in left["anchors"]} & {i.id for i in chosen["anchors"]}
    assert len(left["anchors"]) == 150 - 65
    assert len(left["incidents"]) == 2, "a list of what must hold is used whole"


def test_a_users_list_is_never_split() -> None:
    policy = POLICY.model_copy(update={"suites": {"must": SuiteRule(kind="list")}})
    whole = {"anchors": items("anchors", 130), "must": items("must", 7)}
    halves = make_halves(whole, policy, "non_inferiority")
    assert not halves.note
    assert len(halves.selection["must"]) == len(halves.gating["must"]) == 7
    digests = {name: [item_digest(i) for i in part] for name, part in halves.selection.items()}
    assert len(without(whole, digests, policy)["must"]) == 7


def test_what_else_the_gate_looks_at_must_be_decidable_in_half_too() -> None:
    """Negative flips and a slice with a margin of its own need items as the suite does."""
    whole = {"anchors": [i.model_copy(update={"slice": "sums"}) for i in items("anchors", 130)]}
    for rule in ({"max_nfr": 0.03}, {"slices": {"sums": 0.05}}):
        anchors = SuiteRule.model_validate({**POLICY.anchors.model_dump(), **rule})
        strict = POLICY.model_copy(update={"anchors": anchors})
        assert undecidable({"anchors": ["sums"] * 65}, strict, "non_inferiority") == ["anchors"], rule
        assert "65 of anchors" in make_halves(whole, strict, "non_inferiority").note
