"""An account whose orders a broker fills: decisions as on paper, and the broker's fills, costs and mistakes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.schemas.trading import BROKER_ORDERS
from quantlytic_assets.services.broker_account import OtherBroker, sendable_until
from quantlytic_assets.services.halts import ask_to_halt
from quantlytic_assets.services.paper_account import trade
from quantlytic_assets.trading.engine.settings import Exits, OrderStyle
from quantlytic_assets.trading.engine.state import State
from quantlytic_tests.frames import make_dataset
from quantlytic_tests.services.desk import DATASET, Desk
from quantlytic_tests.services.floor import FIRST, LAST, SETTINGS, STRATEGY, Floor, until_held


@pytest.fixture
def floor(tmp_path):
    with Floor(tmp_path).open() as opened:
        yield opened


def test_it_decides_as_on_paper_and_has_the_brokers_fills(floor, tmp_path):
    sessions = floor.sessions()
    floor.run(sessions)
    paper = Desk(tmp_path / "paper", floor.days)
    paper.give(floor.days)
    alone = replace(STRATEGY, broker="simulated")
    paper.trade(FIRST, LAST, datetime(2026, 1, 1, tzinfo=UTC), alone)
    own = floor.desk.accounts.sessions("cross").drop("bars")
    assert own.height == len(sessions) and own["equity"].n_unique() > 5
    same = paper.accounts.sessions("cross").drop("bars")
    assert own.select("session", "equity", "cash", "costs_to_date", "positions").equals(
        same.select("session", "equity", "cash", "costs_to_date", "positions")
    )
    wanted = ("session", "kind", "symbol", "client_order_id", "side", "quantity", "price", "position", "reason")
    told, simulated = floor.desk.events(), paper.events()
    for kind in ("decision", "order_accepted", "fill"):
        assert told.filter(kind=kind).height >= 2
        assert told.filter(kind=kind).select(wanted[2:]).equals(simulated.filter(kind=kind).select(wanted[2:]))
    assert floor.held() == floor.bench.book.held()
    assert (
        len(floor.bench.book.refs()) == len(set(floor.bench.book.refs())) == told.filter(kind="order_accepted").height
    )


def test_slippage_is_against_the_simulated_fill_of_the_same_order(floor):
    sessions = floor.sessions()
    filled = 0
    for before, session in zip([None, *sessions[:-1]], sessions, strict=True):
        if before is not None:
            # The broker's opens are a tenth of a percent worse for who buys.
            floor.bench.book.prices.clear()
            floor.morning(session)
            bars = floor.days.filter(pl.col("session") == session)
            for symbol, opened in bars.select("symbol", "open").iter_rows():
                floor.bench.book.quote(symbol, opened * 1.001)
        floor.bench.book.auto_fill = True
        floor.evening(session)
        filled = floor.desk.events().filter(kind="fill").height
        floor.bench.book.auto_fill = filled == 0
        if filled >= 2:
            break
    rows = floor.desk.lake.query(f"SELECT * FROM {BROKER_ORDERS.name} WHERE filled > 0 ORDER BY sent_at")
    assert rows.height >= 1
    for row in rows.iter_rows(named=True):
        assert row["simulated_price"] is not None and row["simulated_filled"] == row["filled"]
        worse = (row["price"] - row["simulated_price"]) * (1 if row["side"] == "buy" else -1)
        assert row["slippage"] == pytest.approx(worse * row["filled"], abs=1e-9)
        assert row["slippage_bps"] == pytest.approx(1e4 * worse / row["simulated_price"], abs=1e-9)


def test_history_is_not_traded_and_a_late_bar_waits(tmp_path):
    with Floor(tmp_path).open() as floor:
        floor.desk.give(floor.days)
        # Months later: nothing of it can be sent any more.
        later = datetime(2011, 9, 1, tzinfo=UTC)
        floor.bench.now = later
        done = trade(floor.desk.lake, floor.desk.accounts, DATASET, STRATEGY, FIRST, LAST, later, floor.ledger)
        assert done.bars == 0 and floor.desk.accounts.last("cross") is None
        # On the evening of the sixth session only that one is traded.
        session = floor.sessions()[5]
        floor.evening(session)
        assert floor.desk.accounts.last("cross").session == session
        assert floor.desk.accounts.sessions("cross").height == 1


def test_what_was_missed_is_marked_and_its_last_wish_is_followed(floor):
    sessions = floor.sessions()
    floor.run(sessions[:2])
    # A week without a run.
    floor.morning(sessions[7])
    floor.evening(sessions[7])
    rows = floor.desk.accounts.sessions("cross")
    assert rows["session"].to_list() == [*sessions[:2], *sessions[2:8]]
    late = [one.session for one in floor.ledger.orders("ibkr") if one.session in sessions[2:7]]
    assert late == []


@pytest.mark.parametrize(("code", "reason"), [(201, "rejected_by_broker")])
def test_a_rejection_of_the_broker_is_the_end_of_the_order(floor, code, reason):
    sessions = floor.sessions()
    for place, session in enumerate(sessions):
        if place:
            floor.morning(session)
        floor.bench.book.refusals |= {"AAPL": (code, "no"), "IBM": (code, "no")}
        floor.evening(session)
        events = floor.desk.events()
        if events.filter(kind="order_accepted").height:
            break
    rejected = events.filter(kind="order_rejected")
    assert rejected["reason"].to_list() == [reason] * rejected.height and rejected.height >= 1
    floor.desk.lake.query("SELECT 1")
    trade(
        floor.desk.lake, floor.desk.accounts, DATASET, STRATEGY, session, session + timedelta(days=1), floor.bench.now,
        floor.ledger,
    )  # fmt: skip
    orders = floor.desk.published()["trading.orders"]
    assert set(orders["status"]) == {"rejected"} and set(orders["reason"]) == {reason}
    assert floor.bench.book.held() == {}


def test_exits_of_an_entry_go_to_the_broker_and_one_that_fills_ends_the_others(tmp_path):
    exits = Exits(stop_loss=0.04, take_profit=0.5, trailing_stop=0.03)
    strategy = replace(STRATEGY, settings=replace(SETTINGS, exits=exits))
    with Floor(tmp_path, strategy).open() as floor:
        until_held(floor)
        held = floor.bench.book.held()
        own = [one for one in floor.ledger.orders("ibkr") if one.exits]
        assert {one.leg for one in own} == {"entry.stop", "entry.target", "entry.trail"}
        assert {one.status for one in own} == {"working"} and {one.time_in_force for one in own} == {"gtc"}
        assert len({one.oca_group for one in own}) == len(held)
        floor.bench.book.open_market()
        for symbol in held:
            floor.bench.book.quote(symbol, floor.bench.book.prices[symbol] * 0.9)
        floor.settle()
        assert floor.bench.book.held() == {}
        events = floor.desk.events()
        assert set(events.filter(kind="fill")["leg"]) >= {"entry", "entry.trail"} or "entry.stop" in set(events["leg"])
        assert events.group_by("symbol").agg(pl.col("position").last()).drop_nulls()["position"].to_list() == [
            0.0
        ] * len(held)
        assert all(one.ended and one.told for one in floor.ledger.orders("ibkr"))


def test_a_correction_and_a_late_commission_change_the_account_once(floor):
    until_held(floor)
    symbol, shares = next(iter(floor.bench.book.held().items()))
    ref = next(one.client_order_id for one in floor.ledger.orders("ibkr") if one.symbol == symbol)
    before = floor.desk.accounts.last("cross")
    cash = State.from_bytes(before.state).cash
    (fill,) = floor.ledger.fills([ref])
    floor.bench.book.commission = 1.0
    floor.bench.book.correct(ref, fill.price - 0.5)
    floor.settle()
    floor.settle()
    after = State.from_bytes(floor.desk.accounts.last("cross").state)
    assert after.cash == pytest.approx(cash + 0.5 * shares)
    (told,) = floor.desk.events().filter(kind="correction").to_dicts()
    assert (told["quantity"], told["price"], told["value"]) == (0.0, fill.price - 0.5, pytest.approx(0.5 * shares))
    floor.ledger.record_charges({floor.ledger.fills([ref])[0].execution_id: (3.5, "USD")})
    floor.settle()
    floor.settle()
    assert State.from_bytes(floor.desk.accounts.last("cross").state).cash == pytest.approx(cash + 0.5 * shares - 2.5)
    assert floor.desk.events().filter(kind="fee")["value"].to_list() == [2.5]
    # The book agrees, but for the commission that only the ledger was told of.
    assert floor.bench.book.cash == pytest.approx(after.cash)


def test_an_execution_that_was_taken_back_before_it_was_seen_leaves_nothing(floor):
    sessions = floor.sessions()
    floor.evening(sessions[0])
    refs = [one.client_order_id for one in floor.ledger.orders("ibkr")]
    floor.orders.close()
    floor.orders = None
    floor.morning(sessions[1])
    book = floor.bench.book
    for fill in list(book.fills):
        book.correct(fill.order.ref, fill.price, 0)
    floor.settle()
    account = floor.desk.accounts.last("cross")
    state = State.from_bytes(account.state)
    assert len(refs) == len(book.fills) == 2 and book.held() == {}
    assert state.working_orders == 0 and not state.positions.any() and state.cash == pytest.approx(book.cash)
    assert all(one.ended and one.told for one in floor.ledger.orders("ibkr"))
    assert floor.desk.events().filter(kind="fill").is_empty()
    floor.evening(sessions[1])
    rows = floor.desk.lake.query(
        f"SELECT filled, price, slippage FROM {BROKER_ORDERS.name} WHERE session = ?", [sessions[0]]
    )
    assert rows["filled"].to_list() == [0.0, 0.0] and rows["price"].to_list() == [None, None]


def test_an_account_of_another_broker_is_refused(floor):
    floor.run(floor.sessions()[:2])
    with pytest.raises(OtherBroker, match="new name"):
        floor.desk.trade(FIRST, LAST, floor.bench.now, replace(STRATEGY, broker="simulated"))


def test_a_halt_calls_back_what_works_and_liquidates_at_the_broker(floor):
    left = until_held(floor)
    ask_to_halt(floor.desk.accounts, "cross", "anna", liquidate=True)
    floor.morning(left[0])
    floor.evening(left[0])
    assert "liquidation" in {one.leg for one in floor.ledger.orders("ibkr")}
    floor.morning(left[1])
    floor.settle()
    assert floor.bench.book.held() == {} and floor.desk.accounts.last("cross").halted == "by_hand"


def test_a_limit_order_of_the_day_expires_at_the_broker_and_in_the_account(tmp_path):
    style = OrderStyle(type="limit", offset_bps=500)
    strategy = replace(STRATEGY, settings=replace(SETTINGS, orders=style))
    with Floor(tmp_path, strategy).open() as floor:
        sessions = floor.sessions()
        for place, session in enumerate(sessions):
            if place:
                floor.morning(session)
            floor.evening(session)
            if "order_expired" in set(floor.desk.events()["kind"]):
                break
        told = floor.desk.events().filter(kind="order_expired")
        assert set(told["reason"]) == {"expired_at_broker"}
        assert {one.status for one in floor.ledger.orders("ibkr") if one.told} == {"expired"}


def test_until_when_orders_are_sent():
    daily = DATASET
    friday = datetime(2025, 3, 7, 21, tzinfo=UTC)
    assert sendable_until(friday, daily, "1d") == datetime(2025, 3, 10, 20, tzinfo=UTC)
    minutes = replace(make_dataset("XNYS", "5m"), name="m")
    assert sendable_until(datetime(2025, 3, 7, 15, tzinfo=UTC), minutes, "5m") == datetime(
        2025, 3, 7, 15, 5, tzinfo=UTC
    )
    late = datetime(2025, 3, 7, 15, 0, 3, tzinfo=UTC)
    assert sendable_until(late, minutes, "5m") == datetime(2025, 3, 7, 15, 10, tzinfo=UTC)
    assert sendable_until(friday, minutes, "5m") == datetime(2025, 3, 10, 13, 35, tzinfo=UTC)
