"""Rows of the hot store as tables: what the API serves of datasets and of strategies. JSON, not in the lake."""

from __future__ import annotations

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.schemas.columns import PRICE, SHARES
from quantlytic_assets.schemas.table import Column, Table
from quantlytic_assets.schemas.vocabulary import SIGNALS as SIGNAL_WORDS

_TIME = Column("t", TIME, "Start of the bar, UTC.")

BARS = Table(
    "hot.bars",
    writer="published",
    description="Bars of a symbol and interval, a block a partition; beside them blocks of features by their names.",
    columns=(
        _TIME,
        Column("o", pl.Float64, "Open.", unit=PRICE),
        Column("h", pl.Float64, "High.", unit=PRICE),
        Column("l", pl.Float64, "Low.", unit=PRICE),
        Column("c", pl.Float64, "Close.", unit=PRICE),
        Column("v", pl.Float64, "Volume, left out where nobody knows it.", nullable=True, unit=SHARES),
        Column("n", pl.Int64, "Number of trades, left out where nobody knows it.", nullable=True),
        Column("vw", pl.Float64, "Volume-weighted price, left out where nobody knows it.", nullable=True, unit=PRICE),
    ),
)

SIGNALS = Table(
    "hot.signals",
    writer="published",
    description="Signals of a strategy and symbol, a block a partition; beside them predictions and the account.",
    columns=(
        _TIME,
        Column("signal", pl.String, "buy, sell or hold.", allowed=tuple(SIGNAL_WORDS)),
        Column("target", pl.Float64, "Target weight; left out where it keeps what is held.", nullable=True),
        Column("strength", pl.Float64, "How strongly."),
        Column("reason", pl.String, "Why, in words."),
        Column("available_at", TIME, "Earliest time, UTC, at which an order could follow."),
    ),
)
