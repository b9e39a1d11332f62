"""The feature set `core`: the numbers of the published references, and the same numbers however history is cut."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import talib

from quantlytic_assets.features import batch
from quantlytic_assets.features.registry import Registry

CORE = Registry().features(["core"])
COLUMNS = tuple(column for feature in CORE for column in feature.columns)
WARMUP = max(feature.warmup for feature in CORE)
DATA = Path(__file__).parent.parent / "data" / "indicators"
START = datetime(2020, 1, 1, tzinfo=UTC)


def compute(table: pl.DataFrame) -> pl.DataFrame:
    """The bars with the set's columns."""
    return batch.compute(table, CORE)


def bars(high, low, close, symbol="SPY", interval="1d") -> pl.DataFrame:
    times = [START + timedelta(minutes=minute) for minute in range(len(close))]
    return pl.DataFrame(
        {"symbol": symbol, "interval": interval, "open_time": times, "high": high, "low": low, "close": close},
        schema_overrides={"open_time": pl.Datetime("us", "UTC"), "high": pl.Float64, "low": pl.Float64},
    )


def quotes(name: str) -> pl.DataFrame:
    table = pl.read_csv(DATA / name, columns=["high", "low", "close"])
    return bars(table["high"], table["low"], table["close"])


def walk(count: int, seed: int, symbol: str = "SPY", interval: str = "1d") -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(generator.normal(0, 0.01, count)))
    return bars(close * 1.004, close * 0.997, close, symbol, interval)


def assert_same(found: pl.DataFrame, wanted: pl.DataFrame, relative: float = 1e-9) -> None:
    assert found["open_time"].to_list() == wanted["open_time"].to_list()
    # MACD crosses zero: its digits are those of the price it is a difference of.
    noise = 1e-15 * wanted["close"].max()
    for name in COLUMNS:
        np.testing.assert_allclose(
            found[name].cast(pl.Float64).fill_null(np.nan).to_numpy(),
            wanted[name].cast(pl.Float64).fill_null(np.nan).to_numpy(),
            rtol=relative,
            atol=noise,
            err_msg=name,
        )


def test_moving_averages_and_bands_are_skenders():
    found = compute(quotes("skender_quotes.csv"))
    wanted = pl.read_csv(DATA / "skender_results.csv")
    pairs = {
        "sma_20": "sma",
        "ema_20": "ema",
        "bb_middle": "bb_middle",
        "bb_upper": "bb_upper",
        "bb_lower": "bb_lower",
    }
    for ours, theirs in pairs.items():
        assert found[ours].null_count() == wanted[theirs].null_count() == 19
        np.testing.assert_allclose(found[ours].drop_nulls(), wanted[theirs].drop_nulls(), rtol=1e-12, err_msg=ours)


def lean(name: str, columns: dict[str, str]) -> pl.DataFrame:
    """A LEAN file without its last row, which is a live bar."""
    table = pl.read_csv(DATA / name, infer_schema=False).head(-1)
    return table.select(pl.col(theirs).cast(pl.Float64).alias(ours) for theirs, ours in columns.items())


@pytest.mark.parametrize(
    ("file", "references"),
    [
        ("lean_spy_with_indicators.txt", {"RSI 14 Wilder": "rsi_14"}),
        ("lean_spy_with_macd.txt", {"MACD": "macd", "Signal": "macd_signal", "Histogram": "macd_hist"}),
    ],
)
def test_rsi_and_macd_are_leans(file, references):
    table = lean(file, {"Close": "close"} | references)
    found = compute(bars(table["close"], table["close"], table["close"]))
    for name in references.values():
        known = table[name].is_not_null()
        assert known.sum() > 150
        assert found[name].null_count() <= known.arg_max()
        np.testing.assert_allclose(found[name].filter(known), table[name].filter(known), atol=1e-5, err_msg=name)


def test_atr_is_wilders():
    columns = {"High": "high", "Low": "low", "Close": "close", "Average True Range 14": "atr"}
    table = lean("lean_spy_atr_wilder.txt", columns)
    found = compute(bars(table["high"], table["low"], table["close"]))["atr_14"]
    assert found.null_count() == 14
    # LEAN counts the first bar's range as a true range, so its seed is another; 135 bars on nothing is left of it.
    np.testing.assert_allclose(found[150:], table["atr"][150:], atol=2e-5)


def test_talib_agrees_where_its_conventions_are_ours():
    table = quotes("skender_intraday.csv")
    found = compute(table)
    high, low, close = (table[name].to_numpy() for name in ("high", "low", "close"))
    upper, middle, lower = talib.BBANDS(close, 20, 2, 2)
    references = {
        "sma_50": talib.SMA(close, 50),
        "sma_200": talib.SMA(close, 200),
        "ema_12": talib.EMA(close, 12),
        "ema_26": talib.EMA(close, 26),
        "rsi_14": talib.RSI(close, 14),
        "atr_14": talib.ATR(high, low, close, 14),
        "bb_upper": upper,
        "bb_middle": middle,
        "bb_lower": lower,
    }
    for name, wanted in references.items():
        np.testing.assert_allclose(found[name].fill_null(np.nan), wanted, rtol=1e-8, err_msg=name)


def test_returns_and_volatility_are_what_they_say():
    table = walk(60, seed=5)
    found = compute(table)
    close = table["close"].to_numpy()
    log_returns = np.diff(np.log(close))
    np.testing.assert_allclose(found["ret_1"][1:], close[1:] / close[:-1] - 1, rtol=1e-9)
    np.testing.assert_allclose(found["log_ret_1"][1:], log_returns, rtol=1e-9)
    assert found["vol_20"].null_count() == 20
    np.testing.assert_allclose(found["vol_20"][20], log_returns[:20].std(ddof=1), rtol=1e-9)
    np.testing.assert_allclose(found["vol_20"][59], log_returns[-20:].std(ddof=1), rtol=1e-9)


def test_every_column_is_null_exactly_until_its_window_is_full():
    found = compute(walk(300, seed=1))
    first = {
        "ret_1": 1,
        "log_ret_1": 1,
        "sma_20": 19,
        "sma_50": 49,
        "sma_200": 199,
        "ema_12": 11,
        "ema_20": 19,
        "ema_26": 25,
        "rsi_14": 14,
        "macd": 25,
        "macd_signal": 33,
        "macd_hist": 33,
        "bb_middle": 19,
        "bb_upper": 19,
        "bb_lower": 19,
        "atr_14": 14,
        "vol_20": 20,
    }
    assert {name: found[name].is_not_null().arg_max() for name in COLUMNS} == first
    assert {name: found[name].null_count() for name in COLUMNS} == first


def test_what_lies_before_the_warm_up_changes_nothing():
    table = quotes("skender_intraday.csv")
    whole = compute(table)
    for cut in range(WARMUP, len(table), 97):
        context = table.with_columns(lookback=pl.int_range(len(table)) < cut)[cut - WARMUP :]
        assert_same(compute(context), whole[cut:])


class Table:
    """A table of indicators that is filled range by range, as the lake's is."""

    def __init__(self, source: pl.DataFrame):
        self.source = source.with_row_index("row")
        self.rows = pl.DataFrame()
        self.present = pl.Series(dtype=pl.UInt32)

    def materialize(self, start: int, end: int) -> None:
        """Put the source's bars of rows [start, end) there and compute what they touch."""
        landed = set(self.present) | set(range(start, end))
        self.present = pl.Series(sorted(landed), dtype=pl.UInt32)
        there = self.source.filter(pl.col("row").is_in(self.present.to_list()))
        lookback = there.filter(pl.col("row") < start).tail(WARMUP)
        tail = there.filter(pl.col("row") >= end).head(WARMUP)
        given = pl.concat([lookback, there.filter(pl.col("row").is_between(start, end, closed="left")), tail])
        new = compute(given.with_columns(lookback=pl.col("row") < start))
        if len(self.rows):
            new = pl.concat([self.rows.join(new, on="row", how="anti"), new])
        self.rows = new.sort("row")


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("size", [21, 390])
def test_ranges_in_any_order_and_twice_give_the_full_rebuilds_numbers(seed, size):
    source = quotes("skender_intraday.csv")
    ranges = [(start, min(start + size, len(source))) for start in range(0, len(source), size)] * 2
    random.Random(seed).shuffle(ranges)
    table = Table(source)
    for start, end in ranges:
        table.materialize(start, end)
    assert_same(table.rows, compute(source))


def test_without_its_tail_a_late_range_would_leave_wrong_rows_behind_it():
    source = quotes("skender_intraday.csv")
    early = compute(source[500:])
    assert abs(early["ema_26"][100] / compute(source)["ema_26"][600] - 1) > 1e-9


def test_each_symbol_and_interval_stands_alone_whatever_the_order_of_rows():
    tables = [walk(250, 1, "A", "1d"), walk(7, 2, "A", "1h"), walk(90, 3, "B", "1d"), walk(1, 4, "C", "1d")]
    together = compute(pl.concat(tables).sample(fraction=1, shuffle=True, seed=3))
    for table in tables:
        own = together.filter(pl.col("symbol") == table["symbol"][0], pl.col("interval") == table["interval"][0])
        assert_same(own, compute(table), relative=1e-15)


@pytest.mark.parametrize("place", range(140, 165))
def test_a_crash_leaves_no_trace_after_it_has_left_the_windows(place):
    generator = np.random.default_rng(9)
    calm = 100 + np.cumsum(generator.normal(0, 1e-4, 400))
    crash = calm.copy()
    crash[place] = 0.01
    calm_rows, crash_rows = (compute(bars(close, close, close)) for close in (calm, crash))
    for name in ("sma_20", "bb_upper", "bb_lower", "vol_20"):
        after = slice(place + 22, None)
        np.testing.assert_allclose(crash_rows[name][after], calm_rows[name][after], rtol=1e-11, err_msg=name)
    assert crash_rows["vol_20"][place + 10] > 1


def test_a_price_that_does_not_move_has_no_volatility_and_a_neutral_rsi():
    found = compute(bars([7.3] * 60, [7.3] * 60, [7.3] * 60))
    assert found["vol_20"][20:].to_list() == [0.0] * 40
    assert found["bb_upper"][30] == pytest.approx(7.3, rel=1e-15)
    assert found["rsi_14"][14:].to_list() == [50.0] * 46


def test_other_columns_are_carried_and_nothing_is_lost_or_added():
    source = walk(30, 1).with_columns(note=pl.lit("x"), lookback=pl.int_range(30) < 10)
    found = compute(source)
    assert found.columns == [*walk(1, 1).columns, "note", *COLUMNS]
    assert len(found) == 20


def test_no_bars_give_no_rows():
    found = compute(walk(0, 1))
    assert found.is_empty()
    assert set(COLUMNS) <= set(found.columns)


@pytest.mark.parametrize("start", [0, 1, 700])
def test_a_bar_without_a_price_has_nulls_and_is_in_no_window(start):
    whole = walk(900, 5)
    gone = pl.Series([start < place and place % 7 == 3 for place in range(900)])
    holed = whole.with_columns(pl.when(~gone).then(name).alias(name) for name in ("high", "low", "close"))
    found = compute(holed)
    assert found["open_time"].equals(whole["open_time"])
    assert_same(found.filter(~gone), compute(whole.filter(~gone)), relative=0)
    assert found.filter(gone).select(COLUMNS).null_count().sum_horizontal()[0] == gone.sum() * len(COLUMNS)
