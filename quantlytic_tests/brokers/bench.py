"""A bench to try orders on: a loopback TWS with its book, a ledger, and desks as one process after another has them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from quantlytic_assets.brokers.ibkr import IbkrBroker
from quantlytic_assets.brokers.paper_guard import PaperGuard
from quantlytic_assets.brokers.protocol import Traded
from quantlytic_assets.brokers.restarts import Restarts
from quantlytic_assets.services.broker_desk import BrokerDesk
from quantlytic_assets.storage.broker_ledger import BrokerFill, BrokerLedger, BrokerOrder
from quantlytic_assets.storage.state import open_state
from quantlytic_tests.brokers.tws_book import TwsBook
from quantlytic_tests.vendors.tws_server import Instrument

ACCOUNT = "DU1234567"
APPLE, IBM = Instrument(265598, "AAPL"), Instrument(8314, "IBM", listed="NYSE")
MEXICAN = Instrument(38708077, "AAPL", currency="USD", listed="MEXI")
VODAFONE = Instrument(52627, "VOD", currency="GBP", listed="LSE")
CENT = Instrument(4762, "BA", listed="NYSE", tick=0.05)
NAMES = {"VOD": "STK:VOD/GBP@LSE"}
# A Wednesday, at eleven in New York.
NOON = datetime(2025, 3, 5, 16, tzinfo=UTC)


@cache
def empty_state() -> bytes:
    """A state database of this code's layout without a row: making one takes longer than a test."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "state.sqlite"
        open_state(f"sqlite:///{path}").dispose()
        return path.read_bytes()


class Bench:
    """See the module; `now` is what all clocks show."""

    def __init__(self, root, instruments=(APPLE, IBM, VODAFONE, CENT), version: int = 178):
        self.book = TwsBook(instruments, version)
        self.book.prices.update({"AAPL": 150.0, "IBM": 100.0, "VOD": 1.0, "BA": 200.0})
        self.now = NOON
        self.book.clock = lambda: self.now
        (root / "state.sqlite").write_bytes(empty_state())
        self.url = f"sqlite:///{root / 'state.sqlite'}"
        self.ledger = BrokerLedger(self.url, clock=lambda: self.now)
        self._desks: list[BrokerDesk] = []
        self._written = 0

    @contextmanager
    def serving(self) -> Iterator[Bench]:
        """With TWS running, until the block ends."""
        with self.book.serving():
            try:
                yield self
            finally:
                for desk in self._desks:
                    desk.close()
                self.ledger.close()

    def broker(self, seconds: float = 5.0, **how: Any) -> IbkrBroker:
        """A broker of its own."""
        guard = PaperGuard(how.pop("account", ACCOUNT), how.pop("allowed", [ACCOUNT]), self.book.port)
        return IbkrBroker(guard, "127.0.0.1", self.book.port, how.pop("client_id", 18), seconds=seconds)

    def desk(self, seconds: float = 5.0, **how: Any) -> BrokerDesk:
        """A connected desk, as a new process has it."""
        confirmed = how.pop("confirmed_within", timedelta(seconds=10))
        restarts = how.pop("restarts", Restarts())
        broker = self.broker(seconds, **how)
        desk = BrokerDesk(
            broker, self.ledger, lambda order: Traded(order.symbol, "XNYS", NAMES.get(order.symbol)), restarts,
            lambda: self.now, confirmed,
        )  # fmt: skip
        self._desks.append(desk)
        desk.connect()
        return desk

    def write(self, symbol: str = "AAPL", side: int = 1, quantity: float = 10.0, **how: Any) -> str:
        """Writes an order, as a step of an account does; returns its reference."""
        self._written += 1
        leg = how.pop("leg", "entry")
        ref = f"s:{symbol}:{self.now:%Y-%m-%dT%H:%M:%S}.{self._written}Z:{leg}"
        made = BrokerOrder(
            how.pop("ref", ref), "ibkr", "s", self._written,
            date(2025, 3, 5), symbol, leg, side, quantity, how.pop("type", "market"), how.pop("time_in_force", "day"),
            how.pop("limit", None), how.pop("stop", None), how.pop("trail", None), how.pop("group", ""),
            self.book.prices.get(symbol), self.now, how.pop("expires_at", self.now + timedelta(hours=5)), self.now,
        )  # fmt: skip
        self.want(replace(made, **how))
        return made.client_order_id

    def want(self, order: BrokerOrder) -> None:
        """Writes an order, or a change of it."""
        with self.ledger._engine.begin() as connection:
            self.ledger.write(connection, [order])

    def call_back(self, ref: str) -> None:
        """Asks that an order is cancelled."""
        self.want(replace(self.order(ref), wanted="cancelled"))

    def order(self, ref: str) -> BrokerOrder:
        """An order as it is on record."""
        return self.ledger.by_reference([ref])[ref]

    def fills(self, ref: str) -> list[BrokerFill]:
        """Its executions on record."""
        return self.ledger.fills([ref])

    def status(self, ref: str) -> str:
        """Its status on record."""
        return self.order(ref).status

    def sent(self, ref: str) -> int:
        """How many orders TWS has with this reference."""
        return self.book.refs().count(ref)

    def agrees(self) -> bool:
        """Whether shares by symbol are the same in the ledger's executions and in the book."""
        held: dict[str, float] = {}
        for one in self.ledger.fills([order.client_order_id for order in self.ledger.orders("ibkr")]):
            held[one.symbol] = held.get(one.symbol, 0.0) + one.side * one.quantity
        return {name: shares for name, shares in held.items() if shares} == self.book.held()
