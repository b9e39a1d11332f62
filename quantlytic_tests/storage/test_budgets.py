"""Rate limits are kept by all processes together, across restarts, and a closed vendor stays closed."""

import pytest

from quantlytic_assets.storage.budgets import BudgetLog
from quantlytic_assets.vendors.protocol import Limit
from quantlytic_tests.storage.processes import reserve_places, together

MINUTE = (Limit(60, 5),)


class Clock:
    """Time that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(place, clock) -> BudgetLog:
    return BudgetLog(place.resources.state_url, clock)


def test_as_many_calls_as_the_limit_allows_and_then_a_wait_until_the_oldest_is_out(log, clock):
    for _ in range(5):
        assert log.reserve("v", MINUTE, 1) == 0
        clock.now += 2
    assert log.reserve("v", MINUTE, 1) == pytest.approx(50, abs=0.01)
    clock.now += 50.01
    assert log.reserve("v", MINUTE, 1) == 0
    assert log.reserve("v", MINUTE, 1) == pytest.approx(2, abs=0.02)


def test_weights_count_and_a_heavy_call_waits_for_as_many_as_it_needs(log, clock):
    for weight in (1, 2, 2):
        assert log.reserve("v", MINUTE, weight) == 0
        clock.now += 10
    assert log.reserve("v", MINUTE, 1) == pytest.approx(30, abs=0.01)
    assert log.reserve("v", MINUTE, 3) == pytest.approx(40, abs=0.01)
    assert log.reserve("v", MINUTE, 5) == pytest.approx(50, abs=0.01)
    with pytest.raises(ValueError, match="more than v ever allows"):
        log.reserve("v", MINUTE, 6)


def test_every_window_must_have_room_and_the_longest_wait_counts(log, clock):
    both = (Limit(1, 2), Limit(86_400, 3))
    assert [log.reserve("v", both, 1) for _ in range(2)] == [0, 0]
    assert log.reserve("v", both, 1) == pytest.approx(1, abs=0.01)
    clock.now += 1.1
    assert log.reserve("v", both, 1) == 0
    assert log.reserve("v", both, 1) == pytest.approx(86_400 - 1.1, abs=0.01)
    assert log.left("v", both) == {1: 1, 86_400: 0}


def test_vendors_don_t_use_up_each_other_s_places_and_none_are_needed_without_limits(log):
    assert [log.reserve("v", MINUTE, 5), log.reserve("w", MINUTE, 5)] == [0, 0]
    assert log.reserve("v", (), 1) == log.reserve("v", MINUTE, 0) == 0
    assert log.left("v", MINUTE) == {60: 0}
    assert log.left("x", MINUTE) == {60: 5}


def test_a_restart_forgets_nothing(place, clock):
    url = place.resources.state_url
    assert BudgetLog(url, clock).reserve("v", MINUTE, 5) == 0
    BudgetLog(url, clock).open_circuit("w", 600, "banned")
    again = BudgetLog(url, clock)
    assert again.reserve("v", MINUTE, 1) > 59
    assert again.circuit("w") == (600, "banned")


def test_a_vendor_is_closed_for_the_longest_time_that_was_said(log, clock):
    log.open_circuit("v", 600, "banned")
    log.open_circuit("v", 5, "busy")
    assert log.circuit("v") == (600, "banned")
    assert log.left("v", MINUTE) == {60: 0}
    assert log.circuit("w") is None
    clock.now += 600
    assert log.circuit("v") is None
    log.open_circuit("v", 5, "busy")
    assert log.circuit("v") == (5, "busy")


def test_a_clock_that_was_ahead_and_is_set_back_shuts_nobody_out(log, clock):
    clock.now += 86_400 * 365
    assert log.reserve("v", MINUTE, 5) == 0
    log.open_circuit("v", 600, "banned")
    clock.now -= 86_400 * 365
    assert log.circuit("v") is None
    assert 0 < log.reserve("v", MINUTE, 1) <= 60.01, "they may have been asked just now"
    log.open_circuit("v", 5, "busy")
    assert log.circuit("v") == (5, "busy")
    clock.now += 60.01
    assert log.reserve("v", MINUTE, 5) == 0


def test_clocks_of_two_machines_may_differ_a_little(log, clock):
    assert log.reserve("v", MINUTE, 5) == 0
    clock.now -= 3
    assert log.reserve("v", MINUTE, 1) == pytest.approx(63, abs=0.01)


def test_no_vendor_is_closed_for_longer_than_any_bans(log, clock):
    log.open_circuit("v", 1_764_000_000, "a date in seconds")
    assert log.circuit("v") == (3 * 86_400, "a date in seconds")
    # It is closed, too, to a machine whose clock is a little behind.
    clock.now -= 3
    assert log.circuit("v") == (3 * 86_400 + 3, "a date in seconds")


def test_processes_that_ask_at_once_get_no_more_places_than_there_are(place):
    together(reserve_places, [(place, 40)] * 4)
    log = BudgetLog(place.resources.state_url)
    assert log.left("v", (Limit(3600, 100),)) == {3600: 0}
