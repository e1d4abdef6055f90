"""What a plan thinks a step sends through the model is what the step sends."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from configs.schema import TrainingSection
from models.packing import TokenRow
from training import reference
from training.calibrate import _examples, lengths
from training.data import Example, Pair, Rated
from training.fit import ways_out
from training.memory import BaseShape, memory, passes_flop, step_flop
from training.objectives import backward
from training.passes import Pass, reference_passes, step_passes, supervised

SHAPE = BaseShape(parameters=600_000, linear=((256, 256),) * 8, hidden=64, intermediate=128, layers=2, vocabulary=500)
ALL = TrainingSection.model_validate({"rank": 4, "alpha": 8.0, "objectives": {"kto": {"weight": 1.0}}})


def row(prompt: int, completion: int, *, replay: bool = False) -> TokenRow:
    return TokenRow((7,) * prompt, (9,) * completion, replay=replay)


def mixed() -> list[Example]:
    known = (-3.0, -4.0)
    return [
        row(120, 40), row(360, 160), row(320, 120), row(160, 48, replay=True), row(680, 20, replay=True),
        Pair(row(80, 32), row(80, 120), known), Pair(row(240, 80), row(240, 100), known),
        Rated(row(200, 36), row(200, 240), 1, known), Rated(row(280, 240), row(280, 36), -1, known),
    ]  # fmt: skip


def test_a_step_and_the_reference_run_the_passes_that_are_counted(tiny_base: Path, tmp_path: Path) -> None:
    from models.loading import load_base
    from training.lora import add_lora

    model = add_lora(load_base(tiny_base)[0], ALL, seed=1)
    seen: Counter[int] = Counter()
    model.register_forward_pre_hook(
        lambda _module, _arguments, named: seen.update([int(named["input_ids"].shape[1])]), with_kwargs=True
    )

    def counted(passes: list[Pass]) -> Counter[int]:
        return Counter(one.tokens for one in passes) + Counter(one.tokens for one in passes if one.kind == "remind")

    backward(model, mixed(), ALL, (1.0, 1.0))
    assert seen == counted(step_passes(mixed(), ALL, "cpu"))
    kinds = Counter(one.kind for one in step_passes(mixed(), ALL, "cpu"))
    assert kinds == {"learn": 6, "remind": 2, "look": 2}
    seen.clear()
    reference.with_reference(model, mixed(), None, base_digest="b", work_dir=tmp_path, fingerprint="f")
    assert seen == counted(reference_passes(mixed(), "cpu"))
    assert reference_passes(mixed()[:5], "cpu") == []


def test_a_thumb_costs_a_look_more_than_a_correction_and_a_pair_as_much_as_two() -> None:
    def cost(one: Example) -> float:
        return step_flop([one], SHAPE, ALL, "cpu")

    plain, other = row(50, 10), row(50, 10)
    assert cost(plain) < cost(Rated(plain, other, 1)) < 2 * cost(plain)
    assert cost(Pair(plain, other)) == pytest.approx(2 * cost(plain), rel=0.1)
    asked = passes_flop(reference_passes([Pair(plain, other)], "cpu"), SHAPE, ALL)
    assert 0.3 * cost(Pair(plain, other)) < asked < 0.6 * cost(Pair(plain, other))
    assert supervised(Pair(plain, other)) == 20


def test_the_largest_pack_may_be_that_of_a_pair_and_ways_out_shorten_it_too() -> None:
    pair = Pair(row(200, 20), row(200, 60))
    steps: list[list[Example]] = [[row(30, 10)], [pair, Rated(row(20, 5), row(20, 40), 1)]]
    found, at = memory(steps, SHAPE, ALL, "cpu")
    assert at == 1
    assert found.logits > memory(steps[:1], SHAPE, ALL, "cpu")[0].logits
    tight = ways_out([pair, Rated(row(300, 5), row(300, 40), -1)], SHAPE, ALL, "cpu", found.needed - 0.5)
    assert tight
    assert "max_row_tokens: 128" in ways_out([pair], SHAPE, ALL, "cpu", 600.0)[-1]


def test_a_calibration_trains_examples_of_the_same_lengths() -> None:
    made = _examples(lengths(mixed()), 500)
    assert [type(one) for one in made] == [type(one) for one in mixed()]
    assert lengths(made) == lengths(mixed())
    assert step_flop(made, SHAPE, ALL, "cpu") == step_flop(mixed(), SHAPE, ALL, "cpu")
    labels: list[Any] = [one.label for one in made if isinstance(one, Rated)]
    assert labels == [1, -1]
