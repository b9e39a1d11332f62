"""Which minutes the REST side is asked for, when, and when not any more."""

import asyncio

import polars as pl
import pytest

from quantlytic_assets.feeds.backlog import Backlog, BacklogRules
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.stream.messages import MINUTE, micros, moment
from quantlytic_assets.vendors.parts import by_bars
from quantlytic_assets.vendors.protocol import BarRequest, Served, VendorError, VendorTraits
from quantlytic_tests.feeds.feeding import fed_dataset
from quantlytic_tests.frames import make_bars

BEGIN = 1_723_161_240_000_000
SECOND = 1_000_000
RULES = BacklogRules(after=3, settled=180, again=15, first_wait=5, longest_wait=20)


class Ten:
    """A vendor of at most ten bars a request."""

    name = "ten"
    limits = ()
    at_once = 1

    def parts(self, request: BarRequest) -> list[BarRequest]:
        return by_bars(request, 10)

    def weight(self, request: BarRequest) -> int:
        return 1

    def unsupported(self, request: BarRequest) -> str | None:
        return None

    def traits(self, dataset: str) -> VendorTraits:
        return VendorTraits(omits_empty_bars=False, attempts_before_hole=3)

    def fetch(self, request: BarRequest) -> Served:
        if request.symbol == "BAD":
            raise VendorError("no such symbol", retryable=False)
        return Served(answer(request.symbol, *range(minute(request.start), minute(request.end))))


def minute(time) -> int:
    return (micros(time) - BEGIN) // MINUTE


def answer(symbol: str, *minutes: int, **columns: object) -> pl.DataFrame:
    return make_bars(symbol, [moment(BEGIN + one * MINUTE) for one in minutes], **columns)


def want(backlog: Backlog, symbol: str, *minutes: int) -> None:
    backlog.want([(symbol, BEGIN + one * MINUTE) for one in minutes])


def at(minutes: float, seconds: float = 0) -> int:
    return BEGIN + int(minutes * MINUTE + seconds * SECOND)


def asked(request: BarRequest | None) -> tuple[str, int, int] | None:
    return None if request is None else (request.symbol, minute(request.start), minute(request.end))


@pytest.fixture
def backlog() -> Backlog:
    return Backlog(fed_dataset("binance_trades", ["A", "B"]), Ten(), {"B": "BUSDT"}, RULES, empty_bars=False)


def test_a_minute_is_asked_for_a_while_after_its_end(backlog):
    want(backlog, "A", 0)
    assert backlog.next_request(at(1, 2.9)) is None
    assert asked(backlog.next_request(at(1, 3))) == ("A", 0, 1)


def test_a_request_has_as_many_of_the_newest_minutes_as_fit(backlog):
    want(backlog, "A", 0, 3, 11, 12)
    assert asked(backlog.next_request(at(20))) == ("A", 3, 13)


def test_the_symbol_with_the_newest_minute_comes_first_under_the_vendor_s_name(backlog):
    want(backlog, "A", 4)
    want(backlog, "B", 5)
    request = backlog.next_request(at(20))
    assert asked(request) == ("B", 5, 6) and request.name == "BUSDT"
    assert (request.dataset, request.interval, request.calendar) == ("live", "1m", "24/7")


def test_only_bars_that_were_wanted_come_out_and_are_not_asked_for_again(backlog):
    want(backlog, "A", 0, 2)
    request = backlog.next_request(at(3, 3))
    bars = backlog.answered(request, answer("A", 0, 1, 2), at(3, 4))
    assert [minute(time) for time in bars["open_time"]] == [0, 2]
    assert len(backlog) == 0 and backlog.next_request(at(9)) is None


def test_a_minute_that_is_not_there_yet_is_asked_for_again_until_it_is_settled(backlog):
    want(backlog, "A", 0)
    request = backlog.next_request(at(1, 3))
    backlog.answered(request, answer("A"), at(1, 4))
    assert backlog.next_request(at(1, 18)) is None
    assert asked(backlog.next_request(at(1, 19))) == ("A", 0, 1)
    backlog.answered(request, answer("A"), at(3, 59))
    assert len(backlog) == 1
    backlog.answered(request, answer("A"), at(4))
    assert len(backlog) == 0


def test_bars_without_a_trade_are_an_answer_and_no_bar_where_bars_are_made_of_trades(backlog):
    want(backlog, "A", 0, 1)
    request = backlog.next_request(at(3))
    counts = pl.Series("trade_count", [0, 5], dtype=pl.Int64)
    bars = backlog.answered(request, answer("A", 0, 1).with_columns(counts), at(3))
    assert [minute(time) for time in bars["open_time"]] == [1] and len(backlog) == 0


def test_unknown_counts_are_bars_and_so_are_flat_ones_of_a_kline_feed(backlog):
    want(backlog, "A", 0)
    request = backlog.next_request(at(3))
    assert len(backlog.answered(request, answer("A", 0, trade_count=None), at(3))) == 1
    klines = Backlog(fed_dataset("binance_klines", ["A"]), Ten(), {}, RULES, empty_bars=True)
    want(klines, "A", 0)
    assert len(klines.answered(request, answer("A", 0, trade_count=0), at(3))) == 1


def test_a_minute_wanted_while_it_is_asked_for_is_asked_for_again(backlog):
    want(backlog, "A", 0)
    request = backlog.next_request(at(2))
    backlog.answered(request, answer("A", 0), at(2))
    want(backlog, "A", 0)
    assert asked(backlog.next_request(at(2))) == ("A", 0, 1)


def test_after_an_error_nobody_is_asked_for_a_growing_while(backlog):
    want(backlog, "A", 0)
    now, waits = at(10), []
    for _ in range(4):
        request = backlog.next_request(now)
        wait = backlog.failed(request, VendorError("busy", retryable=True), now)
        assert backlog.next_request(now + int(wait * SECOND) - 1) is None
        now += int(wait * SECOND)
        waits.append(wait)
    assert waits == [5, 10, 20, 20]
    backlog.answered(backlog.next_request(now), answer("A", 0), now)
    assert backlog.failed(request, VendorError("busy", retryable=True), now) == 5


@pytest.mark.parametrize("retryable", [True, False])
def test_a_vendor_that_says_how_long_to_wait_is_not_asked_before(backlog, retryable):
    want(backlog, "A", 0)
    request = backlog.next_request(at(10))
    assert backlog.failed(request, VendorError("banned", retryable, retry_after=600), at(10)) == 600
    assert backlog.next_request(at(19, 59)) is None and backlog.next_request(at(20)) is not None


def test_a_symbol_that_is_rejected_does_not_hold_the_others_up(backlog):
    want(backlog, "A", 1)
    want(backlog, "BAD", 2)
    request = backlog.next_request(at(10))
    assert request.symbol == "BAD"
    with pytest.raises(VendorError) as rejected:
        asyncio.run(backlog.ask(request))
    assert backlog.failed(request, rejected.value, at(10)) == 20
    assert backlog.next_request(at(10)).symbol == "A"
    assert backlog.next_request(at(10, 20)).symbol == "BAD"


def test_minutes_that_are_too_old_are_dropped_and_counted(backlog):
    want(backlog, "A", 0, 1, 2)
    want(backlog, "B", 0)
    assert backlog.drop(at(2)) == 3 and len(backlog) == 1
    assert backlog.drop(at(2)) == 0


def test_an_answer_is_fetched_beside_the_loop(backlog):
    want(backlog, "A", 0, 1)
    request = backlog.next_request(at(5))
    bars = asyncio.run(backlog.ask(request))
    assert bars.schema == RAW_SCHEMA and len(bars) == 2
