"""Compiled loops that remember: smoothed averages, and what is made of them.

Each is loop(inputs, parameters, state, start, stop, outputs), with a state of zeros at the beginning of a series.
"""

from __future__ import annotations

import numpy as np

from quantlytic_assets.features.kernels.compiling import compiled

NAN = np.nan


@compiled
def _smoothed(s, at, value, bars, weight):
    """The average after one more value: the mean of the first `bars` values, then weighted. Needs two places."""
    s[at] += 1.0
    if s[at] < bars:
        s[at + 1] += value
        return np.nan
    if s[at] == bars:
        s[at + 1] = (s[at + 1] + value) / bars
    else:
        s[at + 1] += weight * (value - s[at + 1])
    return s[at + 1]


@compiled
def rsi(x, p, s, start, stop, out):
    """RSI of average gains and losses by Wilder; 50 where the price has never moved."""
    bars = p[0]
    weight = 1.0 / bars
    for t in range(start, stop):
        value = x[0, t]
        out[0, t] = NAN
        if s[0] > 0.0:
            change = value - s[1]
            gain = _smoothed(s, 2, max(change, 0.0), bars, weight)
            loss = _smoothed(s, 4, max(-change, 0.0), bars, weight)
            if s[2] >= bars:
                total = gain + loss
                out[0, t] = 100.0 * gain / total if total > 0.0 else 50.0
        s[0] = 1.0
        s[1] = value


@compiled
def macd(x, p, s, start, stop, out):
    """EMA of `fast` bars less EMA of `slow` bars, its EMA as signal, and the difference of the two."""
    fast, slow, signal = p[0], p[1], p[2]
    fast_weight, slow_weight, signal_weight = 2.0 / (fast + 1.0), 2.0 / (slow + 1.0), 2.0 / (signal + 1.0)
    longest = max(fast, slow)
    for t in range(start, stop):
        difference = _smoothed(s, 0, x[0, t], fast, fast_weight) - _smoothed(s, 2, x[0, t], slow, slow_weight)
        out[0, t] = NAN
        out[1, t] = NAN
        out[2, t] = NAN
        if s[0] >= longest:
            smooth = _smoothed(s, 4, difference, signal, signal_weight)
            out[0, t] = difference
            out[1, t] = smooth
            out[2, t] = difference - smooth


@compiled
def adx(x, p, s, start, stop, out):
    """ADX, +DI and -DI of Wilder's averages of directional movement and true range; all begin with plain averages."""
    bars = p[0]
    weight = 1.0 / bars
    for t in range(start, stop):
        high, low, close = x[0, t], x[1, t], x[2, t]
        out[0, t] = NAN
        out[1, t] = NAN
        out[2, t] = NAN
        if s[0] > 0.0:
            up, down = high - s[1], s[2] - low
            plus = _smoothed(s, 4, up if up > down and up > 0.0 else 0.0, bars, weight)
            minus = _smoothed(s, 6, down if down > up and down > 0.0 else 0.0, bars, weight)
            spread = _smoothed(s, 8, max(high, s[3]) - min(low, s[3]), bars, weight)
            if s[8] >= bars:
                out[1, t] = 100.0 * plus / spread if spread > 0.0 else 0.0
                out[2, t] = 100.0 * minus / spread if spread > 0.0 else 0.0
                total = out[1, t] + out[2, t]
                index = 100.0 * abs(out[1, t] - out[2, t]) / total if total > 0.0 else 0.0
                out[0, t] = _smoothed(s, 10, index, bars, weight)
        s[0] = 1.0
        s[1], s[2], s[3] = high, low, close


@compiled
def keltner(x, p, s, start, stop, out):
    """EMA of closes, and ATR by Wilder on both sides of it."""
    bars, multiple, ranges = p[0], p[1], p[2]
    for t in range(start, stop):
        high, low, close = x[0, t], x[1, t], x[2, t]
        middle = _smoothed(s, 2, close, bars, 2.0 / (bars + 1.0))
        width = NAN
        if s[0] > 0.0:
            width = multiple * _smoothed(s, 4, max(high, s[1]) - min(low, s[1]), ranges, 1.0 / ranges)
        out[0, t] = middle
        out[1, t] = middle + width
        out[2, t] = middle - width
        s[0] = 1.0
        s[1] = close


@compiled
def _moments(s, at, value, bars):
    """Takes a value into the last `bars` values; gives their mean and the sum of squared distances from it.

    Values are summed as distances from one of them, and summed anew once in a window, so that no error grows.
    Needs bars + 6 places: count, place, anchor, sum, sum of squares, equal values in a row, then the values.
    """
    base = at + 6
    place = int(s[at + 1])
    count = s[at]
    newest = s[base + (place - 1 if place > 0 else bars - 1)]
    s[at + 5] = s[at + 5] + 1.0 if count > 0.0 and value == newest else 1.0
    if count == 0.0:
        s[at + 2] = value
    anchor = s[at + 2]
    if count >= bars:
        old = s[base + place] - anchor
        s[at + 3] -= old
        s[at + 4] -= old * old
    else:
        s[at] = count + 1.0
    s[base + place] = value
    distance = value - anchor
    s[at + 3] += distance
    s[at + 4] += distance * distance
    place += 1
    if place == bars:
        place = 0
        total, squares = 0.0, 0.0
        for i in range(bars):
            distance = s[base + i] - value
            total += distance
            squares += distance * distance
        s[at + 2], s[at + 3], s[at + 4] = value, total, squares
    s[at + 1] = place
    if s[at + 5] >= bars:
        return value, 0.0
    mean = s[at + 3] / bars
    return s[at + 2] + mean, max(s[at + 4] - s[at + 3] * mean, 0.0)


@compiled
def bollinger(x, p, s, start, stop, out):
    """Mean, bands at `deviations` population deviations, their width relative to the mean, and where the close is."""
    bars, deviations = int(p[0]), p[1]
    for t in range(start, stop):
        middle, squares = _moments(s, 0, x[0, t], bars)
        if s[0] < bars:
            out[:, t] = NAN
            continue
        width = deviations * np.sqrt(squares / bars)
        out[0, t] = middle
        out[1, t] = middle + width
        out[2, t] = middle - width
        out[3, t] = 2.0 * width / middle if middle != 0.0 else NAN
        out[4, t] = (x[0, t] - middle + width) / (2.0 * width) if width > 0.0 else NAN


@compiled
def volatility(x, p, s, start, stop, out):
    """Sample deviation of the last log returns. The last two places of the state: bars seen, the close before."""
    bars = int(p[0])
    before = len(s) - 1
    for t in range(start, stop):
        close = x[0, t]
        out[0, t] = NAN
        if s[before - 1] > 0.0:
            if close > 0.0 and s[before] > 0.0:
                _, squares = _moments(s, 0, np.log(close / s[before]), bars)
                if s[0] >= bars:
                    out[0, t] = np.sqrt(squares / (bars - 1))
            else:
                # A return that does not exist is in no window: the next full one begins after it.
                s[: before - 1] = 0.0
        s[before - 1] = 1.0
        s[before] = close


@compiled
def session_vwap(x, p, s, start, stop, out):
    """Volume-weighted typical price since the first bar of the session."""
    for t in range(start, stop):
        session, volume = x[4, t], x[3, t]
        if s[0] == 0.0 or session != s[1]:
            s[0], s[1], s[2], s[3] = 1.0, session, 0.0, 0.0
        s[2] += (x[0, t] + x[1, t] + x[2, t]) / 3.0 * volume
        s[3] += volume
        out[0, t] = s[2] / s[3] if s[3] > 0.0 else NAN


@compiled
def cumulative_log_return(x, p, s, start, stop, out):
    """Sum of log returns since the first bar, where it is 0."""
    for t in range(start, stop):
        close = x[0, t]
        if s[0] > 0.0 and close > 0.0 and s[1] > 0.0:
            s[2] += np.log(close / s[1])
        s[0] = 1.0
        s[1] = close
        out[0, t] = s[2]
