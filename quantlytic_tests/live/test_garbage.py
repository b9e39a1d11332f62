"""When cycles are collected: not while bars come, soon after them, and at the latest after a while."""

from __future__ import annotations

import gc
import weakref

import pytest

from quantlytic_assets.live.garbage import Garbage


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Knot:
    """An object that only the collector can free."""

    def __init__(self):
        self.own = self


@pytest.fixture
def clock():
    return Clock()


def knot() -> weakref.ref:
    return weakref.ref(Knot())


def test_nothing_is_collected_while_bars_come_and_all_of_it_when_they_are_through(clock):
    with Garbage(clock) as garbage:
        assert not gc.isenabled()
        tied = knot()
        for _ in range(20):
            clock.now += 0.005
            garbage.after(made=True)
        clock.now += 0.1
        garbage.after(made=False)
        assert tied() is not None
        clock.now += 0.2
        garbage.after(made=False)
        assert tied() is None
    assert gc.isenabled()


def test_bars_that_never_end_put_it_off_for_ten_seconds_at_most(clock):
    with Garbage(clock) as garbage:
        tied = knot()
        for _ in range(99):
            clock.now += 0.1
            garbage.after(made=True)
        assert tied() is not None
        clock.now += 0.3
        garbage.after(made=True)
        assert tied() is None


def test_the_first_bars_after_a_pause_wait_for_nothing(clock):
    with Garbage(clock) as garbage:
        garbage.after(made=True)
        for _ in range(600):
            clock.now += 0.1
            garbage.after(made=False)
        tied = knot()
        garbage.after(made=True)
        assert tied() is not None
        clock.now += 0.3
        garbage.after(made=False)
        assert tied() is None


def test_what_has_grown_old_is_looked_through_every_ten_minutes(clock):
    with Garbage(clock) as garbage:
        objects = [Knot()]
        tied = weakref.ref(objects[0])
        gc.collect(1)
        objects.clear()
        garbage.after(made=True)
        clock.now += 500
        garbage.after(made=False)
        assert tied() is not None
        clock.now += 101
        garbage.after(made=False)
        assert tied() is None


def test_who_has_turned_it_off_finds_it_turned_off(clock):
    gc.disable()
    try:
        with Garbage(clock):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
