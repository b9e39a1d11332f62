"""How far returns spread and how deep an account fell."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from quantlytic_assets.trading.statistics.returns import (
    DAYS,
    Figure,
    cum_returns,
    deviation,
    figure,
    floats,
    mean,
    percentile,
    undefined,
)


def annual_volatility(returns: ArrayLike, periods: int = DAYS) -> Figure:
    """Standard deviation of the returns (of the sample) times the root of the periods a year."""
    values = floats(returns)
    return undefined(values) if len(values) < 2 else figure(deviation(values) * np.sqrt(periods))


def downside_risk(returns: ArrayLike, required_return: ArrayLike = 0.0, periods: int = DAYS) -> Figure:
    """Root of the mean square of what is missing to the required return, times the root of the periods a year.

    required_return: a period, one for all or one each. Periods above it count as zeros (Sortino 1994).
    """
    values = floats(returns)
    if len(values) == 0:
        return undefined(values)
    missing = np.minimum(values - floats(required_return), 0.0)
    return figure(np.sqrt(mean(missing**2)) * np.sqrt(periods))


def max_drawdown(returns: ArrayLike) -> Figure:
    """The deepest fall below the highest value before it, as a fraction that is not positive.

    The value at the start is a peak too.
    """
    values = floats(returns)
    if len(values) == 0:
        return undefined(values)
    grown = cum_returns(values, 1.0)
    start = np.ones((1, *grown.shape[1:]))
    money = np.concatenate((start, grown))
    return figure(np.min(money / np.maximum.accumulate(money, axis=0) - 1, axis=0))


def value_at_risk(returns: ArrayLike, cutoff: float = 0.05) -> Figure:
    """The return that a share `cutoff` of the periods falls below: the historical quantile, between two linearly."""
    values = floats(returns)
    return undefined(values) if len(values) == 0 else figure(percentile(values, 100 * cutoff))


def conditional_value_at_risk(returns: ArrayLike, cutoff: float = 0.05) -> Figure:
    """The mean of the worst share `cutoff` of the returns (expected shortfall), at least of one."""
    values = floats(returns)
    if len(values) == 0:
        return undefined(values)
    # NaN are sorted to the end, behind what counts.
    last = ((np.count_nonzero(~np.isnan(values), axis=0) - 1) * cutoff).astype(np.int64)
    place = np.arange(len(values)).reshape(-1, *[1] * (values.ndim - 1))
    return figure(mean(np.where(place <= last, np.sort(values, axis=0), np.nan)))


def tail_ratio(returns: ArrayLike) -> Figure:
    """The 95th percentile of the returns over the 5th, both without their sign: 0.25 means losses four times as big."""
    values = floats(returns)
    if len(values) == 0:
        return undefined(values)
    low, high = np.abs(percentile(values, 5)), np.abs(percentile(values, 95))
    with np.errstate(divide="ignore", invalid="ignore"):
        return figure(high / low)


def stability_of_timeseries(returns: ArrayLike) -> float:
    """How straight the cumulated log returns of one account rise: R² of their linear regression on time, in [0, 1]."""
    values = floats(returns)
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return float("nan")
    with np.errstate(divide="ignore", invalid="ignore"):
        grown = np.cumsum(np.log1p(values))
        return float(np.corrcoef(np.arange(len(grown)), grown)[0, 1] ** 2)
