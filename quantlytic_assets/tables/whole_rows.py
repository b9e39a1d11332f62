"""What people read from Python: whole rows of a dataset or a strategy, oldest first, and the names that there are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date

import polars as pl

from quantlytic_assets.schemas.clean import BARS, COVERAGE
from quantlytic_assets.schemas.features import ADJUSTED_BARS, INDICATORS
from quantlytic_assets.schemas.ml import PREDICTIONS
from quantlytic_assets.schemas.table import Table
from quantlytic_assets.schemas.trading import FILLS, ORDERS, SIGNALS
from quantlytic_assets.tables.select import Condition, Queries, equal, one_of, select, sessions, where

FEATURE_KEYS = ("symbol", "session", "interval", "open_time", "available_at")
FACTORS = ("split_factor", "dividend_factor")
_OF_STRATEGIES = (PREDICTIONS, SIGNALS, ORDERS)
# Prices of features.adjusted_bars, as of the connection's day, by what they are adjusted for.
_PRICES = {
    "splits": "split_open AS open, split_high AS high, split_low AS low, split_close AS close",
    "dividends": "split_open * dividend_factor AS open, split_high * dividend_factor AS high, "
    "split_low * dividend_factor AS low, adjusted_close AS close",
}


def bars(lake: Queries, dataset: str, *chosen: Condition | None) -> pl.DataFrame:
    """Bars as served, by time and symbol: all columns but the dataset's name."""
    names = _without(BARS, "dataset")
    return select(lake, BARS, names, equal("dataset", dataset), *chosen, order=("open_time", "symbol"))


def adjusted_bars(lake: Queries, dataset: str, adjusted_for: str, *chosen: Condition | None) -> pl.DataFrame:
    """Bars by time and symbol, adjusted for `splits` or for splits and `dividends` as of the connection's day."""
    clause, parameters = where([equal("dataset", dataset), *chosen])
    sql = (
        f"SELECT symbol, instrument, session, open_time, close_time, {_PRICES[adjusted_for]}, "
        "split_volume AS volume, split_factor, dividend_factor, repaired, as_of, available_at, flags "
        f"FROM {ADJUSTED_BARS.name}{clause} ORDER BY open_time, symbol"
    )
    return lake.query(sql, parameters)


def factored_bars(lake: Queries, dataset: str, *chosen: Condition | None) -> pl.DataFrame:
    """Bars by time and symbol as served, or repaired, with what adjusts them as of the connection's day."""
    clause, parameters = where([equal("dataset", dataset), *chosen])
    names = ", ".join(("symbol", "session", "open_time", "open", "high", "low", "close", "volume", *FACTORS))
    return lake.query(f"SELECT {names} FROM {ADJUSTED_BARS.name}{clause} ORDER BY open_time, symbol", parameters)


def features(lake: Queries, dataset: str, columns: Sequence[str], *chosen: Condition | None) -> pl.DataFrame:
    """FEATURE_KEYS and some columns of features.indicators, by time, symbol and interval."""
    order = ("open_time", "symbol", "interval")
    names = [*FEATURE_KEYS, *columns]
    return select(lake, INDICATORS, names, equal("dataset", dataset), *chosen, order=order)


def predictions(lake: Queries, strategy: str, *chosen: Condition | None) -> pl.DataFrame:
    """A strategy's predictions by time and symbol: all columns but the strategy's name."""
    names = _without(PREDICTIONS, "strategy")
    return select(lake, PREDICTIONS, names, equal("strategy", strategy), *chosen, order=("open_time", "symbol"))


def signals(lake: Queries, strategy: str, *chosen: Condition | None) -> pl.DataFrame:
    """A strategy's signals by time and symbol: all columns but the strategy's name."""
    names = _without(SIGNALS, "strategy")
    return select(lake, SIGNALS, names, equal("strategy", strategy), *chosen, order=("open_time", "symbol"))


def fills(lake: Queries, strategy: str, *chosen: Condition | None) -> pl.DataFrame:
    """A strategy's fills by time and symbol: all columns but the strategy's name."""
    names = _without(FILLS, "strategy")
    return select(lake, FILLS, names, equal("strategy", strategy), *chosen, order=("fill_time", "symbol"))


def between(
    start: date | None, before: date | None, symbols: Collection[str] | None
) -> tuple[Condition | None, Condition | None]:
    """The rows of some symbols in the sessions [start, before)."""
    return sessions(start, before), one_of("symbol", symbols)


def of_interval(interval: str | None) -> Condition | None:
    """The rows at an interval, all for None."""
    return None if interval is None else equal("interval", interval)


def datasets(lake: Queries) -> list[str]:
    """The datasets that something is known of."""
    return _names(lake, COVERAGE, "dataset")


def symbols(lake: Queries, dataset: str) -> list[str]:
    """The symbols that something is known of in a dataset."""
    return _names(lake, COVERAGE, "symbol", equal("dataset", dataset))


def intervals(lake: Queries, dataset: str) -> list[str]:
    """The intervals that a dataset has features at."""
    return _names(lake, INDICATORS, "interval", equal("dataset", dataset))


def strategies(lake: Queries) -> list[str]:
    """The strategies with predictions, signals or orders."""
    return sorted({name for table in _OF_STRATEGIES for name in _names(lake, table, "strategy")})


def traded_symbols(lake: Queries, strategy: str) -> list[str]:
    """The symbols that a strategy has predicted, has signals of, or has ordered."""
    mine = equal("strategy", strategy)
    return sorted({name for table in _OF_STRATEGIES for name in _names(lake, table, "symbol", mine)})


def feature_columns(lake: Queries) -> list[str]:
    """The features that features.indicators has columns for; none before it was made."""
    schema, table = INDICATORS.name.split(".")
    there = lake.query(
        "SELECT column_name FROM duckdb_columns() WHERE database_name = 'lake' AND schema_name = ? AND table_name = ? "
        "ORDER BY column_index",
        [schema, table],
    )
    known = there["column_name"].to_list() if there.columns else []
    return [name for name in known if name not in ("dataset", *FEATURE_KEYS)]


def _names(lake: Queries, table: Table, column: str, *chosen: Condition | None) -> list[str]:
    found = select(lake, table, [column], *chosen, order=(column,), distinct=True)
    return found[column].to_list()


def _without(table: Table, *names: str) -> list[str]:
    return [name for name in table.polars.names() if name not in names]
