"""What a broker reports, and what the account is afterwards; what the engine itself fills is left as it was."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine import projections
from quantlytic_assets.trading.engine.events import leg_name
from quantlytic_assets.trading.engine.run import Stepper, run
from quantlytic_assets.trading.engine.settings import Costs, EngineSettings, Exits
from quantlytic_assets.trading.engine.settlement import BrokerReport, Ordered, leg_number, settle
from quantlytic_assets.trading.engine.state import State
from quantlytic_assets.trading.simulated_orders import GivenOrder, simulated_fills
from quantlytic_tests.trading.engine.markets import flat

PLAIN = EngineSettings(10_000.0, volume_cap=None)
WITH_EXITS = EngineSettings(10_000.0, volume_cap=None, exits=Exits(stop_loss=0.1, take_profit=0.2))
SESSION = date(2024, 1, 3)
WHEN = datetime(2024, 1, 3, 14, 30, tzinfo=UTC)


def decided(settings=PLAIN, weight=1.0):
    """An account that has decided to buy at a close of 10, the market, and the order as the account knows it."""
    market = flat([10.0, 10.0, 10.0])
    targets = np.array([[weight]])
    result = run(market[:1], targets, settings, filled_elsewhere=True)
    (sent,) = result.events.frame().filter(kind="order_accepted").to_dicts()
    side = 1 if sent["side"] == "buy" else -1
    order = Ordered(sent["order"], market.symbols[0], side, sent["type"], sent["leg"], sent["decision_time"])
    return market, result.state, order, sent["quantity"]


def taken(state, market, *reports, settings=PLAIN):
    after, events = settle(state, settings, market.symbols, market.static, reports)
    return after, events.frame()


def filled(order, quantity, price=10.0, left=0.0, fee=1.0, when=WHEN):
    return BrokerReport("filled", order, when, SESSION, quantity, price, fee, left)


def test_the_engine_fills_nothing_that_a_broker_fills():
    market, state, _, _ = decided()
    result = run(market[1:], None, PLAIN, state, filled_elsewhere=True)
    assert result.events.frame().filter(pl.col("kind").is_in(["fill", "order_expired"])).is_empty()
    assert result.state.working_orders == 1 and result.state.cash == 10_000.0


def test_a_fill_changes_cash_position_and_order():
    market, state, order, quantity = decided()
    before = state.to_bytes()
    after, events = taken(state, market, filled(order, quantity - 400, 10.5, 400), filled(order, 400, 10.25))
    assert state.to_bytes() == before and after.positions.tolist() == [quantity]
    assert after.cash == pytest.approx(10_000 - (quantity - 400) * 10.5 - 400 * 10.25 - 2)
    assert events["kind"].to_list() == ["fill", "fill"] and events["event_time"].to_list() == [WHEN, WHEN]
    assert events["session"].to_list() == [SESSION] * 2 and events["seq"].to_list() == [3, 4]
    assert after.working_orders == 0 and after.equity == pytest.approx(after.cash + quantity * 10.0)
    known = run(market[:1], np.array([[1.0]]), PLAIN, filled_elsewhere=True).events.frame()
    (told,) = projections.orders(pl.concat([known, events])).to_dicts()
    assert (told["status"], told["filled"], told["commission"]) == ("filled", quantity, 2.0)


def test_settling_one_by_one_is_settling_together():
    market, state, order, quantity = decided(WITH_EXITS)
    reports = [filled(order, 300, 10.1, quantity - 300), filled(order, quantity - 300, 10.2)]
    together, events = taken(state, market, *reports, settings=WITH_EXITS)
    first, one = taken(state, market, reports[0], settings=WITH_EXITS)
    second, two = taken(first, market, reports[1], settings=WITH_EXITS)
    assert together.to_bytes() == second.to_bytes() and events.equals(pl.concat([one, two]))


@pytest.mark.parametrize(
    ("end", "kind", "status"),
    [("rejected", "order_rejected", "rejected"), ("cancelled", "order_cancelled", "cancelled"),
     ("expired", "order_expired", "expired")],
)  # fmt: skip
def test_an_end_frees_the_order_once(end, kind, status):
    market, state, order, quantity = decided()
    ended = BrokerReport("ended", order, WHEN, SESSION, end=end)
    after, events = taken(state, market, filled(order, 100, left=quantity - 100), ended, ended)
    assert events["kind"].to_list() == ["fill", kind] and after.working_orders == 0
    known = run(market[:1], np.array([[1.0]]), PLAIN, filled_elsewhere=True).events.frame()
    (told,) = projections.orders(pl.concat([known, events])).to_dicts()
    assert (told["status"], told["filled"]) == (status, 100)


def test_exits_begin_with_the_entry_follow_it_and_end_with_the_position():
    market, state, order, quantity = decided(WITH_EXITS)
    after, events = taken(
        state, market, filled(order, 100, 10.0, quantity - 100), filled(order, quantity - 100), settings=WITH_EXITS
    )
    sent = events.filter(kind="order_accepted")
    assert sent["leg"].to_list() == ["entry.stop", "entry.target"] and set(sent["quantity"]) == {100}
    assert (sent["stop"][0], sent["price"][1]) == (9.0, 12.0)
    assert events.filter(kind="order_replaced")["quantity"].to_list() == [quantity] * 2
    stop = Ordered(sent["order"][0], market.symbols[0], -1, "stop", "entry.stop", sent["decision_time"][0])
    flatted, events = taken(after, market, filled(stop, quantity, 8.9), settings=WITH_EXITS)
    assert events["kind"].to_list() == ["fill", "order_cancelled"] and events["reason"][1] == "position_closed"
    assert flatted.positions.tolist() == [0.0] and flatted.working_orders == 0


def test_a_fill_of_an_order_that_was_called_back_counts_all_the_same():
    market, state, order, quantity = decided()
    stepper = Stepper(market[1:], PLAIN, state, filled_elsewhere=True)
    stepper.step()
    stepper.cancel(order.number)
    cancelled = stepper.finish().state
    assert cancelled.working_orders == 0
    following = cancelled.view.counts[c.NEXT_ORDER]
    after, events = taken(cancelled, market, filled(order, 50, left=quantity - 50))
    assert after.positions.tolist() == [50.0] and events["client_order_id"].to_list()[0].endswith(":entry")
    assert events["value"].to_list() == [quantity - 50] and after.view.counts[c.NEXT_ORDER] == following


def test_a_correction_changes_shares_cash_and_average_by_the_difference():
    market, state, order, quantity = decided(WITH_EXITS)
    held, _ = taken(state, market, filled(order, quantity, 10.0), settings=WITH_EXITS)
    changed = BrokerReport(
        "corrected", order, WHEN, SESSION, quantity - 10, 9.9, quantity_before=quantity, price_before=10.0
    )
    after, events = taken(held, market, changed, settings=WITH_EXITS)
    whole, _ = taken(state, market, filled(order, quantity - 10, 9.9), settings=WITH_EXITS)
    assert after.cash == pytest.approx(whole.cash) and after.positions.tolist() == [quantity - 10]
    assert after.view.symbols[c.AVERAGE, 0] == pytest.approx(9.9)
    assert events["kind"].to_list() == ["correction", "order_replaced", "order_replaced"]
    busted = BrokerReport("corrected", order, WHEN, SESSION, 0.0, 9.9, quantity_before=quantity - 10, price_before=9.9)
    gone, events = taken(after, market, busted, settings=WITH_EXITS)
    assert gone.positions.tolist() == [0.0] and gone.cash == pytest.approx(10_000 - 1)
    assert events["kind"].to_list() == ["correction", "order_cancelled", "order_cancelled"]


def test_round_trips_follow_what_is_corrected_after_they_ended():
    market, state, order, _ = decided()
    asset = market.symbols[0]
    sold = Ordered(order.number + 1, asset, -1, "market", "reduce", WHEN)
    bought = Ordered(order.number + 2, asset, 1, "market", "entry", WHEN)

    def fixed(of, before, after):
        return BrokerReport("corrected", of, WHEN, SESSION, *after, quantity_before=before[0], price_before=before[1])

    after, events = taken(
        state, market, filled(order, 60, 10.0, 40), filled(order, 40, 10.2), filled(sold, 100, 11.0),
        # Of two fills the second one was of fewer shares, at another price; so fewer had to be sold.
        fixed(order, (40, 10.2), (30, 10.1)), fixed(sold, (100, 11.0), (90, 11.0)),
        BrokerReport("charged", order, WHEN, SESSION, commission=0.5),
        filled(bought, 5, 12.0), fixed(bought, (5, 12.0), (0, 12.0)),
    )  # fmt: skip
    (trip,) = projections.round_trips(events, market).to_dicts()
    assert (trip["side"], trip["quantity"]) == ("long", 90.0)
    assert trip["entry_price"] == pytest.approx((60 * 10.0 + 30 * 10.1) / 90) and trip["exit_price"] == 11.0
    # Three fills, one that came late, and one of the fill that was taken back.
    assert trip["costs"] == pytest.approx(3 + 0.5 + 1)
    assert trip["pnl"] == pytest.approx(after.cash - 10_000) and after.positions.tolist() == [0.0]


def test_an_exit_that_is_taken_back_leaves_the_position_open():
    market, state, order, quantity = decided()
    sold = Ordered(order.number + 1, market.symbols[0], -1, "market", "reduce", WHEN)
    gone = BrokerReport("corrected", sold, WHEN, SESSION, 0.0, 11.0, quantity_before=quantity, price_before=11.0)
    reports = [filled(order, quantity), filled(sold, quantity, 11.0)]
    after, events = taken(state, market, *reports, gone)
    assert projections.round_trips(events, market).is_empty() and after.positions.tolist() == [quantity]
    again = Ordered(order.number + 2, market.symbols[0], -1, "market", "reduce", WHEN)
    after, events = taken(state, market, *reports, gone, filled(again, quantity, 12.0))
    (trip,) = projections.round_trips(events, market).to_dicts()
    assert trip["exit_price"] == 12.0 and trip["pnl"] == pytest.approx(after.cash - 10_000)


@pytest.mark.parametrize("seed", range(5))
def test_round_trips_add_up_to_the_account_whatever_is_corrected(seed):
    market, state, order, _ = decided()
    drawn, asset = np.random.default_rng(seed), market.symbols[0]
    reports, known = [filled(order, 10.0)], {0: [order, 10.0, 10.0]}
    for number in range(1, 40):
        what = drawn.choice(["fill", "fill", "fix", "charge"])
        if what == "fill":
            made = Ordered(order.number + number, asset, int(drawn.choice([1, -1])), "market", "entry", WHEN)
            known[number] = [made, float(drawn.integers(1, 30)), float(drawn.integers(80, 120)) / 10]
            reports.append(filled(*known[number]))
            continue
        place = drawn.choice([*known][1:] or [0])
        of, quantity, price = known[place]
        if what == "charge":
            reports.append(BrokerReport("charged", of, WHEN, SESSION, commission=0.25))
            continue
        known[place][1:] = [float(drawn.integers(0 if place else 5, 30)), float(drawn.integers(80, 120)) / 10]
        reports.append(
            BrokerReport(
                "corrected", of, WHEN, SESSION, *known[place][1:], quantity_before=quantity, price_before=price
            )
        )  # fmt: skip
    held = sum(of.side * quantity for of, quantity, _ in known.values())
    last = Ordered(order.number + 99, asset, -1 if held > 0 else 1, "market", "reduce", WHEN)
    after, events = taken(state, market, *reports, *([filled(last, abs(held), 9.5)] if held else []))
    trips = projections.round_trips(events, market)
    assert after.positions.tolist() == [0.0] and (events["kind"] == "correction").sum() >= 3 and len(trips) >= 1
    assert trips["pnl"].sum() == pytest.approx(after.cash - 10_000)


def test_a_commission_that_comes_late_is_a_fee():
    market, state, order, _ = decided()
    after, events = taken(state, market, BrokerReport("charged", order, WHEN, SESSION, commission=2.5))
    assert after.cash == 9_997.5
    assert events.select("kind", "value", "reason").rows() == [("fee", 2.5, "commission")]


def test_an_exit_that_sells_more_than_is_held_opens_nothing_that_is_protected():
    market, state, order, quantity = decided(WITH_EXITS)
    held, events = taken(state, market, filled(order, quantity), settings=WITH_EXITS)
    sent = events.filter(kind="order_accepted", leg="entry.target")
    target = Ordered(sent["order"][0], market.symbols[0], -1, "limit", "entry.target", sent["decision_time"][0])
    short, events = taken(held, market, filled(target, quantity + 5, 12.0), settings=WITH_EXITS)
    assert short.positions.tolist() == [-5.0] and short.working_orders == 0
    assert events["kind"].to_list() == ["fill", "order_cancelled"]
    again, events = taken(short, market, filled(target, 1, 12.0), settings=WITH_EXITS)
    assert again.positions.tolist() == [-6.0] and events["kind"].to_list() == ["fill"]


def test_many_orders_find_room():
    market, state, order, quantity = decided()
    small = State.from_bytes(state.to_bytes())
    reports = [filled(order, 1, left=quantity - n - 1, when=WHEN + timedelta(microseconds=n)) for n in range(50)]
    after, events = taken(small, market, *reports)
    assert after.positions.tolist() == [50.0] and len(events) == 50


def test_a_symbol_of_nobody_is_refused():
    market, state, order, _ = decided()
    strange = Ordered(1, "NOPE", 1, "market", "entry", order.decision_time)
    with pytest.raises(ValueError, match="NOPE is not one of the account's symbols"):
        taken(state, market, filled(strange, 1))


def test_legs_have_numbers_and_names():
    for number in (0, 1, 2, 3, 10, 12, 10_000, 20_000, 30_000, 110_000, 10_010, 230_003):
        assert leg_number(leg_name(number)) == number


def test_the_simulated_fill_of_an_order_is_the_engines():
    market = flat([10.0, 11.0, 12.0, 13.0])
    costs = Costs(slippage_bps=10, per_order=1)
    settings = EngineSettings(10_000.0, volume_cap=None, costs=costs)
    times = pl.Series(market.times[:, c.AVAILABLE]).cast(pl.Datetime("us", "UTC")).to_list()

    def order(name, symbol=market.symbols[0], **how):
        values = {"side": 1, "quantity": 5.0, "type": "market", "time_in_force": "day", "limit": None, "stop": None,
                  "trail": None, "from_time": times[0]}  # fmt: skip
        return GivenOrder(name, symbol, **{**values, **how})

    found = simulated_fills(
        market,
        [
            order("plain"), order("later", from_time=times[1] + timedelta(hours=1), side=-1),
            order("never", type="limit", limit=5.0, time_in_force="gtc"),
            order("before", from_time=times[0] - timedelta(days=9)),
            order("other", "NOPE"), order("back", type="limit", limit=20.0, from_time=times[0], until=times[0]),
            order("not yet", from_time=times[3]),
        ],
        settings,
    )  # fmt: skip
    rows = {name: (quantity, price, fee) for name, quantity, price, fee in found.rows()}
    assert set(rows) == {"plain", "later"}
    alone = run(market, np.array([[1.0], [np.nan], [np.nan], [np.nan]]), settings).events.frame().filter(kind="fill")
    assert rows["plain"] == (5.0, pytest.approx(alone["price"][0]), pytest.approx(1.01, abs=1.0))
    assert rows["later"][1] == pytest.approx(market.bars[2, c.OPEN, 0] * 0.999)
