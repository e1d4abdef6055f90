"""Corrections, preferences and thumbs in one run: tokens, reference, what is learnt, and the same after a kill."""

from __future__ import annotations

import math
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from training_samples import make_job, snapshot_rows

from configs.errors import AdapterRejectedError, TidemillError, WorkerLostError
from configs.objectives import ObjectivesSection
from configs.schema import TrainingSection
from data_contracts.records import AdapterArtifact, AdapterRef, Message, SnapshotRow
from models.packing import TokenRow
from training import reference
from training.checkpoint import FILE
from training.data import Example, Pair, Rated, tokenise
from training.launch import run_training
from training.losses import kto_sides
from training.trainer import train

ALL = {"dpo": {"weight": 1.0}, "kto": {"weight": 1.0}}
PREFERENCES = [
    ("Which lamp is brighter?", "The large one.", "The small one."),
    ("When do you open?", "At nine on weekdays.", "At ten on weekdays."),
    ("Is there a discount?", "Yes, from ten pieces.", "No, there is none."),
    ("Who pays the shipping?", "We do above fifty euros.", "You do, in any case."),
]
THUMBS = [
    ("Do you repair chairs?", "Yes, write to the workshop.", 1),
    ("May I change the colour?", "I cannot help with that.", -1),
    ("Where is the shop?", "Beside the old mill.", 1),
    ("Can I pay in parts?", "Ask somebody else.", -1),
]


def signal_row(n: int, source: Any, question: str, answer: str, **more: Any) -> SnapshotRow:
    return SnapshotRow(
        digest=f"{n:064x}", split="train", source=source, messages=(Message(role="user", content=question),),
        completion=answer, row_id=f"row-{n}", **more,
    )  # fmt: skip


def signals() -> list[SnapshotRow]:
    pairs = [signal_row(100 + n, "preference", q, good, rejected=bad) for n, (q, good, bad) in enumerate(PREFERENCES)]
    thumbs = [signal_row(200 + n, "thumb", q, answer, label=label) for n, (q, answer, label) in enumerate(THUMBS)]
    replay = signal_row(300, "replay", "What is two and two?", "Four.").model_copy(update={"row_id": ""})
    return [*snapshot_rows(), *pairs, *thumbs, replay]


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_base)


def ref_of(artifact: AdapterArtifact) -> AdapterRef:
    return AdapterRef(version="bot@v1", digest=artifact.digest, path=artifact.path, base_digest=artifact.base_digest)


def likelihoods(base: Path, adapter: AdapterRef | None, rows: list[TokenRow]) -> list[float]:
    """Log-probability of each row's completion, each alone."""
    import torch

    from models.loading import attach, load_base
    from models.packing import pack, token_nll

    model, _ = load_base(base)
    if adapter is not None:
        model = attach(model, adapter)
    with torch.no_grad():
        return [-float(token_nll(model, pack([row])).sum()) for row in rows]


# --- tokens ----------------------------------------------------------------------------------------


def test_each_signal_has_its_tokens(tokenizer: Any) -> None:
    done = tokenise(signals(), tokenizer, 128, ObjectivesSection.model_validate(ALL))
    assert (done.count(TokenRow), done.count(Pair), done.count(Rated)) == (9, 4, 4)
    pair = next(row for row in done.rows if isinstance(row, Pair))
    assert pair.chosen.prompt == pair.rejected.prompt
    assert tokenizer.decode(pair.rejected.completion) == "The small one.<|im_end|>"
    assert len(pair) == len(pair.chosen) + len(pair.rejected)
    rated = [row for row in done.rows if isinstance(row, Rated)]
    assert [row.label for row in rated] == [label for *_, label in THUMBS]
    assert [row.other.prompt for row in rated] == [row.row.prompt for row in rated]
    assert [row.other.completion for row in rated] == [rated[n - 1].row.completion for n in range(4)]
    assert (done.shortened, done.skipped, done.unpaired, done.unused) == ((), (), (), ())


def test_a_signal_without_a_weight_teaches_nothing(tokenizer: Any) -> None:
    done = tokenise(signals(), tokenizer, 128)
    assert (done.count(TokenRow), done.count(Pair), done.count(Rated)) == (9, 4, 0)
    assert done.unused == tuple(f"{200 + n:064x}" for n in range(4))
    only = ObjectivesSection.model_validate({"dpo": {"weight": 0.0}, "kto": {"weight": 1.0}})
    done = tokenise(signals(), tokenizer, 128, only)
    assert (done.count(TokenRow), done.count(Pair), done.count(Rated)) == (13, 0, 4), "a preference is a correction"
    none = ObjectivesSection.model_validate({"sft": {"weight": 0.0}})
    assert tokenise(signals(), tokenizer, 128, none).count(TokenRow) == 1, "replay stays"
    one = [row for row in signals() if row.label == 1][:1]
    assert tokenise(one, tokenizer, 128, only).unused == (one[0].digest,)


def test_a_rejected_answer_that_does_not_fit_leaves_a_correction(tokenizer: Any) -> None:
    long = signals()[8].model_copy(update={"rejected": "very long " * 100})
    done = tokenise([long], tokenizer, 64)
    assert (done.count(Pair), done.count(TokenRow), done.unpaired) == (0, 1, (long.digest,))
    never = tokenise([long], tokenizer, 64, ObjectivesSection.model_validate({"sft": {"weight": 0.0}}))
    assert (never.rows, never.skipped) == ((), (long.digest,))


@pytest.mark.parametrize(("up", "down"), [(1, 1), (900, 100), (1, 50), (0, 7), (7, 0)])
def test_both_sides_of_thumbs_weigh_alike(up: int, down: int) -> None:
    one, two = kto_sides(up, down)
    assert 0 < min(one, two) <= max(one, two) <= 1
    if up and down:
        assert one * up == pytest.approx(two * down)


# --- the reference -----------------------------------------------------------------------------------


def lora_model(base: Path) -> Any:
    from models.loading import load_base
    from training.lora import add_lora

    return add_lora(load_base(base)[0], TrainingSection(rank=4, alpha=8.0), seed=1)


def asked(model: Any, rows: list[Example], folder: Path, **more: Any) -> list[Any]:
    known = {"champion": None, "base_digest": "b", "work_dir": folder, "fingerprint": "f", **more}
    return reference.with_reference(model, rows, known.pop("champion"), **known)


def test_the_reference_is_asked_once_and_is_the_base(tiny_base: Path, tokenizer: Any, tmp_path: Path) -> None:
    rows = list(tokenise(signals(), tokenizer, 128, ObjectivesSection.model_validate(ALL)).rows)
    known = asked(lora_model(tiny_base), rows, tmp_path)
    pairs = [row for row in known if isinstance(row, Pair)]
    expected = likelihoods(tiny_base, None, [side for pair in pairs for side in (pair.chosen, pair.rejected)])
    assert [number for pair in pairs for number in pair.reference] == pytest.approx(expected, abs=1e-4)
    assert [row for row in known if isinstance(row, TokenRow)] == [row for row in rows if isinstance(row, TokenRow)]
    assert asked(None, rows, tmp_path) == known, "from the file, bit for bit"
    (tmp_path / reference.FILE).write_bytes(b"torn")
    assert asked(lora_model(tiny_base), rows, tmp_path) == known
    assert asked(lora_model(tiny_base), rows[:8], tmp_path / "none") == rows[:8]


def test_the_champion_can_be_the_reference_and_leaves_nothing(tiny_base: Path, tokenizer: Any, tmp_path: Path) -> None:
    import torch

    job = {**make_job(tiny_base, tmp_path, epochs=5, rank=4), "work_dir": str(tmp_path / "w")}
    done = train(job, lambda event: None, threading.Event())
    champion = ref_of(AdapterArtifact.model_validate(done["artifact"]))
    rows = list(tokenise(signals(), tokenizer, 128).rows)
    model = lora_model(tiny_base)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    more = {"champion": champion, "base_digest": champion.base_digest}
    pairs = [row for row in asked(model, rows, tmp_path / "a", **more) if isinstance(row, Pair)]
    expected = likelihoods(tiny_base, champion, [side for pair in pairs for side in (pair.chosen, pair.rejected)])
    assert [number for pair in pairs for number in pair.reference] == pytest.approx(expected, abs=1e-4)
    base = likelihoods(tiny_base, None, [pairs[0].chosen])
    assert abs(base[0] - pairs[0].reference[0]) > 0.1
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trainable
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    with pytest.raises(AdapterRejectedError):
        asked(lora_model(tiny_base), rows, tmp_path / "b", champion=champion, base_digest="e" * 64)


# --- the run -----------------------------------------------------------------------------------------


def job_of(base: Path, root: Path, rows: list[SnapshotRow] | None = None, **section: Any) -> dict[str, Any]:
    settings = {"epochs": 20, "rows_per_step": 8, "learning_rate": 5e-3, "objectives": ALL, **section}
    return make_job(base, root, rows=signals() if rows is None else rows, **settings)


@pytest.fixture(scope="module")
def trained(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterArtifact:
    root = tmp_path_factory.mktemp("signals")
    return run_training(job_of(tiny_base, root), root / "work", lambda event: None)


def test_all_signals_are_learnt_in_one_run(tiny_base: Path, tokenizer: Any, trained: AdapterArtifact) -> None:
    metrics = trained.metrics
    assert (metrics["rows"], metrics["pairs"], metrics["thumbs"], metrics["rows_unused"]) == (17, 4, 4, 0)
    done = tokenise(signals(), tokenizer, 128, ObjectivesSection.model_validate(ALL))

    def moved(rows: list[TokenRow]) -> list[float]:
        """By how many nats the adapter moved each from the reference."""
        pairs = zip(likelihoods(tiny_base, ref_of(trained), rows), likelihoods(tiny_base, None, rows), strict=True)
        return [after - before for after, before in pairs]

    pairs = [row for row in done.rows if isinstance(row, Pair)]
    chosen, rejected = moved([p.chosen for p in pairs]), moved([p.rejected for p in pairs])
    assert all(good > bad + 5 for good, bad in zip(chosen, rejected, strict=True)), (chosen, rejected)
    assert min(chosen) > 0, "the chosen answers became likelier, not only the rejected ones less likely"
    rated = [row for row in done.rows if isinstance(row, Rated)]
    by_label = list(zip([row.label for row in rated], moved([row.row for row in rated]), strict=True))
    assert min(gain for label, gain in by_label if label == 1) > max(gain for label, gain in by_label if label == -1)
    corrections = [row for row in done.rows[:8] if isinstance(row, TokenRow)]
    nll = [
        -value / len(row.completion)
        for row, value in zip(corrections, likelihoods(tiny_base, ref_of(trained), corrections), strict=True)
    ]
    assert len(nll) == 8
    assert max(nll) < 1, "a random base has 7 nats a token"


@pytest.mark.parametrize("at", [9])
def test_a_killed_run_of_all_signals_ends_with_the_same_adapter(
    tiny_base: Path, tmp_path: Path, trained: AdapterArtifact, at: int
) -> None:
    job, work = job_of(tiny_base, tmp_path), tmp_path / "work"

    def kill(event: dict[str, Any]) -> None:
        if event.get("step") == at:
            os.kill(trainer_in(work), signal.SIGKILL)

    with pytest.raises(WorkerLostError):
        run_training(job, work, kill)
    assert (work / reference.FILE).is_file()
    events: list[dict[str, Any]] = []
    artifact = run_training(job, work, events.append)
    assert (artifact.digest, artifact.loss_curve) == (trained.digest, trained.loss_curve)
    first = next(event["step"] for event in events if event["event"] == "progress")
    assert (first > 1) == (at > 2)
    assert not {FILE, reference.FILE} & {path.name for path in work.iterdir()}


def trainer_in(work: Path) -> int:
    wanted = [b"training.trainer", str(work / "training.trainer.json").encode()]
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if all(part in command for part in wanted):
            return pid
    raise AssertionError("the trainer is not running")


def test_another_reference_is_another_run(tiny_base: Path, tmp_path: Path, trained: AdapterArtifact) -> None:
    ref = ref_of(trained)
    job = {**job_of(tiny_base, tmp_path, epochs=2), "work_dir": str(tmp_path / "w")}
    plain = train(job, lambda event: None, threading.Event())["artifact"]
    events: list[dict[str, Any]] = []
    against = {**job, "reference": ref.model_dump(mode="json")}
    other = train(against, events.append, threading.Event())["artifact"]
    assert plain["digest"] != other["digest"]
    assert plain["config_digest"] != other["config_digest"]
    assert any("asking bot@v1" in event.get("text", "") for event in events)
    assert all(math.isfinite(loss) for loss in other["loss_curve"])


def test_signals_without_any_weight_are_one_clear_error(tiny_base: Path, tmp_path: Path) -> None:
    thumbs = [row for row in signals() if row.source == "thumb"]
    job = {**job_of(tiny_base, tmp_path, rows=thumbs, objectives={}), "work_dir": str(tmp_path / "w")}
    with pytest.raises(TidemillError, match="no row of this snapshot") as caught:
        train(job, lambda event: None, threading.Event())
    assert "4 without an objective" in str(caught.value.found)
