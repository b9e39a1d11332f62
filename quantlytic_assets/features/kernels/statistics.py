"""Compiled loops of statistics over the last bars, each window on its own.

Each is loop(inputs, parameters, begin, start, stop, outputs); windows begin at `begin` at the earliest. A value is NaN
until its window is full, and where it is not defined: a deviation of zero, a price that is not positive.
"""

from __future__ import annotations

import numpy as np

from quantlytic_assets.features.kernels.compiling import compiled

NAN = np.nan


@compiled
def _log_returns(x, row, first, stop, values):
    """The log returns of the bars from `first` on; the first one needs the bar before it."""
    for i in range(first, stop):
        positive = x[row, i] > 0.0 and x[row, i - 1] > 0.0
        values[i - first] = np.log(x[row, i] / x[row, i - 1]) if positive else NAN


@compiled
def _central(values, mean, power):
    """The mean of a power of the distances from a mean."""
    total = 0.0
    for value in values:
        total += (value - mean) ** power
    return total / len(values)


@compiled
def _level(values):
    total = 0.0
    for value in values:
        total += value
    return total / len(values)


@compiled
def _flat(values):
    """True where all values are equal, so that rounding of their mean is not taken for a deviation."""
    different = 0
    for value in values:
        different += value != values[0]
    return different == 0


@compiled
def volume_score(x, p, begin, start, stop, out):
    """Volume less the mean of the window, in sample deviations."""
    bars = int(p[0])
    for t in range(start, stop):
        out[0, t] = NAN
        if t - bars + 1 >= begin:
            values = x[0, t - bars + 1 : t + 1]
            mean = _level(values)
            if not _flat(values):
                out[0, t] = (x[0, t] - mean) / np.sqrt(_central(values, mean, 2) * bars / (bars - 1))


@compiled
def sharpe(x, p, begin, start, stop, out):
    """Mean of log returns over their sample deviation."""
    bars = int(p[0])
    values = np.empty(bars)
    for t in range(start, stop):
        out[0, t] = NAN
        if t - bars >= begin:
            _log_returns(x, 0, t - bars + 1, t + 1, values)
            mean = _level(values)
            if not _flat(values):
                out[0, t] = mean / np.sqrt(_central(values, mean, 2) * bars / (bars - 1))


@compiled
def sortino(x, p, begin, start, stop, out):
    """Mean of log returns over the root of the mean square of the negative ones."""
    bars = int(p[0])
    values = np.empty(bars)
    for t in range(start, stop):
        out[0, t] = NAN
        if t - bars >= begin:
            _log_returns(x, 0, t - bars + 1, t + 1, values)
            squares = 0.0
            for value in values:
                squares += min(value, 0.0) ** 2
            if squares > 0.0:
                out[0, t] = _level(values) / np.sqrt(squares / bars)


@compiled
def skew(x, p, begin, start, stop, out):
    """Adjusted Fisher-Pearson skewness of log returns."""
    bars = int(p[0])
    values = np.empty(bars)
    for t in range(start, stop):
        out[0, t] = NAN
        if t - bars >= begin:
            _log_returns(x, 0, t - bars + 1, t + 1, values)
            mean = _level(values)
            if not _flat(values):
                third = _central(values, mean, 3) / _central(values, mean, 2) ** 1.5
                out[0, t] = third * np.sqrt(bars * (bars - 1.0)) / (bars - 2.0)


@compiled
def kurtosis(x, p, begin, start, stop, out):
    """Excess kurtosis of log returns, adjusted for the size of the sample."""
    bars = int(p[0])
    values = np.empty(bars)
    for t in range(start, stop):
        out[0, t] = NAN
        if t - bars >= begin:
            _log_returns(x, 0, t - bars + 1, t + 1, values)
            mean = _level(values)
            if not _flat(values):
                fourth = _central(values, mean, 4) / _central(values, mean, 2) ** 2
                factor = (bars - 1.0) / ((bars - 2.0) * (bars - 3.0))
                out[0, t] = factor * ((bars + 1.0) * fourth - 3.0 * (bars - 1.0))


@compiled
def _drawdown(x, t, bars):
    highest = x[0, t]
    for i in range(t - bars + 1, t):
        highest = max(highest, x[0, i])
    return x[0, t] / highest - 1.0 if highest > 0.0 else np.nan


@compiled
def drawdown(x, p, begin, start, stop, out):
    """Close over the highest close of the window, less one."""
    bars = int(p[0])
    for t in range(start, stop):
        out[0, t] = _drawdown(x, t, bars) if t - bars + 1 >= begin else NAN


@compiled
def max_drawdown(x, p, begin, start, stop, out):
    """The lowest drawdown of the last bars, each against the highest close of a window of its own."""
    bars = int(p[0])
    for t in range(start, stop):
        out[0, t] = NAN
        if t - 2 * bars + 2 >= begin:
            lowest = _drawdown(x, t - bars + 1, bars)
            for i in range(t - bars + 2, t + 1):
                lowest = min(lowest, _drawdown(x, i, bars))
            out[0, t] = lowest


@compiled
def beta(x, p, begin, start, stop, out):
    """Covariance of the log returns of two closes over the variance of the second; their correlation where p[1] is 1.

    A bar whose own or other close is not positive has no return, and its windows no value.
    """
    bars = int(p[0])
    own, other = np.empty(bars), np.empty(bars)
    for t in range(start, stop):
        out[0, t] = NAN
        if t - bars < begin:
            continue
        _log_returns(x, 0, t - bars + 1, t + 1, own)
        _log_returns(x, 1, t - bars + 1, t + 1, other)
        own_mean, other_mean = _level(own), _level(other)
        both, owns, others = 0.0, 0.0, 0.0
        for i in range(bars):
            both += (own[i] - own_mean) * (other[i] - other_mean)
            owns += (own[i] - own_mean) ** 2
            others += (other[i] - other_mean) ** 2
        if p[1] == 0.0:
            if not _flat(other):
                out[0, t] = both / others
        elif not _flat(own) and not _flat(other):
            out[0, t] = both / np.sqrt(owns * others)


@compiled
def itself(x, p, begin, start, stop, out):
    """The input as it is."""
    for t in range(start, stop):
        out[0, t] = x[0, t]


@compiled
def spread(x, p, begin, start, stop, out):
    """The first input less the second."""
    for t in range(start, stop):
        out[0, t] = x[0, t] - x[1, t]


@compiled
def ratio(x, p, begin, start, stop, out):
    """The first input over the second; NaN where that is zero."""
    for t in range(start, stop):
        out[0, t] = x[0, t] / x[1, t] if x[1, t] != 0.0 else NAN


@compiled
def phase(x, p, begin, start, stop, out):
    """How far the time has come within a period, from 0 to 1; `p` has the period and its offset in seconds."""
    for t in range(start, stop):
        out[0, t] = ((x[0, t] - p[1]) % p[0]) / p[0]
