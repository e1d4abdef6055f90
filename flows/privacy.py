"""Paying for a private retrain: whose rows train, what that spends of the budget, and the ledger that says so.

The charge is written before the first step and names the run by everything that decides it, the key of its noise
included. A run that goes on after a kill finds its key and its charge and pays nothing; one whose work folder is gone
draws new noise, which is another look at the same people, and pays for it. What failed or was never used stays paid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from configs.deciding import deciding
from configs.errors import ConflictError, SnapshotError, TrainingError
from data_contracts.digests import digest
from data_contracts.records import PrivacyCharge, PrivacyMechanism, SnapshotRow, utc_now
from flows.context import Context
from flows.files import write_text
from flows.run import Run
from store import privacy as ledger
from store import requests
from store.erasure import INCIDENT_ROW
from store.privacy import Voices

_TRIES = 5
_DECIDING = ("base_digest", "config", "init_seed", "code_commit", "reference")
"""Parts of a training job that decide its outcome, beside the snapshot."""


def person_of(row: SnapshotRow, voices: Mapping[str, Voices], askers: Mapping[str, str]) -> str:
    """Whose a row is: of whoever asked, or where that is not known, of whoever gave the feedback.

    Somebody else's correction teaches only once a reviewer gave or released it: it is the house speaking about the
    asker's conversation. One person may then stand behind many people's rows, and is not the one who is protected. An
    incident is whose request it is about, or stands for itself.

    Raises:
        SnapshotError: the store does not know the row any more.
    """
    if row.row_id.startswith(INCIDENT_ROW):
        known = askers.get(row.row_id.removeprefix(INCIDENT_ROW))
        return f"person {known}" if known else row.row_id
    voice = voices.get(row.row_id)
    if voice is None:
        raise SnapshotError(
            "the store does not know any more whose row this is, so nobody's privacy can be kept",
            where=f"row {row.row_id or row.digest[:12]}",
            expected="its feedback in the store",
            found="none",
            fix="run the retrain again; it reads what is left",
        )
    return f"person {voice.asked_by or voice.said_by}"


def owners(context: Context, rows: Sequence[SnapshotRow]) -> tuple[list[int | None], int]:
    """For each row the number of its person, None for public ones, and how many people there are.

    Raises:
        SnapshotError: see `person_of`.
        TrainingError: nobody.
    """
    settings = context.config.training.privacy
    public = {"replay", "incident"} if settings and settings.incidents == "public" else {"replay"}
    private = [row for row in rows if row.source not in public]
    with context.store.read() as conn:
        voices = ledger.voices(conn, [row.row_id for row in private])
        askers = ledger.incident_askers(
            conn, sorted({r.row_id.removeprefix(INCIDENT_ROW) for r in private if r.source == "incident"})
        )
    numbers: dict[str, int] = {}
    found: list[int | None] = [None] * len(rows)
    for place, row in enumerate(rows):
        if row.source not in public:
            found[place] = numbers.setdefault(person_of(row, voices, askers), len(numbers))
    if not numbers:
        raise TrainingError(
            "there is nobody whose privacy to keep",
            where="training.privacy",
            expected="rows of people",
            found=f"{len(rows)} public rows",
            fix="train without `training.privacy`",
        )
    return found, len(numbers)


def planned(context: Context, rows: Sequence[SnapshotRow]) -> PrivacyMechanism | None:
    """The mechanism a new retrain on these rows would use, if the budget allows it; None without privacy.

    Raises:
        TrainingError: as for `paid`.
        PrivacyBudgetError: the retrain would be refused.
    """
    from training.privacy import check_budget, mechanism_for, require_opacus

    if context.config.training.privacy is None or not rows:
        return None
    require_opacus()
    mechanism = mechanism_for(owners(context, rows)[1], context.config.training)
    with context.store.read() as conn:
        spent = ledger.charges(conn, context.model)
    check_budget(spent, mechanism, context.config.training)
    return mechanism


def paid(run: Run, job: Mapping[str, Any]) -> dict[str, Any]:
    """Charge the budget for a training job; returns the job's private part, empty without privacy.

    Raises:
        TrainingError: opacus is not installed, or the settings protect nobody.
        PrivacyBudgetError: the budget does not allow this run; nothing is written.
        StaleTokenError: another run has taken over.
    """
    if run.context.config.training.privacy is None:
        return {}
    from data_contracts.snapshots import read_rows
    from training.noise import run_key
    from training.privacy import mechanism_for, require_opacus
    from training.private_job import KEY, OWNERS

    require_opacus()
    found, people = owners(run.context, read_rows(run.snapshot.path, split="train"))
    mechanism = mechanism_for(people, run.context.config.training)
    folder = run.work_dir / "training"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / OWNERS, f"{found}\n".replace("None", "null"))
    settled = {name: job.get(name) for name in _DECIDING}
    settled["config"] = deciding(run.context.config.training)
    run_is = {"snapshot": run.snapshot.digest, "owners": found, "mechanism": mechanism.model_dump(mode="json")}
    charge = digest({**settled, **run_is, "key": digest(run_key(folder / KEY).hex())})
    _charge(run, charge, mechanism)
    return {
        "privacy": {
            "charge": charge,
            "mechanism": mechanism.model_dump(mode="json"),
            "owners": str(folder / OWNERS),
            "key": str(folder / KEY),
        }
    }


def _charge(run: Run, ident: str, mechanism: PrivacyMechanism) -> None:
    from training.privacy import check_budget

    context = run.context
    for _ in range(_TRIES):
        with context.store.read() as conn:
            spent = ledger.charges(conn, context.model)
        if any(charge.id == ident for charge in spent):
            run.observer.log("This run's privacy is paid for already: it goes on with the same noise.")
            return
        # Counting takes seconds, in which no other writer should wait; the ledger must be the same afterwards.
        total, delta = check_budget(spent, mechanism, context.config.training)
        charge = PrivacyCharge(
            id=ident, model=context.model, request_id=run.request_id, snapshot=run.snapshot.digest, mechanism=mechanism,
            total_epsilon=total, total_delta=delta, at=utc_now(),
        )  # fmt: skip
        try:
            with context.store.write() as conn:
                requests.check_token(conn, run.request_id, run.ledger.request.token)
                ledger.append(conn, charge, after=[one.id for one in spent])
        except ConflictError:
            continue
        run.observer.log(
            f"Privacy: {mechanism.people} people, noise {mechanism.noise_multiplier:.3g}, epsilon "
            f"{mechanism.epsilon:.3g} at delta {mechanism.delta:.2g}; {total:.4g} spent by all retrains."
        )
        return
    raise ConflictError("the privacy ledger is being written by others", where=context.model, fix="try again")


def forget_key(run: Run) -> None:
    """Delete what would let somebody repeat the noise, once the adapter is proved done."""
    from training.private_job import KEY, OWNERS

    for name in (KEY, OWNERS):
        (run.work_dir / "training" / name).unlink(missing_ok=True)
