"""Aliases follow the pointer: delivered once, newest wins, nothing lost while the registry is down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from registry_samples import artifact, wanted

from configs.errors import RegistryError
from registry_hooks.memory import MemoryRegistry
from registry_hooks.outbox import deliver_aliases
from store import audit, outbox
from store.engine import Store

MODEL = "support-bot"


class Unsteady(MemoryRegistry):
    """A registry that can be down."""

    down = False

    def set_alias(self, model: str, alias: str, number: int | None) -> None:
        if self.down:
            raise RegistryError("down")
        super().set_alias(model, alias, number)

    @contextmanager
    def outage(self) -> Iterator[None]:
        self.down = True
        yield
        self.down = False


@pytest.fixture
def registry(tmp_path: Path) -> Unsteady:
    made = Unsteady()
    for n in (1, 2, 3):
        made.register(wanted(artifact(tmp_path, n), MODEL))
    return made


def say(store: Store, key: str, alias: str, version: int | None, field: str = "version") -> None:
    with store.write() as conn:
        outbox.add(conn, "alias", key, {"model": MODEL, "alias": alias, field: version})


def test_aliases_are_set_once(store: Store, registry: Unsteady) -> None:
    say(store, "1", "champion", 2)
    say(store, "2", "previous", 1, field="number")
    assert deliver_aliases(store, registry) == 2
    assert (registry.get_alias(MODEL, "champion"), registry.get_alias(MODEL, "previous")) == (2, 1)
    assert deliver_aliases(store, registry) == 0


def test_the_newest_of_several_wins_also_after_an_outage(sqlite_store: Store, registry: Unsteady) -> None:
    with registry.outage():
        for n in (1, 2, 3):
            say(sqlite_store, f"k{n}", "champion", n)
            with pytest.raises(RegistryError):
                deliver_aliases(sqlite_store, registry)
    assert registry.get_alias(MODEL, "champion") is None
    assert deliver_aliases(sqlite_store, registry) == 1
    assert registry.get_alias(MODEL, "champion") == 3
    assert deliver_aliases(sqlite_store, registry) == 0


def test_null_removes_an_alias(sqlite_store: Store, registry: Unsteady) -> None:
    registry.set_alias(MODEL, "champion", 1)
    say(sqlite_store, "1", "champion", None)
    deliver_aliases(sqlite_store, registry)
    assert registry.get_alias(MODEL, "champion") is None


def test_a_version_that_was_deleted_does_not_hold_up_the_others(sqlite_store: Store, registry: Unsteady) -> None:
    say(sqlite_store, "1", "candidate", 99)
    say(sqlite_store, "2", "champion", 1)
    assert deliver_aliases(sqlite_store, registry) == 1
    assert registry.get_alias(MODEL, "champion") == 1
    with sqlite_store.read() as conn:
        assert outbox.pending(conn) == []
        assert [entry.action for entry in audit.entries(conn)] == ["alias.skipped"]
        assert audit.verify(conn) == 1


def test_other_kinds_of_messages_are_left_alone(sqlite_store: Store, registry: Unsteady) -> None:
    with sqlite_store.write() as conn:
        outbox.add(conn, "event", "e1", {})
    assert deliver_aliases(sqlite_store, registry) == 0
    with sqlite_store.read() as conn:
        assert [row.kind for row in outbox.pending(conn)] == ["event"]
