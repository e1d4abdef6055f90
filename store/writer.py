"""Group commit: many gateway requests share one transaction, and each is acknowledged after its COMMIT."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import InterfaceError, OperationalError

from configs.errors import StoreError, TidemillError, UnavailableError
from data_contracts.records import Feedback, Interaction
from store import feedback, interactions
from store.engine import Store

log = logging.getLogger(__name__)
_RECONNECT_PAUSE_S = 0.2


@dataclass(eq=False)
class _Item:
    row: Interaction | tuple[str, Feedback]
    future: Future[Any] = field(default_factory=Future)


class GroupCommitWriter:
    """One thread that commits what was submitted since its last commit.

    A future resolves after COMMIT, never before. A batch that fails is tried again row by row, so one bad
    row fails alone. A future that was cancelled (its client went away) is written all the same.

    Args:
        store: where to write.
        delay_ms: how long the first row of a batch waits for companions.
        max_rows: most rows in one transaction.
    """

    def __init__(self, store: Store, delay_ms: int, max_rows: int) -> None:
        self._store = store
        self._delay_s = delay_ms / 1000
        self._max_rows = max(1, max_rows)
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="tidemill-writer", daemon=True)
        self._thread.start()

    def submit_interaction(self, row: Interaction) -> Future[None]:
        """Queue an interaction; the future resolves once it is durable.

        Raises (through the future):
            InputError: the row cannot be stored.
            StoreError: the store refused the write.
        """
        return self._submit(_Item(row))

    def submit_feedback(self, model: str, row: Feedback) -> Future[bool]:
        """Queue feedback; the future holds True if the id was new, False if it was stored before."""
        return self._submit(_Item((model, row)))

    def close(self) -> None:
        """Write what is queued, then stop. Later submissions are refused."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _submit(self, item: _Item) -> Future[Any]:
        with self._lock:
            if self._closed:
                raise UnavailableError("The store's writer is closed.", fix="try again when the gateway is up")
            self._queue.put(item)
        return item.future

    def _run(self) -> None:
        open_ = True
        while open_:
            batch, open_ = self._collect()
            if batch:
                self._write(batch)

    def _collect(self) -> tuple[list[_Item], bool]:
        """The next batch, and False once the end of the queue was reached."""
        first = self._queue.get()
        if first is None:
            return [], False
        batch = [first]
        deadline = time.monotonic() + self._delay_s
        while len(batch) < self._max_rows:
            try:
                item = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if item is None:
                return batch, False
            batch.append(item)
        return batch, True

    def _write(self, batch: list[_Item]) -> None:
        for last_try in (False, True):
            try:
                results = self._commit(batch)
            except (OperationalError, InterfaceError) as error:
                # Tolerated once: the database went away or was busy. No row is at fault, so they fail together.
                if last_try:
                    for item in batch:
                        _fail(item, error)
                    return
                time.sleep(_RECONNECT_PAUSE_S)
            except Exception as error:
                # Tolerated: some row cannot be stored; the others shall not suffer from it.
                if len(batch) == 1:
                    _fail(batch[0], error)
                else:
                    self._write_one_by_one(batch)
                return
            else:
                for item, result in zip(batch, results, strict=True):
                    _resolve(item, result)
                return

    def _write_one_by_one(self, batch: Sequence[_Item]) -> None:
        for item in batch:
            try:
                result = self._commit([item])[0]
            except Exception as error:  # tolerated: it is handed to the one who submitted the row
                _fail(item, error)
            else:
                _resolve(item, result)

    def _commit(self, batch: Sequence[_Item]) -> list[bool | None]:
        with self._store.write() as conn:
            return _apply(conn, batch)


def _apply(conn: Connection, batch: Sequence[_Item]) -> list[bool | None]:
    """Write a batch; one result per item: None for an interaction, whether it was new for feedback."""
    interactions.insert(conn, [item.row for item in batch if isinstance(item.row, Interaction)])
    new = feedback.insert_new(conn, [item.row for item in batch if not isinstance(item.row, Interaction)])
    results: list[bool | None] = []
    for item in batch:
        if isinstance(item.row, Interaction):
            results.append(None)
            continue
        ident = item.row[1].id
        results.append(ident in new)
        new.discard(ident)  # a second copy in the same batch is a duplicate
    return results


def _resolve(item: _Item, result: bool | None) -> None:
    if item.future.set_running_or_notify_cancel():
        item.future.set_result(result)


def _first_line(error: object) -> str:
    """PostgreSQL's messages quote the row in their later lines (DETAIL, CONTEXT); no log may hold a person's words."""
    return str(error).strip().partition("\n")[0]


def _fail(item: _Item, error: Exception) -> None:
    if not isinstance(error, TidemillError):
        wrapped = StoreError(
            "The store refused a row.",
            where=type(item.row).__name__ if isinstance(item.row, Interaction) else "Feedback",
            found=_first_line(getattr(error, "orig", error)) or type(error).__name__,
            fix="see `tidemill doctor`: disk space, permissions, database server",
        )
        wrapped.__cause__ = error
        error = wrapped
    log.error("A row was not written: %s", error)
    if item.future.set_running_or_notify_cancel():
        item.future.set_exception(error)
