"""Holes and their causes, each worked out by hand on a small grid."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.calendars.sessions import expected_bars
from quantlytic_assets.market_data.bars import COVERAGE_SCHEMA
from quantlytic_assets.market_data.quality.coverage import coverage
from quantlytic_assets.schemas.vocabulary import CAUSES
from quantlytic_assets.universe.models import Dataset, Instrument, Outage

LATER = datetime(2030, 1, 1, tzinfo=UTC)
DAY = date(2021, 4, 25)


@dataclass(frozen=True)
class Traits:
    omits_empty_bars: bool = False
    attempts_before_hole: int = 3


def dataset(names: str = "BTC ETH ADA XRP", **changes) -> Dataset:
    given = {
        "name": "crypto_1m",
        "calendar": "24/7",
        "interval": "1m",
        "partition": "session",
        "first_session": date(2020, 1, 1),
        "last_session": None,
        "vendors": ("binance",),
        "venue": "binance",
        "out_of_session": "drop",
        "delay": timedelta(0),
        "feature_intervals": (),
        "symbols": tuple(Instrument(name) for name in names.split()),
    }
    return Dataset(**(given | changes))


def at(hour: int, minute: int = 0, day: date = DAY) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(hours=hour, minutes=minute)


def grid_of(of: Dataset, first: date = DAY, last: date | None = None) -> pl.DataFrame:
    return expected_bars(of.calendar, of.interval, first, last or first)


def full(of: Dataset, grid: pl.DataFrame) -> pl.DataFrame:
    symbols = pl.DataFrame({"symbol": [one.symbol for one in of.symbols]})
    return symbols.join(grid.select("session", "open_time"), how="cross")


def without(bars: pl.DataFrame, start: datetime, end: datetime, *symbols: str) -> pl.DataFrame:
    """Bars less those that open in [start, end), of the symbols named or of all."""
    gone = pl.col("open_time").is_between(start, end, closed="left")
    return bars.filter(~(gone & pl.col("symbol").is_in(symbols)) if symbols else ~gone)


def asked(*rows: tuple[str, date, int, int]) -> pl.DataFrame:
    schema = {"symbol": pl.String, "session": pl.Date, "attempts": pl.Int64, "answered": pl.Int64}
    return pl.DataFrame(list(rows), schema=schema, orient="row")


def cover(bars, of, grid, attempts=None, traits=Traits(), now=LATER) -> pl.DataFrame:
    shuffled = bars.sample(fraction=1.0, shuffle=True, seed=1)
    found = coverage(shuffled, of, grid, asked() if attempts is None else attempts, traits, now)
    assert found.schema == COVERAGE_SCHEMA
    holes = found.select(pl.col("missing_ranges").explode()).drop_nulls().unnest("missing_ranges")
    assert (holes["start"] < holes["end"]).all()
    assert (found["cause"].is_null() == (found["missing_bars"] == 0)).all()
    return found


def ranges(found: pl.DataFrame, symbol: str) -> list[tuple[datetime, datetime, str]]:
    own = found.filter(pl.col("symbol") == symbol).sort("session")["missing_ranges"].to_list()
    return [(hole["start"], hole["end"], hole["cause"]) for holes in own for hole in holes]


def test_a_complete_session_has_no_cause_and_no_ranges():
    of = dataset()
    found = cover(full(of, grid_of(of)), of, grid_of(of))
    assert found["symbol"].to_list() == ["ADA", "BTC", "ETH", "XRP"]
    counts = found.select("expected_bars", "present_bars", "missing_bars", "attempts")
    assert counts.unique().rows() == [(1440, 1440, 0, 0)]
    assert found["cause"].to_list() == [None] * 4
    assert found["missing_ranges"].to_list() == [[]] * 4
    assert set(found["checked_at"]) == {LATER}


def test_holes_are_exact_half_open_ranges_of_what_nobody_fetched():
    of = dataset("BTC ETH")
    grid = grid_of(of)
    bars = without(without(full(of, grid), at(0), at(0, 2), "BTC"), at(12, 30), at(12, 31), "BTC")
    found = cover(bars, of, grid)
    assert ranges(found, "BTC") == [(at(0), at(0, 2), "not_fetched"), (at(12, 30), at(12, 31), "not_fetched")]
    assert found.filter(symbol="BTC").select("expected_bars", "present_bars", "missing_bars").row(0) == (1440, 1437, 3)
    assert found.filter(symbol="ETH")["missing_bars"].item() == 0


def test_a_session_without_any_bar_is_one_range():
    of = dataset("BTC ETH")
    grid = grid_of(of, DAY, DAY + timedelta(1))
    found = cover(full(of, grid).filter(pl.col("session") == DAY), of, grid)
    empty = found.filter(session=DAY + timedelta(1))
    assert empty["missing_bars"].to_list() == [1440, 1440]
    assert ranges(found, "BTC") == [(at(24), at(48), "not_fetched")]


def test_a_half_day_expects_its_own_bars_and_no_range_spans_a_night():
    of = dataset("AAPL", calendar="XNYS", interval="5m", vendors=("yahoo",))
    grid = grid_of(of, date(2025, 7, 2), date(2025, 7, 7))
    evening, morning = datetime(2025, 7, 2, 19, 50, tzinfo=UTC), datetime(2025, 7, 3, 13, 40, tzinfo=UTC)
    found = cover(without(full(of, grid), evening, morning), of, grid)
    assert found.select("session", "expected_bars", "missing_bars").rows() == [
        (date(2025, 7, 2), 78, 2),
        (date(2025, 7, 3), 42, 2),
        (date(2025, 7, 7), 78, 0),
    ]
    assert ranges(found, "AAPL") == [
        (evening, datetime(2025, 7, 2, 20, 0, tzinfo=UTC), "not_fetched"),
        (datetime(2025, 7, 3, 13, 30, tzinfo=UTC), morning, "not_fetched"),
    ]


def test_daylight_saving_moves_the_session_and_loses_no_bar():
    of = dataset("AAPL", calendar="XNYS", interval="5m")
    grid = grid_of(of, date(2025, 3, 7), date(2025, 3, 10))
    found = cover(full(of, grid).clear(), of, grid)
    assert found["expected_bars"].to_list() == [78, 78]
    assert [start for start, _, _ in ranges(found, "AAPL")] == [
        datetime(2025, 3, 7, 14, 30, tzinfo=UTC),
        datetime(2025, 3, 10, 13, 30, tzinfo=UTC),
    ]


def test_no_range_spans_a_lunch_break():
    of = dataset("0700", calendar="XHKG", interval="1h")
    grid = grid_of(of, date(2025, 7, 3))
    first, last = datetime(2025, 7, 3, 3, 30, tzinfo=UTC), datetime(2025, 7, 3, 6, 0, tzinfo=UTC)
    found = cover(without(full(of, grid), first, last), of, grid)
    assert [(start.hour, start.minute, end.hour) for start, end, _ in ranges(found, "0700")] == [(3, 30, 4), (5, 0, 6)]


def test_bars_beside_the_grid_do_not_count():
    of = dataset("AAPL", calendar="XNYS", interval="5m", out_of_session="keep")
    grid = grid_of(of, date(2025, 7, 3))
    bars = full(of, grid)
    early = bars.head(1).with_columns(pl.col("open_time") - timedelta(minutes=5))
    found = cover(pl.concat([bars.head(41), early]), of, grid)
    assert found.select("present_bars", "missing_bars").row(0) == (41, 1)


def test_a_running_session_counts_as_far_as_it_has_gone():
    of = dataset("BTC", delay=timedelta(seconds=30))
    grid = grid_of(of, DAY, DAY + timedelta(1))
    now = at(10, 2) + timedelta(seconds=29)
    found = cover(full(of, grid).filter(pl.col("open_time") < at(9, 59)), of, grid, now=now)
    assert found.select("expected_bars", "missing_bars").rows() == [(601, 2), (0, 0)]
    assert ranges(found, "BTC") == [(at(9, 59), at(10, 1), "not_fetched")]
    assert cover(full(of, grid), of, grid, now=now)["present_bars"].to_list() == [601, 0]


def test_a_symbol_has_rows_only_for_its_sessions_in_the_universe():
    of = dataset(
        first_session=DAY,
        last_session=DAY + timedelta(3),
        symbols=(Instrument("BTC"), Instrument("SOL", DAY + timedelta(1), DAY + timedelta(2))),
    )
    grid = grid_of(of, DAY - timedelta(1), DAY + timedelta(4))
    found = cover(full(of, grid), of, grid)
    offsets = {symbol: [(day - DAY).days for day in own["session"]] for (symbol,), own in found.group_by("symbol")}
    assert offsets == {"BTC": [0, 1, 2, 3], "SOL": [1, 2]}


def venue_outage(of: Dataset, grid: pl.DataFrame, **lone: datetime) -> pl.DataFrame:
    """All bars less 04:00 … 08:45, but for the single bars named by symbol."""
    bars = full(of, grid)
    kept = pl.concat([bars.filter(symbol=symbol, open_time=time) for symbol, time in lone.items()] or [bars.clear()])
    return pl.concat([without(bars, at(4), at(8, 45)), kept])


def test_a_hole_of_the_whole_venue_is_an_outage_and_a_lone_bar_in_it_does_not_change_that():
    of = dataset()
    grid = grid_of(of)
    found = cover(venue_outage(of, grid, XRP=at(4, 1)), of, grid)
    for symbol in ("BTC", "ETH", "ADA"):
        assert ranges(found, symbol) == [(at(4), at(8, 45), "outage")]
    assert ranges(found, "XRP") == [(at(4), at(4, 1), "outage"), (at(4, 2), at(8, 45), "outage")]
    assert found["missing_bars"].to_list() == [285, 285, 285, 284]
    assert found["cause"].to_list() == ["outage"] * 4


@pytest.mark.parametrize("symbols", ["BTC XRP", "BTC ETH XRP"])
def test_a_lone_bar_does_not_split_the_outage_where_it_is_more_than_a_quarter_of_the_venue(symbols):
    of = dataset(symbols)
    grid = grid_of(of)
    found = cover(venue_outage(of, grid, XRP=at(4, 1)), of, grid)
    assert ranges(found, "BTC") == [(at(4), at(8, 45), "outage")]
    assert ranges(found, "XRP") == [(at(4), at(4, 1), "outage"), (at(4, 2), at(8, 45), "outage")]
    both = cover(venue_outage(of, grid, XRP=at(4, 1), BTC=at(4, 2)), of, grid)
    assert ranges(both, "XRP") == [(at(4), at(4, 1), "outage"), (at(4, 2), at(8, 45), "outage")]
    assert ranges(both, "BTC") == [(at(4), at(4, 2), "outage"), (at(4, 3), at(8, 45), "outage")]


@pytest.mark.parametrize("symbols", ["BTC XRP", "BTC ETH XRP", "BTC ETH ADA XRP"])
def test_a_symbol_that_stops_or_starts_a_bar_from_the_others_leaves_their_outage_whole(symbols):
    of = dataset(symbols)
    grid = grid_of(of)
    later = cover(venue_outage(of, grid, XRP=at(4)), of, grid)
    assert ranges(later, "BTC") == [(at(4), at(8, 45), "outage")]
    assert ranges(later, "XRP") == [(at(4, 1), at(8, 45), "outage")]
    sooner = cover(venue_outage(of, grid, XRP=at(8, 44)), of, grid)
    assert ranges(sooner, "BTC") == [(at(4), at(8, 45), "outage")]
    assert ranges(sooner, "XRP") == [(at(4), at(8, 44), "outage")]


def test_a_symbol_that_trades_on_for_longer_is_evidence_against_an_outage():
    of = dataset("BTC ETH XRP")
    grid = grid_of(of)
    bars = without(full(of, grid), at(4), at(8, 45), "BTC", "ETH")
    found = cover(without(bars, at(4, 30), at(8, 45), "XRP"), of, grid)
    assert ranges(found, "BTC") == [(at(4), at(4, 30), "not_fetched"), (at(4, 30), at(8, 45), "outage")]


def test_a_symbol_that_goes_on_trading_divides_two_outages_of_the_others():
    of = dataset("BTC ETH XRP")
    grid = grid_of(of)
    bars = full(of, grid)
    traded = bars.filter(pl.col("symbol") == "XRP", pl.col("open_time").is_between(at(6), at(6, 2), closed="left"))
    found = cover(pl.concat([without(bars, at(4), at(8, 45)), traded]), of, grid)
    assert ranges(found, "BTC") == [
        (at(4), at(6), "outage"),
        (at(6), at(6, 2), "not_fetched"),
        (at(6, 2), at(8, 45), "outage"),
    ]


def test_three_quarters_and_two_symbols_make_a_venue():
    of = dataset()
    grid = grid_of(of)
    three = cover(without(full(of, grid), at(4), at(5), "BTC", "ETH", "ADA"), of, grid)
    assert three["cause"].to_list() == ["outage", "outage", "outage", None]
    two = cover(without(full(of, grid), at(4), at(5), "BTC", "ETH"), of, grid)
    assert two["cause"].to_list() == [None, "not_fetched", "not_fetched", None]
    alone = dataset("BTC")
    assert cover(without(full(alone, grid), at(4), at(5)), alone, grid)["cause"].to_list() == ["not_fetched"]


def test_a_symbols_own_hole_beside_an_outage_is_a_range_of_its_own():
    of = dataset()
    grid = grid_of(of)
    bars = without(without(full(of, grid), at(4), at(5)), at(3, 30), at(4), "ADA")
    found = cover(bars, of, grid)
    assert ranges(found, "ADA") == [(at(3, 30), at(4), "not_fetched"), (at(4), at(5), "outage")]
    assert found["cause"].to_list() == ["outage"] * 4
    assert ranges(found, "BTC") == [(at(4), at(5), "outage")]


def test_symbols_out_of_the_universe_do_not_count_for_the_venue():
    gone = tuple(Instrument(name, None, DAY - timedelta(1)) for name in ("A", "B", "C", "D"))
    of = dataset(symbols=(Instrument("BTC"), Instrument("ETH"), *gone))
    grid = grid_of(of)
    bars = without(full(of, grid).filter(pl.col("symbol").is_in(["BTC", "ETH"])), at(4), at(5))
    assert cover(bars, of, grid)["cause"].to_list() == ["outage", "outage"]


@pytest.mark.parametrize(("start", "end"), [(at(17), at(24)), (at(0), at(3)), (at(0), at(24))])
def test_files_that_are_all_cut_were_not_fetched_until_a_vendor_says_there_is_no_more(start, end):
    of = dataset()
    grid = grid_of(of)
    cut = without(full(of, grid), start, end)
    assert ranges(cover(cut, of, grid), "BTC") == [(start, end, "not_fetched")]
    failed = asked(*((symbol, DAY, 2, 0) for symbol in ("BTC", "ETH", "ADA", "XRP")))
    assert ranges(cover(cut, of, grid, failed), "BTC") == [(start, end, "not_fetched")]
    answered = asked(*((symbol, DAY, 2, 1) for symbol in ("BTC", "ETH", "ADA", "XRP")))
    assert ranges(cover(cut, of, grid, answered), "BTC") == [(start, end, "outage")]
    one = asked(("BTC", DAY, 1, 1))
    assert ranges(cover(cut, of, grid, one), "BTC") == [(start, end, "not_fetched")]


def test_a_vendor_hole_needs_the_configured_number_of_answers():
    of = dataset("BTC ETH")
    grid = grid_of(of)
    bars = without(full(of, grid), at(20), at(24), "BTC")
    for attempts, answered, cause in ((5, 2, "not_fetched"), (3, 3, "vendor_hole"), (7, 3, "vendor_hole")):
        found = cover(bars, of, grid, asked(("BTC", DAY, attempts, answered)))
        assert ranges(found, "BTC") == [(at(20), at(24), cause)]
        assert found.filter(symbol="BTC")["attempts"].item() == attempts
        assert found.filter(symbol="ETH")["attempts"].item() == 0


def test_attempts_at_one_session_say_nothing_about_another():
    of = dataset("BTC")
    grid = grid_of(of, DAY, DAY + timedelta(1))
    bars = without(full(of, grid), at(20), at(30))
    found = cover(bars, of, grid, asked(("BTC", DAY, 3, 3)))
    assert ranges(found, "BTC") == [(at(20), at(24), "vendor_hole"), (at(24), at(30), "not_fetched")]


def test_minutes_without_a_trade_are_told_from_an_end_that_is_missing():
    of = dataset("BTC ETH")
    grid = grid_of(of)
    bars = without(without(full(of, grid), at(5), at(5, 7), "BTC"), at(23), at(24), "BTC")
    found = cover(bars, of, grid, traits=Traits(omits_empty_bars=True))
    assert ranges(found, "BTC") == [(at(5), at(5, 7), "no_trade"), (at(23), at(24), "not_fetched")]
    assert found["cause"].to_list() == ["not_fetched", None]
    assert ranges(cover(bars, of, grid), "BTC")[0][2] == "not_fetched"


def test_thin_symbols_that_miss_the_same_few_minutes_did_not_trade():
    of = dataset()
    grid = grid_of(of)
    thin = Traits(omits_empty_bars=True)
    few = cover(without(full(of, grid), at(5), at(5, 4)), of, grid, traits=thin)
    assert ranges(few, "BTC") == [(at(5), at(5, 4), "no_trade")]
    many = cover(without(full(of, grid), at(5), at(5, 5)), of, grid, traits=thin)
    assert ranges(many, "BTC") == [(at(5), at(5, 5), "outage")]
    assert ranges(cover(without(full(of, grid), at(5), at(5, 1)), of, grid), "BTC") == [(at(5), at(5, 1), "outage")]


def test_imported_data_without_a_vendor_have_unknown_holes_but_know_an_outage():
    of = dataset(vendors=())
    grid = grid_of(of)
    bars = without(without(full(of, grid), at(4), at(5)), at(20), at(24), "BTC")
    found = cover(bars, of, grid, traits=None)
    assert ranges(found, "BTC") == [(at(4), at(5), "outage"), (at(20), at(24), "unknown")]
    assert found.filter(symbol="BTC")["cause"].item() == "unknown"


def test_where_two_causes_miss_as_many_bars_the_first_of_the_list_is_named():
    of = dataset()
    grid = grid_of(of)
    bars = without(without(full(of, grid), at(4), at(5)), at(20), at(21), "BTC")
    found = cover(bars, of, grid)
    assert [cause for _, _, cause in ranges(found, "BTC")] == ["outage", "not_fetched"]
    assert found.filter(symbol="BTC")["cause"].item() == list(CAUSES)[0] == "outage"


def test_a_daily_session_that_the_vendor_has_for_nobody_is_an_outage():
    of = dataset("AAPL MSFT", calendar="XNYS", interval="1d", partition="month")
    grid = grid_of(of, date(2025, 7, 1), date(2025, 7, 31))
    day = date(2025, 7, 9)
    bars = full(of, grid).filter(pl.col("session") != day)
    assert set(cover(bars, of, grid).filter(session=day)["cause"]) == {"not_fetched"}
    answered = asked(("AAPL", day, 1, 1), ("MSFT", day, 1, 1))
    found = cover(bars, of, grid, answered)
    assert ranges(found, "AAPL") == [
        (datetime(2025, 7, 9, 13, 30, tzinfo=UTC), datetime(2025, 7, 9, 20, 0, tzinfo=UTC), "outage")
    ]
    assert found["expected_bars"].sum() == 44 and found["missing_bars"].sum() == 2


def test_missing_ranges_hold_exactly_the_missing_bars():
    of = dataset(calendar="XNYS", interval="5m")
    grid = grid_of(of, date(2025, 7, 1), date(2025, 7, 11))
    kept = full(of, grid).sample(fraction=0.6, seed=3)
    found = cover(kept, of, grid)
    holes = found.select("symbol", "missing_ranges").explode("missing_ranges").drop_nulls().unnest("missing_ranges")
    opens = pl.datetime_ranges("start", "end", "5m", closed="left").alias("open_time")
    told = holes.select("symbol", opens).explode("open_time").sort("symbol", "open_time")
    truly = full(of, grid).join(kept, on=["symbol", "open_time"], how="anti").sort("symbol", "open_time")
    assert told.rows() == truly.select("symbol", "open_time").rows()
    assert found["missing_bars"].sum() == len(truly)


def test_a_known_outage_needs_no_evidence_and_says_nothing_about_the_minutes_beside_it():
    known = Outage("binance", at(4, 2), at(8, 45), "the venue's status page")
    of = dataset("BTC", outages=(known,))
    grid = grid_of(of)
    bars = without(full(of, grid), at(4), at(9))
    nothing = asked(("BTC", DAY, 9, 9))
    for attempts, beside in ((None, "not_fetched"), (nothing, "vendor_hole")):
        assert ranges(cover(bars, of, grid, attempts), "BTC") == [
            (at(4), at(4, 2), beside), (at(4, 2), at(8, 45), "outage"), (at(8, 45), at(9), beside),
        ]  # fmt: skip
    # Bars that are there all the same are bars.
    assert cover(full(of, grid), of, grid)["missing_bars"].to_list() == [0]
    assert ranges(cover(bars, dataset("BTC"), grid), "BTC") == [(at(4), at(9), "not_fetched")]


def test_quiet_minutes_at_midnight_have_their_neighbours_in_the_next_session():
    of = dataset("BTC")
    thin = Traits(omits_empty_bars=True)
    grid = grid_of(of)
    around = full(of, grid_of(of, DAY - timedelta(1), DAY + timedelta(1)))
    quiet = without(without(around, at(-0, -5), at(0, 4)), at(23, 50), at(24, 3))
    found = ranges(cover(quiet, of, grid, traits=thin), "BTC")
    assert found == [(at(0), at(0, 4), "no_trade"), (at(23, 50), at(24), "no_trade")]
    # Nothing is known of the next session yet.
    alone = quiet.filter(pl.col("open_time") < at(24))
    assert [cause for _, _, cause in ranges(cover(alone, of, grid, traits=thin), "BTC")] == ["no_trade", "not_fetched"]
    # So much is a file that was cut, whatever comes after it.
    cut = without(around, at(23, 44), at(24))
    assert ranges(cover(cut, of, grid, traits=thin), "BTC") == [(at(23, 44), at(24), "not_fetched")]
    late = without(around, at(23, 50), at(24, 20))
    assert ranges(cover(late, of, grid, traits=thin), "BTC") == [(at(23, 50), at(24), "not_fetched")]
    # A vendor that serves empty bars has no quiet minutes, and an exchange that sleeps no neighbours at night.
    assert {cause for _, _, cause in ranges(cover(quiet, of, grid), "BTC")} == {"not_fetched"}
    shares = dataset("AAPL", calendar="XNYS", interval="5m")
    days = grid_of(shares, date(2025, 7, 1), date(2025, 7, 2))
    close = datetime(2025, 7, 1, 20, 0, tzinfo=UTC)
    found = cover(without(full(shares, days), close - timedelta(minutes=5), close), shares, days, traits=thin)
    assert ranges(found, "AAPL")[0][2] == "not_fetched"
