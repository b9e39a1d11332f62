"""Features have the numbers of other projects' published files: see data/indicators/SOURCES.md."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from quantlytic_assets.features.batch import compute
from quantlytic_tests.features.walks import REGISTRY, START, array

DATA = Path(__file__).parents[1] / "data" / "indicators"
BARS = {name: name for name in ("open", "high", "low", "close", "volume")}


def read(name: str) -> pl.DataFrame:
    """A file with bars, whose columns have the names of ours, beside the reference columns."""
    table = pl.read_csv(DATA / name, infer_schema=False, encoding="utf8-lossy")
    table = table.rename({column: column.strip() for column in table.columns})
    table = table.rename({column: column.lower() for column in table.columns if column.lower() in BARS})
    numbers = pl.exclude("date", "Date", "time").str.strip_chars().cast(pl.Float64, strict=False)
    times = [START + timedelta(days=day) for day in range(len(table))]
    return table.select(
        numbers, symbol=pl.lit("SPY"), interval=pl.lit("1d"), open_time=pl.Series(times, dtype=pl.Datetime("us", "UTC"))
    )


# File, declaration, column, the reference's column, digits' tolerance, bars after which they agree.
LEAN = [
    ("lean_spy_with_adx.txt", "adx", "plus_di_14", "+DI14", 2e-2, 0),
    ("lean_spy_with_adx.txt", "adx", "minus_di_14", "-DI14", 2e-2, 0),
    ("lean_spy_with_adx.txt", "adx", "adx_14", "ADX 14", 2e-2, 0),
    ("lean_spy_with_cci.txt", "cci(14)", "cci_14", "Commodity Channel Index (CCI) 14", 1e-2, 0),
    ("lean_spy_mfi.txt", "mfi(20)", "mfi_20", "Money Flow Index 20", 1e-4, 0),
    ("lean_spy_with_stoch12k3.txt", "stoch(12, 3, 5)", "stoch_k_12_3_5", "Stochastics 12 %K 3", 1e-3, 0),
    ("lean_spy_with_stoch12k3.txt", "stoch(12, 3, 5)", "stoch_d_12_3_5", "%D 5", 1e-3, 0),
    ("lean_spy_with_williamsR14.txt", "willr", "willr_14", "Williams %R 14", 1e-3, 0),
    ("lean_spy_with_roc50.txt", "mom(50)", "mom_50", "Rate of Change 50", 1e-4, 0),
    ("lean_spy_natr.txt", "natr(5)", "natr_5", "NATR_5", 1e-9, 300),
    ("lean_spy_dema.txt", "dema(5)", "dema_5", "DEMA_5", 1e-6, 60),
    ("lean_spy_ad.txt", "ad", "ad", "AD", 1e-3, 0),
    ("lean_spy_cmf.txt", "cmf", "cmf_20", "CMF_20", 1e-9, 19),
    ("lean_spy_hma.txt", "hma(16)", "hma_16", "HMA_16", 1e-4, 0),
    ("lean_spy_with_don50.txt", "donchian(50)", "donchian_upper_50", "Donchian Channels 50 Top", 1e-9, 49),
    ("lean_spy_with_don50.txt", "donchian(50)", "donchian_lower_50", "Donchian Channels 50 Bottom", 1e-9, 49),
    ("lean_spy_bollinger_bands.txt", "bb", "bb_upper", "Bollinger Bands® 20 2 Top", 1e-3, 0),
    ("lean_spy_bollinger_bands.txt", "bb", "bb_lower", "Bollinger Bands® 20 2 Bottom", 1e-3, 0),
    ("lean_spy_bollinger_bands.txt", "bb", "bb_percent", "%B", 1e-3, 0),
    ("lean_spy_atr_wilder.txt", "atr", "atr_14", "Average True Range 14", 1e-4, 150),
    ("lean_spy_with_macd.txt", "macd", "macd", "MACD", 1e-4, 0),
    ("lean_spy_with_macd.txt", "macd", "macd_signal", "Signal", 1e-4, 0),
    ("lean_spy_with_macd.txt", "macd", "macd_hist", "Histogram", 1e-4, 0),
]


@pytest.mark.parametrize(("file", "declaration", "column", "reference", "tolerance", "after"), LEAN)
def test_features_are_leans(file, declaration, column, reference, tolerance, after):
    # Some files end with a bar of the running day.
    bars = read(file)[:-1]
    found, wanted = array(compute(bars, [REGISTRY.feature(declaration)]), column), array(bars, reference)
    both = ~np.isnan(wanted) & ~np.isnan(found)
    both[:after] = False
    assert both.sum() > 150
    np.testing.assert_allclose(found[both], wanted[both], rtol=1e-9, atol=tolerance)


# Declaration, column, the reference's column, bars after which they agree: theirs begin averages of averages and the
# parabolic stop in another way, and of an extreme that is twice in a window Aroon takes the other one.
STOCK_INDICATORS = [
    ("rsi", "rsi_14", "rsi", 0),
    ("atr", "atr_14", "atr", 0),
    ("natr", "natr_14", "atr_percent", 0),
    ("mfi", "mfi_14", "mfi", 0),
    ("cci", "cci_20", "cci", 0),
    ("cmf", "cmf_20", "cmf", 0),
    ("willr", "willr_14", "williams_r", 0),
    ("ultosc", "ultosc", "ultimate", 0),
    ("supertrend(14, 3)", "supertrend_14_3", "supertrend", 0),
    ("stoch", "stoch_k", "stoch_k", 0),
    ("stoch", "stoch_d", "stoch_d", 0),
    ("stochrsi", "stochrsi_k", "stochrsi_k", 0),
    ("stochrsi", "stochrsi_d", "stochrsi_d", 0),
    ("macd", "macd", "macd", 0),
    ("macd", "macd_signal", "macd_signal", 0),
    ("macd", "macd_hist", "macd_histogram", 0),
    ("adx", "adx_14", "adx", 0),
    ("adx", "plus_di_14", "plus_di", 0),
    ("adx", "minus_di_14", "minus_di", 0),
    ("ad", "ad", "ad", 0),
    ("wma", "wma_20", "wma", 0),
    ("hma", "hma_20", "hma", 0),
    ("kama", "kama_10", "kama", 0),
    ("roc(20)", "roc_20", "roc", 0),
    ("ichimoku", "ichimoku_tenkan", "tenkan", 0),
    ("ichimoku", "ichimoku_kijun", "kijun", 0),
    ("keltner", "keltner_middle", "keltner_middle", 0),
    ("keltner", "keltner_upper", "keltner_upper", 0),
    ("keltner", "keltner_lower", "keltner_lower", 0),
    ("bb", "bb_percent", "bb_percent", 0),
    ("bb", "bb_width", "bb_width", 0),
    ("dema", "dema_20", "dema", 186),
    ("tema", "tema_20", "tema", 213),
    ("psar", "psar", "sar", 251),
    ("aroon", "aroon_up_25", "aroon_up", 194),
    ("aroon", "aroon_down_25", "aroon_down", 233),
]


@pytest.mark.parametrize(("declaration", "column", "reference", "after"), STOCK_INDICATORS)
def test_features_are_those_of_stock_indicators(declaration, column, reference, after):
    found = array(compute(read("skender_quotes.csv"), [REGISTRY.feature(declaration)]), column)
    wanted = array(pl.read_parquet(DATA / "skender_computed.parquet"), reference)
    both = ~np.isnan(wanted) & ~np.isnan(found)
    # Ours has no value before theirs, except where theirs leaves out values on purpose.
    assert both[max(after, int(np.isnan(found).sum())) :].all() and len(found) == 502
    both[:after] = False
    np.testing.assert_allclose(found[both], wanted[both], rtol=1e-9, atol=1e-9)


def test_volume_and_channel_differ_from_stock_indicators_only_in_where_they_begin():
    bars = read("skender_quotes.csv")
    found = compute(bars, REGISTRY.features(["obv", "donchian(20)"]))
    wanted = pl.read_parquet(DATA / "skender_computed.parquet")
    # Theirs begins with nothing.
    np.testing.assert_array_equal(array(found, "obv") - array(bars, "volume")[0], array(wanted, "obv"))
    # Theirs leaves out the bar itself.
    for name in ("upper", "lower"):
        before, theirs = array(found, f"donchian_{name}_20")[:-1], array(wanted, f"donchian_{name}")[1:]
        np.testing.assert_array_equal(before, theirs)


def test_vwap_of_a_session_is_that_of_stock_indicators():
    wanted = pl.read_parquet(DATA / "skender_computed_intraday.parquet")
    bars = read("skender_intraday.csv")[: len(wanted)].with_columns(session=pl.lit(START.date()))
    found = compute(bars, [REGISTRY.feature("vwap_session")])
    np.testing.assert_allclose(array(found, "vwap_session"), array(wanted, "vwap"), rtol=1e-12)


def test_averages_and_bands_are_those_of_stock_indicators_from_the_first_value_on():
    bars = read("skender_quotes.csv")
    found = compute(bars, REGISTRY.features(["sma(20)", "ema(20)", "bb"]))
    wanted = pl.read_csv(DATA / "skender_results.csv")
    for column, other in (("sma_20", "sma"), ("ema_20", "ema"), *((f"bb_{one}",) * 2 for one in ("upper", "lower"))):
        np.testing.assert_allclose(array(found, column), array(wanted, other), rtol=1e-9, err_msg=column)
