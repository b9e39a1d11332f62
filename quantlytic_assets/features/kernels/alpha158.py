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
def _spread(values):
    """Mean and sample deviation of the values that exist; NaN where there is none, or fewer than two."""
    count, total = 0, 0.0
    for value in values:
        if np.isfinite(value):
            count += 1
            total += value
    if count == 0:
        return NAN, NAN
    mean, squares = total / count, 0.0
    for value in values:
        if np.isfinite(value):
            squares += (value - mean) ** 2
    return mean, np.sqrt(squares / (count - 1)) if count > 1 else NAN


@compiled
def _correlation(left, right):
    """Correlation of the pairs that exist; NaN where one of the two series is constant in Qlib's sense.

    Both series are gone through together, first for their means and then for the squares, each with the values that
    exist of its own and with those that both have.
    """
    lefts, rights, pairs = 0, 0, 0
    left_sum, right_sum, left_paired, right_paired = 0.0, 0.0, 0.0, 0.0
    for i in range(len(left)):
        has_left, has_right = np.isfinite(left[i]), np.isfinite(right[i])
        if has_left:
            lefts += 1
            left_sum += left[i]
        if has_right:
            rights += 1
            right_sum += right[i]
        if has_left and has_right:
            pairs += 1
            left_paired += left[i]
            right_paired += right[i]
    left_mean, right_mean = left_sum / lefts, right_sum / rights
    left_paired, right_paired = left_paired / pairs, right_paired / pairs
    left_squares, right_squares, both, one, other = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(len(left)):
        has_left, has_right = np.isfinite(left[i]), np.isfinite(right[i])
        if has_left:
            left_squares += (left[i] - left_mean) ** 2
        if has_right:
            right_squares += (right[i] - right_mean) ** 2
        if has_left and has_right:
            both += (left[i] - left_paired) * (right[i] - right_paired)
            one += (left[i] - left_paired) ** 2
            other += (right[i] - right_paired) ** 2
    if lefts > 1 and np.sqrt(left_squares / (lefts - 1)) <= FLAT:
        return NAN
    if rights > 1 and np.sqrt(right_squares / (rights - 1)) <= FLAT:
        return NAN
    return both / np.sqrt(one * other) if pairs > 1 and one > 0.0 and other > 0.0 else NAN


@compiled
def _changes(x, row, first, begin, t, out, at):
    """Sums of rises, falls and their difference over the sum of all changes, and how many bars rose and fell."""
    rises, falls, up, down = 0.0, 0.0, 0, 0
    since = max(first, begin + 1)
    for i in range(since, t + 1):
        change = x[row, i] - x[row, i - 1]
        # Without a branch, which nobody can predict for prices.
        rises += change if change > 0.0 else 0.0
        falls += -change if change < 0.0 else 0.0
        up += change > 0.0
        down += change < 0.0
    known, total = t + 1 - since, rises + falls + TINY
    out[at, t] = rises / total if known else NAN
    out[at + 1, t] = falls / total if known else NAN
    out[at + 2, t] = (rises - falls) / total if known else NAN
    return up, down


@compiled
def _line(values, close, out, t):
    """Mean and deviation of the values, and slope, R² and last residual of a line through them at their positions."""
    n, total = len(values), 0.0
    for value in values:
        total += value
    middle, mean = (n - 1) / 2.0, total / n
    out[1, t] = mean / close
    if n < 2:
        out[2, t] = NAN
        out[3, t] = NAN
        out[4, t] = NAN
        out[5, t] = NAN
        return
    both, squares = 0.0, 0.0
    for i in range(n):
        both += (i - middle) * (values[i] - mean)
        squares += (values[i] - mean) ** 2
    positions = n * (n * n - 1.0) / 12.0
    slope, deviation = both / positions, np.sqrt(squares / (n - 1))
    out[2, t] = deviation / close
    out[3, t] = slope / close
    out[4, t] = both * both / (positions * squares) if deviation > FLAT else NAN
    out[5, t] = (values[n - 1] - mean - slope * (n - 1 - middle)) / close


@compiled
def _below(ordered, count, value):
    """How many of the first `count` ordered values are smaller."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if ordered[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _take(ordered, count, value):
    """Leaves out one of the first `count` ordered values."""
    for i in range(_below(ordered, count, value), count - 1):
        ordered[i] = ordered[i + 1]


@compiled
def _put(ordered, count, value):
    """Puts a value among the first `count` ordered ones."""
    at = _below(ordered, count, value)
    for i in range(count, at, -1):
        ordered[i] = ordered[i - 1]
    ordered[at] = value


@compiled
def _quantile(ordered, count, share):
    """The value below which a share of the ordered values is, between its neighbours in proportion."""
    place = share * (count - 1)
    low = int(place)
    if low + 1 >= count:
        return ordered[low]
    return ordered[low] + (ordered[low + 1] - ordered[low]) * (place - low)


@compiled
def price(x, p, begin, start, stop, out):
    """The 21 features of high, low and close over one window, in the order of `PRICE`.

    The window's closes in order, and where its extremes are, are carried from bar to bar; sums are made anew.
    """
    bars = int(p[0])
    ordered = np.empty(bars)
    held, high_at, low_at = 0, -1, -1
    for t in range(max(begin, start - bars + 1), start):
        _put(ordered, held, x[2, t])
        held += 1
    for t in range(start, stop):
        first = max(begin, t - bars + 1)
        n = t - first + 1
        close = x[2, t]
        if held == bars:
            _take(ordered, held, x[2, t - bars])
            held -= 1
        _put(ordered, held, close)
        held += 1
        if high_at < first:
            high_at = first
            for i in range(first + 1, t):
                high_at = i if x[0, i] > x[0, high_at] else high_at
        if low_at < first:
            low_at = first
            for i in range(first + 1, t):
                low_at = i if x[1, i] < x[1, low_at] else low_at
        high_at = t if x[0, t] > x[0, high_at] else high_at
        low_at = t if x[1, t] < x[1, low_at] else low_at
        highest, lowest = x[0, high_at], x[1, low_at]
        below = _below(ordered, n, close)
        equal = 1
        while below + equal < n and ordered[below + equal] == close:
            equal += 1
        out[0, t] = x[2, t - bars] / close if t - bars >= begin else NAN
        _line(x[2, first : t + 1], close, out, t)
        out[6, t] = highest / close
        out[7, t] = lowest / close
        out[8, t] = _quantile(ordered, n, 0.8) / close
        out[9, t] = _quantile(ordered, n, 0.2) / close
        out[10, t] = (below + (equal + 1.0) / 2.0) / n
        out[11, t] = (close - lowest) / (highest - lowest + TINY)
        out[12, t] = (high_at - first + 1) / bars
        out[13, t] = (low_at - first + 1) / bars
        out[14, t] = (high_at - low_at) / bars
        up, down = _changes(x, 2, first, begin, t, out, 18)
        out[15, t] = up / n
        out[16, t] = down / n
        out[17, t] = (up - down) / n


@compiled
def _all_there(x, logs, changes, flows, weighted, first, t, base, out):
    """Correlations, means and deviations of a window in which every value exists: what the general way gives.

    All series are gone through together, twice, which takes no longer than one of them alone.
    """
    n = t + 1 - first
    closes, volumes, a, b, c, d = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(first, t + 1):
        at = i - base
        closes += x[0, i]
        volumes += x[1, i]
        a += logs[at]
        b += changes[at]
        c += flows[at]
        d += weighted[at]
    closes, volumes, a, b, c, d = closes / n, volumes / n, a / n, b / n, c / n, d / n
    with_logs, with_flows = 0.0, 0.0
    of_closes, of_volumes, of_logs, of_changes, of_flows, of_weighted = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(first, t + 1):
        at = i - base
        close, log, change, flow = x[0, i] - closes, logs[at] - a, changes[at] - b, flows[at] - c
        with_logs += close * log
        with_flows += change * flow
        of_closes += close**2
        of_logs += log**2
        of_changes += change**2
        of_flows += flow**2
        of_volumes += (x[1, i] - volumes) ** 2
        of_weighted += (weighted[at] - d) ** 2
    flat = np.sqrt(of_closes / (n - 1)) <= FLAT or np.sqrt(of_logs / (n - 1)) <= FLAT
    out[0, t] = NAN if flat else with_logs / np.sqrt(of_closes * of_logs)
    flat = np.sqrt(of_changes / (n - 1)) <= FLAT or np.sqrt(of_flows / (n - 1)) <= FLAT
    out[1, t] = NAN if flat else with_flows / np.sqrt(of_changes * of_flows)
    out[2, t] = volumes / (x[1, t] + TINY)
    out[3, t] = np.sqrt(of_volumes / (n - 1)) / (x[1, t] + TINY)
    out[4, t] = np.sqrt(of_weighted / (n - 1)) / (d + TINY)


@compiled
def volume(x, p, begin, start, stop, out):
    """The 8 features of close and volume over one window, in the order of `VOLUME`."""
    bars = int(p[0])
    # What is made of single bars is made once, from the first bar of the first window on.
    base = max(begin, start - bars + 1)
    made = np.empty((4, stop - base))
    logs, changes, flows, weighted = made[0], made[1], made[2], made[3]
    # The last bar that lacks one of them, such as the first change of all.
    lacking = begin - 1
    for t in range(base, stop):
        at = t - base
        logs[at] = np.log(x[1, t] + 1.0)
        changes[at], flows[at], weighted[at] = NAN, NAN, NAN
        if t > begin:
            changes[at] = x[0, t] / x[0, t - 1]
            flows[at] = np.log(x[1, t] / x[1, t - 1] + 1.0)
            weighted[at] = abs(changes[at] - 1.0) * x[1, t]
        # A sum that is finite has no part that is not.
        if not np.isfinite(x[0, t] + x[1, t] + logs[at] + changes[at] + flows[at] + weighted[at]):
            lacking = t
        if t < start:
            continue
        first = max(begin, t - bars + 1)
        if lacking < first and t > first:
            _all_there(x, logs, changes, flows, weighted, first, t, base, out)
        else:
            low, high = first - base, at + 1
            out[0, t] = _correlation(x[0, first : t + 1], logs[low:high])
            out[1, t] = _correlation(changes[low:high], flows[low:high])
            mean, deviation = _spread(x[1, first : t + 1])
            out[2, t] = mean / (x[1, t] + TINY)
            out[3, t] = deviation / (x[1, t] + TINY)
            mean, deviation = _spread(weighted[low:high])
            out[4, t] = deviation / (mean + TINY)
        _changes(x, 1, first, begin, t, out, 5)
