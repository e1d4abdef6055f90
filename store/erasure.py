"""Erasures: the durable job, the ids that stay erased, and the versions that were taught by what was erased.

A person is known here by a keyed pseudonym only. Ids stay, so that nothing comes back under them: late feedback, a
repeated import, a worker that still holds old rows.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, Select, delete, func, select, update
from sqlalchemy.exc import IntegrityError

from configs.errors import ConflictError, NotFoundError
from data_contracts.ids import new_id
from data_contracts.records import utc_now
from store.rows import checked, chunks, insert_into, locked
from store.tables import counters, erased, exports, salts, snapshot_rows, tainted, versions
from store.tables import erasures as table

Kind = Literal["request", "row", "incident"]
INCIDENT_ROW = "incident:"
"""A snapshot's rows of an incident carry its id behind this."""


@dataclass(frozen=True)
class Erasure:
    """One erasure job.

    `places` holds ids of what files and servers are cleaned by (`retrains`, `snapshots`, `versions`, `runs`, `models`);
    `steps` what each finished step did, by name.
    """

    id: str
    pseudonym: str
    by: str
    reason: str
    open: bool
    requested_at: datetime
    deadline: datetime
    ended_at: datetime | None
    upto_seq: int
    places: dict[str, Any]
    steps: dict[str, dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "id": self.id,
            "pseudonym": self.pseudonym,
            "by": self.by,
            "state": "open" if self.open else "done",
            "requested_at": self.requested_at.isoformat(),
            "deadline": self.deadline.isoformat(),
            "ended_at": self.ended_at.isoformat() if self.ended_at else None,
            "versions": self.places.get("versions", []),
            "steps": self.steps,
        }


@dataclass(frozen=True)
class Taint:
    """A version that must go: taught by an erased row, served until `deadline` at the latest."""

    version: str
    deadline: datetime


def _to_record(row: Row[Any]) -> Erasure:
    return Erasure(**dict(row._mapping))


# --- the job ----------------------------------------------------------------------------------------


def create(
    conn: Connection, *, pseudonym: str, by: str, reason: str, deadline: datetime, upto_seq: int, places: dict[str, Any]
) -> Erasure:
    """Record a new erasure.

    Raises:
        ConflictError: the person has an open one.
    """
    job = Erasure(
        id=new_id(),
        pseudonym=pseudonym,
        by=by,
        reason=reason,
        open=True,
        requested_at=utc_now(),
        deadline=deadline,
        ended_at=None,
        upto_seq=upto_seq,
        places=places,
        steps={},
    )
    try:
        with conn.begin_nested():
            conn.execute(table.insert().values(checked(table, vars(job))))
    except IntegrityError:
        raise ConflictError(
            "An erasure of this person is open.", where=pseudonym, fix="run the command again: it goes on with that one"
        ) from None
    return job


def get(conn: Connection, id: str) -> Erasure | None:
    """One erasure, or None."""
    row = conn.execute(select(table).where(table.c.id == id)).one_or_none()
    return None if row is None else _to_record(row)


def of_person(conn: Connection, pseudonym: str) -> list[Erasure]:
    """A person's erasures, newest first."""
    query = select(table).where(table.c.pseudonym == pseudonym).order_by(table.c.requested_at.desc(), table.c.id.desc())
    return [_to_record(row) for row in conn.execute(query)]


def open_jobs(conn: Connection) -> list[Erasure]:
    """Erasures that are not finished, oldest first."""
    query = select(table).where(table.c.open).order_by(table.c.requested_at, table.c.id)
    return [_to_record(row) for row in conn.execute(query)]


def set_step(conn: Connection, id: str, name: str, facts: Mapping[str, Any]) -> Erasure:
    """Record that a step is done (again), with its counts.

    Raises:
        NotFoundError: no such erasure.
    """
    row = conn.execute(locked(conn, select(table).where(table.c.id == id))).one_or_none()
    if row is None:
        raise NotFoundError("There is no such erasure.", where="erasures", found=id)
    steps = {**row.steps, name: {"at": utc_now().isoformat(), **facts}}
    conn.execute(update(table).where(table.c.id == id).values(steps=steps))
    return _to_record(conn.execute(select(table).where(table.c.id == id)).one())


def add_places(conn: Connection, id: str, more: Mapping[str, Iterable[str]]) -> None:
    """Add ids to an erasure's `places`."""
    places = dict(conn.execute(locked(conn, select(table.c.places).where(table.c.id == id))).scalar_one())
    for key, ids in more.items():
        places[key] = sorted({*places.get(key, ()), *ids})
    conn.execute(update(table).where(table.c.id == id).values(places=places))


def finish(conn: Connection, id: str) -> None:
    """Close an erasure; closing it again changes nothing."""
    conn.execute(update(table).where(table.c.id == id, table.c.open).values(open=False, ended_at=utc_now()))


# --- ids that stay erased ---------------------------------------------------------------------------


def remember(conn: Connection, erasure: str, ids: Iterable[str], kind: Kind) -> None:
    """Keep ids as erased for good."""
    rows = [checked(erased, {"id": ident, "kind": kind, "erasure": erasure}) for ident in dict.fromkeys(ids)]
    if rows:
        conn.execute(insert_into(conn, erased).on_conflict_do_nothing(index_elements=["id"]), rows)


def erased_among(conn: Connection, ids: Iterable[str]) -> set[str]:
    """Those of `ids` that are erased."""
    found: set[str] = set()
    for part in chunks(ids):
        found.update(conn.execute(select(erased.c.id).where(erased.c.id.in_(part))).scalars())
    return found


def tombstone(conn: Connection, id: str) -> tuple[str, str] | None:
    """`(kind, erasure)` of an erased id, or None."""
    row = conn.execute(select(erased.c.kind, erased.c.erasure).where(erased.c.id == id)).one_or_none()
    return None if row is None else (row.kind, row.erasure)


def ids_of(conn: Connection, erasure: str, kind: Kind) -> list[str]:
    """The ids one erasure took."""
    query = select(erased.c.id).where(erased.c.erasure == erasure, erased.c.kind == kind).order_by(erased.c.id)
    return list(conn.execute(query).scalars())


def snapshot_row_ids(conn: Connection, erasure: str) -> set[str]:
    """The row ids one erasure takes out of snapshots: feedback, and the paraphrases of incidents."""
    rows = set(ids_of(conn, erasure, "row"))
    return rows | {INCIDENT_ROW + ident for ident in ids_of(conn, erasure, "incident")}


def erased_in_snapshot(conn: Connection, digest: str, split: str | None = None) -> int:
    """How many of a snapshot's rows are erased; with `split`, of that part only."""
    found = 0
    for query in _erased_rows(digest, split):
        found += int(conn.execute(select(func.count()).select_from(query.subquery())).scalar_one())
    return found


def _erased_rows(digest: str, split: str | None) -> list[Select[tuple[str]]]:
    """The erasure of each erased row of a snapshot: feedback by its id, paraphrases by their incident's."""
    by_incident = func.substr(snapshot_rows.c.row_id, len(INCIDENT_ROW) + 1)
    found = []
    for key, named in ((snapshot_rows.c.row_id, False), (by_incident, True)):
        query = select(erased.c.erasure).select_from(snapshot_rows).join(erased, erased.c.id == key)
        query = query.where(snapshot_rows.c.snapshot == digest)
        if named:
            query = query.where(snapshot_rows.c.row_id.like(f"{INCIDENT_ROW}%"))
        if split is not None:
            query = query.where(snapshot_rows.c.split == split)
        found.append(query)
    return found


# --- tainted versions -------------------------------------------------------------------------------


def taint(conn: Connection, names: Iterable[str], erasure: str, deadline: datetime) -> list[str]:
    """Mark versions; returns those that were not marked by this erasure before."""
    fresh = []
    known = set(conn.execute(select(tainted.c.version).where(tainted.c.erasure == erasure)).scalars())
    for name in dict.fromkeys(names):
        if name not in known:
            values = checked(tainted, {"version": name, "erasure": erasure, "at": utc_now(), "deadline": deadline})
            conn.execute(insert_into(conn, tainted).values(values).on_conflict_do_nothing())
            fresh.append(name)
    return fresh


def taint_of(conn: Connection, version: str) -> Taint | None:
    """A version's taint with its earliest deadline, or None."""
    deadline = conn.execute(select(func.min(tainted.c.deadline)).where(tainted.c.version == version)).scalar_one()
    return None if deadline is None else Taint(version, deadline)


def tainted_among(conn: Connection, names: Iterable[str]) -> set[str]:
    """Those of `names` that are tainted."""
    found: set[str] = set()
    for part in chunks(names):
        found.update(conn.execute(select(tainted.c.version).where(tainted.c.version.in_(part))).scalars())
    return found


def taught_by(conn: Connection, digests: Iterable[str]) -> list[str]:
    """Names of the versions trained on any of these snapshots."""
    found: list[str] = []
    for part in chunks(digests):
        found += conn.execute(select(versions.c.name).where(versions.c.dataset_digest.in_(part))).scalars()
    return sorted(set(found))


def taint_if_taught(conn: Connection, version: str, dataset_digest: str) -> bool:
    """Mark a version just recorded whose training rows hold erased ones: its worker was slower than the erasure."""
    jobs = {job for query in _erased_rows(dataset_digest, "train") for job in conn.execute(query.distinct()).scalars()}
    for row in conn.execute(select(table.c.id, table.c.deadline).where(table.c.id.in_(sorted(jobs)))):
        taint(conn, [version], row.id, row.deadline)
    return bool(jobs)


def taught_erased(
    conn: Connection, names: Iterable[str], adapters: Iterable[str], datasets: Iterable[str]
) -> list[str]:
    """Why something made of these would hold what was erased; empty where it would not.

    Args:
        names: versions.
        adapters: digests of adapters; versions of the same weights count under any name.
        datasets: digests of the snapshots that taught them.

    Returns:
        Sentences: tainted versions by name, then snapshots with erased training rows.
    """
    digests, known = list(datasets), set(names)
    for column, wanted in ((versions.c.adapter_digest, adapters), (versions.c.dataset_digest, digests)):
        for part in chunks(wanted):
            known.update(conn.execute(select(versions.c.name).where(column.in_(part))).scalars())
    why = [f"{name} is tainted by an erasure" for name in sorted(tainted_among(conn, known))]
    counts = {digest: erased_in_snapshot(conn, digest, "train") for digest in dict.fromkeys(digests)}
    return why + [f"{n} training row(s) of snapshot {digest[:12]} were erased" for digest, n in counts.items() if n]


# --- salts, exports, the SQLite file ----------------------------------------------------------------


def salt_of(conn: Connection, name: str) -> str:
    """The salt kept under a name, made at first use."""
    statement = insert_into(conn, salts).values(name=name, salt=secrets.token_hex(16))
    conn.execute(statement.on_conflict_do_nothing(index_elements=["name"]))
    return str(conn.execute(select(salts.c.salt).where(salts.c.name == name)).scalar_one())


def forget_salts(conn: Connection, names: Iterable[str]) -> int:
    """Delete salts; the digests made with them can no longer be tied to a text."""
    return sum(conn.execute(delete(salts).where(salts.c.name.in_(part))).rowcount for part in chunks(names))


def record_export(conn: Connection, model: str, path: str, lines: int) -> None:
    """Remember where rows were written to, so that an erasure can reach the file or name it."""
    fresh = {"model": model, "at": utc_now(), "lines": lines}
    statement = insert_into(conn, exports).values(checked(exports, {"path": path, **fresh}))
    conn.execute(statement.on_conflict_do_update(index_elements=["path"], set_=fresh))


def known_exports(conn: Connection) -> list[str]:
    """Paths that rows were exported to, oldest first."""
    return list(conn.execute(select(exports.c.path).order_by(exports.c.at, exports.c.path)).scalars())


def is_scrubbed(conn: Connection) -> bool:
    """False for a SQLite file from before deleted bytes were overwritten; it must be rewritten once."""
    return bool(conn.execute(select(counters.c.value).where(counters.c.name == "scrubbed")).scalar_one_or_none())


def set_scrubbed(conn: Connection) -> None:
    """The file was rewritten whole."""
    conn.execute(update(counters).where(counters.c.name == "scrubbed").values(value=1))


def newest(conn: Connection) -> str:
    """Id of the newest erasure; empty if there was none."""
    return conn.execute(select(func.max(table.c.id))).scalar_one() or ""
