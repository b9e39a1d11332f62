"""Tickers that changed hands keep their companies apart; companies that changed tickers stay together."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from quantlytic_assets.market_data.actions.adjustment import adjusted_bars
from quantlytic_assets.market_data.actions.listings import listings, with_instrument
from quantlytic_assets.market_data.actions.split_factors import split_factors
from quantlytic_tests.market_data.recorded_prices import actions, lean_bars, lean_renames


def named(symbol: str, as_of: date = date(2021, 1, 4)) -> list[str]:
    """The instruments of a symbol's recorded bars, in order of their sessions, each once."""
    bars = lean_bars(symbol)
    found = adjusted_bars(bars, lean_renames(), as_of).sort("session")
    return found["instrument"].unique(maintain_order=True).to_list()


@pytest.mark.parametrize(
    ("symbol", "instruments"),
    [
        ("WM", ["WM@2009-08-05", "WM"]),  # Washington Mutual, then Waste Management
        ("FB", ["FB@2012-05-18", "FB"]),  # FBR, then Facebook
        ("EEM", ["EEM@2003-04-11", "EEM"]),
        ("USO", ["USO@2006-04-10", "USO"]),
        ("BAC", ["BAC@1998-10-01", "BAC"]),  # BankAmerica, then NationsBank, which had been NB
        ("QQQ", ["QQQ"]),  # the same fund, called QQQQ in between
        ("UW", ["WM"]),  # USA Waste, later WMI, later WM
        ("AAPL", ["AAPL"]),
    ],
)
def test_recorded_tickers_mean_the_company_they_meant_then(symbol: str, instruments: list[str]):
    assert named(symbol) == instruments


def test_the_company_s_name_is_the_one_it_has_by_the_day_asked_about():
    assert named("UW", date(1998, 7, 16)) == ["UW"]
    assert named("UW", date(2000, 1, 3)) == ["WMI"]
    assert named("UW", date(2009, 8, 5)) == ["WM"]
    assert named("WM", date(2009, 8, 4)) == ["WM"]


def test_google_s_two_classes_are_two_instruments():
    told = pl.concat([lean_renames(), actions(("GOOG", date(2014, 4, 3), "rename", "GOOGL"))])
    stretches = listings(told.select("symbol", "session", "new_symbol"))
    days = pl.DataFrame(
        {"symbol": ["GOOG", "GOOG", "GOOCV"], "session": [date(2014, 4, 2), date(2014, 4, 3), date(2014, 4, 2)]}
    )
    assert with_instrument(days, stretches)["instrument"].to_list() == ["GOOGL", "GOOG", "GOOG"]


def test_actions_are_those_of_the_company_and_not_of_the_ticker():
    # A split of WMI and a dividend of the later WM must reach the bars it has as UW, and none of Washington Mutual's.
    bars = lean_bars("UW", "WM")
    own = actions(("WMI", date(1998, 12, 29), "split", 2), ("WM", date(2009, 8, 10), "dividend", 1))
    told = pl.concat([lean_renames(), own])
    found = adjusted_bars(bars, told, date(2009, 8, 12))
    by = {key: set(rows["split_factor"]) for (key,), rows in found.group_by("symbol", maintain_order=True)}
    assert by == {"UW": {0.5}, "WM": {1.0}}
    washington = found.filter(pl.col("instrument") == "WM@2009-08-05")
    assert set(washington["dividend_factor"]) == {1.0}
    waste = found.filter(pl.col("instrument") == "WM", pl.col("session") < date(2009, 8, 10))
    assert waste["symbol"].unique().sort().to_list() == ["UW", "WM"]
    assert waste["dividend_factor"].max() < 1.0


def test_renames_in_a_circle_come_to_an_end():
    day = [date(2020, 1, n) for n in range(1, 6)]
    told = actions(("A", day[1], "rename", "B"), ("B", day[2], "rename", "A"), ("A", day[2], "rename", "B"))
    found = listings(told.select("symbol", "session", "new_symbol"))
    # Two companies change places on the third day.
    assert found.filter(pl.col("symbol") == "A")["instrument"].to_list() == ["A", "B", "A"]


def test_two_companies_that_become_one_on_the_same_day_are_not_made_one_before_it():
    day = date(2017, 9, 1)
    merged = [("DOW", day, "rename", "DWDP"), ("DD", day, "rename", "DWDP")]
    told = actions(("DOW", date(2010, 1, 4), "split", 2), *merged)
    sessions = [date(2016, 1, 4), date(2016, 1, 4), day]
    days = pl.DataFrame({"symbol": ["DD", "DOW", "DWDP"], "session": sessions})
    found = with_instrument(days, listings(told.filter(kind="rename").select("symbol", "session", "new_symbol")))
    assert found["instrument"].to_list() == ["DD@2017-09-01", "DOW@2017-09-01", "DWDP"]
    # A split of one is none of the other's.
    shares = split_factors(told, "d").filter(since=date(1, 1, 1)).select("symbol", "company", "shares").rows()
    assert shares == [("DD", "DD", 1.0), ("DOW", "DOW", 1.0), ("DWDP", "DWDP", 1.0)]


def test_without_renames_a_symbol_is_itself():
    assert listings(actions().select("symbol", "session", "new_symbol")).is_empty()
