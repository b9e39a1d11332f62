"""What is asked for again and what counts as a hole, with one vendor and with several."""

from datetime import UTC, datetime, time, timedelta

import polars as pl
import pytest

from quantlytic_assets.calendars.sessions import expected_bars
from quantlytic_assets.market_data.quality.coverage import coverage
from quantlytic_tests.frames import make_dataset, utc
from quantlytic_tests.small_vendors import DAY, SmallVendor, archived, attempts, files, make_ingest, materialize


def test_an_attempt_is_remembered_only_where_something_stayed_missing(tmp_path):
    dataset = make_dataset(symbols=["A", "B"])
    hole = utc("2025-03-06T15:00")
    ingest = make_ingest(tmp_path, dataset, SmallVendor(dataset, holes={("A", hole)}, tries=2))
    materialize(ingest)
    assert attempts(ingest) == [("A", DAY, 1, 1)]
    asked = ingest.vendors[0].asked
    materialize(ingest)
    assert asked[2:] == [("A", hole, hole + timedelta(minutes=5))]
    assert attempts(ingest) == [("A", DAY, 2, 2)]
    # Answered without it as often as the vendor's traits say: a hole, not asked for again until forced.
    before = files(tmp_path)
    assert materialize(ingest).requests == 0
    assert files(tmp_path / "archive", tmp_path / "bus") == {
        path: content for path, content in before.items() if "state" not in path
    }
    assert materialize(ingest, force=True).requests == 2


def test_what_one_vendor_has_not_got_the_next_one_is_asked_for(tmp_path):
    dataset = make_dataset(symbols=["A", "B"])
    hole, both = utc("2025-03-06T15:00"), utc("2025-03-07T15:00")
    first = SmallVendor(dataset, "first", holes={("A", hole), ("B", both)})
    second = SmallVendor(dataset, "second", holes={("B", both)})
    ingest = make_ingest(tmp_path, dataset, first, second)
    materialize(ingest)
    assert second.asked == []
    materialize(ingest)
    assert [(symbol, start) for symbol, start, _ in second.asked] == [("A", hole), ("B", both)]
    found = archived(ingest).filter(pl.col("symbol") == "A", pl.col("open_time") == hole)
    assert found["vendor"].to_list() == ["second"]
    # Both were asked for the other one, though one answer is the first vendor's last word.
    assert materialize(ingest).requests == 0
    assert attempts(ingest)[-1] == ("B", both.date(), 2, 2)


@pytest.mark.parametrize("tries", [1, 2, 3])
def test_a_vendor_that_is_added_is_asked_for_the_holes_of_those_before_it(tmp_path, tries):
    dataset = make_dataset(symbols=["A"])
    hole = utc("2025-03-06T15:00")
    vendors = []
    for name in ("first", "second", "third", "fourth"):
        for vendor in vendors:
            vendor.asked.clear()
        vendors.append(SmallVendor(dataset, name, holes={("A", hole)} if name != "fourth" else set(), tries=tries))
        ingest = make_ingest(tmp_path, dataset, *vendors)
        while materialize(ingest).requests:
            pass
        assert vendors[-1].asked[-1][1] == hole or name == "first"
        if name != "first":
            assert [len(vendor.asked) for vendor in vendors] == [*[0] * (len(vendors) - 1), 1]
    found = archived(ingest).filter(pl.col("open_time") == hole)
    assert found["vendor"].to_list() == ["fourth"]


def test_while_a_session_runs_no_answer_makes_a_hole_of_it(tmp_path):
    # Round the clock the running UTC day is such a session; two days before is long over, and its answer counts.
    today = datetime.now(UTC).date()
    dataset = make_dataset("24/7", "1m", first=today - timedelta(days=2), last=None, symbols=["A"])
    grid = expected_bars("24/7", "1m", today - timedelta(days=2), today)["open_time"]
    ingest = make_ingest(tmp_path, dataset, SmallVendor(dataset, holes={("A", time) for time in grid}, tries=1))
    for _ in range(2):
        materialize(ingest, today - timedelta(days=2), datetime.now(UTC).date())
    remembered = {session: answered for _, session, _, answered in attempts(ingest)}
    assert remembered[today - timedelta(days=2)] == 1
    assert remembered.get(datetime.now(UTC).date(), 0) == 0


def test_a_vendor_that_publishes_the_newest_session_late_has_no_hole_and_no_outage_there(tmp_path):
    now = datetime.now(UTC)
    first, last = (now - timedelta(days=5)).date(), (now - timedelta(days=1)).date()
    dataset = make_dataset("24/7", "1d", first=first, last=last, symbols=["A", "B"])
    grid = expected_bars("24/7", "1d", first, last)
    # Yesterday's bars are not there yet, and those of one day long before never will be.
    holes = {(symbol, datetime.combine(day, time(), UTC)) for symbol in "AB" for day in (first, last)}
    ingest = make_ingest(tmp_path, dataset, SmallVendor(dataset, holes=holes, tries=2))
    materialize(ingest, first, last)
    answered = {session: count for _, session, _, count in attempts(ingest)}
    assert answered == {first: 1, last: 0}
    known = ingest.attempts.read(dataset.name, first, last)
    bars = archived(ingest).select("symbol", "open_time")
    found = coverage(bars, dataset, grid, known, ingest.vendors[0].traits(dataset.name), now)
    causes = dict(found.filter(pl.col("missing_bars") > 0).select("session", "cause").iter_rows())
    assert causes == {first: "outage", last: "not_fetched"}
    ingest.vendors[0].holes = set()
    materialize(ingest, first, last)
    assert len(archived(ingest)) == 2 * len(grid)
