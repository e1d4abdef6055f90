"""What `tidemill snapshot` shows: the snapshots of an installation, found by digest or path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.errors import InputError, NotFoundError, SnapshotError
from data_contracts.records import DatasetSnapshot
from data_contracts.snapshot_diff import SnapshotDiff
from data_contracts.snapshot_files import MANIFEST, read_manifest
from store import feedback, quarantine
from store.engine import Store


def list_snapshots(root: Path) -> list[DatasetSnapshot]:
    """All finished snapshots, newest first; a folder whose manifest cannot be read is left out."""
    found = []
    for manifest in root.glob(f"*/{MANIFEST}"):
        try:
            found.append(read_manifest(manifest.parent))
        except SnapshotError:
            continue  # `verify` says what is wrong with it
    return sorted(found, key=lambda record: (record.created_at, record.digest), reverse=True)


def find_snapshot(root: Path, name: str) -> Path:
    """The folder of a snapshot by its digest, the first digits of it, or its path.

    Raises:
        NotFoundError: none.
        InputError: the digits fit several.
    """
    if (Path(name) / MANIFEST).is_file():
        return Path(name)
    known = sorted(path.parent.name for path in root.glob(f"*/{MANIFEST}"))
    fitting = [digest for digest in known if name and digest.startswith(name)]
    if len(fitting) > 1 and name not in fitting:
        raise InputError("several snapshots begin like this", where=name, found=", ".join(d[:16] for d in fitting))
    if not fitting:
        raise NotFoundError(
            "no such snapshot",
            where=name,
            expected=f"the first digits of a digest in {root}, or a folder with {MANIFEST}",
            found=f"{len(known)} snapshots",
            fix="`tidemill snapshot list` shows them",
        )
    return root / (name if name in fitting else fitting[0])


def why_gone(store: Store, model: str) -> Callable[[str], str]:
    """What the store knows of a row a snapshot does not hold any more."""
    with store.read() as conn:
        held = {row.row_id: row for row in quarantine.list_rows(conn, model)}

    def why(row_id: str) -> str:
        row = held.get(row_id)
        if row is not None and row.status != "released":
            return f"quarantine: {row.reason}" if row.status == "held" else "dropped by a reviewer"
        with store.read() as conn:
            return "" if feedback.get(conn, row_id) is not None else "erased"

    return why


def list_rows(records: list[DatasetSnapshot]) -> list[dict[str, Any]]:
    """One line a snapshot."""
    return [
        {
            "snapshot": record.digest[:12],
            "created": record.created_at.isoformat(timespec="seconds"),
            "model": record.model,
            "rows": sum(record.counts.values()),
            "train": sum(n for kind, n in record.counts.items() if kind.startswith("train.")),
            "left out": sum(record.reasons.values()),
            "erased": record.erased,
            "contract": record.contract_digest[:12],
        }
        for record in records
    ]


def show_rows(record: DatasetSnapshot) -> list[dict[str, Any]]:
    """Two columns."""
    facts: dict[str, Any] = {
        "digest": record.digest,
        "path": record.path,
        "model": record.model,
        "created": record.created_at.isoformat(timespec="seconds"),
        "can train": "no, rows were erased" if record.erased else "yes",
        "contract": record.contract_digest,
        "config": record.config_digest,
        "base": record.base_digest,
        "watermark": record.watermark,
        "feedback rows": record.feedback_rows,
        "erased": record.erased,
    }
    for title, values in (
        ("source", record.sources), ("rows", record.counts), ("left out", record.reasons), ("replay", record.replay),
    ):  # fmt: skip
        facts |= {f"{title}: {name}": value for name, value in values.items()}
    return [{"what": name, "is": value} for name, value in facts.items()]


def diff_rows(diff: SnapshotDiff) -> list[dict[str, Any]]:
    """Three columns: what, in the first, in the second."""
    rows: list[dict[str, Any]] = [
        {"what": name, "a": one[:16], "b": two[:16]} for name, (one, two) in diff.facts.items()
    ]
    rows += [{"what": f"rows {name}", "a": "", "b": n} for name, n in diff.rows.items()]
    rows.append({"what": "rows unchanged", "a": diff.unchanged, "b": diff.unchanged})
    pairs = {
        **{f"count {k}": v for k, v in diff.counts.items()},
        **{f"left out: {k}": v for k, v in diff.left_out.items()},
    }
    pairs |= {f"slice {name!r}": pair for name, pair in list(diff.slices.items())[:20]}
    rows += [{"what": name, "a": one, "b": two} for name, (one, two) in pairs.items() if one != two]
    if any(diff.erased):
        rows.append({"what": "erased", "a": diff.erased[0], "b": diff.erased[1]})
    return rows
