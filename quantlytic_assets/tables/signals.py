"""What is read of trading.signals."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import polars as pl

from quantlytic_assets.schemas.trading import SIGNALS
from quantlytic_assets.tables.select import Queries, equal, rows, select, sessions, where

# One row a session: symbols with a signal, and signals of each kind.
COUNTS_SCHEMA = pl.Schema(
    {"session": pl.Date, "symbols": pl.Int64, "buys": pl.Int64, "sells": pl.Int64, "holds": pl.Int64}
)
_NEWEST = ("symbol", "session", "open_time", "signal", "strength", "reason")


def signals(
    lake: Queries, strategy: str, columns: Sequence[str], *, since: date | None = None, before: date | None = None
) -> pl.DataFrame:
    """Columns of a strategy's signals of the sessions [since, before), by time and symbol."""
    order = ("open_time", "symbol")
    return select(lake, SIGNALS, columns, equal("strategy", strategy), sessions(since, before), order=order)


def signal_counts(
    lake: Queries, strategy: str, *, since: date | None = None, before: date | None = None
) -> pl.DataFrame:
    """COUNTS_SCHEMA of the sessions [since, before), oldest first."""
    clause, parameters = where([equal("strategy", strategy), sessions(since, before)])
    counted = ", ".join(f"count(*) FILTER (signal = '{word}') AS {word}s" for word in ("buy", "sell", "hold"))
    sql = (
        f"SELECT session, count(DISTINCT symbol) AS symbols, {counted} FROM {SIGNALS.name}{clause} "
        "GROUP BY session ORDER BY session"
    )
    return rows(lake, sql, parameters, COUNTS_SCHEMA)


def newest_signals(lake: Queries, strategy: str) -> pl.DataFrame:
    """symbol, session, open_time, signal, strength and reason of each symbol's last buy or sell, by symbol.

    Of a symbol that has neither, its last hold.
    """
    clause, parameters = where([equal("strategy", strategy)])
    sql = (
        f"SELECT {', '.join(_NEWEST)} FROM {SIGNALS.name}{clause} "
        "QUALIFY row_number() OVER (PARTITION BY symbol ORDER BY signal = 'hold', open_time DESC) = 1 ORDER BY symbol"
    )
    return rows(lake, sql, parameters, SIGNALS.schema(_NEWEST))
