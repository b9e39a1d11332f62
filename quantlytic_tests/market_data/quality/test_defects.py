"""Defects of recorded bars are found and mended as yfinance mends them, and sound history has none."""

from __future__ import annotations

from datetime import date, datetime

import polars as pl
import pytest

from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.market_data.quality.cleaning import clean
from quantlytic_assets.market_data.quality.defects import find_defects
from quantlytic_assets.market_data.quality.levels import neighbours_within, price_levels
from quantlytic_assets.schemas.vocabulary import DEFECTS, FLAGS
from quantlytic_tests.frames import make_dataset
from quantlytic_tests.market_data.recorded_prices import FETCHED, PRICES, actions, lean_actions, lean_bars

SAMPLE = PRICES.parents[2] / "quantlytic_assets" / "vendors" / "sample_data"
PRICE_COLUMNS = ("open", "high", "low", "close")


def as_served(name: str, symbol: str, adjustment: str = "split") -> tuple[pl.DataFrame, pl.DataFrame]:
    """Bars of a recorded file, one partition, and the splits it tells."""
    rows = pl.read_csv(PRICES / f"{name}.csv", infer_schema=False).select(
        pl.lit(symbol).alias("symbol"),
        pl.lit("all").alias("partition"),
        pl.col("Date").str.slice(0, 10).str.to_date().alias("session"),
        *(pl.col(column.title()).cast(pl.Float64).alias(column) for column in (*PRICE_COLUMNS, "volume")),
        pl.col("Stock Splits").cast(pl.Float64).alias("value"),
        pl.lit(adjustment).alias("adjustment"),
        pl.lit(FETCHED).alias("fetched_at"),
    )
    return rows.drop("value").sort("session"), rows.filter(pl.col("value") > 0).select("symbol", "session", "value")


def defects_of(bars: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    return find_defects(bars, splits, price_levels(bars, splits, neighbours_within("month")))


def found_in(bars: pl.DataFrame, splits: pl.DataFrame) -> dict[str, int]:
    defects = defects_of(bars, splits)
    return {name: count for name in DEFECTS if (count := int(defects[name].sum()))}


NO_SPLITS = actions().select("symbol", "session", "value")


@pytest.mark.parametrize(
    ("name", "symbol", "defects", "rtol"),
    [
        ("AET-L-1d-100x-error", "AET.L", {"times_100": 14}, 1e-12),
        ("4063-T-1d-bad-stock-split", "4063.T", {"missing_split": 9}, 1e-12),
        # As served in single precision.
        ("ALPHA-PA-1d-bad-stock-split", "ALPHA.PA", {"missing_split": 1}, 1e-7),
    ],
)
def test_recorded_defects_are_mended_as_yfinance_mends_them(name: str, symbol: str, defects: dict, rtol: float):
    bars, splits = as_served(name, symbol)
    wanted, _ = as_served(f"{name}-fixed", symbol)
    assert found_in(bars, splits) == defects
    mended = defects_of(bars, splits)
    for column in PRICE_COLUMNS:
        assert (mended[column] / wanted[column] - 1).abs().max() < rtol, column
    assert (mended["volume"] - wanted["volume"]).abs().max() < 0.5
    assert found_in(wanted, splits) == {}


def apple(**changes: object) -> pl.DataFrame:
    """Raw bars around the 7:1 split of 2014-06-09, months as partitions."""
    bars = lean_bars("AAPL", first=date(2014, 6, 2), last=date(2014, 6, 30)).with_columns(**changes)
    return bars.with_columns(pl.lit("2014-06-01").alias("partition")).sort("session")


SPLIT = actions(("AAPL", date(2014, 6, 9), "split", 7)).select("symbol", "session", "value")
BEFORE = pl.col("session") < date(2014, 6, 9)


def scaled(condition: pl.Expr, factor: float) -> dict[str, pl.Expr]:
    """Prices divided by `factor` and volumes times it where the condition holds."""
    by = pl.when(condition).then(factor).otherwise(1.0)
    return {**{name: pl.col(name) / by for name in PRICE_COLUMNS}, "volume": pl.col("volume") * by}


@pytest.mark.parametrize(
    ("condition", "factor", "defects"),
    [
        (pl.lit(False), 1, {}),
        # Adjusted already although it says that it is not: no split is to be seen.
        (BEFORE, 7, {"missing_split": 5}),
        # The split comes a day late.
        (pl.col("session") == date(2014, 6, 9), 1 / 7, {"missing_split": 1}),
        # It is there twice.
        (BEFORE, 1 / 7, {"doubled_split": 5}),
        (pl.col("session") == date(2014, 6, 9), 7, {"doubled_split": 1}),
        (pl.col("session").is_between(date(2014, 6, 11), date(2014, 6, 13)), 100, {"times_100": 3}),
        (pl.col("session").is_between(date(2014, 6, 3), date(2014, 6, 4)), 0.01, {"times_100": 2}),
    ],
)
def test_each_defect_put_into_sound_raw_bars_is_named_and_mended(condition: pl.Expr, factor: float, defects: dict):
    sound = apple()
    bars = sound.with_columns(**scaled(condition, factor))
    assert found_in(bars, SPLIT) == defects
    mended = defects_of(bars, SPLIT)
    for column in PRICE_COLUMNS:
        assert (mended[column] / sound[column] - 1).abs().max() < 1e-12, column
    if "times_100" not in defects:
        assert (mended["volume"] / sound["volume"] - 1).abs().max() < 1e-12


def test_a_split_of_a_hundred_is_no_error_of_a_hundred():
    splits = actions(("AAPL", date(2014, 6, 9), "split", 100)).select("symbol", "session", "value")
    bars = apple(**scaled(BEFORE, 1 / 100 * 7))
    assert found_in(bars, splits) == {}
    assert found_in(bars, NO_SPLITS) == {"times_100": 5}


def test_the_pre_split_print_in_apple_s_first_minute_after_the_split_is_found_and_mended():
    minutes = pl.read_csv(PRICES / "lean_aapl_2014-06-09_minute.csv", try_parse_dates=True)
    bars = minutes.with_columns(
        pl.lit("AAPL").alias("symbol"),
        pl.lit("2014-06-09").alias("partition"),
        pl.lit(date(2014, 6, 9)).alias("session"),
        pl.col("volume").cast(pl.Float64),
        pl.lit("none").alias("adjustment"),
        pl.lit(FETCHED).alias("fetched_at"),
    )
    assert found_in(bars, SPLIT) == {"pre_split_print": 1}
    first = defects_of(bars, SPLIT).row(0, named=True)
    assert bars.row(0, named=True)["high"] == 645.57
    assert first["open"] == pytest.approx(645.57 / 7)
    assert first["high"] == pytest.approx(92.42) and first["low"] == pytest.approx(645.57 / 7)
    assert found_in(bars, NO_SPLITS) == {}


@pytest.mark.parametrize(
    ("fields", "day", "factor", "needs_later_bars"),
    [
        # A high that is off beside its own close needs no other bar, a whole bar needs its neighbours' level.
        (("high",), date(2014, 6, 12), 100, False),
        (("open", "high"), date(2014, 6, 9), 7, False),
        (PRICE_COLUMNS, date(2014, 6, 12), 100, True),
        (PRICE_COLUMNS, date(2014, 6, 6), 1 / 7, True),
        (PRICE_COLUMNS, date(2014, 6, 6), 7, True),
    ],
)
def test_a_repair_says_whether_it_rests_on_later_bars(fields, day, factor, needs_later_bars):
    off = pl.when(pl.col("session") == day).then(factor).otherwise(1.0)
    found = defects_of(apple().with_columns(pl.col(name) * off for name in fields), SPLIT)
    some = pl.any_horizontal(*DEFECTS)
    assert found.filter(some)["uses_later_bars"].to_list() == [needs_later_bars]
    assert not found.filter(~some)["uses_later_bars"].any()


def test_sound_history_has_no_defects():
    for symbol in ("AAPL", "IBM"):
        splits = lean_actions(symbol).filter(kind="split").select("symbol", "session", "value")
        month = pl.col("session").dt.truncate("1mo").cast(pl.String).alias("partition")
        assert found_in(lean_bars(symbol).sort("session").with_columns(month), splits) == {}, symbol


def test_yahoo_s_own_daily_bars_of_ten_years_have_no_defects():
    rows = pl.read_parquet(SAMPLE / "equities_1d.parquet").drop_nulls().sort("symbol", "session")
    bars = rows.with_columns(
        pl.col("session").dt.truncate("1mo").cast(pl.String).alias("partition"),
        pl.lit("split").alias("adjustment"),
        pl.lit(FETCHED).alias("fetched_at"),
    )
    assert found_in(bars, SPLIT) == {}


def test_cleaning_keeps_the_bar_as_served_with_its_flag_and_the_repair_beside_it():
    dataset = make_dataset(interval="1d", first=date(2014, 6, 2), last=date(2014, 6, 30), symbols=("AAPL",))
    bars = apple(**scaled(pl.col("session") == date(2014, 6, 9), 1 / 7)).drop("partition")
    raw = bars.with_columns(
        pl.int_range(pl.len()).alias("bus_offset"),
        pl.lit("a/b.0.0-9.parquet").alias("source_object"),
        pl.int_range(pl.len()).alias("source_row"),
    )
    sessions = session_table("XNYS", date(2014, 5, 20), date(2014, 7, 5)).with_columns(
        pl.lit("2014-06-01").alias("partition")
    )
    cleaned = clean(raw, dataset, sessions, SPLIT)
    day = cleaned.bars.row(by_predicate=pl.col("session") == date(2014, 6, 9), named=True)
    assert day["flags"] == ["jump", "missing_split"] and day["close"] > 600
    assert day["open_time"] == datetime(2014, 6, 9, 13, 30, tzinfo=FETCHED.tzinfo)
    (repair,) = cleaned.repairs.to_dicts()
    assert (repair["defect"], repair["open_time"]) == ("missing_split", day["open_time"])
    assert repair["close"] == pytest.approx(day["close"] / 7)
    assert set(DEFECTS) < set(FLAGS)


def test_a_known_split_is_no_jump():
    dataset = make_dataset(interval="1d", first=date(2014, 6, 2), last=date(2014, 6, 30), symbols=("AAPL",))
    raw = (
        apple()
        .drop("partition")
        .with_columns(
            pl.lit(0).alias("bus_offset"),
            pl.lit("o").alias("source_object"),
            pl.int_range(pl.len()).alias("source_row"),
        )
    )
    sessions = session_table("XNYS", date(2014, 5, 20), date(2014, 7, 5)).with_columns(
        pl.lit("2014-06-01").alias("partition")
    )
    flagged = [
        clean(raw, dataset, sessions, splits).bars.filter(pl.col("flags").list.len() > 0)["session"].to_list()
        for splits in (None, SPLIT)
    ]
    assert flagged == [[date(2014, 6, 9)], []]
