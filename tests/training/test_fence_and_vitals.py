"""Small things a trainer carries: whose folder it is, and what it uses of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.errors import StaleTokenError, TrainingError
from training import fence
from training.vitals import Vitals


def test_a_folder_is_the_newest_claims(tmp_path: Path) -> None:
    folder = tmp_path / "training"
    fence.take(folder, 0)
    assert not folder.exists(), "work without a claim puts up nothing"
    fence.take(folder, 2)
    fence.check(folder, 2)
    with pytest.raises(StaleTokenError, match="taken this training over"):
        fence.take(folder, 1)
    fence.take(folder, 2)
    fence.take(folder, 3)
    for stale in (0, 2):
        with pytest.raises(StaleTokenError) as caught:
            fence.check(folder, stale)
        assert (caught.value.expected, caught.value.found) == ("claim 3", f"claim {stale}")
    assert [path.name for path in folder.iterdir()] == [fence.FILE]
    for torn in ("", "x"):
        (folder / fence.FILE).write_text(torn)
        with pytest.raises(TrainingError, match="cannot be read") as unread:
            fence.take(folder, 4)
        assert "remove the file" in str(unread.value.fix)


def test_the_machine_is_asked_now_and_then_and_not_at_every_step() -> None:
    now = 0.0
    vitals = Vitals("cpu", every_s=5.0, clock=lambda: now)
    first = vitals.read()
    assert first.keys() == {"cpu_percent", "memory_mb", "memory_free_mb"}
    assert 10 < first["memory_mb"] < 100_000
    assert first["memory_free_mb"] > 0
    assert vitals.read() == {}
    now = 4.9
    assert vitals.read() == {}
    now = 5.1
    assert vitals.read().keys() == first.keys()
