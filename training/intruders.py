"""An adapter with its intruder dimensions weakened: one more candidate that costs no training.

Intruder dimensions are singular vectors of W + s B A that are like no singular vector of W (Shuttleworth et al., "LoRA
vs Full Fine-tuning: An Illusion of Equivalence", arXiv 2410.21228); weakening the strongest of them brought back old
knowledge there. peft's `reduce_intruder_dimension` finds them among the first `top_k` of each layer, takes a part of
them out of the merged weight and writes what is left as new A and B of the same rank: plain LoRA again. Two things
its documentation does not say: the share that stays is `mitigation_lambda` (it takes out 1 - lambda, so .75 takes out
a quarter), and what is taken out may need more rank than the adapter has, so the new factors are an approximation.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from configs.errors import TrainingError
from data_contracts.records import AdapterRef
from models.jobs import Emit, serve_job
from training.card import derived_card
from training.lora_weights import LoraWeights, publish_lora, read_lora
from training.scales import inherited_facts

TOP_K = 10
THRESHOLD = 0.5
"""A direction whose largest |cosine| to a direction of the base is below this is an intruder."""
KEPT = 0.75
"""Share of an intruder that stays."""
_OLD, _NEW = "trained", "reduced"


def reduce_intruders(
    ref: AdapterRef,
    base_path: Path,
    adapters_root: Path,
    *,
    top_k: int = TOP_K,
    threshold: float = THRESHOLD,
    kept: float = KEPT,
) -> tuple[str, Path, int]:
    """Publish an adapter with its intruders weakened.

    Args:
        ref: the adapter.
        base_path: the base it was trained on; loaded in full precision.
        adapters_root: where adapters are.
        top_k: directions of each layer that are looked at, the strongest first.
        threshold: see `THRESHOLD`.
        kept: see `KEPT`; below 1.

    Returns:
        (digest, folder, number of intruders in all layers). With none it is the adapter itself.

    Raises:
        AdapterRejectedError: the adapter does not pass its checks.
    """
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.intruders import reduce_intruder_dimension

    from models.loading import attach, load_base

    parent = read_lora(ref)
    model = attach(load_base(base_path, device="cpu")[0], ref.model_copy(update={"version": _OLD}))
    counts: list[int] = []

    def count(line: str) -> None:
        _, found, number = line.rpartition("Intruders: ")
        counts.append(int(number) if found else 0)

    reduce_intruder_dimension(
        model,
        old_adapter_name=_OLD,
        new_adapter_name=_NEW,
        top_k=top_k,
        threshold_epsilon=threshold,
        mitigation_lambda=kept,
        logging_sink=count,
    )
    if not sum(counts):
        return ref.digest, Path(ref.path), 0
    modules = {n.removeprefix("base_model.model."): m for n, m in model.named_modules() if isinstance(m, LoraLayer)}
    layers = {
        name: (m.lora_A[_NEW].weight.detach().clone(), m.lora_B[_NEW].weight.detach().clone())
        for name, m in modules.items()
        if name in parent.layers
    }
    how = {"top_k": top_k, "threshold": threshold, "kept": kept, "found": sum(counts)}
    facts = {**inherited_facts(ref), "rank": parent.rank, "alpha": parent.config["lora_alpha"]}
    made = LoraWeights(parent.config, layers)
    derived = {"parents": [ref.digest], "intruders": how}
    card = derived_card(Path(ref.path), derived)
    return *publish_lora(made, adapters_root, {**facts, **derived}, card=card), sum(counts)


def serve(job: dict[str, Any], _emit: Emit, _stop: threading.Event) -> dict[str, Any]:
    """The job of `python -m training.intruders`: adapter, base_path, out_dir, threads.

    Raises:
        TrainingError: the job lacks a key.
    """
    from models.loading import set_threads

    try:
        ref, base, out = AdapterRef.model_validate(job["adapter"]), Path(job["base_path"]), Path(job["out_dir"])
    except KeyError as error:
        raise TrainingError("the job lacks a key", where="job", expected=error.args[0]) from error
    set_threads(int(job.get("threads") or 0))
    digest, path, found = reduce_intruders(ref, base, out)
    return {"digest": digest, "path": str(path), "found": found}


if __name__ == "__main__":
    sys.exit(serve_job(serve))
