"""Figures of an account: its trades, its turnover, how much of it was invested, its drawdowns and its months."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from quantlytic_assets.trading.statistics.returns import aggregate_returns, floats

DRAWDOWNS_SCHEMA = pl.Schema(
    {
        "peak": pl.Date,
        "trough": pl.Date,
        "recovered": pl.Date,
        "depth": pl.Float64,
        "sessions_down": pl.Int64,
        "sessions_to_recover": pl.Int64,
    }
)
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def profit_factor(profits: ArrayLike) -> float:
    """The sum of winning trades over the sum of losing ones without its sign.

    profits: money of each round trip after costs. Infinite without a loss, NaN without a trade that won or lost.
    """
    values = floats(profits)
    won, lost = float(values[values > 0].sum()), -float(values[values < 0].sum())
    if lost:
        return won / lost
    return float("inf") if won else float("nan")


def win_rate(profits: ArrayLike) -> float:
    """The share of round trips that made money; one that made nothing did not win. NaN without a trade."""
    values = floats(profits)
    return float((values > 0).mean()) if len(values) else float("nan")


def expectancy(profits: ArrayLike) -> float:
    """The mean profit of a round trip in money; NaN without a trade."""
    values = floats(profits)
    return float(values.mean()) if len(values) else float("nan")


def turnover(notional: ArrayLike, equity: ArrayLike, periods: int) -> float:
    """How often a year the account was turned over: half of all notional traded over mean equity and years.

    notional: money bought and sold a session, both without sign; equity: money at the end of the same sessions;
    periods: sessions a year. NaN without a session or where the mean equity is not positive.
    """
    traded, money = floats(notional), floats(equity)
    if len(traded) != len(money):
        raise ValueError(f"notional and equity are of the same sessions, not of {len(traded)} and {len(money)}")
    if len(money) == 0 or money.mean() <= 0:
        return float("nan")
    return float(traded.sum() / 2 / money.mean() / (len(money) / periods))


def exposure(held: ArrayLike, equity: ArrayLike) -> float:
    """The mean share of the equity that was in positions, longs and shorts both counted.

    held: money in positions without sign, at the end of each session. A session without equity is left out.
    """
    invested, money = floats(held), floats(equity)
    sound = money > 0
    return float((invested[sound] / money[sound]).mean()) if sound.any() else float("nan")


def time_in_market(held: ArrayLike) -> float:
    """The share of sessions that ended with a position; NaN without a session."""
    values = floats(held)
    return float((values != 0).mean()) if len(values) else float("nan")


def drawdowns(equity: ArrayLike, sessions: Sequence[date]) -> pl.DataFrame:
    """Each stretch below an earlier peak, the deepest first (`DRAWDOWNS_SCHEMA`).

    equity: money at the end of each of `sessions`, in order; the first value is the first peak. depth is a fraction
    that is negative; sessions_down counts from the peak to the trough, sessions_to_recover from the trough to the first
    session that is at the peak again. A drawdown that has not recovered has neither a `recovered` date nor a count.
    """
    money = floats(equity)
    if len(money) != len(sessions):
        raise ValueError(f"one session a value of equity, not {len(sessions)} and {len(money)}")
    if len(money) == 0:
        return DRAWDOWNS_SCHEMA.to_frame()
    peaks = np.maximum.accumulate(money)
    under = money < peaks
    edges = np.flatnonzero(np.diff(np.concatenate(([False], under, [False])).astype(np.int8)))
    rows = []
    for first, after in edges.reshape(-1, 2).tolist():
        trough = first + int(np.argmin(money[first:after]))
        recovered = after < len(money)
        rows.append(
            (
                sessions[first - 1],
                sessions[trough],
                sessions[after] if recovered else None,
                float(money[trough] / money[first - 1] - 1),
                trough - first + 1,
                after - trough if recovered else None,
            )
        )
    return pl.DataFrame(rows, DRAWDOWNS_SCHEMA, orient="row").sort("depth", maintain_order=True)


def recovery_factor(equity: ArrayLike) -> float:
    """Net profit over the deepest fall in money from a peak; NaN where the account never fell.

    equity: the account's value at the start and at the end of each session.
    """
    money = floats(equity)
    if len(money) == 0:
        return float("nan")
    deepest = float((np.maximum.accumulate(money) - money).max())
    return float(money[-1] - money[0]) / deepest if deepest else float("nan")


def monthly_returns(returns: ArrayLike, sessions: Sequence[date]) -> pl.DataFrame:
    """A table of calendar months: year, jan … dec, total; null for a month without a session.

    returns: simple return of each of `sessions`, in order. total compounds the months of the year that are there.
    """
    months = aggregate_returns(returns, sessions, "month")
    years = aggregate_returns(returns, sessions, "year")
    rows = [(year, *(months.get((year, month)) for month in range(1, 13)), total) for (year,), total in years.items()]
    schema = {"year": pl.Int32, **dict.fromkeys(MONTHS, pl.Float64), "total": pl.Float64}
    return pl.DataFrame(rows, schema, orient="row")
