import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quantlytic_assets.learning.features import core_columns, design_matrix, with_labels
from quantlytic_tests.learning.frames import indicators, labels

PRICES = [name for name in core_columns() if name not in ("ret_1", "log_ret_1", "rsi_14", "vol_20")]


def test_every_feature_is_the_same_at_ten_times_the_price():
    rows = indicators(60)
    dear = rows.with_columns(pl.col("close", *PRICES) * 10)
    assert_frame_equal(design_matrix(rows).frame, design_matrix(dear).frame)


def test_levels_are_distances_differences_are_shares_and_ratios_stay():
    row = indicators(1, ("AAA",)).with_columns(
        close=pl.lit(50.0),
        sma_20=pl.lit(55.0),
        macd=pl.lit(-1.0),
        atr_14=pl.lit(2.0),
        rsi_14=pl.lit(61.0),
        ret_1=pl.lit(0.1),
    )
    design = design_matrix(row, ("rsi_14", "sma_20", "macd", "atr_14"))
    assert design.feature_names == ("rsi_14", "sma_20", "macd", "atr_14")
    assert design.frame.select(design.feature_names).row(0) == pytest.approx((61.0, 0.1, -0.02, 0.04))
    assert design.frame["last_return"].to_list() == [0.1]


def test_rows_without_a_used_feature_are_left_out_and_counted():
    rows = indicators(10, ("AAA",)).with_row_index()
    holes = rows.with_columns(
        sma_20=pl.when(pl.col("index") < 3).then(None).otherwise("sma_20"),
        vol_20=pl.when(pl.col("index") == 5).then(float("nan")).otherwise("vol_20"),
        sma_200=pl.lit(None, pl.Float64),
    )
    design = design_matrix(holes, ("sma_20", "vol_20"))
    assert (len(design.frame), design.left_out) == (6, 4)
    assert design_matrix(holes).left_out == 10


def test_columns_of_no_feature_are_rejected():
    with pytest.raises(ValueError, match="no column 'history_bars'"):
        design_matrix(indicators(5), ("ret_1", "history_bars"))


def test_a_volume_is_no_feature_of_a_model():
    rows = indicators(5).with_columns(obv=pl.lit(1.0))
    with pytest.raises(ValueError, match="obv is a volume"):
        design_matrix(rows, ("ret_1", "obv"))


def test_only_bars_with_a_known_outcome_get_a_label():
    rows = indicators(20)
    frame = with_labels(design_matrix(rows, ("ret_1",)), labels(rows))
    assert len(frame) == 4 * 19
    assert frame["session"].max() < rows["session"].max()


def test_labels_of_two_horizons_at_once_are_rejected():
    rows = indicators(20)
    both = pl.concat([labels(rows, 1), labels(rows, 2)])
    with pytest.raises(ValueError, match="more than one label"):
        with_labels(design_matrix(rows, ("ret_1",)), both)
