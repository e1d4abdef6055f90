import os
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError
from store_samples import MODEL, interaction

from configs.errors import SchemaTooNewError, StoreError
from store import interactions
from store.engine import HEAD, REVISIONS, Store, migrate
from store.tables import metadata


def test_open_twice_keeps_what_is_there(store_url: str) -> None:
    first = Store.open(store_url)
    with first.write() as conn:
        interactions.insert(conn, [interaction("i1")])
    first.close()
    second = Store.open(store_url, create=False)
    with second.read() as conn:
        assert interactions.count(conn, MODEL) == 1
    second.close()


def test_many_processes_opening_an_empty_database_migrate_it_once(store_url: str) -> None:
    script = "import sys; from store.engine import Store; Store.open(sys.argv[1]).close()"
    workers = [subprocess.Popen([sys.executable, "-c", script, store_url]) for _ in range(4)]
    assert [w.wait(60) for w in workers] == [0] * 4
    opened = Store.open(store_url, create=False)
    with opened.read() as conn:
        assert conn.execute(text("SELECT count(*) FROM alembic_version")).scalar_one() == 1
        assert conn.execute(text("SELECT count(*) FROM counters")).scalar_one() == 3
    opened.close()


def test_a_newer_schema_is_refused_and_left_alone(store_url: str) -> None:
    opened = Store.open(store_url)
    with opened.write() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    opened.close()
    for create in (True, False):
        with pytest.raises(SchemaTooNewError, match="9999"):
            Store.open(store_url, create=create)


def test_without_create_an_empty_database_is_an_error(store_url: str) -> None:
    with pytest.raises(StoreError, match="tidemill up"):
        Store.open(store_url, create=False)


def test_migrated_schema_is_the_metadata(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with store.read() as conn:
        context = MigrationContext.configure(conn, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        names = set(inspect(conn).get_table_names())
    assert names == {*metadata.tables, "alembic_version"}
    assert len(names) > 15


def test_partial_indexes_hold_one_open_row_per_model(store: Store) -> None:
    query = {
        "sqlite": "SELECT sql FROM sqlite_master WHERE name LIKE 'uq_%_one_open'",
        "postgresql": "SELECT indexdef FROM pg_indexes WHERE indexname LIKE 'uq_%_one_open'",
    }[store.dialect]
    with store.read() as conn:
        definitions = conn.execute(text(query)).scalars().all()
    assert len(definitions) == 2
    assert all("UNIQUE" in d and "WHERE" in d for d in definitions)


def test_known_revisions_are_the_scripts() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    import store.migrations

    config = Config()
    config.set_main_option("script_location", str(Path(store.migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_current_head() == HEAD
    assert [s.revision for s in reversed(list(scripts.walk_revisions()))] == list(REVISIONS)


def test_a_failing_migration_leaves_everything_as_it_was(store_url: str) -> None:
    opened = Store.open(store_url)
    opened.close()

    def migrate_over_a_left_table() -> None:
        with opened.write() as conn:
            for table in reversed(metadata.sorted_tables):
                if table.name != "interactions":
                    conn.execute(text(f"DROP TABLE {table.name}"))
            conn.execute(text("DELETE FROM alembic_version"))
            migrate(conn)

    with pytest.raises(DBAPIError):
        migrate_over_a_left_table()
    with opened.read() as conn:
        assert conn.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == HEAD
        assert set(metadata.tables) < set(inspect(conn).get_table_names())
    opened.close()


def test_an_exception_rolls_back(store: Store) -> None:
    def fail_halfway() -> None:
        with store.write() as conn:
            interactions.insert(conn, [interaction("i1")])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    with store.read() as conn:
        assert interactions.get(conn, "i1") is None
        assert interactions.latest_seq(conn) == 0


def test_a_write_in_a_reading_transaction_fails(store: Store) -> None:
    with pytest.raises(DBAPIError, match=r"read-?only"), store.read() as conn:
        interactions.insert(conn, [interaction("i1")])
    with store.write() as conn:
        interactions.insert(conn, [interaction("i1")])


def test_a_nested_write_is_refused_at_once(store: Store) -> None:
    with pytest.raises(StoreError, match="inside another"), store.write(), store.write():
        pass
    with store.write() as conn:
        interactions.insert(conn, [interaction("i1")])


def test_writers_in_many_threads_lose_nothing_and_number_without_gaps(store: Store) -> None:
    def work(n: int) -> None:
        for k in range(5):
            with store.write() as conn:
                interactions.insert(conn, [interaction(f"i{n}-{k}")])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as conn:
        assert [seq for seq, _ in interactions.since(conn, MODEL, 0)] == list(range(1, 101))


def test_sqlite_is_durable_and_private(tmp_path: Path) -> None:
    path = tmp_path / "below" / "store.db"
    opened = Store.open(f"sqlite:///{path}")
    with opened.read() as conn:
        pragmas = {
            name: conn.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "secure_delete")
        }
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000, "secure_delete": 1}
    assert pragmas == expected
    assert path.stat().st_mode & 0o077 == 0
    opened.close()


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///:memory:", "mysql://u@h/d", "nonsense", "postgresql+nodriver://u@h:x/d"]
)
def test_an_address_that_cannot_be_used_is_a_clear_error(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        Store.open(url)
    assert caught.value.expected or caught.value.fix


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    with pytest.raises(StoreError) as caught:
        Store.open("postgresql://ann:topsecret@127.0.0.1:1/none")
    assert "127.0.0.1" in str(caught.value)
    assert "topsecret" not in str(caught.value)


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(os.urandom(8192))
    with pytest.raises(StoreError, match="not a database"):
        Store.open(f"sqlite:///{path}")


def test_the_distribution_ships_the_migrations() -> None:
    import store.migrations

    folder = Path(store.migrations.__file__).parent
    settings = tomllib.loads((folder.parents[1] / "pyproject.toml").read_text())["tool"]["setuptools"]
    scripts = sorted(path.name for path in folder.rglob("*.py"))
    assert [name[:4] for name in scripts if name[0].isdigit()] == list(REVISIONS)
    assert [name for name in scripts if not name[0].isdigit()] == ["__init__.py", "__init__.py", "env.py"]
    assert {"store.migrations", "store.migrations.versions"} <= set(settings["packages"])
    assert settings["package-data"]["store.migrations"] == ["script.py.mako"]
