"""The engine against cases recorded from pyalgotrade and zipline, with their conventions as settings."""

import csv
import math
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from pathlib import Path

import polars as pl
import pytest

from quantlytic_assets.trading.engine.market import BARS_SCHEMA, Market
from quantlytic_assets.trading.engine.orders import to_tick
from quantlytic_assets.trading.engine.run import Stepper
from quantlytic_assets.trading.engine.settings import Costs, EngineSettings

DATA = Path(__file__).parents[2] / "data" / "engine"


def rows(name: str) -> list[dict]:
    with open(DATA / name) as file:
        return list(csv.DictReader(file))


PYALGOTRADE = {
    case: list(told) for case, told in groupby(rows("pyalgotrade_broker_events.csv"), lambda row: row["case"])
}
# What a test there sets after the broker was made, which the recording does not tell.
COMMISSIONS = {
    "testFixedPerTradeWithPartialFills": Costs(per_order=1.2),
    "testTradePercentageWithPartialFills": Costs(commission_bps=1_000),
    "testBuyWithCommission": Costs(per_order=10),
    "testSellShortWithCommission": Costs(per_order=10),
}
DECIMALS = {"testBuyPartialWithEightDecimals": 1e-8, "testBuyPartialWithTwoDecimals": 0.01}


def test_all_recorded_cases_are_there():
    assert len(PYALGOTRADE) == 55
    assert len(rows("zipline_slippage.csv")) == 36
    assert len(rows("zipline_price_rounding.csv")) == 230


def number(text: str) -> float:
    return float(text) if text else math.nan


def market_of(told: list[dict], case: str) -> Market:
    """The bars of a case after an empty time, on which what comes before the first bar is decided."""
    bars, closes = [], {}
    before = datetime(2010, 12, 31, tzinfo=UTC)
    names = sorted({row["instrument"] for row in told if row["instrument"]}) or ["orcl"]
    bars.append((names[0], before.date(), before, before, before, *[None] * 5))
    for row in told:
        if row["event"] != "bar":
            continue
        start = datetime.fromisoformat(row["ts"]).replace(tzinfo=UTC)
        end = start + timedelta(seconds=max(float(row["freq"]), 1e-6))
        prices = [float(row[name]) for name in ("open", "high", "low", "close", "volume")]
        bars.append((row["instrument"], start.date(), start, end, end, *prices))
        whole_day = row["freq"] == "86400"
        closes[start.date()] = end if whole_day else datetime.combine(
            start.date() + timedelta(days=1), datetime.min.time(), UTC
        )  # fmt: skip
    frame = pl.DataFrame(bars, schema=BARS_SCHEMA, orient="row")
    return Market.from_frame(frame, names, lots=DECIMALS.get(case, 1.0), session_closes=closes)


@pytest.mark.parametrize("case", PYALGOTRADE)
def test_pyalgotrade(case: str):
    told = PYALGOTRADE[case]
    name = case.rsplit(".", 1)[1]
    # Bars of single trades have no volume limit there.
    cap = 1.0 if any(row["freq"] == "-1" for row in told) else 0.25
    capital = next(float(row["cash_after"]) for row in told if row["event"] == "broker")
    settings = EngineSettings(
        capital, short=True, volume_cap=cap, costs=COMMISSIONS.get(name, Costs()),
        limit_fill="touch", stop_limit_fill="best",
    )  # fmt: skip
    stepper = Stepper(market_of(told, name), settings)
    stepper.step()
    numbers, expected = {}, []
    for row in told:
        if row["event"] == "submit":
            sign = 1 if row["action"].startswith("BUY") else -1
            kind = row["type"].lower() if row["on_close"] != "True" else "market_on_close"
            numbers[row["order_id"]] = stepper.submit(
                row["instrument"], sign * float(row["qty"]), type=kind, limit=number(row["limit"]),
                stop=number(row["stop"]), time_in_force="gtc" if row["gtc"] == "True" else "day",
                reduce_only=row["action"] == "SELL",
            )  # fmt: skip
        elif row["event"] == "bar":
            assert stepper.step()
        elif row["event"] in ("filled", "partially_filled"):
            order = numbers[row["order_id"]]
            expected.append(
                (order, *(float(row[one]) for one in ("qty", "price", "commission", "cash_after", "position_after")))
            )
        elif row["event"] == "cancel_request":
            # One that ended with its position is no longer there to cancel.
            stepper.cancel(numbers[row["order_id"]])
    events = stepper.finish().events.frame()
    fills = events.filter(pl.col("kind") == "fill")
    got = fills.select("order", "quantity", "price", "commission", "cash", "position").rows()
    assert len(got) == len(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-8)
    ended = events.filter(pl.col("kind").is_in(["order_cancelled", "order_expired"]))["order"].to_list()
    canceled = [numbers[row["order_id"]] for row in told if row["event"] == "canceled"]
    assert sorted(ended) == sorted(canceled)


def zipline_groups() -> list[list[dict]]:
    groups: list[list[dict]] = []
    for row in rows("zipline_slippage.csv"):
        shared = row["case"].startswith("test_volume_limit") and row["order_index"] != "0"
        if shared:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


@pytest.mark.parametrize("group", zipline_groups(), ids=lambda group: f"{group[0]['case']} {group[0]['order_amount']}")
def test_zipline_slippage(group: list[dict]):
    params = eval(group[0]["params"])
    costs = Costs(impact=params.get("price_impact", 0.0), slippage_bps=params.get("basis_points", 0.0))
    settings = EngineSettings(1e9, short=True, volume_cap=params["volume_limit"], fill_at="close", costs=costs)
    start = datetime.fromisoformat(group[0]["bar_time"])
    prices = [number(group[0][name]) for name in ("open", "high", "low", "close", "volume")]
    before = start - timedelta(minutes=1)
    frame = pl.DataFrame(
        [
            ("A", date(2006, 1, 5), before, start, start, *[None] * 5),
            ("A", date(2006, 1, 5), start, start + timedelta(minutes=1), start + timedelta(minutes=1), *prices),
        ],
        schema=BARS_SCHEMA, orient="row",
    )  # fmt: skip
    stepper = Stepper(Market.from_frame(frame, session_closes={}), settings)
    stepper.step()
    for row in group:
        stepper.submit("A", float(row["order_amount"]), limit=number(row["limit"]), stop=number(row["stop"]))
    stepper.step()
    fills = stepper.finish().events.frame().filter(pl.col("kind") == "fill")
    got = {row["order"]: row for row in fills.iter_rows(named=True)}
    for place, row in enumerate(group, 1):
        filled = got.get(place)
        if float(row["fill_amount"]) == 0:
            assert filled is None
            continue
        sign = 1 if filled["side"] == "buy" else -1
        assert sign * filled["quantity"] == float(row["fill_amount"])
        assert filled["price"] == pytest.approx(float(row["fill_price"]), rel=1e-12)


def test_zipline_price_rounding():
    for row in rows("zipline_price_rounding.csv"):
        tick, price = float(row["tick_size"]), float(row["input_price"])
        for down, column in ((True, "expected_limit_buy_or_stop_sell"), (False, "expected_limit_sell_or_stop_buy")):
            assert to_tick.py_func(price, tick, down) == pytest.approx(float(row[column]), abs=1e-12), row
