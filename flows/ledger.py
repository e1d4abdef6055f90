"""The ledger of one retrain: what is proved done is never done again, a stale worker's write is refused.

Prefect's own state is not the truth (a killed run stays "Running"); these rows are. A claim gives a fencing token; a
thread renews its lease; every write carries the token.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from configs.errors import StaleTokenError, TidemillError
from data_contracts.digests import digest
from data_contracts.records import RetrainRequest
from store import requests, steps
from store.engine import Store

Output = dict[str, Any]


def owner_name() -> str:
    """Host and process: for people to read; the token decides."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Ledger:
    """A claimed retrain. Use as a context manager: the lease is renewed inside.

    Attributes:
        request: the request as claimed, with its token.
        redone: names of the steps done by this claim.
        skipped: names of the steps an earlier claim had proved done.
    """

    def __init__(self, store: Store, request: RetrainRequest, lease_s: float) -> None:
        self.store = store
        self.request = request
        self.lease_s = lease_s
        self.redone: list[str] = []
        self.skipped: list[str] = []
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)

    @classmethod
    def claim(cls, store: Store, request_id: str, lease_s: float) -> Ledger | None:
        """Claim by compare-and-set; None if another run has it or it is finished."""
        with store.write() as conn:
            request = requests.claim(conn, request_id, owner_name(), lease_s)
        return cls(store, request, lease_s) if request else None

    def __enter__(self) -> Ledger:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_renewing()

    def stop_renewing(self) -> None:
        """Leave the lease as it is from now on; before handing the retrain on, or a renewal would take it back."""
        self._stop.set()
        self._thread.join(timeout=self.lease_s)

    def _renew(self) -> None:
        while not self._stop.wait(self.lease_s / 4):
            try:
                with self.store.write() as conn:
                    requests.renew(conn, self.request.id, self.request.token, self.lease_s)
            except StaleTokenError:
                self._lost.set()
                return
            except Exception:  # noqa: S112 - tolerated: a busy or restarting database; the next renewal tries again
                continue

    def check(self) -> None:
        """Raise StaleTokenError if the lease was taken over; long steps call this as they go."""
        if self._lost.is_set():
            raise StaleTokenError(
                "this run's lease was taken over by another run",
                where=f"retrain {self.request.id}",
                found=f"token {self.request.token}",
                fix="nothing: the other run goes on from the last proved step",
            )

    def step(self, name: str, inputs: Mapping[str, Any], work: Callable[[], Output]) -> Output:
        """Do a step once.

        Args:
            name: the step's name.
            inputs: everything the output depends on; its digest decides whether an earlier output still stands.
            work: does the step and returns its output, a JSON-ready mapping of references and digests.

        Returns:
            The output, from this run or from the run that proved it.

        Raises:
            StaleTokenError: another run has taken over.
        """
        self.check()
        input_digest = digest(dict(inputs))
        with self.store.write() as conn:
            record = steps.begin(conn, self.request.id, name, input_digest, self.request.token)
        if record.status == "done" and record.output is not None:
            self.skipped.append(name)
            return record.output
        try:
            output = work()
        except StaleTokenError:
            raise
        except BaseException as error:
            self._record_failure(name, error)
            raise
        self.check()
        with self.store.write() as conn:
            steps.complete(conn, self.request.id, name, self.request.token, output)
        self.redone.append(name)
        return output

    def _record_failure(self, name: str, error: BaseException) -> None:
        text = str(error) if isinstance(error, TidemillError) else f"{type(error).__name__}: {error}"
        try:
            with self.store.write() as conn:
                steps.fail(conn, self.request.id, name, self.request.token, text[:2000])
        except StaleTokenError:
            return

    def finish(self, outcome: str, detail: str = "", *, failed: bool = False) -> None:
        """Close the request with its outcome."""
        with self.store.write() as conn:
            requests.finish(
                conn, self.request.id, self.request.token, "failed" if failed else "done", outcome, detail[:2000]
            )
