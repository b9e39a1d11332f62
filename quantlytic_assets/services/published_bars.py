"""Frames of bars and what becomes of them in the hot store: their days, and their blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.serving.encoding import blocks

if TYPE_CHECKING:
    from quantlytic_assets.universe.models import Dataset

# Members of a bar by the columns they come from, those that every bar has first.
BAR = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
MORE = {"trade_count": "n", "vwap": "vw"}
KEYS = ("symbol", "day")


def with_day(frame: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """The frame with the first day of the partition of each row's `session` in `day`."""
    start = pl.col("session").dt.truncate("1mo") if dataset.partition == "month" else pl.col("session")
    return frame.with_columns(start.alias("day"))


def bar_blocks(bars: pl.DataFrame) -> pl.DataFrame:
    """Blocks of bars (symbol, day, open_time, prices and volume, perhaps trades and average price), a row each."""
    named = {**BAR, **{name: member for name, member in MORE.items() if name in bars.columns}}
    return blocks(bars.rename(named), KEYS, "open_time", list(named.values()))
