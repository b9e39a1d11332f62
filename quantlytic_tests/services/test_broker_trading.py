"""Trading at a broker as a process does it: sent, settled, published, compared, and gone on with after a break."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from quantlytic_assets.brokers.protocol import LiveAccount
from quantlytic_assets.resources import Resources
from quantlytic_assets.schemas.trading import BROKER_ACCOUNT, BROKER_ORDERS
from quantlytic_assets.services.broker_account import OtherBroker
from quantlytic_assets.services.broker_trading import (
    at_broker,
    compared,
    instruments,
    newest_differences,
    publish_values,
    soon,
    sync,
    trade_on,
    trade_once,
)
from quantlytic_assets.settings import Settings
from quantlytic_assets.storage.postgres import Held
from quantlytic_assets.universe.models import Instrument, Universe
from quantlytic_tests.services.desk import DATASET
from quantlytic_tests.services.floor import STRATEGY, Floor, until_held

TRADED = replace(DATASET, symbols=(Instrument("AAPL"), Instrument("IBM", names={"ibkr": "STK:IBM@NYSE"})))
PAIRS = [(TRADED, STRATEGY)]


@pytest.fixture
def floor(tmp_path):
    with Floor(tmp_path).open() as opened:
        yield opened


def synced(floor):
    return sync(
        floor.connected(), floor.desk.lake, floor.desk.accounts, floor.ledger, PAIRS, clock=lambda: floor.bench.now
    )


def test_orders_are_sent_fills_taken_in_and_both_sides_compared(floor):
    session, following = floor.sessions()[:2]
    known = floor.days.filter(pl.col("session") <= session)
    floor.bench.now = known["available_at"].max() + timedelta(hours=1)
    floor.bench.book.closed = True
    floor.desk.give(known)
    done = trade_once(
        floor.connected(), floor.desk.lake, floor.desk.accounts, floor.ledger, TRADED, STRATEGY, floor.bench.now
    )
    assert done.bars == 1 and len(floor.bench.book.orders) == 2
    standing = synced(floor)
    assert standing.positions == () and standing.differences == () and len(standing.orders) == 2
    floor.morning(following)
    standing = synced(floor)
    assert standing.orders == () and {one.symbol for one in standing.positions} == {"AAPL", "IBM"}
    assert all(one.agrees for one in standing.positions) and standing.differences == ()
    told = standing.to_json()
    assert told["equity"] == pytest.approx(floor.bench.book._worth()["NetLiquidation"], abs=0.01)
    publish_values(floor.desk.lake, floor.ledger, "ibkr")
    rows = floor.desk.lake.query(f"SELECT * FROM {BROKER_ACCOUNT.name} ORDER BY asked_at")
    assert rows["differences"].to_list() == [0, 0] and rows["account"].unique().to_list() == ["DU1234567"]
    assert floor.desk.lake.query(f"SELECT status FROM {BROKER_ORDERS.name}")["status"].to_list() == ["filled"] * 2
    assert floor.desk.published()["trading.fills"].height == 2


def test_a_position_that_somebody_else_made_is_a_difference_and_an_order_of_theirs_is_not(floor):
    until_held(floor)
    floor.bench.book.open_market()
    floor.bench.book.place_foreign("", "IBM", "BUY", 5, 1.0)
    standing = synced(floor)
    assert standing.differences == () and len(standing.unknown) == 1
    shares = floor.bench.book.held()["AAPL"]
    floor.bench.book.place_foreign("by hand", "AAPL", "SELL", 3, 1.0)
    standing = synced(floor)
    assert standing.differences == (f"AAPL: {shares:g} in the ledger, {shares - 3:g} at the broker",)
    values, told = newest_differences(floor.ledger, "ibkr")
    assert told == list(standing.differences) and values.account == "DU1234567"
    assert floor.bench.book.held()["AAPL"] == shares - 3


def test_a_process_trades_each_bar_as_it_comes_and_survives_a_gateway_that_restarts(floor):
    sessions, said, stop = floor.sessions(), [], threading.Event()
    desk = floor.connected()
    floor.bench.now = floor.days["available_at"].min()

    def trading():
        trade_on(
            desk, floor.desk.lake, floor.desk.accounts, floor.ledger, PAIRS, PAIRS, stop, said.append,
            lambda: floor.bench.now,
        )  # fmt: skip

    def reached(what, seconds=30.0):
        end = time.monotonic() + seconds
        while not what() and time.monotonic() < end:
            time.sleep(0.02)
        assert what(), said

    thread = threading.Thread(target=trading)
    thread.start()
    try:
        for number, session in enumerate(sessions[:3]):
            if number:
                floor.morning(session)
                reached(lambda: all(one.ended and one.told for one in floor.ledger.orders("ibkr")))
                floor.bench.book.close_market()
            else:
                floor.bench.book.closed = True
            known = floor.days.filter(pl.col("session") <= session)
            floor.bench.now = known["available_at"].max() + timedelta(hours=1)
            floor.desk.give(known)
            reached(lambda: (one := floor.desk.accounts.last("cross")) and one.session == session)  # noqa: B023
            reached(lambda: all(one.status != "written" for one in floor.ledger.orders("ibkr")))
            floor.bench.book.cut()
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive() and any("bars=1" in one for one in said)
    assert floor.bench.book.refs() == [one.client_order_id for one in floor.ledger.orders("ibkr")]
    assert compared(
        floor.connected(), floor.desk.accounts, floor.ledger, PAIRS, floor.bench.now
    ).differences == ()  # fmt: skip


def test_a_process_ends_where_a_live_account_shows_up(floor):
    floor.bench.now = floor.days["available_at"].min() + timedelta(hours=1)
    floor.bench.book.closed = True
    floor.desk.give(floor.days.filter(pl.col("session") <= floor.sessions()[0]))
    desk = floor.connected()
    floor.bench.book.rename_accounts("U7654321")
    said: list[str] = []
    with pytest.raises(LiveAccount, match="U7654321"):
        trade_on(
            desk, floor.desk.lake, floor.desk.accounts, floor.ledger, PAIRS, PAIRS, threading.Event(), said.append,
            lambda: floor.bench.now,
        )  # fmt: skip
    assert floor.bench.book.orders == []


def test_a_process_does_not_take_over_an_account_that_is_simulated(floor):
    floor.desk.give(floor.days)
    floor.desk.trade(floor.sessions()[0], floor.sessions()[2], strategy=replace(STRATEGY, broker="simulated"))
    with pytest.raises(OtherBroker, match="cross"):
        trade_on(
            floor.connected(), floor.desk.lake, floor.desk.accounts, floor.ledger, PAIRS, PAIRS, threading.Event(),
            print, lambda: floor.bench.now,
        )  # fmt: skip


def test_a_lock_is_waited_for_so_long(tmp_path):
    resources = Resources(Settings(home=tmp_path))
    with resources.lock("x", wait=False), pytest.raises(Held), soon(lambda: resources.lock("x", wait=False), 0.1):
        pass
    with soon(lambda: resources.lock("x", wait=False), 0.1):
        pass


def test_symbols_are_known_by_the_brokers_names(tmp_path):
    universe = Universe(
        tmp_path, {"daily": TRADED}, {"cross": STRATEGY, "paper": replace(STRATEGY, broker="simulated")}
    )
    assert at_broker(universe) == [(TRADED, STRATEGY)]
    with Floor(tmp_path).open() as floor:
        ref = floor.bench.write("IBM")
        order = replace(floor.bench.order(ref), strategy="cross")
        traded = instruments(universe)
        assert traded(order).name == "STK:IBM@NYSE" and traded(replace(order, symbol="AAPL")).name is None
        assert traded(replace(order, symbol="MSFT")) is None
