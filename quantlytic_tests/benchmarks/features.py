"""Features: the 17 core columns against bare TA-Lib calls on the same arrays, Alpha158, and the cost of a bar online.

Prints (a) `compute` over the core set, from frame to frame, as a ratio to TA-Lib's functions called on numpy arrays of
the same bars: keeping their columns, as `compute` does, and throwing them away, for new memory costs more than the
arithmetic; (b) Alpha158 in microseconds a row; (c) one bar of 100 symbols with 200 features each, online.
Run with `python -m quantlytic_tests.benchmarks.features [symbols] [bars]`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numpy as np
import polars as pl
import talib

from quantlytic_assets.features.batch import compute
from quantlytic_assets.features.online import Board
from quantlytic_assets.features.registry import Registry

REGISTRY = Registry()
ROUNDS = 5


def bars(symbols: int, count: int, step: float = 0.001) -> pl.DataFrame:
    """Random walks of minute bars, sorted; `step` is the deviation of a bar's return."""
    drawn = np.random.default_rng(1)
    start = np.datetime64("2024-01-01", "us")
    frames = []
    for symbol in range(symbols):
        close = 100 * np.exp(np.cumsum(drawn.normal(0, step, count)))
        opened = close * np.exp(drawn.normal(0, step, count))
        frames.append(
            pl.DataFrame(
                {
                    "symbol": pl.repeat(f"S{symbol:03}", count, eager=True),
                    "interval": pl.repeat("1m", count, eager=True),
                    "open_time": start + np.arange(count) * np.timedelta64(60_000_000, "us"),
                    "open": opened,
                    "high": np.maximum(opened, close) * 1.001,
                    "low": np.minimum(opened, close) * 0.999,
                    "close": close,
                    "volume": drawn.integers(1, 10_000, count).astype(float),
                }
            ).with_columns(pl.col("open_time").dt.replace_time_zone("UTC"))
        )
    return pl.concat(frames, rechunk=True)


def bare(arrays: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> list:
    """TA-Lib's functions for the core columns, symbol by symbol."""
    return [
        (
            talib.ROCP(close, 1),
            returns := talib.LN(talib.ROCR(close, 1)),
            [talib.SMA(close, window) for window in (20, 50, 200)],
            [talib.EMA(close, window) for window in (12, 20, 26)],
            talib.RSI(close, 14),
            talib.MACD(close, 12, 26, 9),
            talib.BBANDS(close, 20, 2.0, 2.0),
            talib.ATR(high, low, close, 14),
            talib.STDDEV(returns, 20),
        )
        for high, low, close in arrays
    ]


def thrown_away(arrays: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> None:
    """The same without keeping the columns, so that their memory is used again and again."""
    for one in arrays:
        bare([one])


def fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of some rounds."""
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def main() -> None:
    symbols, count = (int(one) for one in (*sys.argv[1:3], *("10", "100000")[len(sys.argv) - 1 :]))
    frame = bars(symbols, count)
    core = REGISTRY.features(["core"])
    arrays = [
        tuple(one[name].to_numpy().copy() for name in ("high", "low", "close"))
        for one in frame.partition_by("symbol", maintain_order=True)
    ]
    compute(frame[:1000], core)
    ours = fastest(lambda: compute(frame, core))
    kept, alone = fastest(lambda: bare(arrays)), fastest(lambda: thrown_away(arrays))
    print(
        f"core: {len(frame):,} rows, {len(frame) / ours / 1e6:.1f}M rows/s; "
        f"ratio to bare TA-Lib {ours / kept:.2f} "
        f"(target 1.5), {ours / alone:.2f} where that throws its columns away"
    )

    alpha = REGISTRY.features(["alpha158"])
    few = frame[:20_000]
    compute(few[:1000], alpha)
    print(f"alpha158: {fastest(lambda: compute(few, alpha)) / len(few) * 1e6:.1f} us a row of 158 columns")

    windows = range(5, 30)
    names = ("sma", "ema", "rsi", "atr", "vol", "roc", "donchian", "willr")
    many = REGISTRY.features([f"{name}({window})" for window in windows for name in names])
    board = Board(many)
    history = bars(100, 120)
    board.open(history)
    following = {row["symbol"]: row for row in history.group_by("symbol").last().iter_rows(named=True)}

    def one_bar() -> None:
        for symbol, bar in following.items():
            board.update(symbol, bar)

    print(f"online: {len(many)} features x {len(following)} symbols, {fastest(one_bar) * 1e3:.1f} ms a bar (target 50)")


if __name__ == "__main__":
    main()
