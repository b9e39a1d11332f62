"""What vendors were asked in vain is counted, and forgotten by nobody."""

from datetime import date

import polars as pl
import pytest

from quantlytic_assets.storage.attempts import ATTEMPTS_SCHEMA, AttemptLog
from quantlytic_tests.storage.processes import count_attempts, together

DAY = date(2025, 3, 3)


@pytest.fixture
def url(place):
    return place.resources.state_url


def holes(*rows):
    return pl.DataFrame(rows, schema={"symbol": pl.String, "session": pl.Date, "error": pl.String}, orient="row")


def test_each_asking_counts_and_only_answers_count_as_answered(url):
    log = AttemptLog(url)
    log.record("d", holes(("A", DAY, None), ("B", DAY, "rate limit")))
    log.record("d", holes(("A", DAY, None), ("B", DAY, None)))
    log.record("d", holes(("B", DAY, "no connection")))
    assert log.read("d", DAY, DAY).sort("symbol").rows() == [("A", DAY, 2, 2), ("B", DAY, 3, 1)]


def test_datasets_and_sessions_are_kept_apart_and_both_ends_are_read(url):
    log = AttemptLog(url)
    other = [date(2025, 3, day) for day in (2, 4, 5)]
    log.record("d", holes(*((("A", day, None)) for day in (DAY, *other))))
    log.record("e", holes(("A", DAY, None)))
    assert log.read("d", DAY, date(2025, 3, 4))["session"].sort().to_list() == [DAY, date(2025, 3, 4)]
    assert len(log.read("e", date(2025, 1, 1), date(2025, 12, 31))) == 1


def test_nothing_to_remember_leaves_nothing_and_reads_with_its_schema(url):
    log = AttemptLog(url)
    log.record("d", holes())
    empty = log.read("d", DAY, DAY)
    assert empty.is_empty()
    assert empty.schema == ATTEMPTS_SCHEMA


def test_another_process_s_log_goes_on_counting(url):
    AttemptLog(url).record("d", holes(("A", DAY, None)))
    again = AttemptLog(url)
    again.record("d", holes(("A", DAY, None)))
    assert again.read("d", DAY, DAY)["attempts"].to_list() == [2]


def test_processes_that_start_and_count_at_once_lose_no_attempt(place):
    for attempt in range(3):
        apart = place / f"n{attempt}"
        together(count_attempts, [(apart, 15, DAY)] * 4)
        assert AttemptLog(apart.resources.state_url).read("sample_set", DAY, DAY).rows() == [("A", DAY, 60, 60)]
