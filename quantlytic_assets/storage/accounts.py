"""The durable record of accounts that the engine trades: events, sessions, the state that each goes on from, requests.

What is in here has happened and is never rewritten. A step writes all of these in one transaction, or nothing.
Requests are what people asked of an account: to halt, or to go on. The step that takes one in says so in the same
transaction, so that none is lost or taken in twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Literal

import polars as pl
import sqlalchemy as sa

from quantlytic_assets.schemas.trading import ACCOUNT_SESSIONS_SCHEMA, EVENTS
from quantlytic_assets.storage.state import ACCOUNT_EVENTS as _events
from quantlytic_assets.storage.state import ACCOUNT_REQUESTS as _requests
from quantlytic_assets.storage.state import ACCOUNT_SESSIONS as _sessions
from quantlytic_assets.storage.state import ACCOUNT_STATES as _states
from quantlytic_assets.storage.state import OLD_FILLS as _old_fills
from quantlytic_assets.storage.state import OLD_ORDERS as _old_orders
from quantlytic_assets.storage.state import OLD_SESSIONS as _old_sessions
from quantlytic_assets.storage.state import UtcTime, open_state

_AT_ONCE = 5_000
# What a column of the state database is in a frame.
_KINDS = {sa.String: pl.String(), sa.Float: pl.Float64(), sa.Date: pl.Date(), UtcTime: pl.Datetime("us", "UTC")}


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class StoredAccount:
    """Where an account goes on from.

    through: open time of the last bar traded, UTC, of that `session`. oldest_open: the earliest session in which an
    order was decided that still works, else `session`. events: the number of the last one. symbols: in the state's
    order. state: the engine's. halted, halted_since: why the account is halted, in the engine's word, and since when
    (UTC). bot: what its bot remembers (`strategies.bot_memory`). broker: who executes its orders.
    """

    through: datetime
    session: date
    oldest_open: date
    events: int
    symbols: tuple[str, ...]
    state: bytes
    halted: str | None = None
    halted_since: datetime | None = None
    bot: str | None = None
    broker: str = "simulated"


@dataclass(frozen=True)
class Request:
    """What a person asked of an account, and when (UTC).

    liquidate: whether a halt closes what is held; None leaves that to the strategy's settings. effective_at: the time
    of the bar with which the account took it in, UTC; None before.
    """

    id: int
    strategy: str
    action: Literal["halt", "resume"]
    liquidate: bool | None
    reason: str | None
    requested_by: str
    requested_at: datetime
    effective_at: datetime | None = None


class Accounts:
    """The accounts of all strategies, in one database.

    url: a SQLAlchemy URL. Safe to use from several processes at once. `clock` gives recorded_at and is there for tests.
    """

    def __init__(self, url: str, clock: Callable[[], datetime] = _now) -> None:
        self._clock = clock
        self._engine = open_state(url)

    def close(self) -> None:
        """Closes the database connections."""
        self._engine.dispose()

    def last(self, strategy: str) -> StoredAccount | None:
        """Where the account goes on from; None before its first bar."""
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(_states).where(_states.c.strategy == strategy)).one_or_none()
        return None if row is None else _stored(row)

    def every(self) -> dict[str, StoredAccount]:
        """Where each account that has traded goes on from, by strategy."""
        with self._engine.connect() as connection:
            return {row.strategy: _stored(row) for row in connection.execute(sa.select(_states))}

    def advance(
        self,
        strategy: str,
        before: StoredAccount | None,
        after: StoredAccount,
        events: pl.DataFrame,
        sessions: pl.DataFrame,
        taken: Mapping[int, datetime] = MappingProxyType({}),
        also: Callable[[sa.Connection], None] | None = None,
    ) -> bool:
        """Writes a step from `before` to `after`, events and sessions with it; False where another process was quicker.

        events: columns of trading.events without strategy and recorded_at. sessions:
        ACCOUNT_SESSIONS_SCHEMA; those that are on record already are replaced, for more of their bars have come. taken:
        by number, the requests that the step took in, and the times (UTC) of the bars at which it did. also: writes the
        orders that the step has for a broker, in the same transaction.
        """
        state = {
            "through": after.through, "session": after.session, "oldest_open": after.oldest_open,
            "events": after.events, "symbols": json.dumps(after.symbols), "state": after.state,
            "halted": after.halted, "halted_since": after.halted_since, "bot": after.bot, "broker": after.broker,
        }  # fmt: skip
        with self._engine.connect() as connection, connection.begin() as transaction:
            try:
                # The claim comes first: it decides between two processes, before anything else is written.
                if before is None:
                    connection.execute(sa.insert(_states).values(strategy=strategy, **state))
                else:
                    own = sa.update(_states).where(_states.c.strategy == strategy, _states.c.events == before.events)
                    if connection.execute(own.where(_states.c.through == before.through).values(**state)).rowcount != 1:
                        transaction.rollback()
                        return False
            except sa.exc.IntegrityError:
                transaction.rollback()
                return False
            for number, when in taken.items():
                connection.execute(sa.update(_requests).where(_requests.c.id == number).values(effective_at=when))
            mine = sa.delete(_sessions).where(_sessions.c.strategy == strategy)
            replaced = sessions["session"].to_list()
            for start in range(0, len(replaced), _AT_ONCE):
                connection.execute(mine.where(_sessions.c.session.in_(replaced[start : start + _AT_ONCE])))
            at = {"recorded_at": self._clock()}
            for table, frame, more in ((_events, events, at), (_sessions, sessions, {})):
                rows = [{"strategy": strategy, **row, **more} for row in frame.to_dicts()]
                for start in range(0, len(rows), _AT_ONCE):
                    connection.execute(sa.insert(table), rows[start : start + _AT_ONCE])
            if also is not None:
                also(connection)
        return True

    def events(self, strategy: str, since: date | None = None, before: date | None = None) -> pl.DataFrame:
        """Columns of trading.events of the sessions [since, before), in their order."""
        return self._read(_events, EVENTS.polars, strategy, since, before, _events.c.seq)

    def order(self, client_order_id: str) -> pl.DataFrame:
        """Columns of trading.events of one order, in their order; none where no account has it."""
        # The strategy, with which an order's id begins, keeps the search to one account.
        strategy = client_order_id.partition(":")[0]
        query = sa.select(*(_events.c[name] for name in EVENTS.polars.names())).where(
            _events.c.strategy == strategy, _events.c.client_order_id == client_order_id
        )
        with self._engine.connect() as connection:
            return pl.DataFrame(connection.execute(query.order_by(_events.c.seq)).all(), EVENTS.polars, orient="row")

    def order_ids(self, strategy: str) -> list[str]:
        """The client order ids of an account, the latest order first."""
        last = sa.func.max(_events.c.seq)
        query = sa.select(_events.c.client_order_id).where(
            _events.c.strategy == strategy, _events.c.client_order_id.is_not(None)
        )
        with self._engine.connect() as connection:
            return list(connection.scalars(query.group_by(_events.c.client_order_id).order_by(last.desc())))

    def sessions(self, strategy: str, since: date | None = None, before: date | None = None) -> pl.DataFrame:
        """ACCOUNT_SESSIONS_SCHEMA of the sessions [since, before), oldest first."""
        return self._read(_sessions, ACCOUNT_SESSIONS_SCHEMA, strategy, since, before, _sessions.c.session)

    def of_before(self, strategy: str) -> tuple[pl.DataFrame, pl.DataFrame] | None:
        """Orders and fills on record from before accounts were the engine's, oldest first; None where there are none.

        orders: order_ref, session, symbol, side, quantity, decision_time, status (open, filled, rejected), reason,
        created_at, model_version. fills: order_ref, symbol, side, quantity, fill_time, fill_session, price, commission,
        slippage.
        """
        orders, fills = (
            self._read(table, _schema(table), strategy, None, None, order).sort(order.name, "symbol")
            for table, order in ((_old_orders, _old_orders.c.decision_time), (_old_fills, _old_fills.c.fill_time))
        )
        return None if orders.is_empty() else (orders, fills)

    def request(
        self,
        strategy: str,
        action: Literal["halt", "resume"],
        requested_by: str,
        reason: str | None = None,
        liquidate: bool | None = None,
    ) -> Request:
        """Puts on record what a person asks of an account, which may not have traded yet; durable when it returns."""
        asked = Request(0, strategy, action, liquidate, reason, requested_by, self._clock())
        values = {name: value for name, value in asdict(asked).items() if name != "id"}
        with self._engine.begin() as connection:
            number = connection.execute(sa.insert(_requests).values(values).returning(_requests.c.id)).scalar_one()
        return replace(asked, id=number)

    def requests(self, strategy: str | None = None, *, pending: bool = False) -> list[Request]:
        """What was asked of an account, or of all, in its order; `pending`: only what was not taken in yet."""
        query = sa.select(_requests).order_by(_requests.c.id)
        if strategy is not None:
            query = query.where(_requests.c.strategy == strategy)
        if pending:
            query = query.where(_requests.c.effective_at.is_(None))
        with self._engine.connect() as connection:
            return [Request(**row) for row in connection.execute(query).mappings()]

    def reset(self, strategy: str) -> None:
        """Forgets an account, for a fresh start, which takes in anew what people asked of it, each at its time."""
        with self._engine.begin() as connection:
            own = sa.update(_requests).where(_requests.c.strategy == strategy)
            connection.execute(own.values(effective_at=None))
            for table in (_states, _sessions, _events, _old_sessions, _old_fills, _old_orders):
                connection.execute(sa.delete(table).where(table.c.strategy == strategy))

    def _read(
        self,
        table: sa.Table,
        schema: pl.Schema,
        strategy: str,
        since: date | None,
        before: date | None,
        order: sa.Column,
    ) -> pl.DataFrame:
        query = sa.select(*(table.c[name] for name in schema.names())).where(table.c.strategy == strategy)
        if since is not None:
            query = query.where(table.c.session >= since)
        if before is not None:
            query = query.where(table.c.session < before)
        with self._engine.connect() as connection:
            rows: Sequence[sa.Row] = connection.execute(query.order_by(order)).all()
        return pl.DataFrame(rows, schema, orient="row")


def _schema(table: sa.Table) -> pl.Schema:
    """What a frame of all of a table's columns is."""
    return pl.Schema({one.name: _KINDS[type(one.type)] for one in table.columns})


def _stored(row: sa.Row) -> StoredAccount:
    return StoredAccount(
        row.through, row.session, row.oldest_open, row.events, tuple(json.loads(row.symbols)), row.state,
        row.halted, row.halted_since, row.bot, row.broker,
    )  # fmt: skip
