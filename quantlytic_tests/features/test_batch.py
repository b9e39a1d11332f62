"""What `compute` makes of the bars around the numbers: groups, splits, holes, look-back, cross-sections."""

import numpy as np
import polars as pl
import pytest

from quantlytic_assets.features.batch import compute
from quantlytic_assets.features.custom import spec_of
from quantlytic_assets.features.online import Board
from quantlytic_tests.features.walks import REGISTRY, array, walk


def test_rows_come_back_in_order_with_their_own_columns():
    bars = pl.concat([walk(30, 1, "B"), walk(30, 2, "A")]).with_columns(note=pl.col("symbol")).sample(
        fraction=1, shuffle=True, seed=3
    )  # fmt: skip
    found = compute(bars, REGISTRY.features(["sma(5)"]))
    assert found.select("symbol", "open_time").equals(bars.select("symbol", "open_time").sort("symbol", "open_time"))
    assert found.columns == [*bars.columns, "sma_5"] and (found["note"] == found["symbol"]).all()
    alone = compute(walk(30, 1, "B"), REGISTRY.features(["sma(5)"]))
    assert found.filter(symbol="B")["sma_5"].equals(alone["sma_5"])


def test_a_split_moves_price_levels_and_volume_and_nothing_else():
    plain = walk(100, 4)
    half = pl.int_range(pl.len()) >= 50
    split = plain.with_columns(
        *(pl.when(half).then(pl.col(name) / 4).otherwise(pl.col(name)) for name in ("open", "high", "low", "close")),
        volume=pl.when(half).then(pl.col("volume") * 4).otherwise(pl.col("volume")),
        shares=pl.when(half).then(4.0).otherwise(1.0),
    )
    features = REGISTRY.features(["bb", "rsi", "atr", "obv", "mfi", "vwap", "psar", "supertrend"])
    found, wanted = compute(split, features), compute(plain, features)
    for feature in features:
        for name, scale in zip(feature.columns, feature.scales):
            factor = {"ratio": 1.0, "volume": 4.0}.get(scale, 0.25)
            expected = array(wanted, name) * np.where(np.arange(100) >= 50, factor, 1.0)
            np.testing.assert_allclose(array(found, name), expected, rtol=1e-12, err_msg=name)


def test_look_back_rows_warm_up_and_are_not_returned():
    bars = walk(100, 5)
    whole = compute(bars, REGISTRY.features(["core"]))
    part = compute(bars.with_columns(lookback=pl.int_range(pl.len()) < 60), REGISTRY.features(["core"]))
    assert part.equals(whole[60:], null_equal=True)


def test_a_feature_leaves_out_bars_that_lack_its_inputs():
    bars = walk(60, 6)
    holes = bars.with_columns(volume=pl.when(pl.int_range(pl.len()) == 30).then(None).otherwise(pl.col("volume")))
    found = compute(holes, REGISTRY.features(["vwap(5)", "sma(5)"]))
    without = compute(bars.filter(pl.int_range(pl.len()) != 30), REGISTRY.features(["vwap(5)"]))
    assert found["vwap_5"][30] is None and found["sma_5"][30] is not None
    assert found.filter(pl.int_range(pl.len()) != 30)["vwap_5"].equals(without["vwap_5"])


@pytest.mark.parametrize("bars", [walk(0, 1), walk(3, 1).with_columns(close=pl.lit(None, pl.Float64))])
def test_without_usable_bars_there_are_no_values(bars: pl.DataFrame):
    features = REGISTRY.features(["core", "alpha158", "cdldoji", "stochrsi", "rank(ret_1)"])
    found = compute(bars, features)
    assert len(found) == len(bars)
    assert all(found[name].null_count() == len(bars) for one in features for name in one.columns)


def test_a_column_that_is_missing_is_named():
    with pytest.raises(ValueError, match="The bars lack volume, close:SPY, which a declared feature reads"):
        compute(walk(5, 1).drop("volume", "close:SPY"), REGISTRY.features(["obv", "beta(60, SPY)"]))


def test_ranks_and_scores_are_across_symbols_of_one_time():
    bars = pl.concat([walk(30, seed, symbol) for seed, symbol in ((1, "A"), (2, "B"), (3, "C"))])
    bars = bars.filter((pl.col("symbol") != "C") | (pl.col("open_time") >= bars["open_time"][9]))
    found = compute(bars, REGISTRY.features(["rank(ret_1)", "zscore(ret_1)", "zscore(volume)"]))
    assert "ret_1" not in found.columns
    returns = compute(bars, REGISTRY.features(["ret"]))
    wanted = returns.with_columns(
        rank=pl.col("ret_1").rank("average").over("open_time") / pl.col("ret_1").count().over("open_time"),
        score=(pl.col("ret_1") - pl.col("ret_1").mean().over("open_time")) / pl.col("ret_1").std().over("open_time"),
        size=(pl.col("volume") - pl.col("volume").mean().over("open_time")) / pl.col("volume").std().over("open_time"),
    )
    for name, other in (("rank_ret_1", "rank"), ("zscore_ret_1", "score"), ("zscore_volume", "size")):
        np.testing.assert_allclose(array(found, name), array(wanted, other), rtol=1e-9, err_msg=name)


def half_of_mean(close, *, window: int = 4):
    """Half of the mean of the last closes."""
    sums = np.convolve(close, np.ones(window), "valid")
    return np.concatenate((np.full(min(len(close), window - 1), np.nan), sums))[: len(close)] / window / 2


def test_a_users_function_is_a_feature_in_batch_and_online():
    spec = spec_of(half_of_mean, ["close"], lookback=lambda window: window - 1, scale="price")
    feature = spec.bind(window=6)
    assert feature.columns == ("half_of_mean_6",) and (feature.lookback, feature.warmup) == (5, 5)
    assert feature.description.startswith("Half of the mean of the last closes. Parameters: window 6.")
    bars = pl.concat([walk(40, 1), walk(3, 2, "B")])
    found = compute(bars, [feature, *REGISTRY.features(["sma(6)"])])
    np.testing.assert_allclose(array(found, "half_of_mean_6") * 2, array(found, "sma_6"), rtol=1e-12)
    board = Board([feature])
    board.open(bars[:20])
    online = [board.update("A", bar)["half_of_mean_6"] for bar in bars[20:40].iter_rows(named=True)]
    np.testing.assert_allclose(online, array(found, "half_of_mean_6")[20:40], rtol=1e-12)


def too_short(close):
    return close[1:]


def test_a_users_function_that_returns_the_wrong_length_is_named():
    with pytest.raises(ValueError, match=r"too_short was given 9 bars and returned an array of shape \(8,\)"):
        compute(walk(9, 1), [spec_of(too_short, ["close"], lookback=0).bind()])


def test_a_users_function_whose_parameters_cannot_be_read_is_named():
    def no_default(close, *, window): ...

    with pytest.raises(ValueError, match="no_default: parameter window needs a number as its default"):
        spec_of(no_default, ["close"], lookback=1)
    with pytest.raises(ValueError, match="half_of_mean: lookback or warmup asks for days, which is no parameter"):
        assert spec_of(half_of_mean, ["close"], lookback=lambda days: days).bind().lookback
