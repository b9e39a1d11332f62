"""Klines into bars: finished ones only, and never one that may lack trades."""

from datetime import UTC, datetime, timedelta

from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.stream.kline_bars import KlineBars, bars_from_klines
from quantlytic_assets.market_data.stream.messages import MINUTE, Kline, Message, moment

NOW = datetime(2024, 8, 9, 12, tzinfo=UTC)
START = 1_723_161_240_000_000
SECOND = 1_000_000


def kline(minute: int, first: int, last: int, closed: bool = True, close: float = 102.0) -> Kline:
    """The kline of the minute with this number after START."""
    count = last - first + 1 if first >= 0 else 0
    return Kline("A", START + minute * MINUTE, first, last, 100.0, 105.0, 99.0, close, 2.5, 255.0, count, closed)


def builder() -> KlineBars:
    bars = KlineBars("binance", {"A": START}, timedelta(seconds=2), timedelta(seconds=10))
    bars.connected()
    return bars


def take(bars: KlineBars, *klines: Kline) -> None:
    for one in klines:
        assert bars.take(Message("A", one.open_time + MINUTE, klines=(one,))) == []


def decide(bars: KlineBars, seconds: float) -> tuple[list[int], list[int]]:
    """Numbers of the minutes that were built and wanted."""
    decided = bars.decide(START + int(seconds * SECOND), NOW)
    opened = decided.bars["open_time"].dt.timestamp("us").to_list()
    return [(one - START) // MINUTE for one in opened], [(one - START) // MINUTE for _, one in decided.wanted]


def test_a_kline_has_all_that_a_bar_wants():
    bars = bars_from_klines([kline(0, 7, 9)], "binance", NOW)
    assert bars.schema == RAW_SCHEMA
    assert bars.row(0) == (
        "A", moment(START), moment(START + MINUTE), 100.0, 105.0, 99.0, 102.0, 2.5, 102.0, 3, "binance", NOW, "none",
    )  # fmt: skip
    assert bars_from_klines([], "binance", NOW).schema == RAW_SCHEMA


def test_a_finished_kline_is_a_bar_at_once_and_once():
    bars = builder()
    take(bars, kline(0, 1, 5, closed=False))
    assert decide(bars, 59) == ([], [])
    take(bars, kline(0, 1, 9), kline(0, 1, 9))
    assert decide(bars, 60) == ([0], [])
    take(bars, kline(0, 1, 9))
    assert decide(bars, 61) == ([], [])


def test_a_minute_without_its_kline_is_wanted_when_patience_ends():
    bars = builder()
    take(bars, kline(1, 10, 19))
    assert decide(bars, 69) == ([], [])
    assert decide(bars, 70) == ([1], [0])


def test_without_a_connection_it_is_wanted_after_the_grace():
    bars = builder()
    bars.disconnected()
    assert decide(bars, 61.9) == ([], [])
    assert decide(bars, 62) == ([], [0])


def test_klines_whose_numbers_don_t_join_are_both_wanted():
    bars = builder()
    take(bars, kline(0, 1, 9), kline(1, 11, 20), kline(2, 21, 30))
    assert decide(bars, 180) == ([0, 2], [0, 1])


def test_minutes_without_trades_hand_the_number_on():
    bars = builder()
    take(bars, kline(0, 1, 9), kline(1, -1, -1), kline(2, 10, 12), kline(3, -1, -1), kline(4, 14, 15))
    assert decide(bars, 300) == ([0, 1, 2, 3], [3, 4])


def test_after_a_hole_nothing_is_known_of_the_number_before():
    bars = builder()
    take(bars, kline(0, 1, 9), kline(2, 50, 60))
    assert decide(bars, 182) == ([0, 2], [1])
