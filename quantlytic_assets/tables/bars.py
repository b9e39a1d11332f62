"""What is read of clean.bars and of what cleaning writes beside them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.schemas.clean import BARS, PRICE_LEVELS, QUARANTINE, REPAIRS, SESSIONS, VENDOR_DIFFERENCES
from quantlytic_assets.tables.select import Condition, Queries, equal, one_of, rows, scalar, select, sessions

# One row a dataset: rows of clean.bars, and when the newest of them opened and closed.
SUMMARY_SCHEMA = pl.Schema({"dataset": pl.String(), "bars": pl.Int64(), "last_open": TIME, "last_close": TIME})


def clean_bars(
    lake: Queries,
    dataset: str,
    columns: Sequence[str],
    *,
    since: date | None = None,
    before: date | None = None,
    symbols: Collection[str] | None = None,
) -> pl.DataFrame:
    """Columns of a dataset's clean bars of the sessions [since, before), in no order."""
    return select(lake, BARS, columns, equal("dataset", dataset), sessions(since, before), one_of("symbol", symbols))


def quarantined_bars(lake: Queries, dataset: str, symbols: Collection[str], since: date, before: date) -> pl.DataFrame:
    """symbol, open_time, reason, source_object and source_row of rejected rows of the sessions [since, before)."""
    columns = ["symbol", "open_time", "reason", "source_object", "source_row"]
    mine = (equal("dataset", dataset), one_of("symbol", symbols), sessions(since, before))
    return select(lake, QUARANTINE, columns, *mine, order=("open_time", "source_object", "source_row"))


def session_hours(lake: Queries, dataset: str, before: date | None = None) -> pl.DataFrame:
    """session, open_time, close_time of a dataset's sessions before a day, oldest first."""
    columns = ["session", "open_time", "close_time"]
    return select(lake, SESSIONS, columns, equal("dataset", dataset), sessions(None, before), order=("session",))


def repaired_symbols(lake: Queries, dataset: str) -> list[str]:
    """The symbols of a dataset with a repaired bar."""
    return select(lake, REPAIRS, ["symbol"], equal("dataset", dataset), order=("symbol",), distinct=True)[
        "symbol"
    ].to_list()


def sessions_with_bars(lake: Queries, dataset: str, since: date) -> pl.DataFrame:
    """session: those from `since` on that have a bar."""
    return select(lake, BARS, ["session"], equal("dataset", dataset), sessions(since, None), distinct=True)


def bases(lake: Queries, dataset: str, symbols: Collection[str]) -> pl.DataFrame:
    """symbol, session, adjustment, fetched_at, each combination once: in which shares the bars' prices are."""
    columns = ["symbol", "session", "adjustment", "fetched_at"]
    return select(lake, BARS, columns, equal("dataset", dataset), one_of("symbol", symbols), distinct=True)


def newest_close(lake: Queries, dataset: str, since: date) -> datetime | None:
    """When the newest bar of the sessions from `since` on closed, UTC; None where there is none."""
    return scalar(lake, BARS, "max(close_time)", equal("dataset", dataset), sessions(since, None))


def summary(lake: Queries) -> pl.DataFrame:
    """SUMMARY_SCHEMA of the datasets that have bars."""
    sql = (
        "SELECT dataset, count(*) AS bars, max(open_time) AS last_open, max(close_time) AS last_close "
        f"FROM {BARS.name} GROUP BY dataset"
    )
    return rows(lake, sql, [], SUMMARY_SCHEMA)


def vendor_differences(
    lake: Queries, dataset: str, *, since: date | None = None, before: date | None = None
) -> pl.DataFrame:
    """Rows of clean.vendor_differences of the sessions [since, before)."""
    columns = VENDOR_DIFFERENCES.polars.names()
    return select(lake, VENDOR_DIFFERENCES, columns, equal("dataset", dataset), sessions(since, before))


def price_levels(lake: Queries, dataset: str, since: date, before: date) -> pl.DataFrame:
    """Rows of clean.price_levels of the sessions [since, before), in no order."""
    columns = PRICE_LEVELS.polars.names()
    return select(lake, PRICE_LEVELS, columns, equal("dataset", dataset), sessions(since, before))


def quarantined(lake: Queries, dataset: str, pattern: str) -> int:
    """How many rows of clean.quarantine come from archive objects whose path is LIKE `pattern`."""
    like = Condition("source_object LIKE ?", (pattern,))
    return scalar(lake, QUARANTINE, "count(*)", equal("dataset", dataset), like) or 0


def quarantined_objects(lake: Queries, dataset: str, pattern: str) -> list[str]:
    """The archive objects whose path is LIKE `pattern` and that have rows in clean.quarantine."""
    like = Condition("source_object LIKE ?", (pattern,))
    found = select(lake, QUARANTINE, ["source_object"], equal("dataset", dataset), like, distinct=True)
    return found["source_object"].to_list()
