"""What the trainer's own process uses of the machine while it trains."""

from __future__ import annotations

import time
from collections.abc import Callable

from training.memory import available_mb, used_mb


class Vitals:
    """Reads CPU, memory and GPU now and then.

    Args:
        device: the model's, `cpu` or `cuda`.
        every_s: seconds between two readings.
        clock: seconds that never go back.
    """

    def __init__(self, device: str, every_s: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        import psutil

        self._process, self._device, self._every_s, self._clock = psutil.Process(), device, every_s, clock
        self._next = clock()
        self._process.cpu_percent()  # the first call only starts the measurement

    def read(self) -> dict[str, float]:
        """`cpu_percent` since the last reading (100 is one core), `memory_mb` resident and `memory_free_mb` of the
        machine, on a GPU also `gpu_memory_mb` reserved and `gpu_memory_free_mb`; empty if it is too early.
        """
        if self._clock() < self._next:
            return {}
        self._next = self._clock() + self._every_s
        found = {
            "cpu_percent": self._process.cpu_percent(),
            "memory_mb": used_mb("cpu"),
            "memory_free_mb": available_mb("cpu"),
        }
        if self._device != "cpu":
            found |= {"gpu_memory_mb": used_mb(self._device), "gpu_memory_free_mb": available_mb(self._device)}
        return {name: round(value, 1) for name, value in found.items()}
