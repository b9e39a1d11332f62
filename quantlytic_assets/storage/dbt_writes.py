"""How dbt's materializations write to the lake: rows are made first, then replace a range in one short transaction.

Called by `dbt_project/macros/materializations` in dbt's own process, where the environment says which lake it is. A
model's turn begins before it reads anything and ends with its commit; dbt's tests run outside of any turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from quantlytic_assets.storage.lake_locks import commit, locks_from_environment

if TYPE_CHECKING:
    import duckdb
    import polars as pl

_turn: AbstractContextManager[object] | None = None


def take_turn(dataset: str) -> None:
    """Hold the dataset's lock until `end_turn`; a turn that a failed model did not end is ended first."""
    global _turn
    end_turn()
    _turn = locks_from_environment().dataset(dataset)
    _turn.__enter__()


def end_turn() -> None:
    """Let the dataset's lock go, where it is held."""
    global _turn
    if _turn is not None:
        _turn.__exit__(None, None, None)
        _turn = None


def commit_statements(connection: duckdb.DuckDBPyConnection, statements: Sequence[str]) -> None:
    """Run statements that define tables or views, in one transaction of the lake."""

    def run(connection: duckdb.DuckDBPyConnection) -> None:
        for statement in statements:
            connection.execute(statement)

    commit(connection, locks_from_environment(), run)


@contextmanager
def stage() -> Iterator[Path]:
    """A directory for the rows that a model makes, gone with its turn."""
    try:
        with TemporaryDirectory() as directory:
            yield Path(directory)
    finally:
        end_turn()


def stage_query(connection: duckdb.DuckDBPyConnection, directory: Path, query: str) -> None:
    """Write a query's rows to the directory; `connection` is the one that has the model's temporary tables."""
    connection.execute(f"COPY ({query}) TO '{directory / 'rows.parquet'}' (COMPRESSION lz4)")


def stage_frames(directory: Path, frames: Iterable[pl.DataFrame]) -> None:
    """Write polars frames to the directory. By way of files: DuckDB imports pandas before it looks at a frame."""
    for number, frame in enumerate(frames):
        frame.write_parquet(directory / f"{number:06}.parquet", compression="lz4")


def replace_range(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    in_range: str,
    staged: Path,
    tail: str = "false",
    tail_key: Sequence[str] = (),
) -> None:
    """Replace the rows of a table that meet the SQL condition `in_range` by the staged ones, in one transaction.

    Staged rows that meet `tail` (a condition on rows after the range) also replace those of the table with the same
    `tail_key` (quoted column names).
    """
    if not any(staged.iterdir()):
        commit_statements(connection, [f"DELETE FROM {table} WHERE {in_range}"])
        return
    rows = f"'{staged / '*.parquet'}'"
    statements = [f"DELETE FROM {table} WHERE {in_range}"]
    if tail_key:
        (last,) = connection.execute(f"SELECT max(session) FROM {rows} WHERE {tail}").fetchall()[0]
        if last is not None:
            key = f"({', '.join(tail_key)})"
            statements.append(
                f"DELETE FROM {table} WHERE {tail} AND session <= DATE '{last}' "
                f"AND {key} IN (SELECT {key} FROM {rows} WHERE {tail})"
            )
    # Files are numbered, and rows within them in their model's order, which is how they are read best.
    statements.append(f"INSERT INTO {table} BY NAME SELECT * FROM {rows}")
    commit_statements(connection, statements)
