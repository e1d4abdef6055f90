"""A registry in memory: the double the contract tests hold beside MLflow."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from configs.errors import NotFoundError
from data_contracts.ids import new_id
from data_contracts.records import DatasetSnapshot, ModelVersion
from registry_hooks.registry import RegisterRequest, RunHandle, RunStatus, dataset_tags, lineage_tags


@dataclass
class MemoryRun:
    """A tracking run that remembers what it was told."""

    run_id: str
    name: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    datasets: dict[str, dict[str, str]] = field(default_factory=dict)
    """Dataset digest -> tags."""
    status: str = "RUNNING"

    @property
    def run_url(self) -> str:
        return f"memory://runs/{self.run_id}"

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.metrics.append((step, dict(metrics)))

    def log_artifact(self, path: Path) -> None:
        self.files[path.name] = path.read_bytes()
        self.artifacts.append(path.name)

    def replace_artifact(self, path: Path) -> bool:
        if path.name not in self.files:
            return False
        self.files[path.name] = path.read_bytes()
        return True

    def log_dataset(self, snapshot: DatasetSnapshot) -> None:
        self.datasets[snapshot.digest] = dataset_tags(snapshot)

    def finish(self, status: RunStatus = "FINISHED") -> None:
        self.status = status


class MemoryRegistry:
    """Versions, aliases and runs in dictionaries; threads may share it."""

    def __init__(self) -> None:
        self.runs: dict[str, MemoryRun] = {}
        self._versions: dict[str, list[ModelVersion]] = {}
        self._aliases: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def register(self, version_request: RegisterRequest) -> ModelVersion:
        with self._lock:
            found = self.find(version_request.model, version_request.artifact.digest)
            if found is not None:
                return found
            artifact = version_request.artifact
            known = self._versions.setdefault(version_request.model, [])
            number = len(known) + 1
            version = ModelVersion(
                model=version_request.model,
                number=number,
                adapter_digest=artifact.digest,
                base_digest=artifact.base_digest,
                dataset_digest=artifact.dataset_digest,
                config_digest=artifact.config_digest,
                code_commit=artifact.code_commit,
                gate=version_request.gate,
                run_id=version_request.run_id or "",
                uri=Path(artifact.path).as_uri(),
                url=f"memory://models/{version_request.model}/{number}",
                tags=lineage_tags(version_request),
            )
            known.append(version)
            run = self.runs.get(version_request.run_id or "")
            if run is not None and version_request.report is not None:
                run.log_artifact(version_request.report)
            return version

    def find(self, model: str, adapter_digest: str) -> ModelVersion | None:
        return next((v for v in self._versions.get(model, []) if v.adapter_digest == adapter_digest), None)

    def versions(self, model: str) -> list[ModelVersion]:
        return list(reversed(self._versions.get(model, [])))

    def set_alias(self, model: str, alias: str, number: int | None) -> None:
        if number is None:
            self._aliases.pop((model, alias), None)
            return
        if number not in {v.number for v in self._versions.get(model, [])}:
            raise NotFoundError("no such version in the registry", where=f"{model}@v{number}")
        self._aliases[model, alias] = number

    def get_alias(self, model: str, alias: str) -> int | None:
        return self._aliases.get((model, alias))

    def tag_version(self, model: str, number: int, key: str, value: str) -> None:
        with self._lock:
            known = self._versions.get(model, [])
            for place, version in enumerate(known):
                if version.number == number:
                    known[place] = version.model_copy(update={"tags": {**version.tags, key: value}})
                    return
        raise NotFoundError("no such version in the registry", where=f"{model}@v{number}")

    def contents(self) -> Iterator[tuple[str, bytes]]:
        for run in self.runs.values():
            yield f"run {run.run_id}", repr((run.name, run.params, run.tags)).encode()
            for name, content in run.files.items():
                yield f"run {run.run_id} {name}", content
        for versions in self._versions.values():
            for version in versions:
                yield f"version {version.name}", repr(version.tags).encode()

    def start_run(self, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> RunHandle:
        run = MemoryRun(new_id(), name, dict(params), dict(tags))
        self.runs[run.run_id] = run
        return run

    def open_run(self, run_id: str) -> RunHandle:
        if run_id not in self.runs:
            raise NotFoundError("no such tracking run", where=run_id)
        return self.runs[run_id]
