"""Which items choose an adapter's scale and which then judge it: two halves that never meet.

An adapter that was chosen for its results on some items looks better on them than it is. So the scale is chosen on
one half of each suite and the gate sees the other half only. Which half an item is in depends on a salted digest of
the item and on its slice, never on a result: in each slice every second item by that digest, so that both halves hold
as much of each skill or topic. Incidents and probes are lists of what must hold, not samples: both sides use the
whole list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from configs.schema import GateSection
from data_contracts.digests import digest
from data_contracts.records import EvalItem, EvalReport, ItemScore, SuiteScores
from evaluation.gate import INCIDENTS, PROBES, TARGET, Objective, decide, rule_for
from evaluation.suites import item_digest

SALT = "tidemill.halves.1"
"""Another salt would put every item anew and let items that chose earlier scales judge later ones."""
LISTS = (INCIDENTS, PROBES)
"""Suites that are lists of what must hold, whatever the policy says: never split."""
Suites = Mapping[str, Sequence[EvalItem]]


@dataclass(frozen=True)
class Halves:
    """What a scale is chosen on.

    Attributes:
        selection: suite -> items to choose by; the gate must not see them, but for lists.
        gating: suite -> items left to the gate.
        note: why the suites are left whole and no scale is chosen; empty where one is.
    """

    selection: dict[str, list[EvalItem]]
    gating: dict[str, list[EvalItem]]
    note: str = ""


def split(items: Sequence[EvalItem], salt: str = SALT) -> tuple[list[EvalItem], list[EvalItem]]:
    """(selection half, gating half), each in the suite's order; of an odd number the gate has one more."""
    by_slice: dict[str, list[tuple[str, str, int]]] = {}
    for place, item in enumerate(items):
        by_slice.setdefault(item.slice, []).append((digest([salt, item_digest(item)]), item.id, place))
    # One count through all slices: slices of odd size give their odd item to either side in turn.
    order = [place for name in sorted(by_slice) for _, _, place in sorted(by_slice[name])]
    gating = set(order[::2])
    return [x for i, x in enumerate(items) if i not in gating], [x for i, x in enumerate(items) if i in gating]


def is_list(suite: str, policy: GateSection) -> bool:
    """True for a suite that is a list of what must hold, by its nature or by the policy."""
    return suite in LISTS or rule_for(suite, policy).kind == "list"


def undecidable(suites: Mapping[str, Sequence[str]], policy: GateSection, objective: Objective) -> list[str]:
    """Suites the gate would find too small, or a slice of them, from their sizes and the policy alone.

    The gate itself is asked, about a candidate that is right everywhere and changed nothing: nothing but the number of
    items can make it say "inconclusive" of that.

    Args:
        suites: suite -> the slice of each of its items.
        policy: the gate's.
        objective: of the retrain.
    """
    scores = {}
    for name, slices in suites.items():
        items = tuple(ItemScore(item_id=str(i), score=1.0, answer="", nll=1.0) for i in range(len(slices)))
        scores[name] = {
            model: SuiteScores(suite=name, suite_digest="", model_digest="", items=items)
            for model in ("base", "champion", "candidate")
        }
    unchanged = EvalReport(
        candidate_digest="",
        champion_digest="",
        base_digest="",
        dataset_digest="",
        scores=scores,
        slices={name: {str(i): one for i, one in enumerate(slices) if one} for name, slices in suites.items()},
    )
    found = decide(unchanged, policy, objective)
    said = [(v.suite, v.verdict) for v in found.suites] + [(f.suite, f.verdict) for f in found.findings]
    return sorted({suite for suite, verdict in said if verdict == "inconclusive" and suite in suites})


def make_halves(suites: Suites, policy: GateSection, objective: Objective) -> Halves:
    """Split the suites, where the gate can still decide by what is left for it.

    Every anchor suite must be large enough in half, or no scale is chosen at all: the adapter goes to the gate as it
    was trained, with whole suites. A target too small in half stays whole for the gate, and nobody looks at it before.

    Args:
        suites: name -> items, as for the gate.
        policy: the gate's; what is large enough is its own size check.
        objective: of the retrain.
    """
    whole = {name: list(items) for name, items in suites.items() if items}
    listed = {name for name in whole if is_list(name, policy)}
    anchors = [name for name in whole if name != TARGET and name not in listed]
    if not anchors:
        return Halves({}, whole, "there is no anchor suite to choose a scale by")
    parts = {name: split(items) for name, items in whole.items() if name not in listed}
    left = {name: [i.slice for i in (parts[name][1] if name in parts else whole[name])] for name in whole}
    small = undecidable(left, policy, objective)
    if TARGET in small or (TARGET in parts and not parts[TARGET][0]):
        del parts[TARGET]
        left[TARGET] = [item.slice for item in whole[TARGET]]
        small = [name for name in undecidable(left, policy, objective) if name != TARGET]
    if small:
        halves = ", ".join(f"{len(left[name])} of {name}" for name in small)
        return Halves({}, whole, f"half a suite is too few for the gate to decide by ({halves}): whole suites, scale 1")
    selection = {name: items[0] for name, items in parts.items()}
    selection |= {name: items for name, items in whole.items() if name in listed}
    return Halves(selection, {name: parts[name][1] if name in parts else whole[name] for name in whole})


def without(suites: Suites, selected: Mapping[str, Sequence[str]], policy: GateSection) -> dict[str, list[EvalItem]]:
    """What the gate may see: the suites without the items that chose the scale, whatever else changed since.

    Args:
        suites: name -> items.
        selected: name -> digests of the items that chose; lists stay whole.
        policy: the gate's, which says what is a list.
    """
    gone = {name: set(digests) for name, digests in selected.items() if not is_list(name, policy)}
    left = {name: [i for i in items if item_digest(i) not in gone.get(name, ())] for name, items in suites.items()}
    return {name: items for name, items in left.items() if items}
