"""More adapters from those that are trained, without training: at other scales, and averaged ("soups").

At scale l an adapter adds l s B A to a weight: half the change at l = .5, nothing at 0, for plain LoRA exact by its
alpha alone. A soup adds the mean of several adapters' changes (Wortsman et al., "Model soups", arXiv 2203.05482, over
the weights that are merged). The mean of the A's times the mean of the B's is another matrix: it has every B with every
A. The mean of the products is exact with the ranks side by side,

    sum_i w_i s_i B_i A_i = [w_1 s_1 B_1 ... w_n s_n B_n] [A_1; ...; A_n],

and where that rank is too large, its best approximation in the Frobenius norm is the truncated singular value
decomposition (Eckart and Young, 1936), which QR of both factors gives without the dense matrix. (peft calls the two
`cat` and `svd` in `add_weighted_adapter`.)
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.errors import InputError
from configs.limits import MAX_RANK
from data_contracts.records import AdapterRef
from models.adapters import CONFIG, WEIGHTS, check_adapter, publish_adapter, read_manifest
from training.card import derived_card, soup_card, write_card
from training.lora_weights import LoraWeights, publish_lora, read_lora, refuse_patterns

SCALES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0)
_KEPT = frozenset(
    {
        "base_digest",
        "dataset_digest",
        "dataset_digests",
        "config_digest",
        "code_commit",
        "tokenizer_digest",
        "chat_template_digest",
        "privacy",  # what is made of a private adapter alone is as private as that
    }
)

_OF_ONE = frozenset({"dataset_digest", "config_digest", "privacy"})
"""Of these, what says nothing of several adapters together."""


def check_scale(scale: float) -> None:
    """Refuse a scale that is not above 0 and at most 1.

    Raises:
        InputError: as said.
    """
    if not 0 < scale <= 1:
        raise InputError("a scale of an adapter", where="scale", expected="above 0 and at most 1", found=scale)


def scaled(weights: LoraWeights, scale: float) -> LoraWeights:
    """The adapter at `scale` times its strength: alpha is scaled, no weight is touched.

    Raises:
        InputError: a scale that is not above 0 and at most 1.
    """
    check_scale(scale)
    return LoraWeights({**weights.config, "lora_alpha": weights.config["lora_alpha"] * scale}, weights.layers)


def _same_layers(adapters: Sequence[LoraWeights]) -> list[str]:
    layers = sorted(adapters[0].layers)
    for number, other in enumerate(adapters[1:], 2):
        if sorted(other.layers) != layers:
            raise InputError("adapters of a soup adapt the same layers", where=f"adapter {number}")
    return layers


def _normal(weights: Sequence[float] | None, count: int) -> list[float]:
    given = [1.0] * count if weights is None else list(weights)
    if count < 1 or len(given) != count or not all(w > 0 and math.isfinite(w) for w in given):
        raise InputError(
            "a soup takes at least one adapter and a weight above 0 for each", expected=f"{count} weights", found=given
        )
    return [w / sum(given) for w in given]


def _truncated(a: Any, b: Any, rank: int) -> tuple[Any, Any, float]:
    """The best rank-`rank` approximation of B A as new factors, and the share of its Frobenius norm that is lost.

    B = Q_b R_b and A^T = Q_a R_a, so B A = Q_b (R_b R_a^T) Q_a^T, and the small matrix in the middle is decomposed.
    """
    import torch
    import torch.nn.functional as F

    q_b, r_b = torch.linalg.qr(b)
    q_a, r_a = torch.linalg.qr(a.T)
    u, s, v = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    root = s[:rank].sqrt()
    lost = float(s[rank:].square().sum().sqrt() / s.square().sum().sqrt().clamp(min=1e-30))
    first, second = (q_a @ v[:rank].T * root).T, q_b @ u[:, :rank] * root
    missing = rank - len(root)  # a layer narrower than the rank: every layer has the same rank on disk
    return F.pad(first, (0, 0, 0, missing)), F.pad(second, (0, missing)), lost


def soup(
    adapters: Sequence[LoraWeights], weights: Sequence[float] | None = None, *, max_rank: int = MAX_RANK
) -> tuple[LoraWeights, float]:
    """The weighted mean of several adapters of one base.

    Args:
        adapters: with the same layers; ranks and scales may differ.
        weights: one for each, above 0; brought to a sum of 1; None is the plain mean.
        max_rank: ranks beyond it are cut off by singular values.

    Returns:
        (the adapter, largest share of a layer's Frobenius norm that was cut off; 0 where nothing was).

    Raises:
        InputError: no adapter, other layers, or weights that do not fit.
    """
    import torch

    shares = _normal(weights, len(adapters))
    rank = min(max_rank, sum(one.rank for one in adapters))
    layers: dict[str, tuple[Any, Any]] = {}
    worst = 0.0
    for name in _same_layers(adapters):
        # Double precision: the factors' product is what counts, and QR of nearly equal adapters is ill-conditioned.
        a = torch.cat([one.layers[name][0] for one in adapters]).double()
        b = torch.cat(
            [w * one.scaling * one.layers[name][1].double() for w, one in zip(shares, adapters, strict=True)], 1
        )
        if a.shape[0] > rank:
            a, b, lost = _truncated(a, b, rank)
            worst = max(worst, lost)
        layers[name] = (a.float(), b.float())
    config = {**adapters[0].config, "r": rank, "lora_alpha": float(rank), "use_rslora": False}
    return LoraWeights(config, layers), worst


def inherited_facts(ref: AdapterRef) -> dict[str, Any]:
    """What an adapter made from this one without training says of its origin, for its manifest."""
    manifest = read_manifest(Path(ref.path))
    return {key: value for key, value in manifest.items() if key in _KEPT}


def _datasets(facts: dict[str, Any]) -> list[str]:
    """Every snapshot that taught an adapter; of a soup of soups, those of all."""
    return [d for d in (facts.get("dataset_digest"), *facts.get("dataset_digests", ())) if d]


def _at(parent: AdapterRef, config: dict[str, Any], adapters_root: Path, scale: float) -> tuple[str, Path]:
    """One scaled adapter: the parent's weights (one file on disk where the file system can), another alpha."""
    source = Path(parent.path)
    alpha = config["lora_alpha"] * scale
    derived = {"parents": [parent.digest], "scale": scale}
    adapters_root.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".publishing-", dir=adapters_root))
    try:
        try:
            os.link(source / WEIGHTS, temporary / WEIGHTS)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source / WEIGHTS, temporary / WEIGHTS)
        text = json.dumps({**config, "lora_alpha": alpha}, indent=1, sort_keys=True)
        (temporary / CONFIG).write_text(text + "\n", encoding="utf-8")
        card = derived_card(source, derived)
        if card is not None:
            write_card(temporary, card)
        return publish_adapter(
            temporary, adapters_root, {**inherited_facts(parent), "rank": config["r"], "alpha": alpha, **derived}
        )
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def publish_scaled(
    ref: AdapterRef, adapters_root: Path, scales: Sequence[float] = SCALES
) -> dict[float, tuple[str, Path]]:
    """An adapter at several scales, each published under its own digest with its parent and scale in the manifest.

    Scale 1 is the parent itself. Only alpha differs, so the weights are not read, and need not be there twice.

    Raises:
        AdapterRejectedError: the parent does not pass its checks, or has an alpha for each layer.
        InputError: a scale that is not above 0 and at most 1.
    """
    config = check_adapter(ref, tensors=False)
    refuse_patterns(ref, config)
    for scale in scales:
        check_scale(scale)
    return {
        scale: (ref.digest, Path(ref.path)) if scale == 1 else _at(ref, config, adapters_root, scale)
        for scale in scales
    }


def publish_soup(
    refs: Sequence[AdapterRef], adapters_root: Path, weights: Sequence[float] | None = None, *, max_rank: int = MAX_RANK
) -> tuple[str, Path]:
    """The mean of several published adapters, published with its parents and weights in the manifest.

    Raises:
        AdapterRejectedError: an adapter does not pass its checks.
        InputError: adapters of different bases, or see `soup`.
    """
    bases = {ref.base_digest for ref in refs}
    if len(bases) > 1:
        raise InputError("adapters of a soup are of one base", expected="one base digest", found=sorted(bases))
    made, lost = soup([read_lora(ref) for ref in refs], weights, max_rank=max_rank)
    parts = [inherited_facts(ref) for ref in refs]
    facts = {key: value for key, value in parts[0].items() if key not in _OF_ONE}
    facts |= {"rank": made.rank, "alpha": made.config["lora_alpha"], "truncated": lost}
    # An erasure finds an adapter by the data that taught it: a soup was taught by all its parents' data.
    facts["dataset_digests"] = sorted({d for part in parts for d in _datasets(part)})
    parents = {"parents": [ref.digest for ref in refs], "weights": _normal(weights, len(refs))}
    derived = {**parents, "rank": made.rank, "truncated": lost}
    card = soup_card([Path(ref.path) for ref in refs], derived)
    return publish_lora(made, adapters_root, {**facts, **parents}, card=card)
