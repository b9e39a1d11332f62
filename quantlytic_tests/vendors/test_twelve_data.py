"""Twelve Data: UTC, strings, credits, and errors that come under status 200."""

import json
import logging
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from pydantic import SecretStr

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.calendars.sessions import expected_bars, session_table
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.settings import Settings
from quantlytic_assets.vendors.policy import fetch_with_policy
from quantlytic_assets.vendors.protocol import BarRequest, Limit, VendorError
from quantlytic_assets.vendors.registry import make_vendor
from quantlytic_assets.vendors.twelve_data import TwelveDataVendor, twelve_data_name
from quantlytic_tests.frames import utc
from quantlytic_tests.vendors.alpha_vantage_server import RECORDINGS
from quantlytic_tests.vendors.loopback import Reply
from quantlytic_tests.vendors.twelve_data_server import KEY, NO_DATA, Row, TwelveDataServer, error, row

NOW = datetime(2026, 11, 20, 22, 0, 20, tzinfo=UTC)


def grid(interval: str, first: str, last: str, calendar: str = "XNYS") -> list[Row]:
    """A row for each bar of the calendar."""
    bars = expected_bars(calendar, interval, date.fromisoformat(first), date.fromisoformat(last))
    return [row(at, 100 + n) for n, at in enumerate(bars["open_time"].to_list())]


MINUTES = grid("1m", "2025-03-03", "2025-03-14")


@pytest.fixture
def server():
    series = {("AAPL", "1min"): MINUTES, ("AAPL", "1day"): grid("1d", "2025-01-02", "2026-11-20")}
    with TwelveDataServer(series, now=NOW).serving() as serving:
        yield serving


@pytest.fixture
def vendor(server) -> TwelveDataVendor:
    return TwelveDataVendor(server.url + "/", SecretStr(f" {KEY}\n"))


def request(start="2025-03-06", end="2025-03-11", interval: str = "1m", calendar: str = "XNYS", **fields) -> BarRequest:
    return BarRequest("d", fields.pop("symbol", "AAPL"), interval, calendar, utc(start), utc(end), **fields)


def reply(server: TwelveDataServer, body: object, status: int = 200, **fields: object) -> None:
    server.replies.append(Reply(status, body if isinstance(body, str) else json.dumps(body), **fields))


@pytest.mark.parametrize("inclusive", [True, False])
def test_bars_are_asked_for_in_utc_and_are_the_calendar_s(vendor, server, inclusive):
    """Also over the weekend in which summer time begins, and whether or not the end is in the answer."""
    server.inclusive = inclusive
    bars = vendor.fetch(request(end="2025-03-10T13:40")).bars
    assert bars.schema == RAW_SCHEMA
    truth = expected_bars("XNYS", "1m", date(2025, 3, 6), date(2025, 3, 10)).filter(
        pl.col("open_time") < utc("2025-03-10T13:40")
    )
    assert bars["open_time"].to_list() == truth["open_time"].to_list()
    assert bars["close_time"].to_list() == truth["close_time"].to_list()
    told = {one.start: one for one in MINUTES}
    for bar in bars.head(3).iter_rows(named=True):
        one = told[bar["open_time"]]
        assert tuple(bar[name] for name in ("open", "high", "low", "close", "volume")) == (
            one.open, one.high, one.low, one.close, one.volume,
        )  # fmt: skip
    assert bars.select("symbol", "vendor", "adjustment").unique().rows() == [("AAPL", "twelve_data", "none")]
    assert server.paths == ["/time_series"]
    assert server.requests == [
        {
            "symbol": "AAPL", "interval": "1min", "start_date": "2025-03-06T00:00:00",
            "end_date": "2025-03-10T13:40:00", "timezone": "UTC",
            "order": "ASC", "outputsize": "5000", "adjust": "none",
        }
    ]  # fmt: skip


@pytest.mark.parametrize("inclusive", [True, False])
def test_daily_bars_are_sessions_of_the_exchange(vendor, server, inclusive):
    server.inclusive = inclusive
    bars = vendor.fetch(request("2025-11-20", "2025-12-01", "1d")).bars
    table = session_table("XNYS", date(2025, 11, 20), date(2025, 11, 30))
    assert bars.select("open_time", "close_time").rows() == table.select("open_time", "close_time").rows()
    assert utc("2025-11-28T18:00") in bars["close_time"].to_list(), "a half day"
    assert "timezone" not in server.requests[0]


def test_newest_first_means_the_same(vendor, server):
    rows = [{"datetime": f"2025-03-06 14:3{n}:00", "open": str(n)} for n in reversed(range(5))]
    reply(server, {"values": rows, "status": "ok"})
    bars = vendor.fetch(request()).bars
    assert bars["open"].to_list() == [0.0, 1.0, 2.0, 3.0, 4.0] and bars["open_time"].is_sorted()


@pytest.mark.parametrize(
    ("symbol", "calendar", "theirs"),
    [
        ("BTC-USD", "24/7", "BTC/USD"),
        ("eth-btc", "24/7", "ETH/BTC"),
        ("BRK.B", "XNYS", "BRK.B"),
        ("BF-B", "XNYS", "BF-B"),
    ],
)
def test_symbols_have_their_names(symbol, calendar, theirs):
    assert twelve_data_name(symbol, calendar) == theirs


def test_crypto_days_are_utc_s(server):
    server.zone = "UTC"
    server.series["BTC/USD", "1day"] = grid("1d", "2025-03-01", "2025-03-20", "24/7")
    vendor = TwelveDataVendor(server.url, SecretStr(KEY))
    bars = vendor.fetch(request("2025-03-05", "2025-03-08", "1d", "24/7", symbol="BTC-USD")).bars
    assert bars["open_time"].to_list() == [utc("2025-03-05"), utc("2025-03-06"), utc("2025-03-07")]


def test_the_vendor_s_own_name_is_asked_for(vendor, server):
    with pytest.raises(VendorError, match="valid symbol") as failed:
        vendor.fetch(request(name="VOD:LSE"))
    assert server.requests[0]["symbol"] == "VOD:LSE" and not failed.value.retryable


@pytest.mark.parametrize("interval", INTERVALS)
def test_every_interval_is_served(vendor, server, interval):
    reply(server, {"values": [], "status": "ok"})
    vendor.fetch(request("2025-03-06", "2025-03-07", interval))
    assert (
        server.requests[0]["interval"]
        == {"1m": "1min", "5m": "5min", "15m": "15min", "1h": "1h", "1d": "1day"}[interval]
    )


def test_a_bar_that_is_not_over_by_their_clock_is_left_out(vendor, server):
    server.now = datetime(2025, 3, 6, 14, 40, 30, tzinfo=UTC)
    assert vendor.fetch(request()).bars["open_time"].max() == utc("2025-03-06T14:39")


def test_a_bar_that_comes_twice_is_handed_on_twice(vendor, server):
    twice = [{"datetime": "2025-03-06 14:30:00", "close": close} for close in ("1", "2")]
    reply(server, {"values": twice, "status": "ok"})
    assert vendor.fetch(request()).bars["close"].to_list() == [1.0, 2.0]


def test_bad_bars_of_a_real_answer_are_handed_on_for_cleaning_to_judge(vendor, server):
    """Recorded: highs below opens, no volume, no status."""
    reply(server, (RECORDINGS / "twelve_data_cross_jpy_btc.json").read_text("utf-8"))
    bars = vendor.fetch(request("2025-08-07", "2025-08-08", calendar="24/7", symbol="JPY-BTC")).bars
    assert len(bars) == 8 and len(bars.filter(pl.col("high") < pl.col("open"))) > 0
    assert bars["volume"].null_count() == 8 and bars["open"].min() > 0


def test_a_documented_day_means_what_it_says(vendor, server):
    reply(server, (RECORDINGS / "twelve_data_1day_aapl.json").read_text("utf-8"))
    bars = vendor.fetch(request("2024-11-22", "2024-11-23", "1d")).bars
    assert bars.drop("fetched_at").row(0) == (
        "AAPL", utc("2024-11-22T14:30"), utc("2024-11-22T21:00"), 228.84, 230.5, 227.25, 229.87, 35462000.0, None, None,
        "twelve_data", "none",
    )  # fmt: skip


def test_numbers_that_are_none_become_nulls(vendor, server):
    odd = {"datetime": "2025-03-06 14:30:00", "open": None, "high": "x", "low": {}, "close": 1, "volume": 10**400}
    reply(server, {"values": [odd], "status": "ok"})
    bars = vendor.fetch(request()).bars
    assert bars.select("open", "high", "low", "close", "volume").row(0) == (None, None, None, 1.0, None)


def test_years_that_no_calendar_knows_are_left_out(vendor, server):
    reply(server, {"values": [{"datetime": "9999-12-31"}, {"datetime": "0001-01-01"}, {"datetime": "2025-03-06"}]})
    assert len(vendor.fetch(request(interval="1d")).bars) == 1


# Parts and credits -----------------------------------------------------------------------------------------------


def test_as_many_sessions_as_an_answer_holds_are_asked_for_at_once(vendor, server):
    server.series["AAPL", "1min"] = grid("1m", "2025-01-02", "2025-02-28")
    server.per_minute = 100
    long = request("2025-01-01", "2025-03-01")
    with pytest.raises(VendorError, match="5000 bars"):
        vendor.fetch(long)
    bars = fetch_with_policy(vendor, long).bars
    assert len(bars) == len(server.series["AAPL", "1min"]) and bars["open_time"].is_unique().all()
    # 39 sessions of 390 minutes, twelve at once.
    assert len(server.requests) == 4
    parts = vendor.parts(long)
    assert parts[0].start == long.start and parts[-1].end == long.end
    assert all(a.end == b.start for a, b in zip(parts, parts[1:], strict=False))
    assert all(vendor.parts(part) == [part] for part in parts)


@pytest.mark.parametrize(
    ("interval", "calendar", "years", "count"),
    [
        ("1d", "XNYS", 19, 1),
        ("1d", "24/7", 20, 2),
        ("1h", "XNYS", 2, 1),
        ("1m", "24/7", 0.02, 3),
        ("1m", "XNYS", 0.002, 1),
    ],
)
def test_no_more_is_asked_than_needed(vendor, interval, calendar, years, count):
    end = utc("2025-01-01")
    asked = BarRequest("d", "A", interval, calendar, end - timedelta(days=365.25 * years), end)
    parts = vendor.parts(asked)
    assert len(parts) == count and all(vendor.parts(part) == [part] for part in parts)


def test_a_range_without_sessions_is_one_part(vendor):
    weekend = request("2025-03-08T12:00", "2025-03-09T12:00")
    assert vendor.parts(weekend) == [weekend]


def test_limits_are_a_free_key_s(vendor):
    assert vendor.limits == (Limit(60, 8), Limit(86_400, 800)) and vendor.weight(request()) == 1
    assert vendor.traits("d").omits_empty_bars


@pytest.mark.parametrize("under_200", [True, False])
def test_used_up_credits_of_a_minute_are_back_with_the_next(vendor, server, under_200):
    server.per_minute, server.under_200 = 0, under_200
    with pytest.raises(VendorError, match="minute's credits are used up") as failed:
        vendor.fetch(request())
    assert failed.value.retryable and not failed.value.opens_circuit
    assert failed.value.retry_after == 41 if under_200 else 0 < failed.value.retry_after <= 61


@pytest.mark.parametrize("under_200", [True, False])
def test_used_up_credits_of_a_day_close_it_until_midnight_utc(vendor, server, under_200):
    server.per_day, server.under_200 = 0, under_200
    with pytest.raises(VendorError, match="day's credits are used up") as failed:
        vendor.fetch(request())
    assert failed.value.opens_circuit and not failed.value.retryable
    assert failed.value.retry_after == 2 * 3600 - 20 if under_200 else 0 < failed.value.retry_after <= 86_400


# Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("under_200", [True, False])
def test_no_data_for_the_dates_is_an_answer_without_bars(vendor, server, under_200):
    server.under_200 = under_200
    bars = vendor.fetch(request("2024-03-06", "2024-03-08")).bars
    assert len(server.requests) == 1 and bars.is_empty() and bars.schema == RAW_SCHEMA


def test_bars_of_another_interval_are_rejected_whole(vendor, server):
    values = [{"datetime": "2025-03-06 14:30:00", "open": "1", "high": "1", "low": "1", "close": "1", "volume": "1"}]
    reply(server, {"meta": {"interval": "5min"}, "values": values, "status": "ok"})
    with pytest.raises(VendorError, match="answered with 5min bars where 1m ones were asked for") as failed:
        vendor.fetch(request())
    assert not failed.value.retryable


@pytest.mark.parametrize("body", [{"values": [], "status": "ok"}, {"values": None, "status": "ok"}])
def test_an_empty_answer_says_that_there_are_none(vendor, server, body):
    reply(server, body)
    assert vendor.fetch(request()).bars.is_empty()


FULL = {"status": "ok", "values": [{"datetime": "2025-03-06 14:30:00"}] * 5000}
ERRORS = {
    "429": (Reply(429, "", {"Retry-After": "17"}), True, 17.0, False, "HTTP 429"),
    "unknown symbol": (Reply(200, json.dumps(error(400, "symbol not found: X."))), False, None, False, "not found: X"),
    "plan": (Reply(403, json.dumps(error(403, "available with Pro"))), False, None, False, "available with Pro"),
    "bad key": (Reply(200, json.dumps(error(401, "wrong"))), False, 60.0, True, "TWELVEDATA_API_KEY is rejected"),
    "bad key by status": (Reply(401, json.dumps(error(401, "wrong"))), False, 60.0, True, "_API_KEY is rejected"),
    "500 under 200": (Reply(200, json.dumps(error(500, "oops"))), True, None, False, "oops"),
    "500": (Reply(500, json.dumps(error(500, "oops"))), True, None, False, "oops"),
    "odd code": (Reply(200, json.dumps({"code": "x", "message": ["y"]})), False, None, False, "answered an error"),
    "error without code": (Reply(200, json.dumps({"status": "error"})), False, None, False, "answered an error"),
    "html": (Reply(200, "<html>we are down</html>", kind="text/html"), True, None, False, "not JSON"),
    "half an answer": (Reply(200, '{"values": [{"dat'), True, None, False, "not JSON"),
    "no values": (Reply(200, '{"meta": {}, "status": "ok"}'), False, None, False, "has no values"),
    "a list": (Reply(200, "[]"), False, None, False, "not an object"),
    "values are none": (Reply(200, '{"values": {"a": 1}}'), False, None, False, "not a list of bars"),
    "bars are none": (Reply(200, '{"values": [7]}'), False, None, False, "not a list of bars"),
    "no time": (Reply(200, '{"values": [{"open": "1"}]}'), False, None, False, "datetime is not always a time"),
    "odd time": (Reply(200, '{"values": [{"datetime": "\\ud800"}]}'), False, None, False, "datetime is not always"),
    "a full answer": (Reply(200, json.dumps(FULL)), False, None, False, "may lack some"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_each_error_says_what_it_is_and_whether_it_may_pass(vendor, server, case):
    answer, retryable, after, closed, said = ERRORS[case]
    server.replies.append(answer)
    with pytest.raises(VendorError) as failed:
        vendor.fetch(request())
    assert (failed.value.retryable, failed.value.retry_after, failed.value.opens_circuit) == (retryable, after, closed)
    assert said in str(failed.value)


@pytest.mark.parametrize("key", [None, "", "ключ"])
def test_without_a_key_it_is_said_which_variable_to_set(server, key):
    vendor = TwelveDataVendor(server.url, SecretStr(key) if key is not None else None)
    assert "TWELVEDATA_API_KEY" in vendor.unsupported(request())
    with pytest.raises(VendorError, match="TWELVEDATA_API_KEY"):
        vendor.fetch(request())
    assert server.requests == []


def test_a_wrong_key_is_told(server):
    with pytest.raises(VendorError, match="TWELVEDATA_API_KEY is rejected"):
        TwelveDataVendor(server.url, SecretStr("another")).fetch(request())


@pytest.mark.parametrize("body", [error(403, f"your key {KEY} may not"), error(400, NO_DATA[:2] + "z" * 140 + KEY)])
def test_the_key_is_in_no_address_error_or_log(vendor, server, body, caplog):
    caplog.set_level(logging.DEBUG)
    reply(server, body)
    with pytest.raises(VendorError) as failed:
        vendor.fetch(request())
    said = f"{failed.value}" + "".join(record.getMessage() for record in caplog.records)
    assert KEY not in said and KEY[:8] not in said and "<key>" in said
    assert KEY not in json.dumps(server.requests)


@pytest.mark.parametrize("variable", ["TWELVEDATA_API_KEY", "QUANTLYTIC_TWELVE_DATA_KEY"])
def test_key_and_address_come_from_the_environment(monkeypatch, server, variable):
    assert Settings.model_fields["twelve_data_url"].default == "https://api.twelvedata.com"
    monkeypatch.setenv("QUANTLYTIC_TWELVE_DATA_URL", server.url)
    monkeypatch.delenv("TWELVEDATA_API_KEY", raising=False)
    monkeypatch.setenv(variable, KEY)
    assert len(make_vendor("twelve_data").fetch(request()).bars) > 0
    assert KEY not in repr(Settings())
