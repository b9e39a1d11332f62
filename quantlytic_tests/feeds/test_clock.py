"""The venue's time, and the line a minute for people."""

from datetime import timedelta

import pytest

from quantlytic_assets.feeds.clock import VenueClock
from quantlytic_assets.feeds.report import Report
from quantlytic_assets.market_data.stream.messages import MINUTE, moment

SECOND = 1_000_000
BEGIN = 1_723_161_240_000_000


class Ours:
    """Our clock, set by hand; in microseconds."""

    def __init__(self) -> None:
        self.time = BEGIN

    def __call__(self):
        return moment(self.time)


@pytest.fixture
def ours() -> Ours:
    return Ours()


@pytest.fixture
def clock(ours) -> VenueClock:
    return VenueClock(ours)


def hear(clock: VenueClock, ours: Ours, ahead: float) -> bool:
    return clock.hear(ours.time + int(ahead * SECOND), ours.time)


def test_before_the_first_message_it_is_our_time(clock, ours):
    assert not clock.known and clock.now() == BEGIN


def test_a_slow_clock_of_ours_is_corrected_by_the_least_delayed_message(clock, ours):
    for ahead in (1.0, 1.27, 0.2):
        hear(clock, ours, ahead)
        ours.time += SECOND
    assert clock.known and clock.now() == ours.time + 1.27 * SECOND


def test_a_fast_one_too(clock, ours):
    hear(clock, ours, -3600.5)
    assert clock.now() == ours.time - 3600.5 * SECOND


def test_a_clock_that_is_set_is_noticed_within_two_minutes(clock, ours):
    hear(clock, ours, 5.0)
    for _ in range(3):
        ours.time += MINUTE
        hear(clock, ours, 0.0)
    assert clock.now() == ours.time


def test_silence_for_minutes_forgets_what_was_known(clock, ours):
    hear(clock, ours, 5.0)
    ours.time += 10 * MINUTE
    hear(clock, ours, 1.0)
    assert clock.now() == ours.time + SECOND


def test_a_time_a_day_ahead_is_not_believed(clock, ours):
    hear(clock, ours, 1.0)
    assert not hear(clock, ours, 25 * 3600.0)
    assert clock.now() == ours.time + SECOND
    assert hear(clock, ours, 2.0)


class TestReport:
    """At most a line a minute."""

    @pytest.fixture
    def seconds(self) -> list[float]:
        return [100.0]

    @pytest.fixture
    def lines(self) -> list[str]:
        return []

    @pytest.fixture
    def report(self, seconds, lines) -> Report:
        return Report("crypto", lines.append, lambda: seconds[0])

    def test_what_happens_within_a_minute_is_one_line(self, report, seconds, lines):
        report.tick()
        for number in range(59):
            seconds[0] += 1
            report.count("bars", 2)
            report.note("connection lost")
            report.tick()
        assert lines == ["crypto: nothing new"]
        seconds[0] += 1
        report.tick()
        assert lines[1:] == ["crypto: 118 bars; connection lost (59 times)"]

    def test_trouble_after_a_quiet_minute_is_told_at_once(self, report, seconds, lines):
        report.note("2 symbols")
        report.tick()
        seconds[0] += 61
        report.note("the bus is away")
        report.note("and still is")
        assert lines == ["crypto: 2 symbols", "crypto: the bus is away"]

    def test_counts_of_nothing_are_not_shown(self, report, lines):
        report.count("bars", 0)
        report.count("trades", 1234)
        report.line()
        assert lines == ["crypto: 1,234 trades"]


def test_moments_are_utc():
    assert moment(BEGIN).utcoffset() == timedelta(0)
