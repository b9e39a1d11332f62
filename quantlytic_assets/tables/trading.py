"""What is read of the tables of `trading`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import polars as pl

from quantlytic_assets.schemas.trading import EQUITY, FILLS, ORDERS
from quantlytic_assets.tables.select import Queries, equal, rows, select, sessions, where

# One row a session: the account, and what became of the orders that were decided in it.
COUNTS_SCHEMA = pl.Schema(
    {
        "session": pl.Date,
        "equity": pl.Float64,
        "costs_to_date": pl.Float64,
        "orders": pl.Int64,
        "fills": pl.Int64,
        "rejected": pl.Int64,
        "open": pl.Int64,
    }
)


def equity(
    lake: Queries, strategy: str, columns: Sequence[str], *, since: date | None = None, before: date | None = None
) -> pl.DataFrame:
    """Columns of the strategy's account, one row a session of [since, before), oldest first."""
    return select(lake, EQUITY, columns, equal("strategy", strategy), sessions(since, before), order=("session",))


def fills(
    lake: Queries, strategy: str, columns: Sequence[str], *, since: date | None = None, before: date | None = None
) -> pl.DataFrame:
    """Columns of the fills of orders decided in the sessions [since, before), by session and symbol."""
    order = ("session", "symbol")
    return select(lake, FILLS, columns, equal("strategy", strategy), sessions(since, before), order=order)


def session_counts(lake: Queries, strategy: str, *, since: date, before: date) -> pl.DataFrame:
    """COUNTS_SCHEMA of the sessions [since, before), oldest first."""
    clause, parameters = where([equal("strategy", strategy), sessions(since, before)])
    sql = (
        "SELECT account.session, account.equity, account.costs_to_date, count(orders.order_ref) AS orders, "
        "count(fills.order_ref) AS fills, count(*) FILTER (orders.status = 'refused') AS rejected, "
        "count(*) FILTER (orders.status = 'open') AS open "
        f"FROM (SELECT strategy, session, equity, costs_to_date FROM {EQUITY.name}{clause}) AS account "
        f"LEFT JOIN {ORDERS.name} AS orders USING (strategy, session) "
        f"LEFT JOIN {FILLS.name} AS fills USING (strategy, order_ref) "
        "GROUP BY ALL ORDER BY account.session"
    )
    return rows(lake, sql, parameters, COUNTS_SCHEMA)
