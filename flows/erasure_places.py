"""The places outside the tables where a person's rows can be, and taking them out. Each function may run again.

Caches are cleaned by what may stay (answers to anchor items), not by what must go: nothing has to be recognised.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from configs.errors import InputError, NotFoundError, SnapshotError
from flows.context import Context
from flows.erasure_report import reduced_report
from flows.files import write_text
from store import drift, erasure, requests, snapshots, versions
from store.erasure import Erasure

KEPT_CACHES = ("evaluation", "replay")
"""`evaluation` is filtered; `replay` holds the base's answers to shipped prompts. Every other cache goes whole."""
_QUOTED = re.compile(rb'(?<=")([^"\\]{1,96})(?=")')
"""Whatever stands between two quotes, keys and commas too: a pattern that took the quotes could lose step."""
_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_BLOCK = 1 << 22


def _ids(context: Context, job: Erasure) -> tuple[set[str], set[str]]:
    """(ids of rows and incidents, all erased ids)."""
    with context.store.read() as conn:
        rows = {i for kind in ("row", "incident") for i in erasure.ids_of(conn, job.id, kind)}  # type: ignore[arg-type]
        return rows, rows | set(erasure.ids_of(conn, job.id, "request"))


def count(context: Context, where: dict[str, list[str]], name_matches: Callable[[str], bool]) -> dict[str, int]:
    """What of a person's rows is in files, for a dry run."""
    state = context.state
    return {
        "runs": sum((state.runs / name).is_dir() for name in where["retrains"]),
        "reports": sum((state.reports / f"{name}.html").is_file() for name in where["retrains"]),
        "snapshots": len(where["snapshots"]),
        "drift_references": sum(any(map(name_matches, _people(path))) for path in _references(context)),
        "tracking_runs": len(where["runs"]),
    }


# --- drift -------------------------------------------------------------------------------------------


def _references(context: Context) -> list[Path]:
    folder = context.state.drift
    return sorted(folder.glob("*.json")) if folder.is_dir() else []


def _people(path: Path) -> set[str]:
    try:
        return set(json.loads(path.read_text(encoding="utf-8"))["principals"])
    except (OSError, ValueError, KeyError):
        return set()  # not a reference, or one that was just rebuilt


def clean_drift(context: Context, matches: Callable[[str], bool]) -> dict[str, Any]:
    """References that hold their prompts: the one in use is rebuilt without them, under a new digest; others go."""
    rebuilt = dropped = 0
    with context.store.read() as conn:
        in_use = drift.references(conn)
    for path in _references(context):
        theirs = {name for name in _people(path) if matches(name)}
        if not theirs:
            continue
        for model in (model for model, digest in in_use.items() if digest == path.stem):
            if _rebuild(context, model, path.stem, theirs):
                rebuilt += 1
            else:
                dropped += 1
        path.unlink(missing_ok=True)
        path.with_suffix(".npz").unlink(missing_ok=True)
    return {"rebuilt": rebuilt, "dropped": dropped}


def _rebuild(context: Context, model: str, digest: str, theirs: set[str]) -> bool:
    """A reference without some people takes the old one's place; False if too few are left (then drift is warming)."""
    from monitoring.drift.reference import forget, load_reference, save_reference

    try:
        smaller = forget(load_reference(context.state.drift, digest), theirs, context.config.drift)
    except (InputError, NotFoundError):  # too few are left, or the old one is damaged
        with context.store.write() as conn:
            drift.forget_state(conn, model, digest)
        return False
    save_reference(smaller, context.state.drift)
    with context.store.write() as conn:
        drift.swap_reference(conn, model, digest, smaller.digest)
    return True


# --- working folders, caches, adapters ---------------------------------------------------------------


def clean_files(context: Context, job: Erasure) -> dict[str, Any]:
    """Working folders of the retrains that read their rows, answers to their items, adapters nobody may load."""
    ids, _ = _ids(context, job)
    if not ids:
        return {"files": 0, "cached_answers": 0, "adapters": 0}
    with context.store.read() as conn:
        open_ids = {r.id for m in job.places["models"] if (r := requests.current(conn, m)) is not None}
    gone = 0
    wanted = {ident.encode() for ident in ids} | {digest.encode() for digest in job.places["snapshots"]}
    for folder in _folders(context.state.runs):
        if folder.name in job.places["retrains"] and folder.name not in open_ids:
            gone += sum(path.is_file() for path in folder.rglob("*"))
            shutil.rmtree(folder, ignore_errors=True)
        else:
            gone += _clean_folder(folder, wanted)
    return {"files": gone, "cached_answers": _clean_caches(context), "adapters": _drop_adapters(context, job)}


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def _clean_folder(folder: Path, wanted: Collection[bytes]) -> int:
    """Remove the files of one retrain that mention an erased row or a snapshot that held one.

    Its pages of HTML go in any case: they show texts without quoted ids, and the JSON beside them has the figures.
    """
    gone = 0
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".html" and path.is_file():
            path.unlink(missing_ok=True)
            gone += 1
            continue
        if not path.is_file() or not mentions(path, wanted):
            continue
        if path.parent != folder:  # the job of a child process: its other files (logs, checkpoint) go with it
            gone += sum(other.is_file() for other in path.parent.rglob("*"))
            shutil.rmtree(path.parent, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
            gone += 1
    return gone


def mentions(path: Path, wanted: Collection[bytes]) -> bool:
    """True if a file of JSON holds one of these as a string, or a digest among them anywhere."""
    rest = b""
    try:
        with path.open("rb") as handle:
            while block := handle.read(_BLOCK):
                block = rest + block
                if any(m[1] in wanted for m in _QUOTED.finditer(block)):
                    return True
                if any(m[0] in wanted for m in _DIGEST.finditer(block)):
                    return True
                rest = block[-128:]
    except FileNotFoundError:
        return False
    return False


def _clean_caches(context: Context) -> int:
    """Drop every cached answer that is not to an anchor item, and every cache made of rows."""
    from evaluation.suites import item_digest
    from flows.suites import anchor_suites

    folder = context.state.cache
    for child in sorted(folder.iterdir()) if folder.is_dir() else []:
        if child.is_file():
            child.unlink(missing_ok=True)  # a database's log goes with it: it stands beside it
        elif child.name not in KEPT_CACHES:
            shutil.rmtree(child, ignore_errors=True)
    keep = {item_digest(item) for items in anchor_suites(context).values() for item in items}
    dropped = 0
    for path in sorted((folder / "evaluation").glob("*.jsonl")) if (folder / "evaluation").is_dir() else []:
        kept, lost = [], 0
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            if _item_of(line) in keep:
                kept.append(line)
            else:
                lost += bool(line.strip())
        if lost:
            write_text(path, "".join(line + "\n" for line in kept))
            dropped += lost
    return dropped


def _item_of(line: str) -> str:
    try:
        return str(json.loads(line)["item"])
    except (ValueError, KeyError, TypeError):
        return ""  # a torn line: it goes


def _drop_adapters(context: Context, job: Erasure) -> int:
    """Delete adapters trained on their rows that are no version: blocked candidates and left-over work."""
    dropped = 0
    for folder in _folders(context.state.adapters):
        try:
            facts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        taught_by = {facts.get("dataset_digest"), *facts.get("dataset_digests", ())}  # of a soup, several
        if not taught_by & set(job.places["teaching"]):
            continue
        with context.store.read() as conn:
            known = versions.by_digest(conn, folder.name)
        if known is None:
            shutil.rmtree(folder, ignore_errors=True)
            dropped += 1
    return dropped


# --- reports -----------------------------------------------------------------------------------------


def clean_reports(context: Context, job: Erasure) -> dict[str, Any]:
    """Write the reports of those retrains anew: the verdict and its figures stay, prompts and answers go."""
    written = 0
    for request_id in job.places["retrains"]:
        path = context.state.reports / f"{request_id}.html"
        if path.is_file():
            write_text(path, reduced_report(context, request_id))
            written += 1
    return {"rewritten": written}


def report_for_tracker(context: Context, request_id: str) -> Path:
    """The report to put in the place of the one the tracker keeps; the file's name is the one it has there."""
    path = context.state.reports / f"{request_id}.html"
    if not path.is_file():
        write_text(path, reduced_report(context, request_id))
    return path


# --- snapshots ---------------------------------------------------------------------------------------


def clean_snapshots(context: Context, job: Erasure) -> dict[str, Any]:
    """Tombstones in every snapshot on disk that holds their rows, recorded or not."""
    from data_contracts.snapshots import erase_rows, read_manifest

    with context.store.read() as conn:
        ids = erasure.snapshot_row_ids(conn, job.id)
    changed = rows = deleted = 0
    root = context.state.snapshots
    for folder in _folders(root) if ids else []:
        if folder.name.startswith("."):
            # Half a snapshot of a worker that read the rows before: it was refused, or it is dead.
            if folder.stat().st_mtime < job.requested_at.timestamp():
                shutil.rmtree(folder, ignore_errors=True)
            continue
        try:
            erased = erase_rows(folder, ids)
            record = read_manifest(folder)
        except SnapshotError:
            if folder.name in job.places["snapshots"]:
                shutil.rmtree(folder, ignore_errors=True)  # unreadable: nobody can say whose rows are in it
                deleted += 1
            continue
        rows += erased
        changed += erased > 0
        if record.erased:
            with context.store.write() as conn:
                snapshots.replace_record(conn, record)
    return {"snapshots": changed, "rows": rows, "deleted": deleted}


# --- exports -----------------------------------------------------------------------------------------


def count_exports(context: Context, ids: Collection[str]) -> tuple[int, list[str]]:
    """For a dry run: lines that would go from export files, and the exports that nobody could reach for them.

    A file that can be read and rewritten and holds none of their lines is neither.
    """
    with context.store.read() as conn:
        known = erasure.known_exports(conn)
    wanted = {ident.encode() for ident in ids}
    lines, by_hand = 0, []
    for name in known:
        path = Path(name)
        try:
            if path.is_file() and _has_ids(path):
                with path.open("rb") as handle:
                    theirs = sum(_names_any(line, wanted) for line in handle)
                if not theirs or os.access(path.parent, os.W_OK):
                    lines += theirs
                    continue
        except OSError:
            pass  # as below
        by_hand.append(name)
    return lines, by_hand


def clean_exports(context: Context, job: Erasure) -> dict[str, Any]:
    """Export files still where they were written: lines with their ids go.

    Others, and those that cannot be rewritten, are named for a person to clean.
    """
    _, ids = _ids(context, job)
    with context.store.read() as conn:
        known = erasure.known_exports(conn)
    lines, by_hand = 0, []
    for name in known:
        path = Path(name)
        try:
            if path.is_file() and _has_ids(path):
                lines += _rewrite_lines(path, {ident.encode() for ident in ids})
                continue
        except OSError:
            pass  # read-only, a full disk, a share that is away: one file must not stop an erasure
        by_hand.append(name)
    return {"lines": lines, "by_hand": by_hand}


def _has_ids(path: Path) -> bool:
    """True for our own JSON Lines, whose lines carry ids; other formats (chat, preference) hold texts only.

    An empty file holds nobody and counts as ours.
    """
    try:
        with path.open("rb") as handle:
            first = handle.readline()
            return not first or "interaction" in json.loads(first)
    except (OSError, ValueError, TypeError):
        return False


def _names_any(line: bytes, ids: Collection[bytes]) -> bool:
    return any(m[1] in ids for m in _QUOTED.finditer(line))


def _rewrite_lines(path: Path, ids: Collection[bytes]) -> int:
    lost = 0
    temporary = path.with_name(f".{path.name}.erasing")
    try:
        with path.open("rb") as source, temporary.open("wb") as target:
            for line in source:
                if _names_any(line, ids):
                    lost += 1
                else:
                    target.write(line)
        if lost:
            shutil.copymode(path, temporary)
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return lost


# --- the database's file -----------------------------------------------------------------------------


def scrub_database(context: Context, _job: Erasure) -> dict[str, Any]:
    """SQLite: the write-ahead log is emptied into the file, whose freed bytes are overwritten already.

    A file from before that was so is rewritten whole, once. PostgreSQL keeps dead rows until VACUUM (docs/erasure.md).
    """
    if context.store.dialect != "sqlite":
        return {"database": context.store.dialect, "rewritten": False}
    with context.store.read() as conn:
        rewrite = not erasure.is_scrubbed(conn)
    context.store.scrub(rewrite=rewrite)
    if rewrite:
        with context.store.write() as conn:
            erasure.set_scrubbed(conn)
        context.store.scrub(rewrite=False)
    return {"database": "sqlite", "rewritten": rewrite}
