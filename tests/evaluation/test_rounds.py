"""The table of forgetting over rounds."""

from __future__ import annotations

from evaluation.rounds import MAX_ROUNDS, Round, heat_map, round_of, shade


def test_a_round_is_the_candidate_minus_the_base():
    means = [{"suite": "anchors", "base": 0.64, "champion": 0.6, "candidate": 0.59}, {"suite": "probes", "base": 1.0}]
    found = round_of("#3", "promoted", means)
    assert list(found.changes) == ["anchors"]
    assert round(found.changes["anchors"], 6) == -0.05


def test_shades_grow_with_the_change_and_keep_its_sign():
    assert [shade(x) for x in (-0.3, -0.05, -0.01, 0.0, 0.004, 0.01, 0.05, 0.3)] == [-3, -2, -1, 0, 0, 1, 2, 3]


def test_one_round_has_nothing_to_compare_with_and_the_target_comes_first():
    first = Round("#1", "promoted", {"anchors": -0.02, "target": 0.9})
    assert heat_map([first]) is None
    table = heat_map([first, Round("#2", "this one: pass", {"target": 0.92, "tone": 0.0})])
    assert table is not None
    assert table["suites"] == ["target", "anchors", "tone"]
    assert [[cell["text"] for cell in row["cells"]] for row in table["rows"]] == [
        ["+90.0", "-2.0", ""],
        ["+92.0", "", "+0.0"],
    ]
    many = heat_map([Round(f"#{n}", "", {"target": 0.0}) for n in range(40)])
    assert many is not None
    assert [row["label"] for row in many["rows"]] == [f"#{n}" for n in range(40 - MAX_ROUNDS, 40)]
