"""Levels of prices beside those of neighbouring partitions: whole months that are off, splits far from their day."""

from __future__ import annotations

from datetime import date, timedelta

import polars as pl
import pytest

from quantlytic_assets.market_data.quality.defects import find_defects
from quantlytic_assets.market_data.quality.levels import neighbours_within, price_levels, with_factors
from quantlytic_assets.schemas.vocabulary import DEFECTS
from quantlytic_tests.market_data.recorded_prices import actions, lean_actions, lean_bars

PRICES = ("open", "high", "low", "close")
NO_SPLITS = actions().select("symbol", "session", "value")
WITHIN = neighbours_within("month")
IBM = lean_bars("IBM", first=date(2014, 1, 2), last=date(2014, 12, 31))
APPLE_SPLIT = date(2014, 6, 9)
APPLE = lean_bars("AAPL", first=date(2014, 2, 3), last=date(2014, 9, 30))
SPLIT = actions(("AAPL", APPLE_SPLIT, "split", 7)).select("symbol", "session", "value")


def by_month(bars: pl.DataFrame) -> pl.DataFrame:
    month = pl.col("session").dt.truncate("1mo").cast(pl.String).alias("partition")
    return bars.with_columns(month).sort("symbol", "session")


def scaled(bars: pl.DataFrame, condition: pl.Expr, factor: float) -> pl.DataFrame:
    by = pl.when(condition).then(factor).otherwise(1.0)
    return bars.with_columns(pl.col(name) * by for name in PRICES)


def one_by_one(bars: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """Defects of each partition found by itself, with what is kept of the others."""
    kept = price_levels(bars, splits, WITHIN)
    found = []
    for part in bars.partition_by("partition", maintain_order=True):
        others = kept.filter(pl.col("partition") != part["partition"][0])
        levels = price_levels(part, splits, WITHIN, others)
        found.append(find_defects(part, splits, levels))
    return pl.concat(found)


def flagged(bars: pl.DataFrame, found: pl.DataFrame) -> dict[str, list[date]]:
    return {name: days for name in DEFECTS if (days := bars.filter(found[name])["session"].to_list())}


@pytest.mark.parametrize("factor", [100.0, 0.01])
@pytest.mark.parametrize("month", range(1, 13))
def test_a_month_that_is_a_hundred_times_off_is_found_whole_wherever_it_is(month: int, factor: float):
    off = pl.col("session").dt.month() == month
    sound, bars = by_month(IBM), by_month(scaled(IBM, off, factor))
    found = one_by_one(bars, NO_SPLITS)
    assert flagged(bars, found) == {"times_100": sound.filter(off)["session"].to_list()}
    for name in PRICES:
        assert (found[name] / sound[name] - 1).abs().max() < 1e-12


def test_two_months_off_that_begin_and_end_within_others_are_found_to_the_bar():
    off = pl.col("session").is_between(date(2014, 5, 20), date(2014, 7, 8))
    bars = by_month(scaled(IBM, off, 100.0))
    assert flagged(bars, one_by_one(bars, NO_SPLITS)) == {"times_100": bars.filter(off)["session"].to_list()}


def test_a_price_that_changes_for_good_is_no_defect_once_it_has_lasted():
    since = date(2014, 6, 1)
    bars = by_month(scaled(IBM, pl.col("session") >= since, 100.0))
    assert flagged(bars, one_by_one(bars, NO_SPLITS)) == {}


@pytest.mark.parametrize("days", [-14, -8, -7, -1, 0, 8, 14])
def test_a_split_that_is_missing_up_to_weeks_from_its_day_is_found(days: int):
    """As a vendor serves it that adjusts, but only from some session on: earlier bars are as they were traded."""
    since = APPLE_SPLIT + timedelta(days=days)
    adjusted = APPLE.with_columns(pl.lit("split").alias("adjustment"))
    sound = scaled(adjusted, pl.col("session") < APPLE_SPLIT, 1 / 7)
    bars = by_month(scaled(sound, pl.col("session") < since, 7.0))
    found = one_by_one(bars, SPLIT)
    wrong = bars.filter(pl.col("session") < since)
    seen = flagged(bars, found)
    assert list(seen) == ["missing_split"]
    # As far back as a partition has neighbours; never a bar that is right.
    assert set(seen["missing_split"]) <= set(wrong["session"])
    near = wrong.filter(pl.col("session") >= date(2014, 4, 1))["session"].to_list()
    assert [day for day in seen["missing_split"] if day >= date(2014, 4, 1)] == near


def test_a_move_like_a_split_s_but_far_from_its_ratio_or_day_is_the_market_s():
    crash = pl.col("session") < APPLE_SPLIT - timedelta(days=12)
    bars = by_month(scaled(APPLE, crash, 7 * 1.35))
    assert flagged(bars, one_by_one(bars, SPLIT)) == {}
    crash = pl.col("session") < APPLE_SPLIT - timedelta(days=45)
    bars = by_month(scaled(APPLE, crash, 7.0))
    assert flagged(bars, one_by_one(bars, SPLIT)) == {}


def test_sound_history_has_no_defects_beside_its_neighbours():
    for symbol in ("AAPL", "IBM"):
        splits = lean_actions(symbol).filter(kind="split").select("symbol", "session", "value")
        bars = by_month(lean_bars(symbol))
        levels = price_levels(bars, splits, WITHIN)
        assert flagged(bars, find_defects(bars, splits, levels)) == {}, symbol
        assert len(levels) < len(bars) / 5


def test_what_is_kept_of_partitions_decides_as_their_bars_do():
    off = pl.col("session").is_between(date(2014, 5, 20), date(2014, 8, 3))
    bars = by_month(scaled(IBM, off, 100.0))
    alone = [price_levels(part, NO_SPLITS, WITHIN) for part in bars.partition_by("partition", maintain_order=True)]
    whole = price_levels(bars, NO_SPLITS, WITHIN)
    kept = with_factors(pl.concat(alone).drop("split_factor", *("times_100", "missing_split", "doubled_split")),
                        NO_SPLITS, WITHIN)  # fmt: skip
    assert kept["factor"].to_list() == whole["factor"].to_list() and whole["factor"].max() == 100
