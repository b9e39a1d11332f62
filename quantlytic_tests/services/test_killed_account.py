"""A process that trades an account is killed again and again: what is on record is what one left alone has written."""

from __future__ import annotations

import random
import signal
import time
from datetime import UTC, date, datetime, timedelta

import polars as pl

from quantlytic_assets.services.halts import ask_to_halt, ask_to_resume
from quantlytic_assets.services.paper_account import publish
from quantlytic_assets.trading.engine.run import run
from quantlytic_tests.services.desk import FIRST, SETTINGS, Desk, recorded_days
from quantlytic_tests.storage.processes import start
from quantlytic_tests.trading.engine.markets import flat

LAST = date(2011, 3, 1)
KILLS, WEEKS = 12, 9


def trade_week_by_week(desk: Desk) -> None:
    """Trade from the week that was begun last."""
    stored = desk.accounts.last("cross")
    first = FIRST if stored is None else stored.session - timedelta(days=stored.session.weekday())
    while first < LAST:
        desk.trade(first, min(first + timedelta(days=7), LAST))
        first += timedelta(days=7)


def trade_until_killed(root, seconds: float) -> None:
    """Trade what is left, and die after so much time of the processor, wherever that is."""
    desk = Desk(root)
    # What is loaded with a first call is loaded before.
    run(flat([20.0]), None, SETTINGS)
    publish(desk.lake, desk.accounts, "cross", LAST)
    # As with SIGKILL nothing is run any more; how busy the machine is does not matter.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
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
    drawn, ends, reached, scale = random.Random(7), [], set(), week
    for _ in range(KILLS):
        process = start(trade_until_killed, killed.root, scale * drawn.uniform(0.2, 4.0))
        process.join(120)
        ends.append(process.exitcode)
        stored = killed.accounts.last("cross")
        through = stored and stored.through
        # A new process also needs time for what the one that was measured had done before.
        scale *= 1.5 if through in reached else 1.0
        reached.add(through)
        if process.exitcode == 0:
            killed.accounts.reset("cross")
            scale = week
    assert set(ends) <= {0, -signal.SIGPROF} and ends.count(-signal.SIGPROF) > KILLS // 2 and len(reached) > 2
    trade_week_by_week(killed)
    assert killed.events().equals(calm.events())
    assert killed.accounts.last("cross") == calm.accounts.last("cross")
    assert killed.accounts.requests() == calm.accounts.requests()
    publish(killed.lake, killed.accounts, "cross", FIRST)
    assert all(rows.equals(calm.published()[name]) for name, rows in killed.published().items())
