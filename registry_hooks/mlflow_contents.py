"""Everything an MLflow server keeps in words, one piece at a time: for the scan after an erasure."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ALL_RUNS = 3
"""ViewType.ALL: deleted runs hold their texts as well."""
MAX_FILE = 256 * 1024 * 1024
"""Larger artifacts are weights, not words; they are not fetched."""


def walk(client: Any) -> Iterator[tuple[str, bytes]]:
    """`(where, content)` of experiments, runs with their files, registered models and versions.

    Args:
        client: an MlflowClient.
    """
    experiments = list(client.search_experiments(view_type=ALL_RUNS))
    for experiment in experiments:
        yield f"experiment {experiment.experiment_id}", repr((experiment.name, experiment.tags)).encode()
        yield from _runs(client, experiment.experiment_id)
        for model in _pages(lambda token, e=experiment: _logged(client, e.experiment_id, token)):
            yield f"logged model {model.model_id}", repr((model.name, model.tags, model.params)).encode()
    for model in _pages(lambda token: client.search_registered_models(page_token=token)):
        yield f"model {model.name}", repr((model.description, model.tags, model.aliases)).encode()
    for version in _pages(lambda token: client.search_model_versions(page_token=token)):
        where = f"version {version.name}@v{version.version}"
        yield where, repr((version.description, version.tags)).encode()


def _logged(client: Any, experiment_id: str, token: str | None) -> Any:
    return client.search_logged_models(experiment_ids=[experiment_id], page_token=token)


def _pages(ask: Any) -> Iterator[Any]:
    token: str | None = None
    while True:
        page = ask(token)
        yield from page
        token = page.token
        if not token:
            return


def _runs(client: Any, experiment_id: str) -> Iterator[tuple[str, bytes]]:
    def ask(token: str | None) -> Any:
        return client.search_runs([experiment_id], run_view_type=ALL_RUNS, max_results=500, page_token=token)

    for run in _pages(ask):
        where = f"run {run.info.run_id}"
        yield where, repr((run.info.run_name, run.data.params, run.data.tags)).encode()
        if run.info.lifecycle_stage == "active":  # a deleted run's files cannot be listed; its words are above
            yield from _files(client, run.info.run_id, None)


def _files(client: Any, run_id: str, folder: str | None) -> Iterator[tuple[str, bytes]]:
    for file in client.list_artifacts(run_id, folder):
        if file.is_dir:
            yield from _files(client, run_id, file.path)
        elif (file.file_size or 0) <= MAX_FILE:
            with tempfile.TemporaryDirectory(prefix="tidemill-scan-") as temporary:
                path = client.download_artifacts(run_id, file.path, temporary)
                yield f"run {run_id} {file.path}", Path(path).read_bytes()
