import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from configs.errors import EvaluationError, SnapshotError, TrainingError, WorkerLostError
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
        open(job["saved"] + os.environ.get("RANK", ""), "w").close()
        raise JobStopped
    if kind == "together" and os.environ["RANK"] == "1":
        raise SnapshotError("bad rows on one of two")
    if kind == "together":
        time.sleep(1.0)
        raise RuntimeError("somebody is gone")
    return {"answer": job["n"] + 1}

if __name__ == "__main__":
    rank = os.environ.get("RANK")
    raise SystemExit(serve_job(run, rank=rank and int(rank), local_rank=int(rank or 0)))
"""
LAUNCHER = """
import os, subprocess, sys
ranks = [
    subprocess.Popen(
        [sys.executable, "-m", *sys.argv[1:]], env={**os.environ, "RANK": str(n)}, start_new_session=True
    )
    for n in range(2)
]
sys.exit(any(rank.wait() for rank in ranks))
"""


@pytest.fixture
def child(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "evaluation_child.py").write_text(CHILD)
    return {"PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).parents[2]}"}


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
    with pytest.raises(WorkerLostError, match=r"evaluation_child\.log: exit code 7.*last words"):
        run_job(
            "evaluation_child", {"kind": "die"}, tmp_path, lambda e: None, child,
            unsaid=lambda log, found: WorkerLostError(f"{log.name}: {found}".replace("\n", " ")),
        )  # fmt: skip
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


def test_of_several_processes_one_speaks_any_may_fail_and_the_first_error_counts(tmp_path: Path, child):
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    launcher, events = [str(tmp_path / "launcher.py")], []
    final = run_job("evaluation_child", {"kind": "ok", "n": 1}, tmp_path, events.append, child, launcher)
    assert final == {"event": "done", "answer": 2}
    assert [e["event"] for e in events] == ["progress", "done"], "once, not from each"
    with pytest.raises(SnapshotError, match="bad rows on one of two"):
        run_job("evaluation_child", {"kind": "together"}, tmp_path, events.append, child, launcher)


def test_the_processes_of_a_launcher_that_was_killed_save_and_end(tmp_path: Path, child):
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    pids: list[int] = []

    def kill(event: dict) -> None:
        parent = psutil.Process(psutil.Process(event["pid"]).ppid())
        pids.extend(each.pid for each in parent.children())
        parent.kill()

    job = {"kind": "wait", "saved": str(tmp_path / "saved")}
    with pytest.raises(WorkerLostError, match="was stopped before it finished"):
        run_job("evaluation_child", job, tmp_path, kill, child, [str(tmp_path / "launcher.py")])
    assert len(pids) == 2
    assert all(_gone(pid) for pid in pids)
    assert {path.name for path in tmp_path.glob("saved*")} == {"saved0", "saved1"}


def test_a_job_file_is_whole_or_absent(tmp_path: Path):
    path = tmp_path / "deep" / "job.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": 2})
    assert path.read_text() == '{"a": 2}'
    assert [p.name for p in path.parent.iterdir()] == ["job.json"]
