"""What a search says of its best point: in sample, out of sample, overfitting and walk-forward."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from quantlytic_assets.strategies.registry import Registry
from quantlytic_assets.trading.backtest.changes import axes_of, grid
from quantlytic_assets.trading.backtest.figures import confidence, figures, moved_in_time, with_costs_doubled
from quantlytic_assets.trading.backtest.history import PreparedHistory
from quantlytic_assets.trading.backtest.search import searched, trial, walked_forward
from quantlytic_assets.trading.backtest.simulation import simulate
from quantlytic_assets.trading.engine import projections
from quantlytic_assets.trading.engine.settings import Costs, EngineSettings
from quantlytic_tests.trading.backtest.histories import recorded

SETTINGS = EngineSettings(100_000.0, costs=Costs(commission_bps=1, slippage_bps=2))
SYMBOLS = ("AAPL", "IBM")


def days(count):
    return [date(2020, 1, 1) + timedelta(days=i) for i in range(count)]


def test_the_choice_is_made_in_sample_and_judged_after_it():
    random = np.random.default_rng(1)
    returns = random.normal(0, 0.01, (1000, 4))
    returns[:700, 2] += 0.004
    returns[700:, 2] -= 0.004
    found = searched([{"x": i} for i in range(4)], days(1000), returns)
    assert found.best == 2 and found.split == days(1000)[700]
    best = found.table.row(2, named=True)
    assert best["in_sample"] > 0.2 > 0 > best["out_of_sample"]
    assert found.overfitting is not None and 0 <= found.overfitting.probability <= 1
    with pytest.raises(ValueError, match="two sessions"):
        searched([{"x": 0}], days(1), returns[:1, :1])


def test_walking_forward_chooses_by_the_past_alone():
    returns = np.zeros((800, 2))
    wave = np.tile([0.01, -0.009], 400)
    # The one that was good until the middle is bad from then on.
    returns[:, 0] = wave + np.where(np.arange(800) < 400, 0.002, -0.002)
    returns[:, 1] = wave
    walked = walked_forward(searched([{"x": 0}, {"x": 1}], days(800), returns))
    assert len(walked) == 700
    assert np.array_equal(walked[:300], returns[100:400, 0])
    later = np.concatenate([returns[:500], np.full((300, 2), 0.5)])
    again = walked_forward(searched([{"x": 0}, {"x": 1}], days(800), later))
    assert np.array_equal(again[:400], walked[:400])


def test_each_point_of_a_grid_is_a_simulation_of_its_own():
    history, rules = recorded(), Registry()
    market = history.market(SYMBOLS)
    prepared = PreparedHistory(history, market)
    rule = {"ma_cross": {"fast": 20, "slow": 50}}
    for point in grid(axes_of(["rule.ma_cross.fast=5,10", "costs.slippage_bps=0,5"])):
        sessions, earned = trial(prepared, market, rules.bind, rule, SETTINGS, SYMBOLS, point, None, None)
        own = {"ma_cross": {"fast": point["rule.ma_cross.fast"], "slow": 50}}
        costs = Costs(commission_bps=1, slippage_bps=point["costs.slippage_bps"])
        alone = simulate(history, rules.bind(own), EngineSettings(100_000.0, costs=costs), SYMBOLS)
        assert sessions == alone.sessions()["session"].to_list()
        assert float(np.prod(1 + earned)) == pytest.approx(alone.result.equity[-1] / 100_000, rel=1e-12)


def test_figures_are_those_of_the_account():
    made = simulate(recorded(), Registry().bind({"ma_cross": {"fast": 10, "slow": 30}}), SETTINGS, SYMBOLS)
    told = made.events("s")
    curve, fills, trips = made.sessions(), projections.fills(told), projections.round_trips(told, made.market)
    found = figures(curve, fills, trips, 100_000.0, 252)
    assert found["total_return"] == pytest.approx(curve["equity"][-1] / 100_000 - 1)
    assert found["total_costs"] == pytest.approx(fills["commission"].sum() + fills["slippage"].sum())
    assert found["round_trips"] == len(trips) > 10 and 0 < found["win_rate"] < 1
    assert found["max_drawdown"] == pytest.approx(
        float((curve["equity"] / curve["equity"].cum_max() - 1).min()), abs=1e-3
    )
    assert found["alpha"] is None and 0 < found["exposure"] <= 1
    worse = made.again(settings=with_costs_doubled(made.settings))
    assert worse < found["total_return"] == pytest.approx(made.again())
    moved = moved_in_time(made, 10, 3)
    assert len(np.unique(moved)) > 5 and np.array_equal(moved, moved_in_time(made, 10, 3))


def test_more_trials_make_a_sharpe_ratio_less_sure():
    earned = np.random.default_rng(5).normal(0.001, 0.01, 750)
    own = float(earned.mean() / earned.std(ddof=1))
    alone, many = confidence(earned, [own]), confidence(earned, [own, *np.linspace(-0.1, 0.1, 50)])
    assert alone["deflated_sharpe"] == alone["psr"] > many["deflated_sharpe"]
    assert many["trials"] == 51
    assert confidence(np.zeros(10), [0.0])["psr"] is None
