"""Features across Apple's split of seven for one on 2014-06-09: no return, no jump, whoever serves the bars."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from quantlytic_assets.features.batch import compute
from quantlytic_assets.features.registry import Registry
from quantlytic_assets.market_data.actions.split_factors import split_factors
from quantlytic_tests.market_data.recorded_prices import actions, lean_bars

EX_DATE, RATIO, BEFORE = date(2014, 6, 9), 7.0, 2.0
PRICES = ("open", "high", "low", "close")
FIRST, LAST = date(2013, 1, 2), date(2015, 12, 31)
RANGE = ("2013-01-01", "2016-01-01", "1d", ["1d"], [1, 5])
FEATURES = ("core", "obv")


@pytest.fixture(scope="module")
def lake(warehouse):
    """`raw`: bars as traded, built at once and from the eve of the split on again; `adjusted`: as Yahoo serves them."""
    # The bar of the split's session as from a market that opens on the evening before, UTC: it ends, and is fetched, on
    # the day before its session.
    evening = {"open_time": datetime(2014, 6, 8, 22, tzinfo=UTC), "close_time": datetime(2014, 6, 8, 23, tzinfo=UTC)}
    traded = lean_bars("AAPL", first=FIRST, last=LAST).with_columns(
        pl.when(pl.col("session") == EX_DATE).then(pl.lit(time)).otherwise(name).alias(name)
        for name, time in evening.items()
    )
    served = traded.with_columns(
        pl.when(pl.col("session") < EX_DATE).then(pl.col(name) * factor).otherwise(name).alias(name)
        for name, factor in (*((name, 1 / RATIO) for name in PRICES), ("volume", RATIO))
    ).with_columns(
        pl.lit("split").alias("adjustment"),
        pl.when(pl.col("session") == EX_DATE)
        .then(pl.lit(datetime(2014, 6, 8, 23, 30, tzinfo=UTC)))
        .otherwise(pl.lit(datetime(2016, 1, 2, tzinfo=UTC)))
        .alias("fetched_at"),
    )
    told = actions(("AAPL", date(2005, 2, 28), "split", BEFORE), ("AAPL", EX_DATE, "split", RATIO))
    for name, bars in (("raw", traded), ("adjusted", served)):
        clean = bars.with_columns(pl.lit(name).alias("dataset"))
        hours = clean.select("dataset", "session", "open_time", "close_time")
        counts = split_factors(told, name)
        warehouse.lake.replace(
            [(f"clean.{table}", "false", [], rows) for table, rows in
             (("bars", clean), ("sessions", hours), ("split_factors", counts))]
        )  # fmt: skip
        warehouse.build(name, *RANGE, features=FEATURES)
    return warehouse


def test_a_split_is_neither_a_return_nor_a_label(lake):
    day = lake.table("features.indicators", "raw").row(by_predicate=pl.col("session") == EX_DATE, named=True)
    assert day["ret_1"] == pytest.approx(0.0160, abs=5e-4) and 15 < day["close"] / day["atr_14"] < 200
    # As traded: the mean of the last twenty closes, nineteen of them before the split, in shares of after it.
    assert day["sma_20"] == pytest.approx(88.3, abs=1) and day["close"] == pytest.approx(93.7, abs=0.1)
    labels = lake.table("features.labels", "raw")
    across = labels.filter(pl.col("session") < EX_DATE, pl.col("label_session") >= EX_DATE)
    assert len(across) == 8 and across["forward_return"].abs().max() < 0.1
    assert lake.table("features.bars", "raw").filter(session=EX_DATE)["shares"].item() == BEFORE * RATIO


def test_indicators_are_those_of_prices_without_the_split(lake):
    bars = lean_bars("AAPL", first=FIRST, last=LAST).with_columns(
        pl.lit("1d").alias("interval"),
        pl.when(pl.col("session") < EX_DATE).then(1.0).otherwise(RATIO).alias("scale"),
        pl.col("session").cast(pl.Datetime("us", "UTC")).alias("open_time"),
    )
    core = Registry().features(["core"])
    wanted = compute(bars.with_columns(pl.col(name) * pl.col("scale") for name in PRICES), core)
    found = lake.table("features.indicators", "raw")
    scales = {name: scale for one in core for name, scale in zip(one.columns, one.scales, strict=True)}
    for name, scale in scales.items():
        expected = wanted[name] / (1.0 if scale == "ratio" else wanted["scale"])
        assert found[name].is_null().equals(expected.is_null())
        assert (found[name] - expected).abs().max() <= 1e-9 * max(1.0, expected.abs().max()), name


def test_a_vendor_s_split_adjusted_bars_give_the_same_features(lake):
    for table in ("bars", "indicators", "labels"):
        raw, adjusted = (lake.table(f"features.{table}", name) for name in ("raw", "adjusted"))
        assert len(raw) == len(adjusted) > 700
        for name in raw.select(pl.col(pl.Float64)).columns:
            apart = (raw[name] - adjusted[name]).abs() / raw[name].abs().clip(1.0)
            assert apart.max() < 1e-9, (table, name)


def test_a_run_that_starts_at_the_split_gives_the_rows_of_one_rebuild(lake):
    whole = {table: lake.table(f"features.{table}", "raw") for table in ("bars", "indicators", "labels")}
    # A sum is said to have come to 5e9 first shares more: those of later rows follow, in shares of their own.
    more = 5e9
    with lake.lake.transaction() as connection:
        earlier = f"dataset = 'raw' AND session < DATE '{EX_DATE}'"
        connection.execute(f"UPDATE features.volume SET obv = obv + {more * BEFORE} WHERE {earlier}")
    shares = whole["bars"]["shares"]
    whole["indicators"] = whole["indicators"].with_columns(obv=pl.col("obv") + more * shares)
    lake.build("raw", "2014-06-09", "2014-06-10", *RANGE[2:], features=FEATURES)
    for table, wanted in whole.items():
        found = lake.table(f"features.{table}", "raw")
        assert found.select(pl.exclude(pl.Float64)).equals(wanted.select(pl.exclude(pl.Float64)))
        for name in wanted.select(pl.col(pl.Float64)).columns:
            apart = (found[name] - wanted[name]).abs() / wanted[name].abs().clip(1.0)
            assert found[name].is_null().equals(wanted[name].is_null()) and apart.max() <= 1e-9, (table, name)
