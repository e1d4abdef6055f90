"""What Prefect is told, it keeps beyond the reach of an erasure: ids and figures only. And the scan reads all of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from configs.errors import RegistryError, StaleTokenError, StoreError
from flows.erasure_scan import Needles
from flows.observer import PrintObserver
from flows.prefect_contents import contents
from flows.prefect_flows import quiet_errors
from flows.watch import watch
from store import audit
from tests.flows.erasure_world import PROMPT, TEXTS, build

FLOW = """
from flows.prefect_observer import PrefectObserver
from prefect import flow, task

@task
def work(text):
    return 1

@flow(flow_run_name="run with {text}")
def tell(text):
    observer = PrefectObserver("told")
    observer.log("a line: " + text)
    observer.table("rows", [{"x": text}], "a table")
    observer.markdown("summary", "# " + text, "a summary")
    work(text)

tell("a heliotrope kettle")
"""


@pytest.fixture(scope="module")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prefect server on a random port with its own home: its API URL."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    environment |= {"DO_NOT_TRACK": "1", "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log = (home / "server.log").open("wb")
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    url = f"http://127.0.0.1:{port}/api"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"{url}/health", timeout=5).is_success:
                    break
            except httpx.HTTPError:
                pass
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail((home / "server.log").read_text(errors="replace")[-2000:])
            time.sleep(0.5)
        told = {**environment, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-c", FLOW]
        done = subprocess.run(command, env=told, timeout=120, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        log.close()


@pytest.mark.slow
@pytest.mark.stack
def test_the_scan_reads_runs_parameters_logs_and_artifacts(prefect_server: str) -> None:
    needles = Needles("nobody", ["a heliotrope kettle"])
    deadline = time.monotonic() + 30  # logs arrive a moment later
    while True:
        kinds = {where.split()[0] for where, content in contents(prefect_server) if needles.in_bytes(content)}
        if kinds >= {"flow_runs", "logs", "artifacts"} or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert kinds >= {"flow_runs", "logs", "artifacts"}
    assert not [
        where for where, content in contents(prefect_server) if Needles("nobody", ["xylograph"]).in_bytes(content)
    ]


def test_a_server_that_does_not_answer_is_an_error() -> None:
    with pytest.raises(RegistryError, match="Prefect does not answer"):
        list(contents("http://127.0.0.1:9/api"))


class Listening(PrintObserver):
    """Keeps every word it is told, of tables and summaries too."""

    def table(self, key: str, rows: object, title: str) -> None:
        self.lines.append(f"{key} {title} {rows}")

    def markdown(self, key: str, text: str, title: str) -> None:
        self.lines.append(f"{key} {title} {text}")


def test_the_watch_tells_no_words_of_anybody(tmp_path: Path) -> None:
    from flows.delivery import MemoryScheduler

    world = build(tmp_path / "state")
    observer, scheduler = Listening(quiet=True), MemoryScheduler()
    result = watch(world.context, scheduler, observer)
    assert result is not None
    assert result.request is not None
    told = "\n".join([*observer.lines, repr(scheduler.events), result.request.title])
    needles = Needles("ottilie", TEXTS)
    assert "heliotrope" not in told
    assert needles.in_bytes(told.encode()) == set()
    with world.context.store.read() as conn:
        for entry in audit.entries(conn, 500):
            assert "heliotrope" not in entry.model_dump_json()
    world.context.store.close()


def test_an_error_keeps_its_class_and_loses_the_words_it_quotes() -> None:
    with pytest.raises(StoreError) as caught, quiet_errors():
        raise StoreError("a row was refused", where="feedback", found=PROMPT, fix="see the ledger")
    assert "heliotrope" not in str(caught.value)
    assert "see the ledger" in str(caught.value)
    assert caught.value.__cause__ is None
    with pytest.raises(RuntimeError) as other, quiet_errors():
        raise ValueError(f"cannot read {PROMPT!r}")
    assert "heliotrope" not in str(other.value)
    assert "ValueError" in str(other.value)
    with pytest.raises(StaleTokenError), quiet_errors():
        raise StaleTokenError("taken over", found="token 3")
