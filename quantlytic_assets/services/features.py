"""Computing the features of a range of bars in dbt's process, where the environment says which ones.

dbt's model `indicators` makes the table `bars_to_compute` and calls this; see dbt_project/macros/indicator_inputs.sql.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from quantlytic_assets.features.batch import GROUP, compute
from quantlytic_assets.storage.literals import with_literals
from quantlytic_assets.tables.features import closes_by_availability, feature_counts
from quantlytic_assets.tables.whole_rows import feature_columns
from quantlytic_assets.universe.feature_choice import declared, others
from quantlytic_assets.universe.plugins import registry_with

if TYPE_CHECKING:
    import duckdb

    from quantlytic_assets.features.spec import Feature
    from quantlytic_assets.tables.select import Queries
    from quantlytic_assets.universe.models import Dataset

# Bars computed at a time: bounds the memory of a full rebuild, whatever the number of symbols.
_CHUNK = 300_000
# To how many bars a row counts its history. Fewer than that are all there are.
HISTORY_BARS = 200
# A close of another symbol that is older says nothing any more.
_OLDEST = timedelta(days=30)
_KEYS = ("dataset", "symbol", "session", "interval", "open_time", "available_at", "close")
_VARIABLE = "QUANTLYTIC_RUN_FEATURES"


def run_environment(declarations: Sequence[str], plugins: Sequence[str]) -> dict[str, str]:
    """What tells dbt which features a run computes, how many bars around its range they read, and their columns."""
    features = declared(declarations, plugins)
    said = {
        "declarations": declarations,
        "plugins": plugins,
        "columns": [
            {"name": name, "description": feature.description} for feature in features for name in feature.columns
        ],
    }
    bars = str(warmup(features))
    return {_VARIABLE: json.dumps(said), "QUANTLYTIC_RUN_WARMUP": bars}


def declared_version(dataset: Dataset) -> str:
    """A short text that is another one when the dataset's features are others, or a plugin's text is."""
    plugins = [Path(one).read_bytes() if one.endswith(".py") else one.encode() for one in dataset.plugins]
    declared = json.dumps([*dataset.features, dataset.incomplete_bars]).encode()
    return sha256(b"\0".join([declared, *plugins])).hexdigest()[:12]


def warmup(features: Iterable[Feature]) -> int:
    """The bars before a bar that decide its features, and the bars after a changed one that follow it."""
    return max([HISTORY_BARS, *(feature.warmup for feature in features)])


def null_shares(lake: Queries, dataset: str, columns: Sequence[str]) -> dict[str, float]:
    """The share of a dataset's usable bars at which each column is null; empty where nothing is computed yet."""
    there = set(feature_columns(lake))
    known = [column for column in columns if column in there]
    if not known:
        return {}
    counts = feature_counts(lake, dataset, known)
    rows = counts.pop("rows")
    return {column: 1 - count / rows for column, count in counts.items()} if rows else {}


def computed_frames(connection: duckdb.DuckDBPyConnection) -> Iterator[pl.DataFrame]:
    """The rows of features.indicators for the run's range, some symbols at a time."""
    said = json.loads(os.environ[_VARIABLE])
    registry = registry_with(tuple(said["plugins"]))
    features = declared(said["declarations"], said["plugins"])
    counts = connection.execute("SELECT symbol, count(*) FROM bars_to_compute GROUP BY symbol ORDER BY symbol")
    across = any(feature.spec.kind == "cross_section" for feature in features)
    for symbols in _chunks(counts.fetchall(), None if across else _CHUNK):
        chosen = with_literals("SELECT * FROM bars_to_compute WHERE symbol IN (SELECT unnest(?::VARCHAR[]))", [symbols])
        bars = with_others(_Session(connection), connection.execute(chosen).pl(), features)
        computed = compute(bars.with_columns(_history(bars)), features, registry)
        columns = [name for feature in features for name in feature.columns]
        yield computed.select(*_KEYS, *columns, "history_bars")


@dataclass(frozen=True)
class _Session:
    """dbt's connection to the lake, for the readers of tables."""

    connection: duckdb.DuckDBPyConnection

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """Rows of a SELECT."""
        return self.connection.execute(with_literals(sql, parameters)).pl()


def _chunks(counts: Iterable[tuple[str, int]], most: int | None) -> Iterator[list[str]]:
    """Lists of symbols with about `most` bars each, from (symbol, bars); one list of all for None."""
    symbols: list[str] = []
    bars = 0
    for symbol, count in counts:
        if symbols and most is not None and bars + count > most:
            yield symbols
            symbols, bars = [], 0
        symbols.append(symbol)
        bars += count
    if symbols:
        yield symbols


def _history(bars: pl.DataFrame) -> pl.Expr:
    """Usable bars of a symbol, interval and listing up to each one, counted to `HISTORY_BARS`."""
    usable = pl.col("close").is_not_null()
    position = usable.cast(pl.Int32).cum_sum().over(*GROUP, "listing", order_by="open_time")
    return pl.when(usable).then(position.clip(upper_bound=HISTORY_BARS)).cast(pl.Int32).alias("history_bars")


def with_others(lake: Queries, bars: pl.DataFrame, features: Sequence[Feature]) -> pl.DataFrame:
    """The bars with a column `close:NAME` for each other symbol: its last usable close that was available by then."""
    if not others(features) or bars.is_empty():
        return bars
    bars = bars.sort("available_at")
    first, last = bars["available_at"][0] - _OLDEST, bars["available_at"][-1]
    for dataset, symbol in others(features):
        name = f"{dataset}:{symbol}" if dataset else symbol
        closes = closes_by_availability(lake, dataset or bars["dataset"][0], symbol, first, last)
        bars = bars.join_asof(
            closes.rename({"close": f"close:{name}"}), on="available_at", strategy="backward", tolerance=_OLDEST
        )
    return bars
