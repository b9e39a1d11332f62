"""Two vendors' bars of the same session: compared in the same shares, and told where they are too far apart."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.market_data.quality.cleaning import Cleaned, clean
from quantlytic_assets.universe.models import Comparison
from quantlytic_tests.frames import make_dataset
from quantlytic_tests.market_data.recorded_prices import actions, lean_bars

SPLIT = actions(("AAPL", date(2014, 6, 9), "split", 7)).select("symbol", "session", "value")
EARLY, LATE = datetime(2020, 1, 2, tzinfo=UTC), datetime(2020, 1, 3, tzinfo=UTC)


def rows(vendor: str, fetched_at: datetime, **changes: pl.Expr) -> pl.DataFrame:
    bars = lean_bars("AAPL", first=date(2014, 6, 2), last=date(2014, 6, 13)).with_columns(**changes)
    return bars.with_columns(
        pl.lit(vendor).alias("vendor"),
        pl.lit(fetched_at).cast(bars.schema["fetched_at"]).alias("fetched_at"),
        pl.lit(0).alias("bus_offset"),
        pl.lit(f"d/{vendor}.0.0-9.parquet").alias("source_object"),
        pl.int_range(pl.len()).alias("source_row"),
    )


def on(day: date, name: str, factor: float) -> dict[str, pl.Expr]:
    return {name: pl.when(pl.col("session") == day).then(pl.col(name) * factor).otherwise(name)}


def cleaned(*parts: pl.DataFrame, **changes: object) -> Cleaned:
    dataset = make_dataset(interval="1d", first=date(2014, 6, 2), last=date(2014, 6, 30), symbols=("AAPL",), **changes)
    sessions = session_table("XNYS", date(2014, 5, 20), date(2014, 7, 5)).with_columns(
        pl.lit("2014-06-01").alias("partition")
    )
    return clean(pl.concat(parts), dataset, sessions, SPLIT)


def test_a_difference_beyond_the_tolerance_is_told_with_both_sides():
    day = date(2014, 6, 11)
    found = cleaned(rows("yahoo", LATE), rows("other", EARLY, **on(day, "close", 1.0011))).differences
    (row,) = found.to_dicts()
    assert (row["session"], row["field"], row["vendor"], row["other_vendor"]) == (day, "close", "yahoo", "other")
    assert row["difference_bps"] == pytest.approx(11)
    assert row["other_value"] == pytest.approx(row["value"] * 1.0011)


def test_within_the_tolerance_nothing_is_told_and_the_universe_sets_it():
    parts = rows("yahoo", LATE), rows("other", EARLY, **on(date(2014, 6, 11), "high", 1.0009))
    assert cleaned(*parts).differences.is_empty()
    strict = cleaned(*parts, compare_with=Comparison("another", 5.0))
    assert strict.differences.select("field", "vendor").rows() == [("high", "yahoo")]


def test_raw_and_split_adjusted_prices_are_compared_in_the_same_shares():
    before = pl.when(pl.col("session") < date(2014, 6, 9)).then(7.0).otherwise(1.0)
    prices = {name: pl.col(name) / before for name in ("open", "high", "low", "close")}
    adjusted = rows("yahoo", LATE, **prices, adjustment=pl.lit("split"))
    assert cleaned(adjusted, rows("other", EARLY)).differences.is_empty()
    mislabelled = rows("yahoo", LATE, **prices)
    found = cleaned(mislabelled, rows("other", EARLY)).differences
    assert set(found["session"]) == {date(2014, 6, day) for day in (2, 3, 4, 5, 6)}


def test_a_vendor_s_own_earlier_word_and_a_user_s_correction_contradict_nobody():
    wrong = on(date(2014, 6, 11), "close", 1.05)
    assert cleaned(rows("yahoo", LATE), rows("yahoo", EARLY, **wrong)).differences.is_empty()
    assert cleaned(rows("import", LATE), rows("yahoo", EARLY, **wrong)).differences.is_empty()
    # The last word of the other vendor is what counts.
    parts = rows("other", EARLY), rows("other", EARLY, **wrong).with_columns(pl.lit(-1).alias("bus_offset"))
    assert cleaned(rows("yahoo", LATE), *parts).differences.is_empty()
