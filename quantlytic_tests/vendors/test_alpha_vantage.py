"""Alpha Vantage: what a key's plan reaches, how bars are labelled, and what it says instead of bars."""

import json
import logging
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from pydantic import SecretStr

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.calendars.sessions import expected_bars, session_table
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.settings import Settings
from quantlytic_assets.vendors.alpha_vantage import AlphaVantageVendor
from quantlytic_assets.vendors.policy import fetch_with_policy
from quantlytic_assets.vendors.protocol import BarRequest, Limit, VendorError
from quantlytic_assets.vendors.registry import make_vendor
from quantlytic_tests.frames import utc
from quantlytic_tests.vendors.alpha_vantage_server import (
    DAY_IS_USED_UP,
    KEY,
    RECORDINGS,
    TOO_FAST,
    AlphaVantageServer,
    Row,
    row,
)
from quantlytic_tests.vendors.loopback import Reply

# A Friday evening; the session of 2026-11-20 is over.
NOW = datetime(2026, 11, 20, 22, tzinfo=UTC)
NEW_YORK = "America/New_York"


def sessions(first: str, last: str) -> list[date]:
    return session_table("XNYS", date.fromisoformat(first), date.fromisoformat(last))["session"].to_list()


def grid(interval: str, first: str, last: str, end_label: bool = False, calendar: str = "XNYS") -> list[Row]:
    """A row for each bar of regular hours, labelled in New York's time."""
    bars = expected_bars(calendar, interval, date.fromisoformat(first), date.fromisoformat(last))
    local = bars["close_time" if end_label else "open_time"].dt.convert_time_zone(NEW_YORK).dt.replace_time_zone(None)
    return [row(label, 100 + n) for n, label in enumerate(local.to_list())]


DAILY = [row(day, 100 + n) for n, day in enumerate(sessions("2025-01-02", "2026-11-20"))]


@pytest.fixture
def server():
    with AlphaVantageServer({("IBM", "daily"): DAILY}, now=NOW).serving() as serving:
        yield serving


@pytest.fixture
def vendor(server) -> AlphaVantageVendor:
    return free(server)


def free(server: AlphaVantageServer, key: str = KEY) -> AlphaVantageVendor:
    return AlphaVantageVendor(server.url, SecretStr(key), clock=lambda: server.now)


def premium(server: AlphaVantageServer) -> AlphaVantageVendor:
    server.premium = True
    return AlphaVantageVendor(server.url, SecretStr(KEY), premium=True, clock=lambda: server.now)


def request(start: str = "2026-11-01", end: str = "2026-11-21", interval: str = "1d", calendar: str = "XNYS", **fields):
    return BarRequest("d", fields.pop("symbol", "IBM"), interval, calendar, utc(start), utc(end), **fields)


def reply(server: AlphaVantageServer, body: object, **fields: object) -> None:
    server.replies.append(Reply(200, body if isinstance(body, str) else json.dumps(body), **fields))


def recorded(name: str) -> dict:
    return json.loads((RECORDINGS / name).read_text("utf-8"))


# Daily bars ------------------------------------------------------------------------------------------------------


def test_daily_bars_are_sessions_oldest_first_and_as_traded(vendor, server):
    bars = vendor.fetch(request("2026-11-01", "2026-11-10")).bars
    assert bars.schema == RAW_SCHEMA
    table = session_table("XNYS", date(2026, 11, 2), date(2026, 11, 9))
    assert bars["open_time"].to_list() == table["open_time"].to_list()
    assert bars["close_time"].to_list() == table["close_time"].to_list()
    truth = {one.label: one for one in DAILY}
    for bar, day in zip(bars.iter_rows(named=True), table["session"].to_list(), strict=True):
        one = truth[day]
        got = tuple(bar[name] for name in ("open", "high", "low", "close", "volume"))
        assert got == (one.open, one.high, one.low, one.close, one.volume)
    assert bars.select("symbol", "vendor", "adjustment").unique().rows() == [("IBM", "alpha_vantage", "none")]
    assert server.requests == [
        {"function": "TIME_SERIES_DAILY", "symbol": "IBM", "outputsize": "compact", "apikey": KEY}
    ]


def test_a_recorded_daily_answer_means_what_it_says(server):
    reply(server, recorded("alpha_vantage_daily_msft.json"))
    bars = premium(server).fetch(request("2019-10-01", "2019-11-30", symbol="MSFT")).bars
    assert bars["open_time"].dt.date().to_list() == [date(2019, 10, 29), date(2019, 10, 30), date(2019, 10, 31),
                                                     date(2019, 11, 1), date(2019, 11, 4)]  # fmt: skip
    assert bars.row(-1, named=True)["close"] == 144.55 and bars.row(-1, named=True)["volume"] == 16890782
    # Winter time begins between the two.
    assert [at.hour for at in bars["open_time"].to_list()] == [13, 13, 13, 13, 14]


def test_a_half_day_closes_early(server):
    reply(server, {"Meta Data": {}, "Time Series (Daily)": {"2025-11-28": {"4. close": "1.0"}}})
    bars = premium(server).fetch(request("2025-11-28", "2025-11-29")).bars
    assert bars.select("open_time", "close_time").row(0) == (utc("2025-11-28T14:30"), utc("2025-11-28T18:00"))
    assert bars.select("open", "close", "volume").row(0) == (None, 1.0, None)


def test_the_running_session_is_left_out(server):
    server.now = datetime(2026, 11, 20, 20, 59, tzinfo=UTC)
    assert free(server).fetch(request()).bars["open_time"].max() == utc("2026-11-19T14:30")
    server.now = datetime(2026, 11, 20, 21, tzinfo=UTC)
    assert free(server).fetch(request()).bars["open_time"].max() == utc("2026-11-20T14:30")


def test_the_vendor_s_own_name_is_asked_for(vendor, server):
    with pytest.raises(VendorError, match="Invalid API call"):
        vendor.fetch(request(name="TSCO.LON"))
    assert server.requests[0]["symbol"] == "TSCO.LON"


# What a free key reaches -----------------------------------------------------------------------------------------


def test_a_free_key_reaches_a_hundred_sessions_back(vendor, server):
    reach = sessions("2025-01-02", "2026-11-20")[-100]
    table = session_table("XNYS", reach - timedelta(days=7), reach)
    border, opened = table["close_time"][-2], table["open_time"][-1]
    assert vendor.unsupported(BarRequest("d", "IBM", "1d", "XNYS", border, NOW)) is None
    older = vendor.unsupported(BarRequest("d", "IBM", "1d", "XNYS", border - timedelta(seconds=1), NOW))
    assert "100 sessions" in older and "QUANTLYTIC_ALPHA_VANTAGE_PREMIUM" in older
    bars = vendor.fetch(BarRequest("d", "IBM", "1d", "XNYS", border, NOW)).bars
    assert len(bars) == 100 and bars["open_time"][0] == opened


def test_a_longer_range_is_cut_so_that_what_is_in_reach_can_be_had(vendor, server):
    older, younger = vendor.parts(request("2025-06-01"))
    assert older.start == utc("2025-06-01") and older.end == younger.start and younger.end == utc("2026-11-21")
    assert "free key" in vendor.unsupported(older) and vendor.unsupported(younger) is None
    assert len(vendor.fetch(younger).bars) == 99
    assert vendor.parts(younger) == [younger] and vendor.parts(older) == [older]
    server.now += timedelta(days=3)
    assert vendor.parts(younger) == [younger] and vendor.unsupported(younger) is None, "also when the next session runs"


def test_a_free_key_has_no_intraday_bars_and_is_not_asked_for_them(vendor, server):
    asked = request(interval="5m")
    assert "daily bars only" in vendor.unsupported(asked)
    with pytest.raises(VendorError, match="daily bars only"):
        vendor.fetch(asked)
    assert server.requests == []


def test_a_free_key_s_limits_are_the_vendor_s(vendor, server):
    assert vendor.limits == (Limit(1, 1), Limit(86_400, 25)) and vendor.weight(request()) == 1
    assert premium(server).limits == (Limit(60, 75),)
    assert vendor.traits("d").omits_empty_bars


@pytest.mark.parametrize(
    ("key", "said"), [(None, "set ALPHAVANTAGE_API_KEY"), ("", "no key"), ("ключ", "copy it anew")]
)
def test_without_a_key_it_is_said_which_variable_to_set(server, key, said):
    vendor = AlphaVantageVendor(server.url, SecretStr(key) if key is not None else None)
    assert said in vendor.unsupported(request())
    with pytest.raises(VendorError, match=said):
        vendor.fetch(request())
    assert server.requests == []


def test_markets_without_sessions_are_not_its(vendor):
    assert "exchanges only" in vendor.unsupported(request(calendar="24/7"))


# Premium ---------------------------------------------------------------------------------------------------------


def test_a_premium_key_has_the_whole_history_in_one_answer(server):
    vendor, asked = premium(server), request("2025-01-01")
    assert vendor.unsupported(asked) is None and vendor.parts(asked) == [asked]
    assert len(vendor.fetch(asked).bars) == len(DAILY)
    assert server.requests[0]["outputsize"] == "full"


@pytest.mark.parametrize("interval", ["1m", "5m", "15m"])
@pytest.mark.parametrize("end_label", [False, True])
def test_intraday_bars_have_their_time_whichever_end_is_labelled(server, interval, end_label):
    """March 2025 with the change to summer time on the 9th."""
    theirs = f"{interval[:-1]}min"
    server.series["IBM", theirs] = grid(interval, "2025-03-03", "2025-03-14", end_label)
    bars = premium(server).fetch(request("2025-03-01T05:00", "2025-03-20", interval)).bars
    truth = expected_bars("XNYS", interval, date(2025, 3, 3), date(2025, 3, 14))
    assert bars["open_time"].to_list() == truth["open_time"].to_list()
    assert bars["close_time"].to_list() == truth["close_time"].to_list()
    assert bars["open"].to_list() == [100.0 + n for n in range(len(truth))]
    assert server.requests[0] == {
        "function": "TIME_SERIES_INTRADAY", "symbol": "IBM", "interval": theirs, "month": "2025-03",
        "outputsize": "full", "extended_hours": "false", "adjusted": "false", "apikey": KEY,
    }  # fmt: skip


@pytest.mark.parametrize("end_label", [False, True])
def test_a_half_day_s_labels_are_understood_too(server, end_label):
    server.series["IBM", "5min"] = grid("5m", "2025-11-28", "2025-11-28", end_label)
    bars = premium(server).fetch(request("2025-11-28", "2025-11-29", "5m")).bars
    assert (bars["open_time"].min(), bars["close_time"].max()) == (utc("2025-11-28T14:30"), utc("2025-11-28T18:00"))


def test_recorded_end_labels_are_converted_at_the_door(server):
    """As it was in 2019: the day's last five minutes are called 16:00."""
    reply(server, recorded("alpha_vantage_5min_msft.json"))
    bars = premium(server).fetch(request("2019-10-30", "2019-10-31", "5m", symbol="MSFT")).bars
    assert bars.select("open_time", "close_time", "close", "volume").rows() == [
        (utc("2019-10-30T19:50"), utc("2019-10-30T19:55"), 144.675, 448013.0),
        (utc("2019-10-30T19:55"), utc("2019-10-30T20:00"), 144.57, 784278.0),
    ]


def test_where_labels_show_neither_end_no_bar_is_known_before_its_time(server):
    """Recorded in the middle of a day, when ends were labelled: taken for starts, bars are a minute late, not early."""
    body = recorded("alpha_vantage_1min_msft.json")
    reply(server, body)
    bars = premium(server).fetch(request("2017-12-18", "2017-12-19", "1m", symbol="MSFT")).bars
    assert len(bars) == len(body["Time Series (1min)"])
    assert bars["open_time"].max() == utc("2017-12-18T19:56")


def test_months_are_asked_for_one_by_one_in_new_york_s_time(server):
    server.series["IBM", "15min"] = grid("15m", "2025-01-02", "2025-03-31")
    vendor, asked = premium(server), request("2025-01-20", "2025-03-10", "15m")
    parts = vendor.parts(asked)
    assert [part.start for part in parts] == [utc("2025-01-20"), utc("2025-02-01T05:00"), utc("2025-03-01T05:00")]
    assert [vendor.parts(part) for part in parts] == [[part] for part in parts]
    bars = fetch_with_policy(vendor, asked).bars
    assert [one["month"] for one in server.requests] == ["2025-01", "2025-02", "2025-03"]
    truth = expected_bars("XNYS", "15m", date(2025, 1, 20), date(2025, 3, 7))
    assert bars["open_time"].to_list() == truth["open_time"].to_list()
    with pytest.raises(VendorError, match="one month an answer"):
        vendor.fetch(asked)


def test_hours_that_are_cut_by_the_clock_are_not_asked_for(server):
    vendor = premium(server)
    assert "15m bars" in vendor.unsupported(request("2025-03-03", "2025-03-04", "1h"))
    assert vendor.unsupported(request("2025-03-03", "2025-03-04", "1h", calendar="XLON")) is None
    assert "since 2000" in vendor.unsupported(request("1999-12-01", "1999-12-02", "5m"))


def test_hours_of_an_exchange_that_opens_at_one_are_served(server):
    server.series["IBM", "60min"] = grid("1h", "2025-03-03", "2025-03-03", calendar="XLON")
    bars = premium(server).fetch(request("2025-03-03", "2025-03-04", "1h", calendar="XLON")).bars
    assert bars["open_time"].min() == utc("2025-03-03T08:00") and len(bars) == 9
    assert set(bars["close_time"] - bars["open_time"]) == {INTERVALS["1h"]}


def test_a_bar_that_is_not_over_by_their_clock_is_left_out(server):
    server.now = datetime(2026, 11, 20, 15, 2, tzinfo=UTC)
    server.series["IBM", "5min"] = [
        one for one in grid("5m", "2026-11-20", "2026-11-20") if one.text <= "2026-11-20 10:00:00"
    ]
    bars = premium(server).fetch(request("2026-11-20", "2026-11-21", "5m")).bars
    assert bars["open_time"].max() == utc("2026-11-20T14:55")


def test_an_empty_month_says_that_there_are_none(server):
    server.series["IBM", "5min"] = grid("5m", "2025-03-03", "2025-03-14")
    bars = premium(server).fetch(request("2025-04-01T04:00", "2025-04-20", "5m")).bars
    assert bars.is_empty() and bars.schema == RAW_SCHEMA


# What it says instead --------------------------------------------------------------------------------------------


def test_a_used_up_day_closes_it_until_midnight_in_new_york(vendor, server):
    server.per_day = 1
    vendor.fetch(request())
    with pytest.raises(VendorError, match="quota is used up") as failed:
        vendor.fetch(request())
    # 17:00 in New York.
    assert (failed.value.opens_circuit, failed.value.retryable, failed.value.retry_after) == (True, False, 7 * 3600)


def test_the_day_that_the_clocks_change_is_as_long_as_it_is(vendor, server):
    server.now = datetime(2026, 11, 1, 4, 30, tzinfo=UTC)
    reply(server, {"Information": DAY_IS_USED_UP})
    with pytest.raises(VendorError) as failed:
        vendor.fetch(request("2026-10-01"))
    assert failed.value.retry_after == 24.5 * 3600


NOTICES = {
    "burst": ({"Information": TOO_FAST}, True, 2.0, False, "too fast"),
    "minute": ({"Note": "Our standard API call frequency is 5 calls per minute and 500 calls per day."}, True, 60.0,
               False, "too fast"),
    "premium": ({"Information": "Thank you! This is a premium endpoint."}, False, None, False, "premium endpoint"),
    "no such symbol": ({"Error Message": "Invalid API call. Please retry"}, False, None, False, "Invalid API call"),
    "bad key": ({"Error Message": "the parameter apikey is invalid or missing."}, False, 60.0, True, "is rejected"),
    "nothing": ({}, False, None, False, "has no Time Series (Daily)"),
    "no words": ({"Information": {"a": 1}}, False, None, False, "has no Time Series (Daily)"),
    "a list": ([], False, None, False, "not an object"),
    "no bars": ({"Time Series (Daily)": []}, False, None, False, "does not hold bars"),
    "bars are lists": ({"Time Series (Daily)": {"2026-11-19": [1]}}, False, None, False, "does not hold bars"),
    "no time": ({"Time Series (Daily)": {"yesterday": {}}}, False, None, False, "a bar's time is none"),
    "no ascii": ({"Time Series (Daily)": {"\ud800": {}}}, False, None, False, "a bar's time is none"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOTICES)
def test_each_notice_says_what_it_is_and_whether_it_may_pass(vendor, server, case):
    body, retryable, after, closed, said = NOTICES[case]
    reply(server, body)
    with pytest.raises(VendorError) as failed:
        vendor.fetch(request())
    error = failed.value
    assert (error.retryable, error.retry_after, error.opens_circuit) == (retryable, after, closed)
    assert said in str(error)


HTTP = {
    "429": (Reply(429, "slow down", {"Retry-After": "17"}), True, 17.0, "slow down"),
    "429 without a time": (Reply(429, ""), True, None, "HTTP 429"),
    "503": (Reply(503, "<html> gone </html>", kind="text/html"), True, None, "HTTP 503"),
    "html": (Reply(200, "<html>we are down</html>", kind="text/html"), True, None, "not JSON"),
    "half an answer": (Reply(200, '{"Meta Data": {"1. Inf'), True, None, "not JSON"),
    "cut": (Reply(200, '{"Meta Data": {}}', cut=5), True, None, "no answer"),
}


@pytest.mark.parametrize("case", HTTP)
def test_each_http_error_says_what_it_is_and_whether_it_may_pass(vendor, server, case):
    answer, retryable, after, said = HTTP[case]
    server.replies.append(answer)
    with pytest.raises(VendorError) as failed:
        vendor.fetch(request())
    assert (failed.value.retryable, failed.value.retry_after) == (retryable, after) and said in str(failed.value)


def test_bars_of_another_interval_are_rejected_whole(server):
    row = {"1. open": "1", "2. high": "1", "3. low": "1", "4. close": "1", "5. volume": "1"}
    about = {"4. Interval": "60min", "6. Time Zone": "US/Eastern"}
    reply(server, {"Meta Data": about, "Time Series (5min)": {"2025-03-03 10:00:00": row}})
    with pytest.raises(VendorError, match="answered with 60min bars where 5m ones were asked for") as failed:
        premium(server).fetch(request("2025-03-03", "2025-03-04", "5m"))
    assert not failed.value.retryable


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../../etc/passwd", "\x00", "ﬀ", "\ud800", 7, None])
def test_times_of_an_unknown_zone_are_rejected(server, zone):
    body = recorded("alpha_vantage_5min_msft.json")
    body["Meta Data"]["6. Time Zone"] = zone
    reply(server, body)
    with pytest.raises(VendorError, match="no time zone that is known"):
        premium(server).fetch(request("2019-10-30", "2019-10-31", "5m", symbol="MSFT"))


def test_a_time_that_the_clocks_skip_is_rejected(server):
    reply(server, {"Meta Data": {"6. Time Zone": "US/Eastern"}, "Time Series (5min)": {"2025-03-09 02:30:00": {}}})
    with pytest.raises(VendorError, match="does not exist"):
        premium(server).fetch(request("2025-03-07", "2025-03-12", "5m"))


def test_numbers_that_are_none_become_nulls_for_cleaning_to_judge(vendor, server):
    odd = {"1. open": None, "2. high": "n/a", "3. low": [], "4. close": 2, "5. volume": 10**400}
    reply(server, {"Meta Data": {}, "Time Series (Daily)": {"2026-11-19": odd, "9999-12-31": {}, "0001-01-01": {}}})
    bars = vendor.fetch(request()).bars
    assert bars.select("open", "high", "low", "close", "volume").rows() == [(None, None, None, 2.0, None)]


# The key ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [
    Reply(200, json.dumps({"Information": DAY_IS_USED_UP})),
    Reply(200, json.dumps({"Error Message": "x" * 152 + KEY})),
    Reply(403, json.dumps({"message": f"key {KEY} is blocked"})),
    Reply(503, "y" * 150 + KEY, kind="text/html"),
    Reply(200, f"<html>?apikey={KEY}</html>", kind="text/html"),
])  # fmt: skip
def test_the_key_is_in_no_error_and_in_no_log(vendor, server, answer, caplog):
    caplog.set_level(logging.DEBUG)
    server.replies.append(answer)
    with pytest.raises(VendorError) as failed:
        vendor.fetch(request())
    assert server.requests[0]["apikey"] == KEY
    said = f"{failed.value} {failed.value!r}" + "".join(record.getMessage() for record in caplog.records)
    assert KEY not in said and KEY[:8] not in said and "<key>" in said
    assert any("/query" in record.getMessage() for record in caplog.records), "addresses are still logged"


def test_nobody_there_may_pass_and_does_not_tell_the_key():
    with pytest.raises(VendorError, match="no answer: ConnectionError") as failed:
        AlphaVantageVendor("http://127.0.0.1:9", SecretStr(KEY)).fetch(request("2026-11-19", "2026-11-20"))
    assert failed.value.retryable and failed.value.__cause__ is None


def test_recordings_name_their_sources():
    sources = (RECORDINGS / "SOURCES.md").read_text("utf-8")
    mine = [
        path.name for path in Path(RECORDINGS).iterdir() if path.name.startswith(("alpha_vantage", "twelve", "ibkr"))
    ]
    assert len(mine) == 6 and all(name in sources for name in mine)


def test_silence_is_what_a_quiet_minute_sounds_like(server):
    server.series["IBM", "5min"] = grid("5m", "2025-03-03", "2025-03-03")[::2]
    bars = premium(server).fetch(request("2025-03-03", "2025-03-04", "5m")).bars
    assert len(bars) == 39 and bars.filter(pl.col("volume") == 0).is_empty()


@pytest.mark.parametrize("variable", ["ALPHAVANTAGE_API_KEY", "QUANTLYTIC_ALPHA_VANTAGE_KEY"])
def test_key_and_address_come_from_the_environment(monkeypatch, server, variable):
    assert Settings.model_fields["alpha_vantage_url"].default == "https://www.alphavantage.co"
    monkeypatch.setenv("QUANTLYTIC_ALPHA_VANTAGE_URL", server.url)
    monkeypatch.delenv("ALPHAVANTAGE_API_KEY", raising=False)
    monkeypatch.setenv(variable, KEY)
    monkeypatch.setenv("QUANTLYTIC_ALPHA_VANTAGE_PREMIUM", "true")
    server.premium = True
    assert len(make_vendor("alpha_vantage").fetch(request()).bars) > 0
    assert KEY not in repr(Settings())
