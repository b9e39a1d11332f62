"""Features that a dataset declares: the library's, a user's own, of other symbols' closes, and of all symbols."""

import subprocess
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from quantlytic_assets.features.batch import compute
from quantlytic_assets.services.feature_replay import replayed
from quantlytic_assets.services.features import families
from quantlytic_assets.universe.plugins import registry_with
from quantlytic_tests.frames import make_dataset

FIRST, DAYS = date(2024, 1, 1), 230
SYMBOLS = ("A", "B", "C")
PLUGIN = """
import numpy as np
from quantlytic_assets.plugins import feature


@feature(inputs=["close", "volume"], lookback=lambda window: window, scale="ratio")
def my_alpha(close, volume, *, window: int = 20):
    \"\"\"Change of the close over the window, weighted by the last volume.\"\"\"
    result = np.full(len(close), np.nan)
    result[window:] = (close[window:] / close[:-window] - 1) * volume[window:]
    return result
"""
# Reads the next bar, and more bars than it says.
WRONG = """
import numpy as np
from quantlytic_assets.plugins import feature


@feature(inputs=["close"], lookback=0)
def peeks(close):
    return np.append(close[1:] / close[:-1], np.nan)


@feature(inputs=["close"], lookback=5)
def remembers(close):
    return np.cumsum(close) / close
"""
DECLARED = (
    "core",
    "stoch",
    "ema(50)",
    "my_alpha(10)",
    "beta(20, B)",
    "spread(other:X, A)",
    "rank(ret_1)",
    "staleness(other:X)",
    "obv",
    "ad",
    "cum_log_ret",
)
RANGE = (FIRST.isoformat(), (FIRST + timedelta(days=DAYS)).isoformat(), "1d", ["1d"])
KEYS = ("session", "interval", "open_time", "available_at", "close", "history_bars", "symbol")


def days(symbols, seed, delay=timedelta()):
    """Daily bars round the clock of some symbols, and their sessions."""
    random = np.random.default_rng(seed)
    opens = [datetime.combine(FIRST, datetime.min.time(), UTC) + timedelta(days=i) for i in range(DAYS)]
    frames = []
    for symbol in symbols:
        close = 100 * np.exp(np.cumsum(random.normal(0, 0.02, DAYS)))
        frames.append(
            pl.DataFrame(
                {
                    "symbol": symbol, "session": [one.date() for one in opens], "open_time": opens,
                    "close_time": [one + timedelta(days=1) for one in opens], "open": close * 0.999,
                    "high": close * 1.01, "low": close * 0.98, "close": close, "volume": random.uniform(1, 9, DAYS),
                },
                schema_overrides={name: pl.Datetime("us", "UTC") for name in ("open_time", "close_time")},
            )
        )  # fmt: skip
    bars = pl.concat(frames)
    return bars, bars.select("session", "open_time", "close_time").unique().sort("session")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """A file of a user's."""
    path = tmp_path_factory.mktemp("plugins") / "my_alphas.py"
    path.write_text(PLUGIN)
    return str(path)


@pytest.fixture(scope="module")
def built(warehouse, plugin):
    """A dataset with many features, and one whose close is known a day later."""
    warehouse.add("other", *days(["X"], 5), delay=timedelta(days=1))
    warehouse.build("other", *RANGE)
    warehouse.add("many", *days(SYMBOLS, 7))
    warehouse.build("many", *RANGE, features=DECLARED, plugins=[plugin])
    return warehouse


def computed_at_once(bars, plugin):
    """The features of all bars of SYMBOLS, computed in one go from the first of them on."""
    other, _ = days(["X"], 5)
    known = other.select(
        (pl.col("close_time") + timedelta(days=1)).alias("close_time"), pl.col("close").alias("close:other:X")
    )
    closes = {
        name: bars.filter(symbol=name).select("close_time", pl.col("close").alias(f"close:{name}")) for name in "AB"
    }
    given = bars.with_columns(pl.lit("1d").alias("interval"))
    known = known.with_columns(pl.lit(0.0).alias("age:other:X"))
    for each in (known, *closes.values()):
        given = given.join(each, on="close_time", how="left")
    registry = registry_with((plugin,))
    features = registry.features(DECLARED)
    columns = [name for feature in features for name in feature.columns]
    return compute(given, features, registry).sort("symbol", "open_time").select("symbol", "session", *columns)


def assert_same(found, wanted):
    assert found.select("symbol", "session").equals(wanted.select("symbol", "session"))
    for name in wanted.columns[2:]:
        assert found[name].null_count() == wanted[name].null_count() < len(found), name
        np.testing.assert_allclose(
            found[name].fill_null(np.nan), wanted[name].fill_null(np.nan), rtol=1e-9, atol=1e-9, err_msg=name
        )


def test_the_table_has_what_is_computed_of_all_bars_at_once(built, plugin):
    bars, _ = days(SYMBOLS, 7)
    wanted, found = computed_at_once(bars, plugin), built.table("features.indicators", "many")
    assert {"my_alpha_10", "beta_20_B", "spread_X_A", "rank_ret_1", "stoch_k", "obv"} <= set(wanted.columns)
    assert_same(found, wanted)
    # The close of X of a day is known a day later.
    spread = found.filter(symbol="A").sort("session")["spread_X_A"]
    other, _ = days(["X"], 5)
    later = other["close"].to_numpy()[:-1] - bars.filter(symbol="A")["close"].to_numpy()[1:]
    np.testing.assert_allclose(spread[1:], later, rtol=1e-9, atol=1e-9)


def test_bars_are_looked_up_once_for_all_families_also_where_the_tables_are_there(built):
    stretch = (FIRST + timedelta(days=200)).isoformat(), (FIRST + timedelta(days=201)).isoformat()
    command, environment = built.command("other", *stretch, "1d", ["1d"])
    done = subprocess.run([*command, "--log-level", "debug"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("create view memory.main.bars_to_compute") == 1


def test_a_stretch_that_is_made_again_has_the_rows_of_one_rebuild(built, plugin):
    before = built.table("features.indicators", "many")
    bars, _ = days(SYMBOLS, 7)
    for start in (60, 20, 119):
        begin = FIRST + timedelta(days=start)
        if start == 20:
            # A late bar, of which sums know to the end.
            late = pl.when(symbol="A", session=begin)
            bars = bars.with_columns(
                late.then(pl.col(one) * 1.02).otherwise(one).alias(one) for one in ("high", "close")
            )
            bars = bars.with_columns(late.then(40.0).otherwise("volume").alias("volume"))
            with built.lake.transaction() as connection:
                connection.execute(
                    "UPDATE clean.bars SET high = high * 1.02, close = close * 1.02, volume = 40 "
                    f"WHERE dataset = 'many' AND symbol = 'A' AND session = DATE '{begin}'"
                )
        stretch = (begin.isoformat(), (begin + timedelta(days=1)).isoformat(), "1d", ["1d"])
        built.build("many", *stretch, features=DECLARED, plugins=[plugin])
        after = built.table("features.indicators", "many")
        assert after.select("session", "history_bars", "symbol").equals(
            before.select("session", "history_bars", "symbol")
        )
        assert_same(after, computed_at_once(bars, plugin))
    for name in ("obv", "ad", "cum_log_ret"):
        moved = after.filter(symbol="A")[name][-1] - before.filter(symbol="A")[name][-1]
        assert (abs(moved) > 1) == (name != "cum_log_ret"), name


def test_a_column_is_null_for_a_dataset_that_does_not_declare_it(built):
    other = built.table("features.indicators", "other")
    assert other["my_alpha_10"].null_count() == len(other) > 0
    assert other["sma_20"].null_count() == 19
    told = dict(
        built.lake.query(
            "SELECT column_name, comment FROM duckdb_columns() WHERE table_name IN ('trend', 'custom')"
        ).iter_rows()
    )
    assert told["my_alpha_10"].startswith("Change of the close over the window, weighted by the last volume.")
    assert "Parameters: window 20" in told["sma_20"]


def dataset(name, features, plugin):
    """What the universe would say of it."""
    made = make_dataset("24/7", "1d", first=FIRST, last=FIRST + timedelta(days=DAYS - 1))
    return replace(made, name=name, features=features, plugins=(plugin,))


def test_features_computed_again_from_the_bars_up_to_any_one_are_those_of_the_table(built, plugin):
    mine = dataset("many", DECLARED, plugin)
    compared = 0
    for family in families(mine.features, mine.plugins):
        values, wrong = replayed(built.lake, mine, family, FIRST, FIRST + timedelta(days=DAYS), 20)
        assert wrong.is_empty(), wrong
        compared += values
    assert compared > 20 * 3 * 25


def test_features_that_look_ahead_or_read_more_than_they_declare_are_named(built, tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text(WRONG)
    built.add("wrong", *days(SYMBOLS, 9))
    built.build("wrong", *RANGE, features=["rsi", "peeks", "remembers"], plugins=[str(path)])
    mine = dataset("wrong", ("rsi", "peeks", "remembers"), str(path))
    stretch = (FIRST + timedelta(days=30), FIRST + timedelta(days=DAYS - 1), 5)
    _, wrong = replayed(built.lake, mine, "custom", *stretch)
    assert set(wrong["column"]) >= {"peeks"}
    assert replayed(built.lake, mine, "momentum", *stretch)[1].is_empty()
