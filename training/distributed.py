"""Joining the processes that `accelerate launch` started: NCCL between GPUs, gloo between CPUs.

The only module that talks to torch's process group; everything else sees `training.ranks.Ranks`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from configs.errors import ConfigError, TidemillError, WorkerLostError
from configs.schema import TrainingSection
from training.ranks import Ranks

_LOST = ("gloo", "nccl", "connection", "timed out", "timeout", "store", "socket")
"""What the message of an error says when another process does not answer."""


@dataclass(frozen=True)
class ProcessGroup:
    """`training.ranks.Wire` over torch's default process group."""

    def add(self, tensor: Any) -> None:
        """Replace `tensor` by its sum over all ranks."""
        import torch.distributed as dist

        dist.all_reduce(tensor)

    def copy(self, tensor: Any) -> None:
        """Replace `tensor` by rank 0's."""
        import torch.distributed as dist

        dist.broadcast(tensor, src=0)

    def send(self, value: Any) -> Any:
        """Rank 0's `value`, on every rank."""
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]


def _check_devices(device: str, local_count: int) -> None:
    import torch

    if device == "cuda" and torch.cuda.device_count() < local_count:
        raise ConfigError(
            "more processes than GPUs",
            where="training.distributed.processes",
            expected=f"at most {torch.cuda.device_count()}, one a GPU",
            found=local_count,
            fix="lower processes, or show this machine's processes more GPUs (CUDA_VISIBLE_DEVICES)",
        )


@contextmanager
def joined(config: TrainingSection) -> Iterator[Ranks]:
    """This process among those of its run; the group is left at the end of the block.

    The environment names the rank and the others, as torch's launcher sets it.

    Raises:
        ConfigError: more processes than GPUs.
        WorkerLostError: another process ended or did not answer in time.
    """
    import torch.distributed as dist
    from accelerate import PartialState

    from models.loading import pick_device

    device = pick_device(config.device)
    local_count = int(os.environ["LOCAL_WORLD_SIZE"])
    _check_devices(device, local_count)
    timeout = timedelta(seconds=config.distributed.timeout_s)
    try:
        with _naming_the_lost():
            state = PartialState(cpu=device == "cpu", timeout=timeout)
            yield Ranks(
                rank=state.process_index,
                count=state.num_processes,
                local=state.local_process_index,
                local_count=local_count,
                lockstep=config.distributed.strategy == "fsdp",
                wire=ProcessGroup(),
                device=str(state.device),
            )
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def _naming_the_lost() -> Iterator[None]:
    """Turn a broken exchange into one clear error. The one who broke it has told its own reason before."""
    import torch.distributed as dist

    try:
        yield
    except TidemillError:
        raise
    except RuntimeError as error:  # gloo raises plain ones
        if not isinstance(error, dist.DistError) and not any(word in str(error).lower() for word in _LOST):
            raise
        raise WorkerLostError(
            "another process of this training was lost",
            where=f"rank {os.environ.get('RANK')} of {os.environ.get('WORLD_SIZE')}",
            expected="an answer from every process",
            found=str(error).splitlines()[0],
            fix="run it again: it goes on from its checkpoint; the launcher's log says which process ended and how",
        ) from error
