"""What is read of clean.coverage."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.schemas.clean import COVERAGE
from quantlytic_assets.tables.select import Condition, Queries, equal, one_of, rows, select, sessions, where

# One row a dataset: sessions covered, symbols' sessions with holes, missing bars.
SUMMARY_SCHEMA = pl.Schema({"dataset": pl.String, "sessions": pl.Int64, "holes": pl.Int64, "missing_bars": pl.Int64})
# One row a symbol and cause: sessions with holes of that cause, bars missing in them.
HOLES_SCHEMA = pl.Schema({"symbol": pl.String, "cause": pl.String, "sessions": pl.Int64, "bars": pl.Int64})
# One row a cause: bars that are missing, sessions with such holes, the first and last of them, and one of the symbols.
HOLES_BY_CAUSE_SCHEMA = pl.Schema(
    {
        "cause": pl.String,
        "bars": pl.Int64,
        "sessions": pl.Int64,
        "first": pl.Date,
        "last": pl.Date,
        "symbol": pl.String,
    }
)
# One row a dataset and cause.
CAUSES_SCHEMA = pl.Schema({"dataset": pl.String, "cause": pl.String, "bars": pl.Int64})
# One row a symbol and session: how many seconds the holes of some causes are long.
LACKING_SCHEMA = pl.Schema({"symbol": pl.String(), "session": pl.Date(), "checked_at": TIME, "lacking": pl.Float64()})


def coverage(
    lake: Queries,
    dataset: str,
    columns: Sequence[str],
    *,
    since: date | None = None,
    before: date | None = None,
    after_snapshot: int | None = None,
) -> pl.DataFrame:
    """Columns of a dataset's coverage of the sessions [since, before), by session and symbol.

    `after_snapshot`: only rows that later snapshots of the lake brought.
    """
    newer = Condition("snapshot_id > ?", (after_snapshot,)) if after_snapshot is not None else None
    order = ("session", "symbol")
    return select(lake, COVERAGE, columns, equal("dataset", dataset), sessions(since, before), newer, order=order)


def last_sessions(lake: Queries, dataset: str, columns: Sequence[str], before: date, count: int) -> pl.DataFrame:
    """Columns of the last `count` sessions that are covered before `before`, by session and symbol."""
    newest = Condition(
        f"session IN (SELECT DISTINCT session FROM {COVERAGE.name} WHERE dataset = ? AND session < ? "
        "ORDER BY session DESC LIMIT ?)",
        (dataset, before, count),
    )
    order = ("session", "symbol")
    return select(lake, COVERAGE, columns, equal("dataset", dataset), sessions(None, before), newest, order=order)


def lacking(lake: Queries, dataset: str, causes: Collection[str], since: date) -> pl.DataFrame:
    """LACKING_SCHEMA of the sessions from `since` on: `lacking` counts the holes of these causes only."""
    sql = (
        "SELECT symbol, session, checked_at, list_sum(list_transform(list_filter(missing_ranges, one -> "
        'list_contains(?, one.cause)), one -> epoch(one."end" - one."start"))) AS lacking '
        f"FROM {COVERAGE.name} WHERE dataset = ? AND session >= ?"
    )
    return rows(lake, sql, [list(causes), dataset, since], LACKING_SCHEMA)


def holes(lake: Queries, dataset: str, since: date | None, before: date | None) -> pl.DataFrame:
    """HOLES_SCHEMA of the sessions [since, before), by symbol and cause."""
    clause, parameters = where([equal("dataset", dataset), sessions(since, before), Condition("missing_bars > 0")])
    sql = (
        "SELECT symbol, cause, count(*) AS sessions, sum(missing_bars)::BIGINT AS bars "
        f"FROM {COVERAGE.name}{clause} GROUP BY symbol, cause ORDER BY symbol, cause"
    )
    return rows(lake, sql, parameters, HOLES_SCHEMA)


def holes_by_cause(lake: Queries, dataset: str, symbols: Collection[str], before: date | None) -> pl.DataFrame:
    """HOLES_BY_CAUSE_SCHEMA of these symbols' sessions before a day, most bars first."""
    mine = [equal("dataset", dataset), one_of("symbol", symbols), sessions(None, before)]
    clause, parameters = where([*mine, Condition("missing_bars > 0")])
    sql = (
        "SELECT cause, sum(missing_bars)::BIGINT AS bars, count(DISTINCT session) AS sessions, min(session) AS first, "
        f"max(session) AS last, min(symbol) AS symbol FROM {COVERAGE.name}{clause} GROUP BY cause ORDER BY bars DESC"
    )
    return rows(lake, sql, parameters, HOLES_BY_CAUSE_SCHEMA)


def summary(lake: Queries) -> pl.DataFrame:
    """SUMMARY_SCHEMA of the datasets that are covered."""
    sql = (
        "SELECT dataset, count(DISTINCT session) AS sessions, count(*) FILTER (missing_bars > 0) AS holes, "
        f"sum(missing_bars)::BIGINT AS missing_bars FROM {COVERAGE.name} GROUP BY dataset"
    )
    return rows(lake, sql, [], SUMMARY_SCHEMA)


def missing_by_cause(lake: Queries) -> pl.DataFrame:
    """CAUSES_SCHEMA of all holes."""
    sql = (
        "SELECT dataset, coalesce(cause, 'unknown') AS cause, sum(missing_bars)::BIGINT AS bars "
        f"FROM {COVERAGE.name} WHERE missing_bars > 0 GROUP BY ALL"
    )
    return rows(lake, sql, [], CAUSES_SCHEMA)
