"""What is read of the tables that dbt makes. They are there after its first run only; see `Lake.has_table`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.schemas.features import BARS, INDICATORS, LABELS
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


def counts(lake: Queries, table: Table, dataset: str, *, since: date | None, before: date | None) -> pl.DataFrame:
    """COUNTS_SCHEMA of the table's sessions [since, before), those by which its rows belong to partitions."""
    clause, parameters = where([equal("dataset", dataset), sessions(since, before, table.session)])
    sql = (
        f"SELECT {table.session} AS session, count(*) AS rows, count(DISTINCT symbol) AS symbols "
        f"FROM {table.name}{clause} GROUP BY ALL"
    )
    return rows(lake, sql, parameters, COUNTS_SCHEMA)
