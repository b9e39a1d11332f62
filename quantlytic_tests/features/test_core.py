"""The core set has the columns and the numbers of the indicators that were there before it."""

import numpy as np
import polars as pl
import pytest

from quantlytic_assets.features.batch import compute
from quantlytic_assets.market_data import indicators
from quantlytic_tests.features.walks import REGISTRY, array, walk

CORE = REGISTRY.features(["core"])


def assert_same(bars: pl.DataFrame) -> None:
    found, wanted = compute(bars, CORE), indicators.compute(bars)
    assert found["open_time"].to_list() == wanted["open_time"].to_list()
    # A difference of prices has the digits of the prices.
    noise = 1e-13 * wanted["close"].max()
    for name in indicators.INDICATORS:
        np.testing.assert_allclose(array(found, name), array(wanted, name), rtol=1e-9, atol=noise, err_msg=name)


def test_core_has_the_indicators_in_their_order():
    assert tuple(name for one in CORE for name in one.columns) == indicators.INDICATORS


@pytest.mark.parametrize("count", [1, 2, 14, 15, 20, 34, 199, 200, 1000])
def test_core_has_the_numbers_of_the_indicators(count: int):
    assert_same(pl.concat([walk(count, count, "A"), walk(count + 3, 1, "B"), walk(count, 2, "B", "1d")]))


def test_core_is_the_same_through_splits_renames_and_bars_without_a_price():
    bars = walk(900, 3).with_row_index("n")
    bars = bars.with_columns(
        shares=pl.when(pl.col("n") < 300).then(1.0).otherwise(4.0),
        listing=pl.when(pl.col("n") < 500).then(pl.lit("a")).otherwise(pl.lit("b")),
        close=pl.when(pl.col("n").is_in([10, 11, 400, 500, 899])).then(None).otherwise(pl.col("close")),
        lookback=pl.col("n") < 700,
    )
    assert_same(bars.drop("n"))
    assert_same(bars.drop("n", "lookback"))


def test_core_is_the_same_where_the_price_does_not_move():
    bars = walk(300, 4).with_columns(pl.lit(7.3).alias(name) for name in ("open", "high", "low", "close"))
    assert_same(bars)
    assert_same(pl.concat([walk(300, 4), bars.with_columns(pl.col("open_time") + pl.duration(days=30))]))


def test_core_is_the_same_where_a_price_is_not_positive():
    bars = walk(300, 5).with_row_index("n")
    assert_same(bars.with_columns(close=pl.when(pl.col("n") == 150).then(-1.0).otherwise(pl.col("close"))).drop("n"))
