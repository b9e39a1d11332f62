"""Running a feed against the test exchange, and comparing what it put on the bus with the recorded trades."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta

import polars as pl

from quantlytic_assets.feeds.backlog import BacklogRules
from quantlytic_assets.feeds.connection import ConnectionRules
from quantlytic_assets.feeds.feed import Feed, FeedRules
from quantlytic_assets.feeds.venue import make_venue
from quantlytic_assets.market_data.stream.ticks import decode_ticks
from quantlytic_assets.market_data.wire.records import decode
from quantlytic_assets.settings import Settings
from quantlytic_assets.storage.bus import Bus, bars_topic, ticks_topic
from quantlytic_assets.universe.models import Dataset, Instrument
from quantlytic_assets.vendors.registry import make_vendor
from quantlytic_tests.feeds.exchange import Exchange
from quantlytic_tests.feeds.recorded import Recorded, bars_of
from quantlytic_tests.frames import make_dataset

# The exchange's time runs fast: waits that are measured by it are short by themselves.
QUICK = FeedRules(
    lookback=timedelta(minutes=30),
    tick=timedelta(seconds=0.02),
    publish=timedelta(seconds=0.05),
    stop=timedelta(seconds=10),
    connection=ConnectionRules(silence=10, first_wait=0.05, longest_wait=0.2, healthy=0.5),
    # Nothing is the last word within the seconds that a slow machine may take.
    backlog=BacklogRules(after=3, settled=20_000, again=60, first_wait=5, longest_wait=60),
)


def fed_dataset(feed: str, symbols: Sequence[str | Instrument]) -> Dataset:
    """A dataset with a feed."""
    return make_dataset(
        calendar="24/7", interval="1m", first=date(2024, 1, 1), last=None, symbols=symbols, name="live", feed=feed
    )


def make_feed(
    exchange: Exchange, bus: Bus, dataset: Dataset, rules: FeedRules = QUICK, said: list[str] | None = None
) -> Feed:
    """A feed of the exchange's markets."""
    settings = Settings(
        binance_ws=exchange.ws, binance_rest=exchange.rest, coinbase_ws=exchange.ws, coinbase_rest=exchange.rest
    )
    venue = make_venue(dataset.feed, dataset.symbols, settings)
    vendor = make_vendor(venue.name, settings)
    write = said.append if said is not None else lambda line: None
    return Feed(dataset, dataset.symbols, venue, vendor, bus, write, rules=rules)


def feed_until(feed: Feed, done: Callable[[], bool], seconds: float = 60) -> None:
    """Run the feed until `done`; fails when that takes too long."""

    async def run() -> None:
        stopping = asyncio.Event()
        running = asyncio.create_task(feed.run(stopping))
        try:
            async with asyncio.timeout(seconds):
                while not done():
                    await asyncio.sleep(0.05)
                    if running.done():
                        running.result()
        finally:
            stopping.set()
            await running

    asyncio.run(run())


def bars_published(bus: Bus, dataset: str = "live") -> pl.DataFrame:
    """All bars of a dataset's topic."""
    topic = bars_topic(dataset)
    frames = []
    for partition, (first, last) in bus.watermarks(topic).items():
        records = bus.read(topic, partition, first, last)
        decoded = decode(records.offsets, records.headers, records.values)
        assert decoded.rejected.is_empty(), decoded.rejected["reason"].to_list()
        frames.append(decoded.bars)
    return pl.concat(frames) if frames else decode([], [], []).bars


def ticks_published(bus: Bus, dataset: str = "live") -> pl.DataFrame:
    """All trades of a market's topic."""
    topic = ticks_topic(dataset)
    frames = [decode_ticks([])]
    for partition, (first, last) in bus.watermarks(topic).items():
        frames.append(decode_ticks(bus.read(topic, partition, first, last).values))
    return pl.concat(frames)


def recorded_minutes(markets: dict[str, Sequence[Recorded]]) -> set[tuple[str, int]]:
    """(symbol, minute in milliseconds) of all bars there must be in the end."""
    return {(symbol, minute) for symbol, them in markets.items() for minute in bars_of(them)}


def minutes_of(bars: pl.DataFrame) -> Counter[tuple[str, int]]:
    """How often each (symbol, minute in milliseconds) is there."""
    return Counter(bars.select("symbol", pl.col("open_time").dt.timestamp("ms")).rows())


def assert_true_bars(
    bars: pl.DataFrame, markets: dict[str, Sequence[Recorded]], counts: bool = True, flat: bool = False
) -> None:
    """Every minute with trades is there, and each bar is what the trades come to, by our symbols.

    `counts`: whether vwap and trade_count must be there as well; Coinbase's candles don't have them. `flat`: whether
    there may be bars without a trade.
    """
    truth = {symbol: bars_of(them) for symbol, them in markets.items()}
    there = minutes_of(bars)
    wanted = recorded_minutes(markets)
    assert wanted - set(there) == set(), "missing"
    for row in bars.iter_rows(named=True):
        minute = int(row["open_time"].timestamp() * 1000)
        bar = truth[row["symbol"]].get(minute)
        if flat and row["trade_count"] == 0:
            assert bar is None and row["volume"] == 0, row
            continue
        assert bar is not None, f"a bar where nothing was traded: {row}"
        got = tuple(row[name] for name in ("open", "high", "low", "close", "volume"))
        assert got == (bar.open, bar.high, bar.low, bar.close, bar.volume), row
        if counts:
            assert row["trade_count"] == bar.trades
            assert abs(row["vwap"] * bar.volume / bar.quote_volume - 1) < 1e-9
        assert row["close_time"] - row["open_time"] == timedelta(minutes=1)
        assert row["fetched_at"] >= row["close_time"]


def utc_ms(ms: int) -> datetime:
    """A UTC time."""
    return datetime.fromtimestamp(ms / 1000, UTC)
