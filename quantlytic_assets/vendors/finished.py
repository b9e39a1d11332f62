"""The end of every vendor's `fetch`: its rows made into RAW_SCHEMA bars of the interval that was asked for.

What a vendor's own fields mean is in its module. An answer at another interval is rejected whole here: its rows look
like bars, and each of them would be filed as one of the interval that was asked for.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.vendors.protocol import BarRequest, VendorError

# So many bars are never all on a coarser grid by chance, however seldom the symbol is traded.
_ENOUGH = 16
# Daily bars that are all further apart are of weeks or longer; no exchange is closed so long again and again.
_LONGEST_PAUSE = timedelta(days=4)
_OPTIONAL = ("vwap", "trade_count")


def finished_bars(rows: pl.DataFrame, request: BarRequest, vendor: str, adjustment: str, at: datetime) -> pl.DataFrame:
    """RAW_SCHEMA bars of `rows` inside the request that had closed at `at` (UTC), oldest first.

    rows: open_time, close_time (UTC), prices and volume, perhaps vwap and trade_count, in any order; rows of the same
    time keep their order. Raises `VendorError` where their spacing is that of another interval.
    """
    absent = [pl.lit(None).alias(name) for name in _OPTIONAL if name not in rows.columns]
    bars = (
        rows.with_columns(
            *absent,
            pl.lit(request.symbol).alias("symbol"),
            pl.lit(vendor).alias("vendor"),
            pl.lit(datetime.now(UTC)).cast(RAW_SCHEMA["fetched_at"]).alias("fetched_at"),
            pl.lit(adjustment).alias("adjustment"),
        )
        .filter(pl.col("open_time") >= request.start, pl.col("open_time") < request.end, pl.col("close_time") <= at)
        .sort("open_time", maintain_order=True)
        .select(RAW_SCHEMA.names())
        .cast(dict(RAW_SCHEMA))
    )
    other = _other_spacing(bars["open_time"], request.interval)
    if other is not None:
        raise VendorError(f"answered with bars {other} where {request.interval} ones were asked for", retryable=False)
    return bars


def check_interval(given: object, wanted: str, interval: str) -> None:
    """Raise `VendorError` where a vendor names another interval than `wanted`, its own word for `interval`."""
    if isinstance(given, str) and given != wanted:
        raise VendorError(f"answered with {given[:20]} bars where {interval} ones were asked for", retryable=False)


def _other_spacing(times: pl.Series, interval: str) -> str | None:
    """How the times of bars (sorted) are spaced where that can't be the interval's; None where it can, or for few."""
    step, distinct = INTERVALS[interval], times.unique(maintain_order=True)
    if len(distinct) < _ENOUGH:
        # Bars of a part of a session all fall into its one daily bar.
        return "several a session" if interval == "1d" and len(times) >= _ENOUGH else None
    gaps = distinct.diff().drop_nulls()
    if interval == "1d":
        if len(times) >= 2 * len(distinct):
            return "several a session"
        return f"{gaps.min().days} days or more apart" if gaps.min() > _LONGEST_PAUSE else None
    if gaps.median() < step:
        return f"less than {interval} apart"
    for name, longer in reversed(INTERVALS.items()):
        # Daily bars are an hour less or more apart where clocks change.
        slack = timedelta(hours=1) if name == "1d" else timedelta(0)
        if longer <= step or gaps.min() < longer - slack:
            continue
        off = (gaps + slack).dt.total_microseconds() % (longer // timedelta(microseconds=1))
        if (off <= 2 * slack // timedelta(microseconds=1)).all():
            return f"at least {name} apart"
    return None
