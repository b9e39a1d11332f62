"""Statistics over a window that ends at each period: the first is of the first full window.

Each gives len(returns) − window + 1 figures, none where there are fewer periods than the window has. Windows are the
columns of one array, so that there is no loop over them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike

from quantlytic_assets.trading.statistics import benchmark, ratios, risk
from quantlytic_assets.trading.statistics.returns import DAYS, Figure, Floats, floats


def roll_sharpe_ratio(returns: ArrayLike, window: int = 10, risk_free: float = 0.0, periods: int = DAYS) -> Floats:
    """The Sharpe ratio of each window."""
    return _rolled(lambda one: ratios.sharpe_ratio(one, risk_free, periods), window, returns)


def roll_max_drawdown(returns: ArrayLike, window: int = 10) -> Floats:
    """The deepest drawdown within each window."""
    return _rolled(risk.max_drawdown, window, returns)


def roll_annual_volatility(returns: ArrayLike, window: int = 10, periods: int = DAYS) -> Floats:
    """The annual volatility of each window."""
    return _rolled(lambda one: risk.annual_volatility(one, periods), window, returns)


def roll_beta(returns: ArrayLike, factor_returns: ArrayLike, window: int = 10, risk_free: float = 0.0) -> Floats:
    """The beta of each window."""
    return _rolled(lambda one, factor: benchmark.beta(one, factor, risk_free), window, returns, factor_returns)


def roll_alpha_beta(
    returns: ArrayLike, factor_returns: ArrayLike, window: int = 10, risk_free: float = 0.0, periods: int = DAYS
) -> Floats:
    """Alpha and beta of each window as the columns of an array [windows, 2]."""

    def both(one: Floats, factor: Floats) -> Floats:
        return np.stack(benchmark.alpha_beta(one, factor, risk_free, periods), axis=-1)

    rolled = _rolled(both, window, returns, factor_returns)
    return rolled if len(rolled) else np.empty((0, 2))


def roll_up_capture(returns: ArrayLike, factor_returns: ArrayLike, window: int = 10, periods: int = DAYS) -> Floats:
    """The up capture of each window."""
    return _rolled(lambda one, factor: benchmark.up_capture(one, factor, periods), window, returns, factor_returns)


def roll_down_capture(returns: ArrayLike, factor_returns: ArrayLike, window: int = 10, periods: int = DAYS) -> Floats:
    """The down capture of each window."""
    return _rolled(lambda one, factor: benchmark.down_capture(one, factor, periods), window, returns, factor_returns)


def roll_up_down_capture(
    returns: ArrayLike, factor_returns: ArrayLike, window: int = 10, periods: int = DAYS
) -> Floats:
    """The up capture over the down capture of each window."""
    return _rolled(lambda one, factor: benchmark.up_down_capture(one, factor, periods), window, returns, factor_returns)


def _rolled(statistic: Callable[..., Figure], window: int, *series: ArrayLike) -> Floats:
    """A statistic of [window, windows] for arrays of one account. Raises `ValueError` for a window under 1."""
    if window < 1:
        raise ValueError(f"a window has at least one period, not {window}")
    arrays = [floats(one) for one in series]
    if any(one.ndim != 1 for one in arrays):
        raise ValueError("rolling statistics are of one account: an array [periods]")
    if min(map(len, arrays)) < window:
        return np.empty(0)
    return floats(statistic(*(sliding_window_view(one, window).T for one in arrays)))
