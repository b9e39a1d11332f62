"""Frames of made-up bars with the feature columns that a rule asks for."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl

from quantlytic_assets.strategies.spec import Rule

SYMBOLS = ("AAA", "BBB", "CCC", "DDD")
FIRST = date(2024, 1, 2)


def bars(symbol: str, closes, first: date = FIRST, **columns) -> pl.DataFrame:
    """A bar a day of one symbol with these closes and columns."""
    days = [first + timedelta(days=number) for number in range(len(closes))]
    opens = [datetime(day.year, day.month, day.day, 14, 30, tzinfo=UTC) for day in days]
    return pl.DataFrame(
        {
            "symbol": [symbol] * len(closes),
            "session": days,
            "open_time": opens,
            "available_at": [one + timedelta(hours=6, minutes=30) for one in opens],
            "close": closes,
            **columns,
        },
        schema_overrides={
            "symbol": pl.String,
            "session": pl.Date,
            "open_time": pl.Datetime("us", "UTC"),
            "available_at": pl.Datetime("us", "UTC"),
            "close": pl.Float64,
            **dict.fromkeys(columns, pl.Float64),
        },
    )


def walk(rule: Rule, number: int, seed: int) -> pl.DataFrame:
    """Random bars of four symbols, one listed later and each with bars that are not there; a tenth of values null."""
    random = np.random.default_rng(seed)
    frames = []
    for place, symbol in enumerate(SYMBOLS):
        closes = 100 * np.exp(np.cumsum(random.normal(0, 0.02, number)))
        scales = {"rsi": (0, 100), "score": (0, 1), "momentum": (-20, 20), "histogram": (-1, 1)}
        columns = {}
        for name, column in rule.columns.items():
            low, high = scales.get(name, (0.9, 1.1))
            values = random.uniform(low, high, number) * (1 if name in scales else closes)
            columns[column] = np.where(random.random(number) < 0.1, np.nan, values)
        frame = bars(symbol, closes, **columns).with_columns(pl.col(columns).fill_nan(None) if columns else [])
        frames.append(frame[place * 20 :].filter(pl.Series(random.random(number)[place * 20 :] > 0.05)))
    return pl.concat(frames).sample(fraction=1, shuffle=True, seed=seed)
