"""Orders, holdings and cash across splits and dividends."""

from datetime import date, timedelta
from typing import Any

import polars as pl
import pytest

from quantlytic_assets.market_data.actions.split_factors import split_factors
from quantlytic_assets.trading.entitlements import DIVIDENDS_SCHEMA, STEPS_SCHEMA, Entitlements
from quantlytic_assets.trading.paper import trade
from quantlytic_assets.trading.performance import benchmark_curve
from quantlytic_assets.trading.portfolio import equity_curve, positions
from quantlytic_assets.universe.models import Costs
from quantlytic_tests.market_data.recorded_prices import actions
from quantlytic_tests.trading.frames import daily, ledger_in, predict, strategy

DAYS = [date(2015, 3, 2) + timedelta(days=i) for i in range(5)]
FREE = strategy(symbols=("AAA",), capital=2_100.0, costs=Costs(0.0, 0.0))


def split(symbol: str, day: date, ratio: float) -> pl.DataFrame:
    return pl.DataFrame([(symbol, day, symbol, ratio)], STEPS_SCHEMA, orient="row")


def split_factor(*of_a_split: Any) -> Entitlements:
    return Entitlements(split(*of_a_split))


def told(*rows: tuple) -> Entitlements:
    """What follows from actions, each a (symbol, session, kind, value)."""
    paid = pl.DataFrame(
        [(symbol, day, value) for symbol, day, kind, value in rows if kind == "dividend"],
        DIVIDENDS_SCHEMA, orient="row",
    )  # fmt: skip
    counts = split_factors(actions(*rows), "daily").rename({"shares": "split_factor"})
    return Entitlements(counts.select(STEPS_SCHEMA.names()), paid)


def account(tmp_path, bars: pl.DataFrame, ups: list[int] | pl.Expr, entitlements: Entitlements, mine=FREE):
    ledger = ledger_in(tmp_path)
    trade(mine, predict(bars, ups), bars, ledger, DAYS, entitlements=entitlements)
    fills = ledger.fills(mine.name)
    held = positions(mine.name, fills, bars, DAYS, entitlements)
    return ledger, fills, held, equity_curve(held, fills, mine.capital, DAYS, entitlements)


@pytest.mark.parametrize("ratio", [3.0, 7.0, 0.1])
def test_a_split_makes_nobody_richer_and_sells_nothing(tmp_path, ratio):
    prices = [21.0, 21.0, 21.0 / ratio, 21.0 / ratio, 21.0 / ratio]
    bars = daily([("AAA", day, price, price) for day, price in zip(DAYS, prices, strict=True)])
    # Held from the second session on; the split is on the third.
    ledger, fills, held, curve = account(tmp_path, bars, [1, 1, 1, 1, 1], split_factor("AAA", DAYS[2], ratio))
    assert fills.select("fill_session", "side", "quantity").rows() == [(DAYS[1], "buy", 100.0)]
    assert held["quantity"].to_list() == pytest.approx([100.0, 100 * ratio, 100 * ratio, 100 * ratio])
    assert held["average_price"].to_list() == pytest.approx(prices[1:])
    assert curve["equity"].to_list() == pytest.approx([2100.0] * 5)
    assert ledger.orders(FREE.name)["quantity"].to_list() == [100.0]


def test_an_order_that_a_split_overtakes_is_filled_in_new_shares(tmp_path):
    prices = [21.0, 3.0, 3.0, 3.0, 3.0]
    bars = daily([("AAA", day, price, price) for day, price in zip(DAYS, prices, strict=True)])
    ledger, fills, held, curve = account(tmp_path, bars, [1, 1, 0, 0, 0], split_factor("AAA", DAYS[1], 7.0))
    assert ledger.orders(FREE.name).select("side", "quantity").rows() == [("buy", 100.0), ("sell", 700.0)]
    assert fills.select("side", "quantity", "price").rows() == [("buy", 700.0, 3.0), ("sell", 700.0, 3.0)]
    assert held["quantity"].to_list() == [700.0] * 2
    assert curve["equity"].to_list() == pytest.approx([2100.0] * 5)


def test_a_session_without_a_bar_is_worth_the_last_close_in_its_own_shares(tmp_path):
    bars = daily([("AAA", DAYS[0], 21.0, 21.0), ("AAA", DAYS[1], 20.0, 21.0), ("AAA", DAYS[4], 5.0, 5.25)])
    _, _, held, curve = account(tmp_path, bars, [1, 1, 1], split_factor("AAA", DAYS[2], 4.0))
    assert held.select("quantity", "close").rows() == [(100.0, 21.0), *[(400.0, 5.25)] * 3]
    assert curve["equity"].to_list() == pytest.approx([2100.0] + [2200.0] * 4)


def test_dividends_go_to_who_holds_on_the_eve_of_the_ex_date(tmp_path):
    bars = daily([("AAA", day, 21.0, 21.0) for day in DAYS])
    paid = [("AAA", DAYS[1], 9.0), ("AAA", DAYS[2], 0.5), ("AAA", DAYS[3], 1.0), ("BBB", DAYS[3], 7.0)]
    entitlements = Entitlements(dividends=pl.DataFrame(paid, DIVIDENDS_SCHEMA, orient="row"))
    # Bought at the open of the second session, an ex-date; sold at the open of the fourth, another one.
    _, _, _, curve = account(tmp_path, bars, [1, 1, 0, 0, 0], entitlements)
    assert curve["cash"].to_list() == pytest.approx([2100.0, 0.0, 50.0, 2250.0, 2250.0])
    assert curve["equity"].to_list() == pytest.approx([2100.0, 2100.0, 2150.0, 2250.0, 2250.0])


def test_a_dividend_on_the_day_of_a_split_is_paid_on_the_new_shares(tmp_path):
    bars = daily([("AAA", day, price, price) for day, price in zip(DAYS, [20, 20, 10, 10, 10], strict=True)])
    paid = pl.DataFrame([("AAA", DAYS[2], 0.25)], DIVIDENDS_SCHEMA, orient="row")
    steps = split("AAA", DAYS[2], 2.0)
    mine = strategy(symbols=("AAA",), capital=2_000.0, costs=Costs(0.0, 0.0))
    _, _, _, curve = account(tmp_path, bars, [1, 1, 1, 1, 1], Entitlements(steps, paid), mine)
    assert curve["equity"].to_list() == pytest.approx([2000.0, 2000.0, 2050.0, 2050.0, 2050.0])


@pytest.mark.parametrize("ratio", [7.0, 0.1, 1.25])
def test_fills_from_prices_that_had_a_later_split_in_them_are_found_once_it_is_known(tmp_path, ratio):
    known = split_factor("AAA", DAYS[3], ratio)
    traded = [21.0 * ratio, 20.0 * ratio, 21.0 * ratio, 21.0, 21.0]
    mine = strategy(symbols=("AAA",), capital=2_100.0, costs=Costs(1.0, 20.0))
    bars = daily([("AAA", day, price, price) for day, price in zip(DAYS, traded, strict=True)])
    fills = []
    # Once from prices that a vendor had adjusted, when nobody knew of the split, and once from prices as traded.
    for name, closes in (("late", [21.0, 20.0, 21.0, 21.0, 21.0]), ("sound", traded)):
        (tmp_path / name).mkdir()
        served = daily([("AAA", day, price, price) for day, price in zip(DAYS, closes, strict=True)])
        ledger = ledger_in(tmp_path / name)
        trade(mine, predict(served, [1, 0, 1, 0, 0]), served, ledger, DAYS)
        fills.append(ledger.fills(mine.name))
    late, sound = fills
    found = known.in_later_shares(late, bars)
    assert found["fill_session"].to_list() == [day for day in late["fill_session"] if day < DAYS[3]] == DAYS[1:3]
    assert known.in_later_shares(sound, bars).is_empty()
    assert Entitlements().in_later_shares(late, bars).is_empty()


def test_buy_and_hold_has_the_same_entitlements(tmp_path):
    bars = daily([("AAA", day, price, price) for day, price in zip(DAYS, [20, 20, 10, 10, 10], strict=True)])
    paid = pl.DataFrame([("AAA", DAYS[3], 1.0)], DIVIDENDS_SCHEMA, orient="row")
    steps = split("AAA", DAYS[2], 2.0)
    mine = strategy(symbols=("AAA",), capital=2_000.0, costs=Costs(0.0, 0.0))
    curve, _ = benchmark_curve(mine, bars, bars["available_at"].min(), DAYS, Entitlements(steps, paid))
    assert curve["equity"].to_list() == pytest.approx([2000.0, 2000.0, 2000.0, 2200.0, 2200.0])


RENAMED = strategy(symbols=("FB", "META"), capital=4_200.0, costs=Costs(0.0, 0.0))


def test_what_is_held_goes_on_under_its_new_name(tmp_path):
    # Renamed before the third session, split before the fourth, paid a dividend on the fifth.
    prices = [("FB", 21.0), ("FB", 21.0), ("META", 22.0), ("META", 11.0), ("META", 12.0)]
    bars = daily([(symbol, day, price, price) for day, (symbol, price) in zip(DAYS, prices, strict=True)])
    known = told(("FB", DAYS[2], "rename", "META"), ("META", DAYS[3], "split", 2.0), ("META", DAYS[4], "dividend", 0.5))
    ledger, fills, held, curve = account(tmp_path, bars, [1, 1, 1, 1, 0], known, RENAMED)
    assert ledger.orders(RENAMED.name).select("session", "symbol", "side", "quantity").rows() == [
        (DAYS[0], "FB", "buy", 100.0),
        (DAYS[2], "META", "sell", 5.0),
        (DAYS[4], "META", "sell", 190.0),
    ]
    assert held.select("session", "symbol", "quantity", "close").rows() == [
        (DAYS[1], "FB", 100.0, 21.0),
        (DAYS[2], "META", 100.0, 22.0),
        (DAYS[3], "META", 190.0, 11.0),
        (DAYS[4], "META", 190.0, 12.0),
    ]
    assert held["average_price"].to_list() == pytest.approx([21.0, 21.0, 10.5, 10.5])
    # 5 shares, 10 of the next day, were sold at 11.
    assert curve["equity"].to_list() == pytest.approx([4200.0, 4200.0, 4300.0, 4300.0, 4300 + 190 + 95])


def test_an_order_that_a_rename_overtakes_is_filled_under_the_new_name(tmp_path):
    bars = daily([("FB", DAYS[0], 21.0, 21.0), *[("META", day, 21.0, 21.0) for day in DAYS[1:]]])
    known = told(("FB", DAYS[1], "rename", "META"))
    ledger, fills, held, curve = account(tmp_path, bars, [1, 0, 0, 0, 0], known, RENAMED)
    assert fills.select("symbol", "side", "quantity", "fill_session").rows() == [
        ("META", "buy", 100.0, DAYS[1]),
        ("META", "sell", 100.0, DAYS[2]),
    ]
    assert held.select("session", "symbol").rows() == [(DAYS[1], "META")]
    assert ledger.open_orders(RENAMED.name).is_empty()


def test_a_holding_whose_ticker_another_company_took_is_not_worth_its_prices(tmp_path):
    bars = daily([("AAA", day, price, price) for day, price in zip(DAYS, [21, 21, 210, 210, 210], strict=True)])
    known = told(("AAA", DAYS[2], "rename", "AAA"))
    ledger, fills, held, curve = account(tmp_path, bars, [1, 1, 1, 0, 0], known)
    assert held.select("session", "symbol", "quantity", "close").rows() == [
        (DAYS[1], "AAA", 100.0, 21.0),
        (DAYS[2], f"AAA@{DAYS[2]}", 100.0, 21.0),
        (DAYS[3], "AAA", 10.0, 210.0),
        (DAYS[3], f"AAA@{DAYS[2]}", 100.0, 21.0),
        (DAYS[4], f"AAA@{DAYS[2]}", 100.0, 21.0),
    ]
    assert curve["equity"].to_list() == pytest.approx([2100.0] * 5)


def test_a_ticker_that_comes_back_means_its_own_company_each_time(tmp_path):
    # QQQ became QQQQ and QQQ again; what was held all the time is one holding.
    prices = [("QQQ", 21.0), ("QQQQ", 22.0), ("QQQQ", 23.0), ("QQQ", 24.0), ("QQQ", 25.0)]
    bars = daily([(symbol, day, price, price) for day, (symbol, price) in zip(DAYS, prices, strict=True)])
    known = told(("QQQ", DAYS[1], "rename", "QQQQ"), ("QQQQ", DAYS[3], "rename", "QQQ"))
    mine = strategy(symbols=("QQQ", "QQQQ"), capital=5_000.0, costs=Costs(0.0, 0.0))
    bought = (pl.col("session") < DAYS[4]).cast(pl.Int64)
    _, fills, held, curve = account(tmp_path, bars, bought, known, mine)
    assert held["symbol"].to_list() == ["QQQQ", "QQQQ", "QQQ", "QQQ"]
    assert fills["symbol"].to_list()[0] == "QQQQ"
    assert len(held) == held["session"].n_unique()
