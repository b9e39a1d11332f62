"""An account beside a benchmark, called factor: what moves with it and what does not.

Returns and the factor's are arrays of one length, period by period: [periods] or [periods, accounts], or one of either.
Whoever has them by date aligns them first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from quantlytic_assets.trading.statistics.returns import DAYS, Figure, Floats, annual_return, figure, floats, mean

# Below this the benchmark does not move, and nothing can be said of what moves with it.
_NO_VARIANCE = 1e-30


def beta(returns: ArrayLike, factor_returns: ArrayLike, risk_free: ArrayLike = 0.0) -> Figure:
    """Covariance of returns and factor over the variance of the factor; NaN where the factor does not move."""
    values, factor = _pair(returns, factor_returns)
    excess = floats(risk_free)
    return figure(_beta(values - excess, factor - excess))


def alpha(
    returns: ArrayLike,
    factor_returns: ArrayLike,
    risk_free: ArrayLike = 0.0,
    periods: int = DAYS,
    beta: ArrayLike | None = None,
) -> Figure:
    """What the returns are a year beyond beta times the factor: (1 + mean of the rest) ** periods − 1 (Jensen 1968)."""
    values, factor = _pair(returns, factor_returns)
    excess, factor = values - floats(risk_free), factor - floats(risk_free)
    slope = _beta(excess, factor) if beta is None else floats(beta)
    return figure(_alpha(excess, factor, slope, periods))


def alpha_beta(
    returns: ArrayLike, factor_returns: ArrayLike, risk_free: ArrayLike = 0.0, periods: int = DAYS
) -> tuple[Figure, Figure]:
    """Alpha and beta at once."""
    values, factor = _pair(returns, factor_returns)
    excess, factor = values - floats(risk_free), factor - floats(risk_free)
    slope = _beta(excess, factor)
    return figure(_alpha(excess, factor, slope, periods)), figure(slope)


def up_alpha_beta(
    returns: ArrayLike, factor_returns: ArrayLike, risk_free: float = 0.0, periods: int = DAYS
) -> tuple[Figure, Figure]:
    """Alpha and beta of one account over the periods in which the factor rose."""
    values, factor = _pair(returns, factor_returns)
    return alpha_beta(values[factor > 0], factor[factor > 0], risk_free, periods)


def down_alpha_beta(
    returns: ArrayLike, factor_returns: ArrayLike, risk_free: float = 0.0, periods: int = DAYS
) -> tuple[Figure, Figure]:
    """Alpha and beta of one account over the periods in which the factor fell."""
    values, factor = _pair(returns, factor_returns)
    return alpha_beta(values[factor < 0], factor[factor < 0], risk_free, periods)


def capture(returns: ArrayLike, factor_returns: ArrayLike, periods: int = DAYS) -> Figure:
    """Annual return over the factor's annual return."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return figure(floats(annual_return(returns, periods)) / floats(annual_return(factor_returns, periods)))


def up_capture(returns: ArrayLike, factor_returns: ArrayLike, periods: int = DAYS) -> Figure:
    """The capture over the periods in which the factor rose; NaN where it never did."""
    values, factor = _pair(returns, factor_returns)
    return figure(_capture_where(factor > 0, values, factor, periods))


def down_capture(returns: ArrayLike, factor_returns: ArrayLike, periods: int = DAYS) -> Figure:
    """The capture over the periods in which the factor fell; NaN where it never did."""
    values, factor = _pair(returns, factor_returns)
    return figure(_capture_where(factor < 0, values, factor, periods))


def up_down_capture(returns: ArrayLike, factor_returns: ArrayLike, periods: int = DAYS) -> Figure:
    """The up capture over the down capture: above 1 where rises are shared more than falls."""
    up, down = up_capture(returns, factor_returns, periods), down_capture(returns, factor_returns, periods)
    with np.errstate(divide="ignore", invalid="ignore"):
        return figure(floats(up) / floats(down))


def batting_average(returns: ArrayLike, factor_returns: ArrayLike) -> tuple[float, float, float]:
    """The share of periods in which one account beat the factor: of all, of those it rose in, of those it fell in."""
    values, factor = _pair(returns, factor_returns)
    beat = values - factor > 0
    return _share(beat), _share(beat[factor > 0]), _share(beat[factor < 0])


def _pair(returns: ArrayLike, factor_returns: ArrayLike) -> tuple[Floats, Floats]:
    """Both as arrays of one shape. Raises `ValueError` where they do not have one length."""
    values, factor = floats(returns), floats(factor_returns)
    if len(values) != len(factor):
        raise ValueError(f"returns and factor returns are of one length, not {len(values)} and {len(factor)}")
    if values.ndim != factor.ndim:
        # One benchmark for several accounts, or the other way round.
        values = values if values.ndim > 1 else values[:, None]
        factor = factor if factor.ndim > 1 else factor[:, None]
    values, factor = np.broadcast_arrays(values, factor)
    return values, factor


def _beta(values: Floats, factor: Floats) -> Floats:
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    # A period counts where both are known.
    known = np.where(np.isnan(values), np.nan, factor)
    moved = known - mean(known)
    variance = mean(moved**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(variance < _NO_VARIANCE, np.nan, mean(moved * values) / variance)


def _alpha(values: Floats, factor: Floats, slope: Floats, periods: int) -> Floats:
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray((1 + mean(values - slope * factor)) ** periods - 1)


def _capture_where(chosen: np.ndarray, values: Floats, factor: Floats, periods: int) -> Floats:
    """The capture over chosen periods, which may be others in each account."""
    count = chosen.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        years = np.where(count > 0, count / periods, np.nan)
        ours, theirs = (
            np.prod(np.where(chosen, 1 + np.nan_to_num(one), 1.0), axis=0) ** (1 / years) - 1
            for one in (values, factor)
        )
        return np.asarray(ours / theirs)


def _share(chosen: np.ndarray) -> float:
    return float(chosen.mean()) if len(chosen) else float("nan")
