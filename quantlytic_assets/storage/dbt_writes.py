"""How dbt's materializations write to the lake: rows are made first, then replace a range in one short transaction.

Called by `dbt_project/macros/materializations` in dbt's own process, where the environment says which lake it is. A
model's turn begins before it reads anything and ends with its commit. Families of features share one, which ends before
features.indicators shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from quantlytic_assets.schemas.features import BARS, CLOSES, FAMILIES, FAMILY_KEYS, JOINED_BY
from quantlytic_assets.schemas.table import quoted
from quantlytic_assets.storage.lake_locks import commit, locks_from_environment
from quantlytic_assets.storage.literals import literal

if TYPE_CHECKING:
    import duckdb
    import polars as pl

# What models that share a turn compute from, in dbt's own database.
_SHARED = "memory.main.bars_to_compute"
# Values of a row group of rows on their way to the lake: 32 MB.
_GROUP_VALUES = 4_000_000


@dataclass(frozen=True)
class Move:
    """By how much a sum is to be moved in each row of a symbol and interval after a time, of one company.

    `of_shares`: in first shares; a row's own number is that times its bar's shares.
    """

    dataset: str
    column: str
    symbol: str
    interval: str
    listing: str
    after: datetime
    by: float
    of_shares: bool


_turn: AbstractContextManager[object] | None = None
# Whether the turn goes on when its model is done.
_shared = False


def take_turn(connection: duckdb.DuckDBPyConnection, dataset: str, shared: bool = False) -> None:
    """Hold the dataset's lock until `end_turn`; a turn that a failed model did not end is ended first.

    `shared`: a shared turn that is held goes on, with what its models compute from. A process works on one dataset.
    """
    global _turn, _shared
    if shared and _shared:
        return
    end_turn()
    connection.execute(f"DROP TABLE IF EXISTS {_SHARED}")
    _turn = locks_from_environment().dataset(dataset)
    _turn.__enter__()
    _shared = shared


def end_turn() -> None:
    """Let the dataset's lock go, where it is held."""
    global _turn, _shared
    if _turn is not None:
        _turn.__exit__(None, None, None)
        _turn = None
    _shared = False


def commit_statements(connection: duckdb.DuckDBPyConnection, statements: Sequence[str]) -> None:
    """Run statements that define tables or views, in one transaction of the lake."""

    def run(connection: duckdb.DuckDBPyConnection) -> None:
        for statement in statements:
            connection.execute(statement)

    commit(connection, locks_from_environment(), run)


@contextmanager
def stage() -> Iterator[Path]:
    """A directory for the rows that a model makes, gone with them; a turn that is not shared ends with it."""
    try:
        with TemporaryDirectory() as directory:
            yield Path(directory)
    finally:
        if not _shared:
            end_turn()


def stage_query(connection: duckdb.DuckDBPyConnection, directory: Path, query: str) -> None:
    """Write a query's rows to the directory; `connection` is the one that has the model's temporary tables."""
    connection.execute(f"COPY ({query}) TO '{directory / 'rows.parquet'}' (COMPRESSION lz4)")


def stage_frames(directory: Path, frames: Iterable[pl.DataFrame]) -> None:
    """Write polars frames to the directory. By way of files: DuckDB imports pandas before it looks at a frame.

    A frame is let go before the next one is made. Writer and reader hold a row group of all columns at a time.
    """
    # Not enumerate, which keeps what it has given last.
    numbers = count()
    for frame in frames:
        group = max(_GROUP_VALUES // max(frame.width, 1), 1)
        frame.write_parquet(directory / f"{next(numbers):06}.parquet", compression="lz4", row_group_size=group)
        del frame


def replace_range(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    in_range: str,
    staged: Path,
    tail: str = "false",
    tail_key: Sequence[str] = (),
    moves: Sequence[Move] = (),
) -> None:
    """Replace the rows of a table that meet the SQL condition `in_range` by the staged ones, in one transaction.

    Staged rows that meet `tail` (a condition on rows after the range) also replace those of the table with the same
    `tail_key` (quoted column names). `moves` change rows after these.
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
    statements += [_moved(table, move) for move in moves]
    commit_statements(connection, statements)


def _moved(table: str, move: Move) -> str:
    """The statement that moves a sum. Rows of before `listing` and `shares` existed have nothing there."""
    column, company, after = quoted(move.column), literal(move.listing), literal(move.after)
    shares = " * coalesce(bars.shares, 1)" if move.of_shares else ""
    same = " AND ".join(
        f"{side}.{quoted(name)} = {literal(value)}"
        for side in ("of_table", "bars")
        for name, value in (("dataset", move.dataset), ("symbol", move.symbol), ("interval", move.interval))
    )
    # The text of a float is the float again.
    return (
        f"UPDATE {table} AS of_table SET {column} = of_table.{column} + '{move.by!r}'::DOUBLE{shares} "
        f"FROM lake.{BARS.name} AS bars WHERE {same} AND bars.open_time = of_table.open_time "
        f"AND of_table.open_time > {after} AND bars.open_time > {after} "
        f"AND coalesce(bars.listing, bars.symbol) = {company}"
    )


def show_families(connection: duckdb.DuckDBPyConnection, view: str, comments: Sequence[str] = ()) -> None:
    """Make the view of the closes and of all families with all columns that they have; readers see the old or the new.

    view: its name as SQL needs it. comments: statements that follow. A shared turn ends before.
    """
    end_turn()

    def run(connection: duckdb.DuckDBPyConnection) -> None:
        # Read under the lock: another dataset's run may just have added its columns.
        for statement in (f"CREATE OR REPLACE VIEW {view} AS {families_query(connection)}", *comments):
            connection.execute(statement)

    commit(connection, locks_from_environment(), run)


def families_query(connection: duckdb.DuckDBPyConnection) -> str:
    """The SELECT of features.indicators: the close of each bar, the families' columns, and its history."""
    there: dict[str, list[str]] = {}
    for table, column in connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() "
        "WHERE database_name = 'lake' AND schema_name = 'features' ORDER BY column_index"
    ).fetchall():
        there.setdefault(table, []).append(column)
    keys = [column.name for column in FAMILY_KEYS]
    columns, joins = [], []
    for family, table in FAMILIES.items():
        if own := [f'{family}."{name}"' for name in there.get(family, []) if name not in keys]:
            columns += own
            # Each of these is a key, so that a condition on it holds back rows of all tables.
            using = ", ".join(quoted(name) for name in JOINED_BY)
            joins.append(f"LEFT JOIN lake.{table.name} AS {family} USING ({using})")
    shown = [f"closes.{quoted(name)}" for name in keys]
    selected = ", ".join([*shown, "closes.close", *columns, "closes.history_bars"])
    return f"SELECT {selected} FROM lake.{CLOSES.name} AS closes {' '.join(joins)}"
