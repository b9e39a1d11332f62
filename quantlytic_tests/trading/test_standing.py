"""Why an account traded at a bar: of a bot, which has no signals."""

from __future__ import annotations

from datetime import UTC, datetime

from quantlytic_assets.trading.standing import Standing, verdict

AT = datetime(2024, 1, 2, 21, tzinfo=UTC)


def test_of_a_bot_it_is_told_what_hinders_its_orders():
    nothing = Standing(0.0, None, None, [], [])
    assert verdict(nothing, None, 0.0, bot=True).code == "no_order"
    assert verdict(nothing, None, 0.0).code == "no_signal"
    order = {
        "client_order_id": "b:A:t:own_1", "side": "buy", "quantity": 3.0, "type": "limit", "decision_time": AT,
    }  # fmt: skip
    working = verdict(Standing(0.0, None, None, [], [order]), None, 0.0, bot=True)
    assert (working.code, working.orders) == ("order_working", ("b:A:t:own_1",))
    halt = {"seq": 7, "event_time": AT, "reason": "by_hand"}
    halted = verdict(Standing(0.0, None, halt, [], [order]), None, 0.0, bot=True)
    assert (halted.code, halted.events) == ("halted", (7,)) and "asked for by hand" in halted.text
