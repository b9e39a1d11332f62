"""The end of every vendor's answer: bars of another interval are told by how they are spaced, sound ones pass."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.calendars.sessions import expected_bars
from quantlytic_assets.vendors.coinbase import CoinbaseVendor
from quantlytic_assets.vendors.finished import finished_bars
from quantlytic_assets.vendors.protocol import BarRequest, VendorError
from quantlytic_tests.feeds.exchange import Exchange, Reply
from quantlytic_tests.feeds.recorded import trades

FIRST, LAST = date(2025, 1, 2), date(2025, 6, 30)
AT = datetime(2025, 12, 1, tzinfo=UTC)


def served(interval: str, calendar: str = "XNYS", every: int = 1) -> pl.DataFrame:
    times = expected_bars(calendar, interval, FIRST, LAST).select("open_time", "close_time").gather_every(every)
    return times.with_columns(pl.lit(1.0).alias(name) for name in ("open", "high", "low", "close", "volume"))


def finished(rows: pl.DataFrame, interval: str, calendar: str = "XNYS") -> pl.DataFrame:
    start, end = datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 8, 1, tzinfo=UTC)
    return finished_bars(rows, BarRequest("d", "AAPL", interval, calendar, start, end), "any", "none", AT)


@pytest.mark.parametrize("calendar", ["XNYS", "24/7"])
@pytest.mark.parametrize("asked", ["5m", "15m", "1h", "1d"])
@pytest.mark.parametrize("given", ["5m", "15m", "1h", "1d"])
def test_an_interval_is_told_from_every_other_one(asked: str, given: str, calendar: str):
    rows = served(given, calendar)
    if asked == given:
        assert len(finished(rows, asked, calendar)) == len(rows)
        return
    rows = rows.with_columns((pl.col("open_time") + INTERVALS[asked]).alias("close_time"))
    if asked == "1d":
        # What vendors do: a daily bar is its session.
        day = pl.col("open_time").dt.date()
        rows = rows.with_columns(pl.col("open_time", "close_time").first().over(day))
    with pytest.raises(VendorError, match=f"where {asked} ones were asked for") as failed:
        finished(rows, asked, calendar)
    assert not failed.value.retryable


def test_weeks_are_no_days():
    with pytest.raises(VendorError, match="days or more apart where 1d ones were asked for"):
        finished(served("1d", every=5), "1d")


@pytest.mark.parametrize("interval", ["1m", "5m", "1d"])
def test_a_symbol_that_is_seldom_traded_is_not_taken_for_another_interval(interval: str):
    rows = served(interval) if interval == "1d" else served(interval).head(4000)
    seldom = rows.sample(fraction=0.15, seed=7)
    assert len(finished(seldom, interval)) == len(seldom) > 16
    assert len(finished(rows.gather_every(15 if interval == "1d" else 60).head(8), interval)) == 8


def test_candles_of_five_minutes_are_no_minutes():
    start = datetime(2017, 3, 3, tzinfo=UTC)
    opened = int(start.timestamp())
    with Exchange({"BTC-USD": trades()}, 1, coinbase=True).serving() as exchange:
        exchange.replies.append(Reply(200, json.dumps([[opened + 300 * n, 1, 2, 1, 2, 3] for n in range(20)])))
        asked = BarRequest("d", "BTC-USD", "1m", "24/7", start, start + timedelta(hours=2))
        with pytest.raises(VendorError, match="at least 5m apart where 1m ones were asked for"):
            CoinbaseVendor(exchange.rest).fetch(asked)
