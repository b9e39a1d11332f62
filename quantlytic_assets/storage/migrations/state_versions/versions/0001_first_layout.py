"""The tables as they were before there were revisions.

Databases from then have some of the tables or all of them, since each part made its own when it was first used: what is
there stays as it is, and what is missing is made.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables that are not there."""
    time = sa.DateTime(timezone=True)
    op.create_table(
        "vendor_attempts",
        sa.Column("dataset", sa.String, primary_key=True),
        sa.Column("symbol", sa.String, primary_key=True),
        sa.Column("session", sa.Date, primary_key=True),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("answered", sa.Integer, nullable=False),
        sa.Column("last_error", sa.String),
        sa.Column("last_asked_at", time, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "vendor_calls",
        sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
        sa.Column("vendor", sa.String, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        if_not_exists=True,
    )
    op.create_index("vendor_calls_by_time", "vendor_calls", ["vendor", "at"], if_not_exists=True)
    op.create_table(
        "vendor_closed",
        sa.Column("vendor", sa.String, primary_key=True),
        sa.Column("until", sa.Double, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "orders",
        sa.Column("order_ref", sa.String, primary_key=True),
        sa.Column("strategy", sa.String, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("symbol", sa.String, nullable=False),
        sa.Column("side", sa.String, nullable=False),
        sa.Column("quantity", sa.Float, nullable=False),
        sa.Column("decision_time", time, nullable=False),
        sa.Column("reference_price", sa.Float),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("reason", sa.String),
        sa.Column("created_at", time, nullable=False),
        sa.Column("model_version", sa.String),
        sa.UniqueConstraint("strategy", "session", "symbol"),
        if_not_exists=True,
    )
    op.create_table(
        "fills",
        sa.Column("order_ref", sa.String, sa.ForeignKey("orders.order_ref"), primary_key=True),
        sa.Column("strategy", sa.String, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("symbol", sa.String, nullable=False),
        sa.Column("side", sa.String, nullable=False),
        sa.Column("quantity", sa.Float, nullable=False),
        sa.Column("fill_time", time, nullable=False),
        sa.Column("fill_session", sa.Date, nullable=False),
        sa.Column("price", sa.Float, nullable=False),
        sa.Column("commission", sa.Float, nullable=False),
        sa.Column("slippage", sa.Float, nullable=False),
        sa.UniqueConstraint("strategy", "session", "symbol"),
        if_not_exists=True,
    )
    op.create_table(
        "decided_sessions",
        sa.Column("strategy", sa.String, primary_key=True),
        sa.Column("session", sa.Date, primary_key=True),
        sa.Column("decided_at", time, nullable=False),
        if_not_exists=True,
    )
