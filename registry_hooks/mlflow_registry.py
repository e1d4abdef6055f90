"""MLflow as registry and tracker. The only module that imports mlflow.

A version holds the adapter alone (never the base: `mlflow.transformers.log_model` of an adapter on a local base reloads
wrong weights). It is a logged model with the adapter's files, and a model version that points at it and carries every
digest as a tag. MLflow has no idempotency key, so a version is looked up by the adapter's digest first and again
whenever the outcome of a call is unknown.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from configs.errors import NotFoundError, RegistryError
from data_contracts.records import AdapterArtifact, DatasetSnapshot, ModelVersion
from data_contracts.snapshot_files import COLUMNS
from registry_hooks.mlflow_contents import walk
from registry_hooks.registry import RegisterRequest, RunHandle, RunStatus, dataset_tags, lineage_tags

_T = TypeVar("_T")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "manifest.json")
MODEL_TYPE = "lora-adapter"
READING = "reading everything"
_MAX_PARAM = 500
_MAX_TAG = 5000
_DATASET_DIGEST = 36
_MAX_INPUT_KEY = 255
_MAX_INPUT_VALUE = 500
_RETRIES = 3
_ENVIRONMENT = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A tracker that is down must cost seconds, not minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0.2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


@contextlib.contextmanager
def _errors(doing: str, where: str) -> Iterator[None]:
    """Everything MLflow and its HTTP client raise becomes one RegistryError."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        yield
    except (MlflowException, RequestException, OSError) as error:
        raise RegistryError(
            "MLflow does not answer" if doing == READING and _is_silence(error) else f"MLflow failed while {doing}",
            where=where,
            found=str(error).replace("\n", " ")[:400],
            fix="check that the MLflow server runs and answers (`tidemill status`)",
        ) from error


def _is_silence(error: BaseException | None) -> bool:
    """True if nobody answered: the server is down, was never up, or the address is nobody's."""
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import Timeout

    while error is not None and not isinstance(error, (NoConnection, Timeout)):
        error = error.__cause__ or error.__context__
    return error is not None


def _is(error: Any, *codes: str) -> bool:
    return getattr(error, "error_code", None) in codes


class MlflowRun:
    """One tracking run on an MLflow server."""

    def __init__(self, client: Any, uri: str, experiment_id: str, run_id: str) -> None:
        self._client = client
        self._uri = uri
        self._experiment_id = experiment_id
        self.run_id = run_id

    @property
    def run_url(self) -> str:
        return f"{self._uri}/#/experiments/{self._experiment_id}/runs/{self.run_id}"

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        with _errors("logging metrics", self.run_url):
            rows = [Metric(key, float(value), now, step) for key, value in metrics.items()]
            self._client.log_batch(self.run_id, metrics=rows, synchronous=True)

    def log_artifact(self, path: Path) -> None:
        with _errors("keeping a file", self.run_url):
            self._client.log_artifact(self.run_id, str(path))

    def replace_artifact(self, path: Path) -> bool:
        with _errors("replacing a file", self.run_url):
            if path.name not in {file.path for file in self._client.list_artifacts(self.run_id)}:
                return False
            self._client.log_artifact(self.run_id, str(path))
        return True

    def log_dataset(self, snapshot: DatasetSnapshot) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        # MLflow's own digests pass over rows past 10,000 and columns that are not numbers or strings: ours goes in, as
        # much of it as the field takes, and whole as a tag.
        dataset = Dataset(
            name=snapshot.model,
            digest=snapshot.digest[:_DATASET_DIGEST],
            source_type="local",
            source=json.dumps({"uri": Path(snapshot.path).as_uri()}),
            schema=json.dumps({"mlflow_colspec": [{"name": name, "type": "string"} for name in COLUMNS]}),
            profile=json.dumps({"rows": snapshot.counts, "left_out": snapshot.reasons}),
        )
        tags = {"mlflow.data.context": "training", **dataset_tags(snapshot)}
        rows = [InputTag(key[:_MAX_INPUT_KEY], value[:_MAX_INPUT_VALUE]) for key, value in tags.items() if value]
        with _errors("naming the dataset", self.run_url):
            self._client.log_inputs(self.run_id, [DatasetInput(dataset, rows)])

    def finish(self, status: RunStatus = "FINISHED") -> None:
        with _errors("closing a run", self.run_url):
            self._client.set_terminated(self.run_id, status)


class MlflowRegistry:
    """An MLflow server.

    Args:
        uri: `http://host:port` of the tracking server, which is also the registry.
        experiment: the experiment all runs and versions belong to; made if absent.
    """

    def __init__(self, uri: str, *, experiment: str = "tidemill") -> None:
        self.uri = uri.rstrip("/")
        self.experiment = experiment
        self._client: Any = None
        self._experiment_id = ""

    # --- connection ----------------------------------------------------------------------------

    def _connect(self) -> Any:
        if self._client is None:
            for name, value in _ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            import mlflow

            # The client resolves a logged model's files through the global URI.
            mlflow.set_tracking_uri(self.uri)
            self._client = mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        return self._client

    def _experiment(self) -> str:
        """The experiment's id."""
        if not self._experiment_id:
            client = self._connect()
            from mlflow.exceptions import MlflowException

            with _errors("opening the experiment", f"{self.uri} {self.experiment}"):
                found = client.get_experiment_by_name(self.experiment)
                if found is None:
                    try:
                        self._experiment_id = client.create_experiment(self.experiment)
                    except MlflowException as error:
                        if not _is(error, "RESOURCE_ALREADY_EXISTS"):
                            raise
                        found = client.get_experiment_by_name(self.experiment)
                if found is not None:
                    self._experiment_id = found.experiment_id
        return self._experiment_id

    # --- versions ------------------------------------------------------------------------------

    def register(self, version_request: RegisterRequest) -> ModelVersion:
        found = self.find(version_request.model, version_request.artifact.digest)
        if found is not None:
            return found
        client = self._connect()
        where = f"{self.uri} {version_request.model}"
        with _errors("registering a version", where):
            self._make_model(client, version_request.model)
            model_id = self._log_adapter(client, version_request)
        try:
            with _errors("registering a version", where):
                made = client.create_model_version(
                    version_request.model,
                    source=f"models:/{model_id}",
                    run_id=version_request.run_id,
                    model_id=model_id,
                    tags={key: value[:_MAX_TAG] for key, value in lineage_tags(version_request).items()},
                )
        except RegistryError:
            # The answer may have been lost after the version was made.
            found = self._find_if_it_answers(version_request.model, version_request.artifact.digest)
            if found is None:
                raise
            return found
        return self._version(made)

    def _find_if_it_answers(self, model: str, adapter_digest: str) -> ModelVersion | None:
        try:
            return self.find(model, adapter_digest)
        except RegistryError:
            return None

    def _make_model(self, client: Any, model: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(model, description="Adapters made and governed by Tidemill.")
        except MlflowException as error:
            if not _is(error, "RESOURCE_ALREADY_EXISTS"):
                raise

    def _log_adapter(self, client: Any, request: RegisterRequest) -> str:
        """Upload the adapter's files as a logged model and return its id."""
        folder = Path(request.artifact.path)
        missing = [name for name in ADAPTER_FILES[:2] if not (folder / name).is_file()]
        if missing:
            raise RegistryError(
                "the adapter's files are not there", where=folder, expected=", ".join(ADAPTER_FILES[:2]), found=missing
            )
        logged = client.create_logged_model(
            self._experiment(),
            name=f"{request.model}-{request.artifact.digest[:12]}",
            source_run_id=request.run_id,
            model_type=MODEL_TYPE,
            params=_artifact_params(request.artifact),
            tags={key: value[:_MAX_TAG] for key, value in lineage_tags(request).items()},
        )
        client.log_model_artifacts(logged.model_id, str(folder))
        if request.run_id:
            for key, value in request.metrics.items():
                client.log_metric(request.run_id, key, float(value), model_id=logged.model_id)
            if request.report is not None:
                client.log_artifact(request.run_id, str(request.report))
        client.finalize_logged_model(logged.model_id, "READY")
        return str(logged.model_id)

    def find(self, model: str, adapter_digest: str) -> ModelVersion | None:
        if not adapter_digest.isalnum():
            raise RegistryError("not a digest", where=adapter_digest, expected="letters and digits")
        found = self._search(model, f" and tags.`tidemill.adapter_digest` = '{adapter_digest}'")
        # Two processes that raced could have made two: the first one counts, always.
        return min(found, key=lambda version: version.number, default=None)

    def versions(self, model: str) -> list[ModelVersion]:
        return sorted(self._search(model, ""), key=lambda version: -version.number)

    def _search(self, model: str, more: str) -> list[ModelVersion]:
        client = self._connect()
        name = model.replace("'", "")
        found: list[ModelVersion] = []
        token: str | None = None
        with _errors("searching versions", f"{self.uri} {model}"):
            while True:
                page = client.search_model_versions(f"name = '{name}'{more}", max_results=1000, page_token=token)
                found += [self._version(one) for one in page if "tidemill.adapter_digest" in one.tags]
                token = page.token
                if not token:
                    return found

    def _version(self, made: Any) -> ModelVersion:
        tags = dict(made.tags)
        return ModelVersion(
            model=made.name,
            number=int(made.version),
            adapter_digest=tags.get("tidemill.adapter_digest", ""),
            base_digest=tags.get("tidemill.base_digest", ""),
            dataset_digest=tags.get("tidemill.dataset_digest", ""),
            config_digest=tags.get("tidemill.config_digest", ""),
            code_commit=tags.get("tidemill.code_commit", ""),
            gate=tags.get("tidemill.gate", ""),
            run_id=made.run_id or "",
            uri=made.source,
            url=f"{self.uri}/#/models/{made.name}/versions/{made.version}",
            tags=tags,
        )

    # --- aliases -------------------------------------------------------------------------------

    def set_alias(self, model: str, alias: str, number: int | None) -> None:
        client = self._connect()
        from mlflow.exceptions import MlflowException

        where = f"{model}@{alias}"

        def change() -> None:
            try:
                if number is None:
                    client.delete_registered_model_alias(model, alias)
                else:
                    client.set_registered_model_alias(model, alias, str(number))
            except MlflowException as error:
                if not _is(error, "RESOURCE_DOES_NOT_EXIST"):
                    raise
                if number is not None:
                    raise NotFoundError("no such version in the registry", where=f"{model}@v{number}") from error

        # Two first sets at once can break a uniqueness rule inside MLflow; the second try finds the alias there.
        with _errors("setting an alias", where):
            _again(change, MlflowException)

    def get_alias(self, model: str, alias: str) -> int | None:
        client = self._connect()
        from mlflow.exceptions import MlflowException

        with _errors("reading an alias", f"{model}@{alias}"):
            try:
                return int(client.get_model_version_by_alias(model, alias).version)
            except MlflowException as error:
                if _is(error, "RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    return None
                raise

    def tag_version(self, model: str, number: int, key: str, value: str) -> None:
        client = self._connect()
        from mlflow.exceptions import MlflowException

        with _errors("tagging a version", f"{model}@v{number}"):
            try:
                client.set_model_version_tag(model, str(number), key, value[:_MAX_TAG])
            except MlflowException as error:
                if _is(error, "RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise NotFoundError("no such version in the registry", where=f"{model}@v{number}") from error
                raise

    def contents(self) -> Iterator[tuple[str, bytes]]:
        with _errors(READING, self.uri):
            yield from walk(self._connect())

    # --- runs ----------------------------------------------------------------------------------

    def start_run(self, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> RunHandle:
        experiment_id = self._experiment()
        client = self._connect()
        from mlflow.entities import Param

        with _errors("opening a run", f"{self.uri} {name}"):
            run = client.create_run(experiment_id, run_name=name, tags={k: v[:_MAX_TAG] for k, v in tags.items()})
            rows = [Param(key, str(value)[:_MAX_PARAM]) for key, value in params.items()]
            for start in range(0, len(rows), 100):
                client.log_batch(run.info.run_id, params=rows[start : start + 100], synchronous=True)
        return MlflowRun(client, self.uri, experiment_id, run.info.run_id)

    def open_run(self, run_id: str) -> RunHandle:
        client = self._connect()
        from mlflow.exceptions import MlflowException

        with _errors("opening a run", f"{self.uri} {run_id}"):
            try:
                run = client.get_run(run_id)
            except MlflowException as error:
                if _is(error, "RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise NotFoundError("no such tracking run", where=run_id) from error
                raise
        return MlflowRun(client, self.uri, run.info.experiment_id, run_id)


def _artifact_params(artifact: AdapterArtifact) -> dict[str, str]:
    names = ("rank", "alpha", "steps", "tokens", "seconds")
    return {name: str(getattr(artifact, name)) for name in names}


def _again(change: Callable[[], _T], on: type[Exception]) -> _T:
    for attempt in range(_RETRIES - 1):
        try:
            return change()
        except on:
            time.sleep(0.2 * (attempt + 1))
    return change()
