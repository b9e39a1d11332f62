"""The layout of the state database: which revision it has, and Alembic's way to this code's revision."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from quantlytic_assets.storage.migrations.layout import NewLayout, OldLayout

_SCRIPTS = Path(__file__).parent / "state_versions"
_WHAT = "the state database"
# Tables of the first revision: where one of them is without a revision, the database is older than revisions.
_FIRST_TABLES = {"vendor_attempts", "vendor_calls", "vendor_closed", "orders", "fills", "decided_sessions"}
# Postgres knows advisory locks by number; this one is held while tables change.
_CHANGING_TABLES = 0x51544C43


def state_revisions() -> dict[str, str]:
    """Revision to what it does, oldest first. The file names say both, so that nobody waits for Alembic's import."""
    found = sorted(path.stem for path in (_SCRIPTS / "versions").glob("[0-9]*.py"))
    return {name[:4]: name[5:].replace("_", " ") for name in found}


def pending_revisions(engine: sa.Engine) -> list[str]:
    """Revisions that the database lacks, oldest first; all of them where it is empty.

    Raises `NewLayout` where its revision is not known to this code.
    """
    known = list(state_revisions())
    with engine.connect() as connection:
        current = _revision(connection)
    if current is None:
        return known
    if current not in known:
        raise NewLayout(_WHAT, f"revision {current}")
    return known[known.index(current) + 1 :]


def check_state(engine: sa.Engine) -> None:
    """Give an empty database this code's tables. Raises `LayoutError` where it has tables of another layout."""
    if not pending_revisions(engine):
        return
    if is_empty(engine):
        upgrade_state(engine)
        return
    # Looked at again: another process may have given it the tables since it was looked at first.
    if pending := pending_revisions(engine):
        raise OldLayout(_WHAT, len(pending))


def is_empty(engine: sa.Engine) -> bool:
    """Whether the database holds no table of ours."""
    with engine.connect() as connection:
        return _revision(connection) is None and not _FIRST_TABLES & set(sa.inspect(connection).get_table_names())


def upgrade_state(engine: sa.Engine, to: str = "head") -> None:
    """Apply the revisions that the database lacks, all in one transaction; others who do the same wait and do nothing.

    to: the last revision to apply; an earlier one than this code's is there for tests. Raises `NewLayout` where its
    revision is not known to this code.
    """
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": None})
    config.set_main_option("script_location", str(_SCRIPTS))
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            # pysqlite begins by itself only before it changes rows, not before it makes tables.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CHANGING_TABLES)))
        if _revision(connection) not in (None, *state_revisions()):
            raise NewLayout(_WHAT, f"revision {_revision(connection)}")
        config.attributes["connection"] = connection
        command.upgrade(config, to)
        connection.commit()


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
