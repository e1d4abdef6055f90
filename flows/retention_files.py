"""Retention of files: working folders, reports, drift references nobody uses, caches; by their last touch or use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from flows.context import Context
from flows.files import write_text
from models.embedding_cache import forget_unused
from store import drift, requests

EMBEDDINGS = "embeddings.sqlite"
EVALUATION = "evaluation"


def tidy(context: Context, limits: Mapping[str, datetime], *, dry_run: bool = False) -> Iterator[tuple[str, int]]:
    """Delete old files, or count them; `(kind, number)` for the kinds of files that have a limit, each when it is done.

    A path that cannot be looked at or deleted stays, does not count, and does not keep the others from going.
    """
    kinds = {"run": _runs, "report": _reports, "reference": _references, "cache": _cache}
    for kind, work in kinds.items():
        if kind in limits:
            yield kind, work(context, limits[kind], dry_run)


def _runs(context: Context, before: datetime, dry_run: bool) -> int:
    """Working folders not touched since, but that of the open request."""
    with context.store.read() as conn:
        request = requests.current(conn, context.model)
    keep = request.id if request is not None else ""
    found = [path for path in _older(_within(context.state.runs), before) if _is_folder(path) and path.name != keep]
    for folder in found if not dry_run else ():
        shutil.rmtree(folder, ignore_errors=True)
    return len(found) if dry_run else sum(not folder.exists() for folder in found)


def _reports(context: Context, before: datetime, dry_run: bool) -> int:
    found = [path for path in _older(_within(context.state.reports), before) if path.suffix == ".html"]
    return len(_unlink(found, dry_run))


def _references(context: Context, before: datetime, dry_run: bool) -> int:
    """References that no model's monitor uses, and what a killed process left of one; counted by reference."""
    with context.store.read() as conn:
        used = {f"{digest}{suffix}" for digest in drift.references(conn).values() for suffix in (".json", ".npz")}
    found = [path for path in _older(_within(context.state.drift), before) if path.is_file() and path.name not in used]
    return len({path.name.lstrip(".").partition(".")[0] for path in _unlink(found, dry_run)})


def _cache(context: Context, before: datetime, dry_run: bool) -> int:
    """Embeddings and files by their last use, answers of evaluations by when they were given.

    While a retrain runs nothing goes: it counts on what it found there.
    """
    with context.store.read() as conn:
        request = requests.current(conn, context.model)
    if request is not None and request.status == "claimed":
        return 0
    folder = context.state.cache
    answers = sorted((folder / EVALUATION).glob("*.jsonl"))
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path not in answers]
    gone = forget_unused(folder / EMBEDDINGS, before, dry_run=dry_run)
    gone += len(_unlink(_older((path for path in files if not path.name.startswith(EMBEDDINGS)), before), dry_run))
    return gone + sum(_answers(path, before, dry_run) for path in answers)


def _answers(path: Path, before: datetime, dry_run: bool) -> int:
    """Lines from before; one that does not say when it was written (torn, or of an earlier version) is."""
    try:
        return _old_answers(path, before.timestamp(), dry_run)
    except OSError:
        return 0  # tolerated: gone since it was listed, or out of reach


def _old_answers(path: Path, limit: float, dry_run: bool) -> int:
    with path.open(encoding="utf-8", errors="replace") as handle:
        first = next((line for line in handle if line.strip()), "")
    if not first or _given_at(first) >= limit:
        return 0  # lines are appended: none is older than the first
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line.strip()]
    kept = [line for line in lines if _given_at(line) >= limit]
    if not dry_run and kept:
        write_text(path, "".join(line + "\n" for line in kept))
    elif not dry_run:
        path.unlink(missing_ok=True)
    return len(lines) - len(kept)


def _given_at(line: str) -> float:
    try:
        return float(json.loads(line)["at"])
    except (ValueError, KeyError, TypeError):
        return 0.0


def _within(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _older(paths: Iterable[Path], before: datetime) -> list[Path]:
    """Of a link its own time counts: it is what would go, and what it names may not be there."""
    found = []
    for path in paths:
        with suppress(OSError):  # gone since it was listed, or out of reach
            if path.lstat().st_mtime < before.timestamp():
                found.append(path)
    return found


def _unlink(paths: Iterable[Path], dry_run: bool) -> list[Path]:
    """Those that went, or would."""
    gone = []
    for path in paths:
        with suppress(OSError):  # the same; a folder of that name too
            if not dry_run:
                path.unlink()
            gone.append(path)
    return gone
