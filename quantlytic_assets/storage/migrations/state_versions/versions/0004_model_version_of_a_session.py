"""Accounts of strategies with a model: the version that predicted a session, as it was when that was traded."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column."""
    op.add_column("account_sessions", sa.Column("model_version", sa.String))
