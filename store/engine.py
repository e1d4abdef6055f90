"""Opening the store: SQLite or PostgreSQL, migrated to the schema this Tidemill knows."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from configs.errors import SchemaTooNewError, StoreError
from store.rows import WRITE_OPTION

HEAD = "0006"
"""The newest migration's revision (a test compares it with the scripts)."""
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006")
"""All revisions this Tidemill knows, oldest first."""
BUSY_TIMEOUT_MS = 30_000
_SCRUB_TRIES = 3
"""Each waits for readers and writers as long as `BUSY_TIMEOUT_MS`."""
_MIGRATION_LOCK = 0x7469_6465  # "tide": PostgreSQL advisory lock, one migration at a time


class Store:
    """A database and the two kinds of transaction: `write` and `read`."""

    def __init__(self, engine: Engine, url: str) -> None:
        self.engine = engine
        self.url = url
        self.dialect: str = engine.dialect.name
        self._writing = threading.local()
        # SQLite has one writer: queueing here is fair, polling for its lock file is not.
        self._turn = threading.Lock()

    @classmethod
    def open(cls, url: str, *, create: bool = True) -> Store:
        """Open the database at `url` (SQLAlchemy URL, `sqlite:///PATH` or `postgresql://...`).

        Args:
            url: where the facts live.
            create: make or migrate the schema; without it the schema must be there and up to date.

        Raises:
            SchemaTooNewError: the database was written by a newer Tidemill.
            StoreError: the database cannot be reached, or is not one of ours.
        """
        store = cls(_engine(url, create), url)
        try:
            store._bring_up_to_date(create)
        except DBAPIError as error:
            store.close()
            raise StoreError(
                "The store cannot be opened.",
                where=_shown(url),
                found=str(error.orig).strip(),
                fix="check the address, the permissions and that the database server runs",
            ) from error
        except BaseException:
            store.close()
            raise
        return store

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is committed at the end, or rolled back on an exception.

        Do not open one inside another in the same thread, and do not wait for a network in one:
        on SQLite it excludes every other writer.
        """
        if getattr(self._writing, "now", False):
            raise StoreError(
                "A write transaction was opened inside another one.",
                where=_shown(self.url),
                fix="pass the connection on",
            )
        self._writing.now = True
        try:
            if self.dialect == "sqlite":
                with self._turn, self._begin(write=True) as conn:
                    yield conn
            else:
                with self._begin(write=True) as conn:
                    yield conn
        finally:
            self._writing.now = False

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A read-only transaction; a write in it fails."""
        with self._begin(write=False) as conn:
            yield conn

    @contextmanager
    def _begin(self, *, write: bool) -> Iterator[Connection]:
        options: dict[str, Any] = {WRITE_OPTION: write}
        if self.dialect == "postgresql":
            options["postgresql_readonly"] = not write
        with self.engine.connect().execution_options(**options) as conn, conn.begin():
            yield conn

    def scrub(self, *, rewrite: bool) -> None:
        """SQLite: empty the write-ahead log into the file; with `rewrite` write the whole file anew first.

        Raises:
            StoreError: others read or write without a pause; nothing is wrong, try again.
        """
        if self.dialect != "sqlite":
            return
        with self._turn, self.engine.connect() as conn:
            raw = conn.connection.driver_connection
            if raw is None:
                raise AssertionError("a connection without a driver's")
            raw.execute("PRAGMA query_only = OFF").close()
            if rewrite:
                raw.execute("VACUUM").close()
            for _ in range(_SCRUB_TRIES):
                busy = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                if not busy:
                    return
                time.sleep(0.1)
        raise StoreError(
            "The write-ahead log cannot be emptied: readers hold it.", where=_shown(self.url), fix="try again later"
        )

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _bring_up_to_date(self, create: bool) -> None:
        with self.read() as conn:
            found = _revision(conn)
        if found is not None and found not in REVISIONS:
            raise SchemaTooNewError(
                "The store was written by a newer Tidemill.",
                where=_shown(self.url),
                expected=f"schema {HEAD} or older",
                found=f"schema {found}",
                fix="upgrade Tidemill, or open a copy of the state directory from before the upgrade",
            )
        if found == HEAD:
            return
        if not create:
            raise StoreError(
                "The store is not set up.",
                where=_shown(self.url),
                expected=f"schema {HEAD}",
                found="an empty database" if found is None else f"schema {found}",
                fix="run `tidemill up` (or `tidemill doctor`) once",
            )
        with self.write() as conn:
            if self.dialect == "postgresql":
                conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
            if _revision(conn) != HEAD:
                migrate(conn)


def migrate(conn: Connection, revision: str = HEAD) -> None:
    """Run the migrations up to `revision` in the connection's transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = conn
    command.upgrade(config, revision)


def _revision(conn: Connection) -> str | None:
    if not inspect(conn).has_table("alembic_version"):
        return None
    return conn.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _shown(url: str) -> str:
    return make_url(url).render_as_string(hide_password=True)


def _engine(url: str, create: bool) -> Engine:
    try:
        address = make_url(url)
        if address.get_backend_name() == "sqlite":
            return _sqlite(address, create)
        if address.get_backend_name() == "postgresql":
            address = address.set(drivername="postgresql+psycopg")
            return create_engine(
                address, pool_pre_ping=True, pool_size=5, max_overflow=20, connect_args={"connect_timeout": 10}
            )
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
        raise StoreError(
            "The store's address cannot be used.",
            where="store.url",
            expected="sqlite:///PATH or postgresql://USER@HOST/DATABASE",
            found=type(error).__name__,
            fix="for PostgreSQL install `tidemill[postgres]`",
        ) from error
    raise StoreError(
        "The store's address names a database that is not supported.",
        where="store.url",
        expected="sqlite:///PATH or postgresql://USER@HOST/DATABASE",
        found=address.drivername,
    )


def _sqlite(address: URL, create: bool) -> Engine:
    path = address.database
    if not path or path == ":memory:" or path.startswith("file:"):
        raise StoreError(
            "The store needs a file: other processes open it too.",
            where="store.url",
            expected="sqlite:///PATH",
            found=str(address),
        )
    if create:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch(mode=0o600)
    elif not Path(path).is_file():
        raise StoreError("There is no store yet.", where=path, fix="run `tidemill up` once")
    engine = create_engine(
        address.set(drivername="sqlite+pysqlite"),
        pool_size=10,
        max_overflow=90,
        connect_args={"timeout": BUSY_TIMEOUT_MS / 1000},
    )
    event.listen(engine, "connect", _sqlite_connect)
    event.listen(engine, "begin", _sqlite_begin)
    return engine


def _sqlite_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    for pragma in (
        f"busy_timeout = {BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "secure_delete = ON",  # what is deleted or changed is overwritten: erasure reaches the file's free bytes
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _sqlite_begin(conn: Connection) -> None:
    write = conn.get_execution_options().get(WRITE_OPTION, False)
    conn.exec_driver_sql(f"PRAGMA query_only = {'OFF' if write else 'ON'}")
    conn.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
