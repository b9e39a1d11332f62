"""What is read of trading.signals."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import polars as pl

from quantlytic_assets.schemas.trading import SIGNALS
from quantlytic_assets.tables.select import Condition, Queries, equal, rows, scalar, select, sessions, where

# One row a session: symbols with a signal, and signals of each kind.
COUNTS_SCHEMA = pl.Schema(
    {"session": pl.Date, "symbols": pl.Int64, "buys": pl.Int64, "sells": pl.Int64, "holds": pl.Int64}
)
_NEWEST = ("symbol", "session", "open_time", "signal", "strength", "reason")


def signals_since(lake: Queries, strategy: str, columns: Sequence[str], session: date) -> pl.DataFrame:
    """Columns of a strategy's signals from a session on, in no order."""
    return select(lake, SIGNALS, columns, equal("strategy", strategy), sessions(session, None))


def session_signals(lake: Queries, strategy: str, session: date) -> pl.DataFrame:
    """All columns of a strategy's signals of one session, by time and symbol."""
    own = (equal("strategy", strategy), equal("session", session))
    return select(lake, SIGNALS, SIGNALS.polars.names(), *own, order=("open_time", "symbol"))


def targets(lake: Queries, strategy: str, *, since: date | None = None, before: date | None = None) -> pl.DataFrame:
    """symbol, open_time and target of a strategy's signals of the sessions [since, before), by symbol and time.

    A null target is the last one before it, of the sessions before `since` too: what a hold keeps.
    """
    own = equal("strategy", strategy)
    order, columns = ("symbol", "open_time"), ["symbol", "open_time", "target"]
    found = select(lake, SIGNALS, columns, own, sessions(since, before), order=order)
    if found.is_empty():
        return found
    begin = found["open_time"].min()
    if since is not None:
        clause, parameters = where([own, sessions(None, since), Condition("target IS NOT NULL")])
        sql = (
            f"SELECT symbol, max(open_time) AS open_time, arg_max(target, open_time) AS target FROM {SIGNALS.name}"
            f"{clause} GROUP BY symbol"
        )
        found = pl.concat([rows(lake, sql, parameters, SIGNALS.schema(columns)), found]).sort(order)
    kept = pl.col("target").forward_fill().over("symbol", order_by="open_time")
    return found.with_columns(kept).filter(pl.col("open_time") >= begin)


def decided_through(lake: Queries, strategy: str, before: date) -> datetime | None:
    """The open time, UTC, of the newest bar of a session before `before` that has a signal; None without any."""
    return scalar(lake, SIGNALS, "max(open_time)", equal("strategy", strategy), sessions(None, before))


def first_decided(lake: Queries, strategy: str) -> date | None:
    """The first session that the strategy has signals for; None without any."""
    return scalar(lake, SIGNALS, "min(session)", equal("strategy", strategy))


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
