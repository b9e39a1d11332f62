"""The trading engine: symbols × bars from targets to equity, with and without events, and bar by bar from Python.

Prints bars a second (one bar of one symbol) and ratios to a baseline of the same run. The baseline is vectorbt's numba
engine where it can be imported, here or by the interpreter that VECTORBT_PYTHON names: the same fills at the next open
with fees and slippage, one shared cash, without risk limits and events of its own beyond order records. Elsewhere it is
a plain compiled loop that marks given positions at each close and trades nothing.
Run with `python -m quantlytic_tests.benchmarks.engine [symbols] [bars]`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
from numba import njit

from quantlytic_assets.strategies.bots import Bar, Bot
from quantlytic_assets.trading.bot_run import run_bot
from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.market import Market
from quantlytic_assets.trading.engine.run import run
from quantlytic_assets.trading.engine.settings import Costs, EngineSettings, Exits, Risk

ROUNDS = 5
DAY = 86_400_000_000
CAPITAL = 1e8
# The same in the other program, told the directory of the arrays and the rounds; prints seconds and equity.
VECTORBT = """
import sys, time
import numpy as np, pandas as pd, vectorbt as vbt
folder, rounds, capital = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
close, opened, size = (pd.DataFrame(np.load(f"{folder}/{name}.npy")) for name in ("close", "open", "size"))
def work():
    return vbt.Portfolio.from_orders(
        close, size, size_type="targetpercent", price=opened, val_price=close.shift(1), fees=1e-4, slippage=2e-4,
        init_cash=capital, cash_sharing=True, group_by=True, call_seq="auto", freq="1D",
    )
taken = []
for _ in range(rounds + 1):
    begun = time.perf_counter()
    portfolio = work()
    # Its equity is made when it is asked for.
    value = portfolio.value()
    taken.append(time.perf_counter() - begun)
print(min(taken[1:]), len(portfolio.order_records), float(value.iloc[-1]), vbt.__version__)
"""


def walks(symbols: int, count: int) -> Market:
    """Random walks of daily bars."""
    drawn = np.random.default_rng(1)
    close = 100 * np.exp(np.cumsum(drawn.normal(0, 0.01, (count, symbols)), axis=0))
    opened = close * np.exp(drawn.normal(0, 0.005, (count, symbols)))
    bars = np.empty((count, c.BAR_FIELDS, symbols))
    bars[:, c.OPEN], bars[:, c.CLOSE] = opened, close
    bars[:, c.HIGH], bars[:, c.LOW] = np.maximum(opened, close) * 1.003, np.minimum(opened, close) * 0.997
    bars[:, c.VOLUME] = drawn.integers(1_000_000, 10_000_000, (count, symbols))
    times = np.zeros((count, c.TIME_FIELDS), dtype=np.int64)
    times[:, c.SESSION] = np.arange(count) + 15_000
    times[:, c.OPENS] = times[:, c.SESSION] * DAY
    times[:, c.CLOSES] = times[:, c.AVAILABLE] = times[:, c.OPENS] + DAY // 4
    times[:, c.LAST_BAR] = 1
    static = np.zeros((c.STATIC_FIELDS, symbols))
    static[c.LOT] = 1.0
    names = tuple(f"S{number:04}" for number in range(symbols))
    return Market(names, bars, times, static, np.zeros((0, 4), dtype=np.int64), np.zeros(0))


def crossings(market: Market) -> np.ndarray:
    """1 where the mean of 20 closes is above that of 50, told only where that changes."""
    closes = np.cumsum(market.bars[:, c.CLOSE], axis=0)
    quick, slow = ((closes - np.roll(closes, window, axis=0)) / window for window in (20, 50))
    above = (quick > slow).astype(float)
    above[:50] = 0.0
    told = np.full_like(above, np.nan)
    changed = above[1:] != above[:-1]
    told[1:][changed] = above[1:][changed]
    return told


@njit
def marked(bars: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Equity of given positions, and nothing else."""
    value = np.zeros(len(bars))
    for t in range(len(bars)):
        total = 0.0
        for symbol in range(bars.shape[2]):
            total += bars[t, 3, symbol] * held[t, symbol]
        value[t] = total
    return value


def fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of some rounds, after one that is not counted."""
    work()
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def vectorbt(market: Market, targets: np.ndarray) -> tuple[float, str] | None:
    """Seconds of vectorbt, and what it made of it; None where it is not installed."""
    python = os.environ.get("VECTORBT_PYTHON") or (sys.executable if find_spec("vectorbt") else None)
    if python is None:
        return None
    size = np.full_like(targets, np.nan)
    # Decided on a bar, filled at the open of the next one.
    size[1:] = targets[:-1] / len(market.symbols)
    with tempfile.TemporaryDirectory() as folder:
        for name, one in (("close", market.bars[:, c.CLOSE]), ("open", market.bars[:, c.OPEN]), ("size", size)):
            np.save(Path(folder) / f"{name}.npy", one)
        command = [python, "-W", "ignore", "-c", VECTORBT, folder, str(ROUNDS), str(CAPITAL)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(answer[0]), f"vectorbt {answer[3]} (numba): {int(answer[1]):,} orders, equity {float(answer[2]):,.0f}"


class Rising(Bot):
    """A bot that sees each bar of each symbol, and now and then buys."""

    def on_start(self) -> None:
        self.highest: dict[str, float] = {}

    def on_bar(self, bar: Bar) -> None:
        highest = self.highest.get(bar.symbol, 0.0)
        if bar.close > highest * 1.05:
            if highest > 0.0:
                self.order(bar.symbol, 10.0)
            self.highest[bar.symbol] = bar.close


def main() -> None:
    symbols, count = (int(one) for one in (*sys.argv[1:3], *("1000", "1000")[len(sys.argv) - 1 :]))
    market = walks(symbols, count)
    targets = crossings(market)
    costs, risk = Costs(commission_bps=1, slippage_bps=2), Risk(max_position=0.05, max_drawdown=0.9, max_daily_loss=0.5)
    settings = EngineSettings(CAPITAL, costs=costs, risk=risk)
    begun = time.perf_counter()
    run(market, targets, settings)
    print(f"first call, compiled or found: {time.perf_counter() - begun:.1f} s")

    total = symbols * count
    baseline = vectorbt(market, targets)
    if baseline is None:
        held = np.random.default_rng(2).integers(0, 100, (count, symbols)).astype(float)
        baseline = fastest(lambda: marked(market.bars, held)), "a loop that only marks positions"
    seconds, told = baseline
    print(f"baseline: {told}, {total / seconds / 1e6:.1f}M bars/s")
    dense = pl.DataFrame(targets).fill_nan(None).fill_null(strategy="forward").fill_null(0.0).to_numpy()
    rebalanced = vectorbt(market, dense) or baseline
    print(f"baseline, all rebalanced at each bar: {rebalanced[1]}, {total / rebalanced[0] / 1e6:.1f}M bars/s")
    exits = EngineSettings(CAPITAL, costs=costs, risk=risk, exits=Exits(stop_loss=0.05, take_profit=0.1))
    banded = EngineSettings(CAPITAL, costs=costs, risk=risk, rebalance_band=0.1)
    for name, wishes, account in (
        ("changes of targets", targets, settings),
        ("changes of targets, stops and targets", targets, exits),
        ("targets at each bar, band 10 %", dense, banded),
        ("targets at each bar, all rebalanced", dense, settings),
    ):
        against = (rebalanced if wishes is dense and account is settings else baseline)[0]
        result = run(market, wishes, account)
        for events in (True, False):
            taken = fastest(lambda: run(market, wishes, account, events=events))  # noqa: B023 - called at once
            kept = f"{len(result.events):,} events" if events else "events off"
            print(
                f"{name}, {kept}: {total / taken / 1e6:.1f}M bars/s (target 10), {taken / against:.3f} of baseline; "
                f"{result.events.count('fill'):,} fills, equity {result.equity[-1]:,.0f}"
            )
    begun = time.perf_counter()
    run(market, targets, settings).events.frame()
    print(f"with the events as a frame: {time.perf_counter() - begun:.2f} s")
    taken = fastest(lambda: run_bot(Rising(), market, settings))
    print(f"a bot in Python, {symbols} symbols: {total / taken / 1e6:.2f}M bars/s (target 0.5)")
    alone = walks(1, 50_000)
    taken = fastest(lambda: run_bot(Rising(), alone, settings))
    print(f"a bot in Python, one symbol: {50_000 / taken / 1e6:.2f}M bars/s")


if __name__ == "__main__":
    main()
