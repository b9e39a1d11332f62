"""`python -m quantlytic_tests.brokers.soak`: a month at a broker, with a process that is killed and a line that is cut.

A strategy with exits trades two shares at a loopback TWS whose book outlives everything. The process that trades is
killed at random moments, and so is its connection, also right before and after an order is read. At the end no order
may be there twice, none may be missing, and ledger, account and book must hold the same shares and the same cash.
Prints what it came to; exits 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import polars as pl

from quantlytic_assets.brokers.ibkr import IbkrBroker
from quantlytic_assets.brokers.paper_guard import PaperGuard
from quantlytic_assets.brokers.protocol import BrokerError, Traded
from quantlytic_assets.calendars.sessions import keep_tables
from quantlytic_assets.services.broker_desk import BrokerDesk
from quantlytic_assets.services.paper_account import settle_account, trade
from quantlytic_assets.storage.broker_ledger import BrokerLedger
from quantlytic_assets.storage.session_tables import SessionTables
from quantlytic_assets.trading.engine.run import run
from quantlytic_assets.trading.engine.settings import EngineSettings, Exits
from quantlytic_assets.trading.engine.settlement import BrokerReport, Ordered, settle
from quantlytic_assets.trading.engine.state import State
from quantlytic_tests.brokers.bench import ACCOUNT, APPLE, IBM
from quantlytic_tests.brokers.tws_book import TwsBook
from quantlytic_tests.services.desk import DATASET, Desk, recorded_days
from quantlytic_tests.services.floor import FIRST, SETTINGS, STRATEGY
from quantlytic_tests.storage.processes import context
from quantlytic_tests.trading.engine.markets import flat

EXITS = Exits(stop_loss=0.012, take_profit=0.03, trailing_stop=0.012, reenter=True)
TRADING = replace(STRATEGY, settings=replace(SETTINGS, exits=EXITS))
_CASH = 100_000.0
_CONVERGED_SECONDS = 600.0
# What is imported once, and not by each of the processes.
_IMPORTED = ["quantlytic_tests.services.floor", "ib_async", "numba.core.caching", "scipy.linalg", "pyarrow"]


@dataclass(frozen=True)
class Moment:
    """What the trading process is told: the time, and the session whose bars are there (None: no new one)."""

    now: datetime
    session: date | None

    def write(self, root: Path) -> None:
        """Leaves it where the process looks, all at once."""
        path = root / "moment.new"
        path.write_text(json.dumps([self.now.isoformat(), self.session and self.session.isoformat()]))
        path.rename(root / "moment")

    @classmethod
    def read(cls, root: Path) -> Moment:
        """The newest one."""
        now, session = json.loads((root / "moment").read_text())
        return cls(datetime.fromisoformat(now), date.fromisoformat(session) if session else None)


def trading(root: Path, port: int) -> None:
    """Trade until killed: what `quantlytic broker trade` does, by the clock and the bars of the moment."""
    keep_tables(SessionTables(root / "sessions"))
    desk = Desk(root / "desk")
    ledger = BrokerLedger(f"sqlite:///{root / 'desk' / 'state.sqlite'}", clock=lambda: Moment.read(root).now)
    broker = IbkrBroker(PaperGuard(ACCOUNT, [ACCOUNT], port), "127.0.0.1", port, 18, seconds=5)
    orders = BrokerDesk(
        broker, ledger, lambda order: Traded(order.symbol, "XNYS"), clock=lambda: Moment.read(root).now,
        confirmed_within=timedelta(hours=1),
    )  # fmt: skip
    while True:
        try:
            orders.turn(0.02)
        except BrokerError:
            time.sleep(0.02)
            continue
        moment = Moment.read(root)
        settle_account(desk.lake, desk.accounts, ledger, DATASET, TRADING, moment.now)
        stored = desk.accounts.last("cross")
        if moment.session is not None and (stored is None or stored.session < moment.session):
            following = moment.session + timedelta(days=1)
            trade(desk.lake, desk.accounts, DATASET, TRADING, moment.session, following, moment.now, ledger)


def compile_engine() -> None:
    """Make the engine's machine code where it is not kept yet: else each process would be killed while it does."""
    market, costless = flat([1.0]), EngineSettings(1.0)
    state = run(market, None, costless).state
    order = Ordered(1, market.symbols[0], 1, "market", "entry", datetime.now(UTC))
    report = BrokerReport("charged", order, datetime.now(UTC), FIRST, commission=1.0)
    settle(state, costless, market.symbols, market.static, [report])


@dataclass(frozen=True)
class Told:
    """What a soak came to; `wrong` says what differs, and must be empty. drops: lines that were cut."""

    sessions: int
    kills: int
    drops: int
    connections: int
    orders: int
    fills: int
    sent_again: int
    seconds: float
    wrong: tuple[str, ...]


class Soak:
    """The market, the broker and the misfortunes; `root` is where everything is kept."""

    def __init__(self, root: Path, sessions: int, seed: int):
        self.root, self.drawn = root, random.Random(seed)
        days = recorded_days()
        self.sessions = sorted(days.filter(pl.col("session") >= FIRST)["session"].unique().to_list())[:sessions]
        self.days = days.filter(pl.col("session") <= self.sessions[-1])
        self.desk = Desk(root / "desk", self.days)
        self.ledger = BrokerLedger(f"sqlite:///{root / 'desk' / 'state.sqlite'}")
        self.book = TwsBook([APPLE, IBM], cash=_CASH)
        self.book.clock = lambda: Moment.read(root).now
        self.process: BaseProcess | None = None
        self.kills = 0

    def run(self, kills: int, drops: int) -> Told:
        """Trades all sessions with so many kills and drops in all, spread evenly."""
        compile_engine()
        began = time.monotonic()
        moves = ["kill"] * kills + ["drop"] * drops
        self.drawn.shuffle(moves)
        parts = 3 * len(self.sessions)
        share = [moves[part * len(moves) // parts : (part + 1) * len(moves) // parts] for part in range(parts)]
        with self.book.serving():
            try:
                for number, session in enumerate(self.sessions):
                    if number:
                        self._morning(session)
                        self._strike(share[3 * number])
                        self._noon(session)
                        self._strike(share[3 * number + 1])
                    else:
                        share[2] = share[0] + share[1] + share[2]
                    self._evening(session)
                    self._strike(share[3 * number + 2])
                    self._converge(session)
                    counts = f"{self.kills} kills, {self.book.cuts} drops, {self.book.connections} connections"
                    wrong = self._compared()
                    print(f"{session}: {counts}; {'; '.join(wrong) or 'all agrees'}", flush=True)
                    if wrong:
                        break
            finally:
                if self.process is not None:
                    self.process.kill()
                    self.process.join()
        orders = self.ledger.orders("ibkr")
        return Told(
            len(self.sessions), self.kills, self.book.cuts, self.book.connections, len(orders), len(self.book.fills),
            sum(one.attempts > 1 for one in orders), time.monotonic() - began, wrong,
        )  # fmt: skip

    def _morning(self, session: date) -> None:
        bars = self.days.filter(pl.col("session") == session)
        self.book.next_day()
        Moment(bars["open_time"].min(), None).write(self.root)
        for symbol, price in bars.select("symbol", "open").iter_rows():
            self.book.prices[symbol] = price
        self.book.open_market()

    def _noon(self, session: date) -> None:
        """The bar's high and low, at which stops and targets are reached."""
        for symbol, high, low in self.days.filter(pl.col("session") == session).select("symbol", "high", "low").rows():
            for price in self.drawn.sample([high, low], 2):
                self.book.quote(symbol, price)

    def _evening(self, session: date) -> None:
        known = self.days.filter(pl.col("session") <= session)
        for symbol, price in known.filter(pl.col("session") == session).select("symbol", "close").iter_rows():
            self.book.prices[symbol] = price
        self.book.close_market()
        self.desk.give(known)
        Moment(known["available_at"].max() + timedelta(hours=1), session).write(self.root)

    def _alive(self) -> BaseProcess:
        if self.process is None or not self.process.is_alive():
            ended = self.process and self.process.exitcode
            assert ended in (None, -signal.SIGKILL), f"the process ended by itself: {ended}"
            server = context()
            server.set_forkserver_preload(_IMPORTED)
            self.process = server.Process(target=trading, args=(self.root, self.book.port), daemon=True)
            self.process.start()
        return self.process

    def _strike(self, moves: list[str]) -> None:
        for move in moves:
            process = self._alive()
            # Some are killed before they have come as far as a connection.
            if move == "drop" or self.drawn.random() >= 0.05:
                self._connected()
            time.sleep(self.drawn.uniform(0.0, 0.35))
            if move == "kill":
                self.kills += 1
                process.kill()
                process.join()
            else:
                self._drop()

    def _connected(self) -> None:
        """Waits until the process has its connection, however busy the machine is."""
        until = time.monotonic() + _CONVERGED_SECONDS
        while not self.book.lines:
            assert time.monotonic() < until, f"not connected within {_CONVERGED_SECONDS:g} s"
            self._alive()
            time.sleep(0.01)

    def _drop(self) -> None:
        """Cuts the line, and sometimes the next one in its first words, or before or after the next order is taken."""
        how = self.drawn.choice(["now", "before", "after", "again"])
        if how == "before":
            self.book.cut_before += 1
        elif how == "after":
            self.book.cut_after += 1
        elif how == "again":
            self.book.cut_in = self.drawn.randint(1, 8)
        cuts = self.book.cuts
        while self.book.cuts == cuts:
            self._connected()
            self.book.cut()

    def _converge(self, session: date) -> None:
        """Waits until the undisturbed process has nothing left to do."""
        until = time.monotonic() + _CONVERGED_SECONDS
        while time.monotonic() < until:
            process = self._alive()
            process.join(0.05)
            stored = self.desk.accounts.last("cross")
            open_ones = self.ledger.unfinished("ibkr")
            idle = all(
                not one.ended and one.status == "working" and one.sent_revision == one.revision
                and one.wanted == "working"
                for one in open_ones
            )  # fmt: skip
            if stored is not None and stored.session == session and idle:
                return
        said = [(one.client_order_id, one.status, one.wanted, one.reason) for one in open_ones]
        raise AssertionError(
            f"{session}: not caught up within {_CONVERGED_SECONDS:g} s: {stored and stored.session}, {said}"
        )

    def _compared(self) -> tuple[str, ...]:
        wrong = []
        refs, orders = self.book.refs(), self.ledger.orders("ibkr")
        wrong += [f"{ref} was sent {refs.count(ref)} times" for ref in set(refs) if refs.count(ref) > 1]
        # One whose sending was cut off is sent again, but for one that is not wanted any more by then.
        wrong += [
            f"{one.client_order_id} is missing at the broker: {one}"
            for one in orders
            if one.attempts
            and one.client_order_id not in refs
            and not (one.wanted == one.status == "cancelled" and one.permanent_id is None)
        ]
        wrong += [
            f"{ref} is unknown to the ledger" for ref in sorted(set(refs) - {one.client_order_id for one in orders})
        ]
        fills = self.ledger.fills([one.client_order_id for one in orders])
        shares: dict[str, float] = {}
        for one in fills:
            shares[one.symbol] = shares.get(one.symbol, 0.0) + one.side * one.quantity
        shares = {name: held for name, held in shares.items() if held}
        stored = self.desk.accounts.last("cross")
        state = State.from_bytes(stored.state)
        account = {
            name: held for name, held in zip(stored.symbols, state.positions.tolist(), strict=True) if held
        }  # fmt: skip
        if not shares == account == self.book.held():
            wrong.append(f"shares: {shares} in the ledger, {account} in the account, {self.book.held()} in the book")
        if len(fills) != len(self.book.fills):
            wrong.append(f"executions: {len(fills)} in the ledger, {len(self.book.fills)} in the book")
        if abs(state.cash - self.book.cash) > 1e-6:
            wrong.append(f"cash: {state.cash:.6f} in the account, {self.book.cash:.6f} in the book")
        return tuple(wrong)


def main() -> int:
    """Run what is asked for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m quantlytic_tests.brokers.soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--drops", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=21)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="of the random moments")
    options = parser.parse_args()
    print(f"seed {options.seed}, process {os.getpid()}", flush=True)
    with tempfile.TemporaryDirectory() as root:
        told = Soak(Path(root), options.sessions, options.seed).run(options.kills, options.drops)
    print(told)
    return 1 if told.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
