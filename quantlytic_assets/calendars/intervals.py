"""The bar intervals that a dataset can have, and the type of every time stamp.

What a calendar makes of an interval (which bars a session should hold) is in `sessions`.
"""

from __future__ import annotations

from datetime import timedelta

import polars as pl

INTERVALS: dict[str, timedelta] = {
    "1m": timedelta(minutes=1),
    "5m": timedelta(minutes=5),
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
}

TIME = pl.Datetime("us", "UTC")
