import dataclasses
import json
import random
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_samples import PAIRS, make_job, poison

from configs.errors import PrivacyBudgetError, TrainingError
from configs.privacy import PrivacySection
from configs.schema import TrainingSection
from data_contracts.records import AdapterArtifact, PrivacyCharge, PrivacyMechanism, utc_now
from models.adapters import CARD, README, read_manifest
from models.jobs import JobStopped
from models.packing import TokenRow
from training.checkpoint import FILE
from training.exposure import UNKNOWN, exposure
from training.noise import KEY_BYTES, SecretStream, between_0_and_1, run_key
from training.private_job import KEY, NOT_COVERED, OWNERS, PrivateJob
from training.private_loop import PrivateRows, PrivateStep, add_clipped, by_person, public_steps, train_private
from training.trainer import train

NO_PREFERENCES = {"dpo": {"weight": 0}}
CALM = {"epsilon": 2.0, "total_epsilon": 6.0, "people_per_step": 16}


def section(**more: Any) -> TrainingSection:
    settings = {"rank": 4, "alpha": 8.0, "learning_rate": 1e-2, "epochs": 8.0, "objectives": NO_PREFERENCES}
    return TrainingSection(**{**settings, "privacy": CALM, **more})


def mechanism(**more: Any) -> PrivacyMechanism:
    facts = {"people": 4, "sample_rate": 0.5, "steps": 6, "noise_multiplier": 1.0, "max_grad_norm": 1.0}
    return PrivacyMechanism(**{**facts, "epsilon": 5.0, "delta": 1e-5, "accountant": "rdp", "library": "x", **more})


def charged(run: PrivacyMechanism, total: float, number: int = 1) -> PrivacyCharge:
    return PrivacyCharge(
        id=f"{number:064x}", model="bot", request_id=f"retrain-{number}", snapshot="s" * 64, mechanism=run,
        total_epsilon=total, total_delta=run.delta, at=utc_now(),
    )  # fmt: skip


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> Any:
    from models.loading import load_base

    return lambda: load_base(tiny_base)[0]


@pytest.fixture(scope="module")
def counted() -> PrivacyMechanism:
    pytest.importorskip("opacus")
    from training.privacy import mechanism_for

    return mechanism_for(200, section())


def rows_of(source: random.Random, count: int, *, length: int = 6) -> list[TokenRow]:
    def tokens(n: int) -> tuple[int, ...]:
        return tuple(source.randrange(10, 300) for _ in range(n))

    return [TokenRow(tokens(length), tokens(length)) for _ in range(count)]


# --- settings ------------------------------------------------------------------------------------


def test_what_cannot_be_private_is_refused_as_a_setting():
    assert section().privacy == PrivacySection(**CALM)
    for more, word in (
        ({"early_stopping": {}}, "early_stopping"),
        ({"objectives": {}}, "objectives.dpo.weight"),
        ({"objectives": {**NO_PREFERENCES, "kto": {"weight": 0.5}}}, "objectives.kto.weight"),
        ({"privacy": {"epsilon": 2, "total_epsilon": 1}}, "total_epsilon"),
    ):
        with pytest.raises(ValueError, match=word):
            section(**more)


def test_without_opacus_one_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    from training.privacy import require_opacus

    monkeypatch.setitem(sys.modules, "opacus", None)  # what an import finds where it is not installed
    monkeypatch.delitem(sys.modules, "opacus.accountants", raising=False)
    with pytest.raises(TrainingError) as caught:
        require_opacus()
    assert caught.value.fix == 'pip install "tidemill[privacy]"'


# --- accounting ----------------------------------------------------------------------------------


def test_the_noise_is_as_much_as_epsilon_asks_for_and_no_more(counted: PrivacyMechanism):
    from training.privacy import delta_for, epsilon_of, mechanism_for

    run = counted
    assert (run.people, run.sample_rate, run.steps, run.delta) == (200, 0.08, 100, 1e-5)
    assert 1.98 <= run.epsilon <= 2.0
    assert run.library.startswith("opacus ")
    assert epsilon_of([run], run.delta) == run.epsilon
    louder = run.model_copy(update={"noise_multiplier": 2 * run.noise_multiplier})
    assert epsilon_of([louder], run.delta) < run.epsilon
    alone = mechanism_for(3, section())
    assert (alone.sample_rate, alone.steps) == (1.0, 8)
    # A Gaussian that everybody is in for k steps is one with 1 / sqrt(k) of the noise (Dong et al., arXiv 1905.02383).
    once = alone.model_copy(update={"steps": 1, "noise_multiplier": alone.noise_multiplier / 8**0.5})
    assert epsilon_of([once], 1e-5) == pytest.approx(alone.epsilon, rel=1e-6)
    assert delta_for(20_000, PrivacySection(**CALM)) == pytest.approx(5e-6)
    with pytest.raises(TrainingError, match="protects nobody"):
        mechanism_for(200, section(privacy={**CALM, "delta": 0.1}))


def test_rounds_compose_to_less_than_their_sum_and_the_budget_ends(counted: PrivacyMechanism):
    from training.privacy import check_budget, mechanism_for, total_with

    config, run = section(), counted
    spent: list[PrivacyCharge] = []
    while total_with(spent, run)[0] <= 6:
        spent.append(charged(run, check_budget(spent, run, config)[0], len(spent) + 1))
    with pytest.raises(PrivacyBudgetError) as caught:
        check_budget(spent, run, config)
    assert len(spent) > 3  # three times 2 would be 6: composing is better than adding
    assert spent[-1].total_epsilon <= 6
    text = str(caught.value)
    assert f"{len(spent)} retrains" in text
    assert "retrain-1 (" in text
    lower = float((caught.value.fix or "").split("privacy.epsilon to ")[1].split(";")[0])
    fitting = mechanism_for(200, section(privacy={**CALM, "epsilon": lower}))
    assert check_budget(spent, fitting, config)[0] <= 6
    assert total_with([charged(run.model_copy(update={"delta": 1e-7}), 1.0)], run)[1] == 1e-7


# --- randomness ----------------------------------------------------------------------------------


def test_the_noise_is_normal_the_same_for_its_step_and_unrelated_elsewhere():
    stream = SecretStream(b"k" * KEY_BYTES, "run")
    noise = stream.normals(3, 0, 100_001)
    assert noise.shape == (100_001,)
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.01
    assert 0.9973 - 0.001 < (np.abs(noise) < 3).mean() < 0.9973 + 0.001
    assert (noise == SecretStream(b"k" * KEY_BYTES, "run").normals(3, 0, 100_001)).all()
    others = [stream.normals(4, 0, 100_001), stream.normals(3, 1, 100_001)]
    others += [SecretStream(b"k" * KEY_BYTES, "other").normals(3, 0, 100_001)]
    others += [SecretStream(b"l" * KEY_BYTES, "run").normals(3, 0, 100_001)]
    for other in others:
        assert abs(np.corrcoef(noise, other)[0, 1]) < 0.02


def test_people_are_drawn_independently_at_the_rate():
    stream = SecretStream(b"k" * KEY_BYTES, "run")
    drawn = [stream.drawn(step, 50, 0.2) for step in range(400)]
    assert sum(map(len, drawn)) / (400 * 50) == pytest.approx(0.2, abs=0.01)
    assert len({len(one) for one in drawn}) > 5  # no fixed batch: the accountant counts Poisson sampling
    assert stream.drawn(0, 5, 1.0) == [0, 1, 2, 3, 4]


def test_a_runs_key_is_drawn_once_for_its_owner_only(tmp_path: Path):
    path = tmp_path / "work" / KEY
    key = run_key(path)
    assert len(key) == KEY_BYTES
    assert run_key(path) == key != run_key(tmp_path / "other" / KEY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (path.parent / f".{KEY}.77.tmp").write_bytes(key)  # a crash after the link
    assert run_key(path) == key
    assert [p.name for p in path.parent.iterdir()] == [KEY]


def test_a_key_needs_no_hard_links_and_half_of_one_is_refused(tmp_path: Path):
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    path = tmp_path / KEY
    key = run_key(path, refuse)
    assert run_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == [KEY]
    other = tmp_path / "other" / KEY

    def late(source: Path, target: Path) -> None:
        run_key(target)
        raise PermissionError(1, "Operation not permitted")

    found = run_key(other, late)
    assert found == run_key(other), "the quicker one's key stays"
    path.write_bytes(key[:7])
    with pytest.raises(TrainingError, match="not whole"):
        run_key(path)


def test_uniform_numbers_reach_neither_0_nor_1():
    low, high = between_0_and_1(np.array([0, 2**64 - 1], dtype="<u8"))
    assert (low, high) == (2.0**-53, 1 - 2.0**-53)


# --- the step ------------------------------------------------------------------------------------


def test_one_persons_gradient_is_no_longer_than_the_clip_and_never_poisons_the_sum():
    import torch

    parameters = [torch.zeros(3, requires_grad=True), torch.zeros(2, requires_grad=True)]
    sums = [torch.zeros(3), torch.zeros(2)]

    def add(*values: float) -> None:
        parameters[0].grad, parameters[1].grad = torch.tensor(values[:3]), torch.tensor(values[3:])
        add_clipped(sums, parameters, 2.0)

    add(0.0, 3.0, 0.0, 0.0, 4.0)
    assert torch.cat(sums).tolist() == pytest.approx([0, 1.2, 0, 0, 1.6])
    add(1.0, 0.0, 0.0, 0.0, 0.0)
    assert torch.cat(sums).tolist() == pytest.approx([1, 1.2, 0, 0, 1.6])
    for bad in (float("nan"), float("inf")):
        add(bad, 0.0, 0.0, 0.0, 0.0)
    assert torch.cat(sums).tolist() == pytest.approx([1, 1.2, 0, 0, 1.6])
    assert parameters[0].grad is None


def test_a_step_without_noise_is_the_mean_of_clipped_gradients_and_a_person_changes_it_by_no_more_than_the_clip(base):
    """The sensitivity the accountant relies on, with dropout, which must not be shared between people."""
    import torch

    from training.lora import add_lora

    config = section(dropout=0.2)
    source = random.Random(1)
    people = tuple(tuple(rows_of(source, 1 + n % 2)) for n in range(4))
    rows = PrivateRows(people, tuple(dataclasses.replace(row, replay=True) for row in rows_of(source, 3)))
    model = add_lora(base(), config, seed=1)
    model.train()
    silent = mechanism(sample_rate=1.0, noise_multiplier=0.0, max_grad_norm=0.5)

    def gradient(given: PrivateRows) -> Any:
        make = PrivateStep(model, given, config, silent, SecretStream(b"k" * 32, "x"), seed=5)
        make.parameters[1].data.fill_(0.02)  # B begins at zero, and then nothing reaches A
        loss = make(2)
        assert (loss is None) == (not given.public)
        found = torch.cat([p.grad.flatten().clone() for p in make.parameters])
        for p in make.parameters:
            p.grad = None
        return found

    whole = gradient(dataclasses.replace(rows, public=()))
    for gone in range(4):
        without = tuple(() if n == gone else one for n, one in enumerate(people))
        change = gradient(PrivateRows(without, ())) - whole
        assert 0 < float(change.norm()) <= 0.5 / 4 * 1.0001
    assert float((gradient(rows) - whole).norm()) > 0  # the public rows pull too


def test_a_public_loss_that_is_no_number_stops_the_run_and_the_last_good_checkpoint_stays(base, tmp_path: Path):
    from training.lora import add_lora

    config, model, steps = section(checkpoint_steps=1), add_lora(base(), section(), seed=1), list[int]()
    poison(model, 5, lambda: len(steps) >= 2)
    people = tuple((row,) for row in rows_of(random.Random(4), 4))
    rows = PrivateRows(people, (TokenRow((5, 6), (7, 8), replay=True),))
    with pytest.raises(TrainingError, match="loss of the public rows") as caught:
        train_private(model, rows, config, mechanism(), SecretStream(b"k" * 32, "x"), seed=1, work_dir=tmp_path,
                      fingerprint="f", on_step=lambda event: steps.append(event["step"]))  # fmt: skip
    assert caught.value.where == "step 3"
    assert steps == [1, 2]
    assert [p.name for p in tmp_path.iterdir()] == [FILE]


def test_every_public_row_is_in_as_many_steps_as_there_are_epochs():
    steps = public_steps(7, 20, section(epochs=3.0), seed=1)
    assert len(steps) == 20
    assert sorted(n for step in steps for n in step) == sorted(list(range(7)) * 3)
    assert public_steps(0, 3, section(), seed=1) == [[], [], []]


def test_rows_are_grouped_by_person_and_nothing_else_trains():
    from training.data import Pair

    one, two, three = rows_of(random.Random(2), 3)
    grouped = by_person([one, two, three], [1, None, 1], people=3)
    assert grouped == PrivateRows(((), (one, three), ()), (two,))
    assert grouped.private_share == pytest.approx(2 / 3)
    with pytest.raises(TrainingError, match="preferences and thumbs"):
        by_person([Pair(one, two)], [0], people=1)
    with pytest.raises(TrainingError, match="no row of a person"):
        by_person([one], [None], people=1)


# --- planted secrets -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.long
def test_planted_secrets_are_given_away_without_privacy_and_not_with_it(base, tmp_path: Path):
    """Four of 48 people have a secret of four random tokens; both runs see each row 8 times."""
    from training.lora import add_lora
    from training.sft import train_lora

    source = random.Random(3)
    people = rows_of(source, 48, length=4)
    config = section(epochs=8.0, rows_per_step=16, learning_rate=2e-2, replay_kl=0.0)
    others = [tuple(source.randrange(10, 300) for _ in range(4)) for _ in range(127)]

    def exposed(model: Any) -> float:
        return sum(exposure(model, secret, others) for secret in people[:4]) / 4

    untrained = exposed(base())
    plain = add_lora(base(), config, seed=1)
    train_lora(plain, people, config.model_copy(update={"privacy": None}), seed=1, work_dir=tmp_path / "plain",
               fingerprint="f", on_step=lambda event: None)  # fmt: skip
    private = add_lora(base(), config, seed=1)
    # A third of the people in each of 24 steps.
    run = mechanism(people=48, sample_rate=1 / 3, steps=24, noise_multiplier=3.0)
    result = train_private(private, PrivateRows(tuple((row,) for row in people), ()), config, run,
                           SecretStream(b"k" * 32, "x"), seed=1, work_dir=tmp_path / "private", fingerprint="f",
                           on_step=lambda event: None)  # fmt: skip
    assert (result.steps, result.losses, result.tokens) == (24, (), 24 * 16 * 8)
    assert exposed(plain) > 6  # of 7 bits
    assert exposed(private) < UNKNOWN + 2
    assert abs(exposed(private) - untrained) < 2


# --- the whole job -------------------------------------------------------------------------------


def private_job(tiny_base: Path, root: Path, **more: Any) -> dict[str, Any]:
    """A job of eight people with a row each and no replay, paid for elsewhere."""
    job = make_job(tiny_base, root, objectives=NO_PREFERENCES, privacy=CALM, epochs=6.0, **more)
    work = root / "work"
    run_key(work / KEY)
    (work / OWNERS).write_text(json.dumps(list(range(8))))
    run = mechanism(people=8, sample_rate=0.5, steps=12, noise_multiplier=2.0)
    private = {"charge": "c" * 64, "mechanism": run.model_dump(mode="json")}
    paths = {"owners": str(work / OWNERS), "key": str(work / KEY)}
    return {**job, "work_dir": str(work), "threads": 0, "privacy": {**private, **paths}}


def trained(job: dict[str, Any], stop_after: int = 0) -> tuple[AdapterArtifact, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    stop = threading.Event()

    def emit(event: dict[str, Any]) -> None:
        events.append(event)
        if event.get("step") == stop_after - 1:
            stop.set()

    return AdapterArtifact.model_validate(train(job, emit, stop)["artifact"]), events


def test_a_private_run_says_what_it_guarantees_and_tells_no_loss_of_anybody(tiny_base: Path, tmp_path: Path):
    artifact, events = trained(private_job(tiny_base, tmp_path))
    assert [e["loss"] for e in events if e["event"] == "progress"] == [None] * 12
    assert not any({"tok_s", "system"} & event.keys() for event in events)
    assert artifact.loss_curve == ()
    assert not {"tokens_per_second", "peak_memory_mb"} & artifact.metrics.keys()
    assert "final_loss" not in artifact.metrics
    assert (artifact.metrics["epsilon"], artifact.metrics["noise_multiplier"]) == (5.0, 2.0)
    manifest = read_manifest(Path(artifact.path))
    card = json.loads((Path(artifact.path) / CARD).read_text())
    assert manifest["privacy"] == card["privacy"]
    assert "seconds" not in manifest
    assert card["result"].keys() == {"steps", "tokens", "metrics"}
    assert any("evaluation.scales" in one for one in card["privacy"]["not_covered"])
    assert card["privacy"]["unit"] == "person"
    assert card["privacy"]["charge"] == "c" * 64
    assert card["privacy"]["not_covered"] == list(NOT_COVERED)
    assert {"delta", "sample_rate", "steps", "accountant", "library", "max_grad_norm"} <= card["privacy"].keys()
    shown = (Path(artifact.path) / README).read_text()
    assert "epsilon 5 at delta 1e-05" in shown
    assert not any(answer in shown for _, answer in PAIRS)


def test_a_stopped_private_run_goes_on_with_the_same_noise_and_another_key_gives_another_adapter(
    tiny_base: Path, tmp_path: Path
):
    job = private_job(tiny_base, tmp_path)
    key = Path(job["privacy"]["key"]).read_bytes()
    with pytest.raises(JobStopped):
        trained(job, stop_after=8)
    again, events = trained(job)
    assert [e["step"] for e in events if e["event"] == "progress"] == [9, 10, 11, 12]
    whole, _ = trained(job)
    assert whole.digest == again.digest
    Path(job["privacy"]["key"]).write_bytes(bytes(reversed(key)))
    assert trained(job)[0].digest != again.digest


def test_a_private_run_that_nobody_paid_for_does_not_begin(tiny_base: Path, tmp_path: Path):
    job = private_job(tiny_base, tmp_path)
    unpaid = {name: value for name, value in job.items() if name != "privacy"}
    with pytest.raises(TrainingError, match="pays for it first"):
        train(unpaid, lambda event: None, threading.Event())
    config = TrainingSection.model_validate(job["config"])
    with pytest.raises(TrainingError, match="cannot be read"):
        PrivateJob.of({**job["privacy"], "key": str(tmp_path / "none")}, config)
    Path(job["privacy"]["owners"]).write_text("[0, 1]")
    with pytest.raises(TrainingError, match="another snapshot"):
        train(job, lambda event: None, threading.Event())
