"""The cleaning rules, each against a hand-made row, and what holds for all of them together."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.market_data.bars import CLEAN_SCHEMA, QUARANTINE_SCHEMA, SOURCED_SCHEMA
from quantlytic_assets.market_data.quality.cleaning import REASONS, Cleaned, clean
from quantlytic_assets.universe.models import Dataset, Instrument

SAMPLE = Path(__file__).parents[3] / "quantlytic_assets" / "vendors" / "sample_data"
FETCHED = datetime(2025, 9, 1, tzinfo=UTC)


def dataset(**changes) -> Dataset:
    given = {
        "name": "equities_5m",
        "calendar": "XNYS",
        "interval": "5m",
        "partition": "session",
        "first_session": date(2025, 1, 2),
        "last_session": None,
        "vendors": (),
        "venue": "equities_5m",
        "out_of_session": "drop",
        "delay": timedelta(0),
        "feature_intervals": (),
        "symbols": (Instrument("AAPL"), Instrument("MSFT")),
    }
    return Dataset(**(given | changes))


def rows(*given: dict) -> pl.DataFrame:
    """Good AAPL bars five minutes apart from 2025-07-02 10:00 New York, each with its own changes."""
    filled = []
    for i, changes in enumerate(given):
        start = changes.get("open_time", datetime(2025, 7, 2, 14, 5 * i % 60, tzinfo=UTC))
        filled.append(
            {
                "symbol": "AAPL",
                "open_time": start,
                "close_time": start + timedelta(minutes=5),
                "open": 100.0,
                "high": 101.0,
                "low": 99.0,
                "close": 100.5,
                "volume": 10.0,
                "vwap": None,
                "trade_count": None,
                "vendor": "file",
                "fetched_at": FETCHED,
                "adjustment": "none",
                "bus_offset": i,
                "source_object": "archive/a.parquet",
                "source_row": i,
            }
            | changes
        )
    return pl.DataFrame(filled, schema=SOURCED_SCHEMA)


def cleaned(raw: pl.DataFrame, of: Dataset | None = None) -> Cleaned:
    of = of or dataset()
    first, last = raw["open_time"].min().date() - timedelta(days=15), raw["open_time"].max().date() + timedelta(days=5)
    sessions = session_table(of.calendar, first, last)
    start = pl.col("session").dt.truncate("1mo") if of.partition == "month" else pl.col("session")
    return clean(raw, of, sessions.with_columns(start.dt.to_string("%Y-%m-%d").alias("partition")))


def ny(*parts: int) -> datetime:
    """A summer time of New York (UTC-4) in UTC."""
    return datetime(*parts, tzinfo=UTC) + timedelta(hours=4)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"symbol": "TSLA"}, "not_in_universe"),
        ({"open_time": datetime(2024, 12, 31, 15, 0, tzinfo=UTC)}, "not_in_universe"),
        ({"open_time": ny(2025, 7, 2, 9, 25)}, "out_of_session"),
        ({"open_time": ny(2025, 7, 2, 16, 0)}, "out_of_session"),
        ({"open_time": ny(2025, 7, 5, 12, 0)}, "out_of_session"),
        ({"open_time": ny(2025, 7, 4, 12, 0)}, "out_of_session"),
        ({"open_time": ny(2025, 7, 3, 13, 0)}, "out_of_session"),
        ({"open_time": ny(2025, 7, 2, 12, 2)}, "off_grid"),
        ({"open_time": ny(2025, 7, 2, 12, 0) + timedelta(microseconds=1)}, "off_grid"),
        ({"adjustment": "dividend"}, "unknown_adjustment"),
        ({"adjustment": None}, "unknown_adjustment"),
        ({"open": None}, "null_price"),
        ({"low": None}, "null_price"),
        ({"close": math.nan}, "null_price"),
        ({"high": math.inf}, "non_finite_price"),
        ({"volume": math.inf}, "non_finite_price"),
        ({"open": -math.inf, "low": -math.inf}, "non_finite_price"),
        ({"low": 0.0}, "non_positive_price"),
        ({"open": -1.0, "low": -2.0}, "non_positive_price"),
        ({"high": 100.4}, "bad_ohlc"),
        ({"low": 100.2}, "bad_ohlc"),
        ({"volume": None}, "null_volume"),
        ({"volume": math.nan}, "null_volume"),
        ({"volume": -1.0}, "negative_volume"),
        # Where several apply, the first of REASONS is told.
        ({"symbol": "TSLA", "open": None}, "not_in_universe"),
        ({"open_time": ny(2025, 7, 2, 8, 1), "close": None}, "out_of_session"),
        ({"open": None, "volume": None}, "null_price"),
    ],
)
def test_a_row_that_breaks_a_rule_is_quarantined_with_its_reason_and_the_good_one_beside_it_is_kept(changes, reason):
    found = cleaned(rows({}, changes))
    assert found.quarantine["reason"].to_list() == [reason]
    assert found.bars["open_time"].to_list() == [datetime(2025, 7, 2, 14, 0, tzinfo=UTC)]
    assert reason in REASONS


def test_bars_and_quarantine_have_the_shapes_of_their_tables_even_when_empty():
    found = cleaned(rows({}, {"open": None}))
    sessions = session_table("XNYS", date(2025, 7, 1), date(2025, 7, 2)).with_columns(partition=pl.lit("p"))
    nothing = clean(rows(), dataset(), sessions)
    for one in (found, nothing):
        assert one.bars.schema == CLEAN_SCHEMA
        assert one.quarantine.schema == QUARANTINE_SCHEMA
    assert len(nothing.bars) == len(nothing.quarantine) == 0


def test_rounding_within_a_billionth_is_not_bad_ohlc():
    assert len(cleaned(rows({"high": 100.5 * (1 - 5e-10), "low": 100.0 * (1 + 5e-10)})).bars) == 1
    assert len(cleaned(rows({"high": 100.5 * (1 - 5e-9)})).bars) == 0


def test_a_symbol_belongs_from_its_first_to_its_last_session_both_included():
    bounded = Instrument("AAPL", date(2025, 7, 2), date(2025, 7, 7))
    of = dataset(last_session=date(2025, 7, 9), symbols=(bounded, Instrument("MSFT")))
    days = [date(2025, 7, 1), date(2025, 7, 2), date(2025, 7, 7), date(2025, 7, 8)]
    aapl = [{"open_time": ny(day.year, day.month, day.day, 10)} for day in days]
    msft = [{"symbol": "MSFT", "open_time": ny(2025, 7, day, 10)} for day in (1, 9, 10)]
    found = cleaned(rows(*aapl, *msft), of)
    assert found.bars.select("symbol", "session").rows() == [
        ("AAPL", date(2025, 7, 2)),
        ("AAPL", date(2025, 7, 7)),
        ("MSFT", date(2025, 7, 1)),
        ("MSFT", date(2025, 7, 9)),
    ]
    assert set(found.quarantine["reason"]) == {"not_in_universe"}


def test_close_time_ends_with_the_session_and_available_at_waits_for_the_delay():
    of = dataset(interval="1h", delay=timedelta(minutes=15))
    found = cleaned(rows({"open_time": ny(2025, 7, 3, 11, 30)}, {"open_time": ny(2025, 7, 3, 12, 30)}), of)
    assert found.bars["close_time"].to_list() == [ny(2025, 7, 3, 12, 30), ny(2025, 7, 3, 13, 0)]
    assert found.bars["available_at"].to_list() == [ny(2025, 7, 3, 12, 45), ny(2025, 7, 3, 13, 15)]


def test_the_grid_follows_daylight_saving():
    before, after = datetime(2025, 3, 7, 14, 30, tzinfo=UTC), datetime(2025, 3, 10, 13, 30, tzinfo=UTC)
    early = after - timedelta(minutes=5)
    found = cleaned(rows({"open_time": before}, {"open_time": after}, {"open_time": early}))
    assert found.bars.select("session", "open_time").rows() == [(date(2025, 3, 7), before), (date(2025, 3, 10), after)]
    assert found.quarantine.select("session", "reason").rows() == [(date(2025, 3, 10), "out_of_session")]


def test_a_lunch_break_is_out_of_session_and_the_grid_starts_anew_after_it():
    of = dataset(calendar="XHKG", interval="1h")
    times = [datetime(2025, 7, 3, hour, minute, tzinfo=UTC) for hour, minute in ((3, 30), (4, 30), (5, 0))]
    found = cleaned(rows(*({"open_time": time} for time in times)), of)
    assert found.bars.select("open_time", "close_time").rows() == [
        (times[0], datetime(2025, 7, 3, 4, 0, tzinfo=UTC)),
        (times[2], datetime(2025, 7, 3, 6, 0, tzinfo=UTC)),
    ]
    assert found.quarantine["reason"].to_list() == ["out_of_session"]


def test_a_round_the_clock_market_has_no_closed_minute():
    saturday = datetime(2025, 7, 5, tzinfo=UTC)
    times = [saturday, saturday + timedelta(hours=23, minutes=55), saturday + timedelta(days=1)]
    found = cleaned(rows(*({"open_time": time} for time in times)), dataset(calendar="24/7"))
    assert found.bars["session"].to_list() == [date(2025, 7, 5), date(2025, 7, 5), date(2025, 7, 6)]
    assert found.bars["close_time"][1] == times[2]


def test_kept_bars_out_of_session_are_flagged_and_still_judged():
    of = dataset(out_of_session="keep")
    found = cleaned(
        rows(
            {"open_time": ny(2025, 7, 2, 8, 0)},
            {"open_time": ny(2025, 7, 2, 8, 2)},
            {"open_time": ny(2025, 7, 2, 9, 30)},
            {"open_time": ny(2025, 7, 2, 17, 0), "low": -1.0},
        ),
        of,
    )
    assert found.bars.select("open_time", "close_time", "flags").rows() == [
        (ny(2025, 7, 2, 8, 0), ny(2025, 7, 2, 8, 5), ["out_of_session"]),
        (ny(2025, 7, 2, 9, 30), ny(2025, 7, 2, 9, 35), []),
    ]
    assert found.quarantine["reason"].to_list() == ["off_grid", "non_positive_price"]


def daily(**changes) -> Dataset:
    return dataset(name="equities_1d", interval="1d", partition="month", **changes)


@pytest.mark.parametrize(
    "stamp",
    [
        datetime(2025, 7, 3, 4, 0, tzinfo=UTC),  # local midnight
        datetime(2025, 7, 3, 13, 30, tzinfo=UTC),  # the open
        datetime(2025, 7, 3, 20, 0, 1, tzinfo=UTC),  # the quote's own time, after the early close
    ],
)
def test_a_daily_bar_stamped_anywhere_on_its_day_is_that_session(stamp):
    found = cleaned(rows({"open_time": stamp}), daily())
    row = found.bars.row(0, named=True)
    assert (row["session"], row["open_time"], row["close_time"]) == (
        date(2025, 7, 3),
        ny(2025, 7, 3, 9, 30),
        ny(2025, 7, 3, 13, 0),
    )


@pytest.mark.parametrize("setting", ["drop", "keep"])
def test_a_daily_bar_of_a_closed_day_is_out_of_session_whatever_the_setting(setting):
    found = cleaned(rows({"open_time": ny(2025, 7, 4, 9, 30)}), daily(out_of_session=setting))
    assert found.quarantine.select("open_time", "reason").rows() == [(ny(2025, 7, 4, 9, 30), "out_of_session")]


def test_two_stamps_of_one_day_compete_for_its_bar():
    found = cleaned(
        rows(
            {"open_time": datetime(2025, 7, 3, 4, 0, tzinfo=UTC), "close": 100.1},
            {"open_time": datetime(2025, 7, 3, 13, 30, tzinfo=UTC), "close": 100.2},
        ),
        daily(),
    )
    assert found.bars["close"].to_list() == [100.2]
    assert found.quarantine.select("reason", "open_time").rows() == [
        ("superseded", datetime(2025, 7, 3, 4, 0, tzinfo=UTC))
    ]


AT = {"open_time": ny(2025, 7, 2, 10, 0)}


@pytest.mark.parametrize(
    ("first", "second", "close"),
    [
        ({"fetched_at": FETCHED + timedelta(1)}, {"bus_offset": 9}, 100.1),
        ({"bus_offset": 9}, {"bus_offset": 5, "source_object": "archive/z.parquet"}, 100.1),
        ({"bus_offset": 5, "source_object": "archive/b.parquet"}, {"bus_offset": 5, "source_row": 9}, 100.1),
        ({"bus_offset": 5, "source_row": 4}, {"bus_offset": 5, "source_row": 6}, 100.2),
        # A topic that was made anew counts its offsets from 0 again.
        (
            {"bus_offset": 1, "source_object": "d/bars.d@1.0.0-9.parquet"},
            {"bus_offset": 5, "source_object": "d/bars.d.0.0-9.parquet"},
            100.1,
        ),
        (
            {"bus_offset": 9, "source_object": "d/bars.d@9.0.0-20.parquet"},
            {"bus_offset": 1, "source_object": "d/bars.d@10.0.0-20.parquet"},
            100.2,
        ),
    ],
)
def test_the_latest_fetch_wins_then_the_last_archived(first, second, close):
    raw = rows(AT | {"close": 100.1} | first, AT | {"close": 100.2} | second)
    found = cleaned(raw)
    assert found.bars["close"].to_list() == [close]
    assert found.quarantine["reason"].to_list() == ["superseded"]
    assert {close, json.loads(found.quarantine["raw"][0])["close"]} == {100.1, 100.2}


@pytest.mark.parametrize("field", ["open", "high", "low", "close", "volume", "vwap", "trade_count", "adjustment"])
def test_a_loser_is_quarantined_only_where_its_values_differ(field):
    other = {"vwap": 100.2, "trade_count": 7, "adjustment": "split", "high": 102.0, "low": 98.0}.get(field, 100.6)
    same = cleaned(rows(AT, AT | {"fetched_at": FETCHED + timedelta(1), "vendor": "another"}))
    assert len(same.bars) == 1 and len(same.quarantine) == 0
    differing = cleaned(rows(AT, AT | {field: other}))
    assert len(differing.bars) == 1
    assert differing.quarantine["reason"].to_list() == ["superseded"]


def test_a_rejected_row_never_supersedes_a_good_one():
    found = cleaned(rows(AT | {"close": 100.1}, AT | {"close": -1.0, "fetched_at": FETCHED + timedelta(9)}))
    assert found.bars["close"].to_list() == [100.1]
    assert found.quarantine["reason"].to_list() == ["non_positive_price"]


def test_a_loser_is_compared_with_the_winner_and_not_with_its_neighbour():
    raw = rows(AT | {"close": 100.1}, AT | {"close": 100.2}, AT | {"close": 100.1})
    found = cleaned(raw)
    assert found.bars["close"].to_list() == [100.1]
    assert [json.loads(text)["close"] for text in found.quarantine["raw"]] == [100.2]


def test_quarantine_tells_the_row_as_archived_and_where_it_stands():
    raw = rows({}, {"close": None, "vwap": 100.25, "source_object": "archive/b.parquet", "source_row": 41})
    row = cleaned(raw).quarantine.row(0, named=True)
    assert (row["dataset"], row["symbol"], row["session"]) == ("equities_5m", "AAPL", date(2025, 7, 2))
    assert (row["source_object"], row["source_row"]) == ("archive/b.parquet", 41)
    told = json.loads(row["raw"])
    assert (told["open"], told["close"], told["vwap"]) == (100.0, None, 100.25)
    assert datetime.fromisoformat(told["open_time"]) == row["open_time"] == ny(2025, 7, 2, 10, 5)


def test_numbers_that_json_has_no_word_for_are_told_as_text():
    raw = cleaned(rows({"high": math.inf, "close": math.nan})).quarantine["raw"][0]
    told = json.loads(raw)
    assert (told["high"], told["close"], float(told["open"])) == ("inf", "NaN", 100.0)


def walk(closes: list[float], start: datetime | None = None, **changes) -> list[dict]:
    """Consecutive bars that open where the last closed."""
    start, found, last = start or ny(2025, 7, 2, 9, 30), [], closes[0]
    for i, close in enumerate(closes):
        both = (last, close)
        bar = {"open": last, "close": close, "high": max(both), "low": min(both)}
        found.append({"open_time": start + i * timedelta(minutes=5)} | bar | changes)
        last = close
    return found


def flagged(found: Cleaned, flag: str) -> list[int]:
    return [i for i, flags in enumerate(found.bars["flags"]) if flag in flags]


def test_a_move_beyond_the_floor_and_twelve_usual_ones_is_flagged_and_kept():
    quiet = [100.0 * (1.001 if i % 2 else 1.0) for i in range(20)]
    # ln(1.06) is beyond the floor of 0.05; ln(1.04) is not, although 40 times the usual move.
    assert flagged(cleaned(rows(*walk([*quiet, 100.1 * 1.06]))), "jump") == [20]
    assert flagged(cleaned(rows(*walk([*quiet, 100.1 * 1.04]))), "jump") == []
    # Where one per cent is usual, 6 % is half of twelve usual moves; 14 % is beyond them.
    lively = [100.0 * (1.01 if i % 2 else 1.0) for i in range(20)]
    assert flagged(cleaned(rows(*walk([*lively, 101.0 * 1.06]))), "jump") == []
    assert flagged(cleaned(rows(*walk([*lively, 101.0 * 1.14]))), "jump") == [20]


def test_an_open_far_from_the_close_before_is_a_jump_too():
    bars = walk([100.0] * 20)
    bars[10] |= {"open": 92.0, "low": 92.0}
    assert flagged(cleaned(rows(*bars)), "jump") == [10]


def test_a_jump_is_judged_within_its_partition_and_symbol():
    today, tomorrow = walk([100.0] * 15), walk([200.0] * 15, ny(2025, 7, 3, 9, 30))
    other = walk([300.0] * 15, symbol="MSFT")
    together = cleaned(rows(*today, *tomorrow, *other))
    assert flagged(together, "jump") == []
    alone = cleaned(rows(*tomorrow))
    assert (
        together.bars.filter(pl.col("session") == date(2025, 7, 3))
        .drop("fetched_at")
        .equals(alone.bars.drop("fetched_at"))
    )
    monthly = dataset(partition="month")
    assert flagged(cleaned(rows(*today, *tomorrow), monthly), "jump") == [15]


def test_daily_prices_may_move_a_quarter_before_it_is_a_jump():
    days = session_table("XNYS", date(2025, 7, 1), date(2025, 7, 31))["open_time"].to_list()[:15]
    for factor, found in ((1.27, []), (1.30, [14])):
        bars = [bar | {"open_time": day} for bar, day in zip(walk([100.0] * 14 + [100 * factor]), days, strict=True)]
        assert flagged(cleaned(rows(*bars), daily()), "jump") == found


def test_a_bar_without_volume_is_kept_and_flagged():
    found = cleaned(rows({"volume": 0.0}, {}))
    assert found.bars["flags"].to_list() == [["zero_volume"], []]


def test_a_session_table_that_ends_before_the_data_is_rejected():
    sessions = session_table("XNYS", date(2025, 6, 1), date(2025, 6, 30)).with_columns(partition=pl.lit("p"))
    with pytest.raises(ValueError, match="lacks 2025-07-02"):
        clean(rows({}), dataset(), sessions)


def broken_sample(seed: int) -> pl.DataFrame:
    """Three weeks of real five-minute bars with faults, repeats and corrections strewn over a tenth of them."""
    real = (
        pl.scan_parquet(SAMPLE / "equities_5m.parquet")
        .filter(pl.col("open_time").is_between(datetime(2025, 6, 25, tzinfo=UTC), datetime(2025, 7, 16, tzinfo=UTC)))
        .collect()
    )
    plain = {"vwap": None, "trade_count": None, "vendor": "sample", "fetched_at": FETCHED, "adjustment": "none"}
    real = real.with_columns(
        (pl.col("open_time") + timedelta(minutes=5)).alias("close_time"),
        *(pl.lit(value, SOURCED_SCHEMA[name]).alias(name) for name, value in plain.items() if name not in real.columns),
    )
    repeats = real.sample(fraction=0.1, seed=seed)
    corrected = real.sample(fraction=0.05, seed=seed + 1).with_columns(pl.col("close") * 1.0001)
    both = pl.concat([real, repeats, corrected])
    dice = pl.Series("dice", range(len(both))).sample(fraction=1.0, shuffle=True, seed=seed + 2) % 60
    faults = {
        "open": pl.when(dice == 0).then(None).when(dice == 1).then(-pl.col("open")).otherwise("open"),
        "close": pl.when(dice == 2).then(math.nan).when(dice == 3).then(math.inf).otherwise("close"),
        "high": pl.when(dice == 4).then(pl.col("low") * 0.9).otherwise("high"),
        "volume": pl.when(dice == 5).then(None).when(dice == 6).then(-1.0).otherwise("volume"),
        "open_time": pl.when(dice == 7).then(pl.col("open_time") + timedelta(seconds=1)).otherwise("open_time"),
        "symbol": pl.when(dice == 8).then(pl.lit("NONE")).otherwise("symbol"),
        "fetched_at": pl.when(dice == 9).then(pl.lit(FETCHED + timedelta(1))).otherwise("fetched_at"),
    }
    return (
        both.with_columns(fault.alias(name) for name, fault in faults.items())
        .with_columns(
            pl.int_range(pl.len()).alias("bus_offset"),
            pl.format("archive/{}.parquet", pl.int_range(pl.len()) // 1000).alias("source_object"),
            (pl.int_range(pl.len()) % 1000).alias("source_row"),
        )
        .select(SOURCED_SCHEMA.names())
        .cast(dict(SOURCED_SCHEMA))
    )


SYMBOLS = tuple(Instrument(name) for name in ("AAPL", "MSFT", "SPY"))


@pytest.mark.parametrize("setting", ["drop", "keep"])
@pytest.mark.parametrize("seed", [1, 2])
def test_every_row_is_a_bar_or_in_quarantine_or_repeats_a_bar_value_for_value(seed, setting):
    raw = broken_sample(seed)
    found = cleaned(raw, dataset(symbols=SYMBOLS, out_of_session=setting))
    place = ["source_object", "source_row"]
    assert found.bars.select("symbol", "open_time").is_unique().all()
    assert found.quarantine.select(place).is_unique().all()
    assert len(found.quarantine) > len(raw) / 20 and found.quarantine["reason"].n_unique() >= 8

    others = raw.join(found.quarantine, on=place, how="anti")
    values = ["symbol", "open_time", "open", "high", "low", "close", "volume", "vwap", "trade_count", "adjustment"]
    # Neither rejected nor superseded: each of them says what the bar in its place says, and no bar is made of air.
    assert others.join(found.bars, on=values, how="anti", nulls_equal=True).is_empty()
    assert found.bars.join(others, on=[*values, "fetched_at"], how="anti", nulls_equal=True).is_empty()
    repeats = len(others) - len(found.bars)
    assert len(raw) == len(found.bars) + len(found.quarantine) + repeats and repeats > len(raw) / 50


def test_the_order_of_rows_does_not_matter():
    raw, of = broken_sample(3), dataset(symbols=SYMBOLS, out_of_session="keep")
    straight = cleaned(raw, of)
    for shuffled in (raw.reverse(), raw.sample(fraction=1.0, shuffle=True, seed=7)):
        again = cleaned(shuffled, of)
        assert again.bars.equals(straight.bars)
        assert again.quarantine.equals(straight.quarantine)
    assert straight.bars.equals(straight.bars.sort("symbol", "open_time"))


def test_cleaning_partition_by_partition_gives_what_cleaning_all_at_once_gives():
    raw, of = broken_sample(4), dataset(symbols=SYMBOLS)
    at_once = cleaned(raw, of)
    by_day = [cleaned(part, of) for _, part in raw.group_by(pl.col("open_time").dt.offset_by("-4h").dt.date())]
    assert pl.concat(part.bars for part in by_day).sort("symbol", "open_time").equals(at_once.bars)
    order = ["symbol", "source_object", "source_row"]
    assert pl.concat(part.quarantine for part in by_day).sort(order).equals(at_once.quarantine.sort(order))
