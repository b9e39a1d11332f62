"""Which sessions a split or rename that becomes known late makes out of date."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from quantlytic_assets.market_data.actions.late_actions import first_changed
from quantlytic_assets.market_data.actions.split_factors import split_factors
from quantlytic_tests.market_data.recorded_prices import actions, lean_actions

EX_DATE = date(2014, 6, 9)
SPLIT = ("AAPL", EX_DATE, "split", 7)
LATER = ("AAPL", date(2020, 8, 31), "split", 4)


def days(symbol: str = "AAPL", adjustment: str = "none", fetched: date = date(2021, 1, 4)) -> pl.DataFrame:
    """Every day of 2014's first seven months."""
    sessions = pl.date_range(date(2014, 1, 1), date(2014, 7, 31), eager=True)
    moment = datetime(fetched.year, fetched.month, fetched.day, 22, tzinfo=UTC)
    return pl.DataFrame({"symbol": symbol, "session": sessions}).with_columns(
        pl.lit(adjustment).alias("adjustment"), pl.lit(moment).alias("fetched_at")
    )


def changed(bars: pl.DataFrame, before: list[tuple], after: list[tuple]) -> date | None:
    return first_changed(bars, split_factors(actions(*before), "d"), split_factors(actions(*after), "d"))


@pytest.mark.parametrize(
    ("bars", "before", "after", "first"),
    [
        # Flags look a week around a split; prices as traded before it stay what they are.
        (days(), [], [SPLIT], date(2014, 6, 2)),
        (days(), [SPLIT], [("AAPL", EX_DATE, "split", 8)], date(2014, 6, 2)),
        (days(), [SPLIT], [], date(2014, 6, 2)),
        # A vendor had put the split into the prices of all days before it.
        (days(adjustment="split"), [], [SPLIT], date(2014, 1, 1)),
        (days(adjustment="split"), [SPLIT], [SPLIT, LATER], date(2014, 1, 1)),
        # It could not have known of it.
        (days(adjustment="split", fetched=date(2014, 6, 6)), [], [SPLIT], date(2014, 6, 2)),
        (days(), [SPLIT], [SPLIT, LATER], None),
        (days(), [SPLIT], [SPLIT], None),
        (days("IBM", "split"), [], [SPLIT], None),
        (days("FB"), [], [("FB", date(2014, 3, 10), "rename", "META")], date(2014, 3, 3)),
        # What its vendor adjusted for is known under the company's next name.
        (
            days("FB", "split"),
            [("FB", date(2022, 6, 9), "rename", "META")],
            [("FB", date(2022, 6, 9), "rename", "META"), ("META", date(2015, 1, 5), "split", 2)],
            None,
        ),
        (
            days("FB", "split"),
            [("FB", date(2014, 9, 1), "rename", "META")],
            [("FB", date(2014, 9, 1), "rename", "META"), ("META", date(2015, 1, 5), "split", 2)],
            date(2014, 1, 1),
        ),
    ],
)
def test_the_first_session_that_is_out_of_date(bars: pl.DataFrame, before: list, after: list, first: date | None):
    assert changed(bars, before, after) == first


def test_of_bars_fetched_at_different_times_those_count_that_change():
    early = days(adjustment="split", fetched=date(2014, 5, 1)).filter(pl.col("session") < date(2014, 3, 1))
    late = days(adjustment="split").filter(pl.col("session") >= date(2014, 3, 1))
    assert changed(pl.concat([late, early]), [], [SPLIT]) == date(2014, 3, 1)


def test_nothing_that_is_there_changes_nothing():
    assert changed(days().clear(), [], [SPLIT]) is None
    counts = split_factors(lean_actions("AAPL"), "d")
    assert first_changed(days(), counts, counts) is None
