"""Orders, executions and values of accounts at brokers, and who executes the orders of an account."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make the tables and the column; accounts so far are simulated."""
    time = sa.DateTime(timezone=True)
    op.add_column("account_states", sa.Column("broker", sa.String, nullable=False, server_default="simulated"))
    op.create_table(
        "broker_orders",
        sa.Column("client_order_id", sa.String, primary_key=True),
        sa.Column("broker", sa.String, nullable=False),
        sa.Column("strategy", sa.String, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("session", sa.Date, nullable=False),
        sa.Column("symbol", sa.String, nullable=False),
        sa.Column("leg", sa.String, nullable=False),
        sa.Column("side", sa.Integer, nullable=False),
        sa.Column("quantity", sa.Float, nullable=False),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("time_in_force", sa.String, nullable=False),
        sa.Column("limit_price", sa.Float),
        sa.Column("stop_price", sa.Float),
        sa.Column("trail", sa.Float),
        sa.Column("oca_group", sa.String, nullable=False),
        sa.Column("reference_price", sa.Float),
        sa.Column("decision_time", time, nullable=False),
        sa.Column("expires_at", time, nullable=False),
        sa.Column("written_at", time, nullable=False),
        sa.Column("wanted", sa.String, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("sent_revision", sa.Integer, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("sent_at", time),
        sa.Column("account", sa.String),
        sa.Column("order_id", sa.BigInteger),
        sa.Column("permanent_id", sa.BigInteger),
        sa.Column("filled", sa.Float, nullable=False),
        sa.Column("reason", sa.String),
        sa.Column("held_for", sa.String),
        sa.Column("ended_at", time),
        sa.Column("told", sa.Boolean, nullable=False),
    )
    op.create_index("broker_orders_by_status", "broker_orders", ["broker", "status"])
    op.create_index("broker_orders_by_strategy", "broker_orders", ["strategy", "session"])
    op.create_table(
        "broker_fills",
        sa.Column("base", sa.String, primary_key=True),
        sa.Column("execution_id", sa.String, nullable=False),
        sa.Column("broker", sa.String, nullable=False),
        sa.Column("client_order_id", sa.String),
        sa.Column("account", sa.String, nullable=False),
        sa.Column("symbol", sa.String, nullable=False),
        sa.Column("side", sa.Integer, nullable=False),
        sa.Column("quantity", sa.Float, nullable=False),
        sa.Column("price", sa.Float, nullable=False),
        sa.Column("executed_at", time, nullable=False),
        sa.Column("recorded_at", time, nullable=False),
        sa.Column("commission", sa.Float),
        sa.Column("currency", sa.String),
        sa.Column("taken_quantity", sa.Float),
        sa.Column("taken_price", sa.Float),
        sa.Column("taken_commission", sa.Float),
    )
    op.create_index("broker_fills_by_order", "broker_fills", ["client_order_id"])
    op.create_table(
        "broker_values",
        sa.Column("broker", sa.String, primary_key=True),
        sa.Column("account", sa.String, primary_key=True),
        sa.Column("at", time, primary_key=True),
        sa.Column("currency", sa.String, nullable=False),
        sa.Column("equity", sa.Float),
        sa.Column("cash", sa.Float),
        sa.Column("buying_power", sa.Float),
        sa.Column("gross_exposure", sa.Float),
        sa.Column("standing", sa.String, nullable=False),
    )
