"""Adjusted prices: equal to Yahoo's on recorded history, as of any day, whatever the vendor had adjusted already."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from quantlytic_assets.market_data.actions.adjustment import adjusted_bars
from quantlytic_tests.market_data.recorded_prices import actions, clean_bars, lean_actions, lean_bars, yahoo


def compared(symbol: str, source: str, as_of: date, told: pl.DataFrame | None = None) -> pl.DataFrame:
    """Our adjusted bars beside Yahoo's on common days.

    `off` is that of adjusted closes, `factor_off` of their factors alone,

    `close_off` of the closes that they were made from.
    """
    found = adjusted_bars(lean_bars(symbol), lean_actions(symbol) if told is None else told, as_of)
    both = found.join(yahoo(source, symbol), on="session").sort("session")
    return both.with_columns(
        (pl.col("adjusted_close") / pl.col("yahoo_adjusted") - 1).abs().alias("off"),
        (pl.col("dividend_factor") * pl.col("yahoo_close") / pl.col("yahoo_adjusted") - 1).abs().alias("factor_off"),
        (pl.col("split_close") / pl.col("yahoo_close") - 1).abs().alias("close_off"),
    )


def same_close(both: pl.DataFrame) -> pl.DataFrame:
    """Days on which both sources say the same close before anything is adjusted for dividends."""
    return both.filter(pl.col("close_off") <= 9.8e-4)


def test_apple_from_2004_to_2018_is_yahoo_s_adjusted_close_through_two_splits_and_22_dividends():
    both = compared("AAPL", "mplfinance", date(2018, 1, 19))
    assert len(both) == 3379
    assert both["factor_off"].max() < 1e-5
    assert same_close(both)["off"].max() < 1e-3
    assert len(same_close(both)) > 0.96 * len(both)
    assert (both["off"] < 1e-3).mean() > 0.96


def test_apple_from_2014_to_2019_is_yahoo_s_adjusted_close():
    both = compared("AAPL", "StarTrader", date(2019, 2, 22)).filter(pl.col("session") >= date(2014, 5, 8))
    assert len(both) > 1200
    assert both["factor_off"].max() < 1e-5
    assert both["off"].max() < 1e-3


def test_a_yahoo_file_that_took_dividends_before_the_split_for_ones_after_it_is_explained_to_the_last_day():
    told = lean_actions("AAPL").with_columns(
        pl.when(pl.col("kind") == "dividend", pl.col("session") < date(2014, 6, 9))
        .then(pl.col("value") * 7)
        .otherwise("value")
        .alias("value")
    )
    both = compared("AAPL", "StarTrader", date(2019, 2, 22), told)
    assert both["factor_off"].max() < 1e-3


def test_ibm_from_2008_to_2019_is_yahoo_s_adjusted_close_but_for_two_dividends_that_yahoo_has_twice():
    both = compared("IBM", "StarTrader", date(2019, 2, 22))
    assert both.filter(pl.col("session") >= date(2016, 5, 9))["factor_off"].max() < 1e-5
    doubled = [("IBM", date(2015, 5, 7), "dividend", 1.30), ("IBM", date(2016, 5, 9), "dividend", 1.40)]
    both = compared("IBM", "StarTrader", date(2019, 2, 22), pl.concat([lean_actions("IBM"), actions(*doubled)]))
    assert len(both) == 2553
    assert both["factor_off"].max() < 1e-4
    assert same_close(both)["off"].max() < 1e-3
    assert (both["off"] < 1e-3).mean() > 0.98


def test_the_split_of_2020_is_the_one_in_yahoo_s_recorded_answer():
    found = adjusted_bars(lean_bars("AAPL"), lean_actions("AAPL"), date(2020, 11, 6))
    eve = found.row(by_predicate=pl.col("session") == date(2020, 8, 28), named=True)
    # Raw 499.23; the answer's chartPreviousClose.
    assert eve["split_close"] == pytest.approx(124.808, rel=1e-5)
    both = found.join(yahoo("node-yahoo-finance2", "AAPL"), on="session").sort("session")
    assert len(both) == 49
    assert (both["split_close"] / both["yahoo_close"] - 1).abs().max() < 1e-3
    # Recorded in 2025: relative to the last day, for the dividends since then are in all of its rows alike.
    ours = both["adjusted_close"] / both["adjusted_close"][-1]
    theirs = both["yahoo_adjusted"] / both["yahoo_adjusted"][-1]
    assert (ours / theirs - 1).abs().max() < 1e-3


def test_an_action_of_tomorrow_changes_nothing_that_is_asked_as_of_today():
    bars, told = lean_bars("AAPL", last=date(2015, 12, 31)), lean_actions("AAPL")
    eve = adjusted_bars(bars, told, date(2014, 6, 6))
    known = told.filter(pl.col("session") <= date(2014, 6, 6))
    assert eve.equals(adjusted_bars(bars, known, date(2014, 6, 6)))
    assert eve["session"].max() == date(2014, 6, 6)
    assert eve["split_close"][-1] == eve["close"][-1] == pytest.approx(645.57)
    after = adjusted_bars(bars, told, date(2014, 6, 9)).filter(pl.col("session") == date(2014, 6, 6))
    assert after["split_close"].item() == pytest.approx(645.57 / 7, rel=1e-5)
    assert after["split_volume"].item() == pytest.approx(after["volume"].item() * 7, rel=1e-5)


def test_what_the_public_did_not_know_by_then_does_not_exist():
    bars = lean_bars("AAPL", first=date(2014, 6, 2), last=date(2014, 6, 20))
    late = actions(("AAPL", date(2014, 6, 9), "split", 7, date(2014, 6, 12)))
    assert adjusted_bars(bars, late, date(2014, 6, 11))["split_factor"].to_list() == [1.0] * 8
    assert adjusted_bars(bars, late, date(2014, 6, 12))["split_factor"].to_list() == [1 / 7] * 5 + [1.0] * 4


@pytest.mark.parametrize("as_of", [date(2014, 6, 6), date(2014, 6, 9), date(2019, 1, 2), date(2020, 11, 6)])
def test_split_adjusted_prices_end_in_the_same_basis_as_raw_ones(as_of: date):
    raw, told = lean_bars("AAPL", first=date(2014, 3, 3)), lean_actions("AAPL")
    wanted = adjusted_bars(raw, told, as_of)
    for fetched in (date(2014, 6, 9), date(2015, 1, 5), date(2021, 1, 4)):
        ratio = pl.lit(1.0)
        for split in told.filter(kind="split").iter_rows(named=True):
            applies = pl.lit(split["session"] <= fetched) & (pl.col("session") < split["session"])
            ratio = ratio * pl.when(applies).then(split["value"]).otherwise(1.0)
        moment = datetime(fetched.year, fetched.month, fetched.day, 22, tzinfo=UTC)
        served = raw.filter(pl.col("session") <= fetched).with_columns(
            *(pl.col(name) / ratio for name in ("open", "high", "low", "close")),
            pl.col("volume") * ratio,
            pl.lit("split").alias("adjustment"),
            pl.lit(moment).cast(raw.schema["fetched_at"]).alias("fetched_at"),
        )
        found = adjusted_bars(served, told, as_of)
        both = found.join(wanted, on="session", suffix="_raw")
        assert len(both) == len(found) > 60
        for name in ("split_open", "split_close", "split_volume"):
            assert (both[name] / both[f"{name}_raw"] - 1).abs().max() < 1e-12, (fetched, name)
        # A window that ends with the fetch has no later dividends.
        if fetched >= as_of:
            assert (both["adjusted_close"] / both["adjusted_close_raw"] - 1).abs().max() < 1e-12


def test_a_dividend_on_the_day_of_a_split_is_cash_on_a_share_after_it():
    # Shin-Etsu, 2023-03-30: 5:1 and 55 yen a new share; Yahoo made 4206 of the day before to 4151.
    bars = clean_bars(
        pl.DataFrame(
            {"symbol": "4063.T", "session": [date(2023, 3, 29), date(2023, 3, 30)], "open": [21030.0, 4257.0]}
        ).with_columns(high="open", low="open", close="open", volume=pl.lit(1.0))
    )
    told = actions(("4063.T", date(2023, 3, 30), "split", 5), ("4063.T", date(2023, 3, 30), "dividend", 55))
    found = adjusted_bars(bars, told, date(2023, 4, 14))
    assert found["split_close"].to_list() == pytest.approx([4206, 4257])
    assert found["adjusted_close"].to_list() == pytest.approx([4151, 4257])


@pytest.mark.parametrize("cash", [93.70 * 7, 1000.0])
def test_a_dividend_that_is_not_below_the_close_before_it_makes_no_price_negative(cash: float):
    bars = lean_bars("AAPL", first=date(2014, 6, 2), last=date(2014, 6, 20))
    told = actions(("AAPL", date(2014, 6, 10), "dividend", cash), ("AAPL", date(2014, 6, 12), "dividend", 0.94))
    found = adjusted_bars(bars, told, date(2014, 6, 20))
    assert found["adjusted_close"].min() > 0
    # The other one counts as ever.
    assert set(found.filter(pl.col("session") < date(2014, 6, 12))["dividend_factor"]) == {1 - 0.94 / 93.86}


def test_a_session_that_opens_on_the_evening_before_is_in_shares_of_its_own_day():
    # Sydney's summer: 10:00 of the 10th is 23:00 UTC of the 9th, and that was when the bar was fetched.
    evening = datetime(2022, 1, 9, 23, 0, tzinfo=UTC)
    bar = pl.DataFrame({"symbol": "BHP", "session": [date(2022, 1, 10)], "volume": [1.0], "open_time": [evening]})
    bar = bar.with_columns(*(pl.lit(22.5).alias(name) for name in ("open", "high", "low", "close")))
    bar = clean_bars(bar.with_columns(pl.lit(evening).alias("fetched_at")), adjustment="split")
    found = adjusted_bars(bar, actions(("BHP", date(2022, 1, 10), "split", 2)), date(2022, 1, 11))
    assert found["split_close"].to_list() == [22.5]


def test_dividends_without_a_bar_before_them_change_nothing():
    bars = lean_bars("AAPL", first=date(2014, 6, 9), last=date(2014, 6, 20))
    found = adjusted_bars(bars, lean_actions("AAPL"), date(2014, 6, 20))
    assert found["adjusted_close"].equals(found["close"].rename("adjusted_close"))
