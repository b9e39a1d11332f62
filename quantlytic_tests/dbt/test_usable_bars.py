"""What no decision may rest on: bars that are not complete, prices known to be wrong, entries before `available_at`."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from quantlytic_assets.calendars.sessions import expected_bars, session_table
from quantlytic_assets.learning.features import design_columns, design_matrix
from quantlytic_assets.market_data.bars import COVERAGE_SCHEMA
from quantlytic_assets.market_data.quality.defects import DEFECTS
from quantlytic_assets.services.history import read_history
from quantlytic_assets.tables.features import indicators
from quantlytic_assets.trading.engine.market import BARS_SCHEMA, Market
from quantlytic_assets.trading.engine.projections import fills as fills_of
from quantlytic_assets.trading.engine.requests import Requests
from quantlytic_assets.trading.engine.run import run
from quantlytic_assets.trading.engine.settings import EngineSettings
from quantlytic_tests.dbt.conftest import ROOT
from quantlytic_tests.dbt.test_dbt_models import TABLES, assert_equal_rows
from quantlytic_tests.frames import make_dataset
from quantlytic_tests.learning.frames import strategy

FIRST, LAST = date(2025, 5, 5), date(2025, 5, 7)
DAYS = ("2025-05-05", "2025-05-06", "2025-05-07", "2025-05-08")
NATIVE = ("5m", ["5m", "15m"], [1, 3])
FIVE = timedelta(minutes=5)


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return datetime(2025, 5, day, hour, minute, tzinfo=UTC)


QUIET, HOLE, YOUNG = at(5, 10, 5), at(5, 12, 5), at(7, 13, 5)
WRONG, WRONG_HIGH, UNFINISHED = at(6, 10), at(6, 12), at(6, 14)


def sound() -> pl.DataFrame:
    """Five minutes of two symbols on three days round the clock."""
    grid = expected_bars("24/7", "5m", FIRST, LAST)
    generator = np.random.default_rng(7)
    parts = []
    for symbol in ("AAA", "BBB"):
        close = 50 * np.exp(np.cumsum(generator.normal(0, 0.002, len(grid))))
        opened = np.append(50, close[:-1])
        parts.append(
            grid.with_columns(
                symbol=pl.lit(symbol),
                open=pl.Series(opened),
                high=pl.Series(np.maximum(opened, close) * 1.001),
                low=pl.Series(np.minimum(opened, close) * 0.999),
                close=pl.Series(close),
                volume=pl.lit(10.0),
                fetched_at=pl.col("close_time") + timedelta(seconds=1),
                flags=pl.lit([], pl.List(pl.String)),
            )
        )
    return pl.concat(parts)


def served() -> pl.DataFrame:
    """`sound` as it came: with two holes, a session still going on, and of AAA two wrong bars and an unfinished one."""
    mine, opens = pl.col("symbol") == "AAA", pl.col("open_time")
    bars = sound().filter(~opens.is_in([QUIET, HOLE]), opens < YOUNG)
    whole = pl.when(mine & (opens == WRONG)).then(100.0).otherwise(1.0)
    high = pl.when(mine & (opens == WRONG_HIGH)).then(100.0).otherwise(1.0)
    return bars.with_columns(
        pl.col("open", "low", "close") * whole,
        pl.col("high") * whole * high,
        flags=pl.when(mine & opens.is_in([WRONG, WRONG_HIGH])).then(["times_100"]).otherwise("flags"),
        fetched_at=pl.when(mine & (opens == UNFINISHED)).then(opens).otherwise("fetched_at"),
    )


def add(warehouse, dataset: str, bars: pl.DataFrame, delay: timedelta = timedelta()) -> None:
    """The bars with their repairs and coverage: who is missing has not traded, but at HOLE, which the vendor lacks."""
    warehouse.add(dataset, bars, session_table("24/7", FIRST, LAST), delay)
    right = sound().filter(pl.col("symbol") == "AAA", pl.col("open_time").is_in([WRONG, WRONG_HIGH]))
    repairs = right.select(
        pl.lit(dataset).alias("dataset"),
        *("symbol", "session", "open_time", "open", "high", "low", "close", "volume"),
        pl.lit("times_100").alias("defect"),
        (pl.col("open_time") == WRONG).alias("uses_later_bars"),
    )
    missing = [{"start": one, "end": one + FIVE, "cause": cause} for one, cause in [(QUIET, "no_trade"), (HOLE, "x")]]
    coverage = pl.DataFrame(
        {"dataset": dataset, "symbol": ["AAA", "BBB"], "session": FIRST, "missing_ranges": [missing, missing]},
        schema_overrides={"missing_ranges": COVERAGE_SCHEMA["missing_ranges"]},
    )
    warehouse.lake.replace([("clean.repairs", "false", [], repairs), ("clean.coverage", "false", [], coverage)])


@pytest.fixture(scope="module")
def whole(warehouse) -> None:
    """The dataset `usable`, built in one run."""
    add(warehouse, "usable", served())
    warehouse.build("usable", DAYS[0], DAYS[-1], *NATIVE)


def unusable_of_aaa(interval: str) -> list[datetime]:
    if interval == "5m":
        return [WRONG, UNFINISHED]
    return [at(5, 12), at(6, 10), at(6, 14), at(7, 13)]


def mine(table: pl.DataFrame, interval: str) -> pl.DataFrame:
    return table.filter(pl.col("symbol") == "AAA", pl.col("interval") == interval).sort("open_time")


@pytest.mark.parametrize("interval", ["5m", "15m"])
def test_a_bar_is_complete_when_it_is_over_and_each_native_bar_is_there_or_did_not_trade(warehouse, whole, interval):
    bars = mine(warehouse.table("features.bars", "usable"), interval)
    assert bars.filter(~pl.col("complete"))["open_time"].to_list() == unusable_of_aaa(interval)
    assert QUIET not in bars["open_time"].to_list()


@pytest.mark.parametrize("interval", ["5m", "15m"])
def test_indicators_of_unusable_bars_are_null_and_those_after_them_do_not_see_them(warehouse, whole, interval):
    indicators = mine(warehouse.table("features.indicators", "usable"), interval)
    unusable = pl.col("open_time").is_in(unusable_of_aaa(interval))
    values = indicators.select("close", "history_bars", "ret_1", "sma_20", "ema_12", "rsi_14", "atr_14", "vol_20")
    assert values.filter(indicators.select(unusable).to_series()).null_count().min_horizontal()[0] == len(
        unusable_of_aaa(interval)
    )
    used = indicators.filter(~unusable).sort("open_time")
    wanted = used["close"] / used["close"].shift(1) - 1
    np.testing.assert_allclose(used["ret_1"][1:], wanted[1:], rtol=1e-9, atol=1e-15)
    assert used["ret_1"].abs().max() < 0.05
    assert used["sma_20"].null_count() == 19 and used["atr_14"].max() < 5
    # The repair of the high needs no other bar, so it is used.
    bar = mine(warehouse.table("features.bars", "usable"), "5m").row(by_predicate=pl.col("open_time") == WRONG_HIGH)
    assert max(value for value in bar if isinstance(value, float)) < 60


@pytest.mark.parametrize("interval", ["5m", "15m"])
def test_no_label_is_decided_on_an_unusable_bar_or_enters_or_leaves_at_one(warehouse, whole, interval):
    labels = mine(warehouse.table("features.labels", "usable"), interval)
    bars = mine(warehouse.table("features.bars", "usable"), interval)
    times = bars["open_time"].to_list()
    good = set(times) - set(unusable_of_aaa(interval))
    for horizon in (1, 3):
        wanted = [
            (one, entry, left)
            for one, entry, left in zip(times, times[1:], times[1 + horizon :], strict=False)
            if {one, entry, left} <= good
        ]
        found = labels.filter(pl.col("horizon") == horizon).sort("open_time")
        assert found.select("open_time", "entry_time", "exit_time").rows() == wanted
    assert labels["forward_return"].abs().max() < 0.05


def test_trading_and_learning_read_only_bars_that_may_be_used(warehouse, whole):
    mine = strategy(dataset="usable", interval="5m", symbols=("AAA",))
    for rule, unusable in (("drop", [WRONG, UNFINISHED]), ("keep", [WRONG])):
        dataset = replace(make_dataset(interval="5m"), name="usable", incomplete_bars=rule)
        prices = read_history(warehouse.resources.lake, dataset, mine, LAST, FIRST).bars
        every = warehouse.table("features.bars", "usable").filter(pl.col("symbol") == "AAA", pl.col("interval") == "5m")
        assert prices["open_time"].to_list() == [one for one in every["open_time"] if one not in unusable]
    columns = design_columns(["ret_1", "sma_20"])
    design = design_matrix(
        indicators(warehouse.resources.lake, mine.dataset, mine.interval, columns, symbols=mine.symbols),
        ["ret_1", "sma_20"],
    )
    assert not set(design.frame["open_time"]) & {WRONG, UNFINISHED} and design.left_out == 19


def test_partitions_in_any_order_give_the_rows_of_one_rebuild(warehouse, whole):
    add(warehouse, "usable_parts", served())
    for day in (2, 0, 1):
        warehouse.build("usable_parts", DAYS[day], DAYS[day + 1], *NATIVE)
    for name in TABLES:
        assert_equal_rows(warehouse.table(name, "usable_parts"), warehouse.table(name, "usable"))


def test_a_bar_that_becomes_complete_changes_its_row_and_all_that_follows(warehouse, whole):
    warehouse.copy("usable", "usable_late")
    late = sound().filter((pl.col("open_time") == HOLE) | (pl.col("open_time") >= YOUNG))
    rest = pl.concat([served(), late])
    add(warehouse, "usable_all", rest)
    warehouse.build("usable_all", DAYS[0], DAYS[-1], *NATIVE)
    warehouse.add("usable_late", late, session_table("24/7", FIRST, LAST).clear())
    for day in (0, 2):
        warehouse.build("usable_late", DAYS[day], DAYS[day + 1], *NATIVE)
    for name in TABLES:
        assert_equal_rows(warehouse.table(name, "usable_late"), warehouse.table(name, "usable_all"))


def test_a_dataset_may_keep_incomplete_bars_but_no_wrong_price(warehouse):
    add(warehouse, "keeping", served())
    warehouse.build("keeping", DAYS[0], DAYS[-1], *NATIVE, incomplete="keep")
    indicators = warehouse.table("features.indicators", "keeping")
    assert mine(indicators, "15m")["close"].null_count() == 0
    assert mine(indicators, "5m").filter(pl.col("close").is_null())["open_time"].to_list() == [WRONG]
    assert indicators["ret_1"].abs().max() < 0.05


def bought_at_each_bar(bars: pl.DataFrame) -> pl.DataFrame:
    """The engine's fills of a share of each symbol that is asked for at each of its bars."""
    symbols = bars["symbol"].unique().sort().to_list()
    market = Market.from_frame(bars.select(BARS_SCHEMA.names()), symbols, session_closes={})
    orders = {}
    for place, (_, row) in enumerate(bars.sort("open_time").group_by("open_time", maintain_order=True)):
        orders[place] = Requests(market.symbols)
        for symbol in row["symbol"]:
            orders[place].submit(symbol, 1.0, time_in_force="gtc")
    return fills_of(run(market, None, EngineSettings(1e12, volume_cap=None), orders=orders).events.frame())


# Day by day with the longer delay: then more bars of the days around a day decide its labels.
@pytest.mark.parametrize(
    ("delay", "ranges"), [(FIVE, [(0, 3)]), (timedelta(minutes=12), [(1, 2), (0, 1), (2, 3)])], ids=["5m", "12m"]
)
def test_labels_enter_where_the_engine_fills(warehouse, delay, ranges):
    """One rule for both: the first bar that opens at or after `available_at` of the bar decided on."""
    dataset = f"delayed_{delay.seconds}"
    add(warehouse, dataset, served(), delay)
    for first, last in ranges:
        # No features: labels need none.
        warehouse.build(dataset, DAYS[first], DAYS[last], *NATIVE, delay=delay, features=())
    bars = warehouse.table("features.bars", dataset)
    labels = warehouse.table("features.labels", dataset)
    assert (labels["entry_time"] >= labels["available_at"]).all()
    for interval in ("5m", "15m"):
        found = labels.filter(pl.col("interval") == interval, pl.col("horizon") == 3)
        usable = bars.filter(pl.col("interval") == interval, pl.col("complete"))
        fills = bought_at_each_bar(usable)
        both = found.join(fills, left_on=["symbol", "available_at"], right_on=["symbol", "decision_time"])
        assert both["entry_time"].equals(both["event_time"].rename("entry_time")) and len(both) == len(found)
        # A filled order has no label where it waits for a usable bar, or where its exit bar is not usable.
        assert len(fills) - len(found) <= 2 * 3 + 2 * 3 * len(unusable_of_aaa(interval))
        times = bars.filter(pl.col("interval") == interval).select("symbol", "open_time", at=pl.row_index())
        at_entry = found.join(times, left_on=["symbol", "entry_time"], right_on=["symbol", "open_time"])
        at_exit = at_entry.join(times, left_on=["symbol", "exit_time"], right_on=["symbol", "open_time"])
        assert (at_exit["at_right"] - at_exit["at"] == 3).all()


def test_dbt_knows_each_flag_of_a_wrong_price():
    macro = (ROOT / "dbt_project" / "macros" / "usable_bars.sql").read_text()
    assert f"[{', '.join(repr(name) for name in DEFECTS)}]" in macro
