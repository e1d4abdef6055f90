"""The processes that train one adapter together, as the loop sees them; alone, every exchange is a no-op.

Each rank does the backward of its share of a step, divided by the *whole* step's numbers, so the gradients summed over
ranks are the single process's. They are summed once a step, in one buffer, not by hooks during each backward as
torch's DistributedDataParallel does: ranks may then have different numbers of packs, or none; and it is little, for a
LoRA's gradients are a hundredth of the base's (7B, r 16: 160 MB, a few ms between the GPUs of one machine). With the
same sum on every rank, clipping, AdamW and weights stay the same on all, and only rank 0 needs to write them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from training.shares import deal, groups_of

S = TypeVar("S", bound=Sized)
T = TypeVar("T")


class Wire(Protocol):
    """What goes between ranks. Every rank calls the same methods in the same order, or all wait until the timeout."""

    def add(self, tensor: Any) -> None:
        """Replace `tensor` by its sum over all ranks."""

    def copy(self, tensor: Any) -> None:
        """Replace `tensor` by rank 0's."""

    def send(self, value: Any) -> Any:
        """Rank 0's `value`, on every rank."""


@dataclass(frozen=True)
class Ranks:
    """One rank among `count`.

    Attributes:
        rank: 0 prints, writes checkpoints and publishes.
        count: ranks on all machines.
        local: this rank's number on its machine.
        local_count: ranks on this machine.
        lockstep: every rank must run the same number of forward passes (FSDP).
        wire: None where there is only one.
        device: where what is exchanged must lie.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    local_count: int = 1
    lockstep: bool = False
    wire: Wire | None = None
    device: str = "cpu"

    @property
    def main(self) -> bool:
        """True for the one that writes."""
        return self.rank == 0

    def deal(self, kinds: Sequence[Sequence[Any]]) -> list[list[list[Any]]]:
        """For each kind of rows, everybody's shares; see `training.shares.deal`."""
        return deal(kinds, self.count)

    def groups(self, shares: Sequence[Sequence[S]], max_tokens: int) -> list[tuple[list[S], float]]:
        """This rank's packs of one kind; see `training.shares.groups_of`."""
        return groups_of(shares, self.rank, max_tokens, lockstep=self.lockstep)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over all ranks, in double precision."""
        if self.wire is None:
            return list(values)
        import torch

        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        self.wire.add(tensor)
        return list(map(float, tensor.tolist()))

    def any(self, flag: bool) -> bool:
        """True on every rank if it is on one: all do the same thing after the same step."""
        return flag if self.wire is None else self.sum([float(flag)])[0] > 0

    def wait(self) -> None:
        """Until all are here."""
        self.any(False)

    def from_main(self, make: Callable[[], T]) -> T:
        """What `make` gives on rank 0, which alone calls it."""
        if self.wire is None:
            return make()
        value: T = self.wire.send(make() if self.main else None)
        return value

    def copy(self, tensors: Sequence[Any]) -> None:
        """Replace tensors by rank 0's, in place."""
        if self.wire is not None:
            for tensor in tensors:
                self.wire.copy(tensor)

    def sum_gradients(self, parameters: Sequence[Any]) -> None:
        """Give every parameter the sum of its gradients over all ranks; a rank without a row adds zeros."""
        if self.wire is None:
            return
        import torch

        with torch.no_grad():
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in parameters])
            self.wire.add(flat)
            pieces = flat.split([p.numel() for p in parameters])
            for parameter, piece in zip(parameters, pieces, strict=True):
                parameter.grad = piece.view_as(parameter)


ALONE = Ranks()
