"""What a Binance kline says, whether it stands in an answer of the REST endpoint or in a public file."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.market_data.stream.trade_bars import vwap
from quantlytic_assets.vendors.finished import finished_bars
from quantlytic_assets.vendors.protocol import BarRequest, VendorError

# A kline's fields, by Binance's documentation of the endpoint; three more follow, which are not used.
COLUMNS = ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "trade_count")
COLUMNS_SENT = 12
# Times are milliseconds, or microseconds since 2025 where those are asked for and in files: 1e14 ms is the year 5138.
_LEAST_MICROSECONDS = 100_000_000_000_000
# A close_time may be the last milli- or microsecond of its bar, or the first of the next one.
_ROUNDING = 1_000_000


def kline_bars(klines: pl.DataFrame, request: BarRequest, at: datetime, vendor: str) -> pl.DataFrame:
    """RAW_SCHEMA rows of those klines that were asked for and over at `at`, oldest first.

    `klines`: the COLUMNS; open_time in whole milli- or microseconds, the others Float64, null where they are no
    numbers. Raises `VendorError` where the usual time from open to close is not the interval that was asked for.
    """
    unit = pl.when(pl.col("open_time") < _LEAST_MICROSECONDS).then(1000.0).otherwise(1.0)
    lasts = klines.select(((pl.col("close_time") + 1 - pl.col("open_time")) * unit).median()).item()
    if lasts is not None and abs(lasts - INTERVALS[request.interval] / timedelta(microseconds=1)) > _ROUNDING:
        lasts = timedelta(microseconds=lasts)
        raise VendorError(f"answered with bars of {lasts} where {request.interval} ones were asked for", False)
    micro = pl.when(pl.col("open_time") < _LEAST_MICROSECONDS).then(pl.col("open_time") * 1000).otherwise("open_time")
    rows = klines.with_columns(
        micro.cast(pl.Datetime("us")).dt.replace_time_zone("UTC"), pl.col("trade_count").cast(pl.Int64, strict=False)
    ).with_columns(
        (pl.col("open_time") + INTERVALS[request.interval]).alias("close_time"),
        vwap(pl.col("quote_volume"), pl.col("volume")).alias("vwap"),
    )
    return finished_bars(rows, request, vendor, "none", at)
