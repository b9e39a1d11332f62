"""A feed against an exchange that lives through the recorded trades, with everything going wrong that can.

Whatever happens, each minute's bar is on the bus in the end, once, and is what all its trades come to.
"""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from quantlytic_assets.storage.bus import BusUnavailable, LocalBus, bars_topic
from quantlytic_assets.universe.models import Instrument
from quantlytic_tests.feeds.exchange import Exchange, Plan, Reply
from quantlytic_tests.feeds.feeding import (
    QUICK,
    assert_true_bars,
    bars_published,
    fed_dataset,
    feed_until,
    make_feed,
    minutes_of,
    recorded_minutes,
    ticks_published,
)
from quantlytic_tests.feeds.recorded import thinned

# A busy market and a quiet one, by our names. The busy one has half of the trades that were recorded: all of them take
# twice as long and show nothing else.
OURS = {"BTC-USD": thinned(2), "QUIET-USD": thinned(500)}
AT_BINANCE = {"BTCUSDT": OURS["BTC-USD"], "QUIETUSDC": OURS["QUIET-USD"]}
SYMBOLS = ["BTC-USD", Instrument("QUIET-USD", names={"binance": "QUIETUSDC"})]
SPEED = 500

# Where the venue falls silent nobody wants to wait for long; where it does not, a slow machine is no silence.
IMPATIENT = replace(QUICK, connection=replace(QUICK.connection, silence=0.4))

FAULTS = {
    "none": [],
    "closed": [Plan(after=1250, close=1001), Plan(after=750, close=1008), Plan(after=750, close=1012)],
    "torn": [Plan(after=1250, reset=True), Plan(after=4, reset=True), Plan(after=1500, reset=True)],
    "silent": [Plan(after=2000, silent=True)],
    "silent from the start": [Plan(after=0, silent=True)],
    "lossy": [Plan(after=350, skip=5)],
    "losing whole minutes": [Plan(after=1500, skip=2000)],
    "repeating": [Plan(repeat=3)],
    "out of order": [Plan(swap=9)],
    "cut after its time": [Plan(lifetime=0.5), Plan(lifetime=0.4), Plan(lifetime=0.5)],
    "shut down": [Plan(after=1500, shutdown=True)],
    "garbled": [Plan(after=1500, garbage=True)],
    "all of it": [
        Plan(after=600, reset=True, swap=4, repeat=10),
        Plan(after=1000, close=1012, skip=3, repeat=5),
        Plan(after=750, silent=True, swap=7),
        Plan(after=450, shutdown=True, repeat=2),
        Plan(after=500, skip=40, swap=3),
    ],
}
# Klines have no numbers to lose or to mix up, and Coinbase no word for going.
CASES = [
    *(("binance_trades", fault) for fault in FAULTS),
    *(("binance_klines", fault) for fault in ("none", "closed", "silent", "repeating", "garbled", "all of it")),
    *(("coinbase_trades", fault) for fault in ("none", "closed", "silent", "lossy", "out of order", "all of it")),
]


def run(exchange: Exchange, bus, feed: str, said: list[str] | None = None, rules=QUICK, **options) -> None:
    """Feed until every recorded minute is on the bus."""
    wanted = recorded_minutes(OURS)
    live = make_feed(exchange, bus, fed_dataset(feed, SYMBOLS), rules, said)
    feed_until(live, lambda: wanted <= set(minutes_of(bars_published(bus))), **options)


def open_exchange(feed: str, **options) -> Exchange:
    coinbase = feed.startswith("coinbase")
    return Exchange(OURS if coinbase else AT_BINANCE, options.pop("speed", SPEED), coinbase=coinbase, **options)


def assert_all_is_well(bus, feed: str) -> None:
    bars = bars_published(bus)
    assert_true_bars(bars, OURS, counts=feed.startswith("binance"), flat=feed == "binance_klines")
    assert max(minutes_of(bars).values()) == 1, "published twice"
    assert set(bars["vendor"]) == {feed.split("_")[0]}
    ticks = ticks_published(bus)
    assert not ticks.select("symbol", "trade_id").is_duplicated().any()
    if feed == "binance_klines":
        assert ticks.is_empty()


@pytest.mark.parametrize(("feed", "fault"), CASES)
def test_each_minute_is_published_once_and_right(tmp_path, feed, fault):
    bus = LocalBus(tmp_path)
    plans = [replace(plan) for plan in FAULTS[fault]]
    rules = IMPATIENT if any(plan.silent for plan in plans) else QUICK
    with open_exchange(feed, plans=plans).serving() as exchange:
        run(exchange, bus, feed, rules=rules)
        assert_all_is_well(bus, feed)
        if fault == "none" and feed != "binance_klines":
            published = ticks_published(bus).sort("symbol", "trade_id")
            numbers = [one.number for symbol in sorted(OURS) for one in OURS[symbol]]
            assert published["trade_id"].to_list() == numbers, "all trades"
            assert exchange.connections == 1
        if fault in ("closed", "torn", "silent", "cut after its time", "shut down", "all of it"):
            assert exchange.connections > 1


@pytest.mark.parametrize("feed", ["binance_trades", "coinbase_trades"])
def test_so_it_is_on_every_bus(bus, feed):
    with open_exchange(feed, plans=[replace(plan) for plan in FAULTS["all of it"]]).serving() as exchange:
        run(exchange, bus, feed, rules=IMPATIENT)
        assert_all_is_well(bus, feed)


def test_whole_minutes_are_built_from_trades_without_asking(tmp_path):
    """REST is broken all the time: what the stream brought whole is there all the same."""
    bus = LocalBus(tmp_path)
    replies = [Reply(500, "broken")] * 10_000
    with open_exchange("binance_trades", replies=replies).serving() as exchange:
        first = exchange.begin - exchange.begin % 60_000
        whole = {one for one in recorded_minutes(OURS) if one[1] > first}
        feed = make_feed(exchange, bus, fed_dataset("binance_trades", SYMBOLS))
        feed_until(feed, lambda: whole <= set(minutes_of(bars_published(bus))))
    assert set(minutes_of(bars_published(bus))) == whole


@pytest.mark.parametrize(
    "replies",
    [
        [Reply(429, '{"code": -1003, "msg": "Too many requests"}', {"Retry-After": "7"})] * 2,
        [Reply(418, '{"code": -1003, "msg": "IP banned"}', {"Retry-After": "60"})],
        [Reply(200, "[]")] * 4,
        [Reply(200, "<html>maintenance</html>", kind="text/html")] * 3,
        [Reply(503, "<html>bad gateway</html>", kind="text/html")] * 3,
        [Reply(200, '[[1, "2"]]')],
    ],
    ids=["429", "418", "empty", "html", "503", "malformed"],
)
@pytest.mark.parametrize("feed", ["binance_trades", "coinbase_trades"])
def test_a_rest_side_in_trouble_is_asked_again(tmp_path, feed, replies):
    bus, said = LocalBus(tmp_path), []
    plans = [Plan(after=1250, close=1001)]
    with open_exchange(feed, plans=plans, replies=list(replies)).serving() as exchange:
        run(exchange, bus, feed, said)
        assert_all_is_well(bus, feed)
        assert not exchange.replies
    if replies[0].body != "[]":
        assert "does not give" in " ".join(said)


def test_a_missing_minute_is_asked_for_and_no_other(tmp_path):
    bus = LocalBus(tmp_path)
    with open_exchange("binance_trades", plans=[Plan(after=700, skip=5)]).serving() as exchange:
        run(exchange, bus, "binance_trades", rules=replace(QUICK, lookback=timedelta(minutes=1)))
        asked = [one for one in exchange.requests if one["symbol"] == "BTCUSDT"]
    begin = exchange.begin - exchange.begin % 60_000
    minutes = {(int(one["startTime"]) - begin) // 60_000 for one in asked}
    # The minute in which it connected, and the one with the hole.
    assert minutes <= {0, 1} and 0 in minutes
    assert {one["symbol"] for one in exchange.requests} <= {"BTCUSDT", "QUIETUSDC"}


def test_a_started_feed_publishes_what_the_bus_lacks_and_nothing_else(bus):
    """A feed that ran before had published some of it."""
    with open_exchange("binance_trades").serving() as exchange:
        exchange.hold = exchange.begin + 300_000
        early = {one for one in recorded_minutes(OURS) if one[1] + 120_000 < exchange.hold}
        feed = make_feed(exchange, bus, fed_dataset("binance_trades", SYMBOLS))
        feed_until(feed, lambda: early <= set(minutes_of(bars_published(bus))))
        before = set(minutes_of(bars_published(bus)))
        exchange.release()
        run(exchange, bus, "binance_trades")
        assert_all_is_well(bus, "binance_trades")
    assert early <= before < set(minutes_of(bars_published(bus)))


def test_a_feed_goes_back_no_farther_than_its_lookback_and_the_symbol_s_first_day(tmp_path):
    bus = LocalBus(tmp_path)
    rules = replace(QUICK, lookback=timedelta(hours=24))
    dataset = fed_dataset("binance_trades", SYMBOLS)
    with open_exchange("binance_trades").serving() as exchange:
        feed = make_feed(exchange, bus, dataset, rules)

        def oldest() -> int:
            return min((int(one["startTime"]) for one in exchange.requests), default=exchange.begin)

        # The newest stretch is asked for first: its bars may be published before the oldest one is asked for.
        feed_until(feed, lambda: len(bars_published(bus)) >= 4 and oldest() < exchange.begin - 86_300_000)
        assert exchange.begin - 86_400_000 <= oldest()
        spans = [int(one["endTime"]) - int(one["startTime"]) for one in exchange.requests]
        assert max(spans) < 1000 * 60_000
    first = replace(dataset, first_session=dataset.first_session.replace(month=8, day=9))
    with open_exchange("binance_trades").serving() as exchange:
        feed = make_feed(exchange, LocalBus(tmp_path / "b"), first, rules)
        feed_until(feed, lambda: len(bars_published(LocalBus(tmp_path / "b"))) >= 4)
        midnight = exchange.begin - exchange.begin % 86_400_000 + 86_400_000
        assert all(int(one["startTime"]) >= midnight for one in exchange.requests)


class AwayBus(LocalBus):
    """A bus that is away for some of its calls, by number."""

    def __init__(self, root, away):
        super().__init__(root)
        self.calls, self.away = 0, away

    def _answer(self) -> None:
        self.calls += 1
        if self.calls in self.away:
            raise BusUnavailable("no bus answers")

    def publish(self, topic, values, keys, headers):
        self._answer()
        super().publish(topic, values, keys, headers)

    def watermarks(self, topic):
        self._answer()
        return super().watermarks(topic)


@pytest.mark.parametrize("away", [range(1, 6), range(5, 10)], ids=["from the start", "later"])
def test_bars_wait_for_a_bus_that_is_away(tmp_path, away):
    bus, there, said = AwayBus(tmp_path, away), LocalBus(tmp_path), []
    wanted = recorded_minutes(OURS)
    with open_exchange("binance_trades").serving() as exchange:
        feed = make_feed(exchange, bus, fed_dataset("binance_trades", SYMBOLS), said=said)
        feed_until(feed, lambda: wanted <= set(minutes_of(bars_published(there))) and bus.calls > away[-1])
    assert_all_is_well(there, "binance_trades")
    assert len(ticks_published(there)) == sum(map(len, OURS.values()))
    assert "the bus does not take it: no bus answers" in " ".join(said)
    assert "the bus takes it again" in " ".join(said)


def test_a_market_whose_heartbeats_name_no_trade_is_watched_by_its_numbers(tmp_path):
    """Coinbase's heartbeats say 0 to some users."""
    bus = LocalBus(tmp_path)
    exchange = open_exchange("coinbase_trades", plans=[Plan(after=700, skip=5), Plan()])
    honest = exchange._regular
    exchange._regular = lambda name, at: (
        json.dumps(json.loads(text) | {"last_trade_id": 0}) for text in honest(name, at)
    )
    with exchange.serving():
        run(exchange, bus, "coinbase_trades")
    assert_all_is_well(bus, "coinbase_trades")


def test_a_stream_without_any_klines_will_do(tmp_path):
    bus = LocalBus(tmp_path)
    with open_exchange("binance_trades", klines=False, plans=[Plan(after=1250, close=1001)]).serving() as exchange:
        # Nothing is heard any more after the last trade, so that the last minute is not over for this feed.
        last = exchange.end - exchange.end % 60_000
        wanted = {one for one in recorded_minutes(OURS) if one[1] < last}
        feed = make_feed(exchange, bus, fed_dataset("binance_trades", SYMBOLS))
        feed_until(feed, lambda: wanted <= set(minutes_of(bars_published(bus))))
    bars = bars_published(bus)
    assert max(minutes_of(bars).values()) == 1
    assert set(minutes_of(bars)) == wanted


def test_a_line_says_what_is_fed_and_what_became_of_it(tmp_path):
    said: list[str] = []
    with open_exchange("binance_trades", plans=[Plan(after=1250, close=1001)]).serving() as exchange:
        run(exchange, LocalBus(tmp_path), "binance_trades", said)
    assert said[0] == "live: 2 symbols from binance"
    assert len(said) == 2 and "23 bars" in said[1] and "connection closed with 1001 as planned" in said[1]
    assert said[1].endswith("stopped")


def test_records_are_keyed_by_symbol(tmp_path):
    bus = LocalBus(tmp_path)
    with open_exchange("binance_trades").serving() as exchange:
        run(exchange, bus, "binance_trades")
    records = bus.read(bars_topic("live"), 0, 0, bus.watermarks(bars_topic("live"))[0][1])
    assert set(records.keys) == set(OURS)
