"""A trading floor: a desk of a strategy with a loopback TWS behind it, evening by evening and morning by morning."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import date, timedelta

import polars as pl

from quantlytic_assets.brokers.protocol import Traded
from quantlytic_assets.services.broker_desk import BrokerDesk
from quantlytic_assets.services.paper_account import settle_account, trade
from quantlytic_assets.storage.broker_ledger import BrokerLedger
from quantlytic_assets.trading.engine.settings import Costs, EngineSettings
from quantlytic_assets.universe.models import Strategy
from quantlytic_tests.brokers.bench import APPLE, IBM, Bench
from quantlytic_tests.services.desk import DATASET, Desk, recorded_days

# The same costs as the loopback TWS takes: a dollar an execution, and no slippage.
SETTINGS = EngineSettings(
    100_000.0, volume_cap=None, costs=Costs(commission_bps=0, slippage_bps=0, per_order=1), cash_buffer=0.05
)
STRATEGY = Strategy(
    "cross", "daily", "1d", ("AAPL", "IBM"), {"ma_cross": {"fast": 5, "slow": 20}}, SETTINGS,
    declared=("core", "sma(5)"), broker="ibkr",
)  # fmt: skip
FIRST, LAST = date(2011, 1, 3), date(2011, 1, 15)


class Floor:
    """A desk of a strategy with a broker behind it, day by day."""

    def __init__(self, root, strategy=STRATEGY):
        self.strategy = strategy
        self.days = recorded_days().filter(pl.col("session") < LAST)
        self.desk = Desk(root / "desk", self.days)
        self.bench = Bench(root, [APPLE, IBM])
        self.bench.book.cash, self.bench.book.margin = 100_000.0, 2.0
        self.ledger = BrokerLedger(f"sqlite:///{root / 'desk' / 'state.sqlite'}", clock=lambda: self.bench.now)
        self.orders: BrokerDesk | None = None

    @contextmanager
    def open(self):
        with self.bench.serving():
            yield self
            if self.orders is not None:
                self.orders.close()

    def connected(self) -> BrokerDesk:
        if self.orders is None:
            self.orders = BrokerDesk(
                self.bench.broker(), self.ledger, lambda order: Traded(order.symbol, "XNYS"),
                clock=lambda: self.bench.now,
            )  # fmt: skip
            self.orders.connect()
        return self.orders

    def sessions(self) -> list[date]:
        return sorted(self.days.filter(pl.col("session") >= FIRST)["session"].unique().to_list())

    def evening(self, session: date) -> None:
        """The bars of a session are there: the account goes on, and its orders are sent."""
        known = self.days.filter(pl.col("session") <= session)
        self.bench.now = self.desk.now = known["available_at"].max() + timedelta(hours=1)
        self.bench.book.close_market()
        self.desk.give(known)
        self.settle()
        trade(
            self.desk.lake, self.desk.accounts, DATASET, self.strategy, session, session + timedelta(days=1),
            self.bench.now, self.ledger,
        )  # fmt: skip
        self.settle()

    def morning(self, session: date) -> None:
        """The market opens at the session's opens: what waits is filled."""
        self.bench.book.next_day()
        bars = self.days.filter(pl.col("session") == session)
        self.bench.now = bars["open_time"].min()
        for symbol, opened in bars.select("symbol", "open").iter_rows():
            self.bench.book.prices[symbol] = opened
        self.bench.book.open_market()

    def settle(self) -> None:
        desk = self.connected()
        desk.settle_down(5)
        settle_account(self.desk.lake, self.desk.accounts, self.ledger, DATASET, self.strategy, self.bench.now)
        desk.settle_down(5)

    def run(self, sessions) -> None:
        for before, session in zip([None, *sessions[:-1]], sessions, strict=True):
            if before is not None:
                self.morning(session)
            self.evening(session)

    def held(self) -> dict[str, float]:
        state = self.desk.accounts.last("cross")
        rows = self.desk.accounts.sessions("cross", state.session)
        return {name: held[0] for name, held in json.loads(rows["positions"][-1]).items()}


def until_held(floor) -> list[date]:
    """Runs until something is held; the sessions that are left."""
    sessions = floor.sessions()
    for place, session in enumerate(sessions):
        if place:
            floor.morning(session)
        floor.evening(session)
        if floor.bench.book.held():
            return sessions[place + 1 :]
    raise AssertionError("nothing was bought")
