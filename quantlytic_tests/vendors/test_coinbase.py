"""Coinbase's candles: newest first, low before high before open, none where nothing was traded."""

import json
from datetime import timedelta

import pytest

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.vendors.coinbase import CoinbaseVendor, coinbase_name
from quantlytic_assets.vendors.policy import fetch_with_policy
from quantlytic_assets.vendors.protocol import BarRequest, VendorError
from quantlytic_tests.feeds.exchange import Exchange, Reply
from quantlytic_tests.feeds.recorded import bars_of, trades
from quantlytic_tests.frames import utc
from quantlytic_tests.vendors import loopback

BEGIN, END = utc("2024-08-08T23:50"), utc("2024-08-09T00:10")
# A candle as the endpoint gave it in March 2024: [time, low, high, open, close, volume].
SEEN = [1710327600, 73241.5, 73402.47, 73243.33, 73370.65, 1.56794406]


@pytest.fixture
def exchange():
    with Exchange({"BTC-USD": trades()}, 1, coinbase=True).serving() as open_one:
        open_one.now = lambda: open_one.end + 600_000
        yield open_one


@pytest.fixture
def vendor(exchange) -> CoinbaseVendor:
    return CoinbaseVendor(exchange.rest + "/")


def request(symbol: str = "BTC-USD", start=BEGIN, end=END, interval: str = "1m", **fields) -> BarRequest:
    return BarRequest("live", symbol, interval, "24/7", start, end, **fields)


def test_bars_are_those_of_the_trades_oldest_first(vendor):
    bars = vendor.fetch(request()).bars
    truth = bars_of(trades())
    assert bars.schema == RAW_SCHEMA
    assert bars["open_time"].dt.timestamp("ms").to_list() == sorted(truth), "none without a trade"
    got = bars.select("open", "high", "low", "close", "volume").rows()
    assert got == [(bar.open, bar.high, bar.low, bar.close, bar.volume) for _, bar in sorted(truth.items())]
    assert bars["vwap"].null_count() == bars["trade_count"].null_count() == len(bars)
    assert bars.select("symbol", "vendor", "adjustment").unique().rows() == [("BTC-USD", "coinbase", "none")]
    assert set(bars["close_time"] - bars["open_time"]) == {timedelta(minutes=1)}


def test_each_number_has_its_place(vendor, exchange):
    exchange.replies.append(Reply(200, json.dumps([SEEN])))
    at = utc("2024-03-13T11:00")
    bars = vendor.fetch(request(start=at, end=at + timedelta(hours=1), interval="1h")).bars
    assert bars.drop("fetched_at").row(0) == (
        "BTC-USD", at, at + timedelta(hours=1), 73243.33, 73402.47, 73241.5, 73370.65, 1.56794406, None, None,
        "coinbase", "none",
    )  # fmt: skip


def test_the_question_has_both_ends_and_the_vendor_s_name(vendor, exchange):
    with pytest.raises(VendorError, match="NotFound"):
        vendor.fetch(request(name="BTC-GBP"))
    assert exchange.requests == [
        {
            "path": "/products/BTC-GBP/candles",
            "granularity": "60",
            "start": "2024-08-08T23:50:00Z",
            "end": "2024-08-09T00:09:00Z",
        }
    ]
    assert coinbase_name("btc-usd") == "BTC-USD"


@pytest.mark.parametrize("name", ["BTC/USD", "A?b=c", "A#b", "^A&b", "../orders"])
def test_a_name_stays_within_its_place_in_the_address(name):
    asked = []

    def answer(question):
        asked.append(question)
        return loopback.Reply(404, '{"message": "NotFound"}')

    with loopback.serving(answer) as url, pytest.raises(VendorError, match="NotFound"):
        CoinbaseVendor(url).fetch(request(name=name))
    assert asked[0].path == f"/products/{name}/candles" and set(asked[0].params) == {"granularity", "start", "end"}


def test_a_bar_that_is_not_over_is_left_out(vendor, exchange):
    exchange.now = lambda: int(utc("2024-08-08T23:57:30").timestamp() * 1000)
    assert vendor.fetch(request()).bars["open_time"].max() == utc("2024-08-08T23:56")


def test_as_many_as_an_answer_holds_are_asked_for_at_once(vendor, exchange):
    long = request(start=END - timedelta(minutes=650))
    with pytest.raises(VendorError, match="300 bars"):
        vendor.fetch(long)
    bars = fetch_with_policy(vendor, long).bars
    assert len(exchange.requests) == 3 and len(bars) == len(bars_of(trades()))


def test_an_empty_answer_says_that_there_are_none(vendor, exchange):
    exchange.replies.append(Reply(200, "[]"))
    bars = vendor.fetch(request()).bars
    assert bars.is_empty() and bars.schema == RAW_SCHEMA


@pytest.mark.parametrize("interval", INTERVALS)
def test_every_interval_has_its_granularity(vendor, exchange, interval):
    exchange.replies.append(Reply(200, "[]"))
    vendor.fetch(request(interval=interval, start=utc("2024-08-07"), end=utc("2024-08-07T05:00")))
    assert int(exchange.requests[0]["granularity"]) == INTERVALS[interval].total_seconds()


ERRORS = {
    "429": (Reply(429, '{"message": "Public rate limit exceeded"}'), True, None, "Public rate limit exceeded"),
    "429 with a date": (Reply(429, "", {"Retry-After": "Fri, 01 Jan 1999 00:00:00 GMT"}), True, 0.0, "HTTP 429"),
    "429 with nonsense": (Reply(429, "", {"Retry-After": "soon"}), True, None, "HTTP 429"),
    "too wide": (Reply(400, '{"message": "granularity too small"}'), False, None, "granularity too small"),
    "html": (Reply(200, "<html>", kind="text/html"), True, None, "not JSON"),
    "message under 200": (Reply(200, '{"message": "Hello"}'), False, None, "not a list of candles"),
    "short rows": (Reply(200, "[[1, 2]]"), False, None, "not a list of candles"),
    "no time": (Reply(200, "[[null, 1, 2, 3, 4, 5]]"), False, None, "open_time is not always"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_each_error_says_what_it_is_and_whether_it_may_pass(vendor, exchange, case):
    answer, retryable, after, said = ERRORS[case]
    exchange.replies.append(answer)
    with pytest.raises(VendorError) as failed:
        vendor.fetch(request())
    assert (failed.value.retryable, failed.value.retry_after) == (retryable, after)
    assert said in str(failed.value)


def test_numbers_that_are_none_become_nulls_for_cleaning_to_judge(vendor, exchange):
    exchange.replies.append(Reply(200, json.dumps([[int(BEGIN.timestamp()), None, "x", 1, "2.5", {}]])))
    bars = vendor.fetch(request()).bars
    assert bars.select("low", "high", "open", "close", "volume").row(0) == (None, None, 1.0, 2.5, None)


def test_silence_means_no_trade_there(vendor):
    assert vendor.traits("live").omits_empty_bars
