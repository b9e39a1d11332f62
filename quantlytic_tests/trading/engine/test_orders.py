"""What each kind of order does in a bar, and what splits, halts and limits do to it."""

import math

import numpy as np
import polars as pl
import pytest

from quantlytic_assets.trading.engine.requests import Requests
from quantlytic_assets.trading.engine.run import Result, run
from quantlytic_assets.trading.engine.settings import Costs, EngineSettings, Exits, OrderStyle, Risk, Sizing
from quantlytic_tests.trading.engine.markets import DAYS, actions, daily, flat

NAN = math.nan
WHOLE = Sizing("weights")


def account(capital: float = 10_000.0, **how) -> EngineSettings:
    return EngineSettings(capital, **{"volume_cap": None, "sizing": WHOLE, **how})


def by_hand(market, *asked: tuple, settings: EngineSettings | None = None) -> Result:
    """Orders (time, symbol, quantity, what else), submitted by hand."""
    requests: dict[int, Requests] = {}
    for time, symbol, quantity, *how in asked:
        requests.setdefault(time, Requests(market.symbols)).submit(symbol, quantity, **(how[0] if how else {}))
    return run(market, None, settings or account(), orders=requests)


def fills(result: Result, *columns: str) -> list[tuple]:
    return result.events.frame().filter(kind="fill").select(columns or ("side", "quantity", "price")).rows()


def kinds(result: Result) -> list[tuple]:
    return result.events.frame().select("kind", "reason").rows()


BAR = ("AAA", 1, 20.0, 22.0, 18.0, 21.0)


def one_bar(quantity: float, how: dict, bar: tuple = BAR, **settings) -> list[tuple]:
    """Fills of an order decided at a close of 20, in the next bar."""
    market = daily([("AAA", 0, 20.0, 20.0, 20.0, 20.0), bar])
    held = () if quantity > 0 else (("AAA", 0, -quantity),)
    if held:
        # What is sold is bought a day before.
        rows = [("AAA", 0, 20.0, 20.0, 20.0, 20.0), ("AAA", 1, 20.0, 20.0, 20.0, 20.0), ("AAA", 2, *bar[2:])]
        result = by_hand(daily(rows), (0, "AAA", -quantity), (1, "AAA", quantity, how), settings=account(**settings))
        return fills(result)[1:]
    return fills(by_hand(market, (0, "AAA", quantity, how), settings=account(**settings)))


@pytest.mark.parametrize(
    ("quantity", "how", "expected"),
    [
        (10, {}, ("buy", 10, 20.0)),
        (10, {"limit": 19.0}, ("buy", 10, 19.0)),
        (10, {"limit": 20.5}, ("buy", 10, 20.0)),
        (10, {"limit": 18.0}, None),
        (10, {"stop": 21.5}, ("buy", 10, 21.5)),
        (10, {"stop": 19.5}, ("buy", 10, 20.0)),
        (10, {"stop": 22.0}, ("buy", 10, 22.0)),
        (10, {"stop": 22.5}, None),
        # The close of 21 is inside the first limit and outside the second.
        (10, {"stop": 20.5, "limit": 21.5}, ("buy", 10, 21.5)),
        (10, {"stop": 20.5, "limit": 20.6}, None),
        (10, {"type": "market_on_close"}, ("buy", 10, 21.0)),
        (10, {"type": "market_on_open"}, ("buy", 10, 20.0)),
        (-10, {"limit": 21.0}, ("sell", 10, 21.0)),
        (-10, {"limit": 22.0}, None),
        (-10, {"stop": 19.0}, ("sell", 10, 19.0)),
        (-10, {"stop": 20.5}, ("sell", 10, 20.0)),
        (-10, {"trail": 0.05}, ("sell", 10, 19.0)),
        (-10, {"trail": 0.2}, None),
    ],
)
def test_an_order_in_a_bar_of_20_22_18_21(quantity, how, expected):
    assert one_bar(quantity, how) == ([expected] if expected else [])


def test_a_touch_is_enough_for_a_limit_where_that_is_set():
    assert one_bar(10, {"limit": 18.0}, limit_fill="touch") == [("buy", 10.0, 18.0)]


def test_slippage_and_commission_of_what_takes_liquidity():
    costs = Costs(slippage_bps=10, spread_bps=20, commission_bps=5, per_share=0.01, minimum=1, maximum_bps=100)
    market = flat([20.0, 20.0])
    result = by_hand(market, (0, "AAA", 10), settings=account(costs=costs))
    [(price, fee, slippage)] = fills(result, "price", "commission", "slippage")
    assert (price, fee, slippage) == pytest.approx((20.04, 1.0, 0.4))
    assert result.state.cash == pytest.approx(10_000 - 200.4 - 1)
    # A limit gets its price.
    assert one_bar(10, {"limit": 19.0}, costs=Costs(slippage_bps=50)) == [("buy", 10.0, 19.0)]


def test_a_trailing_stop_is_tested_before_it_moves():
    # In the second bar the old stop of 18 holds; moved first, to 27, it would have been hit.
    rows = [
        ("AAA", 0, 20, 20, 20, 20),
        ("AAA", 1, 20, 20, 20, 20),
        ("AAA", 2, 20, 30, 19, 29),
        ("AAA", 3, 29, 29, 26, 28),
    ]
    result = by_hand(daily(rows), (0, "AAA", 10), (1, "AAA", -10, {"trail": 0.1, "time_in_force": "gtc"}))
    assert fills(result, "side", "price") == [("buy", 20.0), ("sell", 27.0)]


def test_the_volume_cap_is_shared_and_the_rest_keeps_working():
    rows = [("AAA", day, 20, 20, 20, 20, 400) for day in range(4)]
    how = {"time_in_force": "gtc"}
    result = by_hand(daily(rows), (0, "AAA", 60, how), (0, "AAA", 70, how), settings=account(volume_cap=0.25))
    assert fills(result, "order", "quantity", "value") == [(1, 60.0, 0.0), (2, 40.0, 30.0), (2, 30.0, 0.0)]


def test_what_must_fill_at_once_and_what_ends_with_the_session():
    rows = [("AAA", day, 20, 20, 20, 20, 400) for day in range(4)]
    for force, reason in (("ioc", "immediate_or_cancel"), ("day", "session_end")):
        result = by_hand(daily(rows), (0, "AAA", 60, {"time_in_force": force}), settings=account(volume_cap=0.1))
        assert kinds(result) == [("order_accepted", None), ("fill", None), ("order_expired", reason)]


def test_of_a_stop_and_a_target_in_one_bar_it_is_the_stop_and_ambiguous():
    rows = [("AAA", 0, 20, 20, 20, 20), ("AAA", 1, 20, 20, 20, 20), ("AAA", 2, 20, 25, 15, 20)]
    asked = (0, "AAA", 10, {"stop_loss": 18.0, "take_profit": 22.0})
    result = by_hand(daily(rows), asked)
    assert fills(result, "side", "price", "ambiguous", "leg") == [
        ("buy", 20.0, False, "own_1"), ("sell", 18.0, True, "own_1.stop"),
    ]  # fmt: skip
    assert kinds(result)[-1] == ("order_cancelled", "position_closed")
    # At the open nothing is ambiguous: a gap beyond the target comes before all else.
    rows[2] = ("AAA", 2, 23, 25, 15, 20)
    assert fills(by_hand(daily(rows), asked), "side", "price", "ambiguous") == [
        ("buy", 20.0, False), ("sell", 23.0, False),
    ]  # fmt: skip


def test_a_group_by_hand_whatever_comes_first_in_it():
    rows = [("AAA", 0, 20, 20, 20, 20), ("AAA", 1, 20, 20, 20, 20), ("AAA", 2, 20, 25, 15, 20)]
    limit, stop = (1, "AAA", -10, {"limit": 22.0, "group": 1}), (1, "AAA", -10, {"stop": 18.0, "group": 1})
    for pair in ((limit, stop), (stop, limit)):
        result = by_hand(daily(rows), (0, "AAA", 10), *pair)
        assert fills(result, "side", "price", "ambiguous") == [("buy", 20.0, False), ("sell", 18.0, True)]
        assert kinds(result)[-1] == ("order_cancelled", "oco")


def test_a_stop_is_tested_in_the_bar_of_the_entry():
    rows = [("AAA", 0, 20, 20, 20, 20), ("AAA", 1, 20, 30, 15, 20)]
    # Entered at the open: both are later. Entered within the bar: its high may have been before.
    opened = by_hand(daily(rows), (0, "AAA", 10, {"take_profit": 22.0}))
    assert fills(opened, "side", "price") == [("buy", 20.0), ("sell", 22.0)]
    within = by_hand(daily(rows), (0, "AAA", 10, {"limit": 19.0, "take_profit": 22.0}))
    assert fills(within, "side", "price") == [("buy", 19.0)]
    stopped = by_hand(daily(rows), (0, "AAA", 10, {"limit": 19.0, "stop_loss": 17.0, "take_profit": 22.0}))
    assert fills(stopped, "side", "price", "ambiguous") == [("buy", 19.0, False), ("sell", 17.0, True)]


def test_declared_exits_follow_the_position():
    market = daily([("AAA", 0, 20, 20, 20, 20), ("AAA", 1, 20, 20, 20, 20), ("AAA", 2, 24, 24, 24, 24)])
    targets = np.array([[0.5], [1.0], [NAN]])
    result = run(market, targets, account(exits=Exits(stop_loss=0.1, take_profit=0.5)))
    replaced = result.events.frame().filter(kind="order_replaced").select("quantity", "price", "stop").rows()
    # 250 at 20 and 208 more at 24, which cash allows.
    average = (250 * 20 + 208 * 24) / 458
    assert replaced == [
        (458.0, None, pytest.approx(average * 0.9)), (458.0, pytest.approx(average * 1.5), None),
    ]  # fmt: skip


def test_after_an_exit_a_symbol_waits_for_another_signal():
    prices = [20.0, 20.0, 17.0, 17.0, 17.0, 17.0, 17.0, 17.0]
    targets = np.array([[1.0], [1.0], [1.0], [1.0], [0.0], [1.0], [1.0], [1.0]])
    market = flat(prices)
    result = run(market, targets, account(exits=Exits(stop_loss=0.1)))
    # Stopped on the third day; the signal ends on the fifth and comes again on the sixth.
    days = result.events.frame().filter(kind="fill").select("session", "side", "leg").rows()
    assert days == [(DAYS[1], "buy", "entry"), (DAYS[2], "sell", "entry.stop"), (DAYS[6], "buy", "entry")]
    assert result.events.frame().filter(reason="exited")["session"].to_list() == [DAYS[2]]
    at_once = run(market, targets, account(exits=Exits(stop_loss=0.1, reenter=True)))
    assert fills(at_once, "side")[:3] == [("buy",), ("sell",), ("buy",)]
    assert at_once.events.frame().filter(kind="fill")["session"].to_list()[2] == DAYS[3]
    # The other side is another signal.
    turned = np.where(np.arange(8) < 4, 1.0, -1.0)[:, np.newaxis]
    short = run(market, turned, account(exits=Exits(stop_loss=0.1), short=True))
    assert fills(short, "side") == [("buy",), ("sell",), ("sell",)]


def test_an_exit_is_remembered_under_a_new_name():
    rows = [("OLD", day, price, price, price, price) for day, price in enumerate([20.0, 20.0, 17.0])]
    rows += [("NEW", day, 17.0, 17.0, 17.0, 17.0) for day in range(3, 6)]
    market = daily(rows, symbols=["OLD", "NEW"], actions=actions(("OLD", 3, "rename", "NEW")))
    targets = np.array([[1.0, NAN], [1.0, NAN], [1.0, NAN], [NAN, 1.0], [NAN, 1.0], [NAN, 1.0]])
    assert len(fills(run(market, targets, account(exits=Exits(stop_loss=0.1))), "side")) == 2


def test_an_atr_stop_and_a_maximum_of_bars():
    market = flat([20.0, 20.0, 20.0, 20.0, 20.0])
    atr = np.full((5, 1), 1.5)
    targets = np.array([[1.0], [NAN], [NAN], [NAN], [NAN]])
    result = run(market, targets, account(exits=Exits(atr_stop=2, max_bars=2)), atr=atr)
    told = result.events.frame()
    assert told.filter(leg="entry.stop", kind="order_accepted")["stop"].to_list()[0] == 17.0
    assert fills(result, "side", "leg") == [("buy", "entry"), ("sell", "max_bars")]
    with pytest.raises(ValueError, match="atr: exits.atr_stop needs"):
        run(market, None, account(exits=Exits(atr_stop=2)))


def test_a_split_while_an_order_works():
    rows = [
        ("AAA", 0, 20, 20, 20, 20),
        ("AAA", 1, 20, 21, 20, 21),
        ("AAA", 2, 5.1, 5.2, 4.7, 5),
        ("AAA", 3, 5, 5, 4, 4.4),
    ]
    market = daily(rows, actions=actions(("AAA", 2, "split", 4.0)))
    how = {"limit": 19.0, "time_in_force": "gtc", "stop_loss": 18.0}
    result = by_hand(market, (0, "AAA", 10, how))
    assert fills(result) == [("buy", 40.0, 4.75), ("sell", 40.0, 4.5)]
    assert ("split", None) in kinds(result)


def test_a_delisting_pays_the_last_close_and_ends_orders():
    rows = [("AAA", day, 20, 20, 20, 20) for day in range(3)] + [("BBB", day, 5, 5, 5, 5) for day in range(5)]
    market = daily(rows, actions=actions(("AAA", 3, "delisting", 0.0)))
    result = run(market, np.array([[0.5, NAN]] * 5), account(exits=Exits(stop_loss=0.1)))
    assert result.state.cash == 10_000
    assert result.state.working_orders == 0
    told = result.events.frame().filter(pl.col("kind").is_in(["delisting", "order_cancelled", "order_rejected"]))
    assert told.select("kind", "reason").rows() == [
        ("order_cancelled", "delisted"), ("delisting", None), ("order_rejected", "delisted"),
    ]  # fmt: skip


def test_a_rename_takes_the_position_and_its_orders_along():
    rows = [("FB", day, 20, 20, 20, 20) for day in range(2)] + [
        ("META", 2, 20, 20, 20, 20),
        ("META", 3, 20, 20, 17, 18),
    ]
    market = daily(rows, actions=actions(("FB", 2, "rename", "META")))
    result = by_hand(market, (0, "FB", 10, {"stop_loss": 18.5}))
    assert fills(result, "symbol", "side", "price") == [("FB", "buy", 20.0), ("META", "sell", 18.5)]
    assert result.state.cash == 10_000 - 15


def test_dividends_are_paid_to_who_holds_and_by_who_is_short():
    market = flat([20.0] * 4, actions=actions(("AAA", 2, "dividend", 0.5)))
    assert by_hand(market, (0, "AAA", 10)).state.equity == 10_005
    assert by_hand(market, (0, "AAA", -10), settings=account(short=True)).state.equity == 9_995


def test_sizes_follow_the_equity():
    market = flat([10.0, 10.0, 20.0, 20.0, 20.0])
    result = run(market, np.array([[1.0], [NAN], [0.25], [NAN], [NAN]]), account(1_000))
    assert fills(result) == [("buy", 100.0, 10.0), ("sell", 75.0, 20.0)]


def test_a_decision_is_not_doubled_while_its_order_is_on_its_way():
    rows = [("AAA", day, 20, 20, 20, 20, 100) for day in range(6)]
    style = OrderStyle("market", "gtc")
    result = run(daily(rows), np.full((6, 1), 1.0), account(orders=style, volume_cap=0.5))
    assert result.events.count("order_accepted") == 1
    assert [quantity for _, quantity, _ in fills(result)] == [50.0] * 5
    # A change of mind calls back what is not filled, and sells what is.
    targets = np.array([[1.0], [NAN], [0.0], [NAN], [NAN], [NAN]])
    result = run(daily(rows), targets, account(orders=style, volume_cap=0.5))
    assert ("order_cancelled", "superseded") in kinds(result)
    assert result.state.positions[0] == 0.0


def test_a_turn_from_long_to_short_is_two_orders():
    market = flat([20.0] * 4)
    result = run(market, np.array([[0.5], [-0.5], [NAN], [NAN]]), account(short=True))
    assert fills(result, "leg", "side", "quantity") == [
        ("entry", "buy", 250.0), ("reduce", "sell", 250.0), ("entry", "sell", 250.0),
    ]  # fmt: skip
    # Where nothing may be sold short the position ends.
    assert run(market, np.array([[0.5], [-0.5], [NAN], [NAN]]), account()).state.positions[0] == 0.0


def test_gross_and_position_stay_within_their_limits():
    rows = [(name, day, 20, 20, 20, 20) for name in ("AAA", "BBB") for day in range(4)]
    for leverage, gross in ((1.0, 1.0), (1.0, 0.5), (1.5, 1.0)):
        settings = account(leverage=leverage, risk=Risk(max_gross=gross))
        result = run(daily(rows), np.full((4, 2), 1.0), settings)
        assert result.gross[-1] == pytest.approx(leverage * gross * 10_000)
        told = result.events.frame().filter(reason="max_gross")
        assert told["symbol"].to_list() == [None] * 4
        assert told["value"].to_list() == pytest.approx([leverage * gross / 2] * 4)
    result = run(daily(rows), np.full((4, 2), 1.0), account(risk=Risk(max_position=0.1)))
    assert result.gross[-1] == 2_000


def test_cash_never_falls_below_zero_without_leverage():
    rows = [("AAA", 0, 20, 20, 20, 20), ("AAA", 1, 25, 25, 25, 25), ("AAA", 2, 25, 25, 25, 25)]
    result = run(daily(rows), np.array([[1.0], [NAN], [NAN]]), account(costs=Costs(commission_bps=50)))
    [(_, quantity, _)] = fills(result)
    assert quantity == 398.0
    assert (result.cash >= 0).all()


@pytest.mark.parametrize(
    ("risk", "reason"),
    [(Risk(max_drawdown=0.1), "max_drawdown"), (Risk(max_daily_loss=0.1), "max_daily_loss")],
)
def test_a_halt_says_why_closes_what_is_held_and_refuses_more(risk, reason):
    market = flat([20.0, 20.0, 17.0, 17.0, 17.0])
    result = run(market, np.array([[1.0], [NAN], [NAN], [NAN], [1.0]]), account(risk=risk))
    told = result.events.frame()
    assert told.filter(kind="halt")["reason"].to_list() == [reason]
    assert fills(result, "side", "leg") == [("buy", "entry"), ("sell", "liquidation")]
    # The loss of a day ends with the day; a drawdown is over when someone says so, or a rule.
    assert told.filter(kind="resume").height == (reason == "max_daily_loss")
    if reason == "max_drawdown":
        assert result.state.halted == reason
        ruled = run(market, np.full((5, 1), NAN), account(risk=Risk(max_drawdown=0.1, resume_after_sessions=2)))
        assert ruled.state.halted is None


def test_halted_and_resumed_by_hand():
    market = flat([20.0] * 5)
    asked = {time: Requests(market.symbols) for time in (0, 1, 3)}
    asked[0].halt()
    asked[1].submit("AAA", 10)
    asked[3].resume()
    asked[3].submit("AAA", 10)
    result = run(market, None, account(), orders=asked)
    assert kinds(result) == [
        ("halt", "by_hand"), ("order_rejected", "halted"), ("resume", "by_hand"), ("order_accepted", None),
        ("fill", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("liquidate", "settings", "sold"),
    [(None, True, True), (None, False, False), (True, False, True), (False, True, False)],
)
def test_a_halt_at_the_open_stops_what_would_fill_there_and_sells_there(liquidate, settings, sold):
    rows = [("AAA", day, 20, 20, 20, 20) for day in range(4)] + [("BBB", day, 30, 30, 30, 30) for day in range(4)]
    market = daily(rows)
    asked = {0: Requests(market.symbols), 1: Requests(market.symbols), 2: Requests(market.symbols)}
    asked[0].submit("AAA", 10)
    asked[1].submit("BBB", 10, time_in_force="gtc")
    # A reduction that waits for its price would be in the way of the liquidation.
    asked[1].submit("AAA", -10, limit=50.0, time_in_force="gtc", reduce_only=True)
    asked[2].halt(liquidate, at_open=True)
    result = run(market, None, account(risk=Risk(liquidate=settings)), orders=asked)
    assert fills(result, "session", "symbol", "side") == [
        (DAYS[1], "AAA", "buy"), *([(DAYS[2], "AAA", "sell")] if sold else []),
    ]  # fmt: skip
    cancelled = result.events.frame().filter(kind="order_cancelled")
    assert set(cancelled["reason"]) == {"halted"} and len(cancelled) == 1 + sold
    assert result.state.halted == "by_hand"


def test_a_halt_by_hand_outlasts_the_rule_that_would_end_another_one_and_ends_at_an_open():
    market = flat([20.0, 20.0, 17.0, 17.0, 17.0, 17.0, 17.0])
    settings = account(risk=Risk(max_drawdown=0.1, resume_after_sessions=2))
    targets = np.full((7, 1), 1.0)
    asked = {3: Requests(market.symbols), 5: Requests(market.symbols)}
    asked[3].halt()
    asked[5].resume(at_open=True)
    told = run(market, targets, settings, orders=asked).events.frame()
    assert told.filter(pl.col("kind").is_in(["halt", "resume"])).select("kind", "reason", "session").rows() == [
        ("halt", "max_drawdown", DAYS[2]), ("halt", "by_hand", DAYS[3]), ("resume", "by_hand", DAYS[5]),
    ]  # fmt: skip
    ruled = run(market, targets, settings).events.frame()
    assert ruled.filter(kind="resume").select("reason", "session").rows() == [("rule", DAYS[4])]


def test_the_value_at_risk_of_past_sessions_halts():
    prices = [20.0 * (1.05 if day % 2 else 1.0) for day in range(40)]
    result = run(flat(prices), np.full((40, 1), 1.0), account(risk=Risk(var_95=0.03)))
    assert result.state.halted == "var_95"
    # From the twentieth return on.
    told = result.events.frame().filter(kind="halt")
    assert told["session"].to_list() == [DAYS[20]]


def test_after_a_stop_a_symbol_is_left_alone_for_a_while():
    rows = [("AAA", 0, 20, 20, 20, 20), ("AAA", 1, 20, 20, 20, 20), ("AAA", 2, 20, 20, 15, 20)]
    rows += [("AAA", day, 20, 20, 20, 20) for day in range(3, 8)]
    for bars, entries in ((0, 3), (3, 2)):
        settings = account(exits=Exits(stop_loss=0.1, reenter=True), risk=Risk(cooldown_bars=bars))
        result = run(daily(rows), np.full((8, 1), 1.0), settings)
        sessions = result.events.frame().filter(kind="order_accepted", leg="entry")["session"].to_list()
        assert len(sessions) == 2
        assert (sessions[1] - sessions[0]).days == (2 if bars == 0 else 2 + bars - 1)


def test_holding_short_and_lent_cash_cost_by_the_day():
    market = flat([20.0] * 4)
    costs = Costs(borrow_bps_annual=365, financing_bps_annual=730)
    short = by_hand(market, (0, "AAA", -100), settings=account(short=True, costs=costs))
    assert short.state.equity == pytest.approx(10_000 - 2 * 2_000 * 0.0365 / 365)
    lent = run(
        market, np.array([[1.0]] * 4) * 1.0, account(leverage=2.0, sizing=Sizing("fixed", fraction=2.0), costs=costs)
    )
    assert lent.events.count("fee") == 2
    assert lent.state.equity == pytest.approx(10_000 - 2 * 10_000 * 0.073 / 365, abs=1.0)


def test_modified_and_cancelled_by_hand():
    rows = [
        ("AAA", 0, 20, 20, 20, 20),
        ("AAA", 1, 20, 20, 18, 20),
        ("AAA", 2, 20, 20, 18, 20),
        ("AAA", 3, 20, 20, 16, 20),
    ]
    market = daily(rows)
    asked = {time: Requests(market.symbols) for time in range(3)}
    asked[0].submit("AAA", 10, limit=15.0, time_in_force="gtc")
    asked[0].submit("AAA", 10, limit=14.0, time_in_force="gtc")
    asked[1].modify(1, limit=19.0, quantity=15)
    asked[1].modify(1, quantity=-1)
    asked[2].cancel(2)
    asked[2].cancel(99)
    result = run(market, None, account(), orders=asked)
    assert kinds(result) == [
        ("order_accepted", None), ("order_accepted", None), ("order_replaced", "by_hand"),
        ("order_rejected", "bad_quantity"),
        ("fill", None), ("order_cancelled", "by_hand"), ("order_rejected", "unknown_order"),
    ]  # fmt: skip
    assert fills(result) == [("buy", 15.0, 19.0)]


@pytest.mark.parametrize(
    ("quantity", "how", "reason"),
    [
        (0, {}, "bad_quantity"), (NAN, {}, "bad_quantity"), (math.inf, {}, "bad_quantity"),
        (10, {"limit": 0.0}, "bad_price"), (10, {"stop": -1.0}, "bad_price"), (10, {"type": "limit"}, "bad_price"),
        (10, {"type": "trailing_stop"}, "bad_price"), (10, {"stop_loss": 0.0}, "bad_price"), (0.4, {}, "below_lot"),
        (-10, {}, "short_not_allowed"), (1_000, {}, "buying_power"), (1, {}, "below_minimum"),
    ],
)  # fmt: skip
def test_what_is_refused_by_hand(quantity, how, reason):
    market = flat([20.0] * 3, minimum_notional=30.0)
    assert kinds(by_hand(market, (0, "AAA", quantity, how))) == [("order_rejected", reason)]
    assert kinds(by_hand(market, (0, "ZZZ", 10))) == [("order_rejected", "unknown_symbol")]


@pytest.mark.parametrize(
    ("weight", "reason"), [(math.inf, "bad_weight"), (-math.inf, "bad_weight"), (1.5, "bad_weight")]
)
def test_a_weight_that_is_none_orders_nothing(weight, reason):
    result = run(flat([20.0] * 3), np.array([[weight], [weight], [NAN]]), account())
    # Said once.
    assert kinds(result) == [("decision", reason), ("order_rejected", reason)]


@pytest.mark.parametrize("price", [None, 0.0, -1.0, math.nan, math.inf])
def test_no_order_on_a_price_that_is_none(price):
    market = daily([("AAA", 0, price, price, price, price), ("AAA", 1, 20, 20, 20, 20)])
    result = run(market, np.array([[1.0], [NAN]]), account())
    assert kinds(result) == [("decision", "no_price"), ("order_rejected", "no_price")]
    # And none fills on one.
    market = daily([("AAA", 0, 20, 20, 20, 20), ("AAA", 1, price, price, price, price), ("AAA", 2, 21, 21, 21, 21)])
    assert fills(by_hand(market, (0, "AAA", 10, {"time_in_force": "gtc"}))) == [("buy", 10.0, 21.0)]


def test_what_is_too_small_is_said_and_kept():
    result = run(flat([20.0] * 3), np.full((3, 1), 0.001), account())
    assert kinds(result) == [("decision", None), ("decision", "below_lot"), ("order_rejected", "below_lot")]
    banded = run(flat([20.0, 20.0, 20.4, 20.4]), np.full((4, 1), 0.5), account(rebalance_band=0.05))
    assert len(fills(banded)) == 1


def test_sizes_by_volatility_and_by_kelly():
    drawn = np.random.default_rng(0)
    prices = (20 * np.exp(np.cumsum(drawn.normal(0.002, 0.01, 300)))).tolist()
    market = flat(prices, lots=1e-6)
    risky = run(market, np.full((300, 1), 1.0), account(sizing=Sizing("volatility_target", annual=0.08)))
    assert risky.gross[-1] / risky.equity[-1] == pytest.approx(0.5, rel=0.25)
    assert np.isnan(risky.gross).sum() == 0 and risky.gross[50] == 0
    kelly = run(market, np.full((300, 1), 1.0), account(sizing=Sizing("kelly", cap=0.3)))
    assert (kelly.gross / kelly.equity).max() == pytest.approx(0.3, rel=0.1)
