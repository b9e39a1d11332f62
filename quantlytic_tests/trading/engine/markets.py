"""Markets for the engine's tests: of bars that are spelled out, and of random walks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl

from quantlytic_assets.trading.engine.market import ACTIONS_SCHEMA, Market

DAYS = [date(2015, 3, 2) + timedelta(days=i) for i in range(400)]


def daily(rows: Sequence[tuple], **how) -> Market:
    """Rows (symbol, number of the day, open, high, low, close[, volume]); each day is a session from 14:30 to 21:00."""
    return Market.from_frame(frame(rows), **how)


def frame(rows: Sequence[tuple]) -> pl.DataFrame:
    told = []
    for symbol, day, opened, high, low, close, *volume in rows:
        start = datetime.combine(DAYS[day], datetime.min.time(), UTC)
        opens, closes = start + timedelta(hours=14, minutes=30), start + timedelta(hours=21)
        told.append((symbol, DAYS[day], opens, closes, closes, opened, high, low, close, volume[0] if volume else 1e9))
    return pl.DataFrame(
        told,
        schema={
            "symbol": pl.String, "session": pl.Date, "open_time": pl.Datetime("us", "UTC"),
            "close_time": pl.Datetime("us", "UTC"), "available_at": pl.Datetime("us", "UTC"),
            **dict.fromkeys(("open", "high", "low", "close", "volume"), pl.Float64),
        },
        orient="row",
    )  # fmt: skip


def flat(prices: Sequence[float], symbol: str = "AAA", **how) -> Market:
    """Bars of one price each."""
    return daily([(symbol, day, price, price, price, price) for day, price in enumerate(prices)], **how)


def actions(*rows: tuple) -> pl.DataFrame:
    """Corporate actions (symbol, number of the day, kind, value or new symbol)."""
    told = []
    for symbol, day, kind, value in rows:
        into, value = (value, None) if isinstance(value, str) else (None, value)
        told.append((symbol, DAYS[day], kind, value, into))
    return pl.DataFrame(told, schema=ACTIONS_SCHEMA, orient="row")


def walks(symbols: int, sessions: int, bars: int = 1, seed: int = 1, holes: float = 0.0, told=None) -> Market:
    """Random walks in hourly bars, some of them missing."""
    drawn = np.random.default_rng(seed)
    rows = []
    times = [
        (day, datetime.combine(DAYS[day], datetime.min.time(), UTC) + timedelta(hours=9 + bar))
        for day in range(sessions)
        for bar in range(bars)
    ]
    for symbol in range(symbols):
        price = 20.0 + 10 * symbol
        for day, start in times:
            opened = price * np.exp(drawn.normal(0, 0.01))
            price = opened * np.exp(drawn.normal(0, 0.02))
            high, low = max(opened, price) * (1 + drawn.random() / 50), min(opened, price) * (1 - drawn.random() / 50)
            if drawn.random() < holes:
                continue
            ends = start + timedelta(hours=1)
            volume = float(drawn.integers(0, 5_000))
            rows.append((f"S{symbol}", DAYS[day], start, ends, ends, opened, high, low, price, volume))
    # The calendar knows when a session ends, whatever bars there are.
    closes = {DAYS[day]: start + timedelta(hours=1) for day, start in times}
    bars_frame = pl.DataFrame(rows, schema=frame([]).schema, orient="row")
    return Market.from_frame(
        bars_frame, [f"S{i}" for i in range(symbols)], ticks=0.01, session_closes=closes, actions=told
    )
