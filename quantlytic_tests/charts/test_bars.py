"""The charts: real PNG files whose colours say what the frame says."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime, timedelta

import polars as pl

from quantlytic_assets.charts.bars import candles, coverage_title, heat_map
from quantlytic_assets.market_data.bars import CLEAN_SCHEMA, COVERAGE_SCHEMA

ORANGE, BLUE, PURPLE = (0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2), (0xCC, 0x79, 0xA7)


def covered(sessions: int, missing: dict[int, tuple[int, str]]) -> pl.DataFrame:
    days = [date(2009, 1, 1) + timedelta(day) for day in range(sessions)]
    return pl.DataFrame(
        [
            {
                "dataset": "d",
                "symbol": "A",
                "session": day,
                "expected_bars": 100,
                "present_bars": 100 - missing.get(i, (0, ""))[0],
                "missing_bars": missing.get(i, (0, ""))[0],
                "cause": missing[i][1] if i in missing else None,
                "missing_ranges": [],
                "attempts": 0,
                "checked_at": datetime(2025, 1, 1, tzinfo=UTC),
            }
            for i, day in enumerate(days)
        ],
        schema=COVERAGE_SCHEMA,
    )


def pixels(png: bytes):
    from matplotlib.image import imread

    return (imread(io.BytesIO(png))[:, :, :3] * 255).round().astype(int)


def has_colour(png: bytes, colour: tuple[int, int, int]) -> bool:
    # Below the title line, where the legend shows the same colours.
    return bool((abs(pixels(png)[60:] - colour).max(axis=2) <= 2).any())


def test_one_bad_session_among_thousands_is_still_seen():
    assert has_colour(heat_map(covered(2_500, {1_234: (100, "outage")})), ORANGE)
    assert not has_colour(heat_map(covered(2_500, {})), ORANGE)


def test_the_title_speaks_of_the_sessions_drawn_and_never_rounds_up_to_all():
    said = coverage_title(covered(2_500, {3: (1, "outage")}), 600)
    assert said == (
        "d, 2009-01-01 to 2015-11-05: 249,999 of 250,000 bars present (99.99%), 2,500 sessions, "
        "a column is the worst of about 4.2"
    )
    assert "(100.00%), 10 sessions" in coverage_title(covered(10, {}), 600)
    assert coverage_title(covered(0, {}), 0) == "nothing expected yet"


def test_a_cause_has_its_colour_and_more_missing_more_of_it():
    much = heat_map(covered(10, {3: (100, "outage")}))
    little = heat_map(covered(10, {3: (1, "outage")}))
    assert has_colour(much, ORANGE) and not has_colour(little, ORANGE)
    assert (pixels(little) != pixels(heat_map(covered(10, {})))).any()
    assert not has_colour(heat_map(covered(10, {3: (100, "vendor_hole")})), ORANGE)


def test_nothing_to_show_is_a_chart_too():
    bars = pl.DataFrame(schema=CLEAN_SCHEMA)
    for png in (heat_map(covered(0, {})), candles(bars, "A")):
        assert pixels(png).shape[0] > 100


def test_candles_show_the_symbol_asked_for():
    def bars(symbol: str, close: float) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "symbol": [symbol] * 300,
                "open_time": [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=i) for i in range(300)],
                "open": [1.0] * 300,
                "high": [2.0] * 300,
                "low": [0.5] * 300,
                "close": [close] * 300,
                "volume": [1.0] * 300,
            }
        )

    both = pl.concat([bars("UP", 1.5), bars("DOWN", 0.7)])
    assert has_colour(candles(both, "DOWN"), ORANGE)
    assert not has_colour(candles(both, "UP"), ORANGE)
    sides = pl.Series("side", ["buy", "sell"])
    fills = both.head(2).select(pl.col("open_time").alias("fill_time"), sides, price="open")
    both_sides, bought, none = (candles(both, "UP", some) for some in (fills, fills.head(1), None))
    assert has_colour(both_sides, BLUE) and has_colour(both_sides, PURPLE)
    assert has_colour(bought, BLUE) and not has_colour(bought, PURPLE) and not has_colour(none, BLUE)
