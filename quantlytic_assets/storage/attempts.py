"""What was asked of vendors in vain: the memory that keeps a known hole from being asked for again and again.

It can't be recomputed from the archive, so it lives in the state database, not in the lake.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from quantlytic_assets.storage.state import VENDOR_ATTEMPTS as _attempts
from quantlytic_assets.storage.state import open_state

ATTEMPTS_SCHEMA = pl.Schema({"symbol": pl.String, "session": pl.Date, "attempts": pl.Int64, "answered": pl.Int64})


class AttemptLog:
    """Sessions of symbols that a vendor was asked for and that still have holes: how often, and how often answered."""

    def __init__(self, url: str):
        self.engine = open_state(url)

    def record(self, dataset: str, holes: pl.DataFrame) -> None:
        """Count one more attempt for each row of holes: symbol, session, error (null where the vendor answered)."""
        now = datetime.now(UTC)
        rows = [
            {
                "dataset": dataset,
                "symbol": symbol,
                "session": session,
                "attempts": 1,
                "answered": 1 if error is None else 0,
                "last_error": error,
                "last_asked_at": now,
            }
            for symbol, session, error in holes.select("symbol", "session", "error").iter_rows()
        ]
        if not rows:
            return
        insert = (postgresql if self.engine.dialect.name == "postgresql" else sqlite).insert(_attempts)
        statement = insert.on_conflict_do_update(
            index_elements=["dataset", "symbol", "session"],
            set_={
                "attempts": _attempts.c.attempts + 1,
                "answered": _attempts.c.answered + insert.excluded.answered,
                "last_error": insert.excluded.last_error,
                "last_asked_at": insert.excluded.last_asked_at,
            },
        )
        with self.engine.begin() as connection:
            connection.execute(statement, rows)

    def read(self, dataset: str, first: date, last: date) -> pl.DataFrame:
        """ATTEMPTS_SCHEMA rows of the sessions from `first` to `last`, both inclusive."""
        query = sa.select(*(_attempts.c[name] for name in ATTEMPTS_SCHEMA.names())).where(
            _attempts.c.dataset == dataset, _attempts.c.session.between(first, last)
        )
        with self.engine.connect() as connection:
            rows = connection.execute(query).fetchall()
        return pl.DataFrame([tuple(row) for row in rows], schema=ATTEMPTS_SCHEMA, orient="row")
