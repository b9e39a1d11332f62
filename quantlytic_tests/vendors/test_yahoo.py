"""Yahoo's chart endpoint: recorded answers, made-up ones with every known oddity, and errors of all kinds."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from quantlytic_assets.calendars.sessions import expected_bars
from quantlytic_assets.market_data.actions.reconcile import ACTIONS_SCHEMA
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.vendors.policy import fetch_with_policy
from quantlytic_assets.vendors.protocol import BarRequest, VendorError
from quantlytic_assets.vendors.yahoo import YahooVendor, yahoo_name
from quantlytic_tests.frames import utc
from quantlytic_tests.vendors.loopback import Reply
from quantlytic_tests.vendors.yahoo_server import YahooServer

RECORDINGS = Path(__file__).parent / "recordings"
# A Thursday evening in New York, when the exchange is closed.
NOW = utc("2024-06-07T01:00")
SPLIT_DAY, DIVIDEND_DAY = date(2024, 5, 14), date(2024, 5, 10)


class Clock:
    def __init__(self, now: datetime = NOW):
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def seconds(self) -> float:
        return self.now.timestamp()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock) -> Iterator[YahooServer]:
    with YahooServer(["AAPL", "BRK-B", "^TNX"], date(2023, 1, 3), clock=clock.seconds) as serving:
        yield serving


@pytest.fixture
def vendor(server, clock) -> YahooVendor:
    return YahooVendor(server.url + "/", clock)


def request(start: str, end: str, symbol: str = "AAPL", interval: str = "1d", calendar: str = "XNYS", **fields):
    return BarRequest("d", symbol, interval, calendar, utc(start), utc(end), **fields)


MAY = request("2024-05-01T04:00", "2024-06-01T04:00")


def recorded(server: YahooServer, name: str, at: str) -> dict[str, Any]:
    """Let the server answer next with a recording, as of the time it was made; returns its chart."""
    body = (RECORDINGS / f"yahoo_{name}.json").read_text("utf-8")
    server.replies.append(Reply(200, body, {"Date": at}))
    return json.loads(body)["chart"]["result"][0]


def chart(server: YahooServer, stamps: list, quote: dict, meta: dict | None = None, **parts: Any) -> None:
    """Let the server answer next with a chart of these parts."""
    result = {"meta": meta or {}, "timestamp": stamps, "indicators": {"quote": [quote]}, **parts}
    server.replies.append(Reply(200, json.dumps({"chart": {"result": [result], "error": None}})))


def stamps_of(*times: str) -> list[int]:
    return [int(utc(time).timestamp()) for time in times]


def quote(count: int, **columns: list) -> dict:
    return {name: [value] * count for name, value in
            {"open": 2.0, "high": 4.0, "low": 1.0, "close": 3.0, "volume": 50}.items()} | columns  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "calendar", "theirs"),
    [
        ("AAPL", "XNYS", "AAPL"), ("brk.b", "XNYS", "BRK-B"), ("BF.B", "XNYS", "BF-B"), ("AET.L", "XLON", "AET.L"),
        ("4063.T", "XTKS", "4063.T"), ("^TNX", "XNYS", "^TNX"), ("BTC-USD", "24/7", "BTC-USD"),
        ("DX-Y.NYB", "XNYS", "DX-Y.NYB"),
    ],
)  # fmt: skip
def test_symbols_have_yahoo_s_names(ours, calendar, theirs):
    assert yahoo_name(ours, calendar) == theirs


# Recorded answers ------------------------------------------------------------------------------------------------


def test_a_recorded_range_with_a_split_and_a_dividend(vendor, server):
    told = recorded(server, "aapl_1d_split", "Thu, 20 Feb 2025 11:47:42 GMT")
    served = vendor.fetch(request("2020-08-31T04:00", "2020-11-07T05:00"))
    bars = served.bars
    assert bars.schema == RAW_SCHEMA and len(bars) == 49
    sessions = expected_bars("XNYS", "1d", date(2020, 8, 31), date(2020, 11, 6))
    # Summer time ends on 1 November within the range.
    assert bars.select("open_time", "close_time").equals(sessions.select("open_time", "close_time"))
    for name in ("open", "high", "low", "close", "volume"):
        assert bars[name].to_list() == told["indicators"]["quote"][0][name]
    assert bars.select("symbol", "vendor", "adjustment").unique().rows() == [("AAPL", "yahoo", "split")]
    assert bars["vwap"].null_count() == bars["trade_count"].null_count() == 49
    assert served.actions.schema == ACTIONS_SCHEMA
    assert served.actions.drop("recorded_at").rows() == [
        ("AAPL", date(2020, 8, 31), "split", 4.0, None, date(2020, 8, 31), "none", "yahoo"),
        ("AAPL", date(2020, 11, 6), "dividend", 0.205, None, date(2020, 11, 6), "split", "yahoo"),
    ]


def test_a_recorded_answer_without_bars(vendor, server):
    assert "timestamp" not in recorded(server, "aapl_1m_weekend", "Sun, 02 Feb 2025 11:00:00 GMT")
    vendor_then = YahooVendor(server.url, Clock(utc("2025-02-02T11:00")))
    served = vendor_then.fetch(request("2025-02-01T00:00", "2025-02-02T00:00", interval="1m"))
    assert served.bars.is_empty() and served.bars.schema == RAW_SCHEMA and served.actions.is_empty()


def test_a_recorded_bar_that_begins_at_the_end_of_the_range_is_left_out(vendor, server):
    """Yahoo serves what opens at period2 itself, here the third day; crypto's days are UTC's."""
    recorded(server, "btc_1d", "Thu, 20 Feb 2025 11:47:41 GMT")
    bars = vendor.fetch(request("2020-01-01", "2020-01-03", "BTC-USD", calendar="24/7")).bars
    assert bars["open_time"].to_list() == [utc("2020-01-01"), utc("2020-01-02")]
    assert bars["close_time"].to_list() == [utc("2020-01-02"), utc("2020-01-03")]


def test_a_recorded_answer_of_another_exchange_is_in_its_own_time(vendor, server):
    recorded(server, "wsu_de_1d", "Thu, 20 Feb 2025 11:47:41 GMT")
    bars = vendor.fetch(request("2023-08-03T22:00", "2023-08-08T22:00", "WSU.DE", calendar="XETR")).bars
    assert bars["open_time"].to_list() == [utc(f"2023-08-0{day}T07:00") for day in (4, 7, 8)]
    assert bars["volume"][0] == 1251


def test_a_recorded_last_bar_that_is_a_live_quote_is_left_out(vendor, server):
    told = recorded(server, "aapl_1d_live", "Wed, 29 Oct 2025 20:30:00 GMT")
    bars = vendor.fetch(request("2025-04-30T04:00", "2025-10-30T04:00")).bars
    assert told["timestamp"][-1] == stamps_of("2025-10-29T20:00:01")[0]
    assert len(bars) == len(told["timestamp"]) - 1 and bars["open_time"].max() == utc("2025-10-28T13:30")
    assert bars["open_time"].to_list() == [datetime.fromtimestamp(stamp, UTC) for stamp in told["timestamp"][:-1]]


def test_a_session_of_which_there_is_only_a_live_quote_is_not_answered_yet(vendor, server):
    """An answer without it would count as Yahoo's word that it has none."""
    recorded(server, "aapl_1d_live", "Wed, 29 Oct 2025 20:30:00 GMT")
    with pytest.raises(VendorError, match="2025-10-29 is not final yet") as failed:
        vendor.fetch(request("2025-10-29T04:00", "2025-10-30T04:00"))
    assert not failed.value.retryable


# Made-up ones ----------------------------------------------------------------------------------------------------


def test_the_question(vendor, server):
    vendor.fetch(request("2024-05-01T04:00", "2024-05-02T04:00", "^TNX"))
    asked = server.questions[0]
    assert (asked.path, dict(asked.params)) == (
        "/v8/finance/chart/^TNX",
        {
            # Half a day earlier, for days that begin before those of UTC.
            "period1": str(stamps_of("2024-04-30T16:00")[0]),
            "period2": str(stamps_of("2024-05-02T04:00")[0]),
            "interval": "1d",
            "includePrePost": "false",
            "events": "div,splits",
        },
    )
    assert asked.headers["User-Agent"].startswith("Mozilla/5.0")
    vendor.fetch(request("2024-06-06T13:30", "2024-06-06T13:45:00.5", interval="5m", name="BRK-B"))
    assert (server.requests[1].symbol, server.requests[1].interval) == ("BRK-B", "5m")
    asked_for = [server.requests[1].start, server.requests[1].end]
    assert asked_for == stamps_of("2024-06-06T13:30", "2024-06-06T13:45:01")


def test_yields_and_share_classes_are_symbols_like_others(vendor, server):
    for symbol in ("^TNX", "BRK.B"):
        bars = vendor.fetch(request("2024-05-01T04:00", "2024-06-01T04:00", symbol)).bars
        assert len(bars) == 22 and set(bars["symbol"]) == {symbol}


@pytest.mark.parametrize(
    ("start", "end", "opens", "closes"),
    [
        # Clocks went forward on Sunday, 10 March.
        ("2024-03-08T05:00", "2024-03-12T04:00", ["03-08T14:30", "03-11T13:30"], ["03-08T21:00", "03-11T20:00"]),
        # The day after Thanksgiving is half of one.
        ("2023-11-22T05:00", "2023-11-25T05:00", ["11-22T14:30", "11-24T14:30"], ["11-22T21:00", "11-24T18:00"]),
    ],
)  # fmt: skip
def test_daily_bars_have_their_session_s_hours(vendor, start, end, opens, closes):
    bars = vendor.fetch(request(start, end)).bars
    assert bars["open_time"].to_list() == [utc(f"{start[:4]}-{time}") for time in opens]
    assert bars["close_time"].to_list() == [utc(f"{start[:4]}-{time}") for time in closes]


@pytest.mark.parametrize("interval", ["1m", "5m", "15m", "1h"])
def test_intraday_bars_are_those_of_the_calendar(vendor, interval):
    """The hour that the exchange closes in ends with it."""
    bars = vendor.fetch(request("2024-06-04T04:00", "2024-06-06T04:00", interval=interval)).bars
    grid = expected_bars("XNYS", interval, date(2024, 6, 4), date(2024, 6, 5))
    assert bars.select("open_time", "close_time").equals(grid.select("open_time", "close_time"))


@pytest.mark.parametrize(
    ("now", "newest"),
    [
        ("2024-06-06T15:02:30", "14:55"),
        ("2024-06-06T15:04:59", "14:55"),
        ("2024-06-06T15:05", "15:00"),
        ("2024-06-06T15:05:01", "15:00"),
        ("2024-06-06T20:10", "19:55"),
    ],
)
def test_the_bar_that_is_being_made_is_left_out(vendor, clock, now, newest):
    clock.now = utc(now)
    bars = vendor.fetch(request("2024-06-06T04:00", "2024-06-07T04:00", interval="5m")).bars
    assert bars["open_time"].max() == utc(f"2024-06-06T{newest}")


def test_a_session_that_is_running_is_no_daily_bar_yet(vendor, clock):
    clock.now = utc("2024-06-06T15:02:30")
    bars = vendor.fetch(request("2024-06-05T04:00", "2024-06-07T04:00")).bars
    assert bars["open_time"].to_list() == [utc("2024-06-05T13:30")]
    # It is nobody's hole: what is not over is not wanted.
    assert vendor.fetch(request("2024-06-06T04:00", "2024-06-07T04:00")).bars.is_empty()


def test_a_bar_stamped_as_the_exchange_does_is_final_though_another_calendar_opens_later(vendor, server):
    """CBOE's yields begin at 8:20 in New York."""
    meta = {"regularMarketTime": stamps_of("2024-06-06T18:59:59")[0], "exchangeTimezoneName": "America/Chicago"}
    chart(server, stamps_of("2024-06-05T12:20", "2024-06-06T12:20"), quote(2), meta)
    bars = vendor.fetch(request("2024-06-05T04:00", "2024-06-07T04:00", "^TNX")).bars
    assert bars["open_time"].to_list() == [utc("2024-06-05T13:30"), utc("2024-06-06T13:30")]


def test_a_quote_beside_the_final_bar_of_its_session_is_left_out(vendor, server):
    stamps = stamps_of("2024-06-06T13:30", "2024-06-06T20:00:01")
    chart(server, stamps, quote(2, close=[3.0, 3.5]), {"regularMarketTime": stamps[1]})
    assert vendor.fetch(request("2024-06-06T04:00", "2024-06-07T04:00")).bars["close"].to_list() == [3.0]


def test_a_row_of_nulls_is_no_bar_and_one_of_some_nulls_is_for_cleaning_to_judge(vendor, server):
    stamps = stamps_of(*(f"2024-06-0{day}T13:30" for day in (3, 4, 5, 6)))
    chart(
        server, stamps,
        {
            "open": [1.0, None, None, None], "high": [3.0, None, 3.0, None], "low": [0.5, None, None, None],
            "close": [2.0, None, 2.0, None], "volume": [7, None, None, 0],
        },
    )  # fmt: skip
    bars = vendor.fetch(request("2024-06-03T04:00", "2024-06-07T04:00")).bars
    assert bars.select("open", "high", "low", "close", "volume").rows() == [
        (1.0, 3.0, 0.5, 2.0, 7.0),
        (None, 3.0, None, 2.0, None),
    ]


def test_what_is_no_number_is_null_and_kept(vendor, server):
    column = ["x", {}]
    chart(
        server, stamps_of("2024-06-05T13:30", "2024-06-06T13:30"),
        {"open": column, "high": column, "low": column, "close": column, "volume": [None, None]},
    )  # fmt: skip
    bars = vendor.fetch(request("2024-06-05T04:00", "2024-06-07T04:00")).bars
    assert len(bars) == 2 and bars["open"].null_count() == 2


def test_a_bar_that_comes_twice_is_handed_on_twice(vendor, server):
    stamps = stamps_of("2024-06-05T13:30", "2024-06-05T13:30")
    chart(server, stamps, quote(2, close=[3.0, 3.5]))
    assert vendor.fetch(request("2024-06-05T04:00", "2024-06-06T04:00")).bars["close"].to_list() == [3.0, 3.5]


def test_bars_come_oldest_first_and_none_that_was_not_asked_for(vendor, server):
    stamps = stamps_of("2024-06-05T13:35", "2024-06-05T13:30", "2024-06-05T13:25", "2024-06-05T13:40")
    chart(server, stamps, quote(4))
    bars = vendor.fetch(request("2024-06-05T13:30", "2024-06-05T13:40", interval="5m")).bars
    assert bars["open_time"].to_list() == [utc("2024-06-05T13:30"), utc("2024-06-05T13:35")]


def test_a_hole_is_just_not_there(vendor, server):
    server.holes.add(("AAPL", date(2024, 5, 15)))
    bars = vendor.fetch(MAY).bars
    assert len(bars) == 21 and utc("2024-05-15T13:30") not in bars["open_time"]


def test_a_split_changes_history_and_the_dividends_before_it(vendor, server, clock):
    server.splits["AAPL"] = {SPLIT_DAY: (4, 1)}
    server.dividends["AAPL"] = {DIVIDEND_DAY: 0.8}
    clock.now = utc("2024-05-13T22:00")
    week = request("2024-05-06T04:00", "2024-05-14T04:00")
    before = vendor.fetch(week)
    assert before.actions.select("session", "kind", "value").rows() == [(DIVIDEND_DAY, "dividend", 0.8)]
    clock.now = NOW
    after = vendor.fetch(week)
    assert (before.bars["close"] / after.bars["close"]).round(3).unique().to_list() == [4.0]
    assert after.actions["value"].to_list() == [0.2]
    assert after.bars["fetched_at"].min() > before.bars["fetched_at"].max()
    told = vendor.fetch(MAY).actions
    assert told.select("session", "kind", "value", "adjustment").rows() == [
        (SPLIT_DAY, "split", 4.0, "none"),
        (DIVIDEND_DAY, "dividend", 0.2, "split"),
    ]


def test_an_event_that_says_nothing_usable_is_told_with_nulls_for_others_to_refuse(vendor, server):
    day = stamps_of("2024-06-05T13:30")[0]
    events = {
        "splits": {"a": {"date": day, "numerator": 4, "denominator": 0}, "b": "soon"},
        # The chart is monthly: its keys are months.
        "dividends": {"1717214400": {"date": day, "amount": "much"}, "c": {"date": 10**17, "amount": 0.5}},
    }
    chart(server, [day], quote(1), events=events)
    told = vendor.fetch(request("2024-06-05T04:00", "2024-06-06T04:00")).actions
    assert told.select("kind", "session", "value", "known_on").rows() == [
        ("split", date(2024, 6, 5), None, date(2024, 6, 5)),
        ("split", None, None, date(2024, 6, 7)),
        ("dividend", date(2024, 6, 5), None, date(2024, 6, 5)),
        ("dividend", None, 0.5, date(2024, 6, 7)),
    ]


# What is served at all -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("interval", "days"), [("1m", 30), ("5m", 60), ("15m", 60), ("1h", 730)])
def test_bars_older_than_the_look_back_are_not_asked_for(vendor, server, interval, days):
    inside, outside = NOW - timedelta(days=days) + timedelta(minutes=1), NOW - timedelta(days=days, minutes=1)
    assert vendor.unsupported(BarRequest("d", "AAPL", interval, "XNYS", inside, inside + timedelta(days=1))) is None
    old = BarRequest("d", "AAPL", interval, "XNYS", outside, outside + timedelta(days=1))
    assert f"of the last {days} days only, from {NOW - timedelta(days=days):%Y-%m-%d} on" in vendor.unsupported(old)
    with pytest.raises(VendorError, match="last .* days only"):
        fetch_with_policy(vendor, old)
    assert server.requests == []
    with pytest.raises(VendorError, match="HTTP 422: .*must be within the last") as failed:
        vendor.fetch(old)
    assert not failed.value.retryable


@pytest.mark.parametrize(("interval", "days"), [("1m", 30), ("5m", 60), ("1h", 730)])
def test_the_younger_part_of_a_range_is_served(vendor, server, clock, interval, days):
    long = BarRequest("d", "AAPL", interval, "XNYS", NOW - timedelta(days=days + 30), NOW)
    parts = vendor.parts(long)
    assert parts[0].start == long.start and parts[-1].end == long.end
    assert all(a.end == b.start for a, b in zip(parts, parts[1:], strict=False))
    served = [part for part in parts if vendor.unsupported(part) is None]
    assert served and served[0].start - (NOW - timedelta(days=days)) <= timedelta(hours=3)
    clock.now += timedelta(minutes=59)
    assert all(vendor.parts(part) == [part] for part in parts), "also a while later"
    for part in served:
        assert len(vendor.fetch(part).bars)
    assert {asked.status for asked in server.requests} == {200}


def test_a_week_of_minutes_is_asked_for_at_once_and_any_length_of_days(vendor, server):
    month = request("2024-05-14T04:00", "2024-06-07T04:00", interval="1m")
    bars = fetch_with_policy(vendor, month).bars
    assert len(server.requests) == 4 and len(bars) == 17 * 390
    assert bars["open_time"].is_sorted() and bars["open_time"].is_unique().all()
    with pytest.raises(VendorError, match="Only 8 days worth of 1m"):
        vendor.fetch(month)
    years = request("1990-01-01", "2024-06-01T04:00")
    assert vendor.parts(years) == [years] and vendor.unsupported(years) is None
    assert len(vendor.fetch(years).bars) == len(expected_bars("XNYS", "1d", date(2023, 1, 3), date(2024, 5, 31)))


def test_before_the_first_trade_there_are_none(vendor):
    served = vendor.fetch(request("2019-01-01", "2020-01-01"))
    assert served.bars.is_empty() and served.bars.schema == RAW_SCHEMA


# Errors ----------------------------------------------------------------------------------------------------------


def error(code: str, description: str, part: str = "chart") -> str:
    return json.dumps({part: {"result": None, "error": {"code": code, "description": description}}})


def body(**result: Any) -> str:
    return json.dumps({"chart": {"result": [{"indicators": {"quote": [{}]}} | result], "error": None}})


ERRORS = {
    "429": (Reply(429, "Too Many Requests\r\n"), True, None, True, "429, too many requests: Too Many"),
    "429 with a time": (Reply(429, "Edge: busy", {"Retry-After": "17"}), True, 17.0, False, "HTTP 429: Edge: busy"),
    "429 in its own shape": (Reply(429, error("Too Many", "slowly", "finance")), True, None, True, "slowly"),
    "999": (Reply(999, "Request denied"), True, None, True, "Request denied"),
    "418": (Reply(418, "", {"Retry-After": "600"}), False, 600.0, True, "banned for 600 s"),
    "503": (Reply(503, "<html>down</html>", kind="text/html"), True, None, False, "HTTP 503"),
    "no such symbol": (Reply(404, error("Not Found", "No data found, symbol may be delisted")), False, None, False,
                       "knows no AAPL .*delisted.*names: {yahoo: …}"),
    "404 of a proxy": (Reply(404, "<html>", kind="text/html"), False, None, False, "HTTP 404: <html>"),
    "an error under 200": (Reply(200, error("Bad Request", "Invalid")), False, None, False, "Bad Request: Invalid"),
    "an error without words": (Reply(200, '{"chart": {"error": true}}'), False, None, False, "answered an error"),
    "html": (Reply(200, "<html>consent</html>", kind="text/html"), True, None, False, "not JSON"),
    "half an answer": (Reply(200, '{"chart": {"res'), True, None, False, "not JSON"),
    "deeper than anybody reads": (Reply(200, "[" * 100_000), True, None, False, "not JSON"),
    "the connection breaks": (Reply(200, body(), cut=5), True, None, False, "no answer"),
    "no chart": (Reply(200, "[]"), False, None, False, "not one chart"),
    "no result": (Reply(200, '{"chart": {"result": null, "error": null}}'), False, None, False, "not one chart"),
    "two results": (Reply(200, '{"chart": {"result": [{}, {}]}}'), False, None, False, "not one chart"),
    "no indicators": (Reply(200, '{"chart": {"result": [{"timestamp": [1]}]}}'), False, None, False, "not one chart"),
    "times without bars": (Reply(200, body(timestamp=[1])), True, None, False, "not one open for each time"),
    "less of one": (Reply(200, body(timestamp=[1, 2], indicators={"quote": [quote(2, low=[1.0])]})), True, None, False,
                    "not one low for each time"),
    "no times": (Reply(200, body(timestamp=["x"], indicators={"quote": [quote(1)]})), False, None, False,
                 "timestamp is not always a whole number"),
    "events of another shape": (Reply(200, body(events={"splits": [1]})), False, None, False, "splits are not a table"),
}  # fmt: skip


@pytest.mark.parametrize("granularity", ["3mo", "1mo", "1wk", "1h"])
def test_bars_of_another_granularity_are_rejected_whole(vendor, server, granularity):
    times = [int(datetime(2020, month, 1, 14, 30, tzinfo=UTC).timestamp()) for month in (5, 6)]
    served = body(timestamp=times, meta={"dataGranularity": granularity}, indicators={"quote": [quote(2)]})
    server.replies.append(Reply(200, served))
    with pytest.raises(VendorError, match=f"answered with {granularity} bars where 1d ones were asked for") as failed:
        vendor.fetch(MAY)
    assert not failed.value.retryable


@pytest.mark.parametrize("case", ERRORS)
def test_each_error_says_what_it_is_and_whether_it_may_pass(vendor, server, case):
    reply, retryable, after, closed, said = ERRORS[case]
    server.replies.append(reply)
    with pytest.raises(VendorError, match=said) as failed:
        vendor.fetch(MAY)
    assert (failed.value.retryable, failed.value.retry_after, failed.value.opens_circuit) == (retryable, after, closed)
    assert len(server.requests) == 1


def test_nobody_there_may_pass():
    with pytest.raises(VendorError, match="no answer") as failed:
        YahooVendor("http://127.0.0.1:9").fetch(MAY)
    assert failed.value.retryable


def test_a_crumb_is_got_where_it_is_wanted_and_kept(vendor, server):
    server.crumb = "abc.def"
    assert len(vendor.fetch(MAY).bars) == 22
    paths = [question.path for question in server.questions]
    assert paths == ["/v8/finance/chart/AAPL", "/", "/v1/test/getcrumb", "/v8/finance/chart/AAPL"]
    assert len(vendor.fetch(MAY).bars) == 22 and len(server.questions) == 5
    # One that has expired is replaced.
    server.crumb = "ghi"
    assert len(vendor.fetch(MAY).bars) == 22 and len(server.questions) == 9


def test_threads_that_are_rejected_together_get_one_crumb_for_all(vendor, server):
    server.crumb, server.latency = "abc", 0.2
    with ThreadPoolExecutor(4) as askers:
        assert [len(answer.bars) for answer in askers.map(vendor.fetch, [MAY] * 4)] == [22] * 4
    paths = [question.path for question in server.questions]
    assert (paths.count("/v1/test/getcrumb"), paths.count("/v8/finance/chart/AAPL")) == (1, 8)


def test_whom_a_crumb_doesn_t_help_is_left_alone_for_a_while(vendor, server):
    server.crumb = "abc"
    rejected = Reply(401, error("Unauthorized", "Invalid Crumb", "finance"))
    server.replies += [rejected, rejected]
    with pytest.raises(VendorError, match="HTTP 401, shut out: Invalid Crumb") as failed:
        vendor.fetch(MAY)
    assert failed.value.opens_circuit
    server.crumb = "<html>"
    with pytest.raises(VendorError, match="wants a crumb, and gives none: <html>") as failed:
        vendor.fetch(MAY)
    assert failed.value.retryable


def test_beyond_the_limits_the_server_answers_429_and_the_vendor_is_closed(clock):
    with YahooServer(["AAPL"], date(2023, 1, 3), limits=[(60, 3)], clock=clock.seconds) as server:
        vendor = YahooVendor(server.url, clock)
        for _ in range(3):
            vendor.fetch(MAY)
        with pytest.raises(VendorError, match="Too Many Requests") as failed:
            fetch_with_policy(vendor, MAY)
        assert failed.value.opens_circuit and server.rejected == 1
        server.retry_after = 30
        with pytest.raises(VendorError) as failed:
            vendor.fetch(MAY)
        assert failed.value.retry_after == 30 and [asked.status for asked in server.requests] == [200] * 3 + [429] * 2


def test_the_server_says_the_same_in_every_run(server, vendor, clock):
    with YahooServer(["AAPL"], date(2023, 1, 3), clock=clock.seconds) as other:
        again = YahooVendor(other.url, clock).fetch(MAY).bars
    bars = vendor.fetch(MAY).bars
    assert bars.drop("fetched_at").equals(again.drop("fetched_at"))
    top, bottom = pl.max_horizontal("open", "close"), pl.min_horizontal("open", "close")
    assert bars.filter((pl.col("high") < top) | (pl.col("low") > bottom) | (pl.col("low") <= 0)).is_empty()
