"""Orders, fills, positions, equity and round trips, from events alone."""

import math

import numpy as np
import pytest

from quantlytic_assets.trading.engine.projections import equity, fills, orders, positions, round_trips
from quantlytic_assets.trading.engine.requests import Requests
from quantlytic_assets.trading.engine.run import Stepper, run
from quantlytic_assets.trading.engine.settings import Costs, EngineSettings, Exits, Sizing
from quantlytic_tests.trading.engine.markets import DAYS, actions, daily, flat, walks

NAN = math.nan
FREE = EngineSettings(10_000, volume_cap=None, sizing=Sizing("weights"))


def test_each_order_and_what_became_of_it():
    rows = [("AAA", day, 20, 21, 19, 20, 100) for day in range(3)]
    market = daily(rows)
    asked = Requests(market.symbols)
    for quantity, how in (
        (10, {}),
        (30, {}),
        (10, {"limit": 15.0}),
        (0, {}),
        (5, {"limit": 15, "time_in_force": "gtc"}),
    ):
        asked.submit("AAA", quantity, **how)
    result = run(market, None, EngineSettings(10_000, volume_cap=0.2), orders={0: asked})
    told = orders(result.events.frame("mine"))
    assert told.select("order", "status", "filled", "reason").rows() == [
        (1, "filled", 10.0, None), (2, "expired", 10.0, "session_end"), (3, "expired", 0.0, "session_end"),
        (4, "rejected", 0.0, "bad_quantity"), (5, "working", 0.0, None),
    ]  # fmt: skip
    assert told["client_order_id"][0] == "mine:AAA:2015-03-02T21:00:00Z:own_1"
    assert told["client_order_id"].is_unique().all()
    assert fills(result.events.frame()).select("order", "quantity").rows() == [(1, 10.0), (2, 10.0)]


def test_positions_by_session():
    market = flat([20.0, 20.0, 10.0, 10.0, 10.0], actions=actions(("AAA", 2, "split", 2.0)))
    result = run(market, np.array([[1.0], [NAN], [0.0], [NAN], [NAN]]), FREE)
    assert positions(result.events.frame()).rows() == [
        (DAYS[1], "AAA", 500.0), (DAYS[2], "AAA", 1000.0), (DAYS[3], "AAA", 0.0),
    ]  # fmt: skip
    told = equity(market, result.equity, result.cash, result.gross)
    assert told["equity"].to_list() == [10_000.0] * 5
    assert told["session"].to_list() == DAYS[:5]


def test_round_trips_through_zero_with_splits_dividends_and_costs():
    known = actions(("AAA", 2, "split", 2.0), ("AAA", 3, "dividend", 0.5))
    market = flat([20.0, 20.0, 11.0, 11.0, 12.0, 12.0, 10.0, 10.0], actions=known)
    asked = {time: Requests(market.symbols) for time in (0, 3, 6)}
    asked[0].submit("AAA", 10)
    asked[3].submit("AAA", -30)
    asked[6].submit("AAA", 10)
    settings = EngineSettings(10_000, volume_cap=None, short=True, costs=Costs(per_share=0.1))
    result = run(market, None, settings, orders=asked)
    trips = round_trips(result.events.frame(), market)
    assert trips.select("side", "quantity", "entry_price", "exit_price").rows() == [
        ("long", 10.0, 20.0, 24.0), ("short", 10.0, 12.0, 10.0),
    ]  # fmt: skip
    assert trips["pnl"].to_list() == pytest.approx([40 + 10 - 1 - 2, 20 - 1 - 1])
    assert trips["pnl"].sum() == pytest.approx(result.state.equity - 10_000)
    assert trips["bars"].to_list() == [3, 3]
    assert trips["mae"].to_list()[1] == 0.0
    assert trips["mfe"].to_list()[1] == pytest.approx(2 / 12)


def test_round_trips_add_up_to_the_account():
    market = walks(3, 60, 4, seed=5)
    settings = EngineSettings(
        50_000, short=True, volume_cap=None, costs=Costs(2, 3, minimum=1), exits=Exits(stop_loss=0.03, take_profit=0.04)
    )
    targets = np.random.default_rng(2).choice([NAN, 0.0, 1.0, -1.0], (len(market), 3), p=[0.85, 0.05, 0.05, 0.05])
    targets[-3:] = 0.0
    result = run(market, targets, settings)
    assert result.state.positions.tolist() == [0.0] * 3
    trips = round_trips(result.events.frame(), market)
    assert len(trips) > 30
    assert trips["pnl"].sum() == pytest.approx(result.state.equity - 50_000)


def test_a_bot_asks_and_looks():
    market = flat([20.0, 21.0, 22.0, 21.0, 20.0])
    bot = Stepper(market, FREE)
    numbers = []
    while bot.step():
        if bot.time == 0:
            numbers.append(bot.submit("AAA", 10))
            numbers.append(bot.submit("AAA", 10, limit=5.0, time_in_force="gtc"))
        if bot.time == 1:
            with pytest.raises(KeyError, match="'BBB' is not a symbol"):
                bot.position("BBB")
            assert bot.position("AAA") == 10 and bot.cash == 10_000 - 210
            bot.cancel(numbers[1])
            bot.target("AAA", 0.5)
        if bot.time == 3:
            bot.requests.seen_late("AAA", 3)
    result = bot.finish()
    told = result.events.frame().select("kind", "order").rows()
    assert told[:2] == [("order_accepted", numbers[0]), ("order_accepted", numbers[1])]
    assert ("order_cancelled", numbers[1]) in told and told[-1] == ("seen_late", None)
    # 5,000 of 10,000 at the close of 21.
    assert result.state.positions[0] == 238
    assert bot.finish().equity[-1] == result.equity[-1]
