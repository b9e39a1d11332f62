"""Figures of an account, worked out by hand."""

from __future__ import annotations

import math
from datetime import date, timedelta

import numpy as np
import pytest

from quantlytic_assets.trading.statistics import account, benchmark, ratios, returns, risk, rolling


def days(number: int, first: date = date(2024, 1, 1)) -> list[date]:
    return [first + timedelta(days=one) for one in range(number)]


def test_profits_of_round_trips():
    profits = [100, -50, 0, 30, -15]
    assert account.profit_factor(profits) == 2
    assert account.win_rate(profits) == 0.4
    assert account.expectancy(profits) == 13


def test_profits_where_there_is_no_loss_or_no_trade():
    assert account.profit_factor([5]) == math.inf
    assert account.profit_factor([-5]) == 0
    assert math.isnan(account.profit_factor([0])) and math.isnan(account.profit_factor([]))
    assert math.isnan(account.win_rate([])) and math.isnan(account.expectancy([]))


def test_turnover_is_one_way_and_a_year():
    # 400 traded both ways, on 100 of mean equity, in half a year of four sessions.
    assert account.turnover([200, 0, 200, 0], [90, 110, 90, 110], 8) == 4
    assert math.isnan(account.turnover([], [], 252)) and math.isnan(account.turnover([1], [0], 252))
    with pytest.raises(ValueError, match="of the same sessions, not of 1 and 2"):
        account.turnover([1], [1, 2], 252)


def test_exposure_counts_longs_and_shorts():
    assert account.exposure([0, 50, 150], [100, 100, 100]) == pytest.approx(2 / 3)
    assert account.exposure([10, 50], [-1, 100]) == 0.5
    assert account.time_in_market([0, 5, -5, 0]) == 0.5
    assert math.isnan(account.exposure([], [])) and math.isnan(account.time_in_market([]))


def test_drawdowns_say_when_they_recovered_and_when_not():
    found = account.drawdowns([100, 90, 95, 100, 120, 60, 90, 80], days(8))
    deepest, first = found.rows(named=True)
    assert first == {
        "peak": date(2024, 1, 1), "trough": date(2024, 1, 2), "recovered": date(2024, 1, 4),
        "depth": pytest.approx(-0.1), "sessions_down": 1, "sessions_to_recover": 2,
    }  # fmt: skip
    assert deepest == {
        "peak": date(2024, 1, 5), "trough": date(2024, 1, 6), "recovered": None,
        "depth": pytest.approx(-0.5), "sessions_down": 1, "sessions_to_recover": None,
    }  # fmt: skip
    assert found.schema == account.DRAWDOWNS_SCHEMA


def test_an_account_that_only_rose_has_no_drawdown():
    for equity in ([], [1], [1, 1, 2]):
        found = account.drawdowns(equity, days(len(equity)))
        assert found.is_empty() and found.schema == account.DRAWDOWNS_SCHEMA
    with pytest.raises(ValueError, match="one session a value of equity"):
        account.drawdowns([1], [])


def test_recovery_is_profit_over_the_deepest_fall():
    assert account.recovery_factor([100, 150, 110, 180]) == 2
    assert math.isnan(account.recovery_factor([100, 110])) and math.isnan(account.recovery_factor([]))


def test_months_compound_and_missing_ones_are_null():
    sessions = [date(2023, 12, 29), date(2024, 1, 2), date(2024, 1, 3), date(2024, 3, 1)]
    found = account.monthly_returns([0.1, 0.1, 0.1, -0.5], sessions)
    assert found["year"].to_list() == [2023, 2024]
    assert found["dec"].to_list() == [pytest.approx(0.1), None]
    assert found["jan"].to_list() == [None, pytest.approx(0.21)]
    assert found["mar"].to_list() == [None, -0.5]
    assert found["total"].to_list() == pytest.approx([0.1, 1.21 * 0.5 - 1])
    assert account.monthly_returns([], []).is_empty()


def test_returns_are_compounded_by_calendar():
    sessions = [date(2023, 12, 31), date(2024, 1, 1), date(2024, 4, 1)]
    found = {by: returns.aggregate_returns([0.1, 0.2, np.nan], sessions, by) for by in ("week", "quarter", "year")}
    assert found["week"] == pytest.approx({(2023, 52): 0.1, (2024, 1): 0.2, (2024, 14): 0})
    assert found["quarter"] == pytest.approx({(2023, 4): 0.1, (2024, 1): 0.2, (2024, 2): 0})
    assert found["year"] == pytest.approx({(2023,): 0.1, (2024,): 0.2})
    with pytest.raises(ValueError, match="by week, month, quarter or year, not by 'day'"):
        returns.aggregate_returns([0.1], sessions[:1], "day")
    with pytest.raises(ValueError, match="one day a return"):
        returns.aggregate_returns([0.1], sessions, "week")


STATISTICS = (
    returns.annual_return, returns.cum_returns_final, risk.annual_volatility, risk.max_drawdown, risk.downside_risk,
    risk.value_at_risk, risk.conditional_value_at_risk, risk.tail_ratio, ratios.sharpe_ratio, ratios.sortino_ratio,
    ratios.calmar_ratio, ratios.omega_ratio,
)  # fmt: skip
BESIDE = (
    benchmark.alpha, benchmark.beta, benchmark.capture, benchmark.up_capture, benchmark.down_capture,
    benchmark.up_down_capture, ratios.excess_sharpe,
)  # fmt: skip


@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda one: one.__name__)
def test_several_accounts_at_once_are_each_alone(statistic):
    values = np.random.default_rng(3).normal(0, 0.02, (60, 5))
    assert statistic(values) == pytest.approx([statistic(column) for column in values.T], rel=1e-12)


@pytest.mark.parametrize("statistic", BESIDE, ids=lambda one: one.__name__)
def test_several_accounts_beside_a_benchmark_are_each_alone(statistic):
    values = np.random.default_rng(4).normal(0, 0.02, (60, 6))
    ours, theirs = values[:, :5], values[:, 5:]
    alone = [statistic(column, theirs[:, 0]) for column in ours.T]
    assert statistic(ours, np.broadcast_to(theirs, ours.shape)) == pytest.approx(alone, rel=1e-12)
    if statistic is not benchmark.capture:
        assert statistic(ours, theirs) == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize("statistic", STATISTICS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("values", [[], [0.01], [np.nan], [np.nan] * 5, [0.0] * 5, [-1.0, 0.5, 0.1], [-2.0, 0.1, 0.1]])
@pytest.mark.filterwarnings("error")
def test_odd_returns_have_a_figure_or_none(statistic, values):
    alone = statistic(values)
    assert isinstance(alone, float)
    both = statistic(np.column_stack([values, np.full(len(values), 0.02)]))
    assert both.shape == (2,) and both[0] == pytest.approx(alone, nan_ok=True)


@pytest.mark.parametrize("statistic", BESIDE, ids=lambda one: one.__name__)
@pytest.mark.parametrize("values", [[], [0.01], [np.nan] * 5, [0.0] * 5, [-1.0, 0.5, 0.1]])
@pytest.mark.filterwarnings("error")
def test_odd_returns_beside_a_benchmark_have_a_figure_or_none(statistic, values):
    assert isinstance(statistic(values, values), float)
    assert isinstance(statistic(values, np.zeros(len(values))), float)


def test_a_period_without_a_figure_does_not_count():
    values = np.random.default_rng(8).normal(0, 0.02, 100)
    holes = np.insert(values, [10, 50, 100], np.nan)
    for statistic in (
        risk.annual_volatility, risk.max_drawdown, risk.downside_risk, risk.value_at_risk, risk.tail_ratio,
        risk.conditional_value_at_risk, risk.stability_of_timeseries, ratios.sharpe_ratio, ratios.omega_ratio,
    ):  # fmt: skip
        assert statistic(holes) == pytest.approx(statistic(values), rel=1e-12), statistic.__name__


def test_alpha_and_beta_of_rises_and_falls_are_those_of_these_periods():
    random = np.random.default_rng(5)
    factor = random.normal(0, 0.02, 200)
    values = np.where(factor > 0, 1.5, 0.5) * factor
    assert benchmark.up_alpha_beta(values, factor) == pytest.approx((0, 1.5), abs=1e-9)
    assert benchmark.down_alpha_beta(values, factor) == pytest.approx((0, 0.5), abs=1e-9)
    assert benchmark.alpha(values, factor, beta=0.0) == pytest.approx((1 + values.mean()) ** 252 - 1)


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="of one length, not 2 and 3"):
        benchmark.beta([1, 2], [1, 2, 3])


def test_rolling_figures_are_those_of_each_window():
    random = np.random.default_rng(6)
    values, factor = random.normal(0, 0.02, (2, 40))
    places = range(40 - 9)
    found = rolling.roll_annual_volatility(values, 10)
    assert found == pytest.approx([risk.annual_volatility(values[one : one + 10]) for one in places])
    found = rolling.roll_beta(values, factor, 10)
    assert found == pytest.approx([benchmark.beta(values[one : one + 10], factor[one : one + 10]) for one in places])
    assert rolling.roll_beta(values, factor, 41).shape == (0,) and rolling.roll_alpha_beta([], [], 2).shape == (0, 2)
    with pytest.raises(ValueError, match="at least one period, not 0"):
        rolling.roll_beta(values, factor, 0)
    with pytest.raises(ValueError, match="of one account"):
        rolling.roll_max_drawdown(np.zeros((5, 2)), 2)
