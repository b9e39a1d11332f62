"""What every vendor that answers over HTTP shares: how long it wants to be left alone."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from quantlytic_assets.vendors.http import ask, open_session
from quantlytic_assets.vendors.protocol import VendorError
from quantlytic_tests.vendors.loopback import Reply, serving

NOW = datetime.now(UTC).replace(microsecond=0)


def stamp(time: datetime) -> str:
    return format_datetime(time, usegmt=True)


def asked_to_wait(**headers: str) -> float | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with serving(lambda question: Reply(429, "{}", named)) as url, pytest.raises(VendorError) as failed:
        ask(open_session(), url, {})
    return failed.value.retry_after


@pytest.mark.parametrize(
    ("given", "seconds"), [("17", 17.0), ("1.5", 1.5), ("-3", 0.0), ("inf", None), ("nan", None), ("soon", None)]
)
def test_seconds_are_those_and_nonsense_is_nothing(given, seconds):
    assert asked_to_wait(Retry_After=given) == seconds


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(hours=-2), timedelta(hours=2)])
def test_a_date_is_by_the_vendor_s_clock_whatever_ours_says(ahead):
    theirs = NOW + ahead
    assert asked_to_wait(Retry_After=stamp(theirs + timedelta(seconds=90)), Date=stamp(theirs)) == 90
    assert asked_to_wait(Retry_After=stamp(theirs - timedelta(seconds=90)), Date=stamp(theirs)) == 0


def test_a_date_without_a_zone_or_a_clock_beside_it_is_utc():
    until = datetime.now(UTC) + timedelta(hours=1)
    for given in (stamp(until), f"{until:%a, %d %b %Y %H:%M:%S}", f"{until:%a, %d %b %Y %H:%M:%S} -0000"):
        assert asked_to_wait(Retry_After=given) == pytest.approx(3600, abs=60)
