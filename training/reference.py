"""What the reference model gives to the answers of preferences and thumbs: asked once before training, and kept.

The reference does not change while the adapter trains, so each answer needs one forward pass over the whole run instead
of one an epoch, and a run that goes on after a kill finds the same numbers. The reference is the base (the model with
its adapter switched off) or the champion (a second adapter, frozen, that is gone again before training begins).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_contracts.records import AdapterRef
from models.jobs import JobStopped
from models.packing import TokenRow, bins, pack, token_nll
from training.data import Example, Pair, Rated
from training.faults import naming_memory, writing
from training.objectives import row_log_probabilities
from training.packing import pack_tokens
from training.ranks import ALONE, Ranks

FILE = "reference.safetensors"
TRAINED = "default"
"""Name of the adapter in training."""


def with_reference(
    model: Any,
    examples: Sequence[Example],
    champion: AdapterRef | None,
    *,
    base_digest: str,
    work_dir: Path,
    fingerprint: str,
    stopped: Callable[[], bool] = lambda: False,
    ranks: Ranks = ALONE,
) -> list[Example]:
    """The same examples, pairs and rated ones with the reference's log-probabilities.

    Args:
        model: a PeftModel whose adapter `default` is to be trained.
        examples: of the whole run, in order.
        champion: the reference's adapter; None is the base.
        base_digest: of the base.
        work_dir: where the numbers are kept.
        fingerprint: digest of everything that decides the run; numbers under another one are not used.
        stopped: asked after each pack.
        ranks: who asks together, each its share; the first keeps the numbers.

    Raises:
        AdapterRejectedError: the champion's files are not what they should be, or do not fit.
        TrainingError: the disk is full, or the device's memory.
        JobStopped: as asked.
    """
    asked = [two for one in examples for two in _both(one)]
    if not asked:
        return list(examples)
    values = ranks.from_main(lambda: _load(work_dir / FILE, fingerprint, len(asked)))
    if values is None:
        with naming_memory("asking the reference for the likelihood of answers"):
            values = _ask(model, asked, champion, base_digest, stopped, ranks)
        if ranks.main:
            _save(work_dir / FILE, fingerprint, values)
    numbers = iter(values)
    return [
        replace(one, reference=(next(numbers), next(numbers))) if isinstance(one, (Pair, Rated)) else one
        for one in examples
    ]


def remove(work_dir: Path) -> None:
    """Forget the numbers once the adapter is published."""
    (work_dir / FILE).unlink(missing_ok=True)


def _both(one: Example) -> tuple[TokenRow, ...]:
    if isinstance(one, Pair):
        return one.chosen, one.rejected
    return (one.row, one.other) if isinstance(one, Rated) else ()


def _ask(
    model: Any, rows: Sequence[TokenRow], champion: AdapterRef | None, base_digest: str,
    stopped: Callable[[], bool], ranks: Ranks,
) -> list[float]:  # fmt: skip
    from models.loading import load_adapter, unload_adapter, using_adapter

    if champion is None:
        with using_adapter(model, None):
            return _log_probabilities(model, rows, stopped, ranks)
    load_adapter(model, champion, base_digest=base_digest)
    try:
        with using_adapter(model, champion.version):
            return _log_probabilities(model, rows, stopped, ranks)
    finally:
        unload_adapter(model, champion.version)
        model.set_adapter(TRAINED)  # loading froze it


def _log_probabilities(model: Any, rows: Sequence[TokenRow], stopped: Callable[[], bool], ranks: Ranks) -> list[float]:
    import torch

    model.eval()
    found = [0.0] * len(rows)
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
    # Every so many-th of the sorted rows: the shares are about even, and all know how many packs the others have.
    shares = [order[rank :: ranks.count] for rank in range(ranks.count)]
    packs = [bins((len(rows[place]) for place in share), pack_tokens(model.device.type)) for share in shares]
    own = [[shares[ranks.rank][n] for n in group] for group in packs[ranks.rank]]
    for number in range(max(map(len, packs))):
        places = own[number] if number < len(own) else []
        if places or ranks.lockstep:  # in lockstep a rank that is done keeps the others company
            packed = pack([rows[place] for place in places or order[:1]], model.device)
            with torch.no_grad():
                values = row_log_probabilities(token_nll(model, packed), packed, len(places or [0])).tolist()
            for place, value in zip(places, values, strict=False):
                found[place] = value
        if ranks.any(stopped()):
            raise JobStopped
    return ranks.sum(found)


def _save(path: Path, fingerprint: str, values: Sequence[float]) -> None:
    import torch
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    tensors = {"log_probabilities": torch.tensor(values, dtype=torch.float64)}
    with writing(path, temporary):
        save_file(tensors, temporary, metadata={"fingerprint": fingerprint})
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)


def _load(path: Path, fingerprint: str, count: int) -> list[float] | None:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as saved:
            if (saved.metadata() or {}).get("fingerprint") != fingerprint:
                return None
            values: list[float] = saved.get_tensor("log_probabilities").tolist()
    except SafetensorError:
        return None  # damaged on disk (never half-written): the reference is asked again
    return values if len(values) == count else None
