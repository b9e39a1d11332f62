"""What is read of the tables of `trading`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import polars as pl

from quantlytic_assets.schemas.trading import BACKTESTS, BROKER_ORDERS, EQUITY, EVENTS, FILLS, ORDERS, POSITIONS
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
# One row a session: how many rows of trading.events it has.
EVENT_COUNTS_SCHEMA = pl.Schema({"session": pl.Date, "rows": pl.Int64})
# One row a session whose account does not add up.
DIFFERENCES_SCHEMA = pl.Schema(
    {"session": pl.Date, "equity": pl.Float64, "cash": pl.Float64, "market_value": pl.Float64}
)


def equity(
    lake: Queries, strategy: str, columns: Sequence[str], *, since: date | None = None, before: date | None = None
) -> pl.DataFrame:
    """Columns of the strategy's account, one row a session of [since, before), oldest first."""
    return select(lake, EQUITY, columns, equal("strategy", strategy), sessions(since, before), order=("session",))


def positions(lake: Queries, strategy: str, columns: Sequence[str]) -> pl.DataFrame:
    """Columns of what the strategy held at the end of each session, by session and symbol."""
    return select(lake, POSITIONS, columns, equal("strategy", strategy), order=("session", "symbol"))


def orders(lake: Queries, strategy: str) -> pl.DataFrame:
    """All columns of the strategy's orders, in the order of their decisions."""
    return select(
        lake, ORDERS, ORDERS.polars.names(), equal("strategy", strategy), order=("decision_time", "order_ref")
    )


def session_counts(lake: Queries, strategy: str, *, since: date, before: date) -> pl.DataFrame:
    """COUNTS_SCHEMA of the sessions [since, before), oldest first."""
    clause, parameters = where([equal("strategy", strategy), sessions(since, before)])
    sql = (
        "SELECT account.session, account.equity, account.costs_to_date, count(DISTINCT orders.order_ref) AS orders, "
        "count(fills.order_ref) AS fills, "
        "count(DISTINCT orders.order_ref) FILTER (orders.status = 'rejected') AS rejected, "
        "count(DISTINCT orders.order_ref) FILTER (orders.status = 'open') AS open "
        f"FROM (SELECT strategy, session, equity, costs_to_date FROM {EQUITY.name}{clause}) AS account "
        f"LEFT JOIN {ORDERS.name} AS orders USING (strategy, session) "
        f"LEFT JOIN {FILLS.name} AS fills USING (strategy, order_ref) "
        "GROUP BY ALL ORDER BY account.session"
    )
    return rows(lake, sql, parameters, COUNTS_SCHEMA)


def event_counts(lake: Queries, strategy: str, *, since: date, before: date) -> pl.DataFrame:
    """EVENT_COUNTS_SCHEMA of the sessions [since, before) that have events, oldest first."""
    clause, parameters = where([equal("strategy", strategy), sessions(since, before)])
    sql = f"SELECT session, count(*) AS rows FROM {EVENTS.name}{clause} GROUP BY session ORDER BY session"
    return rows(lake, sql, parameters, EVENT_COUNTS_SCHEMA)


def account_differences(lake: Queries, strategy: str) -> pl.DataFrame:
    """DIFFERENCES_SCHEMA: sessions in which equity is not cash and the market value of what is held, oldest first."""
    clause, parameters = where([equal("strategy", strategy)])
    sql = (
        "SELECT session, equity, cash, coalesce(market_value, 0) AS market_value "
        f"FROM (SELECT session, equity, cash FROM {EQUITY.name}{clause}) AS account LEFT JOIN "
        f"(SELECT session, sum(market_value) AS market_value FROM {POSITIONS.name}{clause} GROUP BY session) AS held "
        "USING (session) WHERE abs(equity - cash - coalesce(market_value, 0)) > 1e-6 * (1 + abs(equity)) "
        "ORDER BY session"
    )
    return rows(lake, sql, [*parameters, *parameters], DIFFERENCES_SCHEMA)


def broker_orders(lake: Queries, strategy: str, columns: Sequence[str]) -> pl.DataFrame:
    """Columns of the strategy's orders at a broker, oldest first."""
    mine = equal("strategy", strategy)
    return select(lake, BROKER_ORDERS, columns, mine, order=("decision_time", "order_ref"))


def backtest_sharpes(lake: Queries, strategy: str) -> list[float]:
    """The Sharpe ratio a session of each backtest of a strategy that was recorded."""
    sharpe = "json_extract(statistics, '$.sharpe_session')::DOUBLE"
    sql = f"SELECT {sharpe} AS sharpe FROM {BACKTESTS.name} WHERE strategy = ? AND {sharpe} IS NOT NULL"
    return rows(lake, sql, [strategy], pl.Schema({"sharpe": pl.Float64}))["sharpe"].to_list()


def events(lake: Queries, strategy: str, *, since: date | None = None, before: date | None = None) -> pl.DataFrame:
    """Rows of trading.events of the sessions [since, before), in their order."""
    mine = (equal("strategy", strategy), sessions(since, before))
    return select(lake, EVENTS, EVENTS.polars.names(), *mine, order=("seq",))
