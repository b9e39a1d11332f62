"""How dbt's materializations write to the lake: rows are made first, then replace a range in one short transaction.

Called by `dbt_project/macros/materializations` in dbt's own process, where the environment says which lake it is. A
model's turn begins before it reads anything and ends with its commit. Families of features share one, which ends before
features.indicators shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from quantlytic_assets.schemas.features import BARS, CLOSES, FAMILIES, FAMILY_KEYS, JOINED_BY
from quantlytic_assets.schemas.table import quoted
from quantlytic_assets.storage.lake_files import NewFiles
from quantlytic_assets.storage.lake_locks import commit, locks_from_environment
from quantlytic_assets.storage.literals import literal

if TYPE_CHECKING:
    import duckdb
    import polars as pl

# What models that share a turn compute from: a view of dbt's own database.
SHARED_BARS = "memory.main.bars_to_compute"


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
# Whether the turn goes on when its model is done, and what its models hand on to one another.
_shared = False
_handed_on: TemporaryDirectory[str] | None = None


def take_turn(connection: duckdb.DuckDBPyConnection, dataset: str, shared: bool = False) -> None:
    """Hold the dataset's lock until `end_turn`; a turn that a failed model did not end is ended first.

    `shared`: a shared turn that is held goes on, with what its models compute from. A process works on one dataset.
    """
    global _turn, _shared
    if shared and _shared:
        return
    end_turn()
    connection.execute(f"DROP VIEW IF EXISTS {SHARED_BARS}")
    _turn = locks_from_environment().dataset(dataset)
    _turn.__enter__()
    _shared = shared


def end_turn() -> None:
    """Let the dataset's lock go, where it is held."""
    global _turn, _shared, _handed_on
    if _turn is not None:
        _turn.__exit__(None, None, None)
        _turn = None
    _shared = False
    if _handed_on is not None:
        _handed_on.cleanup()
        _handed_on = None


def handed_on() -> Path:
    """A directory for what models of a turn hand on to those after them; it goes with the turn."""
    global _handed_on
    if _handed_on is None:
        _handed_on = TemporaryDirectory()
    return Path(_handed_on.name)


def commit_statements(connection: duckdb.DuckDBPyConnection, statements: Sequence[str]) -> None:
    """Run statements that define tables or views, in one transaction of the lake."""

    def run(connection: duckdb.DuckDBPyConnection) -> None:
        for statement in statements:
            connection.execute(statement)

    commit(connection, locks_from_environment(), run)


@contextmanager
def model_turn() -> Iterator[None]:
    """What a model holds until its rows are replaced; a turn that is shared goes on."""
    try:
        yield
    finally:
        if not _shared:
            end_turn()


def stage_query(connection: duckdb.DuckDBPyConnection, directory: Path, query: str) -> None:
    """Write a query's rows to the directory; `connection` is the one that has the model's temporary tables."""
    connection.execute(f"COPY ({query}) TO '{directory / 'rows.parquet'}' (COMPRESSION lz4)")


def replace_by_query(
    connection: duckdb.DuckDBPyConnection, table: str, in_range: str, stage: Callable[[Path], None]
) -> None:
    """Replace the rows of a table that meet the SQL condition `in_range` by those that `stage` puts in a directory."""
    with model_turn(), TemporaryDirectory() as directory:
        stage(Path(directory))
        rows = f"INSERT INTO lake.{table} BY NAME SELECT * FROM '{Path(directory) / 'rows.parquet'}'"
        commit_statements(connection, [f"DELETE FROM lake.{table} WHERE {in_range}", rows])


def replace_by_frames(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    in_range: str,
    frames: Iterable[pl.DataFrame],
    partitioned_by: Sequence[str],
    tail_of: str = "",
    tail_since: date = date.max,
    tail_key: Sequence[str] = (),
) -> None:
    """Replace the rows of a table that meet the SQL condition `in_range` by polars frames.

    Rows of the dataset `tail_of` from the session `tail_since` on, which is after the range, also replace those of the
    table with the same `tail_key` (quoted column names). `frames` may have `moves`, which change rows after these.
    """
    with model_turn():
        files = NewFiles(connection, table, partitioned_by)
        files.write(frames)
        statements = [f"DELETE FROM lake.{table} WHERE {in_range}"]
        if tail_key and files.last_session is not None and files.last_session >= tail_since:
            key = f"({', '.join(tail_key)})"
            tail = f"dataset = {literal(tail_of)} AND session >= DATE '{tail_since}'"
            statements.append(
                f"DELETE FROM lake.{table} WHERE {tail} AND session <= DATE '{files.last_session}' "
                f"AND {key} IN (SELECT {key} FROM {files.rows} WHERE {tail})"
            )
        moves: Sequence[Move] = getattr(frames, "moves", ())

        def run(connection: duckdb.DuckDBPyConnection) -> None:
            for statement in statements:
                connection.execute(statement)
            if files.paths:
                connection.execute(files.insertion(connection))
            for move in moves:
                connection.execute(_moved(f"lake.{table}", move))

        commit(connection, locks_from_environment(), run)


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
