"""The in-memory double of `training.ranks.Wire`: every rank is a thread of this process."""

import copy
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from models.jobs import JobStopped
from training.ranks import Ranks

T = TypeVar("T")


class _Room:
    def __init__(self, count: int) -> None:
        self.slots: list[Any] = [None] * count
        self.barrier = threading.Barrier(count, timeout=60)

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.slots[rank] = value
        self.barrier.wait()
        found = list(self.slots)
        self.barrier.wait()
        return found


class ThreadWire:
    def __init__(self, room: _Room, rank: int) -> None:
        self.room, self.rank = room, rank

    def add(self, tensor: Any) -> None:
        parts = self.room.exchange(self.rank, tensor.clone())
        tensor.copy_(sum(parts[1:], parts[0].clone()))

    def copy(self, tensor: Any) -> None:
        tensor.copy_(self.room.exchange(self.rank, tensor.clone())[0])

    def send(self, value: Any) -> Any:
        return copy.deepcopy(self.room.exchange(self.rank, value)[0])


def in_ranks(count: int, work: Callable[[Ranks], T], *, lockstep: bool = False) -> list[T | BaseException]:
    """What `work` gives, or raises, on each of `count` ranks."""
    room = _Room(count)
    found: list[Any] = [None] * count

    def one(rank: int) -> None:
        wire = ThreadWire(room, rank)
        try:
            found[rank] = work(Ranks(rank, count, rank, count, lockstep=lockstep, wire=wire))
        except BaseException as error:
            found[rank] = error
            if not isinstance(error, JobStopped):  # that is agreed on: nobody waits any more
                room.barrier.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
