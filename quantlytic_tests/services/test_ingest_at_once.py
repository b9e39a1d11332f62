"""Several questions at a time: the same bars, and what one thread raises stops the others."""

import threading

import pytest

from quantlytic_assets.vendors.protocol import VendorError
from quantlytic_tests.frames import make_dataset
from quantlytic_tests.small_vendors import FIRST, LAST, SmallVendor, archived, make_ingest, materialize


class MeetingVendor(SmallVendor):
    """Is asked by two at a time: the first two questions meet in it. What is asked for `broken` symbols then fails."""

    at_once = 2

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.meeting, self.met = threading.Barrier(2, timeout=60), False

    def fetch(self, request):
        if not self.met:
            self.meeting.wait()
            self.met = True
        if request.symbol in self.broken:
            raise ZeroDivisionError
        return super().fetch(request)


class RejectingVendor(SmallVendor):
    """Asks whoever asks for B to come back in a minute, and breaks for A when that was said."""

    at_once = 2

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.told = threading.Event()

    def fetch(self, request):
        if request.symbol == "B":
            self.told.set()
            raise VendorError("not now", retryable=True, retry_after=55)
        assert self.told.wait(60)
        raise ZeroDivisionError


SYMBOLS = [f"S{number}" for number in range(12)]


def test_as_many_are_asked_at_once_as_all_vendors_take_and_the_bars_are_the_same(tmp_path):
    dataset = make_dataset(symbols=SYMBOLS)
    two = make_ingest(tmp_path / "two", dataset, MeetingVendor(dataset, "first"))
    told = []
    outcome = two.fill(two.need(FIRST, LAST), told.append)
    assert (outcome.requests, outcome.bars, outcome.landed.rows) == (12, 12 * 780, 12 * 780)
    assert told == [*range(1, 13)] and sorted(two.vendors[0].asked) == sorted({*two.vendors[0].asked})
    one = make_ingest(tmp_path / "one", dataset, SmallVendor(dataset, "first"))
    materialize(one)
    same = ["symbol", "open_time", "close_time", "open", "high", "low", "close", "volume"]
    assert archived(two).select(same).sort(same).equals(archived(one).select(same).sort(same))
    assert make_ingest(tmp_path / "both", dataset, MeetingVendor(dataset), SmallVendor(dataset)).at_once == 1


def test_a_fault_of_one_that_is_asked_stops_all_and_loses_no_answer(tmp_path):
    dataset = make_dataset(symbols=SYMBOLS)
    ingest = make_ingest(tmp_path, dataset, MeetingVendor(dataset, broken={"S1"}))
    with pytest.raises(ZeroDivisionError):
        materialize(ingest)
    answered = {symbol for symbol, _, _ in ingest.vendors[0].asked}
    assert "S0" in answered and len(answered) < 12
    again = make_ingest(tmp_path, dataset, SmallVendor(dataset))
    materialize(again)
    assert {symbol for symbol, _, _ in again.vendors[0].asked} == {*SYMBOLS} - answered
    assert len(archived(again)) == 12 * 780


def test_who_waits_for_a_vendor_waits_no_longer_when_another_one_has_failed(tmp_path):
    dataset = make_dataset(symbols=["A", "B", "C"])
    ingest = make_ingest(tmp_path, dataset, RejectingVendor(dataset))
    failed = []

    def run():
        try:
            materialize(ingest)
        except ZeroDivisionError as fault:
            failed.append(fault)

    running = threading.Thread(target=run, daemon=True)
    running.start()
    running.join(40)
    assert failed and not running.is_alive(), "it waited for B's minute"
