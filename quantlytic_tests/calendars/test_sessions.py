"""Sessions against what the exchanges published, not against the library that computes them."""

from datetime import date, timedelta

import polars as pl
import pytest

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.calendars.sessions import assign_sessions, calendar_timezone, expected_bars, session_table
from quantlytic_tests.frames import utc


def sessions_of(calendar, *times):
    frame = pl.DataFrame({"open_time": [utc(time) if time else None for time in times]}, schema={"open_time": TIME})
    return [day.isoformat() if day else None for day in assign_sessions(frame, calendar)["session"]]


def only(calendar, day):
    (row,) = session_table(calendar, day, day).iter_rows(named=True)
    return row


@pytest.mark.parametrize(
    ("day", "close"),
    [
        (date(2025, 7, 3), "2025-07-03T17:00"),  # the day before Independence Day: 13:00 in New York
        (date(2015, 12, 24), "2015-12-24T18:00"),  # Christmas Eve
        (date(2024, 11, 29), "2024-11-29T18:00"),  # the Friday after Thanksgiving
        (date(2025, 7, 2), "2025-07-02T20:00"),
    ],
)
def test_a_half_day_ends_at_one_in_new_york(day, close):
    assert only("XNYS", day)["close_time"] == utc(close)


@pytest.mark.parametrize(
    ("day", "opening"),
    [
        (date(2025, 3, 7), "2025-03-07T14:30"),
        (date(2025, 3, 10), "2025-03-10T13:30"),
        (date(2025, 10, 31), "2025-10-31T13:30"),
        (date(2025, 11, 3), "2025-11-03T14:30"),
    ],
)
def test_the_open_moves_with_daylight_saving(day, opening):
    assert only("XNYS", day)["open_time"] == utc(opening)


def test_weekends_and_holidays_are_no_sessions():
    days = session_table("XNYS", date(2025, 4, 14), date(2025, 4, 21))["session"].to_list()
    # Good Friday is the 18th.
    assert days == [date(2025, 4, 14), date(2025, 4, 15), date(2025, 4, 16), date(2025, 4, 17), date(2025, 4, 21)]


def test_a_range_of_closed_days_is_an_empty_table_with_all_columns():
    closed = session_table("XNYS", date(2025, 3, 8), date(2025, 3, 9))
    assert closed.is_empty()
    assert closed.schema == session_table("XNYS", date(2025, 3, 7), date(2025, 3, 7)).schema
    assert session_table("XNYS", date(2025, 3, 9), date(2025, 3, 8)).is_empty()
    assert expected_bars("XNYS", "5m", date(2025, 3, 8), date(2025, 3, 9)).is_empty()


def test_years_that_a_calendar_does_not_know_have_no_sessions():
    assert session_table("XHKG", date(1950, 1, 1), date(1950, 12, 31)).is_empty()
    assert session_table("XHKG", date(2095, 1, 1), date(2095, 12, 31)).is_empty()


def test_an_unknown_calendar_is_named_with_a_hint():
    with pytest.raises(ValueError, match=r"unknown calendar 'NYSEX'.*such as XNYS"):
        session_table("NYSEX", date(2025, 1, 1), date(2025, 1, 31))


def test_a_calendar_tells_its_own_time_zone():
    assert calendar_timezone("XNYS") == "America/New_York"
    assert calendar_timezone("24/7") == "UTC"


@pytest.mark.parametrize(
    ("calendar", "interval", "day", "bars"),
    [
        ("XNYS", "5m", date(2025, 7, 2), 78),
        ("XNYS", "5m", date(2025, 7, 3), 42),
        ("XNYS", "5m", date(2015, 12, 24), 42),
        ("XNYS", "1m", date(2025, 3, 10), 390),
        ("XNYS", "1h", date(2025, 7, 2), 7),
        ("XNYS", "1d", date(2025, 7, 3), 1),
        ("24/7", "1m", date(2025, 5, 10), 1440),
        ("24/7", "1m", date(2025, 3, 30), 1440),
        ("XTKS", "5m", date(2024, 6, 3), 60),  # 9:00-11:30 and 12:30-15:00
        ("CMES", "1h", date(2025, 6, 3), 24),
    ],
)
def test_a_session_has_as_many_bars_as_its_hours_hold(calendar, interval, day, bars):
    assert len(expected_bars(calendar, interval, day, day)) == bars


def test_the_last_bar_of_a_session_ends_with_it():
    bars = expected_bars("XNYS", "1h", date(2025, 7, 3), date(2025, 7, 3))
    assert bars.row(-1) == (date(2025, 7, 3), utc("2025-07-03T16:30"), utc("2025-07-03T17:00"))


def test_no_bar_is_expected_in_a_lunch_break_and_the_grid_starts_again_after_it():
    bars = expected_bars("XTKS", "1h", date(2024, 6, 3), date(2024, 6, 3))
    assert bars.select("open_time", "close_time").rows() == [
        (utc("2024-06-03T00:00"), utc("2024-06-03T01:00")),
        (utc("2024-06-03T01:00"), utc("2024-06-03T02:00")),
        (utc("2024-06-03T02:00"), utc("2024-06-03T02:30")),
        (utc("2024-06-03T03:30"), utc("2024-06-03T04:30")),
        (utc("2024-06-03T04:30"), utc("2024-06-03T05:30")),
        (utc("2024-06-03T05:30"), utc("2024-06-03T06:00")),
    ]


def test_a_daily_bar_is_its_session():
    (bar,) = expected_bars("XNYS", "1d", date(2025, 7, 3), date(2025, 7, 6)).rows()
    assert bar == (date(2025, 7, 3), utc("2025-07-03T13:30"), utc("2025-07-03T17:00"))


def test_expected_bars_never_overlap_and_stay_in_their_session():
    bars = expected_bars("XNYS", "15m", date(2024, 10, 1), date(2025, 4, 1)).sort("open_time")
    assert (bars["open_time"].shift(-1) >= bars["close_time"]).drop_nulls().all()
    table = session_table("XNYS", date(2024, 10, 1), date(2025, 4, 1))
    placed = bars.join(table, on="session", suffix="_session")
    assert len(placed) == len(bars)
    assert (placed["open_time"] >= placed["open_time_session"]).all()
    assert (placed["close_time"] <= placed["close_time_session"]).all()


def test_a_time_belongs_to_the_session_that_holds_it_or_else_to_its_local_day():
    assert sessions_of(
        "XNYS",
        "2025-03-10T13:30",  # the open
        "2025-03-10T08:00",  # before it, four in the morning in New York
        "2025-03-10T20:00",  # the close is no longer inside, but is of the day
        "2025-03-11T01:00",  # nine in the evening of the 10th in New York
        "2025-03-11T04:30",  # half past midnight of the 11th
    ) == ["2025-03-10", "2025-03-10", "2025-03-10", "2025-03-10", "2025-03-11"]


def test_a_time_on_a_closed_day_belongs_to_the_session_before():
    assert sessions_of("XNYS", "2025-03-08T15:00", "2025-03-09T23:00", "2025-04-18T15:00", "2001-09-13T15:00") == [
        "2025-03-07",
        "2025-03-07",
        "2025-04-17",
        "2001-09-10",
    ]


def test_an_overnight_session_holds_the_evening_before_its_date():
    # Globex opens at 17:00 in Chicago, which is 22:00 UTC in summer, for the next day's session.
    assert sessions_of("CMES", "2025-06-02T21:59", "2025-06-02T22:00", "2025-06-03T12:00", "2025-06-07T12:00") == [
        "2025-06-02",
        "2025-06-03",
        "2025-06-03",
        "2025-06-06",
    ]


def test_a_lunch_break_belongs_to_its_session():
    assert sessions_of("XTKS", "2024-06-03T03:00") == ["2024-06-03"]


def test_round_the_clock_a_session_is_the_utc_day():
    assert sessions_of("24/7", "2025-05-10T00:00", "2025-05-10T23:59:59.999999", "2025-05-11T00:00") == [
        "2025-05-10",
        "2025-05-10",
        "2025-05-11",
    ]


def test_a_null_time_has_a_null_session_and_rows_keep_their_order():
    assert sessions_of("XNYS", "2025-03-11T15:00", None, "2025-03-10T15:00", "2025-03-11T15:00") == [
        "2025-03-11",
        None,
        "2025-03-10",
        "2025-03-11",
    ]
    assert sessions_of("XNYS", None) == [None]
    assert sessions_of("XNYS") == []


def test_a_row_s_session_does_not_depend_on_the_other_rows():
    # The Hong Kong calendar ends with 2049: what lies beyond must not get its last session from an older neighbour.
    times = ["2045-03-06T04:00", "2049-12-31T03:00", "2055-01-01T00:00"]
    assert sessions_of("XHKG", *times) == [sessions_of("XHKG", time)[0] for time in times]
    assert sessions_of("XHKG", *times)[2] is None


def test_every_expected_bar_belongs_to_its_own_session():
    for calendar in ("XNYS", "XTKS", "CMES", "24/7"):
        bars = expected_bars(calendar, "1h", date(2025, 2, 24), date(2025, 4, 4))
        assigned = assign_sessions(bars.rename({"session": "wanted"}), calendar)
        assert len(bars) > 100
        assert (assigned["session"] == assigned["wanted"]).all(), calendar


def test_a_session_column_that_is_already_there_is_replaced():
    frame = pl.DataFrame({"open_time": [utc("2025-03-10T15:00")], "session": [date(1999, 1, 1)]}).cast(
        {"open_time": TIME}
    )
    assert assign_sessions(frame, "XNYS")["session"].to_list() == [date(2025, 3, 10)]


def test_calendars_reach_back_over_many_decades():
    table = session_table("XNYS", date(1985, 1, 1), date(2025, 12, 31))
    per_year = table.group_by(pl.col("session").dt.year()).len()["len"]
    assert len(per_year) == 41
    assert per_year.is_between(248, 254).all()
    assert (table["close_time"] - table["open_time"]).is_between(timedelta(hours=3), timedelta(hours=7)).all()
