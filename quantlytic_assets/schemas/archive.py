"""The rows of the archive's objects: bars as vendors, feeds and files gave them."""

from __future__ import annotations

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.schemas.columns import PRICE, SHARES
from quantlytic_assets.schemas.table import Column, Rule, Table

# What a vendor may say is judged when it is cleaned, not at the door: a row may lack any price.
BARS = Table(
    "archive.bars",
    writer="raw_bars",
    description="One bar as a vendor, feed or file gave it, and where on the bus and in the archive it stands.",
    columns=(
        Column("symbol", pl.String, "Instrument, as the universe spells it."),
        Column("open_time", TIME, "Start of the bar, UTC."),
        Column("close_time", TIME, "End of the bar, UTC, not part of it."),
        Column("open", pl.Float64, "First traded price.", nullable=True, unit=PRICE),
        Column("high", pl.Float64, "Highest traded price.", nullable=True, unit=PRICE),
        Column("low", pl.Float64, "Lowest traded price.", nullable=True, unit=PRICE),
        Column("close", pl.Float64, "Last traded price.", nullable=True, unit=PRICE),
        Column("volume", pl.Float64, "Traded shares or base units.", nullable=True, unit=SHARES),
        Column(
            "vwap", pl.Float64, "Volume-weighted average price, where the vendor gives it.", nullable=True, unit=PRICE
        ),
        Column("trade_count", pl.Int64, "Number of trades, where the vendor gives it.", nullable=True),
        Column("vendor", pl.String, "Who served the bar."),
        Column("fetched_at", TIME, "When it was fetched, UTC."),
        Column("adjustment", pl.String, "What the prices are adjusted for: none or split."),
        Column("bus_offset", pl.Int64, "Offset of the record in its partition of the dataset's topic."),
        Column("source_object", pl.String, "Archive object in which the row was landed."),
        Column("source_row", pl.Int64, "Row of that object.", at_least=0),
    ),
    key=("source_object", "source_row"),
    rules=(Rule("times_ordered", "open_time is before close_time", "open_time < close_time"),),
)
