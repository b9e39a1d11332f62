"""Rules on features of recorded bars, from the bars on: nothing later is read, and what is decided is plausible."""

from __future__ import annotations

import random
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quantlytic_assets.features.batch import compute
from quantlytic_assets.features.registry import Registry as Features
from quantlytic_assets.strategies.registry import Registry
from quantlytic_assets.strategies.spec import Rule, RuleSpec

PRICES = Path(__file__).parents[1] / "data" / "prices" / "lean_daily.parquet"
SEED = random.SystemRandom().randrange(2**32)
FEATURES = Features()


@pytest.fixture(scope="module")
def recorded() -> pl.DataFrame:
    """Two years of AAPL and IBM, without a split."""
    opened = pl.col("session").cast(pl.Datetime("us")).dt.replace_time_zone("UTC") + pl.duration(hours=14, minutes=30)
    return (
        pl.read_parquet(PRICES)
        .filter(pl.col("symbol").is_in(["AAPL", "IBM"]))
        .filter(pl.col("session").is_between(date(2010, 1, 1), date(2011, 12, 31)))
        .select("symbol", "session", pl.col("open", "high", "low", "close", "volume").cast(pl.Float64))
        .with_columns(interval=pl.lit("1d"), open_time=opened, available_at=opened + pl.duration(hours=6, minutes=30))
        .with_columns(score=pl.Series(np.random.default_rng(1).uniform(0, 1, 1008)))
    )


def decided(rule: Rule, bars: pl.DataFrame) -> pl.DataFrame:
    frame = compute(bars, FEATURES.features(rule.declarations))
    return frame.select("symbol", "session", "open_time", rule.targets(frame))


@pytest.mark.parametrize("spec", Registry().specs(), ids=lambda one: one.name)
def test_decisions_from_bars_on_are_the_same_when_what_follows_is_cut(spec: RuleSpec, recorded: pl.DataFrame):
    rule = spec.bind()
    whole = decided(rule, recorded)
    times = recorded["open_time"].unique().sort()
    for place in np.random.default_rng(SEED).choice(len(times), 10, replace=False).tolist():
        until = pl.col("open_time") <= times[place]
        assert_frame_equal(decided(rule, recorded.filter(until)), whole.filter(until), check_exact=True)


@pytest.mark.parametrize("spec", Registry().specs(), ids=lambda one: one.name)
def test_there_is_no_decision_before_the_warm_up_and_one_after_it(spec: RuleSpec, recorded: pl.DataFrame):
    rule = spec.bind()
    whole = decided(rule, recorded)
    for _, one in whole.group_by("symbol"):
        known = one.sort("open_time")["target"].is_not_null()
        # The bar before the first one belongs to what a rule looks back on, where there is one.
        assert known.arg_max() >= rule.warmup - rule.lookback
        assert known.sum() > 10


def test_a_crossing_is_where_the_averages_cross(recorded: pl.DataFrame):
    apple = recorded.filter(symbol="AAPL")
    close = apple["close"].to_numpy()
    places = range(49, len(close))
    fast, slow = (np.array([close[one - window + 1 : one + 1].mean() for one in places]) for window in (20, 50))
    found = decided(Registry().bind("ma_cross"), apple)["target"].to_numpy()
    assert np.isnan(found[:49]).all()
    assert (found[49:] == (fast > slow)).all()


def test_months_begin_with_their_first_session(recorded: pl.DataFrame):
    found = decided(Registry().bind({"momentum_rotation": {"window": 15, "top": 1, "positive": False}}), recorded)
    held = found.filter(pl.col("target").is_not_null())
    first = recorded.group_by("symbol", pl.col("session").dt.truncate("1mo").alias("month")).agg(
        pl.col("session").min()
    )
    assert set(held["session"]) == set(first["session"].sort()[2:].to_list())
    # One of the two is held at a time.
    assert (held.group_by("session").agg(pl.col("target").sum())["target"] == 1).all()
