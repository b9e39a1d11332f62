"""Trades as rows and as records of the bus: their columns, their encoding and decoding.

What fields a record has is said by `avro/market_tick.avsc`, in whose binary form it travels; the headers name schema,
version and encoding. How trades become bars is in `trade_bars`.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.market_data.stream.messages import Trade
from quantlytic_assets.market_data.wire.avro_records import record_schema

TICK_HEADERS = {"schema": "market_tick", "version": "1", "encoding": "avro"}
SIDES = ("buy", "sell", "unknown")

# `side` is the aggressor's; `trade_id` is the venue's number of the trade within its symbol.
TICK_SCHEMA = pl.Schema(
    {
        "symbol": pl.String,
        "trade_id": pl.Int64,
        "time": TIME,
        "price": pl.Float64,
        "size": pl.Float64,
        "side": pl.String,
        "vendor": pl.String,
        "received_at": TIME,
    }
)


def tick_frame(trades: Sequence[Trade], vendor: str) -> pl.DataFrame:
    """Trades of a stream as TICK_SCHEMA rows, in their order."""
    columns = dict(zip(Trade._fields, zip(*trades, strict=True), strict=True)) if trades else {}
    plain = {
        name: pl.Series(name, columns.get(name, ()), dtype=pl.Int64 if kind == TIME else kind)
        for name, kind in TICK_SCHEMA.items()
        if name in Trade._fields
    }
    frame = pl.DataFrame(plain).with_columns(pl.lit(vendor).alias("vendor"))
    return frame.select(TICK_SCHEMA.names()).cast(TICK_SCHEMA)


def encode_ticks(ticks: pl.DataFrame) -> list[bytes]:
    """One value a row of a TICK_SCHEMA frame, in its order. Raises `ValueError` for a row that lacks a field."""
    return record_schema("market_tick").encode(ticks)


def decode_ticks(values: Sequence[bytes]) -> pl.DataFrame:
    """The TICK_SCHEMA rows of records that `encode_ticks` made. Raises `ValueError` for anything else."""
    rows, faults = record_schema("market_tick").decode(values)
    if faults:
        at, reason = next(iter(faults.items()))
        raise ValueError(f"{len(faults)} of {len(values)} records are no market tick; number {at} is {reason}")
    return rows
