"""How much of a backtest's result is what a search over many would have found in noise.

Sharpe ratios here are a period (a session, a bar), not a year, unless said otherwise: `annual` / sqrt(periods a year).
Formulas: Bailey and López de Prado, "The Sharpe ratio efficient frontier" (2012) and "The deflated Sharpe ratio"
(2014); Bailey, Borwein, López de Prado and Zhu, "The probability of backtest overfitting" (2015).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

_EULER_MASCHERONI = 0.5772156649015329
# C(16, 8) = 12,870 ways to choose the half that is in sample, as in the paper.
_BLOCKS = 16
# Sharpe ratios of combinations and configurations are made a part at a time: all of a large search need gigabytes.
_VALUES_AT_ONCE = 1_000_000


def probabilistic_sharpe_ratio(
    sharpe: float, observations: int, skewness: float = 0.0, kurtosis: float = 3.0, benchmark: float = 0.0
) -> float:
    """The probability that the true Sharpe ratio is above a benchmark's, given the one that was measured.

    sharpe and benchmark a period; observations: how many periods; skewness and kurtosis of the returns, the kurtosis
    not the excess: 3 for a normal distribution. NaN where the moments can't be those of returns. Raises `ValueError`
    for fewer than two observations.
    """
    if observations < 2:
        raise ValueError(f"a Sharpe ratio has at least two observations, not {observations}")
    error = _standard_error(sharpe, observations, skewness, kurtosis)
    return float(ndtr((sharpe - benchmark) / error))


def expected_maximum_sharpe(trials: int, variance: float, mean: float = 0.0) -> float:
    """The best Sharpe ratio that a number of independent trials without skill is expected to show.

    variance and mean of the trials' Sharpe ratios, on whose scale (a period or a year) the answer is. Raises
    `ValueError` for less than one trial and a negative variance.
    """
    if trials < 1:
        raise ValueError(f"there is at least one trial, not {trials}")
    if not variance >= 0:
        raise ValueError(f"a variance is not negative: {variance}")
    if trials == 1:
        # One try has nothing to choose from.
        return mean
    highest = (1 - _EULER_MASCHERONI) * ndtri(1 - 1 / trials) + _EULER_MASCHERONI * ndtri(1 - 1 / (trials * math.e))
    return float(mean + math.sqrt(variance) * highest)


def deflated_sharpe_ratio(
    sharpe: float, observations: int, trials: int, variance: float, skewness: float = 0.0, kurtosis: float = 3.0
) -> float:
    """The probability that a Sharpe ratio that was the best of many trials is more than luck.

    sharpe a period, variance of the trials' Sharpe ratios a period; the rest as in `probabilistic_sharpe_ratio`. Trials
    are counted as independent: for those that are nearly alike the answer is too strict. Above
    0.95 is what people ask for. An annual ratio of 2.5 from 1,250 days with skewness −3 and kurtosis 10, the best of
    100 with an annual variance of ½, is 0.9004 (a year of 250 days).
    """
    least = expected_maximum_sharpe(trials, variance)
    return probabilistic_sharpe_ratio(sharpe, observations, skewness, kurtosis, least)


def deflated_sharpe_of(returns: ArrayLike, trial_sharpes: ArrayLike) -> float:
    """`deflated_sharpe_ratio` of the chosen returns [periods] and the Sharpe ratios a period of all trials.

    NaN where the returns don't spread. Raises `ValueError` where there is less than one trial or two returns.
    """
    # It takes a process most of a second to load, and few ask for moments.
    from scipy import stats

    values = _finite(returns)
    tried = _finite(trial_sharpes)
    if len(values) < 2 or len(tried) < 1:
        raise ValueError(f"at least two returns and one trial, not {len(values)} and {len(tried)}")
    spread = float(values.std(ddof=1))
    if not spread > 0:
        return float("nan")
    variance = float(tried.var(ddof=1)) if len(tried) > 1 else 0.0
    return deflated_sharpe_ratio(
        float(values.mean()) / spread,
        len(values),
        len(tried),
        variance,
        float(stats.skew(values)),
        float(stats.kurtosis(values, fisher=False)),
    )


def minimum_track_record_length(
    sharpe: float, skewness: float = 0.0, kurtosis: float = 3.0, benchmark: float = 0.0, confidence: float = 0.95
) -> float:
    """How many periods must be seen for a Sharpe ratio to be above a benchmark's with a confidence.

    sharpe and benchmark a period. Infinite where the ratio is not above the benchmark's. Raises `ValueError` for a
    confidence that is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence is between 0 and 1, not {confidence}")
    if sharpe <= benchmark:
        return float("inf")
    return 1 + _spread(sharpe, skewness, kurtosis) * float(ndtri(confidence) / (sharpe - benchmark)) ** 2


@dataclass(frozen=True)
class Overfitting:
    """What combinatorially symmetric cross-validation says of a search.

    probability: how often the configuration that was best in sample is below the median out of sample. `logits`: the
    relative rank out of sample of the one chosen, as a log-odds, one a combination. loss_probability: how often the one
    chosen has a Sharpe ratio below zero out of sample. slope: of the chosen one's out-of-sample on its in-sample Sharpe
    ratio; negative where the better fit does worse.
    """

    probability: float
    logits: NDArray[np.float64]
    loss_probability: float
    slope: float


def backtest_overfitting(returns: ArrayLike, blocks: int = _BLOCKS) -> Overfitting:
    """The probability of backtest overfitting by CSCV, from the returns of every configuration that was tried.

    returns: an array (observations, configurations) of simple returns a period. The observations are cut into `blocks`
    stretches of equal length (a few at the start are left out); each half of them in turn is in sample. Sharpe ratios
    decide. Raises `ValueError` for an array that is not such a table: one with more configurations than observations is
    taken to be transposed, which would give another number without a word.
    """
    values = np.asarray(returns, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"returns are an array (observations, configurations), not one of {values.ndim} dimensions")
    observations, configurations = values.shape
    if configurations > observations:
        raise ValueError(
            f"{observations} observations of {configurations} configurations: the array is probably transposed; "
            "rows are periods, columns are configurations"
        )
    if configurations < 2:
        raise ValueError("overfitting is a matter of choosing: at least two configurations")
    if blocks < 2 or blocks % 2:
        raise ValueError(f"blocks are an even number, at least 2, not {blocks}")
    if observations < 2 * blocks:
        raise ValueError(f"{blocks} blocks need at least {2 * blocks} observations, not {observations}")
    if not np.isfinite(values).all():
        raise ValueError("returns hold NaN or infinite numbers: fill periods without a position with 0")
    length = observations // blocks
    cut = values[observations - length * blocks :].reshape(blocks, length, configurations)
    # Means and deviations of any half follow from sums of its blocks.
    sums, squares = cut.sum(axis=1), (cut**2).sum(axis=1)
    halves = _halves(blocks)
    fitted, achieved, rank = np.empty((3, len(halves)))
    at_once = max(1, _VALUES_AT_ONCE // configurations)
    for first in range(0, len(halves), at_once):
        part = slice(first, first + at_once)
        half = halves[part]
        inside = _sharpe(half @ sums, half @ squares, length * blocks // 2)
        outside = _sharpe((1 - half) @ sums, (1 - half) @ squares, length * blocks // 2)
        rows, chosen = np.arange(len(half)), inside.argmax(axis=1)
        fitted[part], achieved[part] = inside[rows, chosen], outside[rows, chosen]
        # Ties share their rank, so that configurations that are all alike are neither good nor bad.
        below = (outside < achieved[part, None]).sum(axis=1)
        equal = (outside == achieved[part, None]).sum(axis=1)
        rank[part] = (below + (equal + 1) / 2) / (configurations + 1)
    logits = np.log(rank / (1 - rank))
    spread = float(((fitted - fitted.mean()) ** 2).sum())
    slope = float(((fitted - fitted.mean()) * (achieved - achieved.mean())).sum()) / spread if spread else float("nan")
    return Overfitting(float((logits <= 0).mean()), logits, float((achieved < 0).mean()), slope)


def _halves(blocks: int) -> NDArray[np.float64]:
    """Which blocks are in sample, a row for each half of them: ones and zeros (combinations, blocks)."""
    chosen = np.array(list(combinations(range(blocks), blocks // 2)))
    halves = np.zeros((len(chosen), blocks))
    np.put_along_axis(halves, chosen, 1.0, axis=1)
    return halves


def _sharpe(sums: NDArray[np.float64], squares: NDArray[np.float64], number: int) -> NDArray[np.float64]:
    """Sharpe ratios from sums and sums of squares; 0 where nothing spreads: a configuration that never traded."""
    mean = sums / number
    # The difference of nearly equal numbers may come out below zero.
    variance = np.maximum(squares - number * mean**2, 0.0) / (number - 1)
    scale = np.maximum(squares / number, np.finfo(np.float64).tiny)
    spreads = variance > 1e-14 * scale
    return np.where(spreads, mean / np.sqrt(np.where(spreads, variance, 1.0)), 0.0)


def _spread(sharpe: float, skewness: float, kurtosis: float) -> float:
    """The variance of an estimated Sharpe ratio, times the observations less one (Mertens 2002)."""
    return 1 - skewness * sharpe + (kurtosis - 1) / 4 * sharpe**2


def _standard_error(sharpe: float, observations: int, skewness: float, kurtosis: float) -> float:
    variance = _spread(sharpe, skewness, kurtosis)
    return math.sqrt(variance / (observations - 1)) if variance > 0 else float("nan")


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[np.isfinite(array)]
