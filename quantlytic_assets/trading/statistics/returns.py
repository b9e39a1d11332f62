"""Returns from prices, values from returns, and the return a year."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import date
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
# One figure, or one an account where the returns are of several.
Figure = float | Floats

PERIODS: dict[str, int] = {"daily": 252, "weekly": 52, "monthly": 12, "quarterly": 4, "yearly": 1}
DAYS = PERIODS["daily"]


def floats(values: ArrayLike) -> Floats:
    """The values as an array of floats, [periods] or [periods, accounts]."""
    return np.asarray(values, dtype=np.float64)


def figure(values: ArrayLike) -> Figure:
    """A single number as a float, several as they are."""
    array = floats(values)
    return float(array) if array.ndim == 0 else array


def undefined(values: Floats) -> Figure:
    """NaN, or one NaN an account."""
    return figure(np.full(values.shape[1:], np.nan))


def mean(values: Floats) -> Floats:
    """Mean over the periods, NaN left out; NaN where there is no other value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=0))


def deviation(values: Floats) -> Floats:
    """Standard deviation of the sample (ddof 1) over the periods, NaN left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanstd(values, axis=0, ddof=1))


def percentile(values: Floats, percent: float) -> Floats:
    """The value that so many per cent of the periods are below, between two linearly; NaN left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanpercentile(values, percent, axis=0))


def simple_returns(prices: ArrayLike) -> Floats:
    """Each price over the one before it, less 1: one row fewer than there are prices."""
    values = floats(prices)
    with np.errstate(divide="ignore", invalid="ignore"):
        return values[1:] / values[:-1] - 1


def cum_returns(returns: ArrayLike, starting_value: float = 0.0) -> Floats:
    """What returns compound to after each period: a return since the start, or a value with a `starting_value`."""
    grown = np.cumprod(1 + np.nan_to_num(floats(returns), posinf=np.inf, neginf=-np.inf), axis=0)
    values = floats(grown)
    return values - 1 if starting_value == 0 else values * starting_value


def cum_returns_final(returns: ArrayLike, starting_value: float = 0.0) -> Figure:
    """What returns compound to after the last period; NaN without any."""
    values = floats(returns)
    if len(values) == 0:
        return undefined(values)
    total = np.prod(1 + np.nan_to_num(values, posinf=np.inf, neginf=-np.inf), axis=0)
    return figure(total - 1 if starting_value == 0 else total * starting_value)


def annual_return(returns: ArrayLike, periods: int = DAYS) -> Figure:
    """The constant return a year that compounds to the same (CAGR): (1 + total) ** (periods / number) − 1."""
    values = floats(returns)
    if len(values) == 0:
        return undefined(values)
    # A loss of more than everything has no rate.
    with np.errstate(invalid="ignore"):
        return figure(floats(cum_returns_final(values, 1.0)) ** (periods / len(values)) - 1)


def aggregate_returns(
    returns: ArrayLike, days: Sequence[date], by: Literal["week", "month", "quarter", "year"]
) -> dict[tuple[int, ...], float]:
    """The returns of one account compounded by calendar weeks (ISO), months, quarters or years.

    `days`: the day of each return, in order. Keys are (year, week), (year, month), (year, quarter) or (year,); a part
    of a week or month counts as one. Raises `ValueError` where there is not one day a return.
    """
    values = np.nan_to_num(floats(returns))
    if values.ndim != 1 or len(values) != len(days):
        raise ValueError(f"one day a return: {values.shape} returns, {len(days)} days")
    grown: dict[tuple[int, ...], float] = {}
    for day, value in zip(days, values.tolist(), strict=True):
        key = _calendar(day, by)
        grown[key] = grown.get(key, 1.0) * (1 + value)
    return {key: value - 1 for key, value in grown.items()}


def _calendar(day: date, by: str) -> tuple[int, ...]:
    if by == "week":
        return tuple(day.isocalendar())[:2]
    if by == "month":
        return day.year, day.month
    if by == "quarter":
        return day.year, (day.month + 2) // 3
    if by == "year":
        return (day.year,)
    raise ValueError(f"returns are compounded by week, month, quarter or year, not by {by!r}")
