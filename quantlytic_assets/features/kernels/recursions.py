"""Compiled loops that remember: smoothed averages, and what is made of them.

Each is loop(inputs, parameters, state, start, stop, outputs), with a state of zeros at the beginning of a series.
"""

from __future__ import annotations

import numpy as np

from quantlytic_assets.features.kernels.compiling import compiled

NAN = np.nan


@compiled
def _smoothed(count, level, value, bars, weight):
    """Count and average after one more value: the mean of the first `bars` values, then weighted.

    Until then the second number is their sum. It is the caller that gives NaN for it.
    """
    count += 1.0
    if count > bars:
        return count, level + weight * (value - level)
    if count == bars:
        return count, (level + value) / bars
    return count, level + value


@compiled
def mean(x, p, s, start, stop, out):
    """The mean of the last bars, by a sum that each bar takes part in and leaves again.

    It has TA-Lib's bits, in whatever way that was built, for no product is in it (`ta_SMA.c` of TA-Lib, BSD). The state
    is count, sum, and the last bars.
    """
    bars = int(p[0])
    count, total = s[0], s[1]
    for t in range(start, stop):
        value = x[0, t]
        s[2 + int(count) % bars] = value
        count += 1.0
        total += value
        if count >= bars:
            out[0, t] = total / bars
            total -= s[2 + int(count) % bars]
        else:
            out[0, t] = NAN
    s[0], s[1] = count, total


@compiled
def rsi(x, p, s, start, stop, out):
    """RSI of average gains and losses by Wilder; 50 where the price has never moved."""
    bars = p[0]
    weight = 1.0 / bars
    # In local variables, here and below: the processor keeps them in registers.
    seen, before, count, gain, loss = s[0], s[1], s[2], s[3], s[4]
    for t in range(start, stop):
        value = x[0, t]
        result = NAN
        if seen > 0.0:
            change = value - before
            _, gain = _smoothed(count, gain, max(change, 0.0), bars, weight)
            count, loss = _smoothed(count, loss, max(-change, 0.0), bars, weight)
            if count >= bars:
                total = gain + loss
                result = 100.0 * gain / total if total > 0.0 else 50.0
        out[0, t] = result
        seen, before = 1.0, value
    s[0], s[1], s[2], s[3], s[4] = seen, before, count, gain, loss


@compiled
def macd(x, p, s, start, stop, out):
    """EMA of `fast` bars less EMA of `slow` bars, its EMA as signal, and the difference of the two."""
    fast, slow, signal = p[0], p[1], p[2]
    fast_weight, slow_weight, signal_weight = 2.0 / (fast + 1.0), 2.0 / (slow + 1.0), 2.0 / (signal + 1.0)
    longest = max(fast, slow)
    count, quick, calm, signals, smooth = s[0], s[1], s[2], s[3], s[4]
    for t in range(start, stop):
        value = x[0, t]
        _, quick = _smoothed(count, quick, value, fast, fast_weight)
        count, calm = _smoothed(count, calm, value, slow, slow_weight)
        if count < longest:
            out[0, t], out[1, t], out[2, t] = NAN, NAN, NAN
            continue
        difference = quick - calm
        signals, smooth = _smoothed(signals, smooth, difference, signal, signal_weight)
        known = signals >= signal
        out[0, t] = difference
        out[1, t] = smooth if known else NAN
        out[2, t] = difference - smooth if known else NAN
    s[0], s[1], s[2], s[3], s[4] = count, quick, calm, signals, smooth


@compiled
def adx(x, p, s, start, stop, out):
    """ADX, +DI and -DI of Wilder's averages of directional movement and true range; all begin with plain averages."""
    bars = p[0]
    weight = 1.0 / bars
    seen, last_high, last_low, last_close = s[0], s[1], s[2], s[3]
    count, plus, minus, spread, indexes, smooth = s[4], s[5], s[6], s[7], s[8], s[9]
    for t in range(start, stop):
        high, low, close = x[0, t], x[1, t], x[2, t]
        out[0, t], out[1, t], out[2, t] = NAN, NAN, NAN
        if seen > 0.0:
            up, down = high - last_high, last_low - low
            _, plus = _smoothed(count, plus, up if up > down and up > 0.0 else 0.0, bars, weight)
            _, minus = _smoothed(count, minus, down if down > up and down > 0.0 else 0.0, bars, weight)
            true_range = max(high, last_close) - min(low, last_close)
            count, spread = _smoothed(count, spread, true_range, bars, weight)
            if count >= bars:
                rises = 100.0 * plus / spread if spread > 0.0 else 0.0
                falls = 100.0 * minus / spread if spread > 0.0 else 0.0
                total = rises + falls
                index = 100.0 * abs(rises - falls) / total if total > 0.0 else 0.0
                indexes, smooth = _smoothed(indexes, smooth, index, bars, weight)
                out[0, t] = smooth if indexes >= bars else NAN
                out[1, t], out[2, t] = rises, falls
        seen, last_high, last_low, last_close = 1.0, high, low, close
    s[0], s[1], s[2], s[3] = seen, last_high, last_low, last_close
    s[4], s[5], s[6], s[7], s[8], s[9] = count, plus, minus, spread, indexes, smooth


@compiled
def keltner(x, p, s, start, stop, out):
    """EMA of closes, and ATR by Wilder on both sides of it."""
    bars, multiple, ranges = p[0], p[1], p[2]
    weight, slowness = 2.0 / (bars + 1.0), 1.0 / ranges
    before, count, middle, spread = s[0], s[1], s[2], s[3]
    for t in range(start, stop):
        high, low, close = x[0, t], x[1, t], x[2, t]
        width = NAN
        # The first bar has no true range, so there is one less than there are closes.
        if count > 0.0:
            _, spread = _smoothed(count - 1.0, spread, max(high, before) - min(low, before), ranges, slowness)
            width = multiple * spread if count >= ranges else NAN
        count, middle = _smoothed(count, middle, close, bars, weight)
        level = middle if count >= bars else NAN
        out[0, t], out[1, t], out[2, t] = level, level + width, level - width
        before = close
    s[0], s[1], s[2], s[3] = before, count, middle, spread


@compiled
def _moments(values, s, bars, start, stop, means, squares):
    """Mean of the last `bars` values, and the sum of squared distances from it; a NaN begins the window anew.

    Values are summed as distances from one of them. They are summed anew once in a window, and wherever the sums would
    cancel: no error grows, and an outlier that has left the window leaves no trace.
    The state is count, place in the ring, anchor, the two sums, equal values in a row, the last value, then the ring.
    """
    count, place, anchor, total, square, equal, newest = s[0], int(s[1]), s[2], s[3], s[4], s[5], s[6]
    ring = s[7:]
    share = 1.0 / bars
    for t in range(start, stop):
        value = values[t]
        if value != value:
            count, place, total, square, equal = 0.0, 0, 0.0, 0.0, 0.0
            means[t], squares[t] = NAN, NAN
            continue
        equal = equal + 1.0 if equal > 0.0 and value == newest else 1.0
        newest = value
        if count == 0.0:
            anchor = value
        distance, left = value - anchor, 0.0
        if count >= bars:
            old = ring[place] - anchor
            left = old * old
            total += distance - old
            square += distance * distance - left
        else:
            count += 1.0
            total += distance
            square += distance * distance
        ring[place] = value
        place = place + 1 if place + 1 < bars else 0
        mean = total * share
        spread = square - total * mean
        if place == 0 or (count >= bars and (spread < 1e-4 * square or left > 1e3 * square)):
            anchor, total, square = value, 0.0, 0.0
            for i in range(bars):
                distance = ring[i] - value
                total += distance
                square += distance * distance
            mean = total * share
            spread = square - total * mean
        if count < bars:
            means[t], squares[t] = NAN, NAN
        elif equal >= bars:
            means[t], squares[t] = value, 0.0
        else:
            means[t], squares[t] = anchor + mean, max(spread, 0.0)
    s[0], s[1], s[2], s[3], s[4], s[5], s[6] = count, place, anchor, total, square, equal, newest


@compiled
def bollinger(x, p, s, start, stop, out):
    """Mean, bands at `deviations` population deviations, their width relative to the mean, and where the close is."""
    bars, deviations = int(p[0]), p[1]
    _moments(x[0], s, bars, start, stop, out[0], out[1])
    for t in range(start, stop):
        middle, width = out[0, t], deviations * np.sqrt(out[1, t] / bars)
        out[1, t] = middle + width
        out[2, t] = middle - width
        out[3, t] = 2.0 * width / middle if middle != 0.0 else NAN
        out[4, t] = (x[0, t] - middle + width) / (2.0 * width) if width > 0.0 else NAN


@compiled
def deviation(x, p, s, start, stop, out):
    """Sample deviation of the last values."""
    bars = int(p[0])
    # The means are not wanted: the sums of squares take their place.
    _moments(x[0], s, bars, start, stop, out[0], out[0])
    for t in range(start, stop):
        out[0, t] = np.sqrt(out[0, t] / (bars - 1))


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
