"""A grid of `ma_cross`: points × symbols × bars, from closes to the equity of each point.

Prints seconds a point, and the ratio to vectorbt's numba engine where it can be imported, here or by the interpreter
that VECTORBT_PYTHON names: the same averages, the same crossings, fills at the next open with fees and slippage, one
shared cash a point. Both work on some points and take the fastest round; a search takes its points in threads.
Run with `python -m quantlytic_tests.benchmarks.grid [symbols] [bars] [points]`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl

from quantlytic_assets.strategies.registry import Registry
from quantlytic_assets.trading.backtest.history import History, PreparedHistory
from quantlytic_assets.trading.backtest.search import trial
from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.market import ACTIONS_SCHEMA
from quantlytic_assets.trading.engine.settings import Costs, EngineSettings
from quantlytic_tests.benchmarks.engine import CAPITAL, walks

# Points that vectorbt is timed on: each of its takes as long as the next one.
TIMED = 20
VECTORBT = """
import json, sys, time
import numpy as np, pandas as pd, vectorbt as vbt
folder, capital, points = sys.argv[1], float(sys.argv[2]), json.loads(sys.argv[3])
close, opened = (pd.DataFrame(np.load(f"{folder}/{name}.npy")) for name in ("close", "open"))
def work(fast, slow):
    quick, late = (vbt.MA.run(close, window).ma.to_numpy() for window in (fast, slow))
    above = quick > late
    change = np.zeros_like(above); change[1:] = above[1:] != above[:-1]
    size = np.full(close.shape, np.nan)
    size[1:][change[:-1]] = above[:-1][change[:-1]] / close.shape[1]
    portfolio = vbt.Portfolio.from_orders(
        close, size, size_type="targetpercent", price=opened, val_price=close.shift(1), fees=1e-4, slippage=2e-4,
        init_cash=capital, cash_sharing=True, group_by=True, call_seq="auto", freq="1D",
    )
    return portfolio.value()
work(*points[0])
begun = time.perf_counter()
for point in points:
    work(*point)
print((time.perf_counter() - begun) / len(points), vbt.__version__)
"""


def history_of(symbols: int, count: int) -> History:
    """Random walks of daily bars, as features.bars has them."""
    market = walks(symbols, count)
    times = [pl.Series(market.times[:, place]).cast(pl.Datetime("us", "UTC")) for place in (c.OPENS, c.CLOSES)]
    parts = []
    for place, name in enumerate(market.symbols):
        prices = {
            field: market.bars[:, at, place]
            for field, at in (
                ("open", c.OPEN),
                ("high", c.HIGH),
                ("low", c.LOW),
                ("close", c.CLOSE),
                ("volume", c.VOLUME),
            )
        }
        parts.append(
            pl.DataFrame(
                {"open_time": times[0], "close_time": times[1], "available_at": times[1], **prices}
            ).with_columns(
                pl.lit(name).alias("symbol"),
                pl.col("open_time").dt.date().alias("session"),
                pl.lit("1d").alias("interval"),
                pl.lit(name).alias("listing"),
                pl.lit(1.0).alias("shares"),
            )
        )
    return History(pl.concat(parts), ACTIONS_SCHEMA.to_frame(), {})


def vectorbt(history: History, points: Sequence[tuple[int, int]]) -> tuple[float, str] | None:
    """Seconds a point of vectorbt, and its version; None where it is not installed."""
    python = os.environ.get("VECTORBT_PYTHON") or (sys.executable if find_spec("vectorbt") else None)
    if python is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        for name in ("close", "open"):
            wide = history.bars.pivot("symbol", index="open_time", values=name).drop("open_time")
            np.save(Path(folder) / f"{name}.npy", wide.to_numpy())
        said = str([list(point) for point in points])
        command = [python, "-W", "ignore", "-c", VECTORBT, folder, str(CAPITAL), said]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(answer[0]), f"vectorbt {answer[1]} (numba)"


def main() -> None:
    symbols, count, most = (int(one) for one in (*sys.argv[1:4], *("500", "2500", "1000")[len(sys.argv) - 1 :]))
    history = history_of(symbols, count)
    names = tuple(history.bars["symbol"].unique().sort())
    every = [(fast, slow) for slow in range(40, 200, 4) for fast in range(5, 40)][:most]
    settings = EngineSettings(CAPITAL, costs=Costs(commission_bps=1, slippage_bps=2), rebalance_band=1.0)
    rules = Registry()

    def one(point: tuple[int, int]) -> None:
        changes = {"rule.ma_cross.fast": point[0], "rule.ma_cross.slow": point[1]}
        trial(prepared, market, rules.bind, {"ma_cross": {}}, settings, names, changes, None, None)

    begun = time.perf_counter()
    market = history.market(names)
    prepared = PreparedHistory(history, market)
    one(every[0])
    print(f"prepared, engine compiled or found: {time.perf_counter() - begun:.1f} s")
    for workers in (1, os.cpu_count() or 1):
        # Nothing of an earlier round is kept.
        prepared = PreparedHistory(history, market)
        points = every if workers > 1 else every[: max(TIMED, len(every) // 10)]
        begun = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(one, points))
        taken = (time.perf_counter() - begun) / len(points)
        print(f"{len(points):,} points, {workers} at a time: {taken * 1000:.0f} ms a point")
    baseline = vectorbt(history, every[:: max(1, len(every) // TIMED)])
    if baseline is None:
        print("vectorbt is not installed here: set VECTORBT_PYTHON")
        return
    print(f"{baseline[1]}: {baseline[0] * 1000:.0f} ms a point")
    print(f"the search takes {taken / baseline[0]:.2f} of it (target 0.3)")


if __name__ == "__main__":
    main()
