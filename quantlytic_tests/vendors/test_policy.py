"""The retry policy: patient with errors that may pass, silent about nothing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.vendors.policy import DEFAULT_POLICY, RetryPolicy, fetch_with_policy, split
from quantlytic_assets.vendors.protocol import BarRequest, Limit, Served, VendorError, VendorTraits
from quantlytic_tests.frames import make_bars

REQUEST = BarRequest("d", "A", "1m", "24/7", datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
ANSWER = pl.DataFrame(schema=RAW_SCHEMA)


class Scripted:
    """A vendor that raises the given errors one after the other and then answers."""

    name = "scripted"
    limits = ()

    def __init__(self, *errors: Exception):
        self.errors = list(errors)

    def traits(self, dataset: str) -> VendorTraits:
        return VendorTraits(omits_empty_bars=False, attempts_before_hole=3)

    def weight(self, request: BarRequest) -> int:
        return 1

    def refusal(self, request: BarRequest) -> str | None:
        return None

    def fetch(self, request: BarRequest) -> Served:
        if self.errors:
            raise self.errors.pop(0)
        return Served(ANSWER)


class Watched:
    """Runs `fetch_with_policy` and keeps count: requests made, and the waits between them in seconds."""

    def __init__(self) -> None:
        self.requests = 0
        self.waits: list[float] = []

    def __call__(self, vendor: Scripted, policy: RetryPolicy = DEFAULT_POLICY) -> pl.DataFrame:
        return fetch_with_policy(vendor, REQUEST, policy, on_request=self._count, sleep=self.waits.append).bars

    def _count(self) -> None:
        self.requests += 1


@pytest.fixture
def fetch() -> Watched:
    return Watched()


def busy(times: int) -> list[VendorError]:
    return [VendorError(f"busy {i}", retryable=True) for i in range(times)]


def test_an_error_that_may_pass_is_tried_again_with_growing_waits(fetch):
    assert fetch(Scripted(*busy(3))).equals(ANSWER)
    assert fetch.requests == 4
    assert [1 <= fetch.waits[0] <= 2, 2 <= fetch.waits[1] <= 3, 4 <= fetch.waits[2] <= 5] == [True] * 3


def test_waits_do_not_grow_without_bound(fetch):
    fetch(Scripted(*busy(9)), RetryPolicy(attempts=10, first_wait=1, longest_wait=8))
    assert len(fetch.waits) == 9 and max(fetch.waits) <= 8


def test_an_error_that_will_not_pass_is_raised_at_once(fetch):
    with pytest.raises(VendorError, match="no such symbol"):
        fetch(Scripted(VendorError("no such symbol", retryable=False)))
    assert (fetch.requests, fetch.waits) == (1, [])


def test_attempts_are_bounded_and_the_last_error_is_the_one_raised(fetch):
    with pytest.raises(VendorError, match="busy 2"):
        fetch(Scripted(*busy(9)), RetryPolicy(attempts=3))
    assert fetch.requests == 3


def test_a_fault_of_the_program_is_not_taken_for_a_vendor_s(fetch):
    with pytest.raises(KeyError):
        fetch(Scripted(KeyError("bug")))
    assert fetch.requests == 1


def test_a_vendor_that_says_how_long_to_wait_is_not_asked_before(fetch):
    fetch(Scripted(VendorError("busy", retryable=True, retry_after=30), VendorError("busy", retryable=True)))
    assert 30 <= fetch.waits[0] <= 31 and 2 <= fetch.waits[1] <= 3


def test_our_own_wait_counts_where_it_is_the_longer_one(fetch):
    fetch(Scripted(*busy(3), VendorError("busy", retryable=True, retry_after=0.1)))
    assert 8 <= fetch.waits[3] <= 9


def test_one_that_wants_longer_than_the_policy_waits_is_left_to_the_caller(fetch):
    with pytest.raises(VendorError, match="banned") as failed:
        fetch(Scripted(VendorError("banned", retryable=True, retry_after=3600)))
    assert (fetch.requests, fetch.waits) == (1, []) and failed.value.retry_after == 3600


class Paging(Scripted):
    """Ten bars a request; the second request fails once."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[datetime, datetime]] = []

    def traits(self, dataset: str) -> VendorTraits:
        return VendorTraits(omits_empty_bars=False, attempts_before_hole=3, bars_per_request=10)

    def fetch(self, request: BarRequest) -> Served:
        self.asked.append((request.start, request.end))
        if len(self.asked) == 2:
            raise VendorError("busy", retryable=True)
        count = (request.end - request.start) // timedelta(minutes=1)
        return Served(make_bars("A", [request.start + timedelta(minutes=i) for i in range(count)]))


def test_a_long_request_is_cut_and_only_what_failed_is_asked_again(fetch):
    vendor, start = Paging(), REQUEST.start
    bars = fetch_with_policy(
        vendor, replace(REQUEST, end=start + timedelta(minutes=25)), on_request=fetch._count, sleep=fetch.waits.append
    ).bars
    assert bars["open_time"].to_list() == [start + timedelta(minutes=i) for i in range(25)]
    edges = [start + timedelta(minutes=i) for i in (0, 10, 20, 25)]
    parts = list(zip(edges, edges[1:], strict=False))
    assert vendor.asked == [parts[0], parts[1], parts[1], parts[2]]
    assert fetch.requests == 4 and len(fetch.waits) == 1


@pytest.mark.parametrize(("minutes", "parts"), [(1, 1), (10, 1), (11, 2), (30, 3)])
def test_parts_join_and_none_is_too_long(minutes, parts):
    whole = replace(REQUEST, end=REQUEST.start + timedelta(minutes=minutes))
    cut = split(whole, 10)
    assert len(cut) == parts and cut[0].start == whole.start and cut[-1].end == whole.end
    assert all(a.end == b.start for a, b in zip(cut, cut[1:], strict=False))
    assert split(whole, None) == [whole]
