"""The state database: what can't be recomputed from the archive, in SQLite or Postgres; only the URL differs.

Its tables are declared here, once. They change by a revision in `migrations/state_versions/versions` and no other way.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

from quantlytic_assets.storage.migrations.state import check_state
from quantlytic_assets.storage.sqlite import use_write_ahead_log


class UtcTime(sa.types.TypeDecorator):
    """An aware UTC time; SQLite, which knows no zones, keeps it naive."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """An aware time as the database keeps it."""
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """What the database kept, as an aware time."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


METADATA = sa.MetaData()

# Sessions of symbols that a vendor was asked for and that still have holes.
VENDOR_ATTEMPTS = sa.Table(
    "vendor_attempts",
    METADATA,
    sa.Column("dataset", sa.String, primary_key=True),
    sa.Column("symbol", sa.String, primary_key=True),
    sa.Column("session", sa.Date, primary_key=True),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("answered", sa.Integer, nullable=False),
    sa.Column("last_error", sa.String),
    sa.Column("last_asked_at", sa.DateTime(timezone=True), nullable=False),
)

# One row a call; `at` in seconds since 1970. Rows older than the vendor's longest window go with the next call.
VENDOR_CALLS = sa.Table(
    "vendor_calls",
    METADATA,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("vendor", sa.String, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("weight", sa.Integer, nullable=False),
    sa.Index("vendor_calls_by_time", "vendor", "at"),
)

# Vendors with an open circuit: no calls until a time, in seconds since 1970.
VENDOR_CIRCUITS = sa.Table(
    "vendor_closed",
    METADATA,
    sa.Column("vendor", sa.String, primary_key=True),
    sa.Column("until", sa.Double, nullable=False),
    sa.Column("reason", sa.String, nullable=False),
)

# Orders, fills and traded sessions from before accounts were the engine's; `services.old_accounts` takes them over.
# status: open (to be filled), filled, rejected (by a check, see reason). side: buy or sell.
OLD_ORDERS = sa.Table(
    "orders",
    METADATA,
    sa.Column("order_ref", sa.String, primary_key=True),
    sa.Column("strategy", sa.String, nullable=False),
    sa.Column("session", sa.Date, nullable=False),
    sa.Column("symbol", sa.String, nullable=False),
    sa.Column("side", sa.String, nullable=False),
    sa.Column("quantity", sa.Float, nullable=False),
    sa.Column("decision_time", UtcTime, nullable=False),
    sa.Column("reference_price", sa.Float),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("reason", sa.String),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("model_version", sa.String),
    sa.UniqueConstraint("strategy", "session", "symbol"),
)

OLD_FILLS = sa.Table(
    "fills",
    METADATA,
    sa.Column("order_ref", sa.String, sa.ForeignKey("orders.order_ref"), primary_key=True),
    sa.Column("strategy", sa.String, nullable=False),
    sa.Column("session", sa.Date, nullable=False),
    sa.Column("symbol", sa.String, nullable=False),
    sa.Column("side", sa.String, nullable=False),
    sa.Column("quantity", sa.Float, nullable=False),
    sa.Column("fill_time", UtcTime, nullable=False),
    sa.Column("fill_session", sa.Date, nullable=False),
    sa.Column("price", sa.Float, nullable=False),
    sa.Column("commission", sa.Float, nullable=False),
    sa.Column("slippage", sa.Float, nullable=False),
    sa.UniqueConstraint("strategy", "session", "symbol"),
)

OLD_SESSIONS = sa.Table(
    "decided_sessions",
    METADATA,
    sa.Column("strategy", sa.String, primary_key=True),
    sa.Column("session", sa.Date, primary_key=True),
    sa.Column("decided_at", UtcTime, nullable=False),
)


# What happened to the account of a strategy, in its order; `payload` is JSON.
ACCOUNT_EVENTS = sa.Table(
    "account_events",
    METADATA,
    sa.Column("strategy", sa.String, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("session", sa.Date, nullable=False),
    sa.Column("event_time", UtcTime, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("symbol", sa.String),
    sa.Column("client_order_id", sa.String),
    sa.Column("payload", sa.String, nullable=False),
    sa.Column("recorded_at", UtcTime, nullable=False),
    sa.Index("account_events_by_session", "strategy", "session"),
)

# The account at the end of each session; `positions` and `bars` (by symbol: how many it was traded on) are JSON.
ACCOUNT_SESSIONS = sa.Table(
    "account_sessions",
    METADATA,
    sa.Column("strategy", sa.String, primary_key=True),
    sa.Column("session", sa.Date, primary_key=True),
    sa.Column("equity", sa.Float, nullable=False),
    sa.Column("cash", sa.Float, nullable=False),
    sa.Column("gross_exposure", sa.Float, nullable=False),
    sa.Column("costs_to_date", sa.Float, nullable=False),
    sa.Column("positions", sa.String, nullable=False),
    sa.Column("bars", sa.String, nullable=False),
    sa.Column("model_version", sa.String),
)

# Where each account goes on from: the engine's state after the bar that opened at `through`.
# halted, halted_since: why and since when it is halted, if it is. bot: JSON of what its bot remembers, if it has one.
# broker: who executes its orders.
ACCOUNT_STATES = sa.Table(
    "account_states",
    METADATA,
    sa.Column("strategy", sa.String, primary_key=True),
    sa.Column("through", UtcTime, nullable=False),
    sa.Column("session", sa.Date, nullable=False),
    sa.Column("oldest_open", sa.Date, nullable=False),
    sa.Column("events", sa.BigInteger, nullable=False),
    sa.Column("symbols", sa.String, nullable=False),
    sa.Column("state", sa.LargeBinary, nullable=False),
    sa.Column("halted", sa.String),
    sa.Column("halted_since", UtcTime),
    sa.Column("bot", sa.String),
    sa.Column("broker", sa.String, nullable=False, server_default="simulated"),
)

# What people asked of accounts, in its order; only `effective_at` is filled in later, once. action: halt or resume.
# liquidate: whether a halt closes what is held, null where the strategy's settings decide. effective_at: time of the
# bar, UTC, with which the account took it in; null before.
ACCOUNT_REQUESTS = sa.Table(
    "account_requests",
    METADATA,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("strategy", sa.String, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("liquidate", sa.Boolean),
    sa.Column("reason", sa.String),
    sa.Column("requested_by", sa.String, nullable=False),
    sa.Column("requested_at", UtcTime, nullable=False),
    sa.Column("effective_at", UtcTime),
    sa.Index("account_requests_by_strategy", "strategy"),
)

# Orders for a broker: what is wanted (working or cancelled, in which revision), written before anything is sent, and
# what has become of it. number: the order's in its account. status: written, sent (it may have arrived), working,
# filled, cancelled, rejected, expired. expires_at: it is not sent from then on. told: whether the account knows the
# end.
BROKER_ORDERS = sa.Table(
    "broker_orders",
    METADATA,
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
    sa.Column("decision_time", UtcTime, nullable=False),
    sa.Column("expires_at", UtcTime, nullable=False),
    sa.Column("written_at", UtcTime, nullable=False),
    sa.Column("wanted", sa.String, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("sent_revision", sa.Integer, nullable=False),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("sent_at", UtcTime),
    sa.Column("account", sa.String),
    sa.Column("order_id", sa.BigInteger),
    sa.Column("permanent_id", sa.BigInteger),
    sa.Column("filled", sa.Float, nullable=False),
    sa.Column("reason", sa.String),
    sa.Column("held_for", sa.String),
    sa.Column("ended_at", UtcTime),
    sa.Column("told", sa.Boolean, nullable=False),
    sa.Index("broker_orders_by_status", "broker", "status"),
    sa.Index("broker_orders_by_strategy", "strategy", "session"),
)

# Executions, one row each whatever revision of it is the newest; an execution without a client order id is nobody's
# of ours. taken_*: what its account has taken in of it; null before it has.
BROKER_FILLS = sa.Table(
    "broker_fills",
    METADATA,
    sa.Column("base", sa.String, primary_key=True),
    sa.Column("execution_id", sa.String, nullable=False),
    sa.Column("broker", sa.String, nullable=False),
    sa.Column("client_order_id", sa.String),
    sa.Column("account", sa.String, nullable=False),
    sa.Column("symbol", sa.String, nullable=False),
    sa.Column("side", sa.Integer, nullable=False),
    sa.Column("quantity", sa.Float, nullable=False),
    sa.Column("price", sa.Float, nullable=False),
    sa.Column("executed_at", UtcTime, nullable=False),
    sa.Column("recorded_at", UtcTime, nullable=False),
    sa.Column("commission", sa.Float),
    sa.Column("currency", sa.String),
    sa.Column("taken_quantity", sa.Float),
    sa.Column("taken_price", sa.Float),
    sa.Column("taken_commission", sa.Float),
    sa.Index("broker_fills_by_order", "client_order_id"),
)

# What a broker's account was worth at a time, in its base currency, and how it stood beside the ledger (JSON).
BROKER_VALUES = sa.Table(
    "broker_values",
    METADATA,
    sa.Column("broker", sa.String, primary_key=True),
    sa.Column("account", sa.String, primary_key=True),
    sa.Column("at", UtcTime, primary_key=True),
    sa.Column("currency", sa.String, nullable=False),
    sa.Column("equity", sa.Float),
    sa.Column("cash", sa.Float),
    sa.Column("buying_power", sa.Float),
    sa.Column("gross_exposure", sa.Float),
    sa.Column("standing", sa.String, nullable=False),
)


# Keys of the API. digest: SHA-256 of the key, hexadecimal; the key itself is nowhere. scopes: by spaces. rate: a limit
# of its own, such as 100/second; daily_quota: requests on a UTC day. Null: the settings' limit, no quota.
API_KEYS = sa.Table(
    "api_keys",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("digest", sa.String, nullable=False),
    sa.Column("scopes", sa.String, nullable=False),
    sa.Column("rate", sa.String),
    sa.Column("daily_quota", sa.BigInteger),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("expires_at", UtcTime),
    sa.Column("revoked_at", UtcTime),
)

# How many requests a key made on a UTC day.
API_USAGE = sa.Table(
    "api_usage",
    METADATA,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
)

# Who read of trading or changed something by the API, in its order. caller: a key's id, or who asks without one.
API_AUDIT = sa.Table(
    "api_audit",
    METADATA,
    sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("caller", sa.String, nullable=False),
    sa.Column("client", sa.String),
    sa.Column("method", sa.String, nullable=False),
    sa.Column("path", sa.String, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Index("api_audit_by_time", "at"),
)

# Alerts on thresholds by their declaration and symbol or strategy: up to which row (its time) it was looked at, whether
# the condition held in it, and what was told.
ALERT_STATES = sa.Table(
    "alert_states",
    METADATA,
    sa.Column("alert", sa.String, primary_key=True),
    sa.Column("symbol", sa.String, primary_key=True),
    sa.Column("through", UtcTime),
    sa.Column("holds", sa.Boolean, nullable=False),
    sa.Column("told", sa.Boolean, nullable=False),
    sa.Column("told_at", UtcTime),
)


def state_engine(url: str) -> sa.Engine:
    """An engine for the state database, whatever its layout is.

    SQLite gets a write-ahead log, so that processes don't block each other, and writes to disk before it returns: an
    order must be there before it is sent, a power cut included.
    """
    engine = sa.create_engine(url)
    if engine.dialect.name == "sqlite":

        @sa.event.listens_for(engine, "connect")
        def _prepare(connection, _record):
            use_write_ahead_log(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")

    return engine


def open_state(url: str) -> sa.Engine:
    """An engine for the state database with all tables of this code's layout; a new database gets them.

    Raises `LayoutError` where the database has another layout.
    """
    engine = state_engine(url)
    check_state(engine)
    return engine
