"""Trading at a broker: accounts go on, their orders are sent, its reports are settled, and both are compared.

`trade_once` is what a daily asset and a process that lives for long both do. The live path decides by itself, and sends
by `trade_on`.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.brokers.protocol import BrokerError, Listing, LiveAccount, Traded
from quantlytic_assets.schemas.trading import BROKER_ACCOUNT
from quantlytic_assets.services.broker_account import check_broker, held_in
from quantlytic_assets.services.paper_account import Trades, publish, publish_broker_orders, settle_account, trade
from quantlytic_assets.storage.broker_ledger import BrokerLedger, BrokerOrder, BrokerValues
from quantlytic_assets.storage.postgres import Held
from quantlytic_assets.tables.features import newest_bar
from quantlytic_assets.trading.engine.state import State

if TYPE_CHECKING:
    from quantlytic_assets.services.broker_desk import BrokerDesk
    from quantlytic_assets.storage.accounts import Accounts
    from quantlytic_assets.storage.lake import Lake
    from quantlytic_assets.universe.models import Dataset, Strategy, Universe

_log = logging.getLogger(__name__)
Pair = tuple["Dataset", "Strategy"]
_DAY = timedelta(days=1)
_DUST = 1e-6
# How long confirmations are waited for.
_SETTLE_SECONDS = 30.0
# How often a process that lives for long looks for new bars, compares positions, and tries to connect again at most.
_LOOK_SECONDS, _COMPARE_SECONDS, _LONGEST_PAUSE = 5.0, 60.0, 60.0


@dataclass(frozen=True)
class Position:
    """Shares of a symbol in the ledger and at the broker."""

    symbol: str
    ledger: float
    broker: float

    @property
    def agrees(self) -> bool:
        """Whether they are the same."""
        return abs(self.ledger - self.broker) <= _DUST


@dataclass(frozen=True)
class BrokerStanding:
    """How the account at a broker stands beside the ledger; differences are said in words.

    orders: those that are not over. unknown: what of the broker's book the ledger does not know, which is not touched.
    """

    broker: str
    account: str
    at: datetime
    values: BrokerValues
    positions: tuple[Position, ...]
    orders: tuple[BrokerOrder, ...]
    unknown: tuple[str, ...]
    differences: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """All of it for a program."""
        figures = ("currency", "equity", "cash", "buying_power", "gross_exposure")
        return {
            "broker": self.broker, "account": self.account, "at": self.at,
            **{name: getattr(self.values, name) for name in figures},
            "positions": [{**asdict(one), "agrees": one.agrees} for one in self.positions],
            "orders": [_shown(one) for one in self.orders],
            "unknown": list(self.unknown), "differences": list(self.differences),
        }  # fmt: skip


def _shown(order: BrokerOrder) -> dict[str, object]:
    names = ("client_order_id", "symbol", "quantity", "type", "limit_price", "stop_price", "status", "filled", "reason")
    side = "buy" if order.side > 0 else "sell"
    return {**{name: getattr(order, name) for name in names}, "side": side, "held_for": order.held_for}


def at_broker(universe: Universe, broker: str = "ibkr") -> list[Pair]:
    """The strategies whose orders a broker executes, each with its dataset."""
    return [(universe.datasets[one.dataset], one) for one in universe.strategies.values() if one.broker == broker]


def instruments(universe: Universe) -> Callable[[BrokerOrder], Traded | None]:
    """What the symbol of an order is to the broker."""
    known = {
        (strategy.name, one.symbol): Traded(one.symbol, dataset.calendar, one.names.get(strategy.broker))
        for dataset, strategy in at_broker(universe)
        for one in dataset.symbols
    }
    return lambda order: known.get((order.strategy, order.symbol))


def trade_once(
    desk: BrokerDesk | None,
    lake: Lake,
    accounts: Accounts,
    ledger: BrokerLedger,
    dataset: Dataset,
    strategy: Strategy,
    now: datetime,
) -> Trades:
    """Trade the bars that were not traded, and send what follows where there is a desk; else it waits in the ledger.

    Raises what `paper_account.trade` raises, and `BrokerError`; the account has gone on then all the same.
    """
    stored = accounts.last(strategy.name)
    first = stored.session if stored else now.date() - _DAY
    done = trade(lake, accounts, dataset, strategy, first, now.date() + 2 * _DAY, now, ledger)
    if desk is not None:
        desk.settle_down(_SETTLE_SECONDS)
    return done


def sync(
    desk: BrokerDesk,
    lake: Lake,
    accounts: Accounts,
    ledger: BrokerLedger,
    pairs: Sequence[Pair],
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> BrokerStanding:
    """Send what waits, settle what was reported, publish it, and compare the account with the ledger.

    Raises `BrokerError` where the broker can't be asked.
    """
    if not desk.broker.connected:
        desk.connect()
    desk.settle_down(_SETTLE_SECONDS)
    if settled(lake, accounts, ledger, pairs, clock()):
        # Exits of what was filled.
        desk.settle_down(_SETTLE_SECONDS)
    publish_orders(lake, ledger, pairs)
    return compared(desk, accounts, ledger, pairs, clock())


def settled(lake: Lake, accounts: Accounts, ledger: BrokerLedger, pairs: Sequence[Pair], now: datetime) -> int:
    """Take into each account what was reported of its orders; returns how many events that were."""
    total = 0
    for dataset, strategy in pairs:
        stored = accounts.last(strategy.name)
        if stored is None or stored.broker != strategy.broker:
            continue
        events = settle_account(lake, accounts, ledger, dataset, strategy, now)
        if events:
            publish(lake, accounts, strategy.name, min(stored.oldest_open, stored.session))
            publish_broker_orders(lake, ledger, dataset, strategy)
        total += events
    return total


def publish_orders(lake: Lake, ledger: BrokerLedger, pairs: Sequence[Pair]) -> None:
    """Copy how orders stand into trading.broker_orders: that they were sent and confirmed is no event of an account."""
    for dataset, strategy in pairs:
        publish_broker_orders(lake, ledger, dataset, strategy)


def compared(
    desk: BrokerDesk, accounts: Accounts, ledger: BrokerLedger, pairs: Sequence[Pair], now: datetime
) -> BrokerStanding:
    """How the broker's book, as of now, stands beside the ledger; kept with what the account is worth."""
    desk.reconcile()
    book, broker = desk.book, desk.broker
    held: dict[Traded, float] = {}
    for dataset, strategy in pairs:
        by_symbol = {one.symbol: one for one in dataset.symbols}
        for symbol, shares in _shares(accounts, ledger, strategy).items():
            one = by_symbol.get(symbol)
            traded = Traded(symbol, dataset.calendar, one.names.get(broker.name) if one else None)
            held[traded] = held.get(traded, 0.0) + shares
    listings = broker.listings(list(held))
    ledgers: dict[int, tuple[str, float]] = {}
    differences = []
    for traded, shares in held.items():
        listing = listings[traded]
        if isinstance(listing, Listing):
            ledgers[listing.number] = (traded.symbol, ledgers.get(listing.number, ("", 0.0))[1] + shares)
        elif abs(shares) > _DUST:
            differences.append(f"{traded.symbol}: {shares:g} in the ledger, and {listing}")
    brokers = {one.number: (one.symbol, one.quantity) for one in book.holdings}
    positions = [
        Position(
            ledgers.get(number, brokers.get(number, ("", 0.0)))[0], ledgers.get(number, ("", 0.0))[1],
            brokers.get(number, ("", 0.0))[1],
        )
        for number in dict.fromkeys([*ledgers, *brokers])
    ]  # fmt: skip
    positions = [one for one in positions if abs(one.ledger) > _DUST or abs(one.broker) > _DUST]
    differences += [
        f"{one.symbol}: {one.ledger:g} in the ledger, {one.broker:g} at the broker"
        for one in positions
        if not one.agrees
    ]
    # What the ledger does not know is no difference until it changes a position, but for an order that is there twice.
    differences += [one.text for one in desk.unknown if one.kind == "sent_twice"]
    figures = book.values
    values = BrokerValues(
        broker.name, broker.account, now, figures.currency, figures.equity, figures.cash, figures.buying_power,
        figures.gross, json.dumps({"differences": differences}),
    )  # fmt: skip
    ledger.record_values(values)
    return BrokerStanding(
        broker.name,
        broker.account,
        now,
        values,
        tuple(sorted(positions, key=lambda one: one.symbol)),
        tuple(one for one in ledger.unfinished(broker.name) if not one.ended),
        tuple(f"{one.kind} {one.text}" for one in desk.unknown if one.kind != "sent_twice"),
        tuple(differences),
    )


def _shares(accounts: Accounts, ledger: BrokerLedger, strategy: Strategy) -> dict[str, float]:
    """Shares by symbol of a strategy's account, with fills that it has not taken in yet."""
    stored = accounts.last(strategy.name)
    if stored is None or stored.broker != strategy.broker:
        return {}
    state = State.from_bytes(stored.state)
    found = {symbol: shares for symbol, (shares, _, _) in held_in(state, stored.symbols).items()}
    orders = ledger.orders(strategy.broker, strategy=strategy.name, since=stored.oldest_open - 14 * _DAY)
    for fill in ledger.fills([one.client_order_id for one in orders]):
        more = fill.side * (fill.quantity - (fill.taken_quantity or 0.0))
        if abs(more) > _DUST:
            found[fill.symbol] = found.get(fill.symbol, 0.0) + more
    return found


def newest_differences(ledger: BrokerLedger, broker: str) -> tuple[BrokerValues, list[str]] | None:
    """What was found the last time that somebody looked; None before the first."""
    known = ledger.values(broker)
    return None if not known else (known[-1], json.loads(known[-1].standing)["differences"])


def publish_values(lake: Lake, ledger: BrokerLedger, broker: str) -> None:
    """Copy what the account was worth into trading.broker_account."""
    rows = [
        (one.broker, one.account, one.at, one.currency, one.equity, one.cash, one.buying_power, one.gross_exposure,
         len(json.loads(one.standing)["differences"]))
        for one in ledger.values(broker)
    ]  # fmt: skip
    frame = pl.DataFrame(rows, BROKER_ACCOUNT.polars, orient="row")
    lake.replace([(BROKER_ACCOUNT.name, "broker = ?", [broker], frame)])


# A process that lives for long --------------------------------------------------------------------------------------


def trade_on(
    desk: BrokerDesk,
    lake: Lake,
    accounts: Accounts,
    ledger: BrokerLedger,
    own: Sequence[Pair],
    every: Sequence[Pair],
    stop: threading.Event,
    say: Callable[[str], None],
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Trade these strategies until `stop`, each bar as it comes; send and settle for all strategies at the broker.

    A connection that breaks is made anew, after a pause that grows. Raises `LiveAccount` at once, and `OtherBroker`.
    """
    for _, strategy in own:
        check_broker(strategy, accounts.last(strategy.name))
    pause, looked, compared_at, unpublished = 1.0, 0.0, 0.0, False
    while not stop.is_set():
        try:
            moving = desk.turn(0.2)
            unpublished |= moving
            if moving or time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                for pair in own:
                    if _has_new(lake, accounts, *pair):
                        done = trade_once(desk, lake, accounts, ledger, *pair, clock())
                        if done.bars:
                            say(str(done))
                events = settled(lake, accounts, ledger, every, clock())
                if events:
                    say(f"{events} events settled")
            if time.monotonic() - compared_at > _COMPARE_SECONDS:
                compared_at = time.monotonic()
                if unpublished:
                    publish_orders(lake, ledger, every)
                    unpublished = False
                for line in compared(desk, accounts, ledger, every, clock()).differences:
                    say(f"difference: {line}")
            pause = 1.0
        except LiveAccount:
            raise
        except BrokerError as error:
            say(f"{error}; tried again in {pause:g} s")
            stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
    if unpublished:
        publish_orders(lake, ledger, every)


def _has_new(lake: Lake, accounts: Accounts, dataset: Dataset, strategy: Strategy) -> bool:
    newest = newest_bar(lake, dataset.name, strategy.interval, strategy.symbols)
    stored = accounts.last(strategy.name)
    return newest is not None and (stored is None or newest > stored.through)


@contextmanager
def soon(lock: Callable[[], AbstractContextManager[None]], seconds: float = 60.0) -> Iterator[None]:
    """Hold a lock that `lock` tries without waiting. Raises `Held` where another process has it for so long."""
    until = time.monotonic() + seconds
    while True:
        with ExitStack() as stack:
            try:
                stack.enter_context(lock())
            except Held:
                if time.monotonic() > until:
                    raise
            else:
                yield
                return
        time.sleep(0.5)
