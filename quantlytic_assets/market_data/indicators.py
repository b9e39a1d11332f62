"""Technical indicators of bars, computed so that a stretch of bars gives the numbers a full rebuild would give.

Pure arithmetic on polars frames; which bars to read and where the rows go is dbt's business
(`dbt_project/models/features/indicators.py`).

Two families, two ways to be independent of where a computation starts:

* **Windows** (returns, SMA, Bollinger bands, volatility) read up to `LOOKBACK` bars before the range. Each window is
  summed on its own, never updated from the window before it, so that no rounding error travels along the series.
* **Recursions** (EMA, MACD, Wilder's RSI and ATR) remember everything before them. They go on from `STATE`, the
  values in the last row before the range. Where the look-back is the whole history, they start over from it.

Memory also reaches forward: when bars change, the `TAIL` bars after them must be computed again. The slowest
recursion, EMA 26, keeps (25/27)^500 = 2e-17 of a difference by then, which is less than a double can hold.

A split is no return: everything is computed on price times `shares`, how many shares one share of the company's
beginning has become (`split_factors`), and price levels are given back in shares of the bar's own session. When a
ticker passes to another company (`listing`), everything starts over.

Formulas: EMA is seeded with the SMA of its first n values; RSI and ATR are Wilder's, seeded with the plain average of
the first 14 changes and of the first 14 true ranges that have a previous close; Bollinger bands are two population
standard deviations wide; MACD is EMA 12 less EMA 26 with a 9-bar EMA as its signal; volatility is the sample standard
deviation of 20 log returns, not annualised. Everything is null until its window is full.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

LOOKBACK = 200
TAIL = 500

INDICATORS = (
    "ret_1",
    "log_ret_1",
    "sma_20",
    "sma_50",
    "sma_200",
    "ema_12",
    "ema_20",
    "ema_26",
    "rsi_14",
    "macd",
    "macd_signal",
    "macd_hist",
    "bb_middle",
    "bb_upper",
    "bb_lower",
    "atr_14",
    "vol_20",
)
# What a recursion needs to go on from a row.
STATE = ("ema_12", "ema_20", "ema_26", "macd_signal", "rsi_14_avg_gain", "rsi_14_avg_loss", "atr_14")
COLUMNS = (*INDICATORS, "rsi_14_avg_gain", "rsi_14_avg_loss", "history_bars")
# What is in prices, and so has another scale after a split.
_PRICES = frozenset({*COLUMNS} - {"ret_1", "log_ret_1", "rsi_14", "vol_20", "history_bars"})

GROUP = ("symbol", "interval")


def compute(bars: pl.DataFrame, state: pl.DataFrame | None = None) -> pl.DataFrame:
    """The bars with their indicators, for many symbols and intervals at once.

    `bars` has symbol, interval, open_time, high, low, close and any other columns, which are carried along; rows may be
    in any order. A bar without a close may not be used: it is in no window, and its row has nulls. An optional Boolean
    column `lookback` marks rows before the range: they fill the windows and are not returned. Give the last `LOOKBACK`
    bars of each group, or all there are when there are fewer.
    Optional columns `shares` and `listing` as in features.bars; without them there are no splits and no renames.

    `state` has symbol, interval, open_time and the columns of `STATE`: one row per group, the indicators of the last
    bar before the range. It is used for groups whose look-back is full and whose last look-back bar it belongs to;
    any other group starts from the first bar given.

    Returns the rows that are not look-back, ordered by symbol, interval and open_time, with the columns of `COLUMNS`
    added: prices in the bars' currency, returns and volatility as fractions per bar, RSI from 0 to 100,
    `history_bars` = bars of the group up to this one, counted to `LOOKBACK` at most.
    """
    bars = bars.sort(*GROUP, "open_time")
    if bars["close"].null_count():
        return _around_unusable(bars, state)
    lookback = bars["lookback"].to_numpy() if "lookback" in bars.columns else np.zeros(len(bars), dtype=bool)
    shares = bars["shares"].cast(pl.Float64).to_numpy() if "shares" in bars.columns else np.ones(len(bars))
    high, low, close = (bars[name].cast(pl.Float64).to_numpy() * shares for name in ("high", "low", "close"))
    starts = _group_starts(bars)
    ends = np.append(starts, len(bars))[1:]
    position = np.arange(len(bars)) - np.repeat(starts, ends - starts)

    columns = _windows(close, position)
    states = _states(bars, state, starts, lookback, shares)
    columns |= _recursions(high, low, close, position, starts, ends, lookback, states)
    columns["history_bars"] = np.minimum(position + 1, LOOKBACK).astype(np.int32)

    kept = np.flatnonzero(~lookback)
    result = bars.drop("lookback", strict=False)[kept]
    scale = shares[kept]
    return result.with_columns(
        pl.Series(name, columns[name][kept] / scale if name in _PRICES else columns[name][kept], nan_to_null=True)
        for name in COLUMNS
    )


def _around_unusable(bars: pl.DataFrame, state: pl.DataFrame | None) -> pl.DataFrame:
    """`compute` where some bars have no close."""
    computed = compute(bars.filter(pl.col("close").is_not_null()), state)
    unusable = bars.filter(pl.col("close").is_null(), ~pl.col("lookback") if "lookback" in bars.columns else True)
    return pl.concat([computed, unusable.select(pl.exclude("lookback"))], how="diagonal").sort(*GROUP, "open_time")


def _group_starts(bars: pl.DataFrame) -> np.ndarray:
    group = [*GROUP, "listing"] if "listing" in bars.columns else GROUP
    changed = pl.any_horizontal(pl.col(name) != pl.col(name).shift(1) for name in group).fill_null(True)
    return np.flatnonzero(bars.select(changed).to_series().to_numpy())


def _states(
    bars: pl.DataFrame, state: pl.DataFrame | None, starts: np.ndarray, lookback: np.ndarray, shares: np.ndarray
) -> list[Mapping[str, float] | None]:
    """For each group the values to go on from, on the scale of price times shares; None where it starts over."""
    if state is None or state.is_empty() or not len(starts):
        return [None] * len(starts)
    counts = np.add.reduceat(lookback, starts, dtype=np.int64)
    places = np.maximum(starts + counts - 1, starts)
    last = bars[places].select(*GROUP, "open_time", pl.Series("scale", shares[places]))
    found = last.join(
        state.select(*GROUP, "open_time", *STATE), on=[*GROUP, "open_time"], how="left", maintain_order="left"
    ).with_columns(pl.col(STATE) * pl.col("scale"))
    return [
        row if count >= LOOKBACK and all(row[name] is not None for name in STATE) else None
        for row, count in zip(found.select(STATE).iter_rows(named=True), counts, strict=True)
    ]


def _windows(close: np.ndarray, position: np.ndarray) -> dict[str, np.ndarray]:
    """Columns that depend on a fixed number of bars. Groups lie one after another; `position` counts within each."""
    ratio = np.full(len(close), np.nan)
    usable = (position[1:] > 0) & (close[1:] > 0) & (close[:-1] > 0)
    np.divide(close[1:], close[:-1], out=ratio[1:], where=usable)
    log_return = np.log(ratio)
    columns = {"ret_1": ratio - 1, "log_ret_1": log_return}
    for bars in (20, 50, 200):
        columns[f"sma_{bars}"] = _full_only(_mean(close, bars), bars - 1, position)
    middle = columns["sma_20"]
    width = 2 * _full_only(_deviation(close, 20, ddof=0), 19, position)
    columns |= {"bb_middle": middle, "bb_upper": middle + width, "bb_lower": middle - width}
    columns["vol_20"] = _full_only(_deviation(log_return, 20, ddof=1), 20, position)
    return columns


def _full_only(values: np.ndarray, first: int, position: np.ndarray) -> np.ndarray:
    """Values from the `first` position of each group on, NaN before: those windows reach into another group."""
    values[position < first] = np.nan
    return values


def _mean(values: np.ndarray, bars: int) -> np.ndarray:
    """Mean of the last `bars` values at each place, NaN where there are fewer.

    A window is put together from sums of 1, 2, 4, … neighbours. So the same window gives the same bits wherever the
    array starts, in a number of passes that grows with the logarithm of its length.
    """
    result = np.full(len(values), np.nan)
    count = len(values) - bars + 1
    if count <= 0:
        return result
    total = np.zeros(count)
    block, size, covered = values, 1, 0
    while size <= bars:
        if bars & size:
            total += block[covered : covered + count]
            covered += size
        block = block[:-size] + block[size:]
        size *= 2
    result[bars - 1 :] = total / bars
    return result


def _deviation(values: np.ndarray, bars: int, ddof: int) -> np.ndarray:
    """Standard deviation of the last `bars` values at each place, NaN where there are fewer.

    Every window is measured from its own mean; the second sum takes out what the mean's rounding left, so that a
    window without movement has a deviation of zero.
    """
    result = np.full(len(values), np.nan)
    count = len(values) - bars + 1
    if count <= 0:
        return result
    mean = _mean(values, bars)[bars - 1 :]
    squares, rest = np.zeros(count), np.zeros(count)
    for offset in range(bars):
        distance = values[offset : offset + count] - mean
        rest += distance
        distance *= distance
        squares += distance
    result[bars - 1 :] = np.sqrt(np.maximum(squares - rest * rest / bars, 0) / (bars - ddof))
    return result


def _recursions(
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    position: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    lookback: np.ndarray,
    states: list[Mapping[str, float] | None],
) -> dict[str, np.ndarray]:
    """Columns that remember. Look-back rows of a group that has a state stay NaN."""
    previous = np.full(len(close), np.nan)
    previous[1:] = np.where(position[1:] > 0, close[:-1], np.nan)
    change = close - previous
    gain, loss = np.maximum(change, 0), np.maximum(-change, 0)
    true_range = np.maximum(high, previous) - np.minimum(low, previous)
    columns = {name: np.full(len(close), np.nan) for name in STATE}

    for start, end, state in zip(starts, ends, states, strict=True):
        # A group that goes on starts at its first row in the range; one that starts over, at its first row.
        first = start if state is None else start + int(np.count_nonzero(lookback[start:end]))
        rows = slice(first, end)
        before = state or {}
        for bars in (12, 20, 26):
            name = f"ema_{bars}"
            columns[name][rows] = _smooth(close[rows], bars, 2 / (bars + 1), before.get(name))
        macd = columns["ema_12"][rows] - columns["ema_26"][rows]
        columns["macd_signal"][rows] = _smooth(macd, 9, 2 / 10, before.get("macd_signal"))
        for name, values in (("rsi_14_avg_gain", gain), ("rsi_14_avg_loss", loss), ("atr_14", true_range)):
            columns[name][rows] = _smooth(values[rows], 14, 1 / 14, before.get(name))

    columns["macd"] = columns["ema_12"] - columns["ema_26"]
    columns["macd_hist"] = columns["macd"] - columns["macd_signal"]
    columns["rsi_14"] = _relative_strength(columns["rsi_14_avg_gain"], columns["rsi_14_avg_loss"])
    return columns


def _smooth(values: np.ndarray, bars: int, weight: float, previous: float | None) -> np.ndarray:
    """y[t] = weight * values[t] + (1 - weight) * y[t-1].

    Goes on from `previous` where there is one. Else the leading NaNs are passed over, the next `bars` values are
    averaged as the seed, and everything before the seed is NaN.
    """
    result = np.full(len(values), np.nan)
    first = 0
    if previous is None:
        known = np.flatnonzero(~np.isnan(values[: bars + 26]))
        if not len(known) or known[0] + bars > len(values):
            return result
        first = known[0] + bars
        previous = values[known[0] : first].mean()
        result[first - 1] = previous
    if first < len(values):
        # An unadjusted mean starts at its first value, so the one to go on from is put in front.
        series = pl.Series(np.concatenate(([previous], values[first:])))
        result[first:] = series.ewm_mean(alpha=weight, adjust=False).to_numpy()[1:]
    return result


def _relative_strength(gain: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """RSI of average gain and loss; 50 where the price has never moved, which is neither strong nor weak."""
    total = gain + loss
    moved = total > 0
    rsi = np.divide(100 * gain, total, out=np.full(len(total), np.nan), where=moved)
    rsi[total == 0] = 50
    return rsi
