"""A rule and a bot on history decide and trade what the engine makes of them, and know nothing of what comes later."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl
import pytest

from quantlytic_assets.strategies.bots import Bot
from quantlytic_assets.strategies.registry import Registry
from quantlytic_assets.trading.backtest.simulation import bought_and_held, simulate
from quantlytic_assets.trading.engine.settings import Costs, EngineSettings, Exits, Risk, Sizing
from quantlytic_tests.trading.backtest.histories import history, made, recorded

RULES = Registry()
SYMBOLS = ("AAPL", "IBM")
SETTINGS = EngineSettings(100_000.0, costs=Costs(commission_bps=1, slippage_bps=2))


def events(simulation):
    return simulation.events("s").drop("seq")


def test_what_is_decided_on_a_close_is_traded_at_the_next_open():
    days = history(made({"A": [10.0, 11.0, 12.0, 13.0]}))
    done = simulate(days, RULES.bind("buy_and_hold"), replace(SETTINGS, costs=Costs()), ("A",))
    fills = done.events("s").filter(kind="fill")
    assert fills["event_time"].to_list()[0] == days.bars["open_time"][1]
    assert fills["price"].to_list()[0] == 10.0
    assert done.sessions()["session"].to_list() == days.bars["session"].to_list()
    assert done.result.equity[0] == 100_000.0 < done.result.equity[-1]


@pytest.mark.parametrize("rule", ["buy_and_hold", {"ma_cross": {"fast": 5, "slow": 20}}, {"rsi": {"window": 5}}])
def test_the_past_is_the_same_when_everything_after_it_is_cut(rule):
    whole, random = recorded(), np.random.default_rng()
    every = whole.bars["session"].unique().sort()
    done = events(simulate(whole, RULES.bind(rule), SETTINGS, SYMBOLS))
    for cut in random.choice(len(every) - 60, 3, replace=False) + 50:
        day = every[int(cut)]
        short = replace(whole, bars=whole.bars.filter(pl.col("session") <= day))
        again = events(simulate(short, RULES.bind(rule), SETTINGS, SYMBOLS))
        assert len(again) > 0 and again.equals(done.head(len(again)))
        assert done.head(len(again))["session"].max() <= day


def test_a_later_beginning_warms_up_on_what_is_before_it():
    whole, rule = recorded(), RULES.bind({"ma_cross": {"fast": 20, "slow": 50}})
    done = simulate(whole, rule, SETTINGS, SYMBOLS, first=date(2012, 1, 3), last=date(2012, 12, 31))
    sessions = done.sessions()["session"]
    assert (sessions[0], sessions[-1]) == (date(2012, 1, 3), date(2012, 12, 31))
    # Fifty bars are known on the first day, so that the rule has an opinion at once.
    first = done.events("s").filter(kind="decision")["session"][0]
    assert first == date(2012, 1, 3)
    with pytest.raises(ValueError, match="no usable bar"):
        simulate(whole, rule, SETTINGS, SYMBOLS, first=date(2031, 1, 1))


def test_shares_of_the_equity_are_not_sized_again():
    days = history(made({"A": [10.0] * 5, "B": [20.0] * 5}))
    rule = RULES.bind({"rebalance": {"weights": {"A": 0.75, "B": 0.25}, "every": "daily"}})
    fixed = replace(SETTINGS, costs=Costs(), sizing=Sizing(method="fixed", amount=10.0))
    done = simulate(days, rule, fixed, ("A", "B"))
    worth = done.result.state.positions * np.array([10.0, 20.0])
    assert worth == pytest.approx([75_000, 25_000], rel=0.01)


def test_buy_and_hold_buys_each_symbol_once_at_its_first_bar():
    bars = made({"A": [10.0, 20.0, 30.0, 40.0], "B": [10.0, 10.0, 10.0, 10.0]})
    late = bars.filter((pl.col("symbol") == "A") | (pl.col("session") >= date(2024, 1, 2)))
    done = bought_and_held(history(late), SETTINGS, ("A", "B"))
    fills = done.events("s").filter(kind="fill")
    assert fills.select("symbol", "session").rows() == [("A", date(2024, 1, 2)), ("B", date(2024, 1, 3))]
    assert done.result.equity[-1] > 200_000


def test_an_atr_stop_is_given_the_atr():
    settings = replace(SETTINGS, exits=Exits(atr_stop=2.0))
    # On the first days nobody knows the ATR.
    done = simulate(recorded(), RULES.bind("buy_and_hold"), settings, SYMBOLS, first=date(2010, 3, 1))
    assert set(done.events("s").filter(kind="fill")["leg"]) >= {"entry", "entry.stop"}


class Dip(Bot):
    size = 10

    def on_bar(self, bar):
        if not self.position(bar.symbol):
            self.order(bar.symbol, self.size)
        elif bar.features["sma_3"] is not None and bar.close < bar.features["sma_3"]:
            self.target(bar.symbol, 0.0)


def test_a_bot_sees_bars_features_and_its_positions_and_is_traded():
    from quantlytic_assets.features.registry import Registry as Features

    features = Features()
    declared = features.features(["sma(3)"])
    days = history(made({"A": [10.0, 11.0, 12.0, 13.0, 9.0, 8.0, 8.0]}))
    done = simulate(days, Dip(size=7), replace(SETTINGS, costs=Costs()), ("A",), registry=features, declared=declared)
    fills = done.events("s").filter(kind="fill")
    assert fills.select("side", "quantity").rows()[:2] == [("buy", 7.0), ("sell", 7.0)]
    assert fills["session"].to_list()[:2] == [date(2024, 1, 2), date(2024, 1, 6)]
    assert done.targets is None


def test_a_halt_ends_trading_with_its_reason():
    falling = history(made({"A": [100.0, 100.0, 60.0, 50.0, 50.0, 50.0]}))
    settings = replace(SETTINGS, costs=Costs(), risk=Risk(max_drawdown=0.2))
    told = simulate(falling, RULES.bind("buy_and_hold"), settings, ("A",)).events("s")
    halt = told.filter(kind="halt").row(0, named=True)
    assert "drawdown" in halt["reason"] and halt["session"] == date(2024, 1, 3)
    assert told.filter(kind="fill")["side"].to_list() == ["buy", "sell"]
