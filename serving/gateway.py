"""Everything a route needs, in one object, started and stopped in order.

The engine loads on a thread of its own: the HTTP server answers at once (with 503 and GET /health saying why) and
the model is ready when its adapters are.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import Any

from configs.errors import TidemillError, UnavailableError
from configs.loader import cache_dir
from configs.paths import StateDir
from configs.schema import Config
from data_contracts.redaction import redactor_for
from serving.controller import Controller
from serving.engines.base import Engine
from serving.http_errors import unexpected
from serving.metrics import Metrics
from serving.recording import Recorder
from serving.router import Router
from store.engine import Store
from store.writer import GroupCommitWriter

logger = logging.getLogger(__name__)


def build_engine(config: Config) -> Engine:
    """The in-process engine on the configured base model (downloaded and converted at the first use)."""
    from models.cache import resolve
    from serving.engines.transformers_engine import TransformersEngine

    base = resolve(config.model.base, cache_dir(config))
    return TransformersEngine(base.path, base_digest=base.digest, settings=config.serving, threads=config.model.threads)


@dataclass
class Gateway:
    """One gateway process.

    Args:
        config: the resolved profile.
        state: its state directory.
        store: the open store.
        owns_store: close it at the end.
        with_controller: run the rollout controller too (one of all gateways leads).
    """

    config: Config
    state: StateDir
    store: Store
    owns_store: bool = True
    with_controller: bool = True
    engine: Engine | None = None
    router: Router | None = None
    metrics: Metrics = field(default_factory=Metrics)
    load_error: str = ""
    _loader: threading.Thread | None = None
    _closing: bool = False
    _controller: Controller | None = None

    def __post_init__(self) -> None:
        section = self.config.store
        self.redactor = redactor_for(self.config.redaction, self.key)
        self.writer = GroupCommitWriter(self.store, section.commit_delay_ms, section.commit_rows)
        self.recorder = Recorder(
            self.writer,
            self.redactor,
            model=self.model,
            prompt_version=self.config.model.prompt_version,
            price_per_1k=self.config.serving.micro_dollars_per_1k_tokens,
        )

    @property
    def model(self) -> str:
        """The product model's name."""
        return self.config.model.name

    @property
    def key(self) -> bytes:
        """This installation's secret, for request ids."""
        return self.state.key

    def start(self) -> None:
        """Begin to load the engine; the controller decides from the first second on."""
        if self.with_controller:
            self._controller = Controller(self.store, self.model, self.config.rollout)
            self._controller.start()
        self._loader = threading.Thread(target=self._load, name="engine-loader", daemon=True)
        self._loader.start()

    def _load(self) -> None:
        try:
            engine = self.engine or build_engine(self.config)
        except TidemillError as error:
            self.load_error = str(error)
            logger.error("the engine does not load: %s", error)
            return
        except Exception as error:
            self.load_error = f"the engine does not load: {type(error).__name__}"
            unexpected(error)
            return
        self.engine = engine
        if self._closing:
            engine.close()
            return
        router = Router(engine, self.store, self.model, self.config.serving)
        router.start()
        self.router = router

    def close(self) -> None:
        """Stop everything; what was acknowledged is durable, what was submitted is written."""
        self._closing = True
        if self._controller is not None:
            self._controller.close()
        if self._loader is not None:
            self._loader.join(timeout=60)
        if self.router is not None:
            self.router.close()
        if self.engine is not None:
            self.engine.close()
        self.writer.close()
        if self.owns_store:
            self.store.close()

    def ready(self) -> tuple[Engine, Router]:
        """The engine and the router.

        Raises:
            UnavailableError: they are still loading, or failed to.
        """
        if self.engine is None or self.router is None or self.router.pointer is None:
            raise UnavailableError(
                "the gateway is loading its model", found=self.problem or None, fix="see GET /health"
            )
        return self.engine, self.router

    @property
    def problem(self) -> str:
        """Why the gateway is not ready, or what it cannot load."""
        return self.load_error or (self.router.error if self.router else "")

    def health(self) -> tuple[int, dict[str, Any]]:
        """Status and body of GET /health."""
        pointer = self.router.pointer if self.router else None
        body: dict[str, Any] = {"status": "ok", "model": self.model}
        if pointer is None:
            body["status"] = "error" if self.problem else "loading"
        else:
            body |= {
                "revision": pointer.revision,
                "version": pointer.champion.version,
                "canary": pointer.canary.version if pointer.canary else None,
                "canary_share": pointer.canary_share,
                "loaded": sorted(self.engine.loaded()) if self.engine else [],
            }
        if self.problem:
            body["error"] = self.problem
        return (200 if pointer is not None else 503), body
