"""Aliases follow the serving pointer: what the pointer's transaction left in the outbox is told to the registry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from configs.errors import NotFoundError, RegistryError
from registry_hooks.registry import Registry
from store import audit, outbox
from store.engine import Store

KIND = "alias"


def deliver_aliases(store: Store, registry: Registry) -> int:
    """Set every alias that waits to its newest value; the older ones for the same alias are settled with it.

    A message is `{model, alias, version}` (`number` is accepted for `version`; null removes the alias). Setting an
    alias twice does no harm, so a crash between the call and the mark is no fault.

    Returns:
        number of aliases set.

    Raises:
        RegistryError: the registry does not answer; everything not delivered stays.
    """
    waiting: dict[tuple[str, str], list[outbox.OutboxRow]] = defaultdict(list)
    with store.read() as conn:
        # All of them: were an older message left for later, it would undo a newer one.
        for row in outbox.pending(conn, kind=KIND, limit=1_000_000):
            waiting[str(row.payload.get("model")), str(row.payload.get("alias"))].append(row)
    done = 0
    for (model, alias), rows in waiting.items():
        payload = rows[-1].payload
        number = payload.get("version", payload.get("number"))
        try:
            registry.set_alias(model, alias, None if number is None else int(number))
        except NotFoundError as error:
            # A version somebody deleted will not come back: settle it, and say so on the record.
            _settle(store, rows, str(error))
            continue
        except RegistryError as error:
            with store.write() as conn:
                for row in rows:
                    outbox.failed(conn, row.id, str(error))
            raise
        _settle(store, rows)
        done += 1
    return done


def _settle(store: Store, rows: list[outbox.OutboxRow], error: str = "") -> None:
    with store.write() as conn:
        for row in rows:
            outbox.delivered(conn, row.id)
        if error:
            audit.append(conn, "registry", f"{rows[-1].kind}.skipped", rows[-1].key[:160], {"error": error[:500]})


def deliver_tags(store: Store, registry: Registry) -> int:
    """Set every version tag that waits: `{model, number, key, value}`. Setting one twice does no harm.

    Raises:
        RegistryError: the registry does not answer; everything not delivered stays.
    """

    def tell(payload: dict[str, str]) -> None:
        registry.tag_version(payload["model"], int(payload["number"]), payload["key"], payload["value"])

    return _deliver(store, "tag", tell)


def deliver_reports(store: Store, registry: Registry, report: Callable[[str], Path]) -> int:
    """Put rewritten reports in the place of the tracker's: `{run_id, request_id}`.

    Args:
        store: where the messages wait.
        registry: keeps the runs.
        report: the file of a retrain, by its request's id.

    Raises:
        RegistryError: the registry does not answer; everything not delivered stays.
    """

    def tell(payload: dict[str, str]) -> None:
        registry.open_run(payload["run_id"]).replace_artifact(report(payload["request_id"]))

    return _deliver(store, "report", tell)


def _deliver(store: Store, kind: str, tell: Callable[[dict[str, str]], None]) -> int:
    with store.read() as conn:
        waiting = outbox.pending(conn, kind=kind, limit=1_000_000)
    for row in waiting:
        try:
            tell({key: str(value) for key, value in row.payload.items()})
        except NotFoundError as error:
            # What somebody deleted there holds nothing any more.
            _settle(store, [row], str(error))
        except RegistryError as error:
            with store.write() as conn:
                outbox.failed(conn, row.id, str(error))
            raise
        else:
            _settle(store, [row])
    return len(waiting)
