from datetime import UTC, date, datetime

import polars as pl
import pytest

from quantlytic_assets.schemas.trading import CHANGES_SCHEMA
from quantlytic_assets.trading.costs import with_costs
from quantlytic_assets.trading.entitlements import Entitlements
from quantlytic_assets.trading.paper import decide, last_decisions
from quantlytic_assets.trading.risk import NO_PRICE, TOO_SMALL, with_reason
from quantlytic_assets.trading.simulated_broker import BrokerNotAvailable, broker_for, fill
from quantlytic_assets.trading.sizing import with_target
from quantlytic_assets.universe.models import Costs
from quantlytic_tests.trading.frames import daily, predict, strategy

MONDAY, TUESDAY, WEDNESDAY = date(2015, 3, 2), date(2015, 3, 3), date(2015, 3, 4)
NOTHING = pl.DataFrame(schema=CHANGES_SCHEMA)


def test_the_target_is_whole_units_of_an_equal_share_of_the_capital():
    plan = pl.DataFrame(
        {"prediction": [1, 1, 0, 0, 1, 1, 1], "reference_price": [33.0, 6000.0, 33.0, None, None, float("nan"), -1.0]}
    )
    assert with_target(plan, 10_000, 2)["target"].to_list() == [151.0, 0.0, 0.0, 0.0, None, None, None]


def test_slippage_goes_against_the_order_and_commission_is_on_the_price_paid():
    matched = pl.DataFrame({"side": ["buy", "sell"], "quantity": [10.0, 10.0], "open": [100.0, 100.0]})
    priced = with_costs(matched, Costs(commission_bps=10.0, slippage_bps=20.0))
    assert priced["price"].to_list() == pytest.approx([100.2, 99.8])
    assert priced["commission"].to_list() == pytest.approx([1.002, 0.998])
    assert priced["slippage"].to_list() == pytest.approx([2.0, 2.0])


def test_a_plan_above_the_capital_is_rejected_as_a_whole_and_other_sessions_are_not():
    plan = pl.DataFrame(
        {
            "session": [MONDAY, MONDAY, TUESDAY],
            "symbol": ["AAA", "BBB", "AAA"],
            "reference_price": [60.0, 41.0, 60.0],
            "target": [1.0, 1.0, 1.0],
        }
    )
    reasons = with_reason(plan, 100.0)["reason"].to_list()
    assert reasons == ["gross exposure 101.0 above capital 100.0"] * 2 + [None]
    assert with_reason(plan, 101.0)["reason"].to_list() == [None] * 3


def decisions(rows):
    return pl.DataFrame(
        [(s, symbol, up, "1", datetime(s.year, s.month, s.day, 21, tzinfo=UTC), p) for s, symbol, up, p in rows],
        {
            "session": pl.Date,
            "symbol": pl.String,
            "prediction": pl.Int64,
            "model_version": pl.String,
            "decision_time": pl.Datetime("us", "UTC"),
            "reference_price": pl.Float64,
        },
        orient="row",
    )


def brief(orders):
    return orders.select("order_ref", "side", "quantity", "status", "reason").rows()


def test_orders_are_the_difference_between_target_and_holdings():
    friday, thursday = date(2015, 2, 27), date(2015, 2, 26)
    held = pl.DataFrame([("BBB", thursday, 50.0), ("BBB", friday, -20.0)], CHANGES_SCHEMA, orient="row")
    orders = decide(
        strategy(),
        decisions(
            [
                (MONDAY, "AAA", 1, 50.0),
                (MONDAY, "BBB", 1, 100.0),
                (TUESDAY, "AAA", 1, 50.0),
                (TUESDAY, "BBB", 0, 99.0),
            ]
        ),
        held,
        Entitlements(),
    )
    assert brief(orders) == [
        ("momentum_1d:2015-03-02:AAA", "buy", 100.0, "open", None),
        ("momentum_1d:2015-03-02:BBB", "buy", 20.0, "open", None),
        ("momentum_1d:2015-03-03:BBB", "sell", 50.0, "open", None),
    ]


def test_a_rejected_order_is_listed_and_leaves_the_holding_as_it_was():
    rows = [(MONDAY, "AAA", 1, 50.0), (TUESDAY, "AAA", 1, None), (WEDNESDAY, "AAA", 0, 51.0)]
    assert brief(decide(strategy(), decisions(rows), NOTHING, Entitlements())) == [
        ("momentum_1d:2015-03-02:AAA", "buy", 100.0, "open", None),
        ("momentum_1d:2015-03-03:AAA", "buy", 0.0, "rejected", NO_PRICE),
        ("momentum_1d:2015-03-04:AAA", "sell", 100.0, "open", None),
    ]


def test_a_sale_without_a_price_is_rejected_too():
    rows = [(MONDAY, "AAA", 1, 50.0), (TUESDAY, "AAA", 0, float("nan")), (WEDNESDAY, "AAA", 0, 51.0)]
    assert brief(decide(strategy(), decisions(rows), NOTHING, Entitlements()))[1:] == [
        ("momentum_1d:2015-03-03:AAA", "sell", 100.0, "rejected", NO_PRICE),
        ("momentum_1d:2015-03-04:AAA", "sell", 100.0, "open", None),
    ]


def test_a_unit_too_dear_for_its_share_is_rejected_but_a_holding_that_became_too_dear_is_sold():
    rows = [(MONDAY, "AAA", 1, 6000.0), (TUESDAY, "AAA", 1, 5000.0), (WEDNESDAY, "AAA", 1, 5001.0)]
    assert brief(decide(strategy(), decisions(rows), NOTHING, Entitlements())) == [
        ("momentum_1d:2015-03-02:AAA", "buy", 0.0, "rejected", TOO_SMALL),
        ("momentum_1d:2015-03-03:AAA", "buy", 1.0, "open", None),
        ("momentum_1d:2015-03-04:AAA", "sell", 1.0, "open", None),
    ]


def test_a_symbol_without_a_decision_keeps_what_it_has():
    rows = [(MONDAY, "AAA", 1, 50.0), (WEDNESDAY, "AAA", 1, 50.0)]
    assert len(decide(strategy(), decisions(rows), NOTHING, Entitlements())) == 1


def test_the_last_prediction_of_a_session_decides():
    bars = daily([("AAA", MONDAY, 10.0, 11.0)])
    later = bars.with_columns(pl.col("open_time", "available_at") + pl.duration(minutes=5), close=pl.lit(12.0))
    both = pl.concat([later, bars])
    last = last_decisions(predict(both, [0, 1]), both)
    assert last.select("prediction", "reference_price").rows() == [(0, 12.0)]
    assert last["decision_time"].to_list() == later["available_at"].to_list()


def order(symbol, session, decided):
    return decide(strategy(), decisions([(session, symbol, 1, 50.0)]), NOTHING, Entitlements()).with_columns(
        pl.lit(decided, pl.Datetime("us", "UTC")).alias("decision_time")
    )


def test_an_order_is_filled_at_the_first_open_at_or_after_its_decision():
    bars = daily([("AAA", MONDAY, 10.0, 11.0), ("AAA", TUESDAY, 12.0, 13.0), ("BBB", MONDAY, 1.0, 1.0)])
    opening = datetime(2015, 3, 3, 14, 30, tzinfo=UTC)
    for decided in (datetime(2015, 3, 2, 14, 30, 0, 1, tzinfo=UTC), opening):
        filled = fill(order("AAA", MONDAY, decided), bars, Costs(0.0, 0.0), Entitlements())
        shown = filled.select("fill_time", "fill_session", "price", "session").rows()
        assert shown == [(opening, TUESDAY, 12.0, MONDAY)]
    late = order("AAA", TUESDAY, datetime(2015, 3, 3, 14, 30, 0, 1, tzinfo=UTC))
    assert fill(late, bars, Costs(0.0, 0.0), Entitlements()).is_empty()
    assert fill(order("CCC", MONDAY, opening), bars, Costs(0.0, 0.0), Entitlements()).is_empty()


def test_a_bar_without_a_usable_open_fills_nothing():
    bars = daily([("AAA", TUESDAY, float("nan"), 13.0), ("AAA", WEDNESDAY, 14.0, 13.0)])
    filled = fill(order("AAA", MONDAY, datetime(2015, 3, 2, 21, tzinfo=UTC)), bars, Costs(0.0, 0.0), Entitlements())
    assert filled["fill_session"].to_list() == [WEDNESDAY]


def test_a_broker_that_is_not_there_yet_says_what_to_set():
    with pytest.raises(BrokerNotAvailable, match=r"strategies.momentum_1d.broker: 'ibkr'.*broker: simulated"):
        broker_for(strategy(broker="ibkr"), daily([]), Entitlements())
