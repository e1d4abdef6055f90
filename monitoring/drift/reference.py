"""The frozen reference: what people asked up to the champion's promotion, with their embeddings, named by its digest.

The reference is traffic, not training rows. A person counts at most a few times and the same text of the same person
once; the same text from two people stays two rows, because the shares of topics are shares of traffic.
"""

from __future__ import annotations

import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import InputError, NotFoundError
from configs.schema import DriftSection
from data_contracts.digests import digest
from monitoring.drift import local_share, mix, novelty
from monitoring.drift.local_share import LocalShareTest
from monitoring.drift.novelty import NoveltyTest, unit_hash

FORMAT = 1
HORIZON = 20_000
"""Length, in prompts, of the stationary streams that set the thresholds."""
RISK = 0.05
"""Share of such streams in which a sequential test may alarm."""


def fold(prompt: str) -> str:
    """A prompt without case and spacing: what counts as the same text."""
    return " ".join(prompt.casefold().split())


def select_prompts(rows: Sequence[tuple[str, str]], config: DriftSection) -> list[tuple[str, str]]:
    """The rows that make a reference, in their order.

    Args:
        rows: (principal, prompt), oldest first.
        config: `max_per_principal`, `reference_max` (the most recent are kept).
    """
    kept: list[tuple[str, str]] = []
    counts: dict[str, int] = {}
    seen: set[tuple[str, str]] = set()
    for principal, prompt in reversed(rows):
        key = (principal, fold(prompt))
        if not key[1] or key in seen or counts.get(principal, 0) >= config.max_per_principal:
            continue
        seen.add(key)
        counts[principal] = counts.get(principal, 0) + 1
        kept.append((principal, prompt))
        if len(kept) == config.reference_max:
            break
    return kept[::-1]


@dataclass(frozen=True)
class DriftReference:
    """Prompts, who asked, and their embeddings; rows sorted by content, so the order they came in does not matter."""

    prompts: tuple[str, ...]
    principals: tuple[str, ...]
    embeddings: np.ndarray
    """(n, d) float32, each row of length 1."""
    novelty: NoveltyTest
    local: LocalShareTest
    mix_null: np.ndarray
    """Ascending chi-squared values of stationary windows."""
    digest: str

    def __len__(self) -> int:
        return len(self.prompts)


def build_reference(rows: Sequence[tuple[str, str]], embeddings: np.ndarray, config: DriftSection) -> DriftReference:
    """A reference of selected rows.

    Args:
        rows: (principal, prompt), see `select_prompts`.
        embeddings: (len(rows), d), normalised to length 1.

    Raises:
        InputError: fewer rows than `reference_min`, or embeddings that do not fit.
    """
    if len(rows) < config.reference_min:
        raise InputError(
            "too few prompts for a drift reference",
            expected=f"at least {config.reference_min} (drift.reference_min)",
            found=len(rows),
            fix="wait for more traffic: until then drift is `warming` and raises no alarm",
        )
    vectors = check_embeddings(embeddings, len(rows))
    order = sorted(range(len(rows)), key=lambda i: (fold(rows[i][1]), rows[i][0]))
    vectors, principals = vectors[order], tuple(rows[i][0] for i in order)
    # Split by principal: one person's wording is never on both sides.
    held = np.array([unit_hash("calibration", p) < config.calibration_share for p in principals])
    if len(rows) - held.sum() < 50 or held.sum() < 50:
        raise InputError(
            "a drift reference cannot be split into two parts by people",
            expected="at least 50 prompts, of several people, on either side of drift.calibration_share",
            found=f"{len(rows) - held.sum()} and {held.sum()}",
        )
    frozen = {"calibration_share", "neighbours", "clusters", "window", "average_run_length"}
    settings = config.model_dump(include=frozen)
    name = digest({"format": FORMAT, "rows": [rows[i] for i in order], "settings": settings})
    seed = int(name[:12], 16)
    # Longer run lengths cost log(ratio) in the threshold: an e-CUSUM at c has run length >= c.
    horizon = int(min(config.average_run_length, HORIZON))
    extra = math.log(max(1.0, config.average_run_length / HORIZON))
    far = novelty.calibrate(vectors, principals, neighbours=config.neighbours, horizon=horizon, risk=RISK, seed=seed)
    grown = local_share.calibrate(
        vectors, principals, held, clusters=config.clusters, horizon=horizon, risk=RISK, seed=seed
    )
    return DriftReference(
        prompts=tuple(rows[i][1] for i in order),
        principals=principals,
        embeddings=vectors,
        novelty=replace(far, threshold=far.threshold + extra),
        local=replace(grown, threshold=grown.threshold + extra),
        mix_null=mix.null_statistics(grown.draws, config.window, seed),
        digest=name,
    )


def check_embeddings(embeddings: np.ndarray, rows: int) -> np.ndarray:
    """The embeddings as float32 rows of length 1.

    Raises:
        InputError: another number of rows, or a value that is not finite.
    """
    vectors = np.asarray(embeddings, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != rows or not np.isfinite(vectors).all():
        raise InputError(
            "embeddings do not fit the prompts", expected=f"({rows}, d) finite numbers", found=str(vectors.shape)
        )
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def forget(reference: DriftReference, principals: Collection[str], config: DriftSection) -> DriftReference:
    """The reference without some people's rows (erasure); `InputError` if too few are left."""
    keep = [i for i, p in enumerate(reference.principals) if p not in principals]
    rows = [(reference.principals[i], reference.prompts[i]) for i in keep]
    return build_reference(rows, reference.embeddings[keep], config)


def save_reference(reference: DriftReference, folder: Path) -> Path:
    """Write `<digest>.npz`, then `<digest>.json` (temporary name, fsync, rename); of a saved one only the time is new.

    Returns:
        The path of the JSON file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / f"{reference.digest}.json"
    if manifest.exists():
        for path in (manifest, manifest.with_suffix(".npz")):
            os.utime(path)  # in use again: retention goes by its age
        return manifest
    block = io.BytesIO()
    np.savez(
        block,
        embeddings=reference.embeddings,
        mix_null=reference.mix_null,
        **{f"novelty_{k}": v for k, v in vars(reference.novelty).items()},
        **{f"local_{k}": v for k, v in vars(reference.local).items()},
    )
    _publish(folder / f"{reference.digest}.npz", block.getvalue())
    facts = {"digest": reference.digest, "prompts": reference.prompts, "principals": reference.principals}
    _publish(manifest, json.dumps(facts, ensure_ascii=False).encode())
    return manifest


def delete_reference(name: str, folder: Path) -> None:
    """Remove a saved reference's two files, if they are there."""
    for suffix in (".json", ".npz"):
        (folder / f"{name}{suffix}").unlink(missing_ok=True)


def _publish(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_reference(folder: Path, name: str) -> DriftReference:
    """The saved reference of a digest.

    Raises:
        NotFoundError: there is none, or one of its two files is gone.
        InputError: a file cannot be read as what it is, or the two do not belong together.
    """
    path = folder / f"{name}.json"
    try:
        return _read(path, name)
    except FileNotFoundError:
        raise NotFoundError("no such drift reference", where=path, fix="it is rebuilt at the next watch run") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "a drift reference is damaged", where=path, fix="delete it: it is rebuilt at the next watch run"
        ) from error


def _read(path: Path, name: str) -> DriftReference:
    facts = json.loads(path.read_text(encoding="utf-8"))
    # Opened here: of a damaged file numpy would leave its handle open.
    with path.with_suffix(".npz").open("rb") as block, np.load(block, allow_pickle=False) as file:
        arrays = {key: file[key] for key in file.files}
    if not len(arrays["embeddings"]) == len(facts["prompts"]) == len(facts["principals"]) or facts["digest"] != name:
        raise ValueError("the two files of a drift reference do not belong together")

    def part(prefix: str) -> dict[str, Any]:
        found = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        return {k: float(v) if v.ndim == 0 else v for k, v in found.items()}

    return DriftReference(
        prompts=tuple(facts["prompts"]),
        principals=tuple(facts["principals"]),
        embeddings=arrays["embeddings"],
        novelty=NoveltyTest(**part("novelty_")),
        local=LocalShareTest(**part("local_")),
        mix_null=arrays["mix_null"],
        digest=name,
    )
