"""Whose turn it is to change the lake.

Two locks, always taken in this order, and let go of by whatever ends a process:

- **dataset**: from reading what a range of a dataset is computed from until that range is replaced. The later
  one of two computations of one dataset sees the earlier one's rows; other datasets go on.
- **commit**: one transaction of the lake, from its first statement to its commit, with everything that is to be written
  at hand. DuckLake notices two transactions that change the same existing rows, not two that insert the same rows for
  the first time; SQLite's catalog refuses a transaction that began before another one's commit, and two commits to
  Postgres' may take the same number for their snapshots.

Readers take neither. This module is imported by dbt as well and imports nothing heavy.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import duckdb
from filelock import FileLock
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

_Result = TypeVar("_Result")

# What DuckDB says where another process has committed first.
_CONFLICTS = ("database is locked", "conflict")


def is_conflict(error: BaseException) -> bool:
    """Whether an error is another process's commit, which a new attempt gets past."""
    text = str(error).lower()
    return isinstance(error, duckdb.Error) and any(words in text for words in _CONFLICTS)


class LakeLocks(Protocol):
    """The locks of one lake."""

    def commit(self) -> AbstractContextManager[object]:
        """The lock of a transaction."""

    def dataset(self, name: str) -> AbstractContextManager[object]:
        """The lock of a dataset's ranges."""

    def environment(self) -> dict[str, str]:
        """The variables by which another process finds the same locks."""


@dataclass(frozen=True)
class FileLocks:
    """Locks of a lake on this machine, as files below `root`."""

    root: Path

    def commit(self) -> AbstractContextManager[object]:
        """See `LakeLocks.commit`."""
        self.root.mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / "write.lock")

    def dataset(self, name: str) -> AbstractContextManager[object]:
        """See `LakeLocks.dataset`."""
        directory = self.root / "locks"
        directory.mkdir(parents=True, exist_ok=True)
        return FileLock(directory / f"{name}.lock")

    def environment(self) -> dict[str, str]:
        """See `LakeLocks.environment`."""
        return {"QUANTLYTIC_LAKE_LOCKS": str(self.root)}


@dataclass(frozen=True)
class PostgresLocks:
    """Locks of a lake on servers, as advisory locks of its catalog's database. `url` as SQLAlchemy has it."""

    url: str = field(repr=False)

    def commit(self) -> AbstractContextManager[object]:
        """See `LakeLocks.commit`."""
        return self._lock("lake")

    def dataset(self, name: str) -> AbstractContextManager[object]:
        """See `LakeLocks.dataset`."""
        return self._lock(f"lake.{name}")

    def environment(self) -> dict[str, str]:
        """See `LakeLocks.environment`: the catalog's variables say where they are."""
        return {"QUANTLYTIC_LAKE_LOCKS": ""}

    def _lock(self, name: str) -> AbstractContextManager[object]:
        from quantlytic_assets.storage.postgres import advisory_lock, ensure_database

        ensure_database(self.url)
        return advisory_lock(self.url, name)


def locks_from_environment() -> LakeLocks:
    """The locks of the lake that `Lake.dbt_environment` describes."""
    root = os.environ["QUANTLYTIC_LAKE_LOCKS"]
    if root:
        return FileLocks(Path(root))
    from sqlalchemy import URL

    names = ("user", "password", "host", "port", "database")
    part = {name: os.environ[f"QUANTLYTIC_LAKE_PG_{name.upper()}"] for name in names}
    url = URL.create(
        "postgresql+psycopg2", part["user"], part["password"], part["host"], int(part["port"]), part["database"]
    )
    return PostgresLocks(url.render_as_string(hide_password=False))


@retry(
    retry=retry_if_exception(is_conflict),
    stop=stop_after_attempt(12),
    wait=wait_random_exponential(0.05, 10),
    reraise=True,
)
def commit(
    connection: duckdb.DuckDBPyConnection, locks: LakeLocks, change: Callable[[duckdb.DuckDBPyConnection], _Result]
) -> _Result:
    """Make a change of the lake in one transaction with the commit lock held, again where another client was quicker.

    An error rolls it back and passes. `change` is called again for another attempt.
    """
    with locks.commit():
        connection.execute("BEGIN")
        try:
            made = change(connection)
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise
    return made


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.execute("ROLLBACK")
    except duckdb.TransactionException:
        # A commit that failed has ended the transaction.
        return
