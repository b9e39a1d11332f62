"""What several rules are made of: words and periods."""

from __future__ import annotations

from typing import Literal

import polars as pl

from quantlytic_assets.strategies.spec import Parameter

SHORT = Parameter("short", False, kind="flag")
Every = Literal["daily", "weekly", "monthly"]
_CALENDAR = {"daily": "1d", "weekly": "1w", "monthly": "1mo"}
# Periods are compared with the bar before.
PERIOD_LOOKBACK = 1


def every(default: Every) -> Parameter:
    """How often a rule decides: at a symbol's first bar of each session, week or month."""
    return Parameter("every", default, kind="choice", choices=tuple(_CALENDAR))


def starts(period: Every) -> pl.Expr:
    """Whether a bar is its symbol's first one of a period; the first bar of a frame is."""
    key = pl.col("session").dt.truncate(_CALENDAR[period])
    return (key != key.shift(1)).over("symbol", order_by="open_time").fill_null(True)


def number(name: str, digits: int = 2) -> pl.Expr:
    """A column as it is shown in a sentence."""
    return pl.col(name).round(digits)
