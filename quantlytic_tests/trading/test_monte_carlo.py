"""Simulated paths of an account: what must hold of any of them, and small cases with known answers."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from quantlytic_assets.trading.monte_carlo import (
    resampled_returns,
    resampled_trades,
    stationary_places,
)

RETURNS = np.random.default_rng(11).normal(0.0005, 0.01, 250)


def test_shuffled_trades_end_alike_and_fall_differently():
    profits = [100, -50, 30, -80]
    found = resampled_trades(profits, 1000, paths=4000, seed=1)
    assert found.final == pytest.approx(1000)
    every = []
    for order in permutations(profits):
        money = np.cumsum([1000, *order])
        every.append((money / np.maximum.accumulate(money) - 1).min())
    assert set(np.round(found.drawdowns, 12)) == set(np.round(every, 12))
    assert found.drawdowns.mean() == pytest.approx(np.mean(every), rel=0.02)
    assert found.probability_of_loss() == 0


def test_drawn_trades_end_differently():
    found = resampled_trades([10, -10], 100, paths=8000, seed=2, method="bootstrap")
    assert dict(zip(*np.unique(found.final, return_counts=True))) == pytest.approx(
        {80: 2000, 100: 4000, 120: 2000}, rel=0.1
    )
    assert found.probability_of_loss() == pytest.approx(0.25, abs=0.02)
    # A path falls by a tenth or more where it loses first, or last from a peak of 110.
    assert found.probability_of_drawdown(0.09) == found.probability_of_drawdown(-0.09) == pytest.approx(0.75, abs=0.02)


def test_an_account_that_is_ruined_has_lost_all():
    found = resampled_trades([-80, -80], 100, paths=10)
    assert found.drawdowns.tolist() == [-1] * 10


def test_the_fan_begins_with_the_capital_and_is_ordered():
    found = resampled_returns(RETURNS, 5000, paths=500, quantiles=(0.005, 0.05, 0.5, 0.95, 0.995))
    assert found.fan.columns == ["step", "q00_5", "q05", "q50", "q95", "q99_5"]
    assert found.fan["step"].to_list() == list(range(251))
    assert found.fan.row(0) == (0, *[5000] * 5)
    table = found.fan.drop("step").to_numpy()
    assert (np.diff(table, axis=1) >= 0).all()
    assert table[-1].tolist() == pytest.approx(np.quantile(found.final, (0.005, 0.05, 0.5, 0.95, 0.995)).tolist())
    assert list(found.drawdown_quantiles((0.05, 0.5))) == ["q05", "q50"]
    assert (found.drawdowns <= 0).all() and (found.drawdowns >= -1).all()


def test_a_seed_decides_everything():
    for simulate in (resampled_trades, resampled_returns):
        one, same, other = (simulate(RETURNS, 1.0, paths=50, seed=seed) for seed in (5, 5, 6))
        assert one.fan.equals(same.fan) and one.drawdowns.tolist() == same.drawdowns.tolist()
        assert one.drawdowns.tolist() != other.drawdowns.tolist()


def test_paths_made_in_parts_are_kept_whole(monkeypatch):
    whole = resampled_returns(RETURNS, paths=64, seed=3)
    monkeypatch.setattr("quantlytic_assets.trading.monte_carlo._VALUES_AT_ONCE", 1000)
    parts = resampled_returns(RETURNS, paths=64, seed=3)
    assert len(parts.final) == 64 and np.isfinite(parts.final).all()
    assert parts.fan.item(250, "q50") == pytest.approx(np.median(parts.final), rel=1e-6)
    assert parts.final.mean() == pytest.approx(whole.final.mean(), rel=0.1)


def test_paths_compound_what_was_drawn_to_the_mean_of_the_returns():
    found = resampled_returns(RETURNS, paths=20_000, length=20, seed=4)
    # Each step of a stationary bootstrap has the mean of the sample; with so short paths compounding adds little.
    assert found.final.mean() == pytest.approx((1 + RETURNS.mean()) ** 20, rel=2e-3)
    assert len(found.fan) == 21


def test_blocks_are_as_long_as_they_should_be_and_go_round():
    random = np.random.default_rng(7)
    places = stationary_places(random, 50, (400, 500), 8)
    assert places.min() == 0 and places.max() == 49
    follows = (np.diff(places, axis=1) % 50) == 1
    # A new block begins with probability 1/8, and one of fifty of those goes on by chance.
    assert follows.mean() == pytest.approx(7 / 8 + 1 / 8 / 50, abs=0.003)
    assert np.bincount(places.ravel()).std() / 4000 < 0.1


def test_one_long_block_is_the_history_turned():
    places = stationary_places(np.random.default_rng(8), 30, (5, 30), 1e15)
    assert (np.diff(places, axis=1) % 30 == 1).all()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: resampled_trades([], 100), "round trips are a row of at least 1"),
        (lambda: resampled_trades([1], 0), "capital is above 0, not 0"),
        (lambda: resampled_trades([1, np.nan], 1), "round trips hold NaN"),
        (lambda: resampled_trades([1], 1, method="draw"), "shuffle or bootstrap, not 'draw'"),
        (lambda: resampled_trades([1], 1, paths=0), "at least one path, not 0"),
        (lambda: resampled_trades([1], 1, quantiles=[1.5]), "quantiles are from 0 to 1, not [1.5]"),
        (lambda: resampled_returns([0.1]), "returns are a row of at least 2"),
        (lambda: resampled_returns(np.zeros((3, 2))), "not an array of shape (3, 2)"),
        (lambda: resampled_returns([0.1, np.inf]), "returns hold NaN or infinite"),
        (lambda: resampled_returns([0.1, 0.1], -1), "capital is above 0"),
        (lambda: resampled_returns([0.1, 0.1], mean_block=0.5), "mean_block is at least 1, not 0.5"),
        (lambda: resampled_returns([0.1, 0.1], length=0), "length is at least 1, not 0"),
    ],
)
def test_what_can_not_be_simulated_is_refused(call, said: str):
    with pytest.raises(ValueError) as error:
        call()
    assert said in str(error.value)
