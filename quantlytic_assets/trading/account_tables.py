"""The engine's events and sessions as rows of the tables of `trading`, and events back from their rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date

import polars as pl

from quantlytic_assets.schemas.trading import ACCOUNT_SESSIONS_SCHEMA, EQUITY, EVENTS, FILLS, ORDERS, POSITIONS
from quantlytic_assets.trading.engine import projections
from quantlytic_assets.trading.engine.events import EVENTS_SCHEMA

# What a row of trading.events says in a column of its own; the rest of an event is its payload.
_OWN = ("strategy", "seq", "session", "event_time", "kind", "symbol", "client_order_id")
_PAYLOAD = pl.Struct({name: dtype for name, dtype in EVENTS_SCHEMA.items() if name not in _OWN})
_STATUS = {"working": "open"}


def event_rows(events: pl.DataFrame) -> pl.DataFrame:
    """Rows of trading.events without strategy and recorded_at, of the engine's events (EVENTS_SCHEMA)."""
    payload = pl.struct(one.name for one in _PAYLOAD.fields).struct.json_encode().alias("payload")
    names = [name for name in EVENTS.polars.names() if name not in ("strategy", "payload", "recorded_at")]
    return events.select(*names, payload).select(EVENTS.without("strategy", "recorded_at").names())


def engine_events(rows: pl.DataFrame) -> pl.DataFrame:
    """The engine's events (EVENTS_SCHEMA) of rows of trading.events."""
    if rows.is_empty():
        return EVENTS_SCHEMA.to_frame()
    return (
        rows.select(*_OWN, pl.col("payload").str.json_decode(_PAYLOAD)).unnest("payload").select(EVENTS_SCHEMA.names())
    )


def order_rows(rows: pl.DataFrame, orders: pl.DataFrame, sessions: pl.DataFrame) -> pl.DataFrame:
    """trading.orders of rows of trading.events and of the `projections.orders` of their events.

    sessions: ACCOUNT_SESSIONS_SCHEMA of those in which the orders were decided.
    """
    written = rows.group_by("client_order_id").agg(pl.col("recorded_at").min())
    status = pl.col("status").replace(_STATUS)
    found = orders.join(written, on="client_order_id", how="left", maintain_order="left")
    found = found.join(
        sessions.select("session", "model_version"), on="session", how="left", maintain_order="left"
    ).with_columns(
        status.alias("status"),
        pl.col("client_order_id").alias("order_ref"),
        pl.when(status.is_in(["rejected", "cancelled", "expired"])).then(pl.col("reason")).alias("reason"),
        pl.col("recorded_at").alias("created_at"),
    )
    return found.select(pl.col(name).cast(dtype) for name, dtype in ORDERS.polars.items())


def fill_rows(events: pl.DataFrame, orders: pl.DataFrame) -> pl.DataFrame:
    """trading.fills of the engine's events and their `projections.orders`: of those orders, no others."""
    decided = orders.select("client_order_id", pl.col("session").alias("decided"))
    found = (
        projections.fills(events)
        .rename({"session": "fill_session", "event_time": "fill_time"})
        .join(decided, on="client_order_id", maintain_order="left")
        .rename({"decided": "session", "client_order_id": "order_ref"})
    )
    return found.select(pl.col(name).cast(dtype) for name, dtype in FILLS.polars.items())


def session_row(
    session: date,
    account: tuple[float, float, float, float],
    held: Mapping[str, tuple[float, float, float]],
    bars: Mapping[str, int],
    model_version: str | None = None,
) -> dict[str, object]:
    """One row of ACCOUNT_SESSIONS_SCHEMA.

    account: equity, cash, gross exposure, costs to date. held: quantity, average price and close of each symbol held.
    bars: how many there were of each symbol. model_version: of the model that predicted the session.
    """
    values = dict(zip(("equity", "cash", "gross_exposure", "costs_to_date"), account, strict=True))
    told = {"positions": json.dumps(held), "bars": json.dumps(bars), "model_version": model_version}
    return {"session": session, **values, **told}


def equity_rows(strategy: str, sessions: pl.DataFrame) -> pl.DataFrame:
    """trading.equity of ACCOUNT_SESSIONS_SCHEMA."""
    return sessions.with_columns(pl.lit(strategy).alias("strategy")).select(EQUITY.polars.names())


def position_rows(strategy: str, sessions: pl.DataFrame) -> pl.DataFrame:
    """trading.positions of ACCOUNT_SESSIONS_SCHEMA."""
    rows: list[tuple] = [
        (strategy, session, symbol, quantity, average, close, quantity * close)
        for session, told in sessions.select("session", "positions").iter_rows()
        for symbol, (quantity, average, close) in json.loads(told).items()
    ]
    return pl.DataFrame(rows, POSITIONS.polars, orient="row")


def sessions_frame(rows: Sequence[Mapping[str, object]]) -> pl.DataFrame:
    """ACCOUNT_SESSIONS_SCHEMA of `session_row`s."""
    return pl.DataFrame(list(rows), ACCOUNT_SESSIONS_SCHEMA)
