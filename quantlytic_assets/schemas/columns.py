"""Columns that several tables have, declared once."""

from __future__ import annotations

import polars as pl

from quantlytic_assets.calendars.intervals import INTERVALS, TIME
from quantlytic_assets.schemas.table import Column

PRICE = "money per share or base unit"
SHARES = "shares or base units"
MONEY = "the currency of the prices"

DATASET = Column("dataset", pl.String, "Name of the dataset in the universe.")
STRATEGY = Column("strategy", pl.String, "Name of the strategy in the universe.")
SYMBOL = Column("symbol", pl.String, "Instrument, as the universe spells it.")
SESSION = Column("session", pl.Date, "Trading day the bar belongs to.")
INTERVAL = Column(
    "interval",
    pl.String,
    "Length of the bar: 1m, 5m, 15m, 1h, or 1d for the whole session.",
    allowed=tuple(INTERVALS),
)
OPEN_TIME = Column("open_time", TIME, "Start of the bar, UTC.")
CLOSE_TIME = Column("close_time", TIME, "End of the bar, UTC, not part of it.")
OPEN = Column("open", pl.Float64, "First traded price.", unit=PRICE, above=0)
HIGH = Column("high", pl.Float64, "Highest traded price.", unit=PRICE, above=0)
LOW = Column("low", pl.Float64, "Lowest traded price.", unit=PRICE, above=0)
CLOSE = Column("close", pl.Float64, "Last traded price.", unit=PRICE, above=0)
VOLUME = Column("volume", pl.Float64, "Traded shares or base units.", unit=SHARES, at_least=0)
