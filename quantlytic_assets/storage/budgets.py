"""What vendors were asked, counted against their rate limits by all processes of an installation together.

Kept in the state database, so that a restart forgets nothing; open circuits (bans, used-up quotas) are there too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from quantlytic_assets.storage.state import VENDOR_CALLS as _calls
from quantlytic_assets.storage.state import VENDOR_CIRCUITS as _circuits
from quantlytic_assets.storage.state import open_state

# The clocks of two machines differ by less; a call further ahead was counted by a clock that was set back since.
_CLOCKS_APART = 60.0
# The longest ban that any vendor announces is Binance's: three days.
_LONGEST_OPEN = 3 * 86_400.0


class Window(Protocol):
    """At most `weight` in any `seconds`."""

    @property
    def seconds(self) -> int:
        """How long the window is."""
        ...

    @property
    def weight(self) -> int:
        """What all calls in it may weigh together."""
        ...


class BudgetLog:
    """See `vendors.policy.Budget`. `clock` gives seconds since 1970 and is there for tests."""

    def __init__(self, url: str, clock: Callable[[], float] = time.time):
        self._engine = open_state(url)
        self._clock = clock

    @contextmanager
    def _turn(self, vendor: str) -> Iterator[sa.Connection]:
        """A transaction that nobody else has at the same time for this vendor."""
        with self._engine.connect() as connection:
            if self._engine.dialect.name == "sqlite":
                # pysqlite begins by itself only before a change, which would be after the count.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(f"calls {vendor}"))))
            yield connection
            connection.commit()

    def reserve(self, vendor: str, limits: Sequence[Window], weight: int) -> float:
        """Take a place for a call of `weight` and return 0, or take none and return the seconds until there is one.

        Raises `ValueError` for a call that is heavier than a limit allows at all.
        """
        if not limits or not weight:
            return 0.0
        if weight > min(limit.weight for limit in limits):
            raise ValueError(f"a call of weight {weight} is more than {vendor} ever allows")
        with self._turn(vendor) as connection:
            now = self._clock()
            ahead = sa.update(_calls).where(_calls.c.vendor == vendor, _calls.c.at > now + _CLOCKS_APART)
            connection.execute(ahead.values(at=now))
            wait = max(self._wait(connection, vendor, limit, weight, now) for limit in limits)
            if wait:
                return wait
            longest = max(limit.seconds for limit in limits)
            connection.execute(sa.delete(_calls).where(_calls.c.vendor == vendor, _calls.c.at <= now - longest))
            connection.execute(sa.insert(_calls).values(vendor=vendor, at=now, weight=weight))
        return 0.0

    @staticmethod
    def _wait(connection: sa.Connection, vendor: str, limit: Window, weight: int, now: float) -> float:
        """Seconds until enough calls are older than the window."""
        newest_first = (_calls.c.at.desc(), _calls.c.id.desc())
        within = sa.select(_calls.c.at, sa.func.sum(_calls.c.weight).over(order_by=newest_first).label("sum")).where(
            _calls.c.vendor == vendor, _calls.c.at > now - limit.seconds
        )
        # The newest call that must be gone: with it and all newer ones there is no room.
        counted = within.subquery()
        oldest = connection.execute(
            sa.select(sa.func.max(counted.c.at)).where(counted.c.sum > limit.weight - weight)
        ).scalar()
        # A little more, for the clocks of two machines.
        return 0.0 if oldest is None else max(oldest + limit.seconds - now, 0.0) + 0.001

    def circuit(self, vendor: str) -> tuple[float, str] | None:
        """For how many seconds more the vendor's circuit is open (no calls), and why; None where it is closed."""
        with self._engine.connect() as connection:
            row = connection.execute(
                sa.select(_circuits.c.until, _circuits.c.reason).where(_circuits.c.vendor == vendor)
            ).first()
        if row is None:
            return None
        left = row.until - self._clock()
        # No circuit is open for longer: where it seems so, the clock was set back since.
        return (left, row.reason) if 0 < left <= _LONGEST_OPEN + _CLOCKS_APART else None

    def open_circuit(self, vendor: str, seconds: float, reason: str) -> None:
        """Open the vendor's circuit (no calls) for `seconds`, three days at most; an end that is later stays."""
        now = self._clock()
        until = now + min(seconds, _LONGEST_OPEN)
        insert = (postgresql if self._engine.dialect.name == "postgresql" else sqlite).insert(_circuits)
        later = (insert.excluded.until > _circuits.c.until) | (_circuits.c.until > now + _LONGEST_OPEN + _CLOCKS_APART)
        statement = insert.values(vendor=vendor, until=until, reason=reason).on_conflict_do_update(
            index_elements=["vendor"],
            set_={"until": insert.excluded.until, "reason": insert.excluded.reason},
            where=later,
        )
        with self._engine.begin() as connection:
            connection.execute(statement)

    def left(self, vendor: str, limits: Sequence[Window]) -> dict[int, int]:
        """By window (seconds): the weight that may still be asked for now; 0 in all while its circuit is open."""
        if self.circuit(vendor) is not None:
            return {limit.seconds: 0 for limit in limits}
        now = self._clock()
        with self._engine.connect() as connection:
            used = {
                limit.seconds: connection.execute(
                    sa.select(sa.func.coalesce(sa.func.sum(_calls.c.weight), 0)).where(
                        _calls.c.vendor == vendor, _calls.c.at > now - limit.seconds
                    )
                ).scalar_one()
                for limit in limits
            }
        return {limit.seconds: max(0, limit.weight - int(used[limit.seconds])) for limit in limits}
