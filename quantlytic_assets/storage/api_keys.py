"""Keys of the API, what they asked, and the audit log: in the state database, for none can be recomputed.

A key is `ql_<id>_<secret>`, the secret 256 random bits. It is shown once; what is kept is its SHA-256. A slow hash
would be of no use: there is nothing to guess.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from quantlytic_assets.storage.state import API_AUDIT as _audit
from quantlytic_assets.storage.state import API_KEYS as _keys
from quantlytic_assets.storage.state import API_USAGE as _usage
from quantlytic_assets.storage.state import open_state

PREFIX = "ql_"


class UnknownKey(LookupError):
    """There is no key of this id; the message says which there are."""


@dataclass(frozen=True)
class ApiKey:
    """A key without its secret. Times are UTC; rate and daily_quota are its own limits, None where it has none."""

    id: str
    name: str
    digest: str
    scopes: frozenset[str]
    rate: str | None
    daily_quota: int | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def valid(self, now: datetime) -> bool:
        """Whether it opens anything."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True)
class Audited:
    """A request that read of trading or changed something, or was refused."""

    at: datetime
    caller: str
    client: str | None
    method: str
    path: str
    status: int


def digest_of(key: str) -> str:
    """What is kept of a key."""
    return sha256(key.encode()).hexdigest()


def id_of(key: str) -> str | None:
    """The id within a key; None for what has not the form of one."""
    parts = key.split("_", 2)
    return parts[1] if len(parts) == 3 and key.startswith(PREFIX) and parts[2] else None


class ApiKeys:
    """The keys of an installation. Safe to use from several processes at once."""

    def __init__(self, url: str):
        self._engine = open_state(url)

    def close(self) -> None:
        """Close the database connections."""
        self._engine.dispose()

    def add(
        self,
        name: str,
        scopes: Sequence[str],
        rate: str | None = None,
        daily_quota: int | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[str, ApiKey]:
        """Make a key; returns it, which nobody can show again, and what is kept of it."""
        number = secrets.token_hex(6)
        key = f"{PREFIX}{number}_{secrets.token_urlsafe(32)}"
        made = ApiKey(
            number, name, digest_of(key), frozenset(scopes), rate, daily_quota, datetime.now(UTC), expires_at, None
        )
        row = {**made.__dict__, "scopes": " ".join(sorted(scopes))}
        with self._engine.begin() as connection:
            connection.execute(sa.insert(_keys), row)
        return key, made

    def every(self) -> list[ApiKey]:
        """All keys, oldest first."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_keys).order_by(_keys.c.created_at)).mappings().all()
        return [ApiKey(**{**row, "scopes": frozenset(row["scopes"].split())}) for row in rows]

    def revoke(self, number: str) -> bool:
        """Revoke a key by its id, for good; False where it was already. Raises `UnknownKey`."""
        with self._engine.begin() as connection:
            if connection.execute(sa.select(_keys.c.id).where(_keys.c.id == number)).first() is None:
                known = connection.execute(sa.select(_keys.c.id)).scalars().all()
                raise UnknownKey(f"there is no key {number}; there are: {', '.join(known) or 'none'}")
            mine = sa.update(_keys).where(_keys.c.id == number, _keys.c.revoked_at.is_(None))
            return connection.execute(mine.values(revoked_at=datetime.now(UTC))).rowcount == 1

    def usage(self, day: date) -> dict[str, int]:
        """How many requests each key made on a UTC day."""
        with self._engine.connect() as connection:
            asked = sa.select(_usage.c.key, _usage.c.requests).where(_usage.c.day == day)
            return {row.key: row.requests for row in connection.execute(asked)}

    def record(self, used: Mapping[tuple[str, date], int], audited: Sequence[Audited]) -> None:
        """Add requests to those of keys and days, and entries to the audit log, in one transaction."""
        if not used and not audited:
            return
        insert = (postgresql if self._engine.dialect.name == "postgresql" else sqlite).insert(_usage)
        added = insert.on_conflict_do_update(
            index_elements=["key", "day"], set_={"requests": _usage.c.requests + insert.excluded.requests}
        )
        with self._engine.begin() as connection:
            if used:
                rows = [{"key": key, "day": day, "requests": count} for (key, day), count in used.items()]
                connection.execute(added, rows)
            if audited:
                connection.execute(sa.insert(_audit), [one.__dict__ for one in audited])

    def audit(self, limit: int = 1000) -> list[Audited]:
        """The newest entries of the audit log, oldest first."""
        columns = [_audit.c[name] for name in ("at", "caller", "client", "method", "path", "status")]
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(*columns).order_by(_audit.c.id.desc()).limit(limit)).mappings().all()
        return [Audited(**row) for row in reversed(rows)]
