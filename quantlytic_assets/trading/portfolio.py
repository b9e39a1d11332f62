"""What fills amount to: holdings per session and symbol, and the account's equity.

Statistics are in `performance`.

Money is in the currency of the prices. A session's figures are those after its last bar. Splits and dividends are
`entitlements`'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from quantlytic_assets.schemas.trading import EQUITY, POSITIONS
from quantlytic_assets.trading.entitlements import Entitlements, shares

POSITIONS_SCHEMA = POSITIONS.polars

EQUITY_SCHEMA = EQUITY.without("strategy")


@dataclass(frozen=True)
class Opening:
    """An account at the end of a session, from which it goes on: `holdings` are POSITIONS_SCHEMA of that session."""

    session: date
    holdings: pl.DataFrame
    cash: float
    costs_to_date: float


def session_closes(bars: pl.DataFrame) -> pl.DataFrame:
    """The last usable close of each session and symbol: session, symbol, close."""
    return (
        bars.filter(pl.col("close").is_finite())
        .group_by("session", "symbol")
        .agg(pl.col("close").sort_by("open_time").last())
    )


def positions(
    strategy: str,
    fills: pl.DataFrame,
    bars: pl.DataFrame,
    sessions: Sequence[date] | pl.Series,
    entitlements: Entitlements | None = None,
    opening: Opening | None = None,
) -> pl.DataFrame:
    """Holdings (POSITIONS_SCHEMA) at the end of each session, one row per symbol held, by session and symbol.

    fills: orders.FILLS_SCHEMA, all of the strategy's up to the last session, or those after `opening`. bars: session,
    symbol, open_time, close, as traded. Quantities and prices are in shares of the session. average_price is the
    average cost of the units held, slippage included and commission not; a sale leaves it as it is (buys of a session
    count before its sales), a split divides it. close is the session's last, or the last known one where the session
    has none. symbol is the share's of the session (`Entitlements.with_symbol`): what was bought as FB is held as META
    in the end.
    """
    entitlements = entitlements or Entitlements()
    ordered = _ordered(sessions)
    fills = fills.filter(pl.col("fill_session") <= ordered.max()) if len(ordered) else fills.clear()
    closes = session_closes(bars)
    if opening is not None and len(ordered):
        # As if all were bought at its average cost in that session.
        held_then = opening.holdings.rename({"session": "fill_session"})
        bought = held_then.select("symbol", "fill_session", "quantity", pl.col("average_price").alias("price"))
        fills = pl.concat([bought.with_columns(pl.lit("buy").alias("side")), fills], how="diagonal_relaxed")
        closes = pl.concat([opening.holdings.select("session", "symbol", "close"), closes], how="vertical_relaxed")
    if fills.is_empty():
        return pl.DataFrame(schema=POSITIONS_SCHEMA)
    # By company and in units that no split changes, until they are given back as shares of each session.
    fills = entitlements.by_company(fills, "fill_session").with_columns(
        pl.col("quantity") / pl.col("split_factor"), pl.col("price") * pl.col("split_factor")
    )
    closes = entitlements.by_company(closes, "session").with_columns(pl.col("close") * pl.col("split_factor"))
    companies = fills["company"].unique().sort()
    quantity, cost = _accumulate(fills, companies)
    traded = fills["fill_session"].unique().sort()
    held = pl.DataFrame(
        {
            "session": traded.repeat_by(len(companies)).explode(),
            "company": pl.concat([companies] * len(traded)),
            "quantity": quantity.ravel(),
            "average_price": np.divide(cost, quantity, out=np.zeros_like(cost), where=quantity != 0).ravel(),
        }
    )
    # What was held after the last traded session, and the last close, go on until there is news.
    grid = pl.DataFrame({"session": ordered}).join(pl.DataFrame({"company": companies}), how="cross").sort("session")
    grid = grid.join_asof(held.sort("session"), on="session", by="company", check_sortedness=False)
    grid = grid.join_asof(
        closes.drop("split_factor", "symbol").sort("session"), on="session", by="company", check_sortedness=False
    )
    return (
        entitlements.with_symbol(entitlements.with_split_factor(grid, "session"), "session")
        .with_columns(
            shares(pl.col("quantity"), pl.col("split_factor")),
            pl.col("average_price", "close") / pl.col("split_factor"),
        )
        .filter(pl.col("quantity") != 0)
        .with_columns(pl.coalesce("close", "average_price").alias("close"), pl.lit(strategy).alias("strategy"))
        .with_columns((pl.col("quantity") * pl.col("close")).alias("market_value"))
        .select(POSITIONS_SCHEMA.names())
        .sort("session", "symbol")
    )


def equity_curve(
    held: pl.DataFrame,
    fills: pl.DataFrame,
    capital: float,
    sessions: Sequence[date] | pl.Series,
    entitlements: Entitlements | None = None,
    opening: Opening | None = None,
) -> pl.DataFrame:
    """The account (EQUITY_SCHEMA), one row per session, oldest first.

    held: `positions` of these sessions. fills: orders.FILLS_SCHEMA. The account begins with `capital` in cash, or goes
    on from `opening` with the fills after it, and dividends are added to it; equity = cash + market value,
    gross_exposure = sum of |market value|, costs_to_date = commissions and slippage paid so far (both are in the equity
    already). Cash earns nothing and can fall below 0, as sizes follow the fixed capital and not the equity.
    """
    ordered = _ordered(sessions)
    notional = pl.col("price") * pl.col("quantity")
    flow = pl.when(pl.col("side") == "buy").then(-notional).otherwise(notional) - pl.col("commission")
    flows = (
        fills.group_by("fill_session")
        .agg(flow.sum().alias("flow"), (pl.col("commission") + pl.col("slippage")).sum().alias("costs"))
        .sort("fill_session")
        .with_columns(pl.col("flow", "costs").cum_sum())
    )
    evenings, holdings, cash, costs = ordered, held, capital, 0.0
    if opening is not None:
        # Who held a share at its end is paid on the next ex-date.
        evenings, holdings = pl.concat([pl.Series([opening.session]), ordered]), pl.concat([opening.holdings, held])
        cash, costs = opening.cash, opening.costs_to_date
    income = (entitlements or Entitlements()).income(holdings, evenings).with_columns(pl.col("income").cum_sum())
    values = held.group_by("session").agg(
        pl.col("market_value").sum(), pl.col("market_value").abs().sum().alias("gross_exposure")
    )
    return (
        pl.DataFrame({"session": ordered})
        .join_asof(flows, left_on="session", right_on="fill_session")
        .join_asof(income, on="session")
        .join(values, on="session", how="left", maintain_order="left")
        .with_columns(pl.col("flow", "income", "costs", "market_value", "gross_exposure").fill_null(0.0))
        .with_columns(pl.sum_horizontal(pl.lit(cash), "flow", "income").alias("cash"))
        .with_columns((pl.col("costs") + costs).alias("costs_to_date"))
        .with_columns((pl.col("cash") + pl.col("market_value")).alias("equity"))
        .select(EQUITY_SCHEMA.names())
    )


def _ordered(sessions: Sequence[date] | pl.Series) -> pl.Series:
    return pl.Series("session", sessions, pl.Date).unique().sort()


def _accumulate(fills: pl.DataFrame, companies: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Units held and what they cost, after each traded session: two matrices [traded sessions, companies]."""
    bought, spent, sold = (
        _matrix(fills.filter(pl.col("side") == side), value, fills["fill_session"].unique().sort(), companies)
        for side, value in (
            ("buy", pl.col("quantity")),
            ("buy", pl.col("quantity") * pl.col("price")),
            ("sell", pl.col("quantity")),
        )
    )
    quantity, cost = np.zeros_like(bought), np.zeros_like(bought)
    units, basis = np.zeros(len(companies)), np.zeros(len(companies))
    # Average cost is recursive (a sale scales what all buys before it cost), hence session by session.
    for i in range(len(bought)):
        gross = units + bought[i]
        basis += spent[i]
        units = gross - sold[i]
        basis *= np.divide(units, gross, out=np.zeros_like(gross), where=gross != 0)
        quantity[i], cost[i] = units, basis
    return quantity, cost


def _matrix(fills: pl.DataFrame, value: pl.Expr, traded: pl.Series, companies: pl.Series) -> np.ndarray:
    matrix = np.zeros((len(traded), len(companies)))
    summed = fills.group_by("fill_session", "company").agg(value.sum().alias("value"))
    rows = traded.search_sorted(summed["fill_session"]).to_numpy()
    columns = companies.search_sorted(summed["company"]).to_numpy()
    matrix[rows, columns] = summed["value"].to_numpy()
    return matrix
