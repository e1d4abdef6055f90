"""A step shared among several ranks, in this process: who gets which rows, and that the sum is the single process's."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rank_threads import in_ranks
from test_signals import ALL, signals
from training_samples import make_job

from configs.errors import ConfigError, TrainingError, WorkerLostError
from configs.objectives import ObjectivesSection
from configs.schema import TrainingSection
from models.jobs import JobStopped
from models.packing import TokenRow
from training import reference
from training.checkpoint import FILE
from training.data import Example, tokenise
from training.launch import launcher, lost_launcher, run_training, threads_each
from training.nodes import CALL, Node, called, follow, read_call, this_node
from training.ranks import ALONE, Ranks
from training.same_job import check_same_job
from training.sft import TrainResult, train_lora
from training.shares import deal, groups_of
from training.trainer import Job, train

SETTINGS = {
    "rank": 4, "alpha": 8.0, "epochs": 4, "rows_per_step": 7, "learning_rate": 5e-3, "checkpoint_steps": 100,
    "objectives": ALL, "early_stopping": {"share": 0.2, "every_steps": 3, "patience": 50},
}  # fmt: skip


# --- who gets which rows -----------------------------------------------------------------------------


def rows(lengths: list[int]) -> list[TokenRow]:
    return [TokenRow((n,) * length, (1,)) for n, length in enumerate(lengths)]


LENGTHS = st.lists(st.integers(1, 300), max_size=30)


@given(kinds=st.lists(LENGTHS, min_size=1, max_size=4), count=st.integers(1, 9))
def test_every_row_is_dealt_once_and_no_share_is_more_than_a_row_ahead(kinds: list[list[int]], count: int) -> None:
    given_rows = [rows(lengths) for lengths in kinds]
    dealt = deal(given_rows, count)
    assert [len(shares) for shares in dealt] == [count] * len(kinds)
    for kind, shares in zip(given_rows, dealt, strict=True):
        together = [row for share in shares for row in share]
        assert sorted(row.prompt for row in together) == sorted(row.prompt for row in kind)
    tokens = [sum(len(row) for shares in dealt for row in shares[rank]) for rank in range(count)]
    longest = max((len(row) for kind in given_rows for row in kind), default=0)
    assert max(tokens) - min(tokens) <= longest
    assert deal(given_rows, count) == dealt, "every rank works out the same"
    if count == 1:
        assert [shares[0] for shares in dealt] == given_rows, "alone the order stays"


@given(lengths=LENGTHS.filter(bool), count=st.integers(1, 6), limit=st.integers(1, 400))
def test_in_lockstep_every_rank_packs_as_often_and_what_is_added_does_not_count(
    lengths: list[int], count: int, limit: int
) -> None:
    shares = deal([rows(lengths)], count)[0]
    level = [groups_of(shares, rank, limit, lockstep=True) for rank in range(count)]
    assert len({len(groups) for groups in level}) == 1
    for rank, groups in enumerate(level):
        counting = [group for group, counts in groups if counts == 1.0]
        assert [(group, 1.0) for group in counting] == groups_of(shares, rank, limit, lockstep=False)
        assert sorted(row.prompt for group in counting for row in group) == sorted(r.prompt for r in shares[rank])
        assert all(len(group) == 1 and counts == 0.0 for group, counts in groups[len(counting) :])
        assert all(len(group) == 1 or sum(map(len, group)) <= limit for group in counting)


def test_alone_every_exchange_gives_back_what_it_was_given() -> None:
    assert ALONE.sum([1.5, 2.0]) == [1.5, 2.0]
    assert (ALONE.any(True), ALONE.any(False), ALONE.from_main(lambda: "x")) == (True, False, "x")


# --- the same adapter, whoever trains it ------------------------------------------------------------


@pytest.fixture(scope="module")
def examples(tiny_base: Path) -> list[Example]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    return list(tokenise(signals(), tokenizer, 128, ObjectivesSection.model_validate(ALL)).rows)


def trained(
    base: Path, examples: list[Example], work: Path, *, count: int = 1, lockstep: bool = False, stop_at: int = 0,
    stopper: int = 0,
) -> list[tuple[TrainResult, list[Any]]]:  # fmt: skip
    """Each rank's result and weights; at `stop_at` the rank `stopper` is asked to stop."""
    from models.loading import load_base
    from training.lora import add_lora

    config = TrainingSection.model_validate(SETTINGS)
    models = [add_lora(load_base(base)[0], config, seed=1) for _ in range(count)]

    def work_of(ranks: Ranks) -> tuple[TrainResult, list[Any]]:
        model, seen = models[ranks.rank], [0]
        known = reference.with_reference(
            model, examples, None, base_digest="b", work_dir=work, fingerprint="f", ranks=ranks
        )
        result = train_lora(
            model, known, config, seed=5, work_dir=work, fingerprint="f", ranks=ranks,
            on_step=lambda event: seen.append(event["step"]),
            stopped=lambda: ranks.rank == stopper and seen[-1] + 1 == stop_at,
        )  # fmt: skip
        return result, [p.detach().clone() for p in model.parameters() if p.requires_grad]

    return [work_of(ALONE)] if count == 1 else in_ranks(count, work_of, lockstep=lockstep)


def apart(one: list[Any], other: list[Any]) -> float:
    """The largest difference of two adapters' weights."""
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def alone(tiny_base: Path, examples: list[Example], tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Any]]:
    return trained(tiny_base, examples, tmp_path_factory.mktemp("alone"))[0]


@pytest.mark.parametrize(("count", "lockstep"), [(2, False), (3, True), (8, False)])
def test_ranks_that_share_the_steps_end_with_the_single_processs_adapter(
    tiny_base: Path, tmp_path: Path, examples: list[Example], alone: Any, count: int, lockstep: bool
) -> None:
    """Of eight ranks at least one has no row of a step of seven; in lockstep they then run packs that do not count."""
    found = trained(tiny_base, examples, tmp_path, count=count, lockstep=lockstep)
    first, weights = found[0]
    assert len(first.losses) == 9
    assert first.losses == pytest.approx(alone[0].losses, abs=1e-5)
    assert first.held_out == pytest.approx(alone[0].held_out, abs=1e-5)
    assert len(first.held_out) >= 2
    assert first.tokens == alone[0].tokens
    assert all(result.losses == first.losses for result, _ in found), "all ranks see the same loss"
    assert apart(weights, alone[1]) < 1e-5


def test_a_run_may_be_taken_up_by_another_number_of_ranks(
    tiny_base: Path, tmp_path: Path, examples: list[Example], alone: Any
) -> None:
    for count, stop_at in ((2, 3), (3, 7)):  # the one that is asked to stop is not the one that writes
        stopped = trained(tiny_base, examples, tmp_path, count=count, stop_at=stop_at, stopper=1)
        assert [type(one) for one in stopped] == [JobStopped] * count, stopped
        assert (tmp_path / FILE).is_file()
    result, weights = trained(tiny_base, examples, tmp_path)[0]
    assert result.resumed_at == 7
    assert result.losses == pytest.approx(alone[0].losses, abs=1e-5)
    assert apart(weights, alone[1]) < 1e-5


# --- what is said about it -------------------------------------------------------------------------


def test_how_many_train_decides_nothing_about_the_adapter(tiny_base: Path, tmp_path: Path) -> None:
    one = make_job(tiny_base, tmp_path)
    many = make_job(tiny_base, tmp_path, distributed={"processes": 4, "machines": 2, "strategy": "fsdp"})
    digests = {Job.of({**job, "work_dir": str(tmp_path)}).config_digest for job in (one, many)}
    assert len(digests) == 1


def test_a_quantised_base_is_not_sharded() -> None:
    with pytest.raises(ValueError, match="fsdp shards a base in full precision"):
        TrainingSection.model_validate({"quantization": "nf4", "distributed": {"strategy": "fsdp"}})


def test_a_machine_finds_its_place_in_the_environment_or_says_what_is_missing() -> None:
    two = TrainingSection.model_validate({"distributed": {"processes": 4, "machines": 2}}).distributed
    assert this_node(TrainingSection().distributed, {"NODE_RANK": "7"}) == Node()
    node = this_node(two, {"NODE_RANK": "1", "MASTER_ADDR": "trainer-0"})
    assert node == Node(1, "trainer-0", 29500)
    command = " ".join(launcher(two, node))
    assert "--num_processes 8 --num_machines 2" in command
    assert "--machine_rank 1 --main_process_ip trainer-0" in command
    for wrong in ({}, {"NODE_RANK": "2", "MASTER_ADDR": "a"}, {"NODE_RANK": "one", "MASTER_ADDR": "a"}):
        with pytest.raises(ConfigError, match="does not know its place") as caught:
            this_node(two, wrong)
        assert "MASTER_ADDR" in str(caught.value.expected)


def test_a_call_is_out_for_as_long_as_the_run_and_only_where_others_should_hear_it(tmp_path: Path) -> None:
    two = TrainingSection.model_validate({"distributed": {"machines": 2}}).distributed
    job = {"out_dir": str(tmp_path), "work_dir": str(tmp_path / "work")}
    with called(two, job):
        first = read_call(tmp_path / ".training-call.json")
    assert first is not None
    assert first[1] == job
    assert read_call(tmp_path / ".training-call.json") is None
    with called(two, job):
        assert (read_call(tmp_path / ".training-call.json") or first)[0] != first[0], "another attempt, another call"
    with called(TrainingSection().distributed, job):
        assert list(tmp_path.iterdir()) == []
    with called(two, job) as older:
        with called(two, {**job, "attempt": 2}) as newer:
            pass
        (tmp_path / CALL).write_text('{"id": "newest", "job": {}}')
    assert len({older, newer, "newest"}) == 3
    assert read_call(tmp_path / CALL) == ("newest", {}), "an older claim that ends leaves a newer one's call"


def test_what_a_follower_cannot_read_is_told_once_and_does_not_end_it(tmp_path: Path) -> None:
    (tmp_path / CALL).mkdir()  # reading it is an OSError, as of a share that is away
    texts = ['{"id": "a", "job": {"config": {"distributed": {"machines": "many"}}}}', '{"id": "b", "job": {}}']
    told: list[str] = []

    def say(event: dict[str, Any]) -> None:
        told.append(event["message"])
        if (tmp_path / CALL).is_dir():
            (tmp_path / CALL).rmdir()
        if texts:
            (tmp_path / CALL).write_text(texts.pop(0))

    follow(tmp_path, {}, say, calls=2)
    assert [message.split(":")[0] for message in told] == ["IsADirectoryError", "ValidationError", "KeyError"]


def test_launchers_wait_timeout_s_for_each_other_and_meet_under_the_calls_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """As accelerate and torch read it, up to where they would start processes."""
    from accelerate.commands.launch import launch_command_parser
    from accelerate.utils.launch import _filter_args, prepare_multi_gpu_env
    from torch.distributed.run import config_from_args, get_args_parser

    two = TrainingSection.model_validate({"distributed": {"machines": 2, "timeout_s": 7.5}}).distributed
    monkeypatch.setenv("PET_RDZV_ID", "call-1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    given_args = [*launcher(two, Node(1, "trainer-0", 29512))[2:], "training.rank", "--job", "j"]
    args = launch_command_parser().parse_args(given_args)
    prepare_multi_gpu_env(args)
    config = config_from_args(_filter_args(args, get_args_parser(), ["--training_script", "training.rank"]))[0]
    assert (config.run_id, config.rdzv_endpoint) == ("call-1", "trainer-0:29512")
    assert (int(config.rdzv_configs["timeout"]), config.rdzv_configs["rank"]) == (8, 1)


def test_a_launcher_that_ends_without_a_word_names_the_machines_and_may_be_tried_again() -> None:
    three = TrainingSection.model_validate({"distributed": {"machines": 3, "timeout_s": 60}}).distributed
    error = lost_launcher(
        three, Node(0, "trainer-0", 29500), Path("rank.log"), "exit code 1; end of its log: timed out"
    )
    assert isinstance(error, WorkerLostError)
    assert "machine 0 of 3, meeting at trainer-0:29500" in str(error.where)
    assert "machine 1 and 2 (NODE_RANK)" in str(error.fix)
    alone = lost_launcher(TrainingSection().distributed, Node(), Path("rank.log"), "exit code 1")
    assert "NODE_RANK" not in str(alone.fix)


def test_a_flow_on_another_than_the_first_machine_is_refused(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NODE_RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "trainer-0")
    job = make_job(tiny_base, tmp_path, distributed={"machines": 2})
    with pytest.raises(ConfigError, match="on the first machine only"):
        run_training(job, tmp_path / "work", lambda event: None)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (("job", "0abc", 9), None),
        (("job", "unknown", 9), None),
        (("job", "v0.1.0", 9), None),  # there a commit, here a version: nobody knows whether they differ
        (("job", "0abc+dirty", 9), "rank 1 has another code"),
        (("else", "0abc", 8), "rank 1 has another job; rank 1 has another steps"),
    ],
)
def test_ranks_that_would_not_train_the_same_adapter_are_refused_on_all(
    other: tuple[str, str, int], found: str | None
) -> None:
    def check(ranks: Ranks) -> str | None:
        try:
            check_same_job(*(other if ranks.rank == 1 else ("job", "0abc", 9)), ranks)
        except TrainingError as error:
            return str(error.found).split("; here")[0]
        return None

    assert in_ranks(3, check) == [found] * 3


def test_ranks_compare_their_jobs_before_any_of_them_loads_a_base(tiny_base: Path, tmp_path: Path) -> None:
    said: list[str] = []

    def refused(ranks: Ranks) -> str:
        job = make_job(tiny_base, tmp_path / str(ranks.rank), init_seed=ranks.rank)
        job = {**job, "work_dir": str(tmp_path / "work"), "threads": 0}
        with pytest.raises(TrainingError) as caught:
            train(job, lambda event: said.append(event["text"]), threading.Event(), ranks)
        return str(caught.value)

    assert ["would not train the same adapter" in str(message) for message in in_ranks(2, refused)] == [True, True]
    assert said == []


def test_the_cores_are_divided_among_the_processes() -> None:
    assert (threads_each(8, 4), threads_each(2, 3), threads_each(0, 10_000)) == (2, 1, 1)
