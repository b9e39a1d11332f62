"""Interactive Brokers: contracts, how far back is asked, bars by their start, and every way in which TWS says no."""

import asyncio
import csv
import logging
import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.calendars.sessions import expected_bars, session_table
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.settings import Settings
from quantlytic_assets.vendors.ibkr import IbkrContract, IbkrVendor, ibkr_contract
from quantlytic_assets.vendors.policy import fetch_with_policy
from quantlytic_assets.vendors.protocol import BarRequest, Limit, VendorError
from quantlytic_assets.vendors.registry import make_vendor
from quantlytic_tests.frames import utc
from quantlytic_tests.vendors.alpha_vantage_server import RECORDINGS
from quantlytic_tests.vendors.tws_server import HISTORY, Fault, Instrument, TwsBar, TwsServer

AAPL = Instrument(265598, "AAPL")
BRK = Instrument(72063691, "BRK B", listed="NYSE")
EURUSD = Instrument(12087792, "EUR", "CASH", "USD", "IDEALPRO")
BITCOIN = Instrument(479624278, "BTC", "CRYPTO", "USD", "PAXOS")


def bar(start: datetime, price: float = 100.0, **changes) -> TwsBar:
    return replace(TwsBar(start, price, price + 1, price - 1, price + 0.5, 1000.0, price + 0.25, 42), **changes)


def grid(interval: str, first: str, last: str, calendar: str = "XNYS", **changes) -> list[TwsBar]:
    """A bar for each of the calendar's."""
    times = expected_bars(calendar, interval, date.fromisoformat(first), date.fromisoformat(last))["open_time"]
    return [bar(at, 100 + n, **changes) for n, at in enumerate(times.to_list())]


def recorded() -> list[TwsBar]:
    """Bars that IB gave for 2025-09-26; regular hours end at 20:00 UTC."""
    with (RECORDINGS / "ibkr_1min_aapl.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = []
    for one in rows:
        start = datetime.fromisoformat(one["date"]).astimezone(UTC)
        numbers = (float(one[name]) for name in ("open", "high", "low", "close", "volume", "average"))
        regular = utc("2025-09-26T13:30") <= start < utc("2025-09-26T20:00")
        found.append(TwsBar(start, *numbers, int(one["barCount"]), regular))
    return found


@pytest.fixture
def server():
    bars = {("AAPL", "1 min"): recorded(), ("AAPL", "1 day"): grid("1d", "2019-01-02", "2025-03-31")}
    with TwsServer([AAPL, BRK, EURUSD, BITCOIN], bars).serving() as serving:
        serving.pacing = False
        yield serving


@pytest.fixture
def vendor(server) -> IbkrVendor:
    return IbkrVendor("127.0.0.1", server.port, 17, seconds=10)


def request(
    start="2025-09-26T04:00", end="2025-09-27T04:00", interval="1m", calendar="XNYS", symbol="AAPL", name=None
) -> BarRequest:
    return BarRequest("d", symbol, interval, calendar, utc(start), utc(end), name)


# Contracts -------------------------------------------------------------------------------------------------------

CONTRACTS = {
    ("AAPL", "XNYS", None): IbkrContract("STK", "AAPL", "USD", "SMART"),
    ("brk.b", "XNYS", None): IbkrContract("STK", "BRK B", "USD", "SMART"),
    ("BTC-USD", "24/7", None): IbkrContract("CRYPTO", "BTC", "USD", "PAXOS"),
    ("VOD", "XLON", "STK:VOD/GBP@LSE"): IbkrContract("STK", "VOD", "GBP", "SMART", "LSE"),
    ("META", "XNYS", "META@NASDAQ"): IbkrContract("STK", "META", "USD", "SMART", "NASDAQ"),
    ("EUR-USD", "24/5", "cash:eur/usd"): IbkrContract("CASH", "EUR", "USD", "IDEALPRO"),
    ("^GSPC", "XNYS", "IND:SPX@CBOE"): IbkrContract("IND", "SPX", "USD", "CBOE"),
    ("X", "24/7", "CRYPTO:ETH/USD@ZEROHASH"): IbkrContract("CRYPTO", "ETH", "USD", "ZEROHASH"),
    ("VOD", "XLON", None): None,
    ("^GSPC", "XNYS", None): None,
    ("A-B-C", "24/7", None): None,
    ("BTC", "24/7", None): None,
    ("X", "XNYS", "IND:SPX"): None,
    ("X", "XNYS", "CASH:EUR"): None,
    ("X", "XNYS", "FUT:ES"): None,
    ("X", "XNYS", "EUR/US"): None,
    ("X", "XNYS", ""): None,
}


@pytest.mark.parametrize("given", CONTRACTS)
def test_a_symbol_has_its_contract_or_none(given):
    assert ibkr_contract(*given) == CONTRACTS[given]


def test_a_symbol_without_a_contract_is_rejected_before_anybody_is_asked(vendor, server):
    for asked in (request(symbol="VOD", calendar="XLON"), request(name="FUT:ES")):
        assert "names: {ibkr: STK:VOD/GBP@LSE}" in vendor.unsupported(asked)
        with pytest.raises(VendorError, match="universe.yaml"):
            vendor.fetch(asked)
    assert server.connections == 0


@pytest.mark.parametrize(
    ("name", "shows", "regular"),
    [("STK:A", "TRADES", True), ("IND:SPX@CBOE", "TRADES", True), ("CASH:EUR/USD", "MIDPOINT", False),
     ("CRYPTO:BTC/USD", "AGGTRADES", False)],
)  # fmt: skip
def test_what_bars_are_made_of_and_whether_hours_are_kept_to(name, shows, regular):
    contract = ibkr_contract("X", "XNYS", name)
    assert (contract.shows, contract.regular_hours) == (shows, regular)


# Bars ------------------------------------------------------------------------------------------------------------


def test_recorded_bars_come_through_unchanged_by_their_start(vendor, server):
    bars = vendor.fetch(request()).bars
    assert bars.schema == RAW_SCHEMA
    told = [one for one in recorded() if one.regular]
    assert len(told) == 16 and bars["open_time"].to_list() == [one.start for one in told]
    assert set(bars["close_time"] - bars["open_time"]) == {timedelta(minutes=1)}
    assert bars.select("open", "high", "low", "close", "volume", "vwap", "trade_count").rows() == [
        (one.open, one.high, one.low, one.close, one.volume, one.average, one.count) for one in told
    ]
    assert bars.select("symbol", "vendor", "adjustment").unique().rows() == [("AAPL", "ibkr", "split")]
    asked = server.requests[0]
    assert {name: asked[name] for name in ("symbol", "kind", "exchange", "primary", "currency")} == {
        "symbol": "AAPL", "kind": "STK", "exchange": "SMART", "primary": "", "currency": "USD",
    }  # fmt: skip
    assert (asked["size"], asked["regular"], asked["shows"], asked["format"]) == ("1 min", "1", "TRADES", "2")
    assert (asked["end"], asked["duration"]) == ("20250927 04:00:00 UTC", "2 D")


@pytest.mark.parametrize("version", [157, 163, 164, 166, 176, 178])
def test_every_version_of_the_protocol_is_understood(server, version):
    server.version = version
    assert len(IbkrVendor("127.0.0.1", server.port, 17).fetch(request()).bars) == 16


def test_half_a_session_is_asked_for_to_its_end_and_cut(vendor, server):
    bars = vendor.fetch(request("2025-09-26T13:32", "2025-09-26T13:35")).bars
    assert bars["open_time"].to_list() == [utc(f"2025-09-26T13:3{n}") for n in (2, 3, 4)]
    assert server.requests[0]["end"] == "20250926 20:00:00 UTC"


def test_daily_bars_are_sessions(vendor, server):
    bars = vendor.fetch(request("2024-11-26", "2024-12-03", "1d")).bars
    table = session_table("XNYS", date(2024, 11, 26), date(2024, 12, 2))
    assert bars.select("open_time", "close_time").rows() == table.select("open_time", "close_time").rows()
    assert utc("2024-11-29T18:00") in bars["close_time"].to_list(), "a half day"


def test_bars_of_another_interval_are_rejected_whole(vendor, server):
    server.bars["AAPL", "1 day"] = grid("1d", "2019-01-02", "2025-03-31")[::5]
    with pytest.raises(VendorError, match="days or more apart where 1d ones were asked for") as failed:
        vendor.fetch(request("2024-01-02", "2025-01-01", "1d"))
    assert not failed.value.retryable


def test_years_are_asked_for_in_years(vendor, server):
    bars = vendor.fetch(request("2019-01-01", "2025-03-31", "1d")).bars
    truth = session_table("XNYS", date(2019, 1, 2), date(2025, 3, 28))
    assert bars["open_time"].to_list() == truth["open_time"].to_list()
    assert server.requests[0]["duration"] == "7 Y"


def test_as_many_sessions_as_come_in_good_time_are_asked_for_at_once(vendor, server):
    """Also over the weekend in which summer time begins."""
    server.bars["AAPL", "1 min"] = grid("1m", "2025-03-03", "2025-03-14")
    long = request("2025-03-03", "2025-03-15")
    with pytest.raises(VendorError, match="1600 bars"):
        vendor.fetch(long)
    bars = fetch_with_policy(vendor, long).bars
    assert bars["open_time"].to_list() == [one.start for one in server.bars["AAPL", "1 min"]]
    assert len(server.requests) == 3
    parts = vendor.parts(long)
    assert all(vendor.parts(part) == [part] for part in parts)


def test_crypto_goes_round_the_clock_and_does_not_split(vendor, server):
    server.bars["BTC", "1 min"] = grid("1m", "2025-03-08", "2025-03-09", "24/7", regular=False)
    asked = request("2025-03-08", "2025-03-09", calendar="24/7", symbol="BTC-USD")
    bars = vendor.fetch(asked).bars
    assert len(bars) == 1440 and bars["adjustment"].unique().to_list() == ["none"]
    one = server.requests[0]
    assert (one["exchange"], one["shows"], one["regular"], one["duration"]) == ("PAXOS", "AGGTRADES", "0", "86400 S")
    assert len(vendor.parts(request("2025-03-01", "2025-03-09", calendar="24/7", symbol="BTC-USD"))) == 8
    five = request("2025-03-01", "2025-03-06", "5m", calendar="24/7", symbol="BTC-USD")
    assert vendor.parts(five) == [five] and len(vendor.parts(replace(five, end=utc("2025-03-08")))) == 2


def test_currencies_have_midpoints_and_neither_volume_nor_count(vendor, server):
    server.bars["EUR", "15 mins"] = grid("15m", "2025-03-03", "2025-03-04", "24/5", volume=-1.0, average=-1.0, count=-1)
    asked = request("2025-03-03", "2025-03-04", "15m", "24/5", "EUR-USD", "CASH:EUR/USD")
    bars = vendor.fetch(asked).bars
    assert len(bars) == 96
    assert bars.select("volume", "vwap", "trade_count", "adjustment").unique().rows() == [(None, None, None, "none")]
    assert (server.requests[0]["shows"], server.requests[0]["exchange"]) == ("MIDPOINT", "IDEALPRO")


def test_a_minute_without_a_trade_has_no_average(vendor, server):
    server.bars["AAPL", "1 min"] = [bar(utc("2025-09-26T13:30"), volume=0.0, average=254.1, count=0)]
    one = vendor.fetch(request()).bars.row(0, named=True)
    assert (one["volume"], one["vwap"], one["trade_count"]) == (0.0, None, 0)


def test_numbers_that_are_none_become_nulls(vendor, server):
    server.bars["AAPL", "1 min"] = [bar(utc("2025-09-26T13:30"), open=float("nan"), high=float("inf"), low=1e308)]
    one = vendor.fetch(request()).bars.row(0, named=True)
    assert (one["open"], one["high"], one["low"], one["close"]) == (None, None, None, 100.5)


def test_a_bar_that_is_not_over_by_ib_s_clock_is_left_out(vendor, server):
    server.now = utc("2025-09-26T13:33:30")
    assert vendor.fetch(request()).bars["open_time"].max() == utc("2025-09-26T13:32")


def test_a_range_that_goes_on_is_asked_for_up_to_now(vendor, server):
    today = datetime.now(UTC)
    asked = BarRequest("d", "BTC-USD", "1m", "24/7", today - timedelta(hours=2), today + timedelta(hours=2))
    assert vendor.fetch(asked).bars.is_empty()
    assert server.requests[0]["end"] == "" and 7190 <= int(server.requests[0]["duration"].split()[0]) <= 7200


def test_hours_that_are_cut_by_the_clock_are_not_asked_for(vendor):
    assert "15m bars" in vendor.unsupported(request(interval="1h"))
    assert vendor.unsupported(request(interval="1h", calendar="XLON", name="STK:VOD/GBP@LSE")) is None
    # Tokyo's afternoon begins at half past twelve.
    assert "15m bars" in vendor.unsupported(request(interval="1h", calendar="XTKS", name="STK:7203/JPY@TSEJ"))
    assert vendor.unsupported(request(interval="1h", calendar="24/7", symbol="BTC-USD")) is None


def test_limits_are_ib_s_pacing_rules(vendor):
    assert vendor.limits == (Limit(600, 60), Limit(2, 5)) and vendor.weight(request()) == 1
    assert not vendor.traits("d").omits_empty_bars


# Where it runs ---------------------------------------------------------------------------------------------------


def test_it_works_in_a_worker_thread_and_inside_a_running_loop(vendor):
    got = []
    thread = threading.Thread(target=lambda: got.append(len(vendor.fetch(request()).bars)))
    thread.start()
    thread.join(20)

    async def inside() -> int:
        return len(vendor.fetch(request()).bars)

    assert got == [16] and asyncio.run(inside()) == 16


def test_threads_take_turns_with_the_one_client_id(vendor, server):
    got = []
    threads = [threading.Thread(target=lambda: got.append(len(vendor.fetch(request()).bars))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert got == [16] * 4 and server.connections == 4


def test_nothing_is_left_connected(vendor, server):
    before = threading.enumerate()
    server.faults = [Fault(162, "HMDS query returned no data"), Fault(200, "no"), Fault(cut=True)]
    vendor.fetch(request())
    for _ in range(2):
        with pytest.raises(VendorError):
            vendor.fetch(request())
    assert len(vendor.fetch(request()).bars) == 16, "the client id is free again each time"
    left = [one for one in threading.enumerate() if one.name.startswith("ibkr") and one not in before]
    assert not left


# What TWS says instead -------------------------------------------------------------------------------------------


def test_no_data_is_an_answer_without_bars(vendor, server):
    bars = vendor.fetch(request("2010-09-27", "2010-09-28")).bars
    assert len(server.requests) == 1 and bars.is_empty() and bars.schema == RAW_SCHEMA


REJECTIONS = {
    "pacing": (162, f"{HISTORY}Historical data request pacing violation", True, 15.0, "pacing violation"),
    "permissions": (162, f"{HISTORY}No market data permissions for NYSE STK", False, None, "market data subscription"),
    "cancelled": (162, f"{HISTORY}API historical data query cancelled: 3", True, 15.0, "cancelled"),
    "step": (162, f"{HISTORY}invalid step: 1", False, None, "invalid step"),
    "contract": (200, "No security definition has been found", False, None, "names: {ibkr:"),
    "validation": (321, "Error validating request.-'bK' : cause - bar size", False, None, "IBKR error 321"),
    "too many": (322, "Only 50 simultaneous API historical data requests allowed.", True, 15.0, "IBKR error 322"),
    "subscription": (354, "Requested market data is not subscribed.", False, None, "market data subscription"),
    "additional": (10089, "Requested market data requires additional subscription", False, None, "subscription"),
    "elsewhere": (10197, "No market data during competing live session", True, 60.0, "logged in elsewhere"),
    "unknown": (9999, "Something\nnew", False, None, "IBKR error 9999: Something new"),
}


@pytest.mark.parametrize("case", REJECTIONS)
def test_each_error_says_what_it_is_and_whether_it_may_pass(vendor, server, case):
    code, text, retryable, after, said = REJECTIONS[case]
    server.faults = [Fault(code, text)]
    with pytest.raises(VendorError) as failed:
        vendor.fetch(request())
    assert (failed.value.retryable, failed.value.retry_after, failed.value.opens_circuit) == (retryable, after, False)
    assert said in str(failed.value)


def test_a_lost_connection_to_ib_is_told(vendor, server):
    server.faults = [Fault(1100, "Connectivity between IB and TWS has been lost.", request_id=-1)]
    with pytest.raises(VendorError, match="no connection to Interactive Brokers") as failed:
        vendor.fetch(request())
    assert failed.value.retryable


@pytest.mark.parametrize(("code", "about"), [(2105, -1), (1102, -1), (165, None), (10167, None), (399, -1), (4711, -1)])
def test_notices_are_not_errors(server, code, about):
    """Silence follows here, so that only the time limit ends it."""
    server.faults = [Fault(code, "by the way", request_id=about)]
    with pytest.raises(VendorError, match="no answer within 0.3 s") as failed:
        IbkrVendor("127.0.0.1", server.port, 17, seconds=0.3).fetch(request())
    assert failed.value.retryable


@pytest.mark.parametrize("fault", [Fault(), Fault(garbage=True)])
def test_who_does_not_answer_may_do_so_later(server, fault):
    server.faults = [fault]
    vendor = IbkrVendor("127.0.0.1", server.port, 17, seconds=0.3)
    with pytest.raises(VendorError, match="no answer within") as failed:
        vendor.fetch(request())
    assert failed.value.retryable
    assert len(vendor.fetch(request()).bars) == 16


def test_a_line_that_is_cut_may_be_there_again(vendor, server):
    server.faults = [Fault(cut=True)]
    with pytest.raises(VendorError, match="TWS closed the connection|connection to TWS broke") as failed:
        vendor.fetch(request())
    assert failed.value.retryable


def test_a_client_id_in_use_is_told_at_once(vendor, server):
    server.taken = {17}
    with pytest.raises(VendorError, match="QUANTLYTIC_IBKR_CLIENT_ID") as failed:
        vendor.fetch(request())
    assert failed.value.retryable and "IBKR error 326" in str(failed.value)


def test_where_nobody_listens_it_is_said_what_to_start():
    with pytest.raises(VendorError, match="start it with its API enabled.*QUANTLYTIC_IBKR_PORT") as failed:
        IbkrVendor("127.0.0.1", 9, 17).fetch(request())
    assert failed.value.retryable


def test_who_takes_the_connection_and_says_nothing_is_the_same(server):
    server.deaf = True
    with pytest.raises(VendorError, match="does not answer on 127.0.0.1"):
        IbkrVendor("127.0.0.1", server.port, 17, seconds=0.3).fetch(request())


def test_the_same_question_twice_is_a_pacing_violation_that_waiting_mends(vendor, server):
    server.pacing, now = True, [0.0]
    server.clock = lambda: now[0]
    vendor.fetch(request())
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    bars = fetch_with_policy(vendor, request(), sleep=sleep).bars
    assert len(bars) == 16 and len(waits) == 1 and waits[0] >= 15


def test_a_question_that_was_cut_off_is_not_put_again_before_ib_s_rules_allow_it(vendor, server):
    server.pacing, now = True, [0.0]
    server.clock = lambda: now[0]
    server.faults = [Fault(cut=True), Fault(162, f"{HISTORY}API historical data query cancelled: 3")]
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    # A third wait would be for a pacing violation.
    assert len(fetch_with_policy(vendor, request(), sleep=sleep).bars) == 16
    assert len(waits) == 2 and min(waits) >= 15 and len(server.requests) == 3


# The loopback TWS itself -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [157, 163, 164, 178])
def test_contract_details_are_decoded_by_the_library(server, version):
    import ib_async

    server.version = version

    async def ask() -> tuple:
        ib = ib_async.IB()
        await ib.connectAsync("127.0.0.1", server.port, 5, readonly=True, fetchFields=ib_async.StartupFetch(0))
        try:
            known = await ib.reqContractDetailsAsync(ib_async.Stock("BRK B", "SMART", "USD"))
            unknown = await ib.reqContractDetailsAsync(ib_async.Stock("NOPE", "SMART", "USD"))
            return known, unknown
        finally:
            ib.disconnect()

    known, unknown = asyncio.run(ask())
    assert [(one.contract.conId, one.contract.primaryExchange, one.minTick) for one in known] == [
        (72063691, "NYSE", 0.01)
    ]
    assert known[0].longName == "BRK B INC" and known[0].stockType == "COMMON" and unknown == []


def test_no_decoder_complains(vendor, caplog):
    caplog.set_level(logging.DEBUG)
    assert vendor.fetch(request()).bars.filter(pl.col("open").is_null()).is_empty()
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_it_is_asked_where_the_settings_say(monkeypatch, server):
    monkeypatch.setenv("QUANTLYTIC_IBKR_PORT", str(server.port))
    monkeypatch.setenv("QUANTLYTIC_IBKR_CLIENT_ID", "23")
    server.taken = {17}
    assert len(make_vendor("ibkr").fetch(request()).bars) == 16
    settings = Settings.model_fields
    assert (settings["ibkr_host"].default, settings["ibkr_port"].default) == ("127.0.0.1", 4002)
