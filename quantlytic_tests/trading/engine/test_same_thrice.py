"""One run, pieces with the account stored as bytes between them, and bar by bar: the same events, bit for bit.

And none of them knows what comes after: cut or scrambled later bars change nothing before.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.events import Events
from quantlytic_assets.trading.engine.kernel import advance
from quantlytic_assets.trading.engine.market import Market
from quantlytic_assets.trading.engine.requests import Requests
from quantlytic_assets.trading.engine.run import Result, Stepper, prepare, run
from quantlytic_assets.trading.engine.settings import Costs, EngineSettings, Exits, OrderStyle, Risk, Sizing
from quantlytic_assets.trading.engine.state import State
from quantlytic_tests.trading.engine.markets import actions, walks

SYMBOLS, SESSIONS, PER_SESSION = 4, 12, 4
TOLD = actions(
    ("S0", 3, "split", 4.0), ("S1", 4, "split", 0.1), ("S1", 5, "dividend", 0.3), ("S0", 7, "dividend", 0.2),
    ("S2", 8, "delisting", 0.0), ("S3", 6, "split", 3.0),
)  # fmt: skip
fraction = st.floats(0.005, 0.3)


def maybe(some):
    return st.none() | some


@st.composite
def accounts(draw) -> EngineSettings:
    kind = draw(st.sampled_from(c.ORDER_TYPES))
    stop_loss, atr_stop = draw(st.sampled_from([(None, None), (0.02, None), (0.05, None), (None, 1.5)]))
    trailing = draw(maybe(st.floats(0.005, 0.02)))
    method = draw(st.sampled_from(c.SIZINGS))
    sizing = {"fixed": {"amount": 3_000.0}, "volatility_target": {"annual": 0.4}, "kelly": {"cap": 0.3}}.get(method, {})
    return EngineSettings(
        capital=20_000.0,
        short=draw(st.booleans()),
        leverage=draw(st.sampled_from([1.0, 2.0])),
        volume_cap=draw(st.sampled_from([0.025, 0.25, None])),
        orders=OrderStyle(
            kind, draw(st.sampled_from(c.FORCES)), draw(st.sampled_from([0.0, 20.0])), 10.0,
            0.01 if kind == "trailing_stop" else None,
        ),
        exits=Exits(stop_loss, draw(maybe(fraction)), trailing, atr_stop, draw(maybe(st.integers(1, 8)))),
        sizing=Sizing(method, lookback=5, **sizing),
        risk=Risk(
            draw(maybe(st.floats(0.1, 0.5))), draw(st.sampled_from([0.5, 1.0])), draw(maybe(st.floats(0.005, 0.05))),
            draw(maybe(st.floats(0.02, 0.2))), draw(maybe(st.integers(1, 3))), draw(maybe(st.floats(0.01, 0.1))),
            draw(st.integers(0, 3)), draw(st.booleans()),
        ),
        costs=Costs(1.0, 2.0, 0.005, 0.1, 0.5, 100.0, 3.0, 0.1, 300.0, 500.0),
        limit_fill=draw(st.sampled_from(["penetrate", "touch"])),
        stop_limit_fill=draw(st.sampled_from(["close_inside", "best"])),
        fill_at=draw(st.sampled_from(["open", "close"])),
        rebalance_band=draw(st.sampled_from([0.0, 0.1])),
        cash_buffer=0.01,
    )  # fmt: skip


def weights(market: Market, seed: int) -> np.ndarray:
    """Targets that change now and then, some of them nonsense."""
    drawn = np.random.default_rng(seed)
    return drawn.choice([np.nan, np.nan, np.nan, 0.0, 0.5, 1.0, -1.0, np.inf, 2.0], (len(market), SYMBOLS),
                         p=[0.25, 0.25, 0.2, 0.1, 0.06, 0.06, 0.06, 0.01, 0.01])  # fmt: skip


def asked_by_hand(market: Market, seed: int) -> dict[int, Requests]:
    """Orders of all types, changes and cancellations at random times."""
    drawn = np.random.default_rng(seed)
    asked: dict[int, Requests] = {}
    for time in range(len(market)):
        if drawn.random() > 0.3:
            continue
        one = asked[time] = Requests(market.symbols)
        for _ in range(int(drawn.integers(1, 4))):
            place = int(drawn.integers(0, SYMBOLS))
            near = market.bars[time, c.CLOSE, place]
            near = near if near == near else 30.0
            prices = {name: float(near * np.exp(drawn.normal(0, 0.02))) for name in ("limit", "stop")}
            how: dict = {name: price for name, price in prices.items() if drawn.random() < 0.4}
            if drawn.random() < 0.1:
                how = {"trail": 0.01}
            if drawn.random() < 0.3:
                how |= {"stop_loss": float(near * 0.97), "take_profit": float(near * 1.03)}
            if drawn.random() < 0.2:
                how["group"] = int(drawn.integers(1, 4))
            force = c.FORCES[int(drawn.integers(0, 3))]
            quantity = float(drawn.choice([5, 20, -5, -20, math.nan, 0.3]))
            one.submit(place, quantity, time_in_force=force, reduce_only=drawn.random() < 0.2, **how)
        if drawn.random() < 0.4:
            one.cancel(int(drawn.integers(1, 60)))
        if drawn.random() < 0.4:
            one.modify(int(drawn.integers(1, 60)), quantity=7.0, limit=31.0)
        if drawn.random() < 0.05:
            one.halt([None, True, False][int(drawn.integers(0, 3))])
        if drawn.random() < 0.05:
            one.resume()
    return asked


def atr_of(market: Market) -> np.ndarray:
    return np.nan_to_num(market.bars[:, c.HIGH] - market.bars[:, c.LOW], nan=0.5)


def same(one: Events, other: Events) -> None:
    np.testing.assert_array_equal(one.integers, other.integers)
    np.testing.assert_array_equal(one.floats, other.floats)


def at_once(market, targets, account, asked) -> Result:
    return run(market, targets, account, atr=atr_of(market), orders=asked)


def in_pieces(market, targets, account, asked, cuts) -> tuple[Events, State]:
    stored, ints, floats = None, [], []
    edges = [0, *sorted(cuts), len(market)]
    for start, stop in zip(edges, edges[1:]):
        state = None if stored is None else State.from_bytes(stored)
        mine = {time - start: one for time, one in asked.items() if start <= time < stop}
        part = market[start:stop]
        got = run(part, targets[start:stop], account, state, atr=atr_of(part), orders=mine)
        stored = got.state.to_bytes()
        ints.append(got.events.integers)
        floats.append(got.events.floats)
    return Events(np.concatenate(ints), np.concatenate(floats), market.symbols), got.state


def bar_by_bar(market, targets, account, asked) -> Result:
    stepper = Stepper(market, account, targets=targets, atr=atr_of(market))
    while stepper.step():
        if stepper.time in asked:
            one = asked[stepper.time]
            mine = stepper.requests
            mine.integers, mine.floats = one.integers.copy(), one.floats.copy()
            mine.count, mine.submitted = one.count, one.submitted
    return stepper.finish()


EXAMPLES = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@EXAMPLES
@given(
    accounts(), st.integers(0, 10_000), st.lists(st.integers(1, SESSIONS * PER_SESSION - 1), max_size=6, unique=True)
)
def test_at_once_in_pieces_and_bar_by_bar(account, seed, cuts):
    market = walks(SYMBOLS, SESSIONS, PER_SESSION, seed, 0.05, TOLD)
    targets, asked = weights(market, seed), asked_by_hand(market, seed)
    whole = at_once(market, targets, account, asked)
    pieces, state = in_pieces(market, targets, account, asked, cuts)
    stepped = bar_by_bar(market, targets, account, asked)
    same(whole.events, pieces)
    same(whole.events, stepped.events)
    assert whole.state.to_bytes() == state.to_bytes() == stepped.state.to_bytes()
    np.testing.assert_array_equal(whole.equity, stepped.equity)
    # Without a tape the account is the same.
    silent = run(market, targets, account, atr=atr_of(market), orders=asked, events=False)
    assert silent.state.to_bytes() == whole.state.to_bytes()
    sound(whole, account)


def sound(result: Result, account: EngineSettings) -> None:
    """What must hold of each account, whatever it did."""
    told = result.events.frame()
    assert told["seq"].to_list() == list(range(1, len(told) + 1))
    fills = told.filter(kind="fill")
    assert (fills["quantity"] > 0).all() and (fills["price"] > 0).all()
    if not account.short:
        assert (fills["position"] >= 0).all()
        if account.leverage == 1.0:
            assert (result.cash > -1e-6).all()
    accepted = told.filter(kind="order_accepted")
    assert accepted["client_order_id"].is_unique().all()
    assert set(fills["order"]) <= set(accepted["order"])
    # Cash follows from the events alone.
    sign = fills["side"].replace_strict({"buy": 1.0, "sell": -1.0})
    spent = (sign * fills["quantity"] * fills["price"] + fills["commission"]).sum()
    income = told.filter(kind="dividend")["value"].sum() + told.filter(kind="delisting")["value"].sum()
    paid = sum(told.filter(kind=kind)["value"].sum() for kind in ("fee", "borrow"))
    assert math.isclose(result.state.cash, account.capital - spent + income - paid, rel_tol=1e-9, abs_tol=1e-6)
    view = result.state.view
    live = view.codes[: result.state.working_orders]
    assert (live[:, c.STATUS] == c.LIVE).all()
    for kind in range(3):
        for symbol, place in enumerate(view.marks[c.STOP_AT + kind]):
            assert place == -1 or live[place, c.SYMBOL] == symbol


@EXAMPLES
@given(accounts(), st.integers(0, 10_000), st.integers(1, SESSIONS * PER_SESSION - 1))
def test_nothing_later_is_known(account, seed, cut):
    market = walks(SYMBOLS, SESSIONS, PER_SESSION, seed, 0.05, TOLD)
    targets, asked = weights(market, seed), asked_by_hand(market, seed)
    earlier = {time: one for time, one in asked.items() if time < cut}
    known = at_once(market[:cut], targets[:cut], account, earlier)
    drawn = np.random.default_rng(seed)
    bars, wishes = market.bars.copy(), targets.copy()
    bars[cut:] *= drawn.uniform(0.5, 2.0, bars[cut:].shape)
    wishes[cut:] = drawn.uniform(-1, 1, wishes[cut:].shape)
    for other in (
        at_once(market, targets, account, asked),
        at_once(replace(market, bars=bars), wishes, account, earlier),
    ):
        count = len(known.events)
        same(known.events, Events(other.events.integers[:count], other.events.floats[:count], market.symbols))
        np.testing.assert_array_equal(known.equity, other.equity[:cut])


def test_a_full_tape_and_a_full_book_are_made_larger_and_nothing_is_lost(monkeypatch):
    market = walks(SYMBOLS, SESSIONS, PER_SESSION, 3, 0.05, TOLD)
    account = EngineSettings(
        20_000, exits=Exits(stop_loss=0.02, take_profit=0.03, reenter=True), sizing=Sizing("weights")
    )
    targets = np.random.default_rng(3).uniform(0, 0.25, (len(market), SYMBOLS))
    usual = run(market, targets, account)
    monkeypatch.setattr("quantlytic_assets.trading.engine.run._FIRST_ROWS", 8)
    monkeypatch.setattr("quantlytic_assets.trading.engine.run._MOST_ROWS", 200)
    small = run(market, targets, account, State(SYMBOLS, 20_000, room=1))
    assert len(usual.events) > 1_000
    same(usual.events, small.events)
    assert usual.state.to_bytes() == small.state.to_bytes()


def test_what_is_compiled_beforehand_is_what_every_run_calls():
    prepare()
    market = walks(SYMBOLS, SESSIONS, PER_SESSION, 5, 0.0, TOLD)
    atr = np.full((len(market), SYMBOLS), 0.5)
    run(market, weights(market, 1), EngineSettings(10_000.0), atr=atr, orders=asked_by_hand(market, 2))
    stepper = Stepper(market, EngineSettings(10_000.0))
    while stepper.step():
        stepper.target(0, 0.5)
    stepper.finish()
    # One set of types: anything else would be compiled a second time when it is first called.
    assert len(advance.signatures) == 1
