"""The tools of scorers, made from what a profile names; heavy ones are loaded when a scorer first uses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.schema import JudgeSection
from evaluation.judge import judge_for
from evaluation.scorers.base import Embed, Tools


def lazy_embedder(path: Path, threads: int = 0) -> Embed:
    """The embedding model in a folder, loaded at the first text."""
    loaded: list[Any] = []

    def embed(texts: Sequence[str]) -> Any:
        from models.embeddings import Embedder

        if not loaded:
            loaded.append(Embedder(path, threads=threads))
        return loaded[0].encode(texts)

    return embed


def make_tools(
    *, embedder: Path | None = None, judge: JudgeSection | None = None, cache_dir: Path | None = None
) -> Tools:
    """Tools of a profile.

    Args:
        embedder: folder of the embedding model.
        judge: the judge model's settings.
        cache_dir: where its verdicts are kept.
    """
    return Tools(embed=lazy_embedder(embedder) if embedder else None, judge=judge_for(judge, cache_dir))


def tools_of(job: Mapping[str, Any]) -> Tools:
    """Tools of a job of `evaluation.launch.evaluation_job`."""
    return make_tools(
        embedder=Path(job["embedder"]) if job.get("embedder") else None,
        judge=JudgeSection.model_validate(job["judge"]) if job.get("judge") else None,
        cache_dir=Path(job["cache_dir"]),
    )
