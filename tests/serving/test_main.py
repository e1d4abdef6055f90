"""The gateway as a process: what it imports, how it starts, fails and stops."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from serving_helpers import MODEL, config_for, wait_for

ROOT = Path(__file__).parents[2]


def resolved(tmp_path: Path, **serving: object) -> Path:
    config = config_for(tmp_path, serving=serving, model={"base": "tiny:0", "threads": 1})
    path = tmp_path / "config.json"
    path.write_text(config.model_dump_json())
    return path


def test_the_gateway_imports_neither_prefect_nor_mlflow_and_no_torch_at_start() -> None:
    code = (
        "import sys, serving.app, serving.main, serving.controller, serving.engines.transformers_engine\n"
        "heavy = {'prefect', 'mlflow', 'torch', 'transformers', 'peft', 'pandas', 'great_expectations', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_served_request_needs_neither_prefect_nor_mlflow(tmp_path: Path) -> None:
    code = f"""
import sys, json, pathlib
from fastapi.testclient import TestClient
from configs.paths import StateDir
from serving.app import create_app
from serving.main import read_config
config = read_config(pathlib.Path({str(resolved(tmp_path))!r}))
import time
app = create_app(config, StateDir.of(config))
with TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:
    while client.get("/health").status_code != 200:
        time.sleep(0.1)
    body = {{"model": "{MODEL}", "messages": [{{"role": "user", "content": "hi"}}], "max_tokens": 4}}
    answer = client.post("/v1/chat/completions", json=body)
    item = {{"request_id": answer.json()["id"], "kind": "thumb", "thumb": 1}}
    told = client.post("/feedback", json=item).json()["status"]
print(json.dumps([answer.status_code, told, sorted({{"prefect", "mlflow"}} & set(sys.modules))]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [200, "accepted", []]


def test_a_process_serves_and_ends_cleanly_on_sigterm(tmp_path: Path) -> None:
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.main", "--config", resolved(tmp_path, port=0)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        assert (line["event"], line["pid"]) == ("listening", process.pid)

        def healthy() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            return httpx.get(f"{line['url']}/health", timeout=30).status_code == 200

        wait_for(healthy, 90)
        body = {"model": MODEL, "messages": [{"role": "user", "content": "zebra"}], "max_tokens": 4}
        assert httpx.post(f"{line['url']}/v1/chat/completions", json=body, timeout=30).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        log.close()
        assert process.stdout is not None
        process.stdout.close()
    assert "zebra" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("case", ["port in use", "no file", "not json", "unknown key"])
def test_what_prevents_a_start_is_one_line_and_an_exit_code(tmp_path: Path, case: str) -> None:
    path, expected = tmp_path / "config.json", 2
    with socket.socket() as taken:
        if case == "port in use":
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            path, expected = resolved(tmp_path, port=taken.getsockname()[1]), 16
        elif case == "not json":
            path.write_text("{")
        elif case == "unknown key":
            path.write_text('{"servin": {}}')
        done = subprocess.run(
            [sys.executable, "-m", "serving.main", "--config", path], cwd=ROOT, capture_output=True, text=True
        )
    assert done.returncode == expected
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    if case == "port in use":
        assert str(path) not in done.stderr
        assert "serving.port" in done.stderr
