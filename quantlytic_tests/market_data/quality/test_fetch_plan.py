"""What is asked for, against a slow and plain reckoning of the same."""

import random
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from quantlytic_assets.calendars.sessions import calendar_timezone, expected_bars, session_table
from quantlytic_assets.market_data.quality.fetch_plan import (
    PLAN_SCHEMA,
    expected_keys,
    missing_keys,
    outside_outages,
    plan,
)
from quantlytic_assets.storage.attempts import ATTEMPTS_SCHEMA
from quantlytic_assets.universe.models import Instrument, Outage
from quantlytic_tests.frames import make_dataset, utc

LATER = utc("2025-06-01T00:00")
NO_ATTEMPTS = pl.DataFrame(schema=ATTEMPTS_SCHEMA)


def expect(dataset, first, last, now=LATER):
    return expected_keys(dataset, expected_bars(dataset.calendar, dataset.interval, first, last), now)


def without(expected, *taken):
    """`expected` less the rows whose (symbol, open_time) are taken."""
    schema = {name: expected.schema[name] for name in ("symbol", "open_time")}
    present = pl.DataFrame(list(taken), schema=schema, orient="row")
    return missing_keys(expected, present, NO_ATTEMPTS, 3)


def slow_plan(missing, expected, calendar):
    """Bar by bar, session by session: the ranges that hold all missing bars and no other."""
    zone = ZoneInfo(calendar_timezone(calendar))
    sessions = expected["session"]
    table = session_table(calendar, sessions.min() - timedelta(days=20), sessions.max() + timedelta(days=20))
    days = table["session"].to_list()
    wanted = set(missing.select("symbol", "open_time").rows())
    found = []
    for symbol in expected["symbol"].unique():
        bars = expected.filter(symbol=symbol).sort("open_time").rows(named=True)
        whole = {
            day for day in days
            if all((symbol, bar["open_time"]) in wanted for bar in bars if bar["session"] == day)
        }  # fmt: skip
        run = None
        for bar in bars:
            if (symbol, bar["open_time"]) not in wanted:
                run = None
                continue
            start, end, day = bar["open_time"], bar["close_time"], bar["session"]
            if day in whole:
                at = days.index(day)
                midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
                following = day + timedelta(days=1)
                next_midnight = datetime(following.year, following.month, following.day, tzinfo=zone)
                start = max(min(start, midnight), table["close_time"][at - 1])
                end = min(max(end, next_midnight), table["open_time"][at + 1])
            if run is None:
                run = {"symbol": symbol, "start": start, "end": end, "bars": 0}
                found.append(run)
            run["start"], run["end"] = min(run["start"], start), max(run["end"], end)
            run["bars"] += 1
    return pl.DataFrame(found, schema=PLAN_SCHEMA).sort("start", "symbol")


@pytest.mark.parametrize(
    ("calendar", "interval", "first", "last"),
    [
        ("XNYS", "1h", date(2025, 3, 5), date(2025, 3, 13)),  # the clocks go forward on the 9th
        ("XNYS", "1h", date(2025, 7, 1), date(2025, 7, 8)),  # a half day and a holiday
        ("XNYS", "1d", date(2025, 3, 3), date(2025, 4, 30)),
        ("XTKS", "1h", date(2024, 6, 3), date(2024, 6, 7)),
        ("CMES", "1h", date(2025, 6, 2), date(2025, 6, 6)),
        ("24/7", "1h", date(2025, 5, 10), date(2025, 5, 12)),
    ],
)
def test_the_ranges_say_exactly_what_is_missing(calendar, interval, first, last):
    later = utc("2025-08-01T00:00")
    symbols = ["A", "B", Instrument("C", first + timedelta(days=2), last - timedelta(days=1))]
    dataset = make_dataset(calendar, interval, first=first, last=last, symbols=symbols)
    expected = expect(dataset, first, last, later)
    draw = random.Random(5)
    for share in (0.02, 0.3, 0.7, 0.97, 1.0):
        # Whole sessions are kept or dropped besides single bars, so that all kinds of edges come up.
        lost = {day for day in expected["session"].unique() if draw.random() < share}
        missing = expected.filter(
            pl.Series([row["session"] in lost or draw.random() < share for row in expected.iter_rows(named=True)])
        )
        ranges = plan(missing, expected, calendar)
        assert ranges.equals(slow_plan(missing, expected, calendar)), share
        # Independent of any reckoning: each missing bar is asked for once, and no bar that is there.
        within = expected.join(ranges, on="symbol").filter(
            pl.col("open_time") < pl.col("end"), pl.col("close_time") > pl.col("start")
        )
        asked = within.select("symbol", "open_time").sort("symbol", "open_time")
        assert asked.equals(missing.select("symbol", "open_time").sort("symbol", "open_time")), share


def test_nothing_missing_asks_for_nothing():
    dataset = make_dataset()
    expected = expect(dataset, date(2025, 3, 3), date(2025, 3, 7))
    nothing = plan(expected.clear(), expected, "XNYS")
    assert nothing.is_empty() and nothing.schema == PLAN_SCHEMA


def test_an_unbroken_run_of_sessions_is_one_request_a_symbol():
    dataset = make_dataset()
    expected = expect(dataset, date(2025, 3, 3), date(2025, 3, 14))
    assert plan(expected, expected, "XNYS").rows() == [
        (symbol, utc("2025-03-03T05:00"), utc("2025-03-15T04:00"), 780) for symbol in ("AAPL", "MSFT")
    ]


def test_a_whole_session_is_asked_for_with_its_day_and_a_part_of_one_exactly():
    dataset = make_dataset(symbols=["A"])
    expected = expect(dataset, date(2025, 3, 5), date(2025, 3, 6))
    one_day = expected.filter(session=date(2025, 3, 6))
    assert plan(one_day, expected, "XNYS").rows() == [("A", utc("2025-03-06T05:00"), utc("2025-03-07T05:00"), 78)]
    almost = one_day.slice(1)
    assert plan(almost, expected, "XNYS").rows() == [("A", utc("2025-03-06T14:35"), utc("2025-03-06T21:00"), 77)]


def test_widening_an_overnight_session_does_not_reach_into_the_next_one():
    dataset = make_dataset("CMES", "1h", first=date(2025, 6, 2), last=date(2025, 6, 6), symbols=["ES"])
    expected = expect(dataset, date(2025, 6, 3), date(2025, 6, 4), utc("2025-07-01T00:00"))
    ranges = plan(expected.filter(session=date(2025, 6, 3)), expected, "CMES")
    assert ranges.rows() == [("ES", utc("2025-06-02T22:00"), utc("2025-06-03T22:00"), 24)]


def test_a_midnight_that_the_clocks_skip_is_no_edge():
    """Karachi's clocks went forward at midnight of 2009-04-15."""
    dataset = make_dataset("XKAR", "1d", first=date(2009, 4, 13), last=date(2009, 4, 16), symbols=["OGDC"])
    expected = expect(dataset, dataset.first_session, dataset.last_session)
    assert len(expected) == 4
    midnight = utc("2009-04-12T19:00")
    assert plan(expected, expected, "XKAR").rows() == [("OGDC", midnight, utc("2009-04-16T18:00"), 4)]
    for day in expected["session"]:
        one = expected.filter(session=day)
        ((_, start, end, bars),) = plan(one, expected, "XKAR").rows()
        assert (start <= one["open_time"].item(), end >= one["close_time"].item(), bars) == (True, True, 1)


def test_a_symbol_is_expected_only_within_its_dates_both_included():
    symbols = [Instrument("IN", date(2025, 3, 5), date(2025, 3, 6)), Instrument("ALL")]
    expected = expect(make_dataset(symbols=symbols), date(2025, 3, 3), date(2025, 3, 14))
    session = pl.col("session")
    sessions = expected.group_by("symbol").agg(session.min().alias("first"), session.max().alias("last"))
    assert sorted(sessions.rows()) == [
        ("ALL", date(2025, 3, 3), date(2025, 3, 14)),
        ("IN", date(2025, 3, 5), date(2025, 3, 6)),
    ]


def test_nothing_is_expected_before_or_after_the_dataset_s_own_range():
    dataset = make_dataset(first=date(2025, 3, 6), last=date(2025, 3, 10))
    expected = expect(dataset, date(2025, 3, 3), date(2025, 3, 14))
    assert sorted(expected["session"].unique()) == [date(2025, 3, 6), date(2025, 3, 7), date(2025, 3, 10)]


def test_a_bar_is_expected_once_it_has_closed_and_the_delay_is_over():
    on_time = make_dataset(symbols=["A"])
    late = make_dataset(symbols=["A"], delay=timedelta(minutes=15))
    day = date(2025, 3, 6)
    assert len(expect(on_time, day, day, utc("2025-03-06T14:34:59"))) == 0
    assert len(expect(on_time, day, day, utc("2025-03-06T14:35"))) == 1
    assert len(expect(on_time, day, day, utc("2025-03-06T15:00"))) == 6
    assert len(expect(late, day, day, utc("2025-03-06T15:00"))) == 3


def test_what_the_vendor_has_answered_often_enough_without_is_not_asked_for_again():
    expected = expect(make_dataset(symbols=["A", "B"]), date(2025, 3, 6), date(2025, 3, 7))
    attempts = pl.DataFrame(
        [("A", date(2025, 3, 6), 3, 3), ("A", date(2025, 3, 7), 9, 2), ("B", date(2025, 3, 6), 2, 2)],
        schema=ATTEMPTS_SCHEMA,
        orient="row",
    )
    missing = missing_keys(expected, expected.clear().select("symbol", "open_time"), attempts, 3)
    assert sorted(missing.group_by("symbol", "session").len().rows()) == [
        ("A", date(2025, 3, 7), 78),
        ("B", date(2025, 3, 6), 78),
        ("B", date(2025, 3, 7), 78),
    ]


def test_a_present_bar_of_another_symbol_or_off_the_grid_does_not_count():
    expected = expect(make_dataset(symbols=["A", "B"]), date(2025, 3, 6), date(2025, 3, 6))
    there = [("A", "2025-03-06T14:30"), ("A", "2025-03-06T14:36"), ("X", "2025-03-06T14:40")]
    missing = without(expected, *((symbol, utc(time)) for symbol, time in there))
    assert len(missing) == len(expected) - 1
    assert ("A", utc("2025-03-06T14:30")) not in missing.select("symbol", "open_time").rows()


def test_a_known_outage_is_not_asked_for_and_what_lies_around_it_is():
    down = Outage("sample_set", utc("2025-03-06T15:00"), utc("2025-03-06T16:30"))
    dataset = make_dataset(symbols=["A"], outages=(down,))
    expected = expect(dataset, date(2025, 3, 6), date(2025, 3, 6))
    asked = plan(without(outside_outages(expected, dataset)), expected, "XNYS")
    assert asked.select("start", "end", "bars").rows() == [
        (utc("2025-03-06T14:30"), down.start, 6), (down.end, utc("2025-03-06T21:00"), 54),
    ]  # fmt: skip
    assert outside_outages(expected, make_dataset(symbols=["A"])).equals(expected)
