"""How a strategy did in figures, beside buying the same symbols once and holding them.

Statistics are defined as in quantstats, on the account's returns from session to session. quantstats itself loads
matplotlib, which takes a run seconds; the report made with it is `charts.report`. Holdings and equity come from
`portfolio`; how good predictions were is `learning.evaluation`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.trading.costs import with_costs
from quantlytic_assets.trading.entitlements import Entitlements
from quantlytic_assets.trading.orders import FILLS_SCHEMA, order_ref
from quantlytic_assets.trading.portfolio import equity_curve, positions
from quantlytic_assets.trading.simulated_broker import next_bars

if TYPE_CHECKING:
    from quantlytic_assets.universe.models import Strategy

BENCHMARK = "buy_and_hold"
STATISTICS: tuple[str, ...] = (
    "total_return",
    "cagr",
    "sharpe",
    "sortino",
    "max_drawdown",
    "turnover",
    "total_costs",
    "trades",
)

Statistics = dict[str, float | None]


def periods_per_year(sessions: Sequence[date] | pl.Series) -> int:
    """365 for sessions that include Saturdays and Sundays, else 252: how many sessions make a year."""
    weekdays = set(pl.Series(sessions, dtype=pl.Date).dt.weekday())
    return 365 if {6, 7} <= weekdays else 252


def benchmark_fills(strategy: Strategy, bars: pl.DataFrame, decided_at: datetime) -> pl.DataFrame:
    """Buy and hold as fills (orders.FILLS_SCHEMA), strategy named `buy_and_hold`.

    Each of the strategy's symbols is bought once, at its first bar with open_time >= decided_at (the strategy's own
    first decision, UTC), at the strategy's costs, for at most capital / number of symbols, commission included, in
    whole units. bars: symbol, session, open_time, open. A symbol that one unit is too dear for, or that has no bar, is
    not bought.
    """
    wishes = pl.DataFrame({"symbol": list(strategy.symbols)}).with_columns(
        pl.lit(decided_at, pl.Datetime("us", "UTC")).alias("decision_time"),
        pl.lit(BENCHMARK).alias("strategy"),
        pl.lit("buy").alias("side"),
        pl.lit(1.0).alias("quantity"),
        pl.lit(decided_at.date()).alias("session"),
    )
    per_unit = with_costs(next_bars(wishes, bars), strategy.costs)
    share = strategy.capital / len(strategy.symbols)
    sized = per_unit.with_columns((share / (pl.col("price") + pl.col("commission"))).floor().alias("quantity"))
    bought = with_costs(sized.filter(pl.col("quantity") > 0), strategy.costs)
    return bought.with_columns(order_ref().alias("order_ref")).select(FILLS_SCHEMA.names())


def benchmark_curve(
    strategy: Strategy,
    bars: pl.DataFrame,
    decided_at: datetime,
    sessions: Sequence[date] | pl.Series,
    entitlements: Entitlements | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Equity curve and fills of buy and hold over the same sessions.

    See `benchmark_fills` and `portfolio.equity_curve`.
    """
    fills = benchmark_fills(strategy, bars, decided_at)
    held = positions(BENCHMARK, fills, bars, sessions, entitlements)
    return equity_curve(held, fills, strategy.capital, sessions, entitlements), fills


def session_returns(curve: pl.DataFrame, capital: float) -> pl.DataFrame:
    """session, return: the account's simple return per session, the first one against the capital it began with."""
    equity = pl.col("equity")
    return curve.select("session", (equity / equity.shift(1, fill_value=capital) - 1).alias("return"))


def statistics(curve: pl.DataFrame, fills: pl.DataFrame, capital: float, periods: int) -> Statistics:
    """The `STATISTICS` of an account, as fractions unless said otherwise; None where a figure is not defined.

    curve: portfolio.EQUITY_SCHEMA. fills: orders.FILLS_SCHEMA. periods: sessions a year (`periods_per_year`). sharpe
    and sortino are annualised, without a risk-free rate; max_drawdown is not positive; turnover is one-way and yearly:
    half of all notional traded / capital / years; total_costs is money: commissions and slippage; trades counts fills.
    An account that falls to 0 or below has no rates of return: cagr, sharpe, sortino and max_drawdown are None.
    """
    if curve.is_empty():
        return dict.fromkeys(STATISTICS)
    notional = float((fills["price"] * fills["quantity"]).sum())
    figures: Statistics = dict.fromkeys(STATISTICS)
    figures["total_return"] = float(curve["equity"][-1]) / capital - 1
    figures["turnover"] = notional / 2 / capital / (len(curve) / periods)
    figures["total_costs"] = float(fills["commission"].sum() + fills["slippage"].sum())
    figures["trades"] = len(fills)
    if curve["equity"].min() <= 0:
        return figures
    returns = session_returns(curve, capital)["return"]
    mean, years = float(returns.mean()), len(returns) / periods
    below = math.sqrt(float((returns.clip(upper_bound=0) ** 2).sum()) / len(returns))
    scale = math.sqrt(periods)
    figures["cagr"] = _finite((1 + (figures["total_return"] or 0.0)) ** (1 / years) - 1)
    figures["sharpe"] = _ratio(mean * scale, returns.std())
    figures["sortino"] = _ratio(mean * scale, below)
    # What the account began with is a peak too.
    money = pl.Series([capital, *curve["equity"]], dtype=pl.Float64)
    figures["max_drawdown"] = float((money / money.cum_max() - 1).min())
    return figures


def comparison(strategy: Statistics, benchmark: Statistics) -> pl.DataFrame:
    """Both accounts' figures side by side: statistic, strategy, buy_and_hold, in the order of `STATISTICS`."""
    return pl.DataFrame(
        {
            "statistic": STATISTICS,
            "strategy": [strategy[name] for name in STATISTICS],
            BENCHMARK: [benchmark[name] for name in STATISTICS],
        },
        schema={"statistic": pl.String, "strategy": pl.Float64, BENCHMARK: pl.Float64},
        strict=False,
    )


def _ratio(value: float, spread: float | None) -> float | None:
    """None where nothing spreads: a constant or a single return has no ratio."""
    return _finite(value / spread) if spread else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
