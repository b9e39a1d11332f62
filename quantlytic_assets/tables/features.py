"""What is read of the tables that dbt makes. They are there after its first run only; see `Lake.has_table`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.schemas.features import BARS, CLOSES, FAMILIES, INDICATORS, LABELS
from quantlytic_assets.schemas.table import Table, quoted
from quantlytic_assets.tables.select import Condition, Queries, equal, one_of, rows, select, sessions, where

# One row a session: rows and symbols in it.
COUNTS_SCHEMA = pl.Schema({"session": pl.Date, "rows": pl.Int64, "symbols": pl.Int64})
# One row a session: the earliest time at which a row could be decided on, and at which an outcome was known.
TRAINABLE_SCHEMA = pl.Schema({"session": pl.Date(), "available_at": TIME, "label_available_at": TIME})


def usable_bars(
    lake: Queries,
    dataset: str,
    interval: str,
    columns: Sequence[str],
    *,
    incomplete: bool,
    since: date | None = None,
    before: date | None = None,
    symbols: Collection[str] | None = None,
) -> pl.DataFrame:
    """Columns of features.bars at one interval, sessions [since, before), by symbol and time.

    Only bars that may be decided on, filled at and valued by: those whose price is not known to be wrong, and, unless
    `incomplete`, that are complete. Features and labels go by the same rule (dbt_project/macros/usable_bars.sql).
    """
    mine = (equal("dataset", dataset), equal("interval", interval), one_of("symbol", symbols))
    usable = Condition("close IS NOT NULL" if incomplete else "close IS NOT NULL AND complete")
    return select(lake, BARS, columns, *mine, sessions(since, before), usable, order=("symbol", "open_time"))


def session_bars(lake: Queries, dataset: str, interval: str, session: date, symbols: Collection[str]) -> pl.DataFrame:
    """All columns of features.bars of the symbols' bars of one session, usable or not, by symbol and time."""
    mine = (equal("dataset", dataset), equal("interval", interval), equal("session", session))
    return select(lake, BARS, BARS.polars.names(), *mine, one_of("symbol", symbols), order=("symbol", "open_time"))


def newest_bar(lake: Queries, dataset: str, interval: str, symbols: Collection[str]) -> datetime | None:
    """When the newest complete bar of any of these symbols opened, UTC; None where there is none."""
    clause, parameters = where(
        [equal("dataset", dataset), equal("interval", interval), one_of("symbol", symbols), equal("complete", True)]
    )
    sql = f"SELECT max(open_time) AS newest FROM {BARS.name}{clause}"
    return rows(lake, sql, parameters, pl.Schema({"newest": TIME}))["newest"][0]


def feature_tables(lake: Queries, columns: Collection[str]) -> list[Table]:
    """The families' tables that hold these columns of features.indicators."""
    sql = (
        "SELECT DISTINCT table_name FROM duckdb_columns() WHERE database_name = 'lake' AND schema_name = 'features' "
        "AND list_contains(?, column_name) AND list_contains(?, table_name)"
    )
    found = rows(lake, sql, [list(columns), list(FAMILIES)], pl.Schema({"table_name": pl.String}))
    return [table for name, table in FAMILIES.items() if name in found["table_name"]]


def indicators(
    lake: Queries,
    dataset: str,
    interval: str,
    columns: Sequence[str],
    *,
    since: date | None = None,
    before: date | None = None,
    symbols: Collection[str] | None = None,
) -> pl.DataFrame:
    """Columns of features.indicators at one interval, sessions [since, before), in no order.

    Rows of bars that may not be used, which have nothing but nulls, are left out.
    """
    mine = (equal("dataset", dataset), equal("interval", interval), one_of("symbol", symbols))
    return select(lake, INDICATORS, columns, *mine, sessions(since, before), Condition("close IS NOT NULL"))


def earlier_session(
    lake: Queries, dataset: str, interval: str, symbols: Collection[str], *, bars: int, before: date
) -> date | None:
    """The earliest session with one of the symbols' last `bars` usable bars before a session; None without one."""
    # A few weeks hold them for all but symbols that did not trade, for which all that is there is looked at.
    near = before - timedelta(days=2 * bars + 14)
    found = _last_bars(lake, dataset, interval, symbols, bars, near, before)
    short = set(symbols) - set(found.filter(pl.col("bars") >= bars)["symbol"])
    if short:
        found = pl.concat([found, _last_bars(lake, dataset, interval, short, bars, None, before)])
    return found["session"].min()


def _last_bars(
    lake: Queries,
    dataset: str,
    interval: str,
    symbols: Collection[str],
    bars: int,
    since: date | None,
    before: date,
) -> pl.DataFrame:
    """symbol, how many usable bars it has in [since, before), at most `bars`, and the earliest session of the last."""
    mine = [equal("dataset", dataset), equal("interval", interval), one_of("symbol", symbols), sessions(since, before)]
    clause, parameters = where([*mine, Condition("close IS NOT NULL")])
    sql = (
        "SELECT symbol, count(*) AS bars, min(session) AS session FROM "
        f"(SELECT symbol, session FROM {CLOSES.name}{clause} "
        "QUALIFY row_number() OVER (PARTITION BY symbol ORDER BY open_time DESC) <= ?) AS last_bars GROUP BY symbol"
    )
    schema = pl.Schema({"symbol": pl.String, "bars": pl.Int64, "session": pl.Date})
    return rows(lake, sql, [*parameters, bars], schema)


def labels(
    lake: Queries,
    dataset: str,
    interval: str,
    horizon: int,
    columns: Sequence[str],
    *,
    known_before: date | None = None,
    symbols: Collection[str] | None = None,
) -> pl.DataFrame:
    """Columns of features.labels at one interval and horizon whose outcome was known in a session before a day."""
    mine = (equal("dataset", dataset), equal("interval", interval), equal("horizon", horizon))
    known = sessions(None, known_before, "label_session")
    return select(lake, LABELS, columns, *mine, known, one_of("symbol", symbols))


def trainable_sessions(
    lake: Queries, dataset: str, interval: str, horizon: int, features: Sequence[str], *, symbols: Collection[str]
) -> pl.DataFrame:
    """TRAINABLE_SCHEMA: the sessions with a row that has all these features and an outcome, and its earliest times."""
    defined = " AND ".join(f"isfinite({quoted(name)})" for name in INDICATORS.schema(features))
    mine = [equal("dataset", dataset), equal("interval", interval), one_of("symbol", symbols)]
    known, parameters = where([*mine, Condition(defined)])
    outcomes, more = where([*mine, equal("horizon", horizon)])
    key = 'dataset, symbol, "interval", open_time'
    sql = (
        "SELECT session, min(available_at) AS available_at, min(label_available_at) AS label_available_at "
        f"FROM (SELECT {key}, session, available_at FROM {INDICATORS.name}{known}) AS known "
        f"JOIN (SELECT {key}, label_available_at FROM {LABELS.name}{outcomes}) AS outcomes USING ({key}) "
        "GROUP BY session"
    )
    return rows(lake, sql, [*parameters, *more], TRAINABLE_SCHEMA)


def stored_values(
    lake: Queries,
    family: Table,
    dataset: str,
    columns: Sequence[str],
    *,
    since: date,
    before: date,
    symbols: Collection[str],
) -> pl.DataFrame:
    """symbol, interval, open_time and columns of a family, sessions [since, before), in no order.

    Only rows that have a value in one of the columns.
    """
    known = Condition(" OR ".join(f"{quoted(name)} IS NOT NULL" for name in columns))
    clause, parameters = where([equal("dataset", dataset), sessions(since, before), one_of("symbol", symbols), known])
    names = ["symbol", "interval", "open_time", *columns]
    sql = f"SELECT {', '.join(quoted(name) for name in names)} FROM lake.{family.name}{clause}"
    return rows(lake, sql, parameters, family.schema(names))


def drawn_rows(lake: Queries, dataset: str, since: date, before: date, count: int) -> pl.DataFrame:
    """interval, open_time and session of `count` usable bars drawn anew, sessions [since, before)."""
    clause, parameters = where([equal("dataset", dataset), sessions(since, before), Condition("close IS NOT NULL")])
    sql = (
        f'SELECT "interval", open_time, min(session) AS session FROM {CLOSES.name}{clause} '
        f"GROUP BY ALL ORDER BY random() LIMIT {int(count)}"
    )
    return rows(lake, sql, parameters, CLOSES.schema(["interval", "open_time", "session"]))


def rows_at(
    lake: Queries, dataset: str, interval: str, session: date, open_time: datetime, columns: Sequence[str]
) -> pl.DataFrame:
    """Columns of features.indicators of all symbols with a usable bar that opens at a time, by symbol."""
    mine = (equal("dataset", dataset), equal("interval", interval), equal("session", session))
    at = Condition("open_time = ? AND close IS NOT NULL", (open_time,))
    return select(lake, INDICATORS, ["symbol", *columns], *mine, at, order=("symbol",))


def bars_through(
    lake: Queries, dataset: str, interval: str, open_time: datetime, session: date, *, count: int, since: date
) -> pl.DataFrame:
    """Rows of features.bars up to a time, by symbol and time: each symbol's last `count` and all of that session.

    Sessions before `since` are not read. Bars of all kinds are there, usable or not.
    """
    mine = [equal("dataset", dataset), equal("interval", interval), sessions(since, session + timedelta(days=1))]
    clause, parameters = where([*mine, Condition("open_time <= ?", (open_time,))])
    names = ", ".join(quoted(name) for name in BARS.polars.names())
    sql = (
        f"SELECT {names} FROM {BARS.name}{clause} "
        "QUALIFY row_number() OVER (PARTITION BY symbol ORDER BY open_time DESC) <= ? OR session = ? "
        "ORDER BY symbol, open_time"
    )
    return rows(lake, sql, [*parameters, count, session], BARS.polars)


def feature_counts(lake: Queries, dataset: str, columns: Sequence[str]) -> dict[str, int]:
    """How many usable bars of a dataset have a value in each column; `rows` is how many there are."""
    counted = ", ".join(f'count("{name}") AS "{name}"' for name in columns)
    clause, parameters = where([equal("dataset", dataset), Condition("close IS NOT NULL")])
    found = lake.query(f"SELECT count(*) AS rows, {counted} FROM {INDICATORS.name}{clause}", parameters)
    return found.row(0, named=True) if len(found) else {"rows": 0}


def closes_by_availability(lake: Queries, dataset: str, symbol: str, since: datetime, until: datetime) -> pl.DataFrame:
    """available_at and `close` of a symbol's complete bars that became available in [since, until], oldest first.

    Closes are multiplied by the bars' shares, so that a split is no jump. Bars of several intervals that become
    available at the same time end together, and have the same close.
    """
    sql = (
        "SELECT available_at, arg_max(close * coalesce(shares, 1), open_time) AS close "
        f"FROM lake.{BARS.name} WHERE dataset = ? AND symbol = ? AND session >= ? AND close IS NOT NULL AND complete "
        "AND available_at BETWEEN ? AND ? GROUP BY available_at ORDER BY available_at"
    )
    # A session may begin on the day before its bars' UTC date.
    first = since.date() - timedelta(days=1)
    return rows(lake, sql, [dataset, symbol, first, since, until], BARS.schema(["available_at", "close"]))


def counts(lake: Queries, table: Table, dataset: str, *, since: date | None, before: date | None) -> pl.DataFrame:
    """COUNTS_SCHEMA of the table's sessions [since, before), those by which its rows belong to partitions."""
    clause, parameters = where([equal("dataset", dataset), sessions(since, before, table.session)])
    sql = (
        f"SELECT {table.session} AS session, count(*) AS rows, count(DISTINCT symbol) AS symbols "
        f"FROM {table.rows_of or table.name}{clause} GROUP BY ALL"
    )
    return rows(lake, sql, parameters, COUNTS_SCHEMA)
