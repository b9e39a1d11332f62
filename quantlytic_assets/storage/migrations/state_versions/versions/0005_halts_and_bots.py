"""What people ask of accounts (halts and resumptions), whether an account is halted, and what a bot remembers.

An account that a limit had halted before is marked as halted, as its last event of that kind says.
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table and the columns, and fill those of halted accounts."""
    time = sa.DateTime(timezone=True)
    op.create_table(
        "account_requests",
        sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
        sa.Column("strategy", sa.String, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("liquidate", sa.Boolean),
        sa.Column("reason", sa.String),
        sa.Column("requested_by", sa.String, nullable=False),
        sa.Column("requested_at", time, nullable=False),
        sa.Column("effective_at", time),
    )
    op.create_index("account_requests_by_strategy", "account_requests", ["strategy"])
    op.add_column("account_states", sa.Column("halted", sa.String))
    op.add_column("account_states", sa.Column("halted_since", time))
    op.add_column("account_states", sa.Column("bot", sa.String))
    _mark_halted(op.get_bind(), time)


def _mark_halted(connection: sa.Connection, time: sa.DateTime) -> None:
    events = sa.table(
        "account_events",
        *(sa.column(name) for name in ("strategy", "seq", "kind", "payload")),
        sa.column("event_time", time),
    )
    states = sa.table("account_states", sa.column("strategy"), sa.column("halted"), sa.column("halted_since", time))
    turns = events.c.kind.in_(["halt", "resume"])
    keys = sa.select(events.c.strategy, sa.func.max(events.c.seq).label("seq")).where(turns).group_by(events.c.strategy)
    newest = keys.subquery()
    same = (events.c.strategy == newest.c.strategy) & (events.c.seq == newest.c.seq)
    found = sa.select(events.c.strategy, events.c.event_time, events.c.payload).join(newest, same)
    for strategy, when, payload in connection.execute(found.where(events.c.kind == "halt")).all():
        marked = sa.update(states).where(states.c.strategy == strategy)
        connection.execute(marked.values(halted=json.loads(payload)["reason"], halted_since=when))
