"""The lake: DuckLake tables (ACID, snapshots, time travel) that any number of processes read and write.

Everything here can be rebuilt from the archive. Its tables are declared in `schemas`; those of dbt are made by its
first run, the others here.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import duckdb
import polars as pl
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

from quantlytic_assets.schemas.lake import SCHEMAS, WRITTEN_BY_ASSETS
from quantlytic_assets.storage.extensions import extension_settings
from quantlytic_assets.storage.lake_catalog import attach, lake_tables
from quantlytic_assets.storage.lake_locks import FileLocks, LakeLocks, PostgresLocks, is_conflict
from quantlytic_assets.storage.literals import with_literals
from quantlytic_assets.storage.migrations.lake import (
    LAKE_STEPS,
    Step,
    apply_step,
    check_lake,
    pending_steps,
    record_steps,
)
from quantlytic_assets.storage.migrations.lake_steps import relative_data_path
from quantlytic_assets.storage.object_store import S3Place, create_secret
from quantlytic_assets.storage.postgres import ensure_database

# What DuckDB says of a catalog or store that has gone away under a connection.
_LOST = ("server closed the connection", "connection refused", "terminating connection", "no connection to the server",
         "the database system is", "could not connect", "connection already closed", "unable to connect",
         "connection to server", "could not establish connection")  # fmt: skip


# What Postgres' and SQLite's catalogs say where there is none yet and a reader may not make it.
_NO_LAKE = ("creating a new DuckLake is explicitly disabled", "unable to open database file")


class NoLake(LookupError):
    """There is no lake yet, and whoever wants to read it may not make one."""


def _is_passing(error: BaseException) -> bool:
    """Whether a new attempt, on a new connection where need be, may get past an error."""
    from sqlalchemy.exc import OperationalError

    text = str(error).lower()
    lost = isinstance(error, (duckdb.Error, OperationalError)) and any(words in text for words in _LOST)
    return lost or is_conflict(error)


class LakePlace(Protocol):
    """Where a lake's catalog and data are, and how DuckDB gets at them."""

    @property
    def extensions(self) -> tuple[str, ...]:
        """DuckDB's extensions that it needs."""

    @property
    def catalog(self) -> str:
        """What DuckDB attaches, without any secret."""

    @property
    def data_path(self) -> str:
        """Where the tables' Parquet files are."""

    @property
    def stored_data_path(self) -> str:
        """What the catalog says of it to clients that are not told, beside the catalog where it can be."""

    @property
    def options(self) -> str:
        """What else the catalog is attached with."""

    def prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Give a connection the secrets it needs."""

    @property
    def locks(self) -> LakeLocks:
        """The locks of writers."""

    def dbt_environment(self) -> dict[str, str]:
        """The variables that dbt's connection reads beside those of every lake."""


@dataclass(frozen=True)
class EmbeddedPlace:
    """A lake on this machine: SQLite catalog and Parquet files below `root`."""

    root: Path
    extensions: tuple[str, ...] = ("ducklake", "sqlite_scanner")

    @property
    def catalog(self) -> str:
        """See `LakePlace.catalog`."""
        return f"ducklake:sqlite:{self.root / 'catalog.sqlite'}"

    @property
    def data_path(self) -> str:
        """See `LakePlace.data_path`."""
        return f"{self.root / 'data'}/"

    @property
    def stored_data_path(self) -> str:
        """See `LakePlace.stored_data_path`: a lake that is moved or copied must not name its old place."""
        return "data/"

    @property
    def options(self) -> str:
        """See `LakePlace.options`: with a write-ahead log readers never hold up a commit; milliseconds."""
        return "META_JOURNAL_MODE 'WAL', META_BUSY_TIMEOUT 60000"

    def prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        """See `LakePlace.prepare`: files need no secret."""
        self.root.mkdir(parents=True, exist_ok=True)

    @property
    def locks(self) -> LakeLocks:
        """See `LakePlace.locks`."""
        return FileLocks(self.root)

    def dbt_environment(self) -> dict[str, str]:
        """See `LakePlace.dbt_environment`."""
        return {"QUANTLYTIC_LAKE_ON_SERVERS": ""}


@dataclass(frozen=True)
class ServicesPlace:
    """A lake on servers: Postgres catalog, Parquet files in a bucket. `url` is the catalog's, in SQLAlchemy's form."""

    url: str = field(repr=False)
    connection: Mapping[str, str] = field(repr=False)  # host, port, user, password, database
    bucket: S3Place
    part: str = "lake"
    extensions: tuple[str, ...] = ("ducklake", "postgres_scanner", "httpfs")

    @property
    def catalog(self) -> str:
        """See `LakePlace.catalog`: the rest of the address is in the secret `catalog`."""
        return f"ducklake:postgres:dbname={self.connection['database']}"

    @property
    def data_path(self) -> str:
        """See `LakePlace.data_path`."""
        return self.bucket.url(self.part) + "/"

    @property
    def stored_data_path(self) -> str:
        """See `LakePlace.stored_data_path`: a bucket's address is the same from everywhere."""
        return self.data_path

    @property
    def options(self) -> str:
        """See `LakePlace.options`."""
        return "META_SECRET 'catalog'"

    def prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        """See `LakePlace.prepare`."""
        ensure_database(self.url)
        create_secret(connection, "catalog", {"type": "postgres", **self.connection})
        create_secret(connection, "data", self.bucket.secret())
        connection.execute("SET http_retries = 8")

    @property
    def locks(self) -> LakeLocks:
        """See `LakePlace.locks`."""
        return PostgresLocks(self.url)

    def dbt_environment(self) -> dict[str, str]:
        """See `LakePlace.dbt_environment`. Secrets go by environment to dbt's process and no further."""
        secret = self.bucket.secret()
        return {
            "QUANTLYTIC_LAKE_ON_SERVERS": "yes",
            "QUANTLYTIC_LAKE_PG_TYPE": "postgres",
            **{f"QUANTLYTIC_LAKE_PG_{name.upper()}": value for name, value in self.connection.items()},
            **{
                f"QUANTLYTIC_LAKE_S3_{name.upper()}": str(value).lower() if isinstance(value, bool) else value
                for name, value in secret.items()
            },
        }


class Lake:
    """The lake of one installation. `scratch`: a directory of this machine for DuckDB's extensions."""

    def __init__(self, place: LakePlace, scratch: Path, memory: str = "1GB", threads: int = 2):
        self.place = place
        self.scratch = Path(scratch)
        self.memory = memory
        self.threads = threads
        self._local = threading.local()

    @property
    def catalog(self) -> str:
        """What DuckDB attaches."""
        return self.place.catalog

    @property
    def data_path(self) -> str:
        """Where the tables' Parquet files are."""
        return self.place.data_path

    def dataset_lock(self, dataset: str) -> AbstractContextManager:
        """Held from reading what a dataset's rows are computed from until they are replaced (see `lake_locks`)."""
        return self.place.locks.dataset(dataset)

    @property
    def commit_lock(self) -> AbstractContextManager:
        """Held for one transaction, everything that is to be written at hand (see `lake_locks`)."""
        return self.place.locks.commit()

    def connect(self) -> duckdb.DuckDBPyConnection:
        """The connection of this thread, with the lake attached and in use; made on first call, then kept."""
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._attach()
            self._local.connection = connection
            weakref.finalize(self._local, connection.close)
        return connection

    @retry(
        retry=retry_if_exception(is_conflict),
        stop=stop_after_attempt(10),
        wait=wait_random_exponential(0.05, 2),
        reraise=True,
    )
    def _attach(self, read_only: bool = False) -> duckdb.DuckDBPyConnection:
        if read_only:
            connection = self._open("READ_ONLY")
            check_lake(connection, lake_tables(connection))
            return connection
        with self.commit_lock:
            connection = self._open()
            tables = lake_tables(connection)
            if tables:
                check_lake(connection, tables)
            self._declare(connection, tables)
        return connection

    def _open(self, *options: str) -> duckdb.DuckDBPyConnection:
        """A new connection with the lake attached and in use, whatever its layout is."""
        connection = duckdb.connect(
            config={
                **extension_settings(self.scratch / "extensions", self.place.extensions),
                "memory_limit": self.memory,
                "threads": self.threads,
            }
        )
        for name in self.place.extensions:
            connection.execute(f"LOAD {name}")
        connection.execute("SET TimeZone = 'UTC'")
        self.place.prepare(connection)
        attach(connection, self.catalog, self.data_path, self.place.options, *options)
        connection.execute("USE lake")
        return connection

    def _declare(self, connection: duckdb.DuckDBPyConnection, known: set[str]) -> None:
        """Make the declared tables that the lake does not have yet. A lake without any has this code's layout then."""
        missing = [name for name in WRITTEN_BY_ASSETS if name not in known]
        if not missing:
            return
        if not known:
            relative_data_path.apply(connection, self.place)
        connection.execute("BEGIN")
        for schema in SCHEMAS:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        for name in missing:
            table = WRITTEN_BY_ASSETS[name]
            connection.execute(f"CREATE TABLE {name} ({table.ddl})")
            if table.partitioned_by:
                connection.execute(f"ALTER TABLE {name} SET PARTITIONED BY ({', '.join(table.partitioned_by)})")
        if not known:
            record_steps(connection, LAKE_STEPS)
        connection.execute("COMMIT")

    def pending_migrations(self) -> list[Step]:
        """Steps that the lake's layout lacks, oldest first; none where there is no lake yet.

        Raises `NewLayout` where the lake is of a newer version.
        """
        try:
            connection = self._open("READ_ONLY")
        except duckdb.Error as error:
            if any(words in str(error) for words in _NO_LAKE):
                return []
            raise
        try:
            return pending_steps(connection) if lake_tables(connection) else []
        finally:
            connection.close()

    def migrate(self) -> list[Step]:
        """Apply the steps that the lake's layout lacks, each with what records it, and return them.

        Writers wait; a second migration waits and finds nothing to do. Raises `NewLayout` as `pending_migrations` does.
        """
        with self.commit_lock:
            connection = self._open()
            try:
                pending = pending_steps(connection) if lake_tables(connection) else []
                for step in pending:
                    apply_step(connection, self.place, step)
            finally:
                connection.close()
        return pending

    def reader(self, make: bool = True) -> duckdb.DuckDBPyConnection:
        """A connection of its own that can change nothing, for other people's SQL; the caller closes it.

        It waits for no writer, except where the lake does not exist yet: then its tables are made first, or with
        `make=False` `NoLake` is raised.
        """
        if not make:
            try:
                return self._attach(read_only=True)
            except duckdb.Error as error:
                if any(words in str(error) for words in _NO_LAKE):
                    raise NoLake from error
                raise
        try:
            connection = self._attach(read_only=True)
        except duckdb.Error:
            self.connect()
            return self._attach(read_only=True)
        if not lake_tables(connection).issuperset(WRITTEN_BY_ASSETS):
            connection.close()
            self.connect()
            connection = self._attach(read_only=True)
        return connection

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A transaction of this thread's connection, with the commit lock held; an error rolls it back and passes."""
        connection = self.connect()
        with self.commit_lock:
            try:
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # After a conflict or a lost catalog the connection is in no state to go on with; the next call makes
                # a new one. Closing it rolls back.
                self._local.connection = None
                connection.close()
                raise

    @retry(
        retry=retry_if_exception(_is_passing),
        stop=stop_after_attempt(12),
        wait=wait_random_exponential(0.05, 10),
        reraise=True,
    )
    def replace(self, changes: Sequence[tuple[str, str, Sequence[Any], pl.DataFrame]]) -> int:
        """Replace rows of several tables in one transaction and return the snapshot it made.

        Each change is (table, condition, its parameters, new rows): rows of the table that meet the condition go,
        the new ones come. Nobody sees anything between, and a process that dies leaves the old rows.
        """
        with self.transaction() as connection:
            for table, condition, parameters, rows in changes:
                connection.execute(with_literals(f"DELETE FROM {table} WHERE {condition}", parameters))
                if len(rows):
                    columns = ", ".join(f'"{name}"' for name in rows.columns)
                    connection.register("new_rows", rows)
                    connection.execute(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM new_rows")
                    connection.unregister("new_rows")
        return self.snapshot()

    def snapshot(self) -> int:
        """The newest snapshot's number."""
        return self.connect().execute("SELECT max(snapshot_id) FROM lake.snapshots()").fetchall()[0][0]

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """Rows of a SELECT, times in UTC."""
        return self.connect().execute(with_literals(sql, parameters)).pl()

    def has_table(self, name: str) -> bool:
        """Whether `schema.table` exists (dbt's tables do only after its first run)."""
        return name in lake_tables(self.connect())

    def dbt_environment(self) -> dict[str, str]:
        """The variables that dbt's connection is made from (`dbt_connection`)."""
        settings = extension_settings(self.scratch / "extensions", self.place.extensions)
        return {
            "QUANTLYTIC_LAKE_CATALOG": self.catalog,
            "QUANTLYTIC_LAKE_DATA": self.data_path,
            "QUANTLYTIC_LAKE_OPTIONS": self.place.options,
            "QUANTLYTIC_LAKE_EXTENSIONS": ",".join(self.place.extensions),
            "QUANTLYTIC_DUCKDB_EXTENSIONS": settings["extension_directory"],
            "QUANTLYTIC_DUCKDB_UNSIGNED": settings["allow_unsigned_extensions"],
            "QUANTLYTIC_DUCKDB_MEMORY": self.memory,
            "QUANTLYTIC_DUCKDB_THREADS": str(self.threads),
            **self.place.locks.environment(),
            **self.place.dbt_environment(),
        }


def local_lake(root: Path, memory: str = "1GB", threads: int = 2) -> Lake:
    """A lake in a directory of this machine."""
    return Lake(EmbeddedPlace(Path(root)), Path(root), memory, threads)
