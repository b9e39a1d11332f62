"""What the Postgres databases of an installation need beside SQL: making them, and one lock for writers.

SQLAlchemy is imported where it is used: an embedded installation reads its lake without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Postgres's own database, which is always there to connect to.
_MAINTENANCE = "postgres"
_UNKNOWN_DATABASE = "does not exist"
_ALREADY_THERE = ("42P04", "23505")


def ensure_database(url: str) -> None:
    """Make the database that a URL names where the server lacks it.

    Raises SQLAlchemy's `OperationalError` when the server does not answer or rejects the user.
    """
    import sqlalchemy as sa
    from sqlalchemy.exc import OperationalError, ProgrammingError

    wanted = sa.make_url(url)
    engine = sa.create_engine(wanted, poolclass=sa.NullPool, connect_args={"connect_timeout": 10})
    try:
        with engine.connect():
            return
    except OperationalError as error:
        if _UNKNOWN_DATABASE not in str(error):
            raise
    server = sa.create_engine(wanted.set(database=_MAINTENANCE), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with server.connect() as connection:
        name = connection.dialect.identifier_preparer.quote(str(wanted.database))
        try:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        except (ProgrammingError, sa.exc.IntegrityError) as error:
            # Somebody else made it at the same moment.
            if getattr(error.orig, "pgcode", None) not in _ALREADY_THERE:
                raise


class Held(Exception):
    """Somebody else holds the lock."""


@contextmanager
def advisory_lock(url: str, name: str, wait: bool = True) -> Iterator[None]:
    """Hold a lock that all processes on this database know by `name`.

    Waits for it as long as it takes, or raises `Held` at once. The lock belongs to a connection of its own: whatever
    ends the process lets it go.
    """
    import sqlalchemy as sa

    # Postgres knows such locks by 64-bit numbers.
    number = {"number": int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)}
    engine = sa.create_engine(
        url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool, connect_args={"connect_timeout": 10, "keepalives": 1}
    )
    with engine.connect() as connection:
        if wait:
            connection.execute(sa.text("SELECT pg_advisory_lock(:number)"), number)
        elif not connection.execute(sa.text("SELECT pg_try_advisory_lock(:number)"), number).scalar():
            raise Held(name)
        try:
            yield
        finally:
            # A connection that was closed is gone on the server a moment later only; one that broke has no lock.
            with suppress(sa.exc.DBAPIError):
                connection.execute(sa.text("SELECT pg_advisory_unlock(:number)"), number)
