"""How many processes train one adapter together, and what each of them holds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class DistributedSection(BaseModel):
    """Processes that train together, started by `accelerate launch`; one process needs none of it.

    They decide how fast an adapter is trained, not which: no digest holds any of it, and a run may be taken up by
    another number of processes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    processes: Annotated[int, Field(ge=1)] = 1
    """On each machine: one a GPU. Where there is no GPU they share the cores, which gains nothing and is for tests."""
    machines: Annotated[int, Field(ge=1)] = 1
    """Machines, on one file system; each needs NODE_RANK and MASTER_ADDR in its environment (docs/training.md)."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """`ddp`: every device holds the whole base. `fsdp`: the base's weights are shared out among the devices and fetched
    layer by layer, for a base that does not fit one of them; slower."""
    timeout_s: Annotated[float, Field(gt=0.0)] = 600.0
    """How long a process waits for the others, at the start and in each exchange, before the run ends."""

    @property
    def together(self) -> int:
        """Processes of all machines."""
        return self.processes * self.machines

    @property
    def sharded(self) -> bool:
        """True if no device holds the whole base."""
        return self.strategy == "fsdp" and self.together > 1
