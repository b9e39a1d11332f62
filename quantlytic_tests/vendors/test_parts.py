"""Cutting ranges into questions and joining them again: nothing is left out, nothing asked for twice."""

from dataclasses import replace
from datetime import timedelta

import pytest

from quantlytic_assets.vendors.parts import by_bars, by_length, cut, joined
from quantlytic_assets.vendors.protocol import BarRequest
from quantlytic_tests.frames import utc

WHOLE = BarRequest("d", "A", "1m", "24/7", utc("2024-01-01"), utc("2024-01-02"), name="a")


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


@pytest.mark.parametrize(("length", "parts"), [(1, 1), (9.5, 1), (10, 1), (10.5, 2), (11, 2), (30, 3)])
def test_parts_join_and_none_is_too_long(length, parts):
    whole = replace(WHOLE, end=WHOLE.start + minutes(length))
    pieces = by_bars(whole, 10)
    assert len(pieces) == parts and pieces[0].start == whole.start and pieces[-1].end == whole.end
    assert all(a.end == b.start for a, b in zip(pieces, pieces[1:], strict=False))
    assert all(one.end - one.start <= minutes(10) and by_bars(one, 10) == [one] for one in pieces)
    assert joined(pieces) == [whole]


def test_a_bar_of_another_interval_is_another_length():
    hours = replace(WHOLE, interval="1h")
    assert by_bars(hours, 6) == by_length(hours, timedelta(hours=6))


def test_only_edges_inside_cut_in_whatever_order_they_come():
    noon, evening = utc("2024-01-01T12:00"), utc("2024-01-01T18:00")
    pieces = cut(WHOLE, [evening, WHOLE.end, noon, WHOLE.start, noon, utc("2023-01-01")])
    assert [(one.start, one.end) for one in pieces] == [(WHOLE.start, noon), (noon, evening), (evening, WHOLE.end)]
    assert {(one.name, one.symbol, one.calendar) for one in pieces} == {("a", "A", "24/7")}
    assert cut(WHOLE, []) == [WHOLE]


def test_only_what_touches_is_joined():
    first, second, third = by_length(WHOLE, timedelta(hours=8))
    assert joined([first, third]) == [first, third]
    assert joined([first, second]) == [replace(first, end=second.end)]
    assert joined([]) == []
