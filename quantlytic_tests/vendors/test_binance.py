"""Binance's klines: what is asked, what the answer means, and what is an error of which kind."""

import json
from datetime import timedelta

import polars as pl
import pytest

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.vendors.binance import BinanceVendor, binance_name
from quantlytic_assets.vendors.policy import fetch_with_policy
from quantlytic_assets.vendors.protocol import BarRequest, VendorError
from quantlytic_tests.feeds.exchange import Exchange, Reply
from quantlytic_tests.feeds.recorded import bars_of, trades
from quantlytic_tests.frames import utc

BEGIN, END = utc("2024-08-08T23:50"), utc("2024-08-09T00:10")
# The endpoint's documented example: the year 2017, and a full set of fields.
DOCUMENTED = [
    1499040000000, "0.01634790", "0.80000000", "0.01575800", "0.01577100", "148976.11427815", 1499644799999,
    "2434.19055334", 308, "1756.87402397", "28.46694368", "0",
]  # fmt: skip


@pytest.fixture
def exchange():
    with Exchange({"BTCUSDT": trades()}, 1).serving() as open_one:
        # Ten minutes after the last trade: everything is over.
        open_one._started = 0.0
        open_one.now = lambda: open_one.end + 600_000
        yield open_one


@pytest.fixture
def vendor(exchange) -> BinanceVendor:
    return BinanceVendor(exchange.rest, sleep=lambda seconds: None)


def request(symbol: str = "BTC-USD", start=BEGIN, end=END, interval: str = "1m", **fields) -> BarRequest:
    return BarRequest("live", symbol, interval, "24/7", start, end, **fields)


def reply(exchange: Exchange, *rows: list, **fields) -> None:
    exchange.replies.append(Reply(200, json.dumps(list(rows)), **fields))


def row(minute: int, **changes: object) -> list:
    """A kline of a minute after BEGIN; changes by place, as `p4=…`."""
    opened = int(BEGIN.timestamp() * 1000) + minute * 60_000
    given = [opened, "1.0", "3.0", "0.5", "2.0", "4.0", opened + 59_999, "6.0", 7, "0", "0", "0"]
    for place, value in changes.items():
        given[int(place[1:])] = value
    return given


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("BTC-USD", "BTCUSDT"), ("BTC-USDT", "BTCUSDT"), ("ETH-BTC", "ETHBTC"), ("btc-eur", "BTCEUR"),
        ("BTCUSDC", "BTCUSDC"), ("USD-TRY", "USDTRY"),
    ],
)  # fmt: skip
def test_symbols_have_binance_s_names(ours, theirs):
    assert binance_name(ours) == theirs


def test_bars_are_those_of_the_trades(vendor):
    bars = vendor.fetch(request()).bars
    truth = bars_of(trades())
    assert bars.schema == RAW_SCHEMA
    got = {int(one["open_time"].timestamp() * 1000): one for one in bars.iter_rows(named=True)}
    assert set(truth) <= set(got)
    for minute, bar in truth.items():
        one = got[minute]
        assert (one["open"], one["high"], one["low"], one["close"]) == (bar.open, bar.high, bar.low, bar.close)
        assert (one["volume"], one["trade_count"]) == (bar.volume, bar.trades)
        assert one["vwap"] == pytest.approx(bar.quote_volume / bar.volume, rel=1e-11)
        assert one["close_time"] - one["open_time"] == timedelta(minutes=1)
    assert bars.select("symbol", "vendor", "adjustment").unique().rows() == [("BTC-USD", "binance", "none")]
    quiet = bars.filter(pl.col("trade_count") == 0)
    assert len(quiet) and quiet["volume"].sum() == 0 and quiet["vwap"].null_count() == len(quiet)


def test_the_question_has_both_ends_and_the_vendor_s_name(vendor, exchange):
    vendor.fetch(request(name="BTCUSDT", symbol="whatever"))
    assert exchange.requests == [
        {
            "path": "/api/v3/klines",
            "symbol": "BTCUSDT",
            "interval": "1m",
            "startTime": "1723161000000",
            "endTime": "1723162199999",
            "limit": "1000",
        }
    ]


def test_every_documented_field_has_its_place(vendor, exchange):
    # The documentation's kline is one of a week.
    reply(exchange, [*DOCUMENTED[:6], DOCUMENTED[0] + 86_400_000 - 1, *DOCUMENTED[7:]])
    bars = vendor.fetch(request(start=utc("2017-07-03"), end=utc("2017-07-04"), interval="1d")).bars
    assert exchange.requests[0]["interval"] == "1d"
    one = bars.drop("fetched_at", "vwap").row(0)
    assert one == (
        "BTC-USD", utc("2017-07-03"), utc("2017-07-04"), 0.0163479, 0.8, 0.015758, 0.015771, 148976.11427815, 308,
        "binance", "none",
    )  # fmt: skip
    assert bars["vwap"].item() == pytest.approx(2434.19055334 / 148976.11427815)


def test_microseconds_mean_the_same(vendor, exchange):
    reply(exchange, row(0), row(1))
    reply(exchange, *[[one[0] * 1000, *one[1:6], one[6] * 1000 + 999, *one[7:]] for one in (row(0), row(1))])
    assert vendor.fetch(request()).bars.drop("fetched_at").equals(vendor.fetch(request()).bars.drop("fetched_at"))


def test_a_bar_that_is_not_over_by_binance_s_clock_is_left_out(vendor, exchange):
    """Also when ours is fast, as it is here by years."""
    exchange.now = lambda: int(utc("2024-08-08T23:57:30").timestamp() * 1000)
    assert vendor.fetch(request()).bars["open_time"].max() == utc("2024-08-08T23:56")
    exchange.now = lambda: int(utc("2024-08-08T23:58").timestamp() * 1000)
    assert vendor.fetch(request()).bars["open_time"].max() == utc("2024-08-08T23:57")


def test_nor_is_one_that_is_not_over_by_ours(vendor, exchange):
    exchange.now = lambda: int(utc("2099-01-01").timestamp() * 1000)
    soon = utc("2098-01-01")
    opened = int(soon.timestamp() * 1000)
    reply(exchange, [opened, *DOCUMENTED[1:6], opened + 59_999, *DOCUMENTED[7:]])
    assert vendor.fetch(request(start=soon, end=soon + timedelta(hours=1))).bars.is_empty()


def test_klines_of_another_interval_are_rejected_whole(vendor, exchange):
    reply(exchange, *[row(minute, p6=row(minute)[0] + 5 * 60_000 - 1) for minute in (0, 5, 10)])
    with pytest.raises(VendorError, match="answered with bars of 0:05:00 where 1m ones were asked for") as failed:
        vendor.fetch(request())
    assert not failed.value.retryable


def test_what_was_not_asked_for_is_left_out(vendor, exchange):
    reply(exchange, row(-1), row(0), row(19), row(20))
    assert vendor.fetch(request()).bars["open_time"].to_list() == [BEGIN, END - timedelta(minutes=1)]


def test_numbers_that_are_none_become_nulls_for_cleaning_to_judge(vendor, exchange):
    reply(exchange, row(0, p1=None, p2="\ud800", p4={}, p5=[1], p7=True, p8="many"), row(1, p1=1.5, p8="7"))
    bars = vendor.fetch(request()).bars
    assert bars.select("open", "high", "low", "close", "volume", "vwap", "trade_count").rows() == [
        (None, None, 0.5, None, None, None, None),
        (1.5, 3.0, 0.5, 2.0, 4.0, 1.5, 7),
    ]


def test_an_empty_answer_says_that_there_are_none(vendor, exchange):
    reply(exchange)
    bars = vendor.fetch(request()).bars
    assert bars.is_empty() and bars.schema == RAW_SCHEMA


def test_a_bar_that_comes_twice_is_handed_on_twice(vendor, exchange):
    reply(exchange, row(0), row(0, p4="2.5"))
    assert vendor.fetch(request()).bars["close"].to_list() == [2.0, 2.5]


ERRORS = {
    "429": (Reply(429, '{"code": -1003, "msg": "Too many"}', {"Retry-After": "17"}), True, 17.0, "-1003 Too many"),
    "429 without a time": (Reply(429, "{}"), True, 60.0, "HTTP 429"),
    "418": (Reply(418, "{}", {"Retry-After": "3600"}), False, 3600.0, "banned for 3600 s"),
    "503": (Reply(503, "<html>\n <b>Bad gateway</b></html>", kind="text/html"), True, None, "<b>Bad gateway</b>"),
    "451": (Reply(451, '{"code": 0, "msg": "Service unavailable from a restricted location"}'), False, None, "451"),
    "403": (Reply(403, ""), False, None, "HTTP 403, its firewall shuts this address out: nothing"),
    "unknown symbol": (Reply(400, '{"code": -1121, "msg": "Invalid symbol."}'), False, None, "-1121 Invalid symbol."),
    "html": (Reply(200, "<html>we are down</html>", kind="text/html"), True, None, "text/html that is not JSON"),
    "half an answer": (Reply(200, '[[1499040000000, "0.01'), True, None, "not JSON"),
    "quota under 200": (Reply(200, '{"code": -1003, "msg": "Way too much"}'), True, 60.0, "Way too much"),
    "another error under 200": (Reply(200, '{"code": -1100, "msg": "Illegal"}'), False, None, "Illegal"),
    "another shape": (Reply(200, '{"klines": []}'), False, None, "not a list of klines"),
    "short rows": (Reply(200, "[[1, 2, 3]]"), False, None, "not a list of klines"),
    "no rows": (Reply(200, "[7]"), False, None, "not a list of klines"),
    "no time": (Reply(200, json.dumps([["x", *DOCUMENTED[1:]]])), False, None, "open_time is not always"),
    "no whole time": (Reply(200, json.dumps([[1.5, *DOCUMENTED[1:]]])), False, None, "open_time is not always"),
    "no possible time": (Reply(200, json.dumps([[10**30, *DOCUMENTED[1:]]])), False, None, "open_time is not always"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_each_error_says_what_it_is_and_whether_it_may_pass(vendor, exchange, case):
    answer, retryable, after, said = ERRORS[case]
    exchange.replies.append(answer)
    with pytest.raises(VendorError) as failed:
        vendor.fetch(request())
    assert (failed.value.retryable, failed.value.retry_after) == (retryable, after)
    assert said in str(failed.value)
    assert failed.value.opens_circuit is (case in ("418", "403")), "a ban is no matter of this question alone"


def test_nobody_there_may_pass():
    with pytest.raises(VendorError, match="no answer: ConnectionError") as failed:
        BinanceVendor("http://127.0.0.1:9").fetch(request())
    assert failed.value.retryable


def test_more_than_an_answer_holds_is_rejected_and_cut_by_the_policy(vendor, exchange):
    long = request(start=END - timedelta(minutes=2500))
    with pytest.raises(VendorError, match="1000 bars"):
        vendor.fetch(long)
    assert exchange.requests == []
    requests = []
    bars = fetch_with_policy(vendor, long, on_request=lambda: requests.append(1)).bars
    assert len(requests) == len(exchange.requests) == 3
    assert bars["open_time"].is_sorted() and bars["open_time"].is_unique().all()
    spans = [(int(one["startTime"]), int(one["endTime"])) for one in exchange.requests]
    assert all(end - start < 1000 * 60_000 for start, end in spans)
    assert [end + 1 for _, end in spans[:-1]] == [start for start, _ in spans[1:]], "nothing twice, nothing left out"


@pytest.mark.parametrize("interval", INTERVALS)
def test_every_interval_is_served(vendor, exchange, interval):
    vendor.fetch(request(interval=interval, start=utc("2024-08-07"), end=utc("2024-08-07T12:00")))
    assert exchange.requests[0]["interval"] == interval


@pytest.mark.parametrize(("used", "waited"), [("12", []), ("4999", []), ("5000", [61]), ("5999", [61]), ("", [])])
def test_the_weight_of_a_minute_is_not_used_up(exchange, used, waited):
    waits: list[float] = []
    reply(exchange, row(0), headers={"X-MBX-USED-WEIGHT-1M": used, "Date": "Fri, 09 Aug 2024 00:15:00 GMT"})
    BinanceVendor(exchange.rest, sleep=waits.append).fetch(request())
    assert waits == waited


def test_silence_means_an_outage_there(vendor):
    assert not vendor.traits("live").omits_empty_bars
