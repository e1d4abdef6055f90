"""Push review items to Label Studio and pull its labels back, through a server or files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import ConflictError, InputError, NotFoundError, StaleTokenError, TidemillError
from data_contracts.records import Record, ReviewItem
from data_contracts.redaction import Redactor
from data_contracts.review.desk import Desk
from data_contracts.review.label_studio import Annotated, LabelStudio, page_config, parse_export, task_of
from store import audit, review_leases, reviews

BORROWER = "label-studio"
"""Holds the leases of pushed items."""


class PullReport(Record):
    """What became of the annotations."""

    recorded: int = 0
    repeated: int = 0
    """Recorded by an earlier pull."""
    refused: tuple[str, ...] = ()
    """One line each, without texts."""


@dataclass(frozen=True)
class Pushed:
    """Items lent to Label Studio, as tasks."""

    items: tuple[str, ...]
    tasks: tuple[dict[str, Any], ...]
    wanted: tuple[int, ...]
    """How many people each item asks for."""


def borrow(desk: Desk, limit: int) -> Pushed:
    """Lend up to `limit` items that wait to Label Studio, and mix gold among them at the configured share."""
    settings = desk.config.review
    with desk.store.write() as conn:
        taken: list[ReviewItem] = []
        while len(taken) < limit:
            lease = review_leases.lend(conn, desk.model, BORROWER, lease_s=settings.label_studio_lease_s)
            if lease is None:
                break
            taken.append(reviews.get(conn, lease.item))
        wanted = round(settings.gold_share * len(taken))
        golds = reviews.list_items(conn, desk.model, kinds=("gold",), statuses=("open",))
        mixed = sorted([*taken, *_some(golds, wanted, desk.key)], key=lambda item: _keyed(desk.key, item.id))
    told = desk.guidelines.kinds
    tasks = tuple(task_of(item, told[item.guideline]) for item in mixed)
    return Pushed(tuple(item.id for item in mixed), tasks, tuple(item.labels_wanted for item in mixed))


def _keyed(key: bytes, id: str) -> str:
    return Redactor(key).pseudonym(f"push {id}")


def _some(golds: Sequence[ReviewItem], wanted: int, key: bytes) -> list[ReviewItem]:
    return sorted(golds, key=lambda item: _keyed(key, item.id))[:wanted]


def _return(desk: Desk, items: Sequence[str]) -> None:
    with desk.store.write() as conn:
        review_leases.return_all(conn, items, BORROWER)


def _title(title: str, wanted: int) -> str:
    return title if wanted == 1 else f"{title}, {wanted} labels each"


def push(desk: Desk, studio: LabelStudio, title: str, by: str, *, limit: int) -> tuple[dict[str, int], Pushed]:
    """Push to a server; returns its projects (title -> id). If the server fails the items come back at once.

    A project asks all its tasks of the same number of people, so items that want two have a project of their own.
    """
    _check_name(by)
    pushed = borrow(desk, limit)
    projects: dict[str, int] = {}
    try:
        for wanted in sorted(set(pushed.wanted)):
            name = _title(title, wanted)
            known = studio.find(name)
            projects[name] = known if known is not None else studio.create(name, page_config(desk.guidelines), wanted)
            tasks = [task for task, n in zip(pushed.tasks, pushed.wanted, strict=True) if n == wanted]
            studio.import_tasks(projects[name], tasks)
    except BaseException:
        _return(desk, pushed.items)
        raise
    _note(desk, by, "review.pushed", f"projects {sorted(projects.values())}", {"items": len(pushed.items)})
    return projects, pushed


def tidy(desk: Desk, studio: LabelStudio, title: str, by: str) -> int:
    """Delete the tasks on the server whose items are done, withdrawn or erased here; returns how many.

    Text of an erased person may stand there: run this after `tidemill erase`.
    """
    _check_name(by)
    removed = 0
    for wanted in (1, 2):
        project = studio.find(_title(title, wanted))
        if project is None:
            continue
        there = studio.items(project)
        with desk.store.read() as conn:
            wanting = reviews.open_among(conn, set(there.values()))
        removed += studio.remove([task for task, item in there.items() if item not in wanting])
    _note(desk, by, "review.tidied", desk.model, {"tasks": removed})
    return removed


def exported(studio: LabelStudio, title: str) -> list[dict[str, Any]]:
    """All annotated tasks of the projects `push` made.

    Raises:
        NotFoundError: there are none.
    """
    projects = [studio.find(_title(title, wanted)) for wanted in (1, 2)]
    if not any(projects):
        raise NotFoundError("Label Studio has no such project", where="--project", found=title, fix="push first")
    return [task for project in projects if project is not None for task in studio.export(project)]


def push_file(desk: Desk, path: Path, by: str, *, limit: int) -> Pushed:
    """Write the tasks as JSON, and the labelling page beside it as `.xml`.

    Raises:
        InputError: the files cannot be written; nothing is lent then.
    """
    _check_name(by)
    pushed = borrow(desk, limit)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for target, content in (
            (path.with_suffix(".xml"), page_config(desk.guidelines)),
            (path, json.dumps(pushed.tasks, ensure_ascii=False, indent=1)),
        ):
            temporary = target.with_name(f".{target.name}.tmp")
            temporary.write_text(content, encoding="utf-8")
            temporary.replace(target)
    except OSError as error:
        _return(desk, pushed.items)
        raise InputError("the file cannot be written", where=path, found=error.strerror or error) from error
    _note(desk, by, "review.pushed", path.name[:120], {"items": len(pushed.items)})
    return pushed


def pull(desk: Desk, tasks: Sequence[Any], by: str, *, names: Mapping[int, str] | None = None) -> PullReport:
    """Record the annotations of an export; safe to repeat.

    Args:
        desk: whose queue.
        tasks: the tasks of a JSON export.
        by: who pulls, for the audit log.
        names: Label Studio user ids to labellers' names; the others become `label-studio:ID`.
    """
    _check_name(by)
    found, errors = parse_export(tasks)
    recorded = repeated = 0
    for one in sorted(found, key=lambda a: (a.item, a.user)):
        labeller = (names or {}).get(one.user, f"{BORROWER}:{one.user}")
        try:
            new = _record(desk, one, labeller)
        except TidemillError as error:
            # Tolerated: one annotation that comes too late or breaks a rule does not stop the others.
            errors.append(f"item {one.item[:32]}, user {one.user}: {error.message}")
            continue
        recorded += new
        repeated += not new
    report = PullReport(recorded=recorded, repeated=repeated, refused=tuple(errors))
    _note(desk, by, "review.pulled", desk.model, {"recorded": recorded, "refused": len(errors)})
    return report


def _record(desk: Desk, one: Annotated, labeller: str) -> bool:
    """Take the item over from Label Studio for this labeller, label it, and lend it again if it wants more labels."""
    settings = desk.config.review
    desk.check_labeller(labeller)
    with desk.store.write() as conn:
        reviews.in_line(conn)
        given = {label.labeller: label.answer for label in reviews.labels_of(conn, one.item)}
        token = ""
        if labeller not in given:
            lease = review_leases.take_over(conn, one.item, labeller, BORROWER, lease_s=settings.lease_s)
            if lease is None:
                raise _not_lent(reviews.get(conn, one.item))
            token = lease.token
        new = desk.record(conn, one.item, labeller, token, one.answer)
        item = reviews.get(conn, one.item)
        if new and item.kind != "gold" and item.status in reviews.LABELLING:
            review_leases.take_over(conn, one.item, BORROWER, BORROWER, lease_s=settings.label_studio_lease_s)
    return new


def _not_lent(item: ReviewItem) -> TidemillError:
    if item.status in ("done", "withdrawn", "adjudicate"):
        return ConflictError("The item is settled or waits for an adjudicator.", where=item.id, found=item.status)
    return StaleTokenError("Somebody else has this item, or it shows this person's own words.", where=item.id)


def _check_name(by: str) -> None:
    if not by.strip():
        raise InputError("a name is needed", where="--by", expected="text", found="blank")


def _note(desk: Desk, by: str, action: str, subject: str, detail: dict[str, Any]) -> None:
    with desk.store.write() as conn:
        audit.append(conn, Redactor(desk.key).pseudonym(by), action, subject, detail)
