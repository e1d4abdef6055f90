"""The registry's contract, held against the double in memory and against a real MLflow server."""

from __future__ import annotations

import itertools
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from registry_samples import artifact, snapshot, wanted

from configs.errors import NotFoundError, RegistryError
from data_contracts.digests import file_digest
from registry_hooks.memory import MemoryRegistry, MemoryRun
from registry_hooks.mlflow_registry import MlflowRegistry
from registry_hooks.registry import Registry

_names = itertools.count(1)


@pytest.fixture(params=["memory", pytest.param("mlflow", marks=pytest.mark.stack)])
def registry(request: pytest.FixtureRequest) -> Registry:
    if request.param == "memory":
        return MemoryRegistry()
    return MlflowRegistry(request.getfixturevalue("mlflow_server"), experiment="tests")


@pytest.fixture
def model() -> str:
    """A model no other test uses: they share one server."""
    return f"bot-{next(_names)}"


def test_a_version_carries_its_lineage(registry: Registry, model: str, tmp_path: Path) -> None:
    made = artifact(tmp_path)
    run = registry.start_run("retrain bot #1", {"rank": "16"}, {"tidemill.request": "r1"})
    report = tmp_path / "report.html"
    report.write_text("<h1>pass</h1>")
    version = registry.register(wanted(made, model, run_id=run.run_id, metrics={"eval_target": 0.9}, report=report))
    assert (version.model, version.number, version.name) == (model, 1, f"{model}@v1")
    assert version.adapter_digest == made.digest
    assert version.base_digest == made.base_digest
    assert version.dataset_digest == made.dataset_digest
    assert version.config_digest == made.config_digest
    assert version.code_commit == made.code_commit
    assert version.gate == "pass"
    assert version.run_id == run.run_id
    assert version.tags["tidemill.request"] == "r1"
    assert version.tags["tidemill.adapter_digest"] == made.digest
    assert version.url
    assert version.uri


def test_the_same_adapter_is_one_version(registry: Registry, model: str, tmp_path: Path) -> None:
    first = registry.register(wanted(artifact(tmp_path, 1), model))
    second = registry.register(wanted(artifact(tmp_path, 2), model))
    again = registry.register(wanted(artifact(tmp_path, 1), model))
    assert (first.number, second.number) == (1, 2)
    assert again == first
    assert [v.number for v in registry.versions(model)] == [2, 1]


def test_find_by_digest_within_a_model(registry: Registry, model: str, tmp_path: Path) -> None:
    made = artifact(tmp_path)
    assert registry.find(model, made.digest) is None
    assert registry.versions(model) == []
    version = registry.register(wanted(made, model))
    assert registry.find(model, made.digest) == version
    assert registry.find(f"{model}-other", made.digest) is None
    assert registry.find(model, "0" * 64) is None


def test_aliases_point_move_and_go(registry: Registry, model: str, tmp_path: Path) -> None:
    for n in (1, 2):
        registry.register(wanted(artifact(tmp_path, n), model))
    assert registry.get_alias(model, "champion") is None
    registry.set_alias(model, "champion", 1)
    registry.set_alias(model, "champion", 2)
    registry.set_alias(model, "previous", 1)
    assert (registry.get_alias(model, "champion"), registry.get_alias(model, "previous")) == (2, 1)
    registry.set_alias(model, "previous", None)
    registry.set_alias(model, "previous", None)
    assert registry.get_alias(model, "previous") is None


def test_an_alias_of_a_version_that_is_not_there_is_an_error(registry: Registry, model: str, tmp_path: Path) -> None:
    registry.register(wanted(artifact(tmp_path), model))
    with pytest.raises(NotFoundError, match="no such version"):
        registry.set_alias(model, "champion", 9)
    assert registry.get_alias(f"{model}-none", "champion") is None


def test_many_first_sets_of_an_alias_at_once(registry: Registry, model: str, tmp_path: Path) -> None:
    registry.register(wanted(artifact(tmp_path), model))
    errors: list[Exception] = []

    def work() -> None:
        try:
            registry.set_alias(model, "champion", 1)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert registry.get_alias(model, "champion") == 1


def test_a_run_takes_metrics_and_files_and_can_be_reopened(registry: Registry, tmp_path: Path) -> None:
    params = {f"p{n}": "x" * 600 for n in range(120)}
    run = registry.start_run("a run", params, {"tidemill.request": "r1"})
    run.log_metrics({"train_loss": 2.0, "tokens_per_s": 150.0}, 1)
    again = registry.open_run(run.run_id)
    again.log_metrics({"train_loss": 1.0}, 2)
    path = tmp_path / "report.html"
    path.write_text("<h1>hello</h1>")
    again.log_artifact(path)
    again.finish("FINISHED")
    assert again.run_id == run.run_id
    assert run.run_url.endswith(run.run_id)
    with pytest.raises(NotFoundError, match="no such tracking run"):
        registry.open_run("0" * 32)


def test_a_version_is_tagged_and_the_tag_is_seen(registry: Registry, model: str, tmp_path: Path) -> None:
    registry.register(wanted(artifact(tmp_path), model))
    registry.tag_version(model, 1, "tidemill.tainted", "erasure e1")
    registry.tag_version(model, 1, "tidemill.tainted", "erasure e1")
    assert registry.versions(model)[0].tags["tidemill.tainted"] == "erasure e1"
    with pytest.raises(NotFoundError, match="no such version"):
        registry.tag_version(model, 9, "tidemill.tainted", "erasure e1")


def test_a_runs_file_is_replaced_only_where_there_is_one(registry: Registry, model: str, tmp_path: Path) -> None:
    path = tmp_path / f"{model}-request.html"
    path.write_text("<p>a heliotrope kettle</p>")
    run = registry.start_run(f"retrain {model}", {}, {})
    version = registry.register(wanted(artifact(tmp_path), model, run_id=run.run_id, report=path))
    assert version.run_id == run.run_id

    def kept() -> list[str]:
        return [where for where, content in registry.contents() if b"heliotrope kettle" in content]

    assert [where.split()[1] for where in kept()] == [run.run_id]
    path.write_text("<p>taken out</p>")
    assert registry.open_run(run.run_id).replace_artifact(path)
    assert kept() == []
    other = tmp_path / "never-logged.html"
    other.write_text("x")
    assert not registry.open_run(run.run_id).replace_artifact(other)


def test_contents_hold_names_parameters_and_tags(registry: Registry, model: str, tmp_path: Path) -> None:
    registry.start_run(f"run of {model}", {"who": f"param-{model}"}, {"t": f"tag-{model}"})
    registry.register(wanted(artifact(tmp_path), model))
    everything = b"\n".join(content for _, content in registry.contents()).decode()
    assert all(word in everything for word in (f"run of {model}", f"param-{model}", f"tag-{model}", "tidemill.gate"))


def test_a_run_names_the_snapshot_it_trained_on(registry: Registry, model: str, tmp_path: Path) -> None:
    trained, other = snapshot(tmp_path, model, 3), snapshot(tmp_path, model, 4)
    run = registry.start_run("a run", {}, {})
    run.log_dataset(trained)
    run.log_dataset(trained)
    assert [name for name, _ in dataset_inputs(registry, run.run_id)] == [trained.digest[:36]]
    run.log_dataset(other)
    found = dict(dataset_inputs(registry, run.run_id))
    assert set(found) == {trained.digest[:36], other.digest[:36]}
    tags = found[trained.digest[:36]]
    # The whole digest, which MLflow's field has no room for, and how far the sources had been read.
    assert tags["tidemill.dataset_digest"] == trained.digest
    assert tags["tidemill.contract_digest"] == trained.contract_digest
    assert tags["tidemill.source.store"] == "41"
    # Neither texts nor ids of people's rows.
    assert not any("f1" in value or "secret" in value for value in tags.values())


def dataset_inputs(registry: Registry, run_id: str) -> list[tuple[str, dict[str, str]]]:
    """(digest field, tags) of a run's datasets."""
    if isinstance(registry, MemoryRegistry):
        return [(name[:36], tags) for name, tags in registry.runs[run_id].datasets.items()]
    import mlflow

    assert isinstance(registry, MlflowRegistry)
    inputs = mlflow.MlflowClient(tracking_uri=registry.uri).get_run(run_id).inputs.dataset_inputs
    return [(i.dataset.digest, {tag.key: tag.value for tag in i.tags}) for i in inputs]


@pytest.mark.stack
def test_mlflow_shows_a_large_snapshots_counts_under_our_digest(mlflow_server: str, model: str, tmp_path: Path) -> None:
    import mlflow

    run = MlflowRegistry(mlflow_server, experiment="tests").start_run("a run", {}, {})
    # Past 10,000 rows, where the library's own digest no longer looks, ours still tells two sets apart.
    sets = [snapshot(tmp_path, model, 10_050), snapshot(tmp_path, model, 10_051)]
    for one in sets:
        run.log_dataset(one)
    inputs = mlflow.MlflowClient(tracking_uri=mlflow_server).get_run(run.run_id).inputs.dataset_inputs
    assert {i.dataset.digest for i in inputs} == {one.digest[:36] for one in sets}
    assert len({one.digest[:36] for one in sets}) == 2
    assert {json.loads(i.dataset.profile)["rows"]["train.correction"] for i in inputs} == {10_050, 10_051}
    assert all({t.key: t.value for t in i.tags}["mlflow.data.context"] == "training" for i in inputs)


def test_the_double_remembers_what_it_was_told(tmp_path: Path) -> None:
    registry = MemoryRegistry()
    run = registry.start_run("a", {"x": "1"}, {})
    run.log_metrics({"loss": 1.0}, 3)
    run.finish("FAILED")
    assert isinstance(run, MemoryRun)
    assert (run.metrics, run.status, run.params) == ([(3, {"loss": 1.0})], "FAILED", {"x": "1"})


@pytest.mark.stack
def test_mlflow_holds_the_adapters_very_files_and_the_run_its_metrics(
    mlflow_server: str, model: str, tmp_path: Path
) -> None:
    import mlflow

    registry = MlflowRegistry(mlflow_server, experiment="tests")
    made = artifact(tmp_path)
    run = registry.start_run("a run", {"rank": "16"}, {})
    run.log_metrics({"train_loss": 2.0}, 1)
    run.log_metrics({"train_loss": 1.0}, 2)
    report = tmp_path / "report.html"
    report.write_text("<h1>pass</h1>")
    registry.register(wanted(made, model, run_id=run.run_id, metrics={"eval_target": 0.9}, report=report))
    registry.set_alias(model, "champion", 1)
    run.finish()
    client = mlflow.MlflowClient(tracking_uri=mlflow_server)
    got = Path(mlflow.artifacts.download_artifacts(f"models:/{model}@champion", dst_path=str(tmp_path / "got")))
    for name in ("adapter_config.json", "adapter_model.safetensors", "manifest.json"):
        assert file_digest(got / name) == file_digest(Path(made.path) / name)
    history = client.get_metric_history(run.run_id, "train_loss")
    assert [(m.step, m.value) for m in history] == [(1, 2.0), (2, 1.0)]
    stored = client.get_run(run.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.metrics["eval_target"] == 0.9
    assert [f.path for f in client.list_artifacts(run.run_id)] == ["report.html"]


@pytest.mark.stack
def test_an_adapter_whose_files_are_gone_is_not_registered(mlflow_server: str, model: str, tmp_path: Path) -> None:
    made = artifact(tmp_path)
    (Path(made.path) / "adapter_model.safetensors").unlink()
    registry = MlflowRegistry(mlflow_server, experiment="tests")
    with pytest.raises(RegistryError, match="files are not there"):
        registry.register(wanted(made, model))
    assert registry.versions(model) == []


def test_a_registry_that_is_down_is_one_clear_error_within_seconds(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "import sys, time; from registry_hooks.mlflow_registry import MlflowRegistry\n"
        "from configs.errors import RegistryError\n"
        "registry = MlflowRegistry(sys.argv[1])\n"
        "registry._connect()\n"
        "start = time.monotonic()\n"
        "try:\n    registry.find('bot', '0' * 64)\n"
        "except RegistryError as error:\n    print(error); print(time.monotonic() - start)\n"
    )
    # A process of its own: MLflow reads its retry settings when it is imported.
    done = subprocess.run(
        [sys.executable, "-c", code, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True
    )
    message, seconds = done.stdout.strip().splitlines()[-2:]
    assert "MLflow failed while searching versions" in message
    assert "check that the MLflow server runs" in message
    assert float(seconds) < 20


def test_importing_the_seam_does_not_import_mlflow() -> None:
    code = "import sys; import registry_hooks.registry, registry_hooks.mlflow_registry; print('mlflow' in sys.modules)"
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert time.monotonic() - start < 10
