"""The registry seam: what the platform asks of a model registry and of an experiment tracker.

A registry is a catalogue. It never switches traffic: the serving pointer does, and aliases mirror it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field

from data_contracts.records import AdapterArtifact, DatasetSnapshot, ModelVersion, Record

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]


class RegisterRequest(Record):
    """Everything a version is registered with."""

    model: str
    artifact: AdapterArtifact
    gate: str
    """The verdict: `pass`, or `override`."""
    run_id: str | None = None
    """The tracking run that trained it."""
    tags: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    report: Path | None = None
    """The HTML report, put beside the adapter."""


def lineage_tags(request: RegisterRequest) -> dict[str, str]:
    """The digests a version is found by and traced with, and the caller's own tags."""
    artifact = request.artifact
    return {
        "tidemill.adapter_digest": artifact.digest,
        "tidemill.base_digest": artifact.base_digest,
        "tidemill.dataset_digest": artifact.dataset_digest,
        "tidemill.config_digest": artifact.config_digest,
        "tidemill.code_commit": artifact.code_commit,
        "tidemill.gate": request.gate,
        "tidemill.rank": str(artifact.rank),
        "tidemill.run_id": request.run_id or "",
        **request.tags,
    }


def dataset_tags(snapshot: DatasetSnapshot) -> dict[str, str]:
    """What a dataset input is found by: digests, contract, how far it had read; no ids and no text."""
    return {
        "tidemill.dataset_digest": snapshot.digest,
        "tidemill.contract_digest": snapshot.contract_digest,
        "tidemill.config_digest": snapshot.config_digest,
        "tidemill.watermark": str(snapshot.watermark),
        **{f"tidemill.source.{name}": watermark for name, watermark in snapshot.sources.items()},
    }


class RunHandle(Protocol):
    """One tracking run while it is open."""

    @property
    def run_id(self) -> str: ...

    @property
    def run_url(self) -> str:
        """A page a person can open."""
        ...

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Values at a step, visible at once.

        Raises:
            RegistryError: the tracker does not answer.
        """
        ...

    def log_artifact(self, path: Path) -> None:
        """Keep a file with the run."""
        ...

    def replace_artifact(self, path: Path) -> bool:
        """Put a file in the place of the one of that name kept with the run; False if the run keeps none."""

    def log_dataset(self, snapshot: DatasetSnapshot) -> None:
        """Name the snapshot as what the run was trained on, under our digest; again is the same as once.

        Raises:
            RegistryError: the tracker does not answer.
        """
        ...

    def finish(self, status: RunStatus = "FINISHED") -> None:
        """Close the run."""
        ...


class Registry(Protocol):
    """A model registry with an experiment tracker."""

    def register(self, version_request: RegisterRequest) -> ModelVersion:
        """The version of this adapter, made if there is none yet: the same adapter is never two versions.

        Raises:
            RegistryError: the registry does not answer or refuses.
        """
        ...

    def find(self, model: str, adapter_digest: str) -> ModelVersion | None:
        """The version with this adapter."""
        ...

    def versions(self, model: str) -> list[ModelVersion]:
        """All versions of a model, newest first."""
        ...

    def set_alias(self, model: str, alias: str, number: int | None) -> None:
        """Point an alias at a version, or remove it (None).

        Raises:
            NotFoundError: no such version.
        """
        ...

    def get_alias(self, model: str, alias: str) -> int | None:
        """The version an alias points at."""
        ...

    def tag_version(self, model: str, number: int, key: str, value: str) -> None:
        """Set a tag of a version.

        Raises:
            NotFoundError: no such version.
        """
        ...

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """`(where, content)` of everything this catalogue keeps in words: names, tags, parameters, files."""
        ...

    def start_run(self, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> RunHandle:
        """Open a tracking run."""
        ...

    def open_run(self, run_id: str) -> RunHandle:
        """Go on with a run another process opened.

        Raises:
            NotFoundError: no such run.
        """
        ...
