"""Share counts and companies by day: forward in time, whatever comes later."""

from datetime import date, timedelta

import polars as pl
import pytest

from quantlytic_assets.market_data.actions.adjustment import adjusted_bars
from quantlytic_assets.market_data.actions.split_factors import SPLIT_FACTORS_SCHEMA, split_factors
from quantlytic_tests.market_data.recorded_prices import actions, lean_actions, lean_bars, lean_renames

BEGINNING = date(1, 1, 1)


def test_apple_s_splits_are_steps_of_its_share_count():
    counts = split_factors(lean_actions("AAPL"), "daily")
    assert counts.schema == SPLIT_FACTORS_SCHEMA
    assert counts.drop("dataset", "listing").rows() == [
        ("AAPL", BEGINNING, "AAPL", 1.0),
        ("AAPL", date(2005, 2, 28), "AAPL", pytest.approx(2, rel=1e-5)),
        ("AAPL", date(2014, 6, 9), "AAPL", pytest.approx(14, rel=1e-5)),
        ("AAPL", date(2020, 8, 31), "AAPL", pytest.approx(56, rel=1e-5)),
    ]


def test_price_times_shares_has_the_returns_of_split_adjusted_prices():
    told = lean_actions("AAPL")
    bars = lean_bars("AAPL")
    wanted = adjusted_bars(bars, told, date(2026, 1, 1))["split_close"].pct_change()
    steps = split_factors(told, "daily").select("since", "shares").sort("since")
    shares = bars.sort("session").join_asof(steps, left_on="session", right_on="since")["shares"]
    found = (bars.sort("session")["close"] * shares).pct_change()
    assert len(found) > 3000 and (found - wanted).abs().max() < 1e-12


def test_a_ticker_s_companies_keep_their_names_whatever_comes_later():
    told = actions(
        ("FB", date(2012, 5, 18), "rename", "FB"),
        ("X", date(2015, 1, 5), "split", 2),
        ("FB", date(2022, 6, 9), "rename", "META"),
    )
    counts = split_factors(told, "daily").select("symbol", "since", "listing", "company").rows()
    assert counts == [
        ("FB", BEGINNING, "FB", "FB"),
        ("FB", date(2012, 5, 18), "FB@2012-05-18", "FB@2012-05-18"),
        ("FB", date(2022, 6, 9), "FB@2022-06-09", "FB@2022-06-09"),
        ("META", BEGINNING, "META", "META"),
        ("META", date(2022, 6, 9), "META@2022-06-09", "FB@2012-05-18"),
        ("X", BEGINNING, "X", "X"),
        ("X", date(2015, 1, 5), "X", "X"),
    ]


def test_steps_before_an_action_are_the_same_without_it():
    told = pl.concat([lean_renames(), lean_actions("AAPL"), lean_actions("IBM")])
    last = told["session"].max()
    whole = split_factors(told, "daily")
    for day in (date(2005, 3, 1), date(2009, 8, 6), date(2014, 6, 10), last):
        earlier = split_factors(told.filter(pl.col("session") < day), "daily")
        symbols = whole.select("symbol").unique()
        grid = symbols.join(pl.DataFrame({"day": [day - timedelta(days=n) for n in range(1, 3000, 61)]}), how="cross")

        def at(counts: pl.DataFrame, asked: pl.DataFrame = grid) -> pl.DataFrame:
            found = asked.sort("day").join_asof(
                counts.sort("since"), left_on="day", right_on="since", by="symbol", check_sortedness=False
            )
            return found.select(
                "symbol",
                "day",
                pl.coalesce("listing", "symbol"),
                pl.coalesce("company", "symbol").alias("company"),
                pl.col("shares").fill_null(1.0),
            ).sort("symbol", "day")

        assert at(earlier).equals(at(whole)), day


def test_without_splits_and_renames_there_are_no_steps():
    none = split_factors(actions(("KO", date(2010, 3, 11), "dividend", 0.44)), "daily")
    assert none.is_empty() and none.schema == SPLIT_FACTORS_SCHEMA
