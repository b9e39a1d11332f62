"""Nothing is lost and nothing published twice, whatever the bus does."""

import asyncio
from datetime import datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.feeds.on_bus import KnownBars, bars_on_bus, newest_ticks
from quantlytic_assets.feeds.outbox import Outbox
from quantlytic_assets.feeds.report import Report
from quantlytic_assets.market_data.stream.messages import MINUTE, Trade, micros
from quantlytic_assets.market_data.stream.ticks import TICK_HEADERS, encode_ticks, tick_frame
from quantlytic_assets.market_data.wire.records import BAR_HEADERS, encode_bars
from quantlytic_assets.storage.bus import BusUnavailable, LocalBus, bars_topic, ticks_topic
from quantlytic_tests.feeds.feeding import bars_published, ticks_published
from quantlytic_tests.frames import make_bars, minutes, utc

BEGIN = utc("2025-03-03T10:00")
NOW = utc("2025-03-03T12:00")
DAY = timedelta(days=1)


class Moody(LocalBus):
    """A bus that fails the calls it is told to, by number; a failing publish takes the first half of its records."""

    def __init__(self, root):
        super().__init__(root)
        self.calls = 0
        self.failing: set[int] = set()

    def _mood(self) -> None:
        self.calls += 1
        if self.calls in self.failing:
            raise BusUnavailable("no bus answers")

    def publish(self, topic, values, keys, headers):
        try:
            self._mood()
        except BusUnavailable:
            half = len(values) // 2
            super().publish(topic, values[:half], keys[:half], headers)
            raise
        super().publish(topic, values, keys, headers)

    def read(self, topic, partition, first, last):
        self._mood()
        return super().read(topic, partition, first, last)


def bars_at(*numbers: int, symbol: str = "A", fetched_at: datetime = NOW, **columns: object) -> pl.DataFrame:
    return make_bars(symbol, [minutes(BEGIN, one + 1)[-1] for one in numbers], fetched_at=fetched_at, **columns)


def trades(*numbers: int) -> list[Trade]:
    return [Trade("A", number, micros(BEGIN) + number, 100.0, 1.0, "buy", micros(BEGIN)) for number in numbers]


def make_outbox(bus, said: list[str] | None = None) -> Outbox:
    report = Report("live", said.append if said is not None else lambda line: None)
    outbox = Outbox(bus, "live", "binance", report, lambda: NOW, DAY, 0.02)
    outbox.begin()
    return outbox


def run_until(outbox: Outbox, done) -> None:
    async def run() -> None:
        stopping = asyncio.Event()
        running = asyncio.create_task(outbox.run(stopping))
        async with asyncio.timeout(60):
            while not done():
                await asyncio.sleep(0.01)
        stopping.set()
        await running

    asyncio.run(run())


class TestOutbox:
    """What is put in comes out on the bus."""

    def test_bars_and_trades_are_published(self, bus):
        outbox = make_outbox(bus)
        outbox.put_bars(bars_at(0, 1))
        outbox.put_trades(trades(1, 2, 3))
        run_until(outbox, lambda: outbox.ready.is_set())
        assert bars_published(bus).drop("bus_offset").sort("open_time").equals(bars_at(0, 1))
        assert ticks_published(bus).equals(tick_frame(trades(1, 2, 3), "binance"))

    def test_nothing_is_published_before_it_is_known_what_time_it_is(self, tmp_path):
        bus = Moody(tmp_path)
        outbox = Outbox(bus, "live", "binance", Report("live", print), lambda: NOW, DAY, 0.02)
        outbox.put_bars(bars_at(0))

        async def run() -> None:
            stopping = asyncio.Event()
            stopping.set()
            await outbox.run(stopping)

        asyncio.run(run())
        assert bus.calls == 0 and outbox.waiting == 1

    def test_a_bar_that_stands_on_the_bus_is_not_published_again_unless_it_is_another(self, bus):
        bus.publish(bars_topic("live"), encode_bars(bars_at(0, 1)), ["A", "A"], BAR_HEADERS)
        outbox = make_outbox(bus)
        outbox.put_bars(bars_at(0, fetched_at=NOW + DAY))
        outbox.put_bars(bars_at(1, close=999.0))
        outbox.put_bars(bars_at(2))
        run_until(outbox, lambda: not outbox.waiting)
        published = bars_published(bus).sort("bus_offset")
        assert published.select("open_time", "close").rows()[2:] == [
            *bars_at(1, close=999.0).select("open_time", "close").rows(),
            *bars_at(2).select("open_time", "close").rows(),
        ]

    def test_bars_of_one_minute_that_wait_together_are_one(self, bus):
        outbox = make_outbox(bus)
        outbox.put_bars(bars_at(0, close=1.0))
        outbox.put_bars(bars_at(0, close=2.0))
        run_until(outbox, lambda: not outbox.waiting)
        assert bars_published(bus)["close"].to_list() == [2.0]

    def test_minutes_that_are_not_on_the_bus_are_told(self, bus):
        bus.publish(bars_topic("live"), encode_bars(bars_at(1)), ["A"], BAR_HEADERS)
        outbox = make_outbox(bus)
        run_until(outbox, lambda: outbox.ready.is_set())
        asked = [("A", micros(BEGIN) + number * MINUTE) for number in range(3)] + [("B", micros(BEGIN) + MINUTE)]
        assert outbox.missing(asked) == [asked[0], asked[2], asked[3]]
        assert outbox.missing([]) == []

    @pytest.mark.parametrize("failing", [{1}, {2}, {1, 2}, {1, 2, 3, 4}, {2, 4, 6}])
    def test_a_bus_that_fails_half_way_gets_each_record_once_in_the_end(self, tmp_path, failing):
        bus, said = Moody(tmp_path), []
        bus.publish(bars_topic("live"), encode_bars(bars_at(100)), ["A"], BAR_HEADERS)
        bus.publish(ticks_topic("live"), encode_ticks(tick_frame(trades(1), "binance")), ["A"], TICK_HEADERS)
        bus.calls, bus.failing = 0, failing
        outbox = make_outbox(bus, said)
        for number in range(10):
            outbox.put_bars(bars_at(number))
        outbox.put_trades(trades(*range(2, 12)))
        run_until(outbox, lambda: not outbox.waiting and len(ticks_published(LocalBus(tmp_path))) >= 11)
        assert sorted(bars_published(LocalBus(tmp_path))["open_time"]) == [
            *minutes(BEGIN, 10), *bars_at(100)["open_time"],
        ]  # fmt: skip
        assert sorted(ticks_published(LocalBus(tmp_path))["trade_id"]) == list(range(1, 12))

    def test_what_can_t_be_published_stays_and_is_told(self, tmp_path):
        bus, said = Moody(tmp_path), []
        bus.failing = set(range(1_000))
        report = Report("live", said.append)
        outbox = Outbox(bus, "live", "binance", report, lambda: NOW, DAY, 0.02)
        outbox.begin()
        outbox.put_bars(bars_at(0, 1))
        run_until(outbox, lambda: bus.calls >= 3)
        assert outbox.waiting == 2
        report.line()
        assert "the bus does not take it: no bus answers" in said[-1]


class TestKnownBars:
    """Which bars are news."""

    def test_rounding_is_no_news_and_everything_else_is(self):
        known = KnownBars()
        known.learn(bars_at(0, 1, 2, close=100.0))
        assert known.fresh(bars_at(0, close=100.0 + 1e-9)).is_empty()
        assert len(known.fresh(bars_at(0, close=100.001))) == 1
        assert len(known.fresh(bars_at(0, close=100.0, volume=0.5))) == 1
        assert len(known.fresh(bars_at(3, close=100.0))) == 1
        assert len(known.fresh(bars_at(0, symbol="B", close=100.0))) == 1

    def test_nulls_are_like_nulls(self):
        known = KnownBars()
        known.learn(bars_at(0, close=None))
        assert known.fresh(bars_at(0, close=None)).is_empty()
        assert len(known.fresh(bars_at(0, close=1.0))) == 1

    def test_of_one_minute_the_latest_counts_and_old_ones_are_forgotten(self):
        known = KnownBars()
        known.learn(bars_at(0, close=1.0))
        known.learn(bars_at(0, close=2.0))
        assert known.fresh(bars_at(0, close=2.0)).is_empty() and len(known.fresh(bars_at(0, close=1.0))) == 1
        known.forget(BEGIN + timedelta(minutes=1))
        assert len(known.fresh(bars_at(0, close=2.0))) == 1


class TestOnTheBus:
    """Reading the end of a topic."""

    def test_all_bars_since_a_time_are_found_behind_any_others(self, bus):
        topic = bars_topic("live")
        for number in range(30):
            for symbol in ("A", "B"):
                bars = bars_at(number, symbol=symbol, fetched_at=BEGIN + timedelta(minutes=number + 1))
                bus.publish(topic, encode_bars(bars), [symbol], BAR_HEADERS)
        # A file of old bars, imported just now.
        old = make_bars("A", minutes(BEGIN - 30 * DAY, 20), fetched_at=BEGIN + timedelta(minutes=31))
        bus.publish(topic, encode_bars(old), ["A"] * 20, BAR_HEADERS)
        since = BEGIN + timedelta(minutes=10)
        found = bars_on_bus(bus, topic, since, 7).sort("symbol", "open_time")
        assert found["open_time"].to_list() == [since + timedelta(minutes=i) for i in range(20)] * 2

    def test_records_that_are_no_bars_are_passed_over(self, bus):
        topic = bars_topic("live")
        bus.publish(topic, encode_bars(bars_at(0)), ["A"], BAR_HEADERS)
        bus.publish(topic, [b"junk"] * 20, ["A"] * 20, BAR_HEADERS)
        assert len(bars_on_bus(bus, topic, BEGIN, 7)) == 1

    def test_reading_ends_where_bars_were_fetched_before(self, tmp_path):
        bus = Moody(tmp_path)
        for number in range(70):
            bars = bars_at(number, fetched_at=BEGIN + timedelta(minutes=number + 1))
            bus.publish(bars_topic("live"), encode_bars(bars), ["A"], BAR_HEADERS)
        bus.calls = 0
        assert len(bars_on_bus(bus, bars_topic("live"), BEGIN + timedelta(minutes=60), 7)) == 10
        assert bus.calls == 3

    def test_an_unknown_topic_holds_nothing(self, bus):
        assert bars_on_bus(bus, bars_topic("nobody"), BEGIN).is_empty()
        assert newest_ticks(bus, ticks_topic("nobody")).is_empty()

    def test_the_newest_trades_are_found(self, bus):
        ticks = tick_frame(trades(*range(20)), "binance")
        bus.publish(ticks_topic("live"), encode_ticks(ticks), ["A"] * 20, TICK_HEADERS)
        assert newest_ticks(bus, ticks_topic("live"), 7)["trade_id"].to_list() == list(range(13, 20))
