"""Conditions of alerts: what is read, what is refused in words, what becomes of an alert with new rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantlytic_assets.thresholds.condition import ConditionError, condition
from quantlytic_assets.thresholds.standing import Standing, followed

START = datetime(2026, 1, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)


def rows(**columns: list[float | None]) -> pl.DataFrame:
    count = len(next(iter(columns.values())))
    return pl.DataFrame({"time": [START + n * HOUR for n in range(count)], **columns}, strict=False)


def holds(text: str, **columns: list[float | None]) -> list[bool | None]:
    return rows(**columns).select(condition(text).expression)[:, 0].to_list()


def test_comparisons_with_numbers_and_columns():
    assert holds("rsi_14 < 30", rsi_14=[29.9, 30.0, None]) == [True, False, None]
    assert holds("30 >= rsi_14", rsi_14=[29.9, 30.0, 30.1]) == [True, True, False]
    assert holds("close > sma_200", close=[1.0, 3.0], sma_200=[2.0, 2.0]) == [False, True]
    assert holds("ret_1 <= -2.5%", ret_1=[-0.03, -0.025, -0.02]) == [True, True, False]


def test_and_binds_closer_than_or():
    text = "a > 1 or b > 1 and c > 1"
    assert holds(text, a=[2.0, 0.0, 0.0], b=[0.0, 2.0, 2.0], c=[0.0, 0.0, 2.0]) == [True, False, True]


def test_a_crossing_among_other_comparisons_is_of_one_row():
    text = "close crosses above sma_20 and rsi_14 < 70"
    assert condition(text).momentary
    found = holds(text, close=[1.0, 3.0, 3.0, 1.0, 3.0], sma_20=[2.0] * 5, rsi_14=[60.0, 60.0, 60.0, 60.0, 80.0])
    assert found[1:] == [True, False, False, False]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "write a condition such as"),
        (30, "write a condition such as"),
        ("rsi_14", "nothing is where <"),
        ("rsi_14 < ", "ends too early"),
        ("rsi_14 == 30", "can't be read"),
        ("rsi_14 < 30 and", "ends too early"),
        ("rsi_14 < 30 close > 2", "join them by and, or"),
        ("1 < 2", "compares numbers alone"),
        ("close > 5m", "compare staleness with a duration"),
        ("staleness > 5", "compare staleness with a duration"),
        ("staleness > 5m and close > 2", "make one alert of each"),
        ("__import__('os').system('true')", "can't be read"),
        ("close above sma_20", "'above' stands where <"),
        ("and > 2", "'and' stands where a column"),
    ],
)
def test_what_is_wrong_is_said(text: object, says: str):
    with pytest.raises(ConditionError) as caught:
        condition(text)
    assert says in str(caught.value)


WORDS = st.sampled_from(["rsi_14", "<", "crosses", "above", "and", "or", "3", "5m", "%", "("])


@settings(deadline=None)
@given(st.text(max_size=60) | st.lists(WORDS, max_size=9).map(" ".join))
def test_any_text_is_read_or_refused(text: str):
    try:
        found = condition(text)
    except ConditionError as error:
        assert str(error)
    else:
        assert condition(found.text) == found


def walk(text: str, values: list[float | None], chunks: list[int], cooldown: timedelta = timedelta(0)):
    """(over, row) of what is told when rows come in chunks, one hour a row."""
    table = rows(x=values)
    standing, told, seen = Standing(), [], 0
    for chunk in chunks:
        seen += chunk
        now = START + seen * HOUR
        standing, changes = followed(condition(text), table.head(seen), standing, cooldown, now)
        told += [(one.over, round((one.at - START) / HOUR)) for one in changes]
    return told


def test_it_is_told_once_and_once_more_when_it_is_over():
    values = [5.0, 1.0, 1.0, None, 1.0, 5.0, 5.0, 1.0]
    assert walk("x < 3", values, [1] * 8) == [(False, 1), (True, 5), (False, 7)]
    assert walk("x < 3", values, [3, 5]) == [(False, 2), (False, 7)]
    # What came and went between two looks is told, both.
    assert walk("x < 3", values, [1, 6]) == [(False, 1), (True, 5)]


def test_a_new_alert_tells_what_is_now():
    assert walk("x < 3", [1.0, 1.0, 1.0], [3]) == [(False, 2)]
    assert walk("x < 3", [1.0, 1.0, 5.0], [3]) == []


def test_crossings_happen_after_the_alert_was_made():
    values = [5.0, 5.0, 1.0, 5.0, 5.0, 1.0]
    assert walk("x crosses above 3", values, [1] * 6) == [(False, 3), (True, 5)]
    assert walk("x crosses below 3", values, [1] * 6) == [(False, 2), (True, 3), (False, 5)]
    assert walk("x crosses 3", values, [1] * 6) == [(False, 2), (False, 3), (False, 5)]
    assert walk("x crosses above 3", values, [2, 4]) == [(False, 3), (True, 5)]


def test_nothing_is_told_within_the_cooldown():
    values = [5.0, 1.0, 5.0, 1.0, 5.0, 5.0, 5.0, 5.0, 1.0]
    told = walk("x < 3", values, [1] * 9, cooldown=timedelta(hours=6))
    assert told == [(False, 1), (True, 2), (False, 8)]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.none() | st.sampled_from([1.0, 5.0]), min_size=1, max_size=20))
def test_what_stands_does_not_depend_on_how_rows_come(values):
    text = "x < 3"
    table = rows(x=values).cast({"x": pl.Float64})
    ends = set()
    for step in (1, 3, len(values)):
        standing = Standing(through=START - HOUR)
        for end in [*range(step, len(values), step), len(values)]:
            standing, _ = followed(condition(text), table.head(end), standing, timedelta(0), START)
        ends.add((standing.through, standing.holds, standing.told))
    assert len(ends) == 1
