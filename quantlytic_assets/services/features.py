"""Computing the features of a range of bars in dbt's process, where the environment says which ones.

dbt's models `closes` and those of the families make the view `bars_to_compute` and call this; see
dbt_project/macros/bars_to_compute.sql.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from quantlytic_assets.features.batch import GROUP, compute, in_order
from quantlytic_assets.features.columns import of_family
from quantlytic_assets.features.spec import column_names, column_scales
from quantlytic_assets.schemas.features import FAMILIES, FAMILY_KEYS
from quantlytic_assets.services.sums import Sums
from quantlytic_assets.storage.dbt_writes import SHARED_BARS, handed_on
from quantlytic_assets.storage.literals import with_literals
from quantlytic_assets.tables.features import closes_by_availability, feature_counts
from quantlytic_assets.tables.whole_rows import feature_columns
from quantlytic_assets.universe.feature_choice import declared, features_of, others
from quantlytic_assets.universe.plugins import registry_with

if TYPE_CHECKING:
    import duckdb

    from quantlytic_assets.features.spec import Feature, Scale
    from quantlytic_assets.storage.dbt_writes import Move
    from quantlytic_assets.tables.select import Queries
    from quantlytic_assets.universe.models import Dataset

# Bars computed at a time: bounds the memory of a full rebuild, whatever the number of symbols.
_CHUNK = 300_000
# To how many bars a row counts its history. Fewer than that are all there are.
HISTORY_BARS = 200
# A close of another symbol that is older says nothing any more.
_OLDEST = timedelta(days=30)
_KEYS = tuple(column.name for column in FAMILY_KEYS)
_VARIABLE = "QUANTLYTIC_RUN_FEATURES"
# The directory in which a run notes what computing a family has cost.
COSTS = "QUANTLYTIC_RUNCOSTS"


def run_environment(declarations: Sequence[str], plugins: Sequence[str]) -> dict[str, str]:
    """What tells dbt which features a run computes, how many bars around its range they read, and their columns."""
    features = declared(declarations, plugins)
    columns: dict[str, list[dict[str, str]]] = {}
    for feature in features:
        told = ({"name": name, "description": feature.description} for name in feature.columns)
        columns.setdefault(feature.spec.family, []).extend(told)
    said = {"declarations": declarations, "plugins": plugins, "columns": columns}
    return {_VARIABLE: json.dumps(said), "QUANTLYTIC_RUN_WARMUP": str(warmup(features))}


def declared_version(dataset: Dataset, family: str) -> str:
    """A short text that is another one when the dataset's features of a family are others, or a plugin's text is."""
    declared = json.dumps([*map(str, of_family(features_of(dataset), family)), dataset.incomplete_bars]).encode()
    plugins = dataset.plugins if family == "custom" else ()
    texts = [Path(one).read_bytes() if one.endswith(".py") else one.encode() for one in plugins]
    return sha256(b"\0".join([declared, *texts])).hexdigest()[:12]


def families(declarations: Sequence[str], plugins: Sequence[str]) -> tuple[str, ...]:
    """The families of these features, in the order of the tables."""
    found = {feature.spec.family for feature in declared(declarations, plugins)}
    return tuple(family for family in FAMILIES if family in found)


def warmup(features: Iterable[Feature]) -> int:
    """The bars before a bar that decide its features, and the bars after a changed one that follow it."""
    return max([HISTORY_BARS, *(feature.warmup for feature in features)])


def family_scales(dataset: Dataset, family: str) -> dict[str, Scale]:
    """The columns of a dataset's features of a family, and what each is proportional to."""
    return column_scales(of_family(features_of(dataset), family))


def run_costs(directory: Path, family: str) -> dict[str, float]:
    """What a run noted there of computing a family: milliseconds and bytes a column; empty where it noted nothing."""
    noted = directory / f"{family}.json"
    return json.loads(noted.read_text()) if noted.exists() else {}


def null_shares(lake: Queries, dataset: str, columns: Sequence[str]) -> dict[str, float]:
    """The share of a dataset's usable bars at which each column is null; empty where nothing is computed yet."""
    there = set(feature_columns(lake))
    known = [column for column in columns if column in there]
    if not known:
        return {}
    counts = feature_counts(lake, dataset, known)
    rows = counts.pop("rows")
    return {column: 1 - count / rows for column, count in counts.items()} if rows else {}


def close_frames(connection: duckdb.DuckDBPyConnection) -> Iterator[pl.DataFrame]:
    """The rows of features.closes for the run's range, some symbols at a time."""
    for bars in _bars_to_compute(connection):
        yield compute(bars.with_columns(_history(bars)), ()).select(*_KEYS, "close", "history_bars")


class FamilyRows:
    """The rows of a family's table for the run's range, some symbols at a time.

    `moves`: how sums after these rows are off, which is known of the rows that were taken.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, family: str):
        self.moves: list[Move] = []
        self._frames = _feature_frames(connection, family, self.moves)

    def __iter__(self) -> Iterator[pl.DataFrame]:
        return self._frames


def _feature_frames(connection: duckdb.DuckDBPyConnection, family: str, moves: list[Move]) -> Iterator[pl.DataFrame]:
    said = json.loads(os.environ[_VARIABLE])
    registry = registry_with(tuple(said["plugins"]))
    features = of_family(declared(said["declarations"], said["plugins"]), family)
    if not features:
        return
    across = any(feature.spec.kind == "cross_section" for feature in features)
    columns = column_names(features)
    sums = _sums(connection, family, features)
    seconds, size = 0.0, 0
    for bars in _bars_to_compute(connection, at_once=across):
        given = with_others(_Session(connection), bars, features)
        # What is not let go is there beside what is made of it: with many bars, as much as all the rest.
        del bars
        stored = sums.stored_before(given) if sums else None
        begun = time.perf_counter()
        computed = compute(given, features, registry, stored)
        seconds += time.perf_counter() - begun
        size += computed.select(columns).estimated_size()
        moves += sums.moves(computed) if sums else []
        rows = computed.select(*_KEYS, *columns)
        del given, computed
        yield rows
        del rows
    if COSTS in os.environ:
        costs = {"ms_per_column": round(seconds * 1000 / len(columns), 3), "bytes_per_column": size // len(columns)}
        (Path(os.environ[COSTS]) / f"{family}.json").write_text(json.dumps(costs))


def _sums(connection: duckdb.DuckDBPyConnection, family: str, features: Sequence[Feature]) -> Sums | None:
    """The sums since the first bar among a run's features of a family, if any."""
    of_all = [feature for feature in features if feature.spec.cumulative]
    if not of_all:
        return None
    dataset, end = os.environ["QUANTLYTIC_RUN_DATASET"], date.fromisoformat(os.environ["QUANTLYTIC_RUN_END"])
    return Sums(_Session(connection), FAMILIES[family], dataset, of_all, end)


def _bars_to_compute(connection: duckdb.DuckDBPyConnection, at_once: bool = False) -> Iterator[pl.DataFrame]:
    """The bars that the run computes and those that they need, in order, some symbols at a time or all of them.

    The first model of a turn reads them from the lake; what DuckDB hands over is copied, which takes as long as to
    compute from it. The others find them in files.
    """
    directory = handed_on() / "bars"
    if not directory.exists():
        half = directory.with_suffix(".half")
        half.mkdir(exist_ok=True)
        _hand_on(connection, half)
        half.rename(directory)
    files = sorted(directory.iterdir())
    if at_once and files:
        yield pl.concat([pl.read_ipc(path) for path in files], rechunk=True)
    else:
        yield from map(pl.read_ipc, files)


def _hand_on(connection: duckdb.DuckDBPyConnection, directory: Path) -> None:
    """Write the bars to files of about `_CHUNK` bars, all of a symbol's in one, by symbol, interval and time."""
    counts = connection.execute(
        f"SELECT symbol, count(*) FROM {SHARED_BARS} GROUP BY symbol ORDER BY symbol"
    ).fetchall()
    for number, symbols in enumerate(_chunks(counts, _CHUNK)):
        ends = [symbols[0], symbols[-1]]
        chosen = with_literals(f"SELECT * FROM {SHARED_BARS} WHERE symbol BETWEEN ? AND ?", ends)
        bars = in_order(connection.execute(chosen).pl())
        bars.write_ipc(directory / f"{number:06}.arrow", record_batch_size=len(bars))


@dataclass(frozen=True)
class _Session:
    """dbt's connection to the lake, for the readers of tables."""

    connection: duckdb.DuckDBPyConnection

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """Rows of a SELECT."""
        return self.connection.execute(with_literals(sql, parameters)).pl()


def _chunks(counts: Iterable[tuple[str, int]], most: int) -> Iterator[list[str]]:
    """Lists of symbols with about `most` bars each, from (symbol, bars)."""
    symbols: list[str] = []
    bars = 0
    for symbol, count in counts:
        if symbols and bars + count > most:
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
    """The bars with columns `close:NAME` and `age:NAME` for each other symbol that the features read.

    They are its last usable close that was available by then, and for how many minutes it had been.
    """
    if not others(features) or bars.is_empty():
        return bars
    times = bars["available_at"]
    first, last = times.min() - _OLDEST, times.max()
    columns = []
    for dataset, symbol in others(features):
        name = f"{dataset}:{symbol}" if dataset else symbol
        closes = closes_by_availability(lake, dataset or bars["dataset"][0], symbol, first, last)
        # Looked up, not joined: a join takes sorted bars, a copy of them all.
        before = closes["available_at"].search_sorted(times, side="right").cast(pl.Int64) - 1
        place = before.set(before < 0, None)
        age = times - closes["available_at"].gather(place)
        recent = age <= _OLDEST
        columns += [
            closes["close"].gather(place).set(~recent, None).alias(f"close:{name}"),
            (age.dt.total_seconds() / 60).set(~recent, None).alias(f"age:{name}"),
        ]
    return bars.with_columns(columns)
