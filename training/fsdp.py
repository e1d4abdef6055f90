"""A base shared out among devices (FSDP2): each holds a part of every layer and fetches the rest while it computes it.

Only the frozen base is sharded. The adapter is whole on every rank, with its gradients and moments (16 bytes a weight:
640 MB for a 7B base at r 16, where the base has 14 GB), so nothing has to be gathered for a checkpoint or for
publishing, and gradients are summed as without FSDP. (Zhao et al., "PyTorch FSDP", arXiv 2304.11277.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from configs.errors import TrainingError
from training.ranks import Ranks


@contextmanager
def in_turn(ranks: Ranks) -> Iterator[None]:
    """The block is run by one rank of a machine after the other: its memory holds one whole base at a time."""
    for turn in range(ranks.local_count):
        if turn == ranks.local:
            yield
        ranks.wait()


def layers_of(model: Any) -> list[Any]:
    """The decoder layers of a transformers model: what is fetched, computed and let go together.

    Raises:
        TrainingError: the model does not name them.
    """
    names = set(getattr(model, "_no_split_modules", None) or ())
    found = [module for module in model.modules() if type(module).__name__ in names]
    if not found:
        raise TrainingError(
            "this base does not say what its layers are, so it cannot be sharded",
            where="training.distributed.strategy",
            expected="a transformers model with `_no_split_modules`",
            found=type(model).__name__,
            fix="set strategy: ddp",
        )
    return found


def shard_base(model: Any, device: str) -> Any:
    """Shard the base under a PeftModel over all ranks; the adapter's weights stay whole and move to `device`.

    Args:
        model: a PeftModel in host memory, the same on every rank.
        device: this rank's.

    Returns:
        The same PeftModel.
    """
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(torch.device(device).type, (torch.distributed.get_world_size(),))
    whole = {parameter for parameter in model.parameters() if parameter.requires_grad}
    base = model.get_base_model()
    for layer in layers_of(base):
        fully_shard(layer, mesh=mesh, ignored_params=whole)
    fully_shard(base, mesh=mesh, ignored_params=whole)  # embeddings, the last norm and the head
    for parameter in whole:
        parameter.data = parameter.data.to(device)
    return model
