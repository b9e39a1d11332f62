"""Compiled loops over the last bars, each window on its own.

Each is loop(inputs, parameters, begin, start, stop, outputs); windows begin at `begin` at the earliest. A value is NaN
until its window is full.
"""

from __future__ import annotations

import numpy as np

from quantlytic_assets.features.kernels.compiling import compiled

NAN = np.nan


@compiled
def simple_return(x, p, begin, start, stop, out):
    """Close over the close some bars ago, less one; NaN where a price is not positive."""
    bars = int(p[0])
    for t in range(start, stop):
        known = t - bars >= begin and x[0, t] > 0.0 and x[0, t - bars] > 0.0
        out[0, t] = x[0, t] / x[0, t - bars] - 1.0 if known else NAN


@compiled
def log_return(x, p, begin, start, stop, out):
    """Logarithm of close over the close some bars ago; NaN where a price is not positive."""
    bars = int(p[0])
    for t in range(start, stop):
        known = t - bars >= begin and x[0, t] > 0.0 and x[0, t - bars] > 0.0
        out[0, t] = np.log(x[0, t] / x[0, t - bars]) if known else NAN


@compiled
def _highest(x, row, first, stop):
    best = x[row, first]
    for i in range(first + 1, stop):
        if x[row, i] > best:
            best = x[row, i]
    return best


@compiled
def _lowest(x, row, first, stop):
    best = x[row, first]
    for i in range(first + 1, stop):
        if x[row, i] < best:
            best = x[row, i]
    return best


@compiled
def _stochastic(x, first, stop, rows):
    """Where the last close is between the lowest low and the highest high, 0 to 100; 0 where they are equal."""
    highest, lowest = _highest(x, 0, first, stop), _lowest(x, rows // 2, first, stop)
    return 100.0 * (x[rows - 1, stop - 1] - lowest) / (highest - lowest) if highest > lowest else 0.0


@compiled
def stochastic(x, p, begin, start, stop, out):
    """%K smoothed by a mean, and %D, the mean of that. One row of inputs stands for high, low and close."""
    bars, smooth, signal = int(p[0]), int(p[1]), int(p[2])
    rows = x.shape[0]
    for t in range(start, stop):
        out[0, t] = NAN
        out[1, t] = NAN
        if t - bars - smooth + 2 < begin:
            continue
        total = 0.0
        for back in range(smooth):
            total += _stochastic(x, t - back - bars + 1, t - back + 1, rows)
        out[0, t] = total / smooth
        if t - bars - smooth - signal + 3 < begin:
            continue
        total = 0.0
        for back in range(signal + smooth - 1):
            # Each raw %K is in as many of the smoothed ones as reach it.
            times = min(back + 1, smooth, signal, signal + smooth - 1 - back)
            total += times * _stochastic(x, t - back - bars + 1, t - back + 1, rows)
        out[1, t] = total / (smooth * signal)


@compiled
def donchian(x, p, begin, start, stop, out):
    """Highest high and lowest low of the window, the current bar included."""
    bars = int(p[0])
    for t in range(start, stop):
        known = t - bars + 1 >= begin
        out[0, t] = _highest(x, 0, t - bars + 1, t + 1) if known else NAN
        out[1, t] = _lowest(x, 1, t - bars + 1, t + 1) if known else NAN


@compiled
def _midpoint(x, t, bars, begin):
    if t - bars + 1 < begin:
        return np.nan
    return (_highest(x, 0, t - bars + 1, t + 1) + _lowest(x, 1, t - bars + 1, t + 1)) / 2.0


@compiled
def ichimoku(x, p, begin, start, stop, out):
    """Midpoints of highest high and lowest low over three windows; span A is the mean of the first two."""
    for t in range(start, stop):
        out[0, t] = _midpoint(x, t, int(p[0]), begin)
        out[1, t] = _midpoint(x, t, int(p[1]), begin)
        out[2, t] = (out[0, t] + out[1, t]) / 2.0
        out[3, t] = _midpoint(x, t, int(p[2]), begin)


@compiled
def parkinson(x, p, begin, start, stop, out):
    """Deviation from the range of high and low."""
    bars = int(p[0])
    for t in range(start, stop):
        total = NAN
        if t - bars + 1 >= begin:
            total = 0.0
            for i in range(t - bars + 1, t + 1):
                total += np.log(x[0, i] / x[1, i]) ** 2 if x[1, i] > 0.0 else NAN
        out[0, t] = np.sqrt(total / (4.0 * np.log(2.0) * bars))


@compiled
def garman_klass(x, p, begin, start, stop, out):
    """Deviation from the range of high and low and the way from open to close."""
    bars = int(p[0])
    for t in range(start, stop):
        total = NAN
        if t - bars + 1 >= begin:
            total = 0.0
            for i in range(t - bars + 1, t + 1):
                if x[0, i] > 0.0 and x[2, i] > 0.0 and x[3, i] > 0.0:
                    inner = (2.0 * np.log(2.0) - 1.0) * np.log(x[3, i] / x[0, i]) ** 2
                    total += 0.5 * np.log(x[1, i] / x[2, i]) ** 2 - inner
                else:
                    total = NAN
        # Rounding may leave a sum just below zero where nothing moved.
        out[0, t] = np.sqrt(max(total, 0.0) / bars) if total == total else NAN


@compiled
def yang_zhang(x, p, begin, start, stop, out):
    """Deviation from overnight returns, returns from open to close, and the Rogers-Satchell range."""
    bars = int(p[0])
    weight = 0.34 / (1.34 + (bars + 1.0) / (bars - 1.0))
    for t in range(start, stop):
        out[0, t] = NAN
        first = t - bars + 1
        if first - 1 < begin:
            continue
        night, day, inner, known = 0.0, 0.0, 0.0, True
        for i in range(first, t + 1):
            o, h, low, c, before = x[0, i], x[1, i], x[2, i], x[3, i], x[3, i - 1]
            if not (o > 0.0 and low > 0.0 and c > 0.0 and before > 0.0):
                known = False
                break
            night += np.log(o / before)
            day += np.log(c / o)
            inner += np.log(h / c) * np.log(h / o) + np.log(low / c) * np.log(low / o)
        if not known:
            continue
        night, day = night / bars, day / bars
        nights, days = 0.0, 0.0
        for i in range(first, t + 1):
            nights += (np.log(x[0, i] / x[3, i - 1]) - night) ** 2
            days += (np.log(x[3, i] / x[0, i]) - day) ** 2
        variance = nights / (bars - 1) + weight * days / (bars - 1) + (1.0 - weight) * inner / bars
        out[0, t] = np.sqrt(max(variance, 0.0))


@compiled
def window_vwap(x, p, begin, start, stop, out):
    """Typical price weighted by volume over the window; NaN where nothing was traded."""
    bars = int(p[0])
    for t in range(start, stop):
        out[0, t] = NAN
        if t - bars + 1 >= begin:
            money, volume = 0.0, 0.0
            for i in range(t - bars + 1, t + 1):
                money += (x[0, i] + x[1, i] + x[2, i]) / 3.0 * x[3, i]
                volume += x[3, i]
            out[0, t] = money / volume if volume > 0.0 else NAN


@compiled
def money_flow(x, p, begin, start, stop, out):
    """Volume times where the close is within its bar (-1 to 1), over volume; NaN where nothing was traded."""
    bars = int(p[0])
    for t in range(start, stop):
        out[0, t] = NAN
        if t - bars + 1 >= begin:
            flow, volume = 0.0, 0.0
            for i in range(t - bars + 1, t + 1):
                height = x[0, i] - x[1, i]
                if height > 0.0:
                    flow += (2.0 * x[2, i] - x[1, i] - x[0, i]) / height * x[3, i]
                volume += x[3, i]
            out[0, t] = flow / volume if volume > 0.0 else NAN
