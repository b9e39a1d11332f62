"""What a Binance kline says, whether it stands in an answer of the REST endpoint or in a public file."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.stream.trade_bars import vwap
from quantlytic_assets.vendors.protocol import BarRequest

# A kline's fields, by Binance's documentation of the endpoint; three more follow, which are not used.
COLUMNS = ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "trade_count")
COLUMNS_SENT = 12
# Times are milliseconds, or microseconds since 2025 where those are asked for and in files: 1e14 ms is the year 5138.
_LEAST_MICROSECONDS = 100_000_000_000_000


def kline_bars(klines: pl.DataFrame, request: BarRequest, at: datetime, vendor: str) -> pl.DataFrame:
    """RAW_SCHEMA rows of those klines that were asked for and over at `at`, oldest first.

    `klines`: the COLUMNS, but for close_time, which is an interval after open_time: that in whole milli- or
    microseconds, the others Float64, null where they are no numbers.
    """
    micro = pl.when(pl.col("open_time") < _LEAST_MICROSECONDS).then(pl.col("open_time") * 1000).otherwise("open_time")
    return (
        klines.with_columns(
            micro.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
            pl.col("trade_count").cast(pl.Int64, strict=False),
        )
        .with_columns(
            pl.lit(request.symbol).alias("symbol"),
            (pl.col("open_time") + INTERVALS[request.interval]).alias("close_time"),
            vwap(pl.col("quote_volume"), pl.col("volume")).alias("vwap"),
            pl.lit(vendor).alias("vendor"),
            pl.lit(datetime.now(UTC)).cast(RAW_SCHEMA["fetched_at"]).alias("fetched_at"),
            pl.lit("none").alias("adjustment"),
        )
        .filter(pl.col("open_time") >= request.start, pl.col("open_time") < request.end, pl.col("close_time") <= at)
        .sort("open_time", maintain_order=True)
        .select(RAW_SCHEMA.names())
    )
