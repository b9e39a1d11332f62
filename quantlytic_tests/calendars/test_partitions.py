"""Partition keys against the calendar, at moments around weekends, holidays and the open."""

from dataclasses import replace
from datetime import date, timedelta

import polars as pl
import pytest

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.calendars.partitions import (
    archive_keys,
    check_keep,
    deciding_key,
    first_trading_day,
    keys_between,
    known_keys,
    model_steps,
    partition_key,
    trading_keys,
    windows,
    with_partition,
)
from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.market_data.quality.retention import first_kept
from quantlytic_assets.trading.engine.settings import EngineSettings
from quantlytic_assets.universe.models import ModelStrategy
from quantlytic_tests.frames import make_dataset, utc

OPEN_ENDED = {"first": date(2025, 6, 30), "last": None}


def make_strategy(retrain="yearly", min_train=20, embargo=0, horizon=1, interval="1d"):
    return ModelStrategy(
        "trend", "sample_set", interval, ("AAPL",), "model", EngineSettings(100_000.0), model="logistic_regression",
        features=None, horizon=horizon, retrain=retrain, min_train_sessions=min_train, embargo_sessions=embargo,
    )  # fmt: skip


def days(calendar, first, last):
    return [day.isoformat() for day in session_table(calendar, first, last)["session"]]


@pytest.mark.parametrize(
    ("calendar", "first", "last"),
    [
        ("XNYS", date(2024, 12, 20), date(2025, 4, 30)),
        ("XNYS", date(2025, 1, 1), date(2025, 7, 4)),  # begins and ends on a holiday
        ("XNYS", date(2025, 3, 1), date(2025, 3, 9)),  # begins and ends on a weekend
        ("XNYS", date(1994, 12, 1), date(1995, 2, 1)),  # a day that the zone of the keys skipped
        ("XTKS", date(2024, 12, 27), date(2025, 1, 10)),
        ("XBOM", date(2024, 1, 1), date(2024, 12, 31)),  # with sessions on some Saturdays
        ("XSAU", date(2024, 1, 1), date(2024, 6, 30)),  # Sunday to Thursday
        ("24/7", date(2025, 2, 20), date(2025, 3, 31)),
    ],
)
def test_keys_by_session_are_exactly_the_sessions(calendar, first, last):
    keys = known_keys(make_dataset(calendar, first=first, last=last))
    assert keys == days(calendar, first, last)


def test_no_monday_is_invented_on_a_weekend_or_holiday():
    dataset = make_dataset(**OPEN_ENDED)
    for now in ("2025-07-03T21:00", "2025-07-04T12:00", "2025-07-05T12:00", "2025-07-06T23:59", "2025-07-07T09:59"):
        assert known_keys(dataset, utc(now))[-1] == "2025-07-03", now


def test_a_session_of_new_york_is_there_before_it_opens():
    dataset = make_dataset(**OPEN_ENDED)
    assert known_keys(dataset, utc("2025-07-07T10:00"))[-1] == "2025-07-07"
    assert known_keys(dataset, utc("2025-07-07T13:30"))[-1] == "2025-07-07"


def test_round_the_clock_today_is_there_from_midnight():
    dataset = make_dataset("24/7", **OPEN_ENDED)
    assert known_keys(dataset, utc("2025-07-05T23:59:59"))[-1] == "2025-07-05"
    assert known_keys(dataset, utc("2025-07-06T00:00"))[-1] == "2025-07-06"


def test_the_running_month_is_there_from_its_first_midnight():
    dataset = make_dataset(interval="1d", first=date(2025, 4, 15), last=None)
    assert known_keys(dataset, utc("2025-06-30T23:59")) == ["2025-04-01", "2025-05-01", "2025-06-01"]
    assert known_keys(dataset, utc("2025-07-01T00:00"))[-1] == "2025-07-01"


def test_a_closed_range_ends_with_its_last_session_whatever_the_time():
    sessions = make_dataset(first=date(2025, 3, 3), last=date(2025, 3, 14))
    months = make_dataset(interval="1d", first=date(2024, 11, 15), last=date(2025, 2, 3))
    for now in (utc("2025-06-01T00:00"), utc("2031-06-01T00:00")):
        assert known_keys(sessions, now)[-1] == "2025-03-14"
        assert known_keys(months, now) == ["2024-11-01", "2024-12-01", "2025-01-01", "2025-02-01"]


@pytest.mark.parametrize("last", [date(2025, 6, 10), date(2025, 6, 30), date(2026, 12, 31), None])
def test_what_runs_is_there_although_the_last_session_is_still_to_come(last):
    now, first = utc("2025-06-10T12:00"), date(2025, 5, 15)
    assert known_keys(make_dataset(interval="1d", first=first, last=last), now)[-1] == "2025-06-01"
    assert known_keys(make_dataset("24/7", "1m", first=first, last=last), now)[-1] == "2025-06-10"
    assert known_keys(make_dataset("XNYS", "1m", first=first, last=last), now)[-1] == "2025-06-10"


def test_a_month_key_holds_all_its_sessions():
    dataset = make_dataset(interval="1d", first=date(2025, 1, 2), last=date(2025, 3, 31))
    march = session_table("XNYS", date(2025, 3, 1), date(2025, 3, 31))["session"]
    assert {partition_key(dataset, day) for day in march} == {"2025-03-01"}
    frame = pl.DataFrame({"session": [date(2025, 2, 28), date(2025, 3, 3), None]}, schema={"session": pl.Date})
    assert with_partition(frame, dataset)["partition"].to_list() == ["2025-02-01", "2025-03-01", None]


def test_keys_between_takes_the_partitions_that_hold_a_session_of_the_range():
    sessions = make_dataset()
    assert keys_between(sessions, date(2025, 3, 8), date(2025, 3, 11)) == ["2025-03-10", "2025-03-11"]
    assert keys_between(sessions, None, date(2025, 3, 4)) == ["2025-03-03", "2025-03-04"]
    assert keys_between(sessions, date(2025, 3, 13), None) == ["2025-03-13", "2025-03-14"]
    months = make_dataset(interval="1d", first=date(2025, 1, 2), last=date(2025, 5, 30))
    assert keys_between(months, date(2025, 2, 20), date(2025, 3, 1)) == ["2025-02-01", "2025-03-01"]


def test_windows_join_sessions_over_a_weekend_and_split_where_one_is_left_out():
    dataset = make_dataset()
    keys = ["2025-03-11", "2025-03-06", "2025-03-07", "2025-03-10", "2025-03-13", "2025-03-07"]
    found = windows(dataset, keys)
    assert [window.keys for window in found] == [
        ("2025-03-06", "2025-03-07", "2025-03-10", "2025-03-11"),
        ("2025-03-13",),
    ]
    assert [(window.first, window.last) for window in found] == [
        (date(2025, 3, 6), date(2025, 3, 12)),
        (date(2025, 3, 13), date(2025, 3, 14)),
    ]


def test_windows_hold_at_most_so_many_keys():
    keys = known_keys(make_dataset())
    found = windows(make_dataset(), keys, most=4)
    assert [len(window.keys) for window in found] == [4, 4, 2]
    assert [key for window in found for key in window.keys] == keys


def test_windows_of_nothing_are_none_and_an_unknown_key_is_rejected():
    assert windows(make_dataset(), []) == []
    with pytest.raises(ValueError, match="no partition 2025-03-08.*2025-03-03 to 2025-03-14"):
        windows(make_dataset(), ["2025-03-08"])


def test_a_month_s_window_ends_with_the_month():
    dataset = make_dataset(interval="1d", first=date(2024, 11, 4), last=date(2025, 3, 31))
    (window,) = windows(dataset, ["2024-12-01", "2025-01-01"])
    assert (window.first, window.last) == (date(2024, 12, 1), date(2025, 2, 1))


def test_the_first_window_also_decides_what_is_filed_before_and_the_last_what_is_filed_after():
    dataset = make_dataset()
    keys = known_keys(dataset)
    first, middle, last = (windows(dataset, [key])[0] for key in (keys[0], keys[4], keys[-1]))
    assert (first.reaches_back, first.reaches_on) == (True, False)
    assert (middle.reaches_back, middle.reaches_on) == (False, False)
    assert (last.reaches_back, last.reaches_on) == (False, True)
    assert first.condition() == ("session < ?", [date(2025, 3, 4)])
    assert middle.condition("day") == ("day >= ? AND day < ?", [date(2025, 3, 7), date(2025, 3, 8)])
    assert last.condition() == ("session >= ?", [date(2025, 3, 14)])
    assert windows(dataset, keys)[0].condition() == ("true", [])


def test_an_open_end_decides_nothing_of_the_future():
    dataset = make_dataset("24/7", first=date.today() - timedelta(days=5), last=None)
    newest = windows(dataset, [known_keys(dataset)[-1]])[0]
    assert not newest.reaches_on


def test_each_archive_key_is_decided_in_its_own_partition_or_the_nearest():
    dataset = make_dataset()
    known = known_keys(dataset)
    assert [deciding_key(dataset, key, known) for key in known] == known
    assert deciding_key(dataset, "1999-01-04", known) == "2025-03-03"
    assert deciding_key(dataset, "2025-03-08", known) == "2025-03-07"
    assert deciding_key(dataset, "2031-01-02", known) == "2025-03-14"
    assert deciding_key(dataset, "2025-03-03", []) is None


def test_with_an_open_end_a_future_archive_key_waits_for_its_own_partition():
    dataset = make_dataset(**OPEN_ENDED)
    known = known_keys(dataset, utc("2025-07-07T12:00"))
    assert deciding_key(dataset, "2025-07-08", known) is None
    assert deciding_key(dataset, "2025-07-07", known) == "2025-07-07"


def keys_of(dataset, *times):
    return archive_keys(pl.DataFrame({"open_time": [utc(time) for time in times]}, schema={"open_time": TIME}), dataset)


def test_bars_outside_the_dataset_s_range_are_filed_under_their_own_session():
    filed = keys_of(make_dataset(), "2019-05-06T14:00", "2025-03-08T12:00", "2025-03-11T01:00", "2031-01-06T15:00")
    assert filed["partition"].to_list() == ["2019-05-06", "2025-03-07", "2025-03-10", "2031-01-06"]
    assert filed.columns == ["open_time", "partition"]
    assert keys_of(make_dataset(interval="1d"), "2019-05-06T14:00")["partition"].to_list() == ["2019-05-01"]


def test_a_time_in_years_that_the_calendar_does_not_know_has_a_key_too():
    assert keys_of(make_dataset("XHKG"), "1950-05-05T00:00")["partition"].to_list() == ["1950-05-05"]
    assert keys_of(make_dataset("XHKG", interval="1d"), "2095-05-05T00:00")["partition"].to_list() == ["2095-05-01"]


def brute_force_first_step(sessions, needed, retrain):
    months = range(1, 13) if retrain == "monthly" else [1]
    starts = [date(year, month, 1) for year in range(2008, 2021) for month in months]
    return next(start for start in starts if sum(session < start for session in sessions) >= needed)


@pytest.mark.parametrize("retrain", ["yearly", "monthly"])
def test_the_first_step_is_the_first_with_enough_sessions_before_it(retrain):
    dataset = make_dataset(interval="1d", first=date(2008, 1, 2), last=date(2019, 12, 31))
    sessions = session_table("XNYS", date(2008, 1, 2), date(2019, 12, 31))["session"].to_list()
    # The longest window, the bar whose outcome is awaited and the embargo come on top of the training sessions.
    overhead = 200 + 1 + 1 + 5
    in_2008_and_2009 = sum(day < date(2010, 1, 1) for day in sessions)
    exactly = in_2008_and_2009 - overhead
    for min_train in (exactly - 1, exactly, exactly + 1, exactly + 19, exactly + 20):
        wanted = brute_force_first_step(sessions, min_train + overhead, retrain)
        assert first_trading_day(dataset, make_strategy(retrain, min_train, 5)) == wanted, min_train


def test_a_strategy_steps_by_year_or_month_to_the_end_of_its_dataset():
    dataset = make_dataset(interval="1d", first=date(2015, 1, 2), last=date(2018, 2, 15))
    yearly = model_steps(dataset, make_strategy("yearly"))
    assert yearly == ["2016-01-01", "2017-01-01", "2018-01-01"]
    monthly = model_steps(dataset, make_strategy("monthly"))
    assert (monthly[0], monthly[-1], len(monthly)) == ("2015-12-01", "2018-02-01", 27)


def test_an_open_ended_strategy_steps_into_the_running_year():
    dataset = make_dataset(interval="1d", first=date(2015, 1, 2), last=None)
    steps = model_steps(dataset, make_strategy("yearly"), utc("2025-06-01T00:00"))
    assert steps[-1] == "2025-01-01"


def test_a_strategy_trades_in_the_dataset_s_partitions_from_its_first_step_on():
    dataset = make_dataset(interval="1d", first=date(2015, 1, 2), last=date(2018, 2, 15))
    keys = trading_keys(dataset, make_strategy("yearly"))
    assert keys == [key for key in known_keys(dataset) if key >= "2016-01-01"]


@pytest.mark.parametrize("min_train", [400, 5000])
def test_a_strategy_that_could_never_trade_is_rejected_with_what_to_change(min_train):
    dataset = make_dataset(interval="1d", first=date(2016, 1, 4), last=date(2018, 3, 29))
    with pytest.raises(ValueError, match=r" sessions to train on .*lower it"):
        first_trading_day(dataset, make_strategy("yearly", min_train))


def test_a_dataset_that_keeps_less_than_a_strategy_learns_from_is_told_how_much_it_takes():
    dataset = make_dataset(interval="1d", first=date(2010, 1, 4), last=None, keep=timedelta(days=700))
    said = r"^700d is too short for strategies.trend, .*; take \d+d or more"
    with pytest.raises(ValueError, match=said) as caught:
        check_keep(dataset, make_strategy("yearly", min_train=504, embargo=5))
    least = timedelta(days=int(str(caught.value).rpartition("take ")[2].partition("d")[0]))
    check_keep(replace(dataset, keep=least), make_strategy("yearly", min_train=504, embargo=5))
    with pytest.raises(ValueError):
        check_keep(replace(dataset, keep=least - timedelta(days=7)), make_strategy("yearly", min_train=504, embargo=5))
    check_keep(dataset, make_strategy("monthly", min_train=200))
    check_keep(replace(dataset, keep=None), make_strategy("yearly", min_train=5_000))


def test_whole_partitions_are_kept_or_not():
    today = date(2025, 6, 15)
    intraday = make_dataset(first=date(2025, 1, 2), last=None, keep=timedelta(days=30))
    assert first_kept(intraday, today) == date(2025, 5, 16)
    daily = make_dataset(interval="1d", first=date(2025, 1, 2), last=None, keep=timedelta(days=30))
    assert first_kept(daily, today) == date(2025, 5, 1)
    assert first_kept(replace(intraday, keep=timedelta(days=4000)), today) == date(2025, 1, 2)
    assert first_kept(replace(intraday, keep=None), today) == date(2025, 1, 2)
