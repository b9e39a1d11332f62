"""No rule reads a later bar: targets up to a bar are the same when everything after it is cut."""

from __future__ import annotations

import random

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quantlytic_assets.plugins import RULE_ATTRIBUTE, rule
from quantlytic_assets.strategies.registry import Registry
from quantlytic_assets.strategies.signals import rule_signals
from quantlytic_assets.strategies.spec import Rule, RuleSpec
from quantlytic_assets.strategies.truncation import DIFFERENCES_SCHEMA, look_ahead
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


def drawn(frame: pl.DataFrame, number: int) -> list:
    """Times of bars at which to cut."""
    times = frame["open_time"].unique().sort()
    return [times[place] for place in np.random.default_rng(SEED).choice(len(times), number, replace=False).tolist()]


@pytest.mark.parametrize(("spec", "values"), CASES)
def test_targets_are_the_same_when_what_follows_is_cut(spec: RuleSpec, values: dict):
    rule = spec.bind(**values)
    frame = walk(rule, BARS, SEED)
    assert rule.targets(frame).n_unique() > 1 or spec.name == "buy_and_hold"
    found = look_ahead(rule, frame, drawn(frame, 25))
    assert found.is_empty(), f"seed {SEED}: {found}"


@pytest.mark.parametrize(("spec", "values"), [case for case in CASES if case.values[0].alone])
def test_a_rule_that_looks_at_one_symbol_says_the_same_of_it_without_the_others(spec: RuleSpec, values: dict):
    rule = spec.bind(**values)
    frame = walk(rule, BARS, SEED)
    together = rule_signals("s", rule, frame)
    for symbol in frame["symbol"].unique():
        own = pl.col("symbol") == symbol
        assert_frame_equal(rule_signals("s", rule, frame.filter(own)), together.filter(own))


@pytest.mark.parametrize(
    "answer",
    [
        lambda frame: frame["close"].shift(-1) > frame["close"],
        lambda frame: frame["close"] > frame["close"].mean(),
        lambda frame: frame["close"] == frame["close"].max(),
    ],
)
def test_a_rule_that_reads_later_bars_is_seen(answer):
    @rule
    def clairvoyant(features):
        return answer(features)

    bound = getattr(clairvoyant, RULE_ATTRIBUTE).bind()
    frame = walk(bound, BARS, SEED).sort("symbol", "open_time")
    found = look_ahead(bound, frame, drawn(frame, 10))
    assert not found.is_empty() and found.schema == DIFFERENCES_SCHEMA


@pytest.mark.parametrize(("spec", "values"), CASES)
def test_targets_are_the_same_from_as_many_bars_as_a_rule_says_it_reads(spec: RuleSpec, values: dict):
    rule = spec.bind(**values)
    frame = walk(rule, BARS, SEED).sort("symbol", "open_time")
    whole = decided(rule, frame)
    for first in drawn(frame, 15):
        since = pl.col("open_time") >= first
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
