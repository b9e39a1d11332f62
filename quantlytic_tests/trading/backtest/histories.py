"""Histories for tests: recorded days of Apple and IBM, and made ones."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import polars as pl

from quantlytic_assets.trading.backtest.history import History
from quantlytic_assets.trading.engine.market import ACTIONS_SCHEMA
from quantlytic_tests.market_data.recorded_prices import lean_bars

FIRST, LAST = date(2010, 1, 4), date(2013, 12, 31)
_TIMES = pl.Datetime("us", "UTC")


def recorded(symbols: tuple[str, ...] = ("AAPL", "IBM")) -> History:
    """Four years of days as they were traded, without a split."""
    bars = pl.concat([lean_bars(symbol, first=FIRST, last=LAST) for symbol in symbols])
    return history(bars.with_columns(pl.col("close_time").alias("available_at")))


def history(bars: pl.DataFrame, actions: list[tuple] | None = None) -> History:
    """A history of these bars, each a company without a change."""
    bars = bars.with_columns(
        pl.lit("1d").alias("interval"), pl.col("symbol").alias("listing"), pl.lit(1.0).alias("shares")
    ).sort("symbol", "open_time")
    closes = bars.group_by("session").agg(pl.col("close_time").max())
    return History(bars, pl.DataFrame(actions or [], ACTIONS_SCHEMA, orient="row"), dict(closes.iter_rows()))


def made(closes: dict[str, list[float]], volume: float = 1e6) -> pl.DataFrame:
    """A day a price, from 2024-01-01 on: opens at the close of the day before."""
    frames = []
    for symbol, prices in closes.items():
        count = len(prices)
        days = [date(2024, 1, 1) + timedelta(days=i) for i in range(count)]
        opens = [prices[0], *prices[:-1]]
        begin = [datetime.combine(day, time(10), UTC) for day in days]
        end = [one + timedelta(hours=6) for one in begin]
        frames.append(
            pl.DataFrame(
                {
                    "symbol": [symbol] * count, "session": days, "open_time": begin, "close_time": end,
                    "available_at": end, "open": opens, "high": np.maximum(opens, prices),
                    "low": np.minimum(opens, prices), "close": prices, "volume": [volume] * count,
                },
                schema_overrides=dict.fromkeys(("open_time", "close_time", "available_at"), _TIMES),
            )
        )  # fmt: skip
    return pl.concat(frames)
