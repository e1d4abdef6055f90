"""Our losses are TRL's: the same model, tokens and settings through its own trainers. Only this file knows TRL."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from configs.objectives import DpoObjective, KtoObjective, ObjectivesSection
from configs.schema import TrainingSection
from models.packing import TokenRow
from training.data import Pair, Rated
from training.objectives import backward
from training.reference import with_reference

# TRL 1.16 uses names of transformers and accelerate that are on their way out.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow, pytest.mark.long]


def tokens(rng: random.Random, low: int, high: int) -> tuple[int, ...]:
    return tuple(rng.randrange(5, 300) for _ in range(rng.randint(low, high)))


@pytest.fixture
def peft_model(tiny_base: Path) -> Any:
    """The tiny base with an adapter that is not zero any more."""
    import torch

    from models.loading import load_base
    from training.lora import add_lora

    model, _ = load_base(tiny_base, device="cpu")
    model = add_lora(model, TrainingSection(rank=4, alpha=8.0), seed=1)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_base)


def gradients(model: Any) -> list[Any]:
    found = [p.grad.detach().clone() for p in model.parameters() if p.requires_grad]
    model.zero_grad(set_to_none=True)
    return found


def ours(model: Any, examples: list[Any], objectives: ObjectivesSection, folder: Path) -> tuple[float, list[Any]]:
    from training.objectives import sides_of

    known = with_reference(model, examples, None, base_digest="", work_dir=folder, fingerprint="f")
    model.train()
    loss = backward(model, known, TrainingSection(objectives=objectives), sides_of(examples))
    return loss, gradients(model)


def theirs(trainer: Any, batch: dict[str, Any]) -> tuple[float, list[Any]]:
    import torch

    model = trainer.model
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B.ref." in name:  # TRL's reference is a copy of the adapter it was given; ours is the base
                parameter.zero_()
    model.train()
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    return float(loss.detach()), gradients(model)


def same(one: tuple[float, list[Any]], two: tuple[float, list[Any]]) -> None:
    import torch

    assert one[0] == pytest.approx(two[0], abs=1e-5)
    scale = max(float(g.abs().max()) for g in two[1])
    assert scale > 1e-4, "there is a gradient to compare"
    for mine, other in zip(one[1], two[1], strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4 * scale, rtol=1e-3)


SETTINGS: dict[str, Any] = {
    "report_to": [], "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "per_device_train_batch_size": 8,
    "disable_tqdm": True,
}  # fmt: skip


@pytest.mark.parametrize(("smoothing", "term"), [(0.0, 0.0), (0.1, 0.0), (0.0, 1.0), (0.2, 0.5)])
def test_preferences(peft_model: Any, tokenizer: Any, tmp_path: Path, smoothing: float, term: float) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rng = random.Random(f"{smoothing} {term}")
    rows = [(tokens(rng, 3, 30), tokens(rng, 1, 20), tokens(rng, 1, 20)) for _ in range(8)]
    pairs = [Pair(TokenRow(prompt, good), TokenRow(prompt, bad)) for prompt, good, bad in rows]
    weights = DpoObjective(weight=0.7, beta=0.3, sft=term, label_smoothing=smoothing)
    mine = ours(peft_model, pairs, ObjectivesSection(dpo=weights), tmp_path)

    kinds = {"loss_type": ["robust", "sft"], "loss_weights": [0.7, term]}
    args = DPOConfig(
        output_dir=str(tmp_path), beta=0.3, label_smoothing=smoothing, max_length=None, **kinds, **SETTINGS
    )
    data = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}] * 8)
    trainer = DPOTrainer(model=peft_model, args=args, train_dataset=data, processing_class=tokenizer)
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    batch = trainer.data_collator([dict(zip(names, map(list, row), strict=True)) for row in rows])
    same(mine, theirs(trainer, batch))


@pytest.mark.parametrize("labels", [(1, -1, 1, 1, -1, 1, 1, 1), (1,) * 8, (-1, -1, 1, -1, -1, -1, -1, -1)])
def test_thumbs(peft_model: Any, tokenizer: Any, tmp_path: Path, labels: tuple[int, ...]) -> None:
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    from training.losses import kto_sides

    rng = random.Random(str(labels))
    rows = [(tokens(rng, 3, 30), tokens(rng, 1, 20)) for _ in labels]
    rated = [
        Rated(TokenRow(prompt, answer), TokenRow(prompt, rows[n - 1][1]), labels[n])
        for n, (prompt, answer) in enumerate(rows)
    ]
    objectives = ObjectivesSection(kto=KtoObjective(weight=1.0, beta=0.3))
    mine = ours(peft_model, rated, objectives, tmp_path)

    up, down = kto_sides(labels.count(1), labels.count(-1))
    args = KTOConfig(
        output_dir=str(tmp_path), beta=0.3, desirable_weight=up, undesirable_weight=down, max_length=None, **SETTINGS
    )
    data = Dataset.from_list([{"prompt": "a", "completion": "b", "label": n % 2 == 0} for n in range(8)])
    trainer = KTOTrainer(model=peft_model, args=args, train_dataset=data, processing_class=tokenizer)
    lines = [
        {
            "prompt_ids": list(prompt), "completion_ids": list(answer), "KL_completion_ids": list(rows[n - 1][1]),
            "label": labels[n] == 1,
        }
        for n, (prompt, answer) in enumerate(rows)
    ]  # fmt: skip
    same(mine, theirs(trainer, trainer.data_collator(lines)))
