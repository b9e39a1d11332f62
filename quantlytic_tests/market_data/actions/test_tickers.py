"""What a ticker of a day means at other times."""

from datetime import date

import polars as pl
import pytest

from quantlytic_assets.market_data.actions.listings import listings
from quantlytic_assets.market_data.actions.tickers import Stretch, tickers_of

FIRST, END = -1, 10**9
# FB became META, whose ticker another company had before; then a third company took FB.
RENAMES = [("FB", date(2022, 6, 9), "META"), ("META", date(2022, 1, 31), "METV"), ("NEW", date(2024, 3, 1), "FB")]


@pytest.fixture(scope="module")
def stretches():
    found = listings(pl.DataFrame(RENAMES, schema=["symbol", "session", "new_symbol"], orient="row"))
    opens = {day: None if day == date.min else day.toordinal() for day in found["since"].unique()}
    return [Stretch(*row, opens[row[1]]) for row in found.iter_rows()]


def at(year, month, day):
    return date(year, month, day).toordinal()


@pytest.mark.parametrize(
    ("symbol", "day", "wanted"),
    [
        ("META", date(2025, 1, 2), [("FB", FIRST, at(2022, 6, 9)), ("META", at(2022, 6, 9), END)]),
        ("FB", date(2022, 6, 8), [("FB", FIRST, at(2022, 6, 9)), ("META", at(2022, 6, 9), END)]),
        ("META", date(2021, 1, 4), [("META", FIRST, at(2022, 1, 31)), ("METV", at(2022, 1, 31), END)]),
        ("FB", date(2024, 3, 1), [("NEW", FIRST, at(2024, 3, 1)), ("FB", at(2024, 3, 1), END)]),
        ("AAPL", date(2025, 1, 2), [("AAPL", FIRST, END)]),
    ],
)
def test_a_ticker_of_a_day_stands_for_all_tickers_of_its_company(stretches, symbol, day, wanted):
    assert tickers_of(stretches, symbol, day, FIRST, END) == wanted
