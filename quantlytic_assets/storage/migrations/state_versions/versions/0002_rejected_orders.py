"""An order that a check rejected is `rejected`: it was `refused`, which is no word of the field's."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Change the status."""
    orders = sa.table("orders", sa.column("status", sa.String))
    op.execute(orders.update().where(orders.c.status == "refused").values(status="rejected"))
