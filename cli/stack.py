"""The embedded stack: Prefect, MLflow, the gateway and a worker on one machine, under one state directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cli.ports import free_port, require_free
from cli.processes import Child, is_alive, spawn, stop_processes, tail, wait_until_ready
from configs.errors import StackError
from configs.loader import cache_dir
from configs.paths import StateDir
from configs.schema import Config
from flows.context import CONFIG_VARIABLE, open_context, write_resolved

Say = Callable[[str], None]


@dataclass(frozen=True)
class StackInfo:
    """Where the parts of a running stack are."""

    state_dir: str
    gateway_url: str
    prefect_api_url: str
    prefect_ui_url: str
    mlflow_url: str

    def as_dict(self) -> dict[str, str]:
        """For `--json`."""
        return asdict(self)


def prefect_environment(config: Config, state: StateDir) -> dict[str, str]:
    """Prefect's settings for server, worker and flow runs: no telemetry, durable leases, quick heartbeats."""
    home = state.root / "prefect"
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_API_URL": config.stack.prefect_url or f"http://127.0.0.1:{config.stack.prefect_port}/api",
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_CLI_COLORS": "false",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_WORKER_QUERY_SECONDS": str(config.stack.worker_poll_s),
        "PREFECT_WORKER_PREFETCH_SECONDS": "2",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(int(config.stack.heartbeat_s)),
        # In memory by default: restarting the server would crash running training minutes later.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        # Any page in a browser on this machine could otherwise make a deployment, and the worker would run it.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(
            f"http://{name}:{config.stack.prefect_port}" for name in ("127.0.0.1", "localhost")
        ),
    }


def offline_environment() -> dict[str, str]:
    """No telemetry and no hub for every child."""
    return {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GX_ANALYTICS_ENABLED": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }


def _mlflow_environment() -> dict[str, str]:
    return {
        **offline_environment(),
        # Each of seven helper processes would take 0.2 GB; nothing here uses MLflow's jobs.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def _commands(config: Config, state: StateDir, config_path: Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    python = sys.executable
    flow_environment = {
        **offline_environment(),
        **prefect_environment(config, state),
        CONFIG_VARIABLE: str(config_path),
    }
    mlflow_root = state.root / "mlflow"
    return {
        "prefect": (
            [
                python,
                "-m",
                "prefect",
                "server",
                "start",
                "--host",
                "127.0.0.1",
                "--port",
                str(config.stack.prefect_port),
            ],
            flow_environment,
        ),
        "mlflow": (
            [
                *[python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(config.stack.mlflow_port)],
                *["--workers", "1", "--backend-store-uri", f"sqlite:///{mlflow_root / 'mlflow.db'}"],
                *["--artifacts-destination", (mlflow_root / "artifacts").as_uri()],
            ],
            _mlflow_environment(),
        ),
        "gateway": (
            [python, "-m", "serving.main", "--config", str(config_path)],
            offline_environment(),
        ),
        "worker": (
            [python, "-m", "prefect", "worker", "start", "--pool", config.stack.work_pool, "--type", "process"],
            flow_environment,
        ),
    }


def with_ports(config: Config) -> Config:
    """Give a real port where the profile says 0."""
    serving = config.serving.model_copy(update={"port": config.serving.port or free_port()})
    stack = config.stack.model_copy(
        update={
            "prefect_port": config.stack.prefect_port or free_port(),
            "mlflow_port": config.stack.mlflow_port or free_port(),
        }
    )
    return config.model_copy(update={"serving": serving, "stack": stack})


def info_of(config: Config) -> StackInfo:
    """The URLs of a profile with real ports."""
    api = config.stack.prefect_url or f"http://127.0.0.1:{config.stack.prefect_port}/api"
    return StackInfo(
        state_dir=str(StateDir.of(config).root),
        gateway_url=f"http://{config.serving.host}:{config.serving.port}",
        prefect_api_url=api,
        prefect_ui_url=api.removesuffix("/api"),
        mlflow_url=config.registry.uri or f"http://127.0.0.1:{config.stack.mlflow_port}",
    )


def _wanted(config: Config) -> list[str]:
    """The servers this profile runs itself, in the order they start."""
    names = [] if config.stack.prefect_url else ["prefect"]
    names += [] if config.registry.uri else ["mlflow"]
    return [*names, "gateway"]


def read_stack(state: StateDir) -> tuple[StackInfo, list[Child]] | None:
    """What the stack file says, or None."""
    try:
        data: dict[str, Any] = json.loads(state.stack_file.read_text(encoding="utf-8"))
        return StackInfo(**data["info"]), [Child(**child) for child in data["children"]]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StackError(
            "the stack file cannot be read",
            where=state.stack_file,
            found=f"{type(error).__name__}: {error}",
            fix="end what it named by hand (ids are in logs/), then delete it",
        ) from error


def _write_stack(state: StateDir, info: StackInfo, children: list[Child]) -> None:
    data = {"info": info.as_dict(), "children": [child.as_dict() for child in children]}
    temporary = state.stack_file.with_suffix(".tmp")
    temporary.write_text(json.dumps(data, indent=1), encoding="utf-8")
    temporary.replace(state.stack_file)


def deploy_flows(config: Config) -> str:
    """Make deployments and automations on the profile's Prefect server; returns their ids as JSON."""
    config_path = write_resolved(config)
    state = StateDir.of(config)
    return _deploy({**prefect_environment(config, state), CONFIG_VARIABLE: str(config_path)})


def _deploy(environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "flows.deployments"], env={**os.environ, **environment}, capture_output=True, text=True
    )
    if done.returncode:
        found = " / ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise StackError(
            "the deployments could not be made",
            where=environment["PREFECT_API_URL"],
            found=found,
            fix="is the Prefect server up? `tidemill doctor` tells",
        )
    return done.stdout.strip().splitlines()[-1]


def fetch_models(config: Config, say: Say) -> None:
    """Bring the models into the cache now, with words, rather than in the gateway's first minute without.

    Raises:
        ModelUnavailableError: neither cached nor reachable.
    """
    from models.cache import resolve

    references = [config.model.base] + ([config.model.embedder] if config.drift.enabled else [])
    for reference in references:
        resolve(reference, cache_dir(config), say)


def start(config: Config, state: StateDir, *, say: Say = lambda _: None) -> StackInfo:
    """Start everything and return when it answers.

    Raises:
        StackError: it runs already, a port is in use, or a server does not come up; whatever was started is stopped.
    """
    running = read_stack(state)
    if running and any(is_alive(child) for child in running[1]):
        raise StackError("a stack runs already", where=state.root, fix="run `tidemill down` first")
    config = with_ports(config)
    for what, port in (("prefect", config.stack.prefect_port), ("mlflow", config.stack.mlflow_port)):
        if what in _wanted(config):
            require_free("127.0.0.1", port, what)
    require_free(config.serving.host, config.serving.port, "gateway")
    fetch_models(config, say)
    for name in ("prefect", "mlflow/artifacts"):
        (state.root / name).mkdir(parents=True, exist_ok=True)
    context = open_context(config)  # migrates; refuses a database from a newer Tidemill
    context.store.close()
    config_path = write_resolved(config)
    info = info_of(config)
    children: list[Child] = []
    try:
        _start_children(config, state, config_path, info, children, say)
    except BaseException:
        stop_processes(children)
        state.stack_file.unlink(missing_ok=True)
        raise
    return info


def _start_children(
    config: Config, state: StateDir, config_path: Path, info: StackInfo, children: list[Child], say: Say
) -> None:
    commands = _commands(config, state, config_path)
    health = {
        "prefect": f"{info.prefect_api_url}/health",
        "mlflow": f"{info.mlflow_url}/health",
        "gateway": f"{info.gateway_url}/health",
    }
    for name in _wanted(config):
        command, environment = commands[name]
        children.append(spawn(name, command, environment, state.logs / f"{name}.log"))
        _write_stack(state, info, children)
    for child in list(children):
        wait_until_ready(child, health[child.name], config.stack.start_timeout_s)
        say(f"{child.name} answers at {health[child.name].removesuffix('/health')}")
    command, environment = commands["worker"]
    _deploy(environment)
    worker = spawn("worker", command, environment, state.logs / "worker.log")
    children.append(worker)
    _write_stack(state, info, children)
    if not is_alive(worker):
        raise StackError("the worker ended at start", where=worker.log, found=tail(worker.log))
    say(f"worker serves pool {config.stack.work_pool}")


def stop(state: StateDir) -> int:
    """Stop what the stack file names; returns how many processes were running."""
    known = read_stack(state)
    if known is None:
        return 0
    alive = [child for child in known[1] if is_alive(child)]
    # The worker first, so that it starts nothing while the servers go.
    stop_processes([c for c in alive if c.name == "worker"])
    stop_processes([c for c in alive if c.name != "worker"])
    state.stack_file.unlink(missing_ok=True)
    return len(alive)
