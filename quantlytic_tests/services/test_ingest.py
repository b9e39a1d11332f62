"""Fetching and landing: exactly what is missing, from whom it can be had, nothing lost and nothing asked for twice."""

import os
import signal
from datetime import UTC, date, datetime

import obstore
import polars as pl
import pytest

from quantlytic_assets.calendars.sessions import expected_bars
from quantlytic_assets.storage.budgets import BudgetLog
from quantlytic_assets.storage.bus import bars_topic
from quantlytic_assets.universe.models import Instrument
from quantlytic_assets.vendors.ibkr import IbkrVendor
from quantlytic_assets.vendors.policy import RetryPolicy
from quantlytic_assets.vendors.protocol import Limit, Served, VendorError
from quantlytic_tests.frames import make_actions, make_bars, make_dataset, utc
from quantlytic_tests.small_vendors import (
    DAY,
    FIRST,
    LAST,
    SmallVendor,
    archived,
    attempts,
    files,
    make_ingest,
    materialize,
)
from quantlytic_tests.storage.processes import start


class ClosingVendor(SmallVendor):
    """Says after `calls` answers that it will not be asked any more today."""

    calls = 1

    def fetch(self, request):
        if len(self.asked) >= self.calls:
            self.asked.append((request.symbol, request.start, request.end))
            raise VendorError("your daily quota is used up", retryable=False, retry_after=3600, opens_circuit=True)
        return super().fetch(request)


class SplittingVendor(SmallVendor):
    """Tells with its bars of a split of that symbol."""

    def fetch(self, request):
        served = super().fetch(request)
        split = make_actions((request.symbol, DAY, "split", 4.0))
        return Served(served.bars, split)


class FaultyVendor(SmallVendor):
    """Breaks as only a programming mistake does."""

    def fetch(self, request):
        if request.symbol in self.broken:
            raise ZeroDivisionError
        return super().fetch(request)


def test_an_empty_archive_is_filled_with_one_request_a_symbol(tmp_path):
    dataset = make_dataset()
    vendor = SmallVendor(dataset)
    ingest = make_ingest(tmp_path, dataset, vendor)
    outcome = materialize(ingest)
    assert (outcome.requests, outcome.bars, outcome.errors) == (2, 2 * 780, [])
    assert [symbol for symbol, _, _ in vendor.asked] == ["AAPL", "MSFT"]
    assert outcome.landed.rows == 2 * 780
    assert len(outcome.landed.partitions) == 10
    assert attempts(ingest) == []


def test_with_nothing_missing_nobody_is_asked_and_no_file_changes(tmp_path):
    dataset = make_dataset()
    materialize(make_ingest(tmp_path, dataset, SmallVendor(dataset)))
    before = files(tmp_path / "archive", tmp_path / "bus")
    vendor = SmallVendor(dataset)
    outcome = materialize(make_ingest(tmp_path, dataset, vendor))
    assert vendor.asked == []
    assert (outcome.requests, outcome.bars, outcome.landed.rows) == (0, 0, 0)
    assert files(tmp_path / "archive", tmp_path / "bus") == before


def test_only_the_missing_ranges_are_asked_for(tmp_path):
    dataset = make_dataset(symbols=["A", "B"])
    ingest = make_ingest(tmp_path, dataset, SmallVendor(dataset))
    grid = expected_bars("XNYS", "5m", FIRST, LAST)
    lost = set(grid["open_time"][100:110]) | set(grid["open_time"][300:301])
    for symbol, without in (("A", lost), ("B", set())):
        ingest.lander.publish(make_bars(symbol, [time for time in grid["open_time"] if time not in without], "5m"))
    ingest.lander.land()
    outcome = materialize(ingest)
    assert ingest.vendors[0].asked == [
        ("A", grid["open_time"][100], grid["close_time"][109]),
        ("A", grid["open_time"][300], grid["close_time"][300]),
    ]
    assert outcome.bars == 11
    assert len(archived(ingest)) == 2 * 780


def test_an_archived_row_without_prices_is_asked_for_again(tmp_path):
    dataset = make_dataset(symbols=["A"])
    ingest = make_ingest(tmp_path, dataset, SmallVendor(dataset))
    grid = expected_bars("XNYS", "5m", FIRST, LAST)["open_time"]
    bars = make_bars("A", grid, "5m").with_columns(pl.when(pl.col("open_time") != grid[5]).then("close").alias("close"))
    ingest.lander.publish(bars)
    ingest.lander.land()
    assert materialize(ingest).bars == 1
    assert ingest.vendors[0].asked == [("A", grid[5], grid[6])]


def test_a_symbol_is_asked_for_only_within_its_dates(tmp_path):
    dataset = make_dataset(symbols=["ALL", Instrument("SOME", date(2025, 3, 5), date(2025, 3, 7))])
    vendor = SmallVendor(dataset)
    materialize(make_ingest(tmp_path, dataset, vendor))
    assert ("SOME", utc("2025-03-05T05:00"), utc("2025-03-08T05:00")) in vendor.asked


def test_wanted_symbols_are_the_only_ones_asked_for(tmp_path):
    dataset = make_dataset(symbols=["A", "B", "C"])
    ingest = make_ingest(tmp_path, dataset, SmallVendor(dataset))
    materialize(ingest, symbols=["B"])
    assert {symbol for symbol, _, _ in ingest.vendors[0].asked} == {"B"}
    materialize(ingest)
    assert [symbol for symbol, _, _ in ingest.vendors[0].asked] == ["B", "A", "C"]


def test_force_asks_for_everything_again(tmp_path):
    dataset = make_dataset(symbols=["A"])
    ingest = make_ingest(tmp_path, dataset, SmallVendor(dataset))
    materialize(ingest)
    outcome = materialize(ingest, force=True)
    assert (outcome.requests, outcome.bars) == (1, 780)
    assert len(archived(ingest)) == 2 * 780


def test_daily_bars_are_filled_by_month_and_then_complete(tmp_path):
    dataset = make_dataset(interval="1d", first=date(2025, 1, 2), last=date(2025, 3, 31), symbols=["A"])
    ingest = make_ingest(tmp_path, dataset, SmallVendor(dataset))
    outcome = materialize(ingest, date(2025, 1, 2), date(2025, 3, 31))
    assert sorted(outcome.landed.partitions) == ["2025-01-01", "2025-02-01", "2025-03-01"]
    assert materialize(ingest, date(2025, 2, 10), date(2025, 3, 20)).requests == 0


def test_without_vendors_nothing_is_asked_and_what_is_on_the_bus_lands(tmp_path):
    dataset = make_dataset(symbols=["A"], vendors=())
    ingest = make_ingest(tmp_path, dataset)
    ingest.lander.publish(make_bars("A", [utc("2025-03-06T14:30")], "5m"))
    outcome = materialize(ingest)
    assert (outcome.requests, outcome.landed.rows) == (0, 1)


def test_a_vendor_s_error_leaves_the_others_going_and_is_reported(tmp_path):
    dataset = make_dataset(symbols=["A", "B", "C"])
    ingest = make_ingest(tmp_path, dataset, SmallVendor(dataset, broken={"B"}))
    outcome = materialize(ingest)
    assert outcome.requests == 3
    assert outcome.errors == ["B 2025-03-03 to 2025-03-15: small: no B today"]
    assert set(archived(ingest)["symbol"]) == {"A", "C"}
    # Asked and failed: never the vendor's last word, however often.
    assert attempts(ingest) == [("B", day, 1, 0) for day in expected_bars("XNYS", "1d", FIRST, LAST)["session"]]
    ingest.vendors[0].broken.clear()
    assert materialize(ingest).bars == 780
    assert materialize(ingest).requests == 0


def test_a_second_vendor_takes_over_where_the_first_fails(tmp_path):
    dataset = make_dataset(symbols=["A", "B"])
    first, second = SmallVendor(dataset, "first", broken={"B"}), SmallVendor(dataset, "second")
    ingest = make_ingest(tmp_path, dataset, first, second)
    outcome = materialize(ingest)
    assert (outcome.requests, outcome.errors) == (3, [])
    assert second.asked == first.asked[1:]
    sources = archived(ingest).select("symbol", "vendor").unique().sort("symbol").rows()
    assert sources == [("A", "first"), ("B", "second")]


def test_when_all_vendors_fail_each_one_s_error_is_reported(tmp_path):
    dataset = make_dataset(symbols=["A"])
    ingest = make_ingest(tmp_path, dataset, *(SmallVendor(dataset, name, broken={"A"}) for name in ("first", "second")))
    outcome = materialize(ingest)
    assert outcome.requests == 2
    assert outcome.errors == ["A 2025-03-03 to 2025-03-15: first: no A today; second: no A today"]


def test_a_closed_vendor_is_asked_nothing_more_and_the_next_takes_over_at_once(tmp_path):
    dataset = make_dataset(symbols=["A", "B", "C"])
    first, second = ClosingVendor(dataset, "first"), SmallVendor(dataset, "second")
    ingest = make_ingest(tmp_path, dataset, first, second)
    assert materialize(ingest).errors == []
    assert [symbol for symbol, _, _ in first.asked] == ["A", "B"]
    assert [symbol for symbol, _, _ in second.asked] == ["B", "C"]
    # Another process, another day's range: closed is closed for all.
    later = make_ingest(tmp_path, dataset, SmallVendor(dataset, "first"), SmallVendor(dataset, "second"))
    materialize(later, force=True)
    assert later.vendors[0].asked == [] and len(later.vendors[1].asked) == 3
    alone = make_ingest(tmp_path, dataset, SmallVendor(dataset, "first"))
    outcome = materialize(alone, force=True)
    assert outcome.requests == 0 and len(outcome.errors) == 3
    assert "your daily quota is used up" in outcome.errors[0] and "free again in 60 min" in outcome.errors[0]


def test_a_vendor_that_fails_again_and_again_is_left_alone_for_a_while(tmp_path):
    dataset = make_dataset(symbols=["A", "B", "C", "D", "E"])
    first, second = SmallVendor(dataset, "first", hiccups=1000), SmallVendor(dataset, "second")
    ingest = make_ingest(tmp_path, dataset, first, second)
    ingest.policy = RetryPolicy(attempts=2, first_wait=0.001)
    assert materialize(ingest).errors == []
    assert {symbol for symbol, _, _ in first.asked} == {"A", "B", "C"}
    assert len(second.asked) == 5
    seconds, reason = ingest.budget.circuit("first")
    assert 290 < seconds <= 300 and "3 questions in a row failed" in reason


def test_a_used_up_limit_lets_the_next_vendor_take_over(tmp_path):
    dataset = make_dataset(symbols=["A", "B", "C"])
    first = SmallVendor(dataset, "first", limits=(Limit(86_400, 2),))
    ingest = make_ingest(tmp_path, dataset, first, SmallVendor(dataset, "second"))
    assert materialize(ingest).errors == []
    assert [symbol for symbol, _, _ in first.asked] == ["A", "B"]
    assert archived(ingest).select("symbol", "vendor").unique().sort("symbol").rows() == [
        ("A", "first"),
        ("B", "first"),
        ("C", "second"),
    ]


def test_where_nobody_else_can_be_asked_an_hour_s_limit_is_waited_for_as_the_plan_said(tmp_path):
    dataset = make_dataset(symbols=["A", "B", "C", "D", "E"])
    now, waits = [1_700_000_000.0], []

    def sleep(seconds):
        waits.append(seconds)
        now[0] += seconds

    first = SmallVendor(dataset, "first", limits=(Limit(600, 1),))
    second = SmallVendor(dataset, "second", limits=(Limit(600, 2),))
    ingest = make_ingest(tmp_path, dataset, first, second)
    ingest.sleep, ingest.budget = sleep, BudgetLog(f"sqlite:///{tmp_path / 'state.sqlite'}", lambda: now[0])
    need = ingest.need(FIRST, LAST)
    costs, _ = ingest.costs(need.ranges)
    assert costs[0].seconds == pytest.approx(2400 + 5 * 0.3), "were the first one alone"
    assert ingest.fill(need).errors == []
    # D waits for the second one, and E finds the first one free again.
    assert [symbol for symbol, _, _ in first.asked] == ["A", "E"]
    assert [symbol for symbol, _, _ in second.asked] == ["B", "C", "D"]
    assert [round(wait) for wait in waits] == [600]


def test_only_the_part_that_failed_goes_to_the_next_vendor(tmp_path):
    dataset = make_dataset("24/7", "1m", first=date(2025, 3, 3), last=date(2025, 3, 3), symbols=["A"])
    first = ClosingVendor(dataset, "first", page=600)
    second = SmallVendor(dataset, "second", page=1000)
    ingest = make_ingest(tmp_path, dataset, first, second)
    assert materialize(ingest, date(2025, 3, 3), date(2025, 3, 3)).errors == []
    assert first.asked[1][1:] == (utc("2025-03-03T10:00"), utc("2025-03-03T20:00"))
    # What the first one left is cut as the second one wants it.
    assert [part[1:] for part in second.asked] == [(utc("2025-03-03T10:00"), utc("2025-03-04T00:00"))]
    assert archived(ingest).group_by("vendor").len().sort("vendor").rows() == [("first", 600), ("second", 840)]


def test_a_vendor_that_does_not_serve_a_range_is_not_asked_for_it(tmp_path):
    dataset = make_dataset(symbols=["A"])
    first, second = SmallVendor(dataset, "first", since=date(2025, 4, 1)), SmallVendor(dataset, "second")
    outcome = materialize(make_ingest(tmp_path, dataset, first, second))
    assert (first.asked, len(second.asked), outcome.requests) == ([], 1, 1)


def test_the_parts_of_a_range_that_a_vendor_serves_are_asked_for(tmp_path):
    dataset = make_dataset("24/7", "1m", first=date(2025, 3, 1), last=date(2025, 3, 3), symbols=["A"])
    vendor = SmallVendor(dataset, page=1440, since=date(2025, 3, 2))
    outcome = materialize(make_ingest(tmp_path, dataset, vendor), date(2025, 3, 1), date(2025, 3, 3))
    assert outcome.bars == 2 * 1440
    assert outcome.errors == ["A 2025-03-01 to 2025-03-02: small: nothing before 2025-03-02"]


def test_what_it_costs_is_told_by_vendor_without_asking(tmp_path):
    dataset = make_dataset("24/7", "1m", first=date(2025, 3, 1), last=date(2025, 3, 3), symbols=["A", "B"])
    limits = (Limit(60, 3), Limit(86_400, 100))
    first = SmallVendor(dataset, "first", page=1000, limits=limits, since=date(2025, 3, 2))
    ingest = make_ingest(tmp_path, dataset, first, SmallVendor(dataset, "second", since=date(2025, 3, 2)))
    need = ingest.need(date(2025, 3, 2), date(2025, 3, 3))
    costs, rejected = ingest.costs(need.ranges)
    # Two days of 1,440 minutes are three pages a symbol; three places now, three more a minute later.
    assert [(cost.vendor, cost.requests, cost.weight) for cost in costs] == [("first", 6, 6)] and rejected == []
    assert costs[0].seconds == pytest.approx(60 + 6 * 0.3)
    costs, rejected = ingest.costs(ingest.need(date(2025, 3, 1), date(2025, 3, 3)).ranges)
    assert [(cost.vendor, cost.requests) for cost in costs] == [("first", 6)]
    assert rejected == [f"{one} 2025-03-01 to 2025-03-02: second: nothing before 2025-03-02" for one in "AB"]
    ingest.budget.open_circuit("first", 600, "banned")
    costs, _ = ingest.costs(need.ranges)
    assert [(cost.vendor, cost.requests) for cost in costs] == [("second", 2)]
    assert first.asked == []


def test_what_it_costs_knows_the_vendor_s_own_names(tmp_path):
    named = Instrument("VOD", names={"ibkr": "STK:VOD/GBP@LSE"})
    dataset = make_dataset("XLON", "1d", symbols=[named, "BP"], vendors=("ibkr",))
    ingest = make_ingest(tmp_path, dataset, IbkrVendor("127.0.0.1", 9, 17))
    costs, rejected = ingest.costs(ingest.need(FIRST, LAST).ranges)
    assert [(cost.vendor, cost.requests) for cost in costs] == [("ibkr", 1)]
    assert len(rejected) == 1 and rejected[0].startswith("BP ") and "has no contract of its own" in rejected[0]


def test_actions_that_come_with_bars_are_kept_once(tmp_path):
    dataset = make_dataset(symbols=["A", "B"])
    ingest = make_ingest(tmp_path, dataset, SplittingVendor(dataset))
    assert materialize(ingest).actions == 2
    assert materialize(ingest, force=True).actions == 0
    kept = ingest.actions.read(dataset.name).sort("symbol")
    assert kept.select("symbol", "session", "kind", "value").rows() == [(s, DAY, "split", 4.0) for s in "AB"]


def test_every_request_is_counted_repeated_ones_too(tmp_path):
    dataset = make_dataset(symbols=["A"])
    vendor = SmallVendor(dataset, hiccups=1)
    outcome = materialize(make_ingest(tmp_path, dataset, vendor))
    assert outcome.requests == len(vendor.asked) == 2
    assert outcome.errors == []


def test_an_unfinished_bar_never_reaches_the_bus(tmp_path):
    dataset = make_dataset(symbols=["A"])
    # This vendor's clock says that half of the bars have not ended when it serves them.
    behind = datetime.now(UTC) - utc("2025-03-07T17:00")
    ingest = make_ingest(tmp_path, dataset, SmallVendor(dataset, shift=behind))
    outcome = materialize(ingest)
    assert outcome.landed.rejected == 0
    assert 0 < outcome.bars < 780
    assert archived(ingest)["close_time"].max() <= utc("2025-03-07T17:00")
    assert ingest.lander.bus.watermarks(bars_topic(dataset.name)) == {0: (0, outcome.bars)}


def test_a_fault_loses_no_answer_that_was_already_there(tmp_path):
    dataset = make_dataset(symbols=["A", "B"])
    ingest = make_ingest(tmp_path, dataset, FaultyVendor(dataset, broken={"B"}))
    with pytest.raises(ZeroDivisionError):
        materialize(ingest)
    again = make_ingest(tmp_path, dataset, SmallVendor(dataset))
    materialize(again)
    assert {symbol for symbol, _, _ in again.vendors[0].asked} == {"B"}
    assert len(archived(again)) == 2 * 780


def fetch_and_die(home):
    """Fetch and publish, and die when the landing puts its first object, which is its claim."""
    dataset = make_dataset(symbols=["A", "B"])
    obstore.put = lambda *arguments, **options: os.kill(os.getpid(), signal.SIGKILL)
    materialize(make_ingest(home, dataset, SmallVendor(dataset, broken={"B"})))


def test_what_a_killed_run_had_published_is_landed_without_asking_again(tmp_path):
    process = start(fetch_and_die, tmp_path)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert files(tmp_path / "archive") == {}
    dataset = make_dataset(symbols=["A", "B"])
    ingest = make_ingest(tmp_path, dataset, SmallVendor(dataset))
    outcome = materialize(ingest)
    assert {symbol for symbol, _, _ in ingest.vendors[0].asked} == {"B"}
    assert (outcome.requests, outcome.bars, outcome.landed.rows) == (1, 780, 2 * 780)
    assert len(archived(ingest)) == 2 * 780
    assert {key: entry["rows"] for key, entry in outcome.landed.partitions.items()} == {
        day.isoformat(): 156 for day in expected_bars("XNYS", "1d", FIRST, LAST)["session"]
    }


class MurderousVendor(SmallVendor):
    """Ends the process when it is asked for a broken symbol, as a power cut would."""

    def fetch(self, request):
        if request.symbol in self.broken:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fetch(request)


def fetch_until_killed(home):
    """Fetch A and B, and be killed while C is asked for."""
    dataset = make_dataset(symbols=["A", "B", "C", "D"])
    materialize(make_ingest(home, dataset, MurderousVendor(dataset, broken={"C"})))


def test_a_run_killed_between_two_answers_has_to_ask_for_nothing_twice(tmp_path):
    process = start(fetch_until_killed, tmp_path)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    dataset = make_dataset(symbols=["A", "B", "C", "D"])
    ingest = make_ingest(tmp_path, dataset, SmallVendor(dataset))
    outcome = materialize(ingest)
    assert [symbol for symbol, _, _ in ingest.vendors[0].asked] == ["C", "D"]
    assert outcome.landed.rows == len(archived(ingest)) == 4 * 780


def test_progress_is_told_range_by_range(tmp_path):
    dataset = make_dataset(symbols=["A", "B", "C"])
    ingest = make_ingest(tmp_path, dataset, SmallVendor(dataset, broken={"B"}))
    told = []
    ingest.fill(ingest.need(FIRST, LAST), told.append)
    assert told == [1, 2, 3]
