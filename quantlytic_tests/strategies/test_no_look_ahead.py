"""No rule reads a later bar: targets up to a bar are the same when everything after it is cut."""

from __future__ import annotations

import random

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quantlytic_assets.strategies.registry import Registry
from quantlytic_assets.strategies.signals import rule_signals
from quantlytic_assets.strategies.spec import Rule, RuleSpec
from quantlytic_tests.strategies.walks import walk

BARS = 260
# Drawn anew in each run; a failure shows it.
SEED = random.SystemRandom().randrange(2**32)
# Rules whose defaults decide once a month are looked at where they decide more often, too.
SETTINGS = {
    "momentum_rotation": [{"every": "daily", "top": 2}, {"every": "weekly", "positive": False}],
    "rebalance": [{"every": "weekly"}, {"weights": {"AAA": 0.5, "DDD": -0.5}}],
    "ma_cross": [{"kind": "ema", "short": True}],
    "vote": [{"short": True, "threshold": 0.3}],
    "model": [{"full_at": 0.5, "margin": 0.05, "short": True}],
}
CASES = [
    pytest.param(spec, values, id=f"{spec.name}-{number}")
    for spec in Registry().specs()
    for number, values in enumerate([{}, *SETTINGS.get(spec.name, [])])
]


def decided(rule: Rule, frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select("symbol", "open_time", rule.targets(frame)).sort("symbol", "open_time")


@pytest.mark.parametrize(("spec", "values"), CASES)
def test_targets_are_the_same_when_what_follows_is_cut(spec: RuleSpec, values: dict):
    rule = spec.bind(**values)
    frame = walk(rule, BARS, SEED)
    whole = decided(rule, frame)
    assert whole["target"].n_unique() > 1 or spec.name == "buy_and_hold"
    times = frame["open_time"].unique().sort()
    for place in np.random.default_rng(SEED).choice(len(times), 25, replace=False).tolist():
        until = pl.col("open_time") <= times[place]
        assert_frame_equal(decided(rule, frame.filter(until)), whole.filter(until), check_exact=True)


@pytest.mark.parametrize(("spec", "values"), CASES)
def test_targets_are_the_same_from_as_many_bars_as_a_rule_says_it_reads(spec: RuleSpec, values: dict):
    rule = spec.bind(**values)
    frame = walk(rule, BARS, SEED).sort("symbol", "open_time")
    whole = decided(rule, frame)
    times = frame["open_time"].unique().sort()
    for place in np.random.default_rng(SEED).choice(len(times), 15, replace=False).tolist():
        since = pl.col("open_time") >= times[place]
        before = frame.filter(~since).group_by("symbol").tail(rule.lookback)
        cut = pl.concat([before, frame.filter(since)])
        assert_frame_equal(decided(rule, cut).filter(since), whole.filter(since), check_exact=True)


@pytest.mark.parametrize(("spec", "values"), CASES)
def test_signals_are_the_same_when_what_follows_is_cut(spec: RuleSpec, values: dict):
    rule = spec.bind(**values)
    frame = walk(rule, BARS, SEED).sort("symbol", "open_time")
    until = pl.col("open_time") <= frame["open_time"].unique().sort()[150]
    whole = rule_signals("one", rule, frame).filter(until)
    assert_frame_equal(rule_signals("one", rule, frame.filter(until)), whole)
