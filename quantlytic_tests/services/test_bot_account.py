"""A bot's paper account: its attributes survive between runs, so that it does what its backtest did."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.services.backtest import run_backtest
from quantlytic_assets.services.halts import ask_to_halt, ask_to_resume
from quantlytic_assets.services.paper_account import Trades
from quantlytic_assets.services.signals import NoSignals
from quantlytic_assets.strategies.spec import RuleError
from quantlytic_assets.trading.engine.settings import Exits, Sizing
from quantlytic_tests.services.desk import DATASET as DAILY
from quantlytic_tests.services.desk import FIRST, SETTINGS, STRATEGY, Desk, recorded_days

BOTS = '''
from collections import deque

from quantlytic_assets.plugins import Bot


class Dips(Bot):
    """Buys below its own average in steps, and sells after some bars."""

    steps = 3
    eager = True

    def on_start(self):
        self.closes = {}
        self.bought = {}
        self.dry = 0
        self._last = None

    def on_bar(self, bar):
        closes = self.closes.setdefault(bar.symbol, deque(maxlen=8))
        closes.append(bar.close)
        self._last = bar
        average = bar.features["sma_5"]
        if len(closes) < 8 or average is None:
            self.dry += 1
        elif bar.symbol == "AAPL":
            self.target("AAPL", 0.4 if bar.close < sum(closes) / 8 else 0.1)
        elif bar.close < 0.995 * average and len(self.bought) < self.steps:
            self.order(bar.symbol, 50, limit=bar.close * 0.998)
            self.bought[bar.open_time] = (bar.close, self.position(bar.symbol))
        elif len(self.bought) >= self.steps:
            self.order(bar.symbol, -self.position(bar.symbol))
            self.bought.clear()
            # A bot may change its own parameters.
            self.steps = 5 - self.steps


class Keeps(Bot):
    """Keeps what can't be kept."""

    def on_bar(self, bar):
        self.target(bar.symbol, 0.2)
        self.thing = object()


class Strays(Bot):
    """Wants what the strategy does not have."""

    def on_bar(self, bar):
        self.target("MSFT", 0.2)
'''
LAST = date(2011, 8, 1)
DATASET = replace(DAILY, features=("sma(5)", "sma(20)"))


def bot(tmp, follows: str = "Dips", **how):
    """A strategy that follows a bot of the plugin in this directory."""
    path = tmp / "bots.py"
    if not path.exists():
        path.write_text(BOTS)
    settings = replace(
        SETTINGS, rebalance_band=0.0, exits=Exits(trailing_stop=0.06, reenter=True), sizing=Sizing("weights")
    )
    return replace(
        STRATEGY, rule={follows: {}}, settings=settings, declared=DATASET.features, plugins=(str(path),),
        bar_by_bar=True, **how,
    )  # fmt: skip


@pytest.fixture(scope="module")
def strategy(tmp_path_factory):
    return bot(tmp_path_factory.mktemp("plugin"))


def a_desk(root) -> Desk:
    desk = Desk(root, recorded_days())
    desk.give(recorded_days().filter(pl.col("session") < LAST))
    return desk


@pytest.fixture(scope="module")
def once(tmp_path_factory, strategy) -> Desk:
    """All of it traded in one call."""
    desk = a_desk(tmp_path_factory.mktemp("bot"))
    desk.done = desk.trade(FIRST, LAST, strategy=strategy, dataset=DATASET)
    return desk


def test_the_account_is_what_a_backtest_says(once, strategy):
    backtest = run_backtest(once.lake, DATASET, strategy, FIRST, LAST - timedelta(days=1))
    assert once.done.fills > 20 and set(once.events().filter(kind="fill")["symbol"]) == {"AAPL", "IBM"}
    assert once.events().equals(backtest.events)
    curve = once.lake.query(
        "SELECT session, equity, cash, gross_exposure AS gross FROM trading.equity ORDER BY session"
    )
    assert curve.equals(backtest.curve)


def test_partition_by_partition_and_day_by_day_are_the_same(once, strategy, tmp_path):
    months = a_desk(tmp_path / "months")
    for month in range(1, 8):
        first = max(FIRST, date(2011, month, 1))
        months.trade(first, date(2011, month + 1, 1), strategy=strategy, dataset=DATASET)
    assert months.trade(FIRST, LAST, strategy=strategy, dataset=DATASET) == Trades("cross")
    assert months.events().equals(once.events())
    assert months.accounts.last("cross") == once.accounts.last("cross")
    assert {name: len(rows) for name, rows in months.published().items()} == {
        name: len(rows) for name, rows in once.published().items()
    }
    kept = json.loads(once.accounts.last("cross").bot)["attributes"]
    # What it was when the bot was made is not kept, what the bot has made of it is.
    assert {"closes", "bought", "dry", "_last"} <= set(kept) and "eager" not in kept
    days = a_desk(tmp_path / "days")
    for day in recorded_days().filter(pl.col("session") >= FIRST)["session"].unique().sort().head(11):
        days.trade(day, day + timedelta(days=1), strategy=strategy, dataset=DATASET)
    own = days.events()
    assert own.equals(once.events().head(len(own))) and own.filter(kind="fill").height > 0


def test_a_bot_is_halted_and_resumed_as_a_rule_is(strategy, tmp_path):
    events = []
    for name, months in (("once", [LAST]), ("months", [date(2011, month, 1) for month in range(2, 9)])):
        desk = a_desk(tmp_path / name)
        for when, ask in ((date(2011, 2, 26), ask_to_halt), (date(2011, 4, 9), ask_to_resume)):
            desk.now = datetime(when.year, when.month, when.day, tzinfo=UTC)
            ask(desk.accounts, "cross", "anna")
        for before in months:
            desk.trade(FIRST, before, strategy=strategy, dataset=DATASET)
        events.append(desk.events())
    one, other = events
    assert one.equals(other)
    assert one.filter(kind="fill", leg="liquidation")["session"].unique().to_list() == [date(2011, 2, 28)]
    halted = pl.col("session").is_between(date(2011, 3, 1), date(2011, 4, 8))
    assert one.filter(halted, kind="fill").is_empty() and one.filter(halted, kind="order_rejected").height > 0
    assert one.filter(pl.col("session") > date(2011, 4, 8), kind="fill").height > 3


@pytest.mark.parametrize(
    ("name", "said"),
    [("Keeps", r"bot Keeps: self.thing is a builtins.object"), ("Strays", r"target\('MSFT', …\) is of no symbol")],
)
def test_what_a_bot_can_not_do_is_said_and_nothing_is_written(once, tmp_path, name, said):
    wrong = bot(tmp_path, name, name="wrong")
    with pytest.raises(RuleError, match=said):
        once.trade(FIRST, LAST, strategy=wrong, dataset=DATASET)
    assert once.accounts.last("wrong") is None and once.events("wrong").is_empty()


def test_features_that_were_never_computed_are_named(once, tmp_path):
    lacking = replace(bot(tmp_path, name="lacking"), declared=("sma(7)",))
    with pytest.raises(NoSignals, match="no column sma_7 yet; run: quantlytic backfill daily"):
        once.trade(FIRST, LAST, strategy=lacking, dataset=DATASET)
