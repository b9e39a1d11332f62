"""The durable record of what was decided, ordered and filled. What is in here has happened and is never rewritten.

SQLAlchemy Core; SQLite and Postgres differ only in the URL. Deciding is `trading.paper`'s business, filling a broker's.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime

import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from quantlytic_assets.schemas.trading import CHANGES_SCHEMA, FILLS, ORDERS
from quantlytic_assets.storage.state import DECIDED_SESSIONS as _decided
from quantlytic_assets.storage.state import FILLS as _fills
from quantlytic_assets.storage.state import ORDERS as _orders
from quantlytic_assets.storage.state import open_state


def _now() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """Orders, fills and decided sessions of all strategies in one database.

    url: a SQLAlchemy URL, `sqlite:////data/ledger.sqlite` (its directory must exist) or `postgresql://…`. Safe to use
    from several processes at once. `clock` gives created_at and is there for tests.
    """

    def __init__(self, url: str, clock: Callable[[], datetime] = _now) -> None:
        self._clock = clock
        self._engine = open_state(url)

    def close(self) -> None:
        """Closes the database connections."""
        self._engine.dispose()

    def decided_sessions(self, strategy: str) -> pl.Series:
        """The sessions (Date, ascending) for which the strategy's decisions are on record."""
        query = sa.select(_decided.c.session).where(_decided.c.strategy == strategy).order_by(_decided.c.session)
        with self._engine.connect() as connection:
            return pl.Series("session", connection.execute(query).scalars().all(), pl.Date)

    def record_decisions(self, strategy: str, sessions: Sequence[date], orders: pl.DataFrame) -> bool:
        """Writes the decisions of whole sessions: all of it or, if any of the sessions was decided before, nothing.

        orders: columns of trading.orders without created_at, of these sessions. A session without an order counts as
        decided too. Returns whether it was written; False where another process was quicker: read the ledger again.
        """
        if not sessions:
            return True
        at = self._clock()
        rows = [dict(row, created_at=at) for row in orders.drop("created_at", strict=False).to_dicts()]
        with self._engine.connect() as connection, connection.begin() as transaction:
            # The claim comes first: its primary key decides between two processes, and it takes SQLite's write lock
            # before anything has been read.
            try:
                connection.execute(
                    sa.insert(_decided), [{"strategy": strategy, "session": s, "decided_at": at} for s in sessions]
                )
            except sa.exc.IntegrityError:
                transaction.rollback()
                return False
            if rows:
                connection.execute(self._insert_or_ignore(_orders), rows)
        return True

    def record_fills(self, fills: pl.DataFrame) -> None:
        """Writes fills (columns of trading.fills) and marks their orders filled; fills on record stay as they are."""
        if fills.is_empty():
            return
        rows = fills.select(FILLS.polars.names()).to_dicts()
        filled = (
            sa.update(_orders)
            .where(_orders.c.order_ref == sa.bindparam("ref"), _orders.c.status == "open")
            .values(status="filled")
        )
        with self._engine.begin() as connection:
            connection.execute(self._insert_or_ignore(_fills), rows)
            connection.execute(filled, [{"ref": row["order_ref"]} for row in rows])

    def orders(self, strategy: str, first: date | None = None, last: date | None = None) -> pl.DataFrame:
        """Columns of trading.orders by session and symbol, rejected ones included; first and last are inclusive."""
        return self._read(_orders, ORDERS.polars, strategy, _orders.c.session, first, last)

    def fills(self, strategy: str, first: date | None = None, last: date | None = None) -> pl.DataFrame:
        """Fills (columns of trading.fills) by session and symbol; first and last are inclusive *fill* sessions."""
        return self._read(_fills, FILLS.polars, strategy, _fills.c.fill_session, first, last)

    def open_orders(self, strategy: str) -> pl.DataFrame:
        """Orders (columns of trading.orders) that wait for a fill."""
        return self._read(_orders, ORDERS.polars, strategy, _orders.c.session, None, None, _orders.c.status == "open")

    def oldest_open_decision(self, strategy: str) -> datetime | None:
        """The earliest decision_time of an open order: bars for the simulated broker must reach back to it."""
        query = sa.select(_orders.c.decision_time).where(_orders.c.strategy == strategy, _orders.c.status == "open")
        with self._engine.connect() as connection:
            return connection.execute(query.order_by(_orders.c.decision_time).limit(1)).scalar()

    def fills_through(self, strategy: str, session: date) -> int:
        """How many fills are on record with a fill session up to `session`."""
        query = sa.select(sa.func.count()).where(_fills.c.strategy == strategy, _fills.c.fill_session <= session)
        with self._engine.connect() as connection:
            return connection.execute(query).scalar_one()

    def committed_before(self, strategy: str, session: date, splits: Sequence[date] | pl.Series = ()) -> pl.DataFrame:
        """What earlier sessions' orders add up to once all are filled (CHANGES_SCHEMA), rejected ones left out.

        splits: days from which a symbol means other shares than before. Quantities are added up in the database from
        one of them to the next, and are given with the first session of each such stretch that has an order.
        """
        signed = sa.case((_orders.c.side == "buy", _orders.c.quantity), else_=-_orders.c.quantity)
        # No expression at all without splits: Postgres takes a number alone in GROUP BY for the place of a column.
        later = [sa.case((_orders.c.session >= day, 1), else_=0) for day in splits]
        stretch = [functools.reduce(operator.add, later)] if later else []
        query = (
            sa.select(_orders.c.symbol, sa.func.min(_orders.c.session), sa.func.sum(signed))
            .where(_orders.c.strategy == strategy, _orders.c.session < session, _orders.c.status != "rejected")
            .group_by(_orders.c.symbol, *stretch)
            .order_by(_orders.c.symbol, sa.func.min(_orders.c.session))
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return pl.DataFrame(rows, CHANGES_SCHEMA, orient="row")

    def reset(self, strategy: str) -> None:
        """Forgets everything about one strategy, for a fresh start of its paper account."""
        with self._engine.begin() as connection:
            for table in (_decided, _fills, _orders):
                connection.execute(sa.delete(table).where(table.c.strategy == strategy))

    def _read(
        self,
        table: sa.Table,
        schema: pl.Schema,
        strategy: str,
        ranged: sa.Column,
        first: date | None,
        last: date | None,
        *conditions: sa.ColumnElement[bool],
    ) -> pl.DataFrame:
        query = sa.select(*(table.c[name] for name in schema.names())).where(table.c.strategy == strategy, *conditions)
        if first is not None:
            query = query.where(ranged >= first)
        if last is not None:
            query = query.where(ranged <= last)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(table.c.session, table.c.symbol)).all()
        return pl.DataFrame(rows, schema, orient="row")

    def _insert_or_ignore(self, table: sa.Table):
        dialects = {"sqlite": sqlite, "postgresql": postgresql}
        return dialects[self._engine.dialect.name].insert(table).on_conflict_do_nothing()
