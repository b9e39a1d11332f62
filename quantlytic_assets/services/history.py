"""What a strategy trades, as the engine reads it: usable bars, corporate actions, and what its rule reads beside."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.calendars.sessions import ROUND_THE_CLOCK
from quantlytic_assets.services.inputs import read_inputs
from quantlytic_assets.tables.actions import corporate_actions
from quantlytic_assets.tables.bars import session_hours
from quantlytic_assets.tables.features import usable_bars
from quantlytic_assets.trading.backtest.history import History
from quantlytic_assets.trading.engine.market import ACTIONS_SCHEMA, BARS_SCHEMA

if TYPE_CHECKING:
    from quantlytic_assets.tables.select import Queries
    from quantlytic_assets.universe.models import Dataset, Strategy

# Coins can be bought in parts, to a millionth here.
COIN_LOT = 1e-6


def read_history(
    lake: Queries,
    dataset: Dataset,
    strategy: Strategy,
    last: date | None = None,
    first: date | None = None,
) -> History | None:
    """The usable bars of the strategy's symbols in the sessions `first` … `last`, both included.

    With splits, dividends, renames and delistings, and what the rule reads beside features. None where there is no bar.
    """
    before = last + timedelta(days=1) if last else None
    bars = usable_bars(
        lake,
        dataset.name,
        strategy.interval,
        [*BARS_SCHEMA.names(), "interval", "listing", "shares"],
        incomplete=dataset.incomplete_bars == "keep",
        since=first,
        before=before,
        symbols=strategy.symbols,
    )
    if bars.is_empty():
        return None
    bars = bars.with_columns(pl.col("listing").fill_null(pl.col("symbol")), pl.col("shares").fill_null(1.0))
    hours = session_hours(lake, dataset.name, before)
    return History(
        bars,
        _actions(lake, dataset, strategy, bars["session"].max()),
        dict(hours.select("session", "close_time").iter_rows()),
        COIN_LOT if dataset.calendar == ROUND_THE_CLOCK else 1.0,
        read_inputs(lake, strategy, first, before),
    )


def _actions(lake: Queries, dataset: Dataset, strategy: Strategy, last: date) -> pl.DataFrame:
    """The engine's ACTIONS_SCHEMA: what happened to the strategy's symbols, and when one left the dataset."""
    told = corporate_actions(lake, dataset.name).select(
        "symbol", "session", "kind", "value", pl.col("new_symbol").alias("into")
    )
    known = pl.col("symbol").is_in(strategy.symbols)
    # What a company is called that is not traded here is of no use: the position keeps its last close.
    known &= (pl.col("kind") != "rename") | (
        pl.col("into").is_in(strategy.symbols) & (pl.col("into") != pl.col("symbol"))
    )
    gone = [
        (one.symbol, one.last + timedelta(days=1), "delisting", None, None)
        for one in dataset.symbols
        if one.symbol in strategy.symbols and one.last is not None and one.last < last
    ]
    return pl.concat([told.filter(known).cast(ACTIONS_SCHEMA), pl.DataFrame(gone, ACTIONS_SCHEMA, orient="row")])
