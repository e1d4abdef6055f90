"""What a training step needs of a device, by formula: FLOP and bytes; and what this machine has and has used.

FLOP: 2 for each weight of a linear layer and token going forward and 2 going back to the inputs; the base's weights
are frozen, so only the adapter's have gradients (Kaplan et al., arXiv 2001.08361, without that third term).
Bytes: the tensors autograd keeps of a decoder layer (counted as in Korthikanti et al., arXiv 2205.05198, for frozen
weights and LoRA on all linear layers), and the copies of the logits at the peak.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.schema import TrainingSection
from models.row_attention import can_attend_by_row
from training.data import Example
from training.passes import Pass, kinds_of, step_passes
from training.shares import deal

MB = 1_000_000
RUNTIME_MB = {"cpu": 525.0, "cuda": 0.0}
"""Python with torch, transformers and peft, in the process's own memory; a GPU's allocator does not count it."""
HEAP = {"cpu": 2.0, "cuda": 1.1}
"""Memory the allocator holds for each byte alive at the peak: sequences of other lengths leave gaps. Measured (CPU)."""
QUANTISED_BYTES = {"nf4": 0.52, "int8": 1.01}
"""A weight of a quantised linear layer and its scales (NF4: 4 bits, an 8-bit scale for 64 weights; int8: a row's)."""
LOGIT_COPIES = {"learn": 3, "remind": 5, "look": 2}
"""Tensors of the logits' size that live at once: log-probabilities and two gradients; under KL also the base's."""


@dataclass(frozen=True)
class BaseShape:
    """The sizes of a base model that decide what training costs.

    Attributes:
        parameters: all weights.
        linear: (inputs, outputs) of each linear layer but the head.
        hidden: width of the residual stream.
        intermediate: width of the feed-forward block.
        layers: decoder layers.
        vocabulary: rows of the head.
        by_row: on a CPU it attends row by row, without a mask (`models.row_attention`).
    """

    parameters: int
    linear: tuple[tuple[int, int], ...]
    hidden: int
    intermediate: int
    layers: int
    vocabulary: int
    by_row: bool = False

    @property
    def linear_parameters(self) -> int:
        """Weights of the linear layers but the head."""
        return sum(a * b for a, b in self.linear)

    def trainable(self, rank: int) -> int:
        """Weights of a LoRA of this rank on all linear layers."""
        return rank * sum(a + b for a, b in self.linear)


@dataclass(frozen=True)
class Memory:
    """Peak memory of a device in MB (10^6 bytes), in parts."""

    runtime: float
    weights: float
    adapter: float
    """The adapter's weights, their gradients and AdamW's two moments, fp32."""
    activations: float
    logits: float
    mapped: float = 0.0
    """Pages of the base's file that were read to be quantised: counted as the process's, but the kernel takes them back
    when memory is short."""

    @property
    def needed(self) -> float:
        """What must be there."""
        return self.runtime + self.weights + self.adapter + self.activations + self.logits

    @property
    def total(self) -> float:
        """The peak as the system counts it."""
        return self.needed + self.mapped


def base_shape(path: Path) -> BaseShape:
    """The shape of a base model from its configuration; no weight is read.

    Raises:
        ModelUnavailableError: files that must not be loaded.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from models.files import check_model_files
    from models.quiet import quiet

    quiet()
    check_model_files(path)
    config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    head = model.get_output_embeddings()
    linear = tuple(
        (module.in_features, module.out_features)
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
    text = config.get_text_config()
    return BaseShape(
        parameters=sum(p.numel() for p in model.parameters()),
        linear=linear,
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        layers=text.num_hidden_layers,
        vocabulary=text.vocab_size,
        by_row=can_attend_by_row(model),
    )


def pass_flop(one: Pass, shape: BaseShape, config: TrainingSection) -> float:
    """FLOP of one packed sequence."""
    seen = sum(len(row) ** 2 for row in one.rows) / max(1, one.tokens) if shape.by_row else one.tokens
    forward = 2.0 * shape.linear_parameters + 4.0 * seen * shape.hidden * shape.layers
    adapter, head = 2.0 * shape.trainable(config.rank), 2.0 * shape.vocabulary * shape.hidden
    if one.kind == "look":
        return one.tokens * (forward + adapter) + one.logits * head
    again, base = float(config.gradient_checkpointing), float(one.kind == "remind")
    passes, adapter_passes, head_passes = 2.0 + base + again, 3.0 + again, 2.0 + base
    return one.tokens * (passes * forward + adapter_passes * adapter) + one.logits * head_passes * head


def passes_flop(passes: Iterable[Pass], shape: BaseShape, config: TrainingSection) -> float:
    """FLOP of several."""
    return sum(pass_flop(one, shape, config) for one in passes)


def step_flop(examples: Sequence[Example], shape: BaseShape, config: TrainingSection, device: str) -> float:
    """FLOP of all packed sequences of some rows of one optimiser step."""
    return passes_flop(step_passes(examples, config, device), shape, config)


def shares_of(examples: Sequence[Example], config: TrainingSection) -> list[list[Example]]:
    """What each process of the run gets of a step's rows; a single one gets all."""
    count = config.distributed.together
    if count == 1:
        return [list(examples)]
    dealt = deal(kinds_of(examples, config), count)
    return [[one for shares in dealt for one in shares[rank]] for rank in range(count)]


def slowest_flop(examples: Sequence[Example], shape: BaseShape, config: TrainingSection, device: str) -> float:
    """FLOP for which one device is busy in a step: the fullest share's, for all wait for it.

    Processes without a GPU share their machine's cores, which is then the device.
    """
    most = max(step_flop(share, shape, config, device) for share in shares_of(examples, config))
    return most * config.distributed.processes if device == "cpu" else most


def pass_bytes(one: Pass, shape: BaseShape, config: TrainingSection, device: str) -> tuple[float, float]:
    """(activations, logits) of one packed sequence at its peak, in bytes.

    Of a layer autograd keeps, for each token: the residual stream twice, two normed copies of it, queries, keys, values
    (repeated for all heads) and the attention's output and its contiguous copy (9 hidden), the gate, its activation,
    the up projection and their product (4 intermediate), and the low-rank inputs of every LoRA layer (rank each).
    Without attention by row every layer keeps the mask of a pack of several rows. With gradient checkpointing: the
    layer's input, and one layer's tensors while it is computed again. Forward only: one layer's tensors.
    """
    width = 4 if device == "cpu" else 2
    per_layer = (9.0 * shape.hidden + 4.0 * shape.intermediate) * width
    per_layer += 4.0 * config.rank * len(shape.linear) / max(1, shape.layers)
    if device != "cpu":  # peft casts the 16-bit input of each adapted layer to fp32
        per_layer += 4.0 * sum(a for a, _ in shape.linear) / max(1, shape.layers)
    kept = per_layer * shape.layers
    if one.kind == "look":
        kept = per_layer
    elif config.gradient_checkpointing:
        kept = shape.hidden * width * shape.layers + per_layer
    layers = 1 if one.kind == "look" else shape.layers
    masked = device == "cpu" and not shape.by_row and len(one.rows) > 1
    masks = 4.0 * one.tokens * one.tokens * layers if masked else 0.0
    logits = one.logits * shape.vocabulary * 4.0 * LOGIT_COPIES[one.kind]
    heap = HEAP.get(device, HEAP["cuda"])
    return heap * (one.tokens * kept + masks), heap * logits


def largest_pass(
    examples: Sequence[Example], shape: BaseShape, config: TrainingSection, device: str
) -> tuple[float, float]:
    """(activations, logits) of the largest packed sequence of some rows, in bytes."""
    found = [pass_bytes(one, shape, config, device) for one in step_passes(examples, config, device)]
    return max(found, key=sum, default=(0.0, 0.0))


def _weight_bytes(shape: BaseShape, config: TrainingSection, device: str) -> float:
    """The base's weights on one device."""
    full = 4.0 if device == "cpu" else 2.0
    other = shape.parameters - shape.linear_parameters
    if config.quantization != "none":
        # What is not quantised is cast to fp32, and a layer's weights are unpacked while it is computed.
        unpacked = max((a * b for a, b in shape.linear), default=0) * full
        return shape.linear_parameters * QUANTISED_BYTES[config.quantization] + other * 4.0 + unpacked
    if config.distributed.sharded:
        # A part of everything, embeddings and head, and two layers: the one computed and the one being fetched.
        layers = 2.0 * shape.linear_parameters / max(1, shape.layers)
        return (shape.parameters / config.distributed.together + other + layers) * full
    return shape.parameters * full


def memory(
    steps: Sequence[Sequence[Example]], shape: BaseShape, config: TrainingSection, device: str
) -> tuple[Memory, int]:
    """Peak memory of one process of a run, and the index of the step that holds the largest packed sequence."""
    largest, at = (0.0, 0.0), 0
    for index, rows in enumerate(steps):
        for share in shares_of(rows, config):
            found = largest_pass(share, shape, config, device)
            if sum(found) > sum(largest):
                largest, at = found, index
    summed = 4.0 if config.distributed.together > 1 else 0.0  # the buffer in which gradients are summed over processes
    parts = Memory(
        runtime=RUNTIME_MB.get(device, 0.0),
        weights=_weight_bytes(shape, config, device) / MB,
        adapter=shape.trainable(config.rank) * (16.0 + summed) / MB,
        activations=largest[0] / MB,
        logits=largest[1] / MB,
        mapped=shape.linear_parameters * 4.0 / MB if device == "cpu" and config.quantization != "none" else 0.0,
    )
    return parts, at


def peak_mb(device: str) -> float:
    """Most memory this process has held so far: resident on a CPU, reserved by torch's allocator on a GPU."""
    if device == "cpu":
        return _high_water() / MB
    import torch

    return float(torch.cuda.max_memory_reserved()) / MB


def _high_water() -> int:
    """Bytes. Linux counts in `ru_maxrss` what the parent held when it started this process, so its own mark is read."""
    with suppress(OSError, StopIteration, ValueError):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def used_mb(device: str) -> float:
    """Memory this process has now: resident on a CPU, reserved by torch's allocator on a GPU."""
    if device == "cpu":
        import psutil

        return float(psutil.Process().memory_info().rss) / MB
    import torch

    return float(torch.cuda.memory_reserved()) / MB


def available_mb(device: str) -> float:
    """Memory of a device that a new process could have now: the machine's or its container's, or the GPU's."""
    if device != "cpu":
        import torch

        return float(torch.cuda.mem_get_info()[0]) / MB
    import psutil

    return min(float(psutil.virtual_memory().available), _container_bytes(Path("/sys/fs/cgroup"))) / MB


def _container_bytes(folder: Path) -> float:
    """What is left under the limit of the container (cgroup v2), file cache counted as free; infinite without one."""
    try:
        limit = (folder / "memory.max").read_text().strip()
        if limit == "max":
            return float("inf")
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return float(int(limit) - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return float("inf")  # no cgroup v2 here
