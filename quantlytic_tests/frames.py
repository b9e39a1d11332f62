"""Datasets and raw bars that tests of several layers build on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

import polars as pl

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.market_data.actions.reconcile import ACTIONS_SCHEMA
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.universe.models import Dataset, Instrument


def utc(text: str) -> datetime:
    """A UTC time from ISO text without a zone."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def make_dataset(
    calendar: str = "XNYS",
    interval: str = "5m",
    partition: str | None = None,
    first: date = date(2025, 3, 3),
    last: date | None = date(2025, 3, 14),
    symbols: Iterable[str | Instrument] = ("AAPL", "MSFT"),
    **changes: object,
) -> Dataset:
    """A dataset of two weeks of XNYS, unless told otherwise."""
    fields: dict[str, object] = {
        "name": "sample_set",
        "calendar": calendar,
        "interval": interval,
        "partition": partition or ("month" if interval == "1d" else "session"),
        "first_session": first,
        "last_session": last,
        "vendors": ("small",),
        "venue": "sample_set",
        "out_of_session": "drop",
        "delay": timedelta(0),
        "feature_intervals": (interval,),
        "symbols": tuple(one if isinstance(one, Instrument) else Instrument(one) for one in symbols),
    }
    return Dataset(**(fields | changes))


def make_bars(
    symbol: str,
    opens: Iterable[datetime],
    interval: str = "1m",
    fetched_at: datetime = datetime(2025, 6, 1, tzinfo=UTC),
    **columns: object,
) -> pl.DataFrame:
    """Plausible RAW_SCHEMA bars of one symbol at the given opening times; `columns` replaces whole columns."""
    times = pl.Series("open_time", list(opens), dtype=RAW_SCHEMA["open_time"])
    step = (times.dt.timestamp("us") // 60_000_000 % 97).cast(pl.Float64)
    literals = {name: pl.lit(value, RAW_SCHEMA[name]).alias(name) for name, value in columns.items()}
    return (
        pl.DataFrame({"open_time": times, "step": step})
        .with_columns(
            pl.lit(symbol).alias("symbol"),
            (pl.col("open_time") + INTERVALS[interval]).alias("close_time"),
            (100 + pl.col("step") / 7).alias("open"),
            (101 + pl.col("step") / 7).alias("high"),
            (99 + pl.col("step") / 7).alias("low"),
            (100.5 + pl.col("step") / 7).alias("close"),
            (1000 + pl.col("step")).alias("volume"),
            pl.lit(None, pl.Float64).alias("vwap"),
            pl.lit(7, pl.Int64).alias("trade_count"),
            pl.lit("small").alias("vendor"),
            pl.lit(fetched_at).cast(RAW_SCHEMA["fetched_at"]).alias("fetched_at"),
            pl.lit("none").alias("adjustment"),
        )
        .with_columns(**literals)
        .select(RAW_SCHEMA.names())
        .cast(dict(RAW_SCHEMA))
    )


def minutes(start: datetime, count: int, every: int = 1) -> list[datetime]:
    """`count` times, `every` minutes apart, from `start` on."""
    return [start + timedelta(minutes=every * i) for i in range(count)]


def make_actions(*rows: tuple[str, date, str, float], vendor: str = "small", **columns: object) -> pl.DataFrame:
    """Corporate actions (symbol, session, kind, value) as a vendor tells them on their day."""
    frame = pl.DataFrame(rows, schema=["symbol", "session", "kind", "value"], orient="row").with_columns(
        pl.lit(None, pl.String).alias("new_symbol"),
        pl.col("session").alias("known_on"),
        pl.lit("none").alias("adjustment"),
        pl.lit(vendor).alias("vendor"),
        pl.lit(datetime.now(UTC)).alias("recorded_at"),
    )
    changed = frame.with_columns(pl.lit(value).alias(name) for name, value in columns.items())
    return changed.select(ACTIONS_SCHEMA.names()).cast(dict(ACTIONS_SCHEMA))
