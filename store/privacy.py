"""The privacy ledger: what each private run of a model took from its budget of epsilon. Append-only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from configs.errors import ConflictError
from data_contracts.records import PrivacyCharge
from store import audit
from store.rows import checked, chunks
from store.tables import feedback, incidents, interactions
from store.tables import privacy_charges as table


@dataclass(frozen=True)
class Voices:
    """Whose words a row is made of; empty where the store does not say.

    `asked_by` made the request, `said_by` gave the feedback on it.
    """

    asked_by: str
    said_by: str


def charges(conn: Connection, model: str) -> list[PrivacyCharge]:
    """A model's charges, oldest first."""
    query = select(table.c.record).where(table.c.model == model).order_by(table.c.number)
    return [PrivacyCharge.model_validate(record) for record in conn.execute(query).scalars()]


def append(conn: Connection, charge: PrivacyCharge, *, after: Sequence[str]) -> None:
    """Write a charge, and a line of the audit log with it.

    Args:
        conn: of the transaction that lets the run begin.
        charge: what is taken.
        after: ids of the charges that its total was counted from.

    Raises:
        ConflictError: there are others by now; count again.
    """
    # The log's counter is locked first, so that of two writers the second sees what the first wrote.
    spent = {"epsilon": charge.mechanism.epsilon, "delta": charge.mechanism.delta, "total": charge.total_epsilon}
    audit.append(conn, "train", "privacy.charged", charge.model, {"charge": charge.id, **spent})
    known = list(
        conn.execute(select(table.c.id).where(table.c.model == charge.model).order_by(table.c.number)).scalars()
    )
    if known != list(after):
        raise ConflictError(
            "The privacy ledger has grown since the budget was counted.",
            where=charge.model,
            expected=f"{len(after)} charges",
            found=f"{len(known)} charges",
            fix="count again",
        )
    number = (
        int(
            conn.execute(
                select(func.coalesce(func.max(table.c.number), 0)).where(table.c.model == charge.model)
            ).scalar_one()
        )
        + 1
    )
    values = {"id": charge.id, "model": charge.model, "number": number, "at": charge.at}
    conn.execute(table.insert().values(**checked(table, values), record=charge.model_dump(mode="json")))


def voices(conn: Connection, row_ids: Sequence[str]) -> dict[str, Voices]:
    """Whose words the rows of these feedback ids are made of; ids that the store does not know are left out."""
    found: dict[str, Voices] = {}
    both = (feedback.c.interaction_id == interactions.c.id) & (feedback.c.model == interactions.c.model)
    for part in chunks(row_ids):
        query = (
            select(feedback.c.id, feedback.c.principal, interactions.c.principal.label("asked_by"))
            .join_from(feedback, interactions, both, isouter=True)
            .where(feedback.c.id.in_(part))
        )
        for row in conn.execute(query):
            found[row.id] = Voices(row.asked_by or "", row.principal)
    return found


def incident_askers(conn: Connection, incident_ids: Sequence[str]) -> dict[str, str]:
    """Incident id -> who made the request it is about, empty where it is about none that is known."""
    found: dict[str, str] = {}
    for part in chunks(incident_ids):
        query = (
            select(incidents.c.id, interactions.c.principal)
            .join_from(incidents, interactions, incidents.c.interaction_id == interactions.c.id, isouter=True)
            .where(incidents.c.id.in_(part))
        )
        found.update({row.id: row.principal or "" for row in conn.execute(query)})
    return found
