"""What the gap sensor asks for, turn by turn, and why it lets other holes be."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.automation.gap_plan import Asked, next_request
from quantlytic_assets.calendars.partitions import known_keys, with_partition
from quantlytic_assets.calendars.sessions import expected_bars
from quantlytic_assets.market_data.bars import COVERAGE_SCHEMA
from quantlytic_assets.market_data.quality.coverage import coverage
from quantlytic_assets.services.gaps import DECISIONS, decisions, wanted_pairs, with_not_served
from quantlytic_assets.storage.attempts import ATTEMPTS_SCHEMA
from quantlytic_assets.universe.models import Instrument, Outage
from quantlytic_tests.frames import make_dataset, utc

NOW = utc("2025-03-20T12:00")
DAY = date(2025, 3, 6)


@dataclass(frozen=True)
class Traits:
    omits_empty_bars: bool = False
    attempts_before_hole: int = 3


def asked(*rows):
    return pl.DataFrame(list(rows), schema=ATTEMPTS_SCHEMA, orient="row")


def covered(dataset, lost=(), attempts=None, traits=Traits(), now=NOW, sessions=None, symbols=None):
    """clean.coverage of a dataset that has all bars but those that `lost` (symbol, start, end) names."""
    grid = expected_bars(dataset.calendar, dataset.interval, dataset.first_session, dataset.last_session or now.date())
    bars = pl.DataFrame({"symbol": [one.symbol for one in dataset.symbols]}).join(grid, how="cross")
    for symbol, start, end in lost:
        gone = pl.col("open_time").is_between(start, end, closed="left")
        bars = bars.filter(~(gone & (pl.col("symbol") == symbol)))
    found = coverage(bars, dataset, grid, asked() if attempts is None else attempts, traits, now)
    if sessions is not None:
        found = found.filter(pl.col("session").is_in(sessions))
    return found if symbols is None else found.filter(pl.col("symbol").is_in(symbols))


def decide(dataset, table, attempts=None, traits=Traits(), now=NOW):
    attempts = asked() if attempts is None else attempts
    decided = decisions(dataset, wanted_pairs(dataset, now), table, attempts, traits, now)
    assert set(decided["decision"]) <= set(DECISIONS)
    assert decided["bars"].min() is None or decided["bars"].min() > 0
    return with_partition(decided, dataset)


def decision(decided, symbol, day):
    found = decided.filter(symbol=symbol, session=day)["decision"].to_list()
    return found[0] if found else None


def ask(dataset, decided, memory=Asked(), now=NOW, cost=lambda symbol, first, last: 1, **options):
    request, memory = next_request(memory, decided, known_keys(dataset, now), now.timestamp(), cost, **options)
    # Every turn's memory goes through the cursor.
    return request, Asked.from_json(memory.to_json())


def test_a_complete_dataset_asks_for_nothing():
    dataset = make_dataset()
    decided = decide(dataset, covered(dataset))
    assert decided.is_empty()
    request, memory = ask(dataset, decided)
    assert request is None and memory.holes.is_empty()


def test_what_nobody_has_looked_at_is_asked_for_as_one_range():
    dataset = make_dataset()
    decided = decide(dataset, pl.DataFrame(schema=COVERAGE_SCHEMA))
    assert set(decided["decision"]) == {"ask"} and decided["bars"].sum() == 2 * 780
    request, _ = ask(dataset, decided)
    assert (request.first, request.last, request.symbols) == ("2025-03-03", "2025-03-14", ("AAPL", "MSFT"))
    assert (request.pairs, request.weight) == (20, 2)


def test_a_new_symbol_back_fills_just_itself():
    old = make_dataset()
    dataset = make_dataset(symbols=("AAPL", "MSFT", Instrument("SPY", date(2025, 3, 10))))
    request, _ = ask(dataset, decide(dataset, covered(old)))
    assert (request.first, request.last, request.symbols) == ("2025-03-10", "2025-03-14", ("SPY",))
    assert request.pairs == 5


def test_what_no_vendor_has_any_more_is_not_asked_for():
    dataset = make_dataset()
    looked_at = []

    def served(symbol, day):
        looked_at.append((symbol, day))
        return symbol == "AAPL" and day >= date(2025, 3, 10)

    lost = [("MSFT", utc("2025-03-14T15:00"), utc("2025-03-14T15:10"))]
    table = covered(dataset, lost).filter(pl.col("session") > DAY)
    decided = with_not_served(decide(dataset, table), served)
    assert decided.filter(decision="ask").is_empty() and set(decided["decision"]) == {"not_served"}
    decided = with_not_served(decide(dataset, pl.DataFrame(schema=COVERAGE_SCHEMA)), served)
    request, _ = ask(dataset, decided)
    assert (request.first, request.last, request.symbols) == ("2025-03-10", "2025-03-14", ("AAPL",))
    assert len(looked_at) < 20, "not every session is looked at"
    complete = covered(dataset)
    assert with_not_served(decide(dataset, complete), served).is_empty()


def test_moving_the_first_session_or_a_from_back_fills_just_that():
    old = make_dataset(first=date(2025, 3, 10), symbols=("AAPL", Instrument("MSFT", date(2025, 3, 12))))
    dataset = make_dataset(symbols=("AAPL", Instrument("MSFT", date(2025, 3, 12))))
    request, _ = ask(dataset, decide(dataset, covered(old)))
    assert (request.first, request.last, request.symbols) == ("2025-03-03", "2025-03-07", ("AAPL",))
    dataset = make_dataset(first=date(2025, 3, 10), symbols=("AAPL", "MSFT"))
    request, _ = ask(dataset, decide(dataset, covered(old)))
    assert (request.first, request.last, request.symbols) == ("2025-03-10", "2025-03-11", ("MSFT",))


def test_oldest_first_and_only_neighbours_together():
    dataset = make_dataset()
    lost = [("AAPL", utc(f"2025-03-{day}T15:00"), utc(f"2025-03-{day}T15:10")) for day in ("04", "05", "11")]
    request, memory = ask(dataset, decide(dataset, covered(dataset, lost)))
    assert (request.first, request.last, request.symbols) == ("2025-03-04", "2025-03-05", ("AAPL",))
    request, memory = ask(dataset, decide(dataset, covered(dataset, lost)), memory)
    assert (request.first, request.last) == ("2025-03-11", "2025-03-11")
    assert ask(dataset, decide(dataset, covered(dataset, lost)), memory)[0] is None


def test_a_hole_that_stays_one_is_asked_for_again_after_growing_waits_and_forgotten_when_mended():
    dataset = make_dataset()
    lost = [("AAPL", utc("2025-03-06T15:00"), utc("2025-03-06T15:10"))]
    decided = decide(dataset, covered(dataset, lost))
    request, memory = ask(dataset, decided)
    now = NOW
    for minutes in (15, 60, 240, 960, 1440, 1440):
        assert ask(dataset, decided, memory, now + timedelta(minutes=minutes, seconds=-1))[0] is None
        now += timedelta(minutes=minutes)
        request, memory = ask(dataset, decided, memory, now)
        assert request is not None and request.symbols == ("AAPL",)
    assert ask(dataset, decide(dataset, covered(dataset)), memory, now)[1].holes.is_empty()
    # Another symbol's hole in the same session does not wait for it, nor does a later session's.
    both = [*lost, ("MSFT", utc("2025-03-06T15:00"), utc("2025-03-06T15:10"))]
    request, memory = ask(dataset, decide(dataset, covered(dataset, both)), memory, now)
    assert request.symbols == ("MSFT",)
    later = [*both, ("AAPL", utc("2025-03-07T15:00"), utc("2025-03-07T15:10"))]
    request, memory = ask(dataset, decide(dataset, covered(dataset, later)), memory, now)
    assert (request.first, request.symbols) == ("2025-03-07", ("AAPL",))


def test_a_later_session_of_the_same_month_does_not_wait_for_an_earlier_one():
    dataset = make_dataset(interval="1d", last=None)
    table = covered(dataset)
    hole = (pl.col("session") == DAY) & (pl.col("symbol") == "AAPL")
    request, memory = ask(dataset, decide(dataset, table.filter(~hole)))
    assert (request.first, request.pairs) == ("2025-03-01", 1)
    assert ask(dataset, decide(dataset, table.filter(~hole)), memory)[0] is None
    evening = utc("2025-03-20T20:30")
    request, memory = ask(dataset, decide(dataset, table.filter(~hole), now=evening), memory, evening)
    assert request.pairs == 3 and request.symbols == ("AAPL", "MSFT")


def test_a_vendor_s_hole_is_never_asked_for_again():
    dataset = make_dataset()
    lost = [("AAPL", utc("2025-03-06T15:00"), utc("2025-03-06T15:10"))]
    for answered, wanted in ((0, "ask"), (2, "ask"), (3, "vendor_hole")):
        log = asked(("AAPL", DAY, 3, answered))
        decided = decide(dataset, covered(dataset, lost, log), log)
        assert decision(decided, "AAPL", DAY) == wanted
    assert ask(dataset, decided)[0] is None
    # Coverage that was made before the last attempt says otherwise, and is not believed.
    assert decision(decide(dataset, covered(dataset, lost), log), "AAPL", DAY) == "vendor_hole"


def test_an_outage_is_asked_about_once_and_a_known_one_never():
    dataset = make_dataset()
    hole = (utc("2025-03-06T15:00"), utc("2025-03-06T16:00"))
    lost = [("AAPL", *hole), ("MSFT", *hole)]
    table = covered(dataset, lost)
    assert set(table.filter(session=DAY)["cause"]) == {"outage"}
    # Nobody has asked: our own feed may have been away.
    decided = decide(dataset, table)
    assert decided["decision"].to_list() == ["ask", "ask"]
    assert ask(dataset, decided)[0].symbols == ("AAPL", "MSFT")
    log = asked(("AAPL", DAY, 1, 1), ("MSFT", DAY, 1, 0))
    decided = decide(dataset, covered(dataset, lost, log), log)
    assert (decision(decided, "AAPL", DAY), decision(decided, "MSFT", DAY)) == ("outage", "ask")
    known = make_dataset(outages=(Outage("sample_set", *hole),))
    for made_with in (dataset, known):
        decided = decide(known, covered(made_with, lost))
        assert set(decided["decision"]) == {"known_outage"} and ask(known, decided)[0] is None
    longer = [("AAPL", hole[0], hole[1] + timedelta(minutes=10)), ("MSFT", *hole)]
    assert decision(decide(known, covered(known, longer)), "AAPL", DAY) == "ask"


def test_silence_of_a_vendor_that_omits_empty_bars_is_asked_about_only_when_it_is_long():
    dataset = make_dataset("24/7", "1m", first=DAY, last=DAY, symbols=("A", "B"))
    thin = Traits(omits_empty_bars=True)
    start = utc("2025-03-06T05:00")
    once = asked(("A", DAY, 1, 1))
    for minutes, log, wanted in ((59, asked(), "no_trade"), (60, asked(), "ask"), (90, once, "no_trade")):
        table = covered(dataset, [("A", start, start + timedelta(minutes=minutes))], log, thin)
        assert table["cause"].to_list() == ["no_trade", None]
        assert decision(decide(dataset, table, log, thin), "A", DAY) == wanted


def test_a_session_is_asked_for_when_it_is_over_and_not_before():
    dataset = make_dataset(first=date(2025, 3, 19), last=None, delay=timedelta(minutes=10))
    running = utc("2025-03-20T15:00")
    table = covered(dataset, now=running)
    assert decision(decide(dataset, table, now=running), "AAPL", date(2025, 3, 20)) is None
    # What coverage saw of it while it ran says nothing about its end.
    for time, wanted in (("2025-03-20T20:09", None), ("2025-03-20T20:10", "ask")):
        assert decision(decide(dataset, table, now=utc(time)), "AAPL", date(2025, 3, 20)) == wanted
    hole = covered(dataset, [("AAPL", utc("2025-03-20T14:00"), utc("2025-03-20T14:05"))], now=running)
    decided = decide(dataset, hole, now=running)
    assert decided.select("symbol", "decision").rows() == [("AAPL", "running")]


def test_sessions_older_than_the_dataset_keeps_are_no_gaps():
    dataset = make_dataset(last=None, keep=timedelta(days=10))
    decided = decide(dataset, pl.DataFrame(schema=COVERAGE_SCHEMA))
    assert decided.filter(decision="expired")["session"].max() == date(2025, 3, 7)
    assert ask(dataset, decided)[0].first == "2025-03-10"
    # Everything stays of a month that has begun to expire.
    monthly = make_dataset(interval="1d", first=date(2025, 1, 2), last=None, keep=timedelta(days=30))
    decided = decide(monthly, pl.DataFrame(schema=COVERAGE_SCHEMA))
    assert decided.filter(decision="ask")["session"].min() == date(2025, 2, 3)


def test_without_a_vendor_nothing_is_asked():
    dataset = make_dataset(vendors=())
    lost = [("AAPL", utc("2025-03-06T15:00"), utc("2025-03-06T15:10"))]
    decided = decide(dataset, covered(dataset, lost, traits=None), traits=None)
    assert decided["decision"].to_list() == ["no_vendor"]
    assert ask(dataset, decided)[0] is None


def test_the_budget_bounds_a_request():
    dataset = make_dataset(symbols=("A", "B", "C"))
    decided = decide(dataset, pl.DataFrame(schema=COVERAGE_SCHEMA))

    def by_session(symbol, first, last):
        return (last - first).days + 1

    request, memory = ask(dataset, decided, cost=by_session, allowance=6)
    assert (request.first, request.last, request.symbols) == ("2025-03-03", "2025-03-04", ("A", "B", "C"))
    assert request.weight == 6
    request, memory = ask(dataset, decided, memory, cost=by_session, allowance=2)
    assert (request.first, request.last, request.symbols, request.weight) == ("2025-03-05", "2025-03-05", ("A", "B"), 2)
    request, memory = ask(dataset, decided, memory, cost=by_session, allowance=9)
    # What waits in the first partition is not asked for along with the rest of the range.
    assert (request.first, request.last, request.symbols) == ("2025-03-05", "2025-03-05", ("C",))
    # A budget that has room for less than the least is used up by it: what comes is archived.
    request, memory = ask(dataset, decided, memory, cost=lambda *_: 50, allowance=6)
    assert (request.first, request.last, request.symbols) == ("2025-03-06", "2025-03-06", ("A",))
    assert ask(dataset, decided, most_partitions=2)[0].last == "2025-03-04"


def test_a_range_keeps_clear_of_what_is_not_to_be_asked_for():
    dataset = make_dataset(symbols=("A", "B"))
    hole = (utc("2025-03-05T15:00"), utc("2025-03-05T16:00"))
    log = asked(("A", date(2025, 3, 5), 1, 1), ("B", date(2025, 3, 5), 1, 1))
    lost = [("A", utc(f"2025-03-0{day}T17:00"), utc(f"2025-03-0{day}T18:00")) for day in (3, 4, 6)]
    lost += [("A", *hole), ("B", *hole), ("B", utc("2025-03-04T17:00"), utc("2025-03-04T17:05"))]
    decided = decide(dataset, covered(dataset, lost, log), log)
    request, memory = ask(dataset, decided)
    assert (request.first, request.last, request.symbols, request.pairs) == ("2025-03-03", "2025-03-04", ("A", "B"), 3)
    request, memory = ask(dataset, decided, memory)
    assert (request.first, request.last, request.symbols) == ("2025-03-06", "2025-03-06", ("A",))


def test_ten_years_of_fifty_symbols_are_planned_at_once_and_remembered_shortly():
    symbols = [f"S{i}" for i in range(50)]
    dataset = make_dataset(interval="1d", first=date(2015, 1, 2), last=date(2024, 12, 31), symbols=symbols)
    decided = decide(dataset, pl.DataFrame(schema=COVERAGE_SCHEMA))
    request, memory = ask(dataset, decided)
    assert (request.first, request.last, request.weight) == ("2015-01-01", "2024-12-01", 50)
    assert request.pairs == 2516 * 50 and len(memory.to_json()) < 60_000
    assert ask(dataset, decided, memory)[0] is None


@pytest.mark.parametrize("cursor", [None, "", "[]"])
def test_an_empty_cursor_is_nothing_asked_yet(cursor):
    assert Asked.from_json(cursor).holes.is_empty()


def test_wanted_pairs_count_the_bars_of_half_days_and_lunch_breaks():
    halves = make_dataset(first=date(2025, 7, 2), last=date(2025, 7, 7), symbols=("A",))
    assert wanted_pairs(halves, datetime(2026, 1, 1, tzinfo=UTC))["bars"].to_list() == [78, 42, 78]
    lunch = make_dataset("XHKG", "1h", first=date(2025, 7, 3), last=date(2025, 7, 3), symbols=("A",))
    grid = expected_bars("XHKG", "1h", date(2025, 7, 3), date(2025, 7, 3))
    assert abs(wanted_pairs(lunch, datetime(2026, 1, 1, tzinfo=UTC))["bars"].item() - len(grid)) <= 1
