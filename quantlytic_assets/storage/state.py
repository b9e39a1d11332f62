"""The state database: what can't be recomputed from the archive, in SQLite or Postgres; only the URL differs."""

from __future__ import annotations

import sqlalchemy as sa

from quantlytic_assets.storage.sqlite import use_write_ahead_log

# Postgres knows advisory locks by number; this one is held while tables are made.
_MAKING_TABLES = 0x51544C43


def state_engine(url: str) -> sa.Engine:
    """An engine for the state database; on SQLite with a write-ahead log, so that processes don't block each other."""
    engine = sa.create_engine(url)
    if engine.dialect.name == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def _prepare(connection, _record):
            use_write_ahead_log(connection)

    return engine


def create_tables(engine: sa.Engine, *tables: sa.Table) -> None:
    """Make the tables that are not there yet, whoever else does so at the same moment.

    On Postgres `IF NOT EXISTS` alone is no help: two that look at once both go on to make the table, and one fails.
    """
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MAKING_TABLES)))
        for table in tables:
            connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                connection.execute(sa.schema.CreateIndex(index, if_not_exists=True))
