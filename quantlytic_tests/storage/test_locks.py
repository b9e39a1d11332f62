"""Locks that every process of an installation knows by name."""

import time

import pytest

from quantlytic_assets.storage.postgres import Held
from quantlytic_tests.storage.processes import hold_lock, start


def holding(place, name):
    """A process that holds the lock, once it does."""
    ready = place.settings.data / "ready"
    process = start(hold_lock, place, name, ready)
    deadline = time.monotonic() + 60
    while not ready.exists():
        assert time.monotonic() < deadline and process.is_alive()
        time.sleep(0.01)
    return process


def test_a_lock_that_another_process_holds_is_told_to_be_held_until_that_process_is_killed(place):
    process = holding(place, "run-1")
    with pytest.raises(Held), place.resources.lock("run-1", wait=False):
        pytest.fail("two hold it")
    with place.resources.lock("run-2", wait=False):
        pass
    process.kill()
    process.join()
    # Waiting gets it as soon as the system, or the server, has noticed.
    with place.resources.lock("run-1"):
        pass


def test_a_lock_is_free_again_after_its_block_and_after_an_error_in_it(place):
    with place.resources.lock("one", wait=False):
        pass
    with pytest.raises(ZeroDivisionError), place.resources.lock("one", wait=False):
        raise ZeroDivisionError
    with place.resources.lock("one", wait=False):
        pass
