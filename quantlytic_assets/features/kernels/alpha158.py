"""Compiled loops of Qlib's Alpha158: windows that begin with the first bar and grow until they are full.

Each is loop(inputs, parameters, begin, start, stop, outputs). As in pandas, a value that does not exist (the change of
the first bar) is left out of its window, and so is an infinite one.
"""

from __future__ import annotations

import numpy as np

from quantlytic_assets.features.kernels.compiling import compiled

NAN = np.nan
# What Qlib adds to divisors, and below which deviation it takes a series for constant.
TINY = 1e-12
FLAT = 2e-5

PRICE = (
    "ROC", "MA", "STD", "BETA", "RSQR", "RESI", "MAX", "MIN", "QTLU", "QTLD", "RANK", "RSV", "IMAX", "IMIN", "IMXD",
    "CNTP", "CNTN", "CNTD", "SUMP", "SUMN", "SUMD",
)  # fmt: skip
VOLUME = ("CORR", "CORD", "VMA", "VSTD", "WVMA", "VSUMP", "VSUMN", "VSUMD")
CANDLE = (
    "KMID", "KLEN", "KMID2", "KUP", "KUP2", "KLOW", "KLOW2", "KSFT", "KSFT2", "OPEN0", "HIGH0", "LOW0",
)  # fmt: skip


@compiled
def candle(x, p, begin, start, stop, out):
    """The shape of each bar: body, height, shadows and shift, and its prices over the close."""
    for t in range(start, stop):
        opened, high, low, close = x[0, t], x[1, t], x[2, t], x[3, t]
        height = high - low + TINY
        top, bottom = max(opened, close), min(opened, close)
        out[0, t] = (close - opened) / opened
        out[1, t] = (high - low) / opened
        out[2, t] = (close - opened) / height
        out[3, t] = (high - top) / opened
        out[4, t] = (high - top) / height
        out[5, t] = (bottom - low) / opened
        out[6, t] = (bottom - low) / height
        out[7, t] = (2.0 * close - high - low) / opened
        out[8, t] = (2.0 * close - high - low) / height
        out[9, t] = opened / close
        out[10, t] = high / close
        out[11, t] = low / close


@compiled
def _deviation(values):
    """Sample deviation of the values that exist; NaN where there are fewer than two."""
    count, total = 0, 0.0
    for value in values:
        if np.isfinite(value):
            count += 1
            total += value
    if count < 2:
        return np.nan
    mean, squares = total / count, 0.0
    for value in values:
        if np.isfinite(value):
            squares += (value - mean) ** 2
    return np.sqrt(squares / (count - 1))


@compiled
def _mean(values):
    """Mean of the values that exist."""
    count, total = 0, 0.0
    for value in values:
        if np.isfinite(value):
            count += 1
            total += value
    return total / count if count else np.nan


@compiled
def _correlation(left, right):
    """Correlation of the pairs that exist; NaN where one of the two series is constant in Qlib's sense."""
    if _deviation(left) <= FLAT or _deviation(right) <= FLAT:
        return np.nan
    count, lefts, rights = 0, 0.0, 0.0
    for i in range(len(left)):
        if np.isfinite(left[i]) and np.isfinite(right[i]):
            count += 1
            lefts += left[i]
            rights += right[i]
    if count < 2:
        return np.nan
    lefts, rights = lefts / count, rights / count
    both, one, other = 0.0, 0.0, 0.0
    for i in range(len(left)):
        if np.isfinite(left[i]) and np.isfinite(right[i]):
            both += (left[i] - lefts) * (right[i] - rights)
            one += (left[i] - lefts) ** 2
            other += (right[i] - rights) ** 2
    return both / np.sqrt(one * other) if one > 0.0 and other > 0.0 else np.nan


@compiled
def _changes(x, row, first, begin, t, out, at):
    """Sums of rises, falls and their difference over the sum of all changes, and how many bars rose and fell."""
    rises, falls, known, up, down = 0.0, 0.0, 0, 0, 0
    for i in range(max(first, begin + 1), t + 1):
        change = x[row, i] - x[row, i - 1]
        known += 1
        if change > 0.0:
            rises += change
            up += 1
        elif change < 0.0:
            falls -= change
            down += 1
    total = rises + falls + TINY
    out[at, t] = rises / total if known else NAN
    out[at + 1, t] = falls / total if known else NAN
    out[at + 2, t] = (rises - falls) / total if known else NAN
    return up, down


@compiled
def _line(values, close, out, t):
    """Slope, R² and last residual of a line through the values at their positions."""
    n = len(values)
    if n < 2:
        out[3, t] = NAN
        out[4, t] = NAN
        out[5, t] = NAN
        return
    middle, mean = (n - 1) / 2.0, _mean(values)
    both, positions, squares = 0.0, 0.0, 0.0
    for i in range(n):
        both += (i - middle) * (values[i] - mean)
        positions += (i - middle) ** 2
        squares += (values[i] - mean) ** 2
    slope = both / positions
    out[3, t] = slope / close
    out[4, t] = both * both / (positions * squares) if np.sqrt(squares / (n - 1)) > FLAT else NAN
    out[5, t] = (values[n - 1] - mean - slope * (n - 1 - middle)) / close


@compiled
def _quantile(ordered, share):
    """The value below which a share of the ordered values is, between its neighbours in proportion."""
    place = share * (len(ordered) - 1)
    low = int(place)
    if low + 1 >= len(ordered):
        return ordered[low]
    return ordered[low] + (ordered[low + 1] - ordered[low]) * (place - low)


@compiled
def price(x, p, begin, start, stop, out):
    """The 21 features of high, low and close over one window, in the order of `PRICE`."""
    bars = int(p[0])
    for t in range(start, stop):
        first = max(begin, t - bars + 1)
        n = t - first + 1
        close = x[2, t]
        values = x[2, first : t + 1]
        out[0, t] = x[2, t - bars] / close if t - bars >= begin else NAN
        out[1, t] = _mean(values) / close
        out[2, t] = _deviation(values) / close
        _line(values, close, out, t)
        highest, lowest, high_at, low_at = x[0, first], x[1, first], 1, 1
        below, equal = 0, 0
        for i in range(first, t + 1):
            if x[0, i] > highest:
                highest, high_at = x[0, i], i - first + 1
            if x[1, i] < lowest:
                lowest, low_at = x[1, i], i - first + 1
            below += x[2, i] < close
            equal += x[2, i] == close
        ordered = np.sort(values)
        out[6, t] = highest / close
        out[7, t] = lowest / close
        out[8, t] = _quantile(ordered, 0.8) / close
        out[9, t] = _quantile(ordered, 0.2) / close
        out[10, t] = (below + (equal + 1.0) / 2.0) / n
        out[11, t] = (close - lowest) / (highest - lowest + TINY)
        out[12, t] = high_at / bars
        out[13, t] = low_at / bars
        out[14, t] = (high_at - low_at) / bars
        up, down = _changes(x, 2, first, begin, t, out, 18)
        out[15, t] = up / n
        out[16, t] = down / n
        out[17, t] = (up - down) / n


@compiled
def volume(x, p, begin, start, stop, out):
    """The 8 features of close and volume over one window, in the order of `VOLUME`."""
    bars = int(p[0])
    logs, changes, flows, weighted = np.empty(bars), np.empty(bars), np.empty(bars), np.empty(bars)
    for t in range(start, stop):
        first = max(begin, t - bars + 1)
        n = t - first + 1
        for i in range(first, t + 1):
            at = i - first
            logs[at] = np.log(x[1, i] + 1.0)
            changes[at], flows[at], weighted[at] = NAN, NAN, NAN
            if i > begin:
                changes[at] = x[0, i] / x[0, i - 1]
                flows[at] = np.log(x[1, i] / x[1, i - 1] + 1.0)
                weighted[at] = abs(changes[at] - 1.0) * x[1, i]
        volumes = x[1, first : t + 1]
        out[0, t] = _correlation(x[0, first : t + 1], logs[:n])
        out[1, t] = _correlation(changes[:n], flows[:n])
        out[2, t] = _mean(volumes) / (x[1, t] + TINY)
        out[3, t] = _deviation(volumes) / (x[1, t] + TINY)
        out[4, t] = _deviation(weighted[:n]) / (_mean(weighted[:n]) + TINY)
        _changes(x, 1, first, begin, t, out, 5)
