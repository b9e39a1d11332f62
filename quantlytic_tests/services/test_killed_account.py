"""A process that trades an account is killed again and again: what is on record is what one left alone has written."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.features.batch import compute
from quantlytic_assets.features.registry import Registry
from quantlytic_assets.services.halts import ask_to_halt, ask_to_resume
from quantlytic_assets.services.paper_account import publish
from quantlytic_assets.trading.engine.run import run
from quantlytic_assets.universe.models import Strategy
from quantlytic_tests.services.desk import DATASET, FIRST, SETTINGS, STRATEGY, Desk, recorded_days
from quantlytic_tests.storage.processes import start
from quantlytic_tests.trading.backtest.test_same_thrice import DATASETS, sampled
from quantlytic_tests.trading.backtest.test_same_thrice import SETTINGS as WALKED
from quantlytic_tests.trading.engine.markets import flat

LAST = date(2011, 3, 1)
KILLS, WEEKS = 12, 9
PARTS = 6


def trade_week_by_week(desk: Desk) -> None:
    """Trade from the week that was begun last."""
    stored = desk.accounts.last("cross")
    first = FIRST if stored is None else stored.session - timedelta(days=stored.session.weekday())
    while first < LAST:
        desk.trade(first, min(first + timedelta(days=7), LAST))
        first += timedelta(days=7)


def die_after(desk: Desk, seconds: float) -> None:
    """Let this process die after so much time of the processor, wherever it is then."""
    # What is loaded with a first call is loaded before.
    run(flat([20.0]), None, SETTINGS)
    publish(desk.lake, desk.accounts, "cross", LAST)
    # As with SIGKILL nothing is run any more; how busy the machine is does not matter.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)


def trade_until_killed(root, seconds: float) -> None:
    """Trade what is left, and die after so much time, wherever that is."""
    desk = Desk(root)
    die_after(desk, seconds)
    trade_week_by_week(desk)
    signal.setitimer(signal.ITIMER_PROF, 0)


def a_desk(root) -> Desk:
    desk = Desk(root, recorded_days())
    desk.give(recorded_days().filter(pl.col("session") < LAST))
    for day, ask in ((date(2011, 2, 5), ask_to_halt), (date(2011, 2, 12), ask_to_resume)):
        desk.now = datetime(day.year, day.month, day.day, tzinfo=UTC)
        ask(desk.accounts, "cross", "anna")
    desk.now = datetime(2026, 1, 1, tzinfo=UTC)
    return desk


def test_kills_at_random_moments_leave_what_an_undisturbed_run_writes(tmp_path):
    calm, killed = a_desk(tmp_path / "calm"), a_desk(tmp_path / "killed")
    before = time.process_time()
    trade_week_by_week(calm)
    # A process gets so far in this time, however fast the machine is.
    week = (time.process_time() - before) / WEEKS
    assert calm.events().filter(kind="fill").height > 3 and calm.events().filter(kind="halt").height == 1
    strike(killed, trade_until_killed, week, KILLS)
    trade_week_by_week(killed)
    same(killed, calm, FIRST)


def strike(desk: Desk, work: Callable, part: float, kills: int, *arguments: object) -> None:
    """Let processes work on a desk, each for some of these parts (seconds of the processor), and die."""
    drawn, ends, reached, scale = random.Random(7), [], set(), part
    for _ in range(kills):
        process = start(work, desk.root, scale * drawn.uniform(0.2, 4.0), *arguments)
        process.join(120)
        ends.append(process.exitcode)
        stored = desk.accounts.last("cross")
        through = stored and stored.through
        # A new process also needs time for what the one that was measured had done before.
        scale *= 1.5 if through in reached else 1.0
        reached.add(through)
        if process.exitcode == 0:
            desk.accounts.reset("cross")
            scale = part
    assert set(ends) <= {0, -signal.SIGPROF} and ends.count(-signal.SIGPROF) > kills // 2 and len(reached) > 2


def same(killed: Desk, calm: Desk, first: date) -> None:
    """Both desks have the same on record, and the same in the lake."""
    assert killed.events().equals(calm.events())
    assert killed.accounts.last("cross") == calm.accounts.last("cross")
    assert killed.accounts.requests() == calm.accounts.requests()
    publish(killed.lake, killed.accounts, "cross", first)
    assert all(rows.equals(calm.published()[name]) for name, rows in killed.published().items())


def shipped(dataset: str, calendar: str) -> tuple[pl.DataFrame, Strategy]:
    """The last bars of a shipped dataset with their features, and a strategy on them."""
    history, symbols = sampled(dataset, calendar)
    bars = compute(history.bars, Registry().features(["sma(5)", "sma(20)", "ret(1)"]))
    days = bars.with_columns(
        pl.lit("daily").alias("dataset"), pl.lit(True).alias("complete"), pl.lit(200, pl.Int32).alias("history_bars")
    )
    return days, replace(STRATEGY, interval=dataset.rpartition("_")[2], symbols=symbols, settings=WALKED)


def trade_as_bars_come(desk: Desk, days: pl.DataFrame, strategy: Strategy, calendar: str) -> None:
    """Give the lake the bars in parts, one of them without a bar that comes with the next, and trade after each."""
    times = days["open_time"].unique().sort()
    first, end = days["session"].min(), days["session"].max() + timedelta(days=1)
    own = replace(DATASET, calendar=calendar, interval=strategy.interval, first_session=first, last_session=end)
    stored = desk.accounts.last("cross")
    for part in range(PARTS):
        last = times[(part + 1) * len(times) // PARTS - 1]
        if stored is not None and last <= stored.through:
            continue
        there = days.filter(pl.col("open_time") <= last)
        if part == 2:
            late = (pl.col("symbol") == strategy.symbols[0]) & (pl.col("open_time") == there["open_time"].max())
            there = there.filter(~late)
        desk.give(there)
        desk.trade(first, end, strategy=strategy, dataset=own)


def trade_bars_until_killed(root, seconds: float, days: pl.DataFrame, strategy: Strategy, calendar: str) -> None:
    """Trade what is left as bars come, and die after so much time, wherever that is."""
    desk = Desk(root)
    die_after(desk, seconds)
    trade_as_bars_come(desk, days, strategy, calendar)
    signal.setitimer(signal.ITIMER_PROF, 0)


@pytest.mark.parametrize(("dataset", "calendar"), DATASETS.items())
def test_kills_while_bars_come_leave_what_an_undisturbed_run_writes(tmp_path, dataset, calendar):
    days, strategy = shipped(dataset, calendar)
    calm, killed = Desk(tmp_path / "calm", days), Desk(tmp_path / "killed", days)
    before = time.process_time()
    trade_as_bars_come(calm, days, strategy, calendar)
    part = (time.process_time() - before) / PARTS
    assert calm.events().filter(kind="fill").height > 3 and calm.events().filter(kind="seen_late").height == 1
    strike(killed, trade_bars_until_killed, part, 5, days, strategy, calendar)
    trade_as_bars_come(killed, days, strategy, calendar)
    same(killed, calm, days["session"].min())
