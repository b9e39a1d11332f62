"""Return in proportion to risk."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from quantlytic_assets.trading.statistics.returns import (
    DAYS,
    Figure,
    annual_return,
    deviation,
    figure,
    floats,
    mean,
    undefined,
)
from quantlytic_assets.trading.statistics.risk import downside_risk, max_drawdown


def sharpe_ratio(returns: ArrayLike, risk_free: ArrayLike = 0.0, periods: int = DAYS) -> Figure:
    """Mean of the returns above the risk-free ones over their deviation, times the root of the periods a year.

    risk_free: a period, one for all or one each (Sharpe 1994). Infinite where nothing spreads, NaN with less than two
    periods.
    """
    values = floats(returns)
    if len(values) < 2:
        return undefined(values)
    excess = values - floats(risk_free)
    with np.errstate(divide="ignore", invalid="ignore"):
        return figure(mean(excess) / deviation(excess) * np.sqrt(periods))


def sortino_ratio(returns: ArrayLike, required_return: ArrayLike = 0.0, periods: int = DAYS) -> Figure:
    """Mean of the returns above the required ones over their downside risk, both a year (Sortino 1994)."""
    values = floats(returns)
    if len(values) < 2:
        return undefined(values)
    gained = mean(values - floats(required_return)) * periods
    with np.errstate(divide="ignore", invalid="ignore"):
        return figure(gained / floats(downside_risk(values, required_return, periods)))


def calmar_ratio(returns: ArrayLike, periods: int = DAYS) -> Figure:
    """Annual return over the deepest drawdown without its sign (Young 1991); NaN without a drawdown."""
    deepest = floats(max_drawdown(returns))
    with np.errstate(divide="ignore", invalid="ignore"):
        return figure(np.where(deepest < 0, floats(annual_return(returns, periods)) / -deepest, np.nan))


def omega_ratio(
    returns: ArrayLike, risk_free: ArrayLike = 0.0, required_return: float = 0.0, periods: int = DAYS
) -> Figure:
    """The sum of what is above a threshold over the sum of what is missing to it (Keating and Shadwick 2002).

    The threshold is the risk-free return of the period plus what `required_return` a year is a period. NaN where
    nothing is missing, with less than two periods, and for a required return of −1 or less.
    """
    values = floats(returns)
    if len(values) < 2 or (periods != 1 and required_return <= -1):
        return undefined(values)
    required = required_return if periods == 1 else (1 + required_return) ** (1 / periods) - 1
    above = values - floats(risk_free) - required
    gained = np.nansum(np.maximum(above, 0.0), axis=0)
    missing = -np.nansum(np.minimum(above, 0.0), axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return figure(np.where(missing > 0, gained / missing, np.nan))


def excess_sharpe(returns: ArrayLike, factor_returns: ArrayLike) -> Figure:
    """Mean of the returns above a benchmark's over their deviation, not annualised (information ratio).

    NaN where the difference does not spread.
    """
    values = floats(returns)
    if len(values) < 2:
        return undefined(values)
    active = values - floats(factor_returns)
    spread = deviation(active)
    with np.errstate(divide="ignore", invalid="ignore"):
        return figure(np.where(spread > 0, mean(active) / spread, np.nan))
