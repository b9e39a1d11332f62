"""Deflated Sharpe ratio and probability of backtest overfitting: known answers, and a plain way to the same numbers."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from quantlytic_assets.trading.overfitting import (
    backtest_overfitting,
    deflated_sharpe_of,
    deflated_sharpe_ratio,
    expected_maximum_sharpe,
    minimum_track_record_length,
    probabilistic_sharpe_ratio,
)

YEAR = 250


@pytest.mark.parametrize(("trials", "known"), [(100, 0.9004), (46, 0.9505)])
def test_the_deflated_sharpe_ratio_of_the_paper(trials: int, known: float):
    # Bailey and López de Prado 2014: an annual ratio of 2.5 over 1,250 days, annual variance of the trials ½.
    found = deflated_sharpe_ratio(2.5 / math.sqrt(YEAR), 1250, trials, 0.5 / YEAR, -3, 10)
    assert found == pytest.approx(known, abs=5e-5)


def test_the_best_of_many_trials_without_skill():
    # The same paper: 0.1132 a day.
    assert expected_maximum_sharpe(100, 0.5 / YEAR) == pytest.approx(0.1132, abs=5e-5)
    random = np.random.default_rng(1)
    best = random.normal(0.2, 0.5, (20_000, 50)).max(axis=1).mean()
    assert expected_maximum_sharpe(50, 0.25, 0.2) == pytest.approx(best, rel=0.02)
    assert expected_maximum_sharpe(1, 0.25, 0.2) == 0.2


def test_one_trial_is_not_deflated():
    assert deflated_sharpe_ratio(0.1, 500, 1, 0.3, -1, 5) == probabilistic_sharpe_ratio(0.1, 500, -1, 5)


def test_the_probabilistic_sharpe_ratio_of_normal_returns():
    assert probabilistic_sharpe_ratio(0, 100) == 0.5
    # √(T − 1) · SR / √(1 + SR²/2) = 9.95 · 0.1 / 1.0025.
    assert probabilistic_sharpe_ratio(0.1, 100) == pytest.approx(0.8396, abs=1e-4)
    # Fat tails to the left take confidence away.
    assert probabilistic_sharpe_ratio(0.1, 100, -3, 20) < probabilistic_sharpe_ratio(0.1, 100)
    assert math.isnan(probabilistic_sharpe_ratio(2, 100, skewness=5, kurtosis=1))


def test_the_track_record_of_the_paper():
    # Bailey and López de Prado 2012: an annual ratio of 2 above one of 1 needs 2.73 years of days (normal returns) …
    daily = minimum_track_record_length(2 / math.sqrt(YEAR), benchmark=1 / math.sqrt(YEAR))
    assert daily / YEAR == pytest.approx(2.73, abs=0.01)
    # … 2.83 of weeks and 3.24 of months.
    weekly = minimum_track_record_length(2 / math.sqrt(52), benchmark=1 / math.sqrt(52))
    monthly = minimum_track_record_length(2 / math.sqrt(12), benchmark=1 / math.sqrt(12))
    assert (weekly / 52, monthly / 12) == pytest.approx((2.83, 3.24), abs=0.01)


def test_a_track_record_gives_the_confidence_that_was_asked_for():
    length = minimum_track_record_length(0.08, -0.7, 6, 0.02, 0.9)
    error = math.sqrt((1 + 0.7 * 0.08 + 5 / 4 * 0.08**2) / (length - 1))
    assert (0.08 - 0.02) / error == pytest.approx(1.2815515655446004)
    assert minimum_track_record_length(0.1, benchmark=0.1) == math.inf


def test_returns_and_trials_give_the_same_as_their_moments():
    random = np.random.default_rng(2)
    values = random.standard_t(5, 700) * 0.01 + 0.001
    tried = random.normal(0.02, 0.03, 40)
    deviations = (values - values.mean()) / values.std()
    by_hand = deflated_sharpe_ratio(
        values.mean() / values.std(ddof=1), 700, 40, tried.var(ddof=1), (deviations**3).mean(), (deviations**4).mean()
    )
    assert deflated_sharpe_of(values, tried) == pytest.approx(by_hand, rel=1e-12)
    assert deflated_sharpe_of([*values, math.nan], [*tried, math.nan]) == pytest.approx(by_hand, rel=1e-12)
    assert math.isnan(deflated_sharpe_of([0.0, 0.0], [0.1]))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: probabilistic_sharpe_ratio(1, 1), "at least two observations"),
        (lambda: expected_maximum_sharpe(0, 1), "at least one trial"),
        (lambda: expected_maximum_sharpe(2, -1), "a variance is not negative"),
        (lambda: expected_maximum_sharpe(2, math.nan), "a variance is not negative"),
        (lambda: minimum_track_record_length(1, confidence=1), "between 0 and 1"),
        (lambda: deflated_sharpe_of([0.1], [1]), "at least two returns and one trial"),
        (lambda: backtest_overfitting(np.zeros(100)), "(observations, configurations), not one of 1 dimensions"),
        (lambda: backtest_overfitting(np.zeros((50, 1000))), "the array is probably transposed"),
        (lambda: backtest_overfitting(np.zeros((100, 1))), "at least two configurations"),
        (lambda: backtest_overfitting(np.zeros((100, 2)), 5), "an even number, at least 2, not 5"),
        (lambda: backtest_overfitting(np.zeros((31, 2))), "16 blocks need at least 32 observations, not 31"),
        (lambda: backtest_overfitting(np.full((100, 2), math.nan)), "hold NaN"),
    ],
)
def test_what_can_not_be_answered_is_refused(call, said: str):
    with pytest.raises(ValueError) as error:
        call()
    assert said in str(error.value)


def plainly(values: np.ndarray, blocks: int) -> tuple[float, float]:
    """CSCV as the paper writes it, one combination after the other."""
    parts = np.array_split(values, blocks)
    logits, losses = [], []
    for chosen in combinations(range(blocks), blocks // 2):
        inside = np.concatenate([parts[one] for one in chosen])
        outside = np.concatenate([parts[one] for one in range(blocks) if one not in chosen])
        ranks = (outside.mean(axis=0) / outside.std(axis=0, ddof=1)).argsort().argsort() + 1
        best = (inside.mean(axis=0) / inside.std(axis=0, ddof=1)).argmax()
        share = ranks[best] / (values.shape[1] + 1)
        logits.append(math.log(share / (1 - share)))
        losses.append(outside.mean(axis=0)[best] < 0)
    return float((np.array(logits) <= 0).mean()), float(np.mean(losses))


def test_overfitting_is_what_the_plain_way_counts():
    values = np.random.default_rng(3).normal(0.0002, 0.01, (80, 9))
    found = backtest_overfitting(values, 8)
    assert len(found.logits) == 70
    assert (found.probability, found.loss_probability) == pytest.approx(plainly(values, 8))


def test_noise_is_overfitted_and_skill_is_not():
    random = np.random.default_rng(4)
    noise = [backtest_overfitting(random.normal(0, 0.01, (512, 40)), 8).probability for _ in range(20)]
    assert 0.35 < np.mean(noise) < 0.65
    skilled = random.normal(0, 0.01, (512, 40))
    skilled[:, 7] += 0.004
    found = backtest_overfitting(skilled)
    assert found.probability < 0.01 and found.loss_probability < 0.01


def test_the_first_observations_are_left_out_where_blocks_do_not_fit():
    values = np.random.default_rng(5).normal(0, 0.01, (83, 5))
    assert backtest_overfitting(values, 8).probability == backtest_overfitting(values[3:], 8).probability


def test_configurations_that_are_alike_are_neither_good_nor_bad():
    one = np.random.default_rng(6).normal(0.001, 0.01, 160)
    found = backtest_overfitting(np.column_stack([one] * 5))
    assert found.logits == pytest.approx(0)
    never_traded = backtest_overfitting(np.zeros((160, 5)))
    assert never_traded.logits == pytest.approx(0) and never_traded.loss_probability == 0
