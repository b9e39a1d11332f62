"""Accounts that the live path lets go on: what the asset of paper trades writes from the same bars and decisions."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise

import polars as pl
import pytest

from quantlytic_assets.features.batch import compute
from quantlytic_assets.features.registry import Registry
from quantlytic_assets.live.process import LiveProcess
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.wire.records import BAR_HEADERS, encode_bars
from quantlytic_assets.resources import Resources
from quantlytic_assets.services.history import read_history
from quantlytic_assets.storage.bus import bars_topic, signals_topic
from quantlytic_assets.universe.models import Instrument
from quantlytic_tests.services.desk import DATASET as DESK_DATASET
from quantlytic_tests.services.desk import STRATEGY, Desk, recorded_days
from quantlytic_tests.services.floor import Floor
from quantlytic_tests.services.test_bot_account import bot
from quantlytic_tests.storage.places import opened

DATASET = replace(
    DESK_DATASET,
    features=STRATEGY.declared,
    feature_intervals=("1d",),
    symbols=tuple(map(Instrument, STRATEGY.symbols)),
)
FIRST = date(2011, 1, 3)
# The recorded days have one open time all year, the live path the calendar's: the same until clocks change.
BEFORE = date(2011, 3, 12)


@pytest.fixture
def resources(tmp_path):
    with opened("embedded", tmp_path / "live") as place:
        yield place.resources


def days() -> pl.DataFrame:
    return recorded_days().filter(pl.col("session") < BEFORE)


def live(resources: Resources, trade: bool, strategies=(STRATEGY,)) -> LiveProcess:
    process = LiveProcess(
        DATASET, list(strategies), resources.bus, resources.hot, resources.lake, {}, lambda _: None,
        books=resources.accounts, trade=trade,
    )  # fmt: skip
    process.begin()
    return process


def bring(resources: Resources, process: LiveProcess, bars: pl.DataFrame, at_once: int = 1) -> None:
    """Publish bars day by day, and let the live path take them."""
    sessions = bars.sort("open_time", "symbol").partition_by("open_time", maintain_order=True)
    for start in range(0, len(sessions), at_once):
        publish(resources, pl.concat(sessions[start : start + at_once]))
        while process.step(0):
            pass


def publish(resources: Resources, bars: pl.DataFrame) -> None:
    rows = bars.with_columns(
        pl.lit(None, pl.Float64).alias("vwap"), pl.lit(None, pl.Int64).alias("trade_count"),
        pl.lit("feed").alias("vendor"), pl.col("close_time").alias("fetched_at"), pl.lit("none").alias("adjustment"),
    ).select(RAW_SCHEMA.names()).cast(dict(RAW_SCHEMA))  # fmt: skip
    resources.bus.publish(bars_topic(DATASET.name), encode_bars(rows), rows["symbol"].to_list(), BAR_HEADERS)


def test_a_live_account_is_the_one_that_the_asset_writes_whatever_comes_at_once(resources, tmp_path):
    bars = days().filter(pl.col("session") >= FIRST)
    process = live(resources, trade=True)
    bring(resources, process, bars.filter(pl.col("session") < date(2011, 2, 15)))
    # A new process goes on from there, and takes several days at once.
    process = live(resources, trade=True)
    bring(resources, process, bars.filter(pl.col("session") >= date(2011, 2, 15)), at_once=5)
    mine = resources.accounts.events("cross")
    assert mine.filter(pl.col("kind") == "fill").height > 2
    # Days are served by the month, as they are partitioned.
    with resources.hot.read() as reader:
        blocks = dict(reader.blocks(DATASET.name, "bars/1d", "AAPL"))
    assert [day.isoformat() for day in blocks] == ["2011-01-01", "2011-02-01", "2011-03-01"]
    assert sum(block.count for block in blocks.values()) == bars.filter(pl.col("symbol") == "AAPL").height

    # The asset reads the same features and bars from a lake.
    desk = Desk(tmp_path / "asset", bars)
    shown = compute(bars.drop("sma_5", "sma_20", "ret_1"), Registry().features(["sma(5)", "sma(20)", "ret(1)"]))
    desk.give(shown)
    desk.trade(FIRST, BEFORE)
    theirs = desk.accounts.events("cross")
    assert mine.drop("recorded_at").equals(theirs.drop("recorded_at"))
    # Whoever comes second trades nothing again.
    assert read_history(desk.lake, DATASET, STRATEGY, None, FIRST) is not None
    assert desk.trade(FIRST, BEFORE).events == 0


def test_a_bot_remembers_on_the_live_path_what_it_remembers_in_the_asset(resources, tmp_path):
    bars = days().filter(pl.col("session") >= FIRST)
    strategy = bot(tmp_path)
    # A new process every three weeks: what the bot keeps goes on with its account.
    cuts = [FIRST, date(2011, 1, 24), date(2011, 2, 15), BEFORE]
    for first, before in pairwise(cuts):
        process = live(resources, trade=True, strategies=(strategy,))
        part = bars.filter(pl.col("session").is_between(first, before, closed="left"))
        bring(resources, process, part, at_once=1 if first == FIRST else 4)
    mine = resources.accounts.events("cross")
    assert mine.filter(pl.col("kind") == "fill").height > 10

    desk = Desk(tmp_path / "asset", bars)
    desk.give(compute(bars.drop("sma_5", "sma_20", "ret_1"), Registry().features(["sma(5)", "sma(20)", "ret(1)"])))
    desk.trade(FIRST, BEFORE, strategy=strategy, dataset=replace(DATASET, features=strategy.declared))
    assert mine.drop("recorded_at").equals(desk.accounts.events("cross").drop("recorded_at"))
    assert resources.accounts.last("cross").bot == desk.accounts.last("cross").bot


@pytest.mark.parametrize("burst", ["ends", "goes on for too long"])
def test_orders_wait_until_the_signals_of_bars_that_end_together_are_out(resources, monkeypatch, burst):
    monkeypatch.setattr("quantlytic_assets.live.bursts._QUIET", 60.0)
    monkeypatch.setattr("quantlytic_assets.live.bursts._LONGEST", 60.0 if burst == "ends" else 0.0)
    process = live(resources, trade=True)
    desk, signals = process._desks["cross"], signals_topic("cross")
    first = days().filter(pl.col("session") == FIRST)
    # By how many signals each symbol's bars were traded.
    traded: dict[str, int] = {}
    trade = desk.trade

    def noted(lines, changed, wants):
        process._sender.settle()
        said = sum(end - start for start, end in resources.bus.watermarks(signals).values())
        traded.update({row.bar.symbol: said for row in changed})
        return trade(lines, changed, wants)

    monkeypatch.setattr(desk, "trade", noted)
    for number, symbol in enumerate(STRATEGY.symbols, 1):
        publish(resources, first.filter(pl.col("symbol") == symbol))
        assert process.step(0) == 1
        assert len(traded) == (0 if burst == "ends" else number)
    assert process.step(0) == 0
    symbols = len(STRATEGY.symbols)
    wanted = [symbols] * symbols if burst == "ends" else list(range(1, symbols + 1))
    assert [traded[symbol] for symbol in STRATEGY.symbols] == wanted


def test_the_time_to_orders_runs_from_the_first_bar_of_a_burst(resources, monkeypatch):
    monkeypatch.setattr("quantlytic_assets.live.bursts._QUIET", 60.0)
    monkeypatch.setattr("quantlytic_assets.live.bursts._LONGEST", 60.0)
    process = live(resources, trade=False)
    for _, day in days().filter(pl.col("session") >= FIRST).group_by("session", maintain_order=True):
        first = pl.col("symbol") == STRATEGY.symbols[0]
        publish(resources, day.filter(first))
        assert process.step(0) == 1
        time.sleep(0.02)
        publish(resources, day.filter(~first))
        while process.step(0):
            pass
    told = process._stages.told()["orders"]
    assert sum(told["counts"]) > 2 and told["sum"] >= 0.02 * sum(told["counts"])


def test_what_a_killed_process_has_said_is_traded_by_the_next_one(resources, monkeypatch):
    bars = days().filter(pl.col("session") >= FIRST)
    *before, last = bars["session"].unique().sort().to_list()[:9]
    process = live(resources, trade=True)
    bring(resources, process, bars.filter(pl.col("session").is_in(before)))
    monkeypatch.setattr("quantlytic_assets.live.bursts._QUIET", 60.0)
    monkeypatch.setattr("quantlytic_assets.live.bursts._LONGEST", 60.0)
    publish(resources, bars.filter(pl.col("session") == last))
    # Its signals are out when the process is gone.
    assert process.step(0) > 0
    assert resources.accounts.last("cross").session == before[-1]
    process = live(resources, trade=True)
    assert process.step(0) == 0
    assert resources.accounts.last("cross").session == last
    with opened("embedded", resources.settings.data.parent / "undisturbed") as place:
        other = live(place.resources, trade=True)
        bring(place.resources, other, bars.filter(pl.col("session") <= last))
        wanted, mine = (one.accounts.events("cross").drop("recorded_at") for one in (place.resources, resources))
        assert mine.equals(wanted)


@pytest.mark.parametrize("at_once", [1, 12])
def test_without_trade_the_account_goes_on_in_memory_alone(resources, at_once):
    bars = days().filter(pl.col("session") >= FIRST)
    process = live(resources, trade=False)
    bring(resources, process, bars, at_once)
    assert resources.accounts.last("cross") is None and resources.accounts.events("cross").is_empty()
    with resources.hot.read() as reader:
        told = [entry.body for entry in reader.journal(0, most=100_000) if entry.channel[0] == "orders"]
    assert len(told) > 5 and all(b'"account":"rehearsal"' in one for one in told)
    # What was rehearsed is what is traded.
    with opened("embedded", resources.settings.data.parent / "real") as place:
        process = live(place.resources, trade=True)
        bring(place.resources, process, bars)
        assert len(place.resources.accounts.events("cross")) == len(told)


def test_orders_of_a_broker_are_written_by_the_live_path_and_are_those_of_the_asset(tmp_path):
    with Floor(tmp_path).open() as asset:
        sessions = asset.sessions()
        asset.run(sessions)
        wanted = asset.desk.accounts.events("cross")
        assert wanted.filter(pl.col("kind") == "fill").height >= 2
    (tmp_path / "live").mkdir()
    with Floor(tmp_path / "live").open() as floor, opened("embedded", tmp_path / "place") as place:
        known = replace(DATASET, first_session=floor.days["session"].min())
        process = LiveProcess(
            known, [floor.strategy], place.resources.bus, place.resources.hot, floor.desk.lake, {}, lambda _: None,
            books=floor.desk.accounts, trade=True, clock=lambda: floor.bench.now.timestamp(), ledger=floor.ledger,
        )  # fmt: skip
        process.begin()
        # What came long ago is no reason to send anything now.
        floor.bench.now = floor.days.filter(pl.col("session") == sessions[0])["available_at"].max()
        bring(place.resources, process, floor.days.filter(pl.col("session") < sessions[0]), at_once=100)
        assert floor.desk.accounts.last("cross") is None
        for number, session in enumerate(sessions):
            if number:
                floor.morning(session)
            bars = floor.days.filter(pl.col("session") == session)
            floor.bench.now = bars["available_at"].max() + timedelta(hours=1)
            floor.bench.book.close_market()
            floor.settle()
            bring(place.resources, process, bars)
            floor.settle()
        mine = floor.desk.accounts.events("cross")
        assert mine.drop("recorded_at").equals(wanted.drop("recorded_at"))
        assert floor.held() == floor.bench.book.held() != {}
        assert sorted(floor.bench.book.refs()) == sorted(set(floor.bench.book.refs()))
