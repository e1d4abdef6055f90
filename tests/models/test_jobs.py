import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from configs.errors import EvaluationError, SnapshotError, TrainingError
from models.jobs import run_job, write_json

CHILD = """
import os, sys, time
from configs.errors import SnapshotError
from models.jobs import JobStopped, serve_job

def run(job, emit, stop):
    print("a library prints to stdout")
    emit({"event": "progress", "pid": os.getpid(), "threads": os.environ.get("OMP_NUM_THREADS")})
    kind = job["kind"]
    if kind == "error":
        raise SnapshotError("bad rows", where="rows.parquet", fix="mend them")
    if kind == "crash":
        raise ZeroDivisionError("half way")
    if kind == "die":
        print("last words", file=sys.stderr, flush=True); os._exit(7)
    if kind == "wait":
        while not stop.wait(0.05):
            pass
        open(job["saved"], "w").close()
        raise JobStopped
    return {"answer": job["n"] + 1}

if __name__ == "__main__":
    raise SystemExit(serve_job(run))
"""


@pytest.fixture
def child(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "evaluation_child.py").write_text(CHILD)
    return {"PYTHONPATH": str(tmp_path)}


def _gone(pid: int, within_s: float = 10.0) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_events_come_in_order_and_library_prints_go_to_the_log(tmp_path: Path, child):
    events: list[dict] = []
    final = run_job("evaluation_child", {"kind": "ok", "n": 1, "threads": 1}, tmp_path / "w", events.append, child)
    assert final == {"event": "done", "answer": 2}
    assert [e["event"] for e in events] == ["progress", "done"]
    assert events[0]["threads"] == "1"
    assert "a library prints" in (tmp_path / "w" / "evaluation_child.log").read_text()


def test_the_childs_error_keeps_its_class_and_its_facts(tmp_path: Path, child):
    with pytest.raises(SnapshotError, match="bad rows") as caught:
        run_job("evaluation_child", {"kind": "error"}, tmp_path, lambda e: None, child)
    assert (caught.value.where, caught.value.fix) == ("rows.parquet", "mend them")


def test_an_unforeseen_error_and_a_sudden_death_are_reported_with_the_log(tmp_path: Path, child):
    with pytest.raises(TrainingError, match="ZeroDivisionError: half way"):
        run_job("evaluation_child", {"kind": "crash"}, tmp_path, lambda e: None, child)
    with pytest.raises(TrainingError, match="last words"):
        run_job("evaluation_child", {"kind": "die"}, tmp_path, lambda e: None, child)
    with pytest.raises(EvaluationError, match="ended unexpectedly"):
        run_job("evaluation.no_such_module", {}, tmp_path, lambda e: None)


def test_an_exception_in_the_parent_stops_the_child_after_it_saved(tmp_path: Path, child):
    pids: list[int] = []

    def on_event(event: dict) -> None:
        pids.append(event["pid"])
        raise KeyboardInterrupt

    saved = tmp_path / "saved"
    with pytest.raises(KeyboardInterrupt):
        run_job("evaluation_child", {"kind": "wait", "saved": str(saved)}, tmp_path, on_event, child)
    assert saved.exists()
    assert _gone(pids[0])


def test_the_child_ends_when_its_parent_is_killed(tmp_path: Path, child):
    saved = tmp_path / "saved"
    code = (
        "import sys; from pathlib import Path; from models.jobs import run_job\n"
        f"run_job('evaluation_child', {{'kind': 'wait', 'saved': {str(saved)!r}}}, Path({str(tmp_path)!r}),"
        " lambda e: print(e['pid'], flush=True))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, **child})
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert _gone(pid)
    assert saved.exists()


def test_a_job_file_is_whole_or_absent(tmp_path: Path):
    path = tmp_path / "deep" / "job.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": 2})
    assert path.read_text() == '{"a": 2}'
    assert [p.name for p in path.parent.iterdir()] == ["job.json"]
