"""What every flow works with: the resolved profile, the state directory, the store and the registry."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ConfigError
from configs.loader import cache_dir, load_config, resource_path
from configs.paths import StateDir
from configs.schema import Config
from flows.files import write_text
from store.engine import Store

if TYPE_CHECKING:
    from data_contracts.redaction import Redactor
    from models.cache import ResolvedModel
    from registry_hooks.registry import Registry

CONFIG_VARIABLE = "TIDEMILL_CONFIG"


@dataclass(frozen=True)
class Context:
    """One installation, opened. Heavy parts are opened at first use."""

    config: Config
    state: StateDir
    store: Store

    @property
    def model(self) -> str:
        return self.config.model.name

    @cached_property
    def registry(self) -> Registry:
        """The registry of the profile: MLflow at its URI."""
        from registry_hooks.mlflow_registry import MlflowRegistry

        return MlflowRegistry(self.registry_uri, experiment=self.config.registry.experiment)

    @property
    def registry_uri(self) -> str:
        return self.config.registry.uri or f"http://127.0.0.1:{self.config.stack.mlflow_port}"

    @cached_property
    def redactor(self) -> Redactor:
        """What redacts by this installation's policy and key."""
        from data_contracts.redaction import redactor_for

        return redactor_for(self.config.redaction, self.state.key)

    @cached_property
    def pseudonym(self) -> Callable[[str], str]:
        """How this installation names a person where the name may not stand: by its key, the same for ever."""
        from data_contracts.redaction import Redactor

        return Redactor(key=self.state.key).pseudonym

    def base(self) -> ResolvedModel:
        """The base model on this machine, fetched if it must be."""
        from models.cache import resolve

        return resolve(self.config.model.base, cache_dir(self.config))

    def embedder(self) -> ResolvedModel:
        """The sentence embedding model on this machine."""
        from models.cache import resolve

        return resolve(self.config.model.embedder, cache_dir(self.config))

    def resource(self, relative: str) -> Path:
        """A contract, prompt or suite file of the profile."""
        return resource_path(relative)

    def run_dir(self, request_id: str) -> Path:
        """Working folder of one retrain."""
        folder = self.state.runs / request_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def open_context(config: Config) -> Context:
    """Open the store of a profile (migrating it) and make the context."""
    state = StateDir.of(config)
    try:
        # Rows, reports and secrets of people are below: for this user only.
        state.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(
            "the state directory cannot be made",
            where=state.root,
            expected="a folder that can be written",
            found=error,
            fix="give another one with --state or state_dir",
        ) from error
    return Context(config, state, Store.open(state.store_url(config)))


def write_resolved(config: Config) -> Path:
    """Write the resolved profile into the state directory, where the gateway and the flows read it.

    It is a profile like any other (JSON is YAML), with absolute paths and real ports.
    """
    state = StateDir.of(config)
    resolved = config.model_copy(update={"state_dir": str(state.root)})
    write_text(state.resolved_config, resolved.model_dump_json(indent=1) + "\n")
    return state.resolved_config


def context_from_environment() -> Context:
    """The context of a flow run: $TIDEMILL_CONFIG names the resolved profile.

    Raises:
        ConfigError: the variable is not set or the file cannot be read.
    """
    path = os.environ.get(CONFIG_VARIABLE)
    if not path:
        raise ConfigError(
            f"${CONFIG_VARIABLE} is not set",
            expected="the path of a resolved profile (config.json in the state directory)",
            fix="start the worker with `tidemill up`, or set the variable in the work pool's job template",
        )
    return open_context(load_config(path))
