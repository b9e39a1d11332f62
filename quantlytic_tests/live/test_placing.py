"""Where minutes stand: what cleaning says of each bar by itself, though it is asked for whole days."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.live.placing import MinutePlaces, native_bars
from quantlytic_assets.market_data.stream.messages import MINUTE, micros
from quantlytic_assets.universe.models import Dataset, Instrument
from quantlytic_tests.frames import make_dataset, utc

# Holidays, short days, a lunch break, a day that begins in the evening, weeks without a session.
WEEKS = {
    "XNYS": "2024-11-25",
    "XHKG": "2025-01-27",
    "CMES": "2024-11-25",
    "24/7": "2025-03-28",
}


def dataset(calendar: str, **changes: object) -> Dataset:
    made = make_dataset(calendar, "1m", first=date(2024, 11, 20), last=date(2025, 4, 20), symbols=("A", "B"))
    begun = Instrument("B", first=date.fromisoformat(WEEKS[calendar]) + timedelta(days=1))
    return replace(made, symbols=(made.symbols[0], begun), delay=timedelta(seconds=7), **changes)


@pytest.mark.parametrize("calendar", WEEKS)
@pytest.mark.parametrize("outside", ["drop", "keep"])
def test_a_minute_stands_where_cleaning_places_its_bar(calendar: str, outside: str):
    of = dataset(calendar, out_of_session=outside)
    begin = micros(utc(f"{WEEKS[calendar]}T00:00:00"))
    times = np.repeat(np.arange(begin, begin + 6 * 24 * 60 * MINUTE, MINUTE), 2)
    rows = pl.DataFrame(
        {
            "symbol": ["A", "B"] * (len(times) // 2),
            "open_time": pl.Series(times).cast(TIME), "open": 1.0, "high": 1.0,
            "low": 1.0, "close": 1.0, "volume": 1.0, "vwap": 1.0, "trade_count": 1, "adjustment": "none",
        }
    )  # fmt: skip
    bars, rejected = native_bars(rows, of, final=True)
    wanted = {(bar.symbol, bar.open_time): (bar.session, bar.close_time, bar.available_at) for bar, _ in bars}
    places = MinutePlaces(of)
    found = {
        (symbol, time): place
        for time in times[::2].tolist()
        for symbol in ("A", "B")
        if (place := places.of(symbol, time)) is not None
    }
    assert found == wanted
    assert rejected > 0 and {symbol for symbol, _ in wanted} == {"A", "B"}


def test_a_time_off_the_grid_and_an_unknown_symbol_have_no_place():
    places = MinutePlaces(dataset("24/7"))
    noon = micros(utc("2025-04-01T12:00:00"))
    assert places.of("A", noon) is not None
    assert places.of("A", noon + 1) is None
    assert places.of("Z", noon) is None
    # Before the dataset's first session, and long after many other days were asked for.
    assert places.of("A", micros(utc("2024-11-01T12:00:00"))) is None
    assert all(places.of("A", noon + day * 24 * 60 * MINUTE) is not None for day in range(12))
    assert places.of("A", noon) is not None
