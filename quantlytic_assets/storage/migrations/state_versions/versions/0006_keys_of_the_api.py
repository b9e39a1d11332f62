"""Keys of the API with their scopes, how much each asked on each day, and who read trading or changed something."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the tables."""
    time = sa.DateTime(timezone=True)
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("scopes", sa.String, nullable=False),
        sa.Column("rate", sa.String),
        sa.Column("daily_quota", sa.BigInteger),
        sa.Column("created_at", time, nullable=False),
        sa.Column("expires_at", time),
        sa.Column("revoked_at", time),
    )
    op.create_table(
        "api_usage",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "api_audit",
        sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
        sa.Column("at", time, nullable=False),
        sa.Column("caller", sa.String, nullable=False),
        sa.Column("client", sa.String),
        sa.Column("method", sa.String, nullable=False),
        sa.Column("path", sa.String, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
    )
    op.create_index("api_audit_by_time", "api_audit", ["at"])
