"""Accounts of strategies that follow a rule: their events, their sessions, and the state that each goes on from."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables."""
    time = sa.DateTime(timezone=True)
    op.create_table(
        "account_events",
        sa.Column("strategy", sa.String, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("event_time", time, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("symbol", sa.String),
        sa.Column("client_order_id", sa.String),
        sa.Column("payload", sa.String, nullable=False),
        sa.Column("recorded_at", time, nullable=False),
    )
    op.create_index("account_events_by_session", "account_events", ["strategy", "session"])
    op.create_table(
        "account_sessions",
        sa.Column("strategy", sa.String, primary_key=True),
        sa.Column("session", sa.Date, primary_key=True),
        sa.Column("equity", sa.Float, nullable=False),
        sa.Column("cash", sa.Float, nullable=False),
        sa.Column("gross_exposure", sa.Float, nullable=False),
        sa.Column("costs_to_date", sa.Float, nullable=False),
        sa.Column("positions", sa.String, nullable=False),
        sa.Column("bars", sa.String, nullable=False),
    )
    op.create_table(
        "account_states",
        sa.Column("strategy", sa.String, primary_key=True),
        sa.Column("through", time, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("oldest_open", sa.Date, nullable=False),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("symbols", sa.String, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
    )
