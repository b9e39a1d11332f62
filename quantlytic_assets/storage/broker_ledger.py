"""The durable record of orders at a broker: what is wanted of each, written before it is sent, and what came of it.

An order is written in the transaction of the step that decided it. It is marked as sent before it is; only a look at
the broker's book may undo that. Executions are kept by what of their id a correction leaves alone, each with what the
account has taken in of it, so that none is taken in twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, Literal

import sqlalchemy as sa

from quantlytic_assets.storage.state import BROKER_FILLS as _fills
from quantlytic_assets.storage.state import BROKER_ORDERS as _orders
from quantlytic_assets.storage.state import BROKER_VALUES as _values
from quantlytic_assets.storage.state import open_state

ENDED = ("filled", "cancelled", "rejected", "expired")
_AT_ONCE = 500
_DUST = 1e-9


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class BrokerOrder:
    """An order for a broker; see `state.BROKER_ORDERS`. Times are UTC, side is 1 (buys) or -1 (sells)."""

    client_order_id: str
    broker: str
    strategy: str
    number: int
    session: date
    symbol: str
    leg: str
    side: int
    quantity: float
    type: str
    time_in_force: str
    limit_price: float | None
    stop_price: float | None
    trail: float | None
    oca_group: str
    reference_price: float | None
    decision_time: datetime
    expires_at: datetime
    written_at: datetime
    wanted: Literal["working", "cancelled"] = "working"
    revision: int = 0
    sent_revision: int = 0
    status: str = "written"
    attempts: int = 0
    sent_at: datetime | None = None
    account: str | None = None
    order_id: int | None = None
    permanent_id: int | None = None
    filled: float = 0.0
    reason: str | None = None
    held_for: str | None = None
    ended_at: datetime | None = None
    told: bool = False

    @property
    def ended(self) -> bool:
        """Whether it is over at the broker, or never got there."""
        return self.status in ENDED

    @property
    def exits(self) -> bool:
        """Whether it is an exit of a position: a stop, a target or a trailing stop."""
        return any(not part.isdigit() for part in self.leg.split(".")[1:])

    @property
    def opens(self) -> bool:
        """Whether it may make a position larger: an entry or an order of a bot, not an exit or a reduction."""
        return (self.leg == "entry" or self.leg.startswith("own_")) and not self.exits


@dataclass(frozen=True)
class BrokerFill:
    """An execution; see `state.BROKER_FILLS`. `base` is its id without the revision."""

    base: str
    execution_id: str
    broker: str
    client_order_id: str | None
    account: str
    symbol: str
    side: int
    quantity: float
    price: float
    executed_at: datetime
    recorded_at: datetime
    commission: float | None = None
    currency: str | None = None
    taken_quantity: float | None = None
    taken_price: float | None = None
    taken_commission: float | None = None

    @property
    def corrected(self) -> bool:
        """Whether it is not what the broker told of first."""
        return _revision(self.execution_id)[0] > 1

    @property
    def taken(self) -> bool:
        """Whether its account has taken in all of it."""
        whole = (self.quantity, self.price, self.commission if self.commission is not None else self.taken_commission)
        return whole == (self.taken_quantity, self.taken_price, self.taken_commission)


@dataclass(frozen=True)
class BrokerValues:
    """What an account at a broker was worth at a time; see `state.BROKER_VALUES`. standing: JSON."""

    broker: str
    account: str
    at: datetime
    currency: str
    equity: float | None
    cash: float | None
    buying_power: float | None
    gross_exposure: float | None
    standing: str


class BrokerLedger:
    """Orders, executions and values of all accounts at brokers, in the state database.

    url: a SQLAlchemy URL. Safe to use from several processes at once. `clock` is there for tests.
    """

    def __init__(self, url: str, clock: Callable[[], datetime] = _now) -> None:
        self._clock = clock
        self._engine = open_state(url)

    def close(self) -> None:
        """Closes the database connections."""
        self._engine.dispose()

    # Written in a step of an account, in its transaction -----------------------------------------------------------

    def write(self, connection: sa.Connection, orders: Sequence[BrokerOrder]) -> None:
        """Writes what an account wants of the broker: new orders, and changes of those that are there already."""
        for start in range(0, len(orders), _AT_ONCE):
            part = orders[start : start + _AT_ONCE]
            query = sa.select(_orders.c.client_order_id)
            known = set(
                connection.scalars(query.where(_orders.c.client_order_id.in_([one.client_order_id for one in part])))
            )
            new = [asdict(one) for one in part if one.client_order_id not in known]
            if new:
                connection.execute(sa.insert(_orders), new)
            for one in part:
                if one.client_order_id in known:
                    changed = {
                        name: getattr(one, name)
                        for name in ("quantity", "limit_price", "stop_price", "oca_group", "wanted", "revision")
                    }
                    connection.execute(self._own(one.client_order_id).values(changed))

    def take(self, connection: sa.Connection, fills: Iterable[BrokerFill], ended: Iterable[str]) -> None:
        """Notes that an account has taken in executions as they are given, and the ends of orders."""
        for fill in fills:
            connection.execute(
                sa.update(_fills)
                .where(_fills.c.base == fill.base)
                .values(taken_quantity=fill.quantity, taken_price=fill.price, taken_commission=fill.commission or 0.0)
            )
        for ref in ended:
            connection.execute(self._own(ref).values(told=True))

    @staticmethod
    def _own(client_order_id: str) -> sa.Update:
        return sa.update(_orders).where(_orders.c.client_order_id == client_order_id)

    # What is to be done, and what came of it -----------------------------------------------------------------------

    def mark_sent(self, refs: Sequence[str], account: str) -> list[str]:
        """Marks written orders as sent, before they are; returns those that were to be sent still."""
        marked = []
        with self._engine.begin() as connection:
            for ref in refs:
                own = self._own(ref).where(_orders.c.status == "written", _orders.c.wanted == "working")
                values = {
                    "status": "sent", "sent_at": self._clock(), "account": account,
                    "attempts": _orders.c.attempts + 1, "sent_revision": _orders.c.revision,
                }  # fmt: skip
                if connection.execute(own.values(values)).rowcount == 1:
                    marked.append(ref)
        return marked

    def change(self, changes: Mapping[str, Mapping[str, Any]]) -> None:
        """Sets fields of orders, by client order id."""
        if changes:
            with self._engine.begin() as connection:
                for ref, values in changes.items():
                    connection.execute(self._own(ref).values(dict(values)))

    def record_fills(self, fills: Sequence[BrokerFill]) -> list[BrokerFill]:
        """Upserts executions by their base: a newer revision replaces an older one. Returns those that are news."""
        news = []
        with self._engine.begin() as connection:
            for fill in fills:
                row = connection.execute(sa.select(_fills).where(_fills.c.base == fill.base)).one_or_none()
                if row is None:
                    connection.execute(sa.insert(_fills).values(asdict(fill)))
                    news.append(fill)
                elif _revision(fill.execution_id) > _revision(row.execution_id):
                    names = ("execution_id", "quantity", "price", "executed_at")
                    values = {name: getattr(fill, name) for name in names}
                    own = sa.update(_fills).where(_fills.c.base == fill.base)
                    connection.execute(own.values({**values, "commission": fill.commission}))
                    news.append(fill)
        return news

    def record_charges(self, charges: Mapping[str, tuple[float, str]]) -> None:
        """Notes commissions (amount, currency) by execution id, of executions that are on record."""
        if charges:
            with self._engine.begin() as connection:
                for execution_id, (commission, currency) in charges.items():
                    own = sa.update(_fills).where(_fills.c.execution_id == execution_id)
                    connection.execute(own.values(commission=commission, currency=currency))

    def record_values(self, values: BrokerValues) -> None:
        """Keeps what an account is worth; of one moment once."""
        with self._engine.begin() as connection:
            mine = (_values.c.broker == values.broker) & (_values.c.account == values.account)
            connection.execute(sa.delete(_values).where(mine, _values.c.at == values.at))
            connection.execute(sa.insert(_values).values(asdict(values)))

    # What is on record ---------------------------------------------------------------------------------------------

    def orders(self, broker: str, *, strategy: str | None = None, since: date | None = None) -> list[BrokerOrder]:
        """Orders of a broker, in the order in which they were written."""
        query = sa.select(_orders).where(_orders.c.broker == broker)
        if strategy is not None:
            query = query.where(_orders.c.strategy == strategy)
        if since is not None:
            query = query.where(_orders.c.session >= since)
        return self._read_orders(query)

    def unfinished(self, broker: str) -> list[BrokerOrder]:
        """Orders that are not over, and those of whose end the account does not know yet."""
        query = sa.select(_orders).where(_orders.c.broker == broker)
        return self._read_orders(query.where(_orders.c.status.not_in(ENDED) | ~_orders.c.told))

    def by_reference(self, refs: Iterable[str]) -> dict[str, BrokerOrder]:
        """Orders by their client order ids, those that are on record."""
        asked = list(dict.fromkeys(refs))
        found: list[BrokerOrder] = []
        for start in range(0, len(asked), _AT_ONCE):
            part = asked[start : start + _AT_ONCE]
            found += self._read_orders(sa.select(_orders).where(_orders.c.client_order_id.in_(part)))
        return {one.client_order_id: one for one in found}

    def fills(self, refs: Sequence[str]) -> list[BrokerFill]:
        """Executions of orders, oldest first; their times differ by a microsecond at least within an order."""
        found: list[BrokerFill] = []
        with self._engine.connect() as connection:
            for start in range(0, len(refs), _AT_ONCE):
                query = sa.select(_fills).where(_fills.c.client_order_id.in_(refs[start : start + _AT_ONCE]))
                found += [BrokerFill(**row) for row in connection.execute(query).mappings()]
        found.sort(key=lambda one: (one.executed_at, one.base))
        told: dict[tuple[str | None, datetime], int] = {}
        for place, one in enumerate(found):
            key = (one.client_order_id, one.executed_at)
            told[key] = told.get(key, -1) + 1
            if told[key]:
                found[place] = replace(one, executed_at=one.executed_at.replace(microsecond=told[key]))
        return found

    def values(self, broker: str, since: datetime | None = None) -> list[BrokerValues]:
        """What accounts at a broker were worth, oldest first."""
        query = sa.select(_values).where(_values.c.broker == broker)
        if since is not None:
            query = query.where(_values.c.at >= since)
        with self._engine.connect() as connection:
            return [BrokerValues(**row) for row in connection.execute(query.order_by(_values.c.at)).mappings()]

    def _read_orders(self, query: sa.Select) -> list[BrokerOrder]:
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(_orders.c.written_at, _orders.c.strategy, _orders.c.number))
            return [BrokerOrder(**row) for row in rows.mappings()]


def _revision(execution_id: str) -> tuple[int, str]:
    last = execution_id.rpartition(".")[2]
    return (int(last) if last.isdigit() else 0, last)


def filled(orders: Iterable[BrokerOrder], fills: Iterable[BrokerFill]) -> dict[str, float]:
    """Shares of each order that executions were told of, by its client order id.

    Where one was corrected since, it is all that the broker has counted: what it was at first is not known.
    """
    found = dict.fromkeys((one.client_order_id for one in orders), 0.0)
    corrected = set()
    for fill in fills:
        if fill.client_order_id in found:
            found[fill.client_order_id] += fill.quantity
            corrected |= {fill.client_order_id} if fill.corrected else set()
    counted = {one.client_order_id: one.filled for one in orders if one.client_order_id in corrected}
    return found | {ref: max(found[ref], count) for ref, count in counted.items()}


def is_whole(order: BrokerOrder, quantity: float) -> bool:
    """Whether an order has been filled with that many shares."""
    return quantity >= order.quantity - _DUST
