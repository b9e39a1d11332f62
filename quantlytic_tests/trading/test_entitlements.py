"""Orders, holdings and cash across splits and dividends."""

from datetime import date, timedelta

import polars as pl
import pytest

from quantlytic_assets.trading.entitlements import DIVIDENDS_SCHEMA, GROWTH_SCHEMA, Entitlements
from quantlytic_assets.trading.paper import trade
from quantlytic_assets.trading.performance import benchmark_curve
from quantlytic_assets.trading.portfolio import equity_curve, positions
from quantlytic_assets.universe import Costs
from quantlytic_tests.trading.frames import daily, ledger_in, predict, strategy

DAYS = [date(2015, 3, 2) + timedelta(days=i) for i in range(5)]
FREE = strategy(symbols=("AAA",), capital=2_100.0, costs=Costs(0.0, 0.0))


def growth(*steps: tuple[str, date, float]) -> Entitlements:
    return Entitlements(pl.DataFrame(list(steps), GROWTH_SCHEMA, orient="row"))


def account(tmp_path, bars: pl.DataFrame, ups: list[int], entitlements: Entitlements, mine=FREE):
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
    ledger, fills, held, curve = account(tmp_path, bars, [1, 1, 1, 1, 1], growth(("AAA", DAYS[2], ratio)))
    assert fills.select("fill_session", "side", "quantity").rows() == [(DAYS[1], "buy", 100.0)]
    assert held["quantity"].to_list() == pytest.approx([100.0, 100 * ratio, 100 * ratio, 100 * ratio])
    assert held["average_price"].to_list() == pytest.approx(prices[1:])
    assert curve["equity"].to_list() == pytest.approx([2100.0] * 5)
    assert ledger.orders(FREE.name)["quantity"].to_list() == [100.0]


def test_an_order_that_a_split_overtakes_is_filled_in_new_shares(tmp_path):
    prices = [21.0, 3.0, 3.0, 3.0, 3.0]
    bars = daily([("AAA", day, price, price) for day, price in zip(DAYS, prices, strict=True)])
    ledger, fills, held, curve = account(tmp_path, bars, [1, 1, 0, 0, 0], growth(("AAA", DAYS[1], 7.0)))
    assert ledger.orders(FREE.name).select("side", "quantity").rows() == [("buy", 100.0), ("sell", 700.0)]
    assert fills.select("side", "quantity", "price").rows() == [("buy", 700.0, 3.0), ("sell", 700.0, 3.0)]
    assert held["quantity"].to_list() == [700.0] * 2
    assert curve["equity"].to_list() == pytest.approx([2100.0] * 5)


def test_a_session_without_a_bar_is_worth_the_last_close_in_its_own_shares(tmp_path):
    bars = daily([("AAA", DAYS[0], 21.0, 21.0), ("AAA", DAYS[1], 20.0, 21.0), ("AAA", DAYS[4], 5.0, 5.25)])
    _, _, held, curve = account(tmp_path, bars, [1, 1, 1], growth(("AAA", DAYS[2], 4.0)))
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
    steps = pl.DataFrame([("AAA", DAYS[2], 2.0)], GROWTH_SCHEMA, orient="row")
    mine = strategy(symbols=("AAA",), capital=2_000.0, costs=Costs(0.0, 0.0))
    _, _, _, curve = account(tmp_path, bars, [1, 1, 1, 1, 1], Entitlements(steps, paid), mine)
    assert curve["equity"].to_list() == pytest.approx([2000.0, 2000.0, 2050.0, 2050.0, 2050.0])


@pytest.mark.parametrize("ratio", [7.0, 0.1, 1.25])
def test_fills_from_prices_that_had_a_later_split_in_them_are_found_once_it_is_known(tmp_path, ratio):
    known = growth(("AAA", DAYS[3], ratio))
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
    steps = pl.DataFrame([("AAA", DAYS[2], 2.0)], GROWTH_SCHEMA, orient="row")
    mine = strategy(symbols=("AAA",), capital=2_000.0, costs=Costs(0.0, 0.0))
    curve, _ = benchmark_curve(mine, bars, bars["available_at"].min(), DAYS, Entitlements(steps, paid))
    assert curve["equity"].to_list() == pytest.approx([2000.0, 2000.0, 2000.0, 2200.0, 2200.0])
