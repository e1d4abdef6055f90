"""The state directory: one folder that holds everything the embedded stack writes."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from configs.schema import Config


@dataclass(frozen=True)
class StateDir:
    """Names of everything below the state directory."""

    root: Path

    @classmethod
    def of(cls, config: Config) -> StateDir:
        """The state directory of a profile, absolute."""
        return cls(Path(config.state_dir).expanduser().resolve())

    @property
    def database(self) -> Path:
        return self.root / "tidemill.db"

    @property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    @property
    def runs(self) -> Path:
        """Working folders of retrains, one per request."""
        return self.root / "runs"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def cache(self) -> Path:
        """Evaluation results, replay answers and embeddings, by digest; safe to delete."""
        return self.root / "cache"

    @property
    def drift(self) -> Path:
        return self.root / "drift"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def stack_file(self) -> Path:
        """Ports and process ids of the running stack."""
        return self.root / "stack.json"

    @property
    def resolved_config(self) -> Path:
        """The profile as resolved by `tidemill up`; flows and the gateway read this."""
        return self.root / "config.json"

    def store_url(self, config: Config) -> str:
        """SQLAlchemy URL of the store."""
        return config.store.url or f"sqlite:///{self.database}"

    @cached_property
    def key(self) -> bytes:
        """This installation's secret (32 bytes, made at first use, mode 0600): request MACs and pseudonyms."""
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / "secret.key"
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_bytes()
        with os.fdopen(handle, "wb") as file:
            value = secrets.token_bytes(32)
            file.write(value)
            file.flush()
            os.fsync(file.fileno())
        return value
