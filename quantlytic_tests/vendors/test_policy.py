"""The retry policy: patient with errors that may pass, silent about nothing."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.storage.budgets import BudgetLog
from quantlytic_assets.vendors.cost import seconds_for
from quantlytic_assets.vendors.parts import by_bars
from quantlytic_assets.vendors.policy import DEFAULT_POLICY, RetryPolicy, fetch_with_policy
from quantlytic_assets.vendors.protocol import BarRequest, Limit, Served, VendorError, VendorTraits
from quantlytic_tests.frames import make_bars

REQUEST = BarRequest("d", "A", "1m", "24/7", datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC))
ANSWER = pl.DataFrame(schema=RAW_SCHEMA)


class Scripted:
    """A vendor that raises the given errors one after the other and then answers."""

    name = "scripted"
    limits = ()
    at_once = 1

    def __init__(self, *errors: Exception):
        self.errors = list(errors)

    def traits(self, dataset: str) -> VendorTraits:
        return VendorTraits(omits_empty_bars=False, attempts_before_hole=3)

    def parts(self, request: BarRequest) -> list[BarRequest]:
        return [request]

    def weight(self, request: BarRequest) -> int:
        return 1

    def unsupported(self, request: BarRequest) -> str | None:
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

    def parts(self, request: BarRequest) -> list[BarRequest]:
        return by_bars(request, 10)

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


class Hour:
    """Our own time: `sleep` makes it pass."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Limited(Scripted):
    """Two calls a minute and five an hour."""

    limits = (Limit(60, 2), Limit(3600, 5))


@pytest.fixture
def hour() -> Hour:
    return Hour()


@pytest.fixture
def budget(tmp_path, hour) -> BudgetLog:
    return BudgetLog(f"sqlite:///{tmp_path / 'state.sqlite'}", hour)


def test_calls_wait_for_a_place_and_are_rejected_where_that_takes_too_long(hour, budget):
    vendor = Limited()
    for _ in range(5):
        fetch_with_policy(vendor, REQUEST, sleep=hour.sleep, budget=budget)
    assert [round(wait) for wait in hour.waits] == [60, 60]
    with pytest.raises(VendorError, match="rate limit is used up; free again in 58 min") as rejected:
        fetch_with_policy(vendor, REQUEST, sleep=hour.sleep, budget=budget)
    assert not rejected.value.retryable and len(hour.waits) == 2


def test_who_is_patient_gets_a_place_however_full_the_hour_is(hour, budget):
    vendor = Limited()
    for _ in range(12):
        fetch_with_policy(vendor, REQUEST, sleep=hour.sleep, budget=budget, patience=3700)
    assert 2 * 3600 < sum(hour.waits) < 2 * 3600 + 130
    # What closed says it wants is another matter.
    budget.open_circuit("scripted", 600, "banned")
    with pytest.raises(VendorError, match="banned"):
        fetch_with_policy(vendor, REQUEST, sleep=hour.sleep, budget=budget, patience=3700)


def test_repeated_calls_need_places_too(hour, budget):
    fetch_with_policy(Limited(*busy(1)), REQUEST, sleep=hour.sleep, budget=budget)
    assert budget.left("scripted", Limited.limits) == {60: 0, 3600: 3}


def test_a_vendor_s_retry_after_holds_for_everybody(hour, budget):
    with pytest.raises(VendorError):
        fetch_with_policy(Limited(VendorError("busy", True, retry_after=900)), REQUEST, sleep=hour.sleep, budget=budget)
    other = Limited()
    with pytest.raises(VendorError, match=r"not to be asked yet \(busy\); free again in 15 min"):
        fetch_with_policy(other, REQUEST, sleep=hour.sleep, budget=budget)
    hour.now += 890
    fetch_with_policy(other, REQUEST, sleep=hour.sleep, budget=budget)
    assert hour.waits == [10]


def test_a_ban_is_not_repeated_and_closes_the_vendor_for_a_while_where_it_doesn_t_say(hour, budget):
    with pytest.raises(VendorError, match="banned"):
        fetch_with_policy(
            Limited(VendorError("banned", True, opens_circuit=True)), REQUEST, sleep=hour.sleep, budget=budget
        )
    assert budget.circuit("scripted") == (600, "banned") and hour.waits == []


def test_what_a_vendor_can_t_serve_is_not_asked_for(hour, budget):
    class Young(Limited):
        def unsupported(self, request: BarRequest) -> str | None:
            return "nothing before 2025"

        def parts(self, request: BarRequest) -> list[BarRequest]:
            return by_bars(request, 720)

    with pytest.raises(VendorError, match="nothing before 2025"):
        fetch_with_policy(Young(), REQUEST, sleep=hour.sleep, budget=budget)
    assert budget.left("scripted", Limited.limits) == {60: 2, 3600: 5}


@pytest.mark.parametrize(
    ("requests", "weight", "left", "seconds"),
    [
        (2, 2, {60: 2, 3600: 5}, 0.6),
        (3, 3, {60: 2, 3600: 5}, 60.9),
        (4, 4, {60: 0, 3600: 5}, 121.2),
        (6, 6, {60: 2, 3600: 5}, 3601.8),
    ],
)
def test_what_a_plan_takes_follows_from_the_tightest_limit(requests, weight, left, seconds):
    assert seconds_for(requests, weight, Limited.limits, left) == pytest.approx(seconds)
