"""Follows the serving pointer: loads what it names, then switches; requests in flight stay on the arm they began on.

Three threads, so that none waits for another: one reads the pointer every `pointer_poll_s`, one loads adapters, one
writes the heartbeat (which may wait for the store's write lock). A pointer is followed only once everything it names is
loaded; a canary that was taken back is dropped at once, whatever else is still loading.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import store.gateways
import store.pointer
import store.rollouts
import store.versions
from configs.errors import AdapterRejectedError, NotFoundError, UnavailableError
from configs.schema import ServingSection
from data_contracts.ids import new_id
from data_contracts.records import BASE_VERSION, AdapterRef, Arm, RoutePointer
from serving.engines.base import Engine
from serving.http_errors import unexpected
from serving.routing import choose, without_canary
from store.engine import Store

logger = logging.getLogger(__name__)
HEARTBEAT_S = 1.0
PINNED = "pinned"
_TRIES_BEFORE_ERROR = 3
_REJECTED_RETRY_S = 30.0


@dataclass(frozen=True)
class Route:
    """What one request runs on; recorded with it."""

    version: str
    arm: str
    share: float
    revision: int
    rollout_id: str | None


@dataclass
class _Failure:
    message: str
    tries: int
    retry_at: float
    certain: bool
    """True if trying again would not help (the adapter was rejected), or enough tries failed."""


class Router:
    """One gateway process' view of the pointer.

    Args:
        engine: loads and unloads adapters.
        store: where the pointer is.
        model: the product model's name.
        settings: poll interval, most adapters.
    """

    def __init__(self, engine: Engine, store_: Store, model: str, settings: ServingSection) -> None:
        self.id = new_id()
        self._engine = engine
        self._store = store_
        self._model = model
        self._settings = settings
        self._pointer: RoutePointer | None = None
        self._lock = threading.Lock()
        self._held: dict[str, int] = {}
        self._used: dict[str, float] = {}
        self._loading: dict[str, Future[None]] = {}
        self._failures: dict[str, _Failure] = {}
        self._needed: frozenset[str] = frozenset()
        self._stop = threading.Event()
        self._changed = threading.Event()
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="adapter-loader")
        self._threads = [
            threading.Thread(target=self._poll_loop, name="router", daemon=True),
            threading.Thread(target=self._heartbeat_loop, name="heartbeat", daemon=True),
        ]

    def start(self) -> None:
        """Begin to follow the pointer."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop, and say so in the store."""
        self._stop.set()
        self._changed.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=10)
        self._loader.shutdown(wait=False, cancel_futures=True)
        # A store that is gone cannot be told; the heartbeat runs out by itself.
        with contextlib.suppress(Exception), self._store.write() as conn:
            store.gateways.remove(conn, self.id)

    @property
    def pointer(self) -> RoutePointer | None:
        """The pointer that is followed now; None until its first one is loaded."""
        return self._pointer

    @property
    def error(self) -> str:
        """Why something that is needed cannot be loaded; `version: reason`, several joined by ` ; `."""
        with self._lock:
            return " ; ".join(f"{v}: {f.message}" for v, f in sorted(self._failures.items()) if f.certain)

    @property
    def in_flight(self) -> int:
        """Requests being answered."""
        with self._lock:
            return sum(self._held.values())

    @contextlib.contextmanager
    def route(self, principal: str) -> Iterator[Route]:
        """The principal's route; its version stays loaded while the block runs.

        Raises:
            UnavailableError: no pointer is followed yet.
        """
        with self._lock:
            pointer = self._pointer
            if pointer is None:
                raise UnavailableError("the gateway is loading its model", fix="see GET /health")
            chosen = choose(pointer, principal)
            self._hold(chosen.arm.version)
        try:
            yield Route(chosen.arm.version, chosen.name, chosen.share, pointer.revision, pointer.rollout_id)
        finally:
            self._release(chosen.arm.version)

    @contextlib.contextmanager
    def pinned(self, version: str) -> Iterator[Route]:
        """A route to one version, outside every rollout; the version must be loaded (see `ensure`).

        Raises:
            UnavailableError: it is not loaded any more.
        """
        with self._lock:
            if version not in self._engine.loaded():
                raise UnavailableError("the version was unloaded meanwhile", where=version)
            self._hold(version)
            revision = self._pointer.revision if self._pointer else 0
        try:
            yield Route(version, PINNED, 1.0, revision, None)
        finally:
            self._release(version)

    def ensure(self, version: str) -> None:
        """Load a registered version if it is not loaded. Blocks.

        Raises:
            NotFoundError: no such version of this model.
            AdapterRejectedError: its adapter does not pass the checks.
        """
        if version in self._engine.loaded():
            return
        with self._store.read() as conn:
            ref = store.versions.adapter_ref(conn, version)
        if ref is None:
            raise NotFoundError("no such version", where="model", found=version)
        self._load(ref).result()

    def poll(self) -> None:
        """Read the pointer once; load what is missing, switch when all is there."""
        with self._store.read() as conn:
            pointer = store.pointer.get(conn, self._model)
            rollout = store.rollouts.current(conn, self._model)
        arms = [pointer.champion, pointer.canary, rollout.candidate if rollout else None]
        needed = [arm for arm in arms if arm is not None]
        self._needed = frozenset(arm.version for arm in needed)
        for arm in needed:
            if arm.adapter is not None:
                self._load_soon(arm.adapter)
        with self._lock:
            for version in [v for v in self._failures if v not in self._needed]:
                del self._failures[version]
        self._switch(pointer)
        self._make_room()

    def _switch(self, pointer: RoutePointer) -> None:
        current = self._pointer
        if current is not None and current == pointer:
            return
        loaded = self._engine.loaded()
        arms: list[Arm] = [pointer.champion, *([pointer.canary] if pointer.canary else [])]
        if all(arm.version in loaded for arm in arms):
            self._pointer = pointer
            self._changed.set()
            logger.info(
                "revision %d: champion %s, canary %s at %.0f%%",
                pointer.revision,
                pointer.champion.version,
                pointer.canary.version if pointer.canary else "none",
                pointer.canary_share * 100,
            )
        elif current is not None and current.canary is not None and pointer.canary is None:
            # Taken back while the next champion still loads: nobody may meet that canary any more.
            self._pointer = without_canary(current)

    def _load_soon(self, ref: AdapterRef) -> None:
        with self._lock:
            failure = self._failures.get(ref.version)
            if failure is not None and time.monotonic() < failure.retry_at:
                return
        if ref.version not in self._engine.loaded():
            self._load(ref)

    def _load(self, ref: AdapterRef) -> Future[None]:
        with self._lock:
            running = self._loading.get(ref.version)
            if running is not None:
                return running
            future = self._loader.submit(self._engine.load, ref)
            self._loading[ref.version] = future
        future.add_done_callback(lambda done: self._loaded(ref.version, done))
        return future

    def _loaded(self, version: str, done: Future[None]) -> None:
        error = None if done.cancelled() else done.exception()
        with self._lock:
            self._loading.pop(version, None)
            self._used[version] = time.monotonic()
            before = self._failures.pop(version, None)
            if error is None:
                self._changed.set()
                return
            tries = (before.tries if before else 0) + 1
            rejected = isinstance(error, AdapterRejectedError)
            self._failures[version] = _Failure(
                message=str(error) if rejected else type(error).__name__,
                tries=tries,
                retry_at=time.monotonic() + (_REJECTED_RETRY_S if rejected else min(2.0**tries, 30.0)),
                certain=rejected or tries >= _TRIES_BEFORE_ERROR,
            )
            self._changed.set()
        logger.warning("version %s was not loaded: %s", version, type(error).__name__)

    def _make_room(self) -> None:
        """Put out the adapters used longest ago, beyond `max_adapters`; never one that is needed or in use."""
        with self._lock:
            loaded = self._engine.loaded() - {BASE_VERSION}
            spare = [v for v in loaded if v not in self._needed and not self._held.get(v)]
            spare.sort(key=lambda v: self._used.get(v, 0.0))
            surplus = spare[: max(0, len(loaded) - self._settings.max_adapters)]
        for version in surplus:
            self._loader.submit(self._engine.unload, version)

    def _hold(self, version: str) -> None:
        self._held[version] = self._held.get(version, 0) + 1
        self._used[version] = time.monotonic()

    def _release(self, version: str) -> None:
        with self._lock:
            self._held[version] -= 1
            if not self._held[version]:
                del self._held[version]

    def _poll_loop(self) -> None:
        while not self._stop.is_set():
            self._tolerate(self.poll)
            # While something is missing, look more often: the switch follows the load at once.
            self._stop.wait(min(self._settings.pointer_poll_s, 0.05 if self._loading else 60.0))

    def _heartbeat_loop(self) -> None:
        while not self._stop.is_set():
            self._changed.clear()
            self._tolerate(self._heartbeat)
            self._changed.wait(HEARTBEAT_S)

    def _heartbeat(self) -> None:
        pointer = self._pointer
        with self._store.write() as conn:
            store.gateways.heartbeat(
                conn, self.id, self._model, pointer.revision if pointer else -1, self._engine.loaded(), self.error
            )

    def _tolerate(self, work: Callable[[], None]) -> None:
        """A store that does not answer for a while must not stop the gateway: it serves on under the last pointer."""
        try:
            work()
        except Exception as error:
            if not self._stop.is_set():
                unexpected(error)
