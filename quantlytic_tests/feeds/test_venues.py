"""What Binance and Coinbase say, and how they are asked to."""

import json

import pytest

from quantlytic_assets.feeds.binance import BinanceStreams
from quantlytic_assets.feeds.coinbase import CoinbaseFeed
from quantlytic_assets.feeds.venue import make_venue
from quantlytic_assets.market_data.stream.messages import Announced, Kline, Message, Trade, micros
from quantlytic_assets.settings import Settings
from quantlytic_assets.universe.models import Instrument
from quantlytic_tests.feeds.recorded import lines, trades
from quantlytic_tests.frames import utc

RECEIVED = 1_723_161_253_000_000
BINANCE = BinanceStreams({"BTCUSDT": "BTC-USD"}, "wss://example.org:9443/", "trades")
KLINES = BinanceStreams({"BTCUSDT": "BTC-USD"}, "wss://example.org", "klines")
COINBASE = CoinbaseFeed({"BTC-USD": "BTC-USD", "SKL-USD": "SKL"}, "wss://example.org")

KLINE = {
    "e": "kline",
    "E": 1672515782136,
    "s": "BTCUSDT",
    "k": {
        "t": 1672515780000, "T": 1672515839999, "s": "BTCUSDT", "i": "1m", "f": 100, "L": 200, "o": "0.0010",
        "c": "0.0020", "h": "0.0025", "l": "0.0015", "v": "1000", "n": 101, "x": False, "q": "1.0000", "V": "500",
        "Q": "0.500", "B": "123456",
    },
}  # fmt: skip
MATCH = {
    "type": "match", "trade_id": 10, "sequence": 50, "maker_order_id": "a", "taker_order_id": "b",
    "time": "2014-11-07T08:19:27.028459Z", "product_id": "BTC-USD", "size": "5.23512", "price": "400.23",
    "side": "sell",
}  # fmt: skip
BEAT = {
    "type": "heartbeat", "sequence": 90, "last_trade_id": 20, "product_id": "BTC-USD",
    "time": "2014-11-07T08:19:28.464459Z",
}  # fmt: skip


def read(venue, data: dict) -> Message:
    return venue.read(json.dumps(data), RECEIVED)


class TestBinance:
    """Streams in the address, trades numbered one by one."""

    def test_all_recorded_messages_are_read(self):
        messages = [BINANCE.read(line, RECEIVED) for line in lines()]
        got = [message.trades[0] for message in messages if message.trades]
        assert [one.trade_id for one in got] == [one.number for one in trades()]
        assert [one.time for one in got] == [one.time * 1000 for one in trades()]
        assert {one.side for one in got} == {"buy", "sell"}
        noise = [message for message in messages if not message.trades]
        assert len(noise) == 1463 and set(noise) == {Message()}

    def test_a_trade_s_side_is_the_one_of_whoever_came_to_trade(self):
        line = next(line for line in lines() if '"t":3735683259' in line)
        assert '"m":true' in line
        (trade,) = BINANCE.read(line, RECEIVED).trades
        assert trade == Trade("BTC-USD", 3735683259, 1723161255342000, 61837.63, 0.02, "sell", RECEIVED)
        message = BINANCE.read(line, RECEIVED)
        assert (message.symbol, message.time, message.alive) == ("BTC-USD", 1723161255343000, True)

    def test_microseconds_are_taken_as_they_are(self):
        times = {"E": 1723161255343001, "T": 1723161255342999}
        message = read(BINANCE, {"e": "trade", "s": "BTCUSDT", "t": 1, "p": "1", "q": "1", "m": False} | times)
        assert (message.time, message.trades[0].time) == (1723161255343001, 1723161255342999)

    def test_a_kline_is_the_last_trade_s_number_to_whoever_takes_trades(self):
        message = read(BINANCE, {"stream": "btcusdt@kline_1m", "data": KLINE})
        assert message.announced == (Announced("BTC-USD", 200, 1672515782136000),)
        assert message.alive and not message.klines
        late = read(BINANCE, KLINE | {"E": 1672515845000})
        assert late.announced[0].time == 1672515839999000, "the trade was before the minute's end"

    def test_a_kline_without_trades_names_none(self):
        message = read(BINANCE, KLINE | {"k": KLINE["k"] | {"f": -1, "L": -1, "n": 0}})
        assert message.announced == () and message.alive

    def test_a_kline_is_a_kline_to_whoever_takes_klines(self):
        message = read(KLINES, KLINE | {"k": KLINE["k"] | {"x": True}})
        assert message.klines == (
            Kline("BTC-USD", 1672515780000000, 100, 200, 0.001, 0.0025, 0.0015, 0.002, 1000.0, 1.0, 101, True),
        )
        assert read(KLINES, KLINE).klines[0].closed is False
        assert not read(KLINES, KLINE | {"k": KLINE["k"] | {"i": "5m"}}).klines

    @pytest.mark.parametrize(
        "data",
        [
            {"e": "serverShutdown", "E": 1},
            {"stream": "x", "data": {"e": "serverShutdown", "E": 1}},
            {"event": {"e": "serverShutdown", "E": 1770123456789}},
        ],
    )
    def test_a_server_that_goes_is_left(self, data):
        assert read(BINANCE, data).shutdown

    def test_errors_are_told_and_acknowledgements_are_not(self):
        assert "Invalid request" in read(BINANCE, {"code": 2, "msg": "Invalid request: too many"}).notice
        assert read(BINANCE, {"result": None, "id": 1}) == Message()

    def test_streams_are_named_in_the_address(self):
        assert BINANCE.url == "wss://example.org:9443/stream?streams=btcusdt@trade/btcusdt@kline_1m"
        assert KLINES.url == "wss://example.org/stream?streams=btcusdt@kline_1m"
        assert BINANCE.greetings == []

    def test_many_streams_are_added_by_message(self):
        names = {f"S{i}USDT": f"S{i}" for i in range(300)}
        venue = BinanceStreams(names, "wss://example.org", "trades")
        asked = venue.url.split("=")[1].split("/")
        for greeting in map(json.loads, venue.greetings):
            assert greeting["method"] == "SUBSCRIBE" and len(greeting["params"]) <= 200
            asked += greeting["params"]
        assert sorted(asked) == sorted(f"s{i}usdt@{kind}" for i in range(300) for kind in ("trade", "kline_1m"))
        assert len({json.loads(greeting)["id"] for greeting in venue.greetings}) == len(venue.greetings)
        with pytest.raises(ValueError, match="1024"):
            BinanceStreams({f"S{i}": f"S{i}" for i in range(513)}, "wss://example.org", "trades")


class TestCoinbase:
    """One subscription, the maker's side, heartbeats."""

    def test_a_match_is_a_trade_of_the_other_side(self):
        message = read(COINBASE, MATCH)
        time = micros(utc("2014-11-07T08:19:27.028459"))
        assert message.trades == (Trade("BTC-USD", 10, time, 400.23, 5.23512, "buy", RECEIVED),)
        assert (message.symbol, message.time, message.alive) == ("BTC-USD", time, True)
        assert read(COINBASE, MATCH | {"side": "buy"}).trades[0].side == "sell"
        assert read(COINBASE, MATCH | {"side": ""}).trades[0].side == "unknown"

    def test_the_last_match_is_a_trade_that_does_not_say_what_time_it_is(self):
        message = read(COINBASE, MATCH | {"type": "last_match"})
        assert message.trades[0].trade_id == 10 and message.time is None

    def test_a_heartbeat_names_the_last_trade_if_it_knows(self):
        time = micros(utc("2014-11-07T08:19:28.464459"))
        assert read(COINBASE, BEAT) == Message("BTC-USD", time, announced=(Announced("BTC-USD", 20, time),), alive=True)
        assert read(COINBASE, BEAT | {"last_trade_id": 0}).announced == ()

    def test_symbols_are_ours(self):
        assert read(COINBASE, MATCH | {"product_id": "SKL-USD"}).trades[0].symbol == "SKL"
        assert read(COINBASE, MATCH | {"product_id": "DOGE-USD"}) == Message()

    def test_it_asks_for_matches_and_heartbeats(self):
        (greeting,) = map(json.loads, COINBASE.greetings)
        assert greeting == {
            "type": "subscribe", "product_ids": ["BTC-USD", "SKL-USD"], "channels": ["matches", "heartbeat"],
        }  # fmt: skip

    def test_errors_are_told_and_the_rest_is_not(self):
        said = {"type": "error", "message": "Failed to subscribe", "reason": "FOO is not a valid product"}
        assert read(COINBASE, said).notice == "Coinbase says: Failed to subscribe FOO is not a valid product"
        assert read(COINBASE, {"type": "subscriptions", "channels": []}) == Message()
        assert read(COINBASE, {"type": "ticker", "product_id": "BTC-USD"}) == Message()


@pytest.mark.parametrize("venue", [BINANCE, KLINES, COINBASE], ids=["trades", "klines", "coinbase"])
@pytest.mark.parametrize(
    "text",
    [
        "", "<html>", "[]", "7", "null", '"x"', "{}", b"\xff\xfe", '{"data": 5}', '{"e": "trade"}',
        '{"e": "kline", "k": 1}',
        '{"e": "trade", "s": "BTCUSDT", "t": "x", "T": 1, "p": "1", "q": "1", "m": true, "E": 1}',
        '{"e": "trade", "s": ["BTCUSDT"]}', '{"type": "match", "product_id": "BTC-USD", "time": 5}',
        '{"type": "match", "product_id": {}}', '{"type": "heartbeat", "product_id": "BTC-USD", "time": "now"}',
        '{"event": [1]}', '{"e": "kline", "s": "BTCUSDT", "k": {"i": "1m"}}',
    ],
)  # fmt: skip
def test_what_can_t_be_read_is_told_and_changes_nothing(venue, text):
    message = venue.read(text, RECEIVED)
    assert message == Message(notice=message.notice)


class TestMakeVenue:
    """From a dataset's feed and symbols."""

    def test_names_are_derived_unless_given(self):
        instruments = [Instrument("BTC-USD"), Instrument("XBT", names={"binance": "XBTUSDC", "coinbase": "XBT-USD"})]
        url = make_venue("binance_klines", instruments, Settings()).url
        assert url == "wss://stream.binance.com:9443/stream?streams=btcusdt@kline_1m/xbtusdc@kline_1m"
        greeting = json.loads(make_venue("coinbase_trades", instruments, Settings()).greetings[0])
        assert greeting["product_ids"] == ["BTC-USD", "XBT-USD"]

    def test_the_address_is_the_settings(self):
        settings = Settings(binance_ws="ws://127.0.0.1:5", coinbase_ws="ws://127.0.0.1:6")
        assert make_venue("binance_trades", [Instrument("A-USD")], settings).url.startswith("ws://127.0.0.1:5/stream")
        assert make_venue("coinbase_trades", [Instrument("A-USD")], settings).url == "ws://127.0.0.1:6"

    def test_two_symbols_of_one_name_are_rejected(self):
        with pytest.raises(ValueError, match="BTC-USD and BTC-USDT are both BTCUSDT"):
            make_venue("binance_trades", [Instrument("BTC-USD"), Instrument("BTC-USDT")], Settings())

    def test_an_unknown_feed_is_rejected(self):
        with pytest.raises(ValueError, match="kraken"):
            make_venue("kraken_trades", [Instrument("A-USD")], Settings())
