"""Alerts on thresholds: what was told of them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "alert_states",
        sa.Column("alert", sa.String, primary_key=True),
        sa.Column("symbol", sa.String, primary_key=True),
        sa.Column("through", sa.DateTime(timezone=True)),
        sa.Column("holds", sa.Boolean, nullable=False),
        sa.Column("told", sa.Boolean, nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True)),
    )
