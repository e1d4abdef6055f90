"""The in-process engine: transformers + peft on one thread, base and adapters answered in one mixed batch.

Requests wait in a queue; the engine thread takes them into the running batch between two tokens, so a short answer
never waits for a long one. Adapters are checked on the caller's thread and put into the model between two steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import AdapterRejectedError, InputError, NotFoundError, UnavailableError
from configs.schema import ServingSection
from data_contracts.records import BASE_VERSION, AdapterRef, Message
from serving.engines.base import Delta, GenerationRequest, queue_full
from serving.engines.prompts import PromptEncoder

if TYPE_CHECKING:
    from serving.engines.batch import Row

logger = logging.getLogger(__name__)

Item = Delta | Exception


class _Mailbox:
    """Carries deltas from the engine thread to one event loop, one wake-up for all of a step's deltas."""

    def __init__(self) -> None:
        self._out: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Queue[Item], Item]]] = {}

    def put(self, loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[Item], item: Item) -> None:
        self._out.setdefault(loop, []).append((queue, item))

    def send(self) -> None:
        out, self._out = self._out, {}
        for loop, items in out.items():
            # A loop that was closed has nobody waiting any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_deliver, items)


def _deliver(items: list[tuple[asyncio.Queue[Item], Item]]) -> None:
    for queue, item in items:
        queue.put_nowait(item)


class TransformersEngine:
    """Serves a base model and its LoRA adapters.

    Args:
        path: the base model's folder (safetensors, config, tokenizer).
        base_digest: digest adapters must have been trained on.
        settings: batch size, waits and limits.
        threads: CPU threads for torch; 0 leaves torch's choice.
    """

    def __init__(self, path: Path, *, base_digest: str, settings: ServingSection, threads: int = 0) -> None:
        from models.loading import load_base, set_threads
        from models.prompts import stop_ids
        from serving.engines.batch import Batch

        set_threads(threads)
        self._settings = settings
        self._base_digest = base_digest
        model, tokenizer = load_base(path)
        self._model: Any = model
        self._encoder = PromptEncoder(tokenizer)
        self._batch = Batch(model, stop_ids(model, tokenizer), settings.max_batch)
        self._context = int(getattr(model.config.get_text_config(), "max_position_embeddings", 1 << 20))
        self._peft: Any = None
        self._digests: dict[str, str] = {}
        self._loaded = frozenset({BASE_VERSION})
        self._mailbox = _Mailbox()
        self._wake = threading.Condition()
        self._waiting: deque[Row] = deque()
        self._commands: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._leaving: dict[str, Future[None]] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    # --- called from event loops -------------------------------------------------------------

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Delta]:
        """Stream one answer; closing the iterator gives its row to somebody else."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Item] = asyncio.Queue()
        row = self._row(request, lambda item: self._mailbox.put(loop, queue, item))
        with self._wake:
            if self._closed:
                raise UnavailableError("the engine is closed")
            if request.version not in self._loaded:
                raise NotFoundError("this version is not loaded", where=request.version)
            if len(self._waiting) >= self._settings.queue_limit:
                raise queue_full(self._settings.queue_limit)
            self._waiting.append(row)
            self._wake.notify()
        try:
            while True:
                item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                yield item
                if item.finished:
                    return
        finally:
            row.cancelled = True

    def _row(self, request: GenerationRequest, emit: Callable[[Item], None]) -> Row:
        from models.sampling import Sampler
        from serving.engines.batch import Row
        from serving.engines.text_stream import Detokenizer, StopScanner

        prompt = self._encoder.encode(request.messages)
        limit = min(self._settings.max_prompt_tokens, self._context - 1)
        if len(prompt.ids) > limit:
            raise context_length_exceeded(len(prompt.ids), limit)
        return Row(
            ids=prompt.ids,
            shared=prompt.shared,
            version=request.version,
            max_tokens=min(request.max_tokens, self._context - len(prompt.ids)),
            sampler=Sampler.of(request.temperature, request.top_p, request.seed),
            scanner=StopScanner(request.stop),
            detokenizer=Detokenizer(self._encoder.decode),
            emit=emit,
        )

    def loaded(self) -> frozenset[str]:
        return self._loaded

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return len(self._encoder.encode(messages).ids)

    def queued(self) -> int:
        return len(self._waiting)

    # --- called from the router's threads ----------------------------------------------------

    def load(self, ref: AdapterRef) -> None:
        """Check an adapter's files, digest, base and values, then put it beside the others.

        Raises:
            AdapterRejectedError: a check failed, or the adapter was trained on another base.
        """
        if ref.version in self._loaded:
            return
        if ref.base_digest != self._base_digest:
            raise AdapterRejectedError(
                "the adapter was trained on another base",
                where=ref.version,
                expected=self._base_digest,
                found=ref.base_digest,
            )
        self._command(lambda: self._load(ref))

    def unload(self, version: str) -> None:
        with self._wake:
            if version == BASE_VERSION or version not in self._loaded or self._closed:
                return
            self._loaded = self._loaded - {version}
            gone = self._leaving.setdefault(version, Future())
            self._wake.notify()
        gone.result()

    def close(self) -> None:
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout=30)

    def _command(self, work: Callable[[], None]) -> None:
        future: Future[None] = Future()
        with self._wake:
            if self._closed:
                raise UnavailableError("the engine is closed")
            self._commands.append((work, future))
            self._wake.notify()
        future.result()

    # --- the engine thread -------------------------------------------------------------------

    def _load(self, ref: AdapterRef) -> None:
        from models.loading import attach, load_adapter

        if ref.version in self._loaded:
            return
        if ref.version in self._digests:
            # Still in memory: it was the last one, or rows run on it while it is asked to leave.
            if self._digests[ref.version] != ref.digest:
                raise AdapterRejectedError(
                    "this version's name belongs to another adapter",
                    where=ref.version,
                    expected=self._digests[ref.version],
                    found=ref.digest,
                )
            with self._wake:
                leaving = self._leaving.pop(ref.version, None)
            if leaving is not None:
                leaving.set_result(None)
        elif self._peft is None:
            self._peft = attach(self._model, ref, base_digest=self._base_digest)
        else:
            load_adapter(self._peft, ref, base_digest=self._base_digest)
        self._digests[ref.version] = ref.digest
        self._batch.mix.hook(self._model)
        self._batch.adapters = True
        self._loaded = self._loaded | {ref.version}

    def _unload_idle(self) -> None:
        """Take out the adapters that were asked to leave and that no row waits for or runs on."""
        from models.loading import unload_adapter

        with self._wake:
            used = {row.version for row in (*self._waiting, *self._batch.rows)}
            idle = {version: future for version, future in self._leaving.items() if version not in used}
            for version in idle:
                del self._leaving[version]
        try:
            # peft cannot be left without any adapter: the last one stays in memory, unasked, until another is there.
            gone = [v for v in self._digests if v not in self._loaded and v not in self._leaving]
            for version in gone[: len(self._digests) - 1]:
                del self._digests[version]
                if self._peft.active_adapter == version:
                    self._peft.set_adapter(next(iter(self._digests)))
                unload_adapter(self._peft, version)
        finally:
            for version, future in idle.items():
                self._batch.forget(version)
                future.set_result(None)

    def _run(self) -> None:
        import torch

        while True:
            with self._wake:
                while not (self._closed or self._commands or self._waiting or self._batch.rows or self._leaving):
                    self._wake.wait()
                if self._closed:
                    break
                commands = list(self._commands)
                self._commands.clear()
            for work, future in commands:
                _obey(work, future)
            if self._leaving:
                _obey(self._unload_idle, Future())
            with torch.inference_mode():
                self._turn()
        self._end()

    def _turn(self) -> None:
        """Take newcomers in, or give every row its next token."""
        newcomers = self._newcomers()
        try:
            if newcomers:
                self._batch.join(newcomers)
            else:
                self._batch.step()
        except Exception as error:
            # One batch fails, the engine goes on. The error's text may hold a prompt: only its type is told.
            logger.error("a batch failed: %s", type(error).__name__)
            failed = UnavailableError("the engine failed on this batch", found=type(error).__name__)
            for row in {id(row): row for row in (*newcomers, *self._batch.fail())}.values():
                row.emit(failed)
        self._mailbox.send()

    def _newcomers(self) -> list[Row]:
        with self._wake:
            if self._waiting and not self._batch.rows and self._settings.batch_wait_ms:
                # Idle until now: companions of the first request are worth a few milliseconds.
                until = time.monotonic() + self._settings.batch_wait_ms / 1000
                while len(self._waiting) < self._batch.free and (rest := until - time.monotonic()) > 0:
                    self._wake.wait(rest)
            taken: list[Row] = []
            while self._waiting and len(taken) < self._batch.free:
                row = self._waiting.popleft()
                if not row.cancelled:
                    taken.append(row)
            return taken

    def _end(self) -> None:
        """Closed: nobody is left waiting."""
        closed = UnavailableError("the engine is closed")
        with self._wake:
            rows, futures = list(self._waiting), [f for _, f in self._commands]
            self._waiting.clear()
            self._commands.clear()
            leaving = list(self._leaving.values())
            self._leaving.clear()
        for row in (*rows, *self._batch.fail()):
            row.emit(closed)
        self._mailbox.send()
        for future in futures:
            future.set_exception(closed)
        for future in leaving:
            future.set_result(None)


def _obey(work: Callable[[], object], future: Future[None]) -> None:
    try:
        work()
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(None)


def context_length_exceeded(found: int, limit: int) -> InputError:
    """The error of an over-long prompt, with OpenAI's code."""
    error = InputError(
        "the prompt is too long",
        where="messages",
        expected=f"at most {limit} tokens",
        found=f"{found} tokens",
        fix="shorten the conversation",
    )
    error.code = "context_length_exceeded"
    return error
