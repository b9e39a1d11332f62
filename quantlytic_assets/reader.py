"""What an installation holds, for Python: read-only, offline, as polars or pandas frames.

`quantlytic_assets.open` gives it. All times are UTC. Sessions are dates; `start` and `end` are the first and the last
session wanted, both included.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import duckdb

from quantlytic_assets.resources import make_resources
from quantlytic_assets.settings import load_settings
from quantlytic_assets.storage.statements import NotReading, one_select

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

Frame: TypeAlias = "pl.DataFrame | pd.DataFrame"
Frames = Literal["polars", "pandas"]
Day = str | date

_BAR_COLUMNS = (
    "symbol, session, open_time, close_time, open, high, low, close, volume, vwap, trade_count, vendor, fetched_at, "
    "adjustment, available_at, flags"
)
_FEATURE_KEYS = ("symbol", "session", "interval", "open_time", "available_at")
# Prices of features.adjusted_bars by what they are adjusted for.
_ADJUSTED = {
    "splits": "split_open AS open, split_high AS high, split_low AS low, split_close AS close, split_volume AS volume",
    True: "split_open * dividend_factor AS open, split_high * dividend_factor AS high, "
    "split_low * dividend_factor AS low, adjusted_close AS close, split_volume AS volume",
}


class ReadError(LookupError):
    """What was asked for is not there; the message says what is."""

    def __str__(self) -> str:
        return str(self.args[0])


class Reader:
    """An open installation. Use it as a context manager, or `close` it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, place: str, frames: Frames):
        self._connection = connection
        self._place = place
        self._frames = frames

    def __repr__(self) -> str:
        return f"<Quantlytic at {self._place}>"

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the lake go; frames that were read stay."""
        self._connection.close()

    def bars(
        self,
        dataset: str,
        *,
        symbols: str | Iterable[str] | None = None,
        start: Day | None = None,
        end: Day | None = None,
        adjusted: bool | Literal["splits"] = False,
        as_of: Day | None = None,
        as_pandas: bool | None = None,
    ) -> Frame:
        """Bars of a dataset, oldest first: one row a symbol and open time.

        - `symbols`: one or several; default all.
        - `adjusted`: False for prices as served (the column `adjustment` says what they are adjusted for), `"splits"`
          for shares as of the day, True for dividends too (as CRSP and Yahoo adjust). Defects with a known repair are
          repaired where prices are adjusted.
        - `as_of`: what happened or became known after this day does not exist; default today.
        - `as_pandas`: default as the reader was opened.

        Raises `ReadError` for a dataset, symbol or day that is not there.
        """
        self._dataset(dataset)
        where, values = self._where(dataset, symbols, start, end)
        if adjusted is False:
            if as_of is not None:
                where, values = f"{where} AND session <= ?", [*values, _day("as_of", as_of)]
            query = f"SELECT {_BAR_COLUMNS} FROM clean.bars WHERE {where}"
        elif adjusted in _ADJUSTED:
            query = (
                f"SELECT symbol, instrument, session, open_time, close_time, {_ADJUSTED[adjusted]}, split_factor, "
                f"dividend_factor, repaired, as_of, available_at, flags FROM features.adjusted_bars WHERE {where}"
            )
        else:
            raise ReadError(f"adjusted={adjusted!r} is none of False, 'splits', True")
        return self._read(f"{query} ORDER BY open_time, symbol", values, as_pandas, as_of)

    def features(
        self,
        dataset: str,
        columns: Sequence[str] | None = None,
        *,
        symbols: str | Iterable[str] | None = None,
        start: Day | None = None,
        end: Day | None = None,
        interval: str | None = None,
        as_pandas: bool | None = None,
    ) -> Frame:
        """Features of a dataset, oldest first: one row a symbol, interval and open time.

        `columns` are names of features.indicators; default all. The columns symbol, session, interval, open_time and
        available_at are always there; a row can be used from its available_at on. `interval` chooses one of the
        dataset's feature intervals; default all of them. Raises `ReadError` for a dataset, symbol, column, interval or
        day that is not there.
        """
        self._dataset(dataset)
        self._made("features.indicators", f"quantlytic backfill {dataset}")
        known = [name for name in self._columns("features.indicators") if name not in ("dataset", *_FEATURE_KEYS)]
        chosen = known if columns is None else [*dict.fromkeys([columns] if isinstance(columns, str) else columns)]
        for name in chosen:
            _known("feature", name, known, "features.indicators")
        where, values = self._where(dataset, symbols, start, end)
        if interval is not None:
            intervals = self._values('SELECT DISTINCT "interval" FROM features.indicators WHERE dataset = ?', [dataset])
            _known("interval", interval, intervals, f"the features of {dataset}")
            where, values = f'{where} AND "interval" = ?', [*values, interval]
        names = ", ".join(f'"{name}"' for name in (*_FEATURE_KEYS, *chosen))
        query = f'SELECT {names} FROM features.indicators WHERE {where} ORDER BY open_time, symbol, "interval"'
        return self._read(query, values, as_pandas)

    def predictions(
        self,
        strategy: str,
        *,
        symbols: str | Iterable[str] | None = None,
        start: Day | None = None,
        end: Day | None = None,
        as_pandas: bool | None = None,
    ) -> Frame:
        """Predictions of a strategy's models, oldest first: score, prediction, model_version and trained_through.

        Each was made by a model that was trained before the session. Raises `ReadError` for a strategy without any.
        """
        return self._of_strategy("ml.predictions", strategy, "open_time, symbol", symbols, start, end, as_pandas)

    def trades(
        self,
        strategy: str,
        *,
        symbols: str | Iterable[str] | None = None,
        start: Day | None = None,
        end: Day | None = None,
        as_pandas: bool | None = None,
    ) -> Frame:
        """Fills of a strategy's paper account, oldest first, with the order that each fills.

        `session` is the one the order was decided in, `fill_session` the one it was filled in; commission and slippage
        are money. Raises `ReadError` for a strategy without orders.
        """
        return self._of_strategy("trading.fills", strategy, "fill_time, symbol", symbols, start, end, as_pandas)

    def sql(
        self, query: str, parameters: Sequence[Any] = (), *, as_of: Day | None = None, as_pandas: bool | None = None
    ) -> Frame:
        """Rows of a SELECT on the lake's tables (`quantlytic docs` describes them); `?` stands for a parameter.

        `as_of` is the day for which features.adjusted_bars adjusts; default today. Raises `ReadError` for what is not
        one SELECT, and DuckDB's errors.
        """
        try:
            one_select(self._connection, query)
        except NotReading as error:
            raise ReadError(str(error)) from None
        return self._read(query, parameters, as_pandas, as_of)

    def _of_strategy(
        self,
        table: str,
        strategy: str,
        order: str,
        symbols: str | Iterable[str] | None,
        start: Day | None,
        end: Day | None,
        as_pandas: bool | None,
    ) -> Frame:
        known = self._values("SELECT strategy FROM ml.predictions UNION SELECT strategy FROM trading.orders", [])
        _known("strategy", strategy, known, "the lake", f"`quantlytic backfill {strategy}` makes its rows")
        conditions, values = _sessions(start, end)
        where, values = " AND ".join(["strategy = ?", *conditions]), [strategy, *values]
        if symbols is not None:
            chosen = [symbols] if isinstance(symbols, str) else list(symbols)
            there = self._values(f"SELECT DISTINCT symbol FROM {table} WHERE strategy = ?", [strategy])
            for symbol in chosen:
                _known("symbol", symbol, there, f"{table} of {strategy}")
            where, values = f"{where} AND list_contains(?, symbol)", [*values, chosen]
        return self._read(f"SELECT * EXCLUDE (strategy) FROM {table} WHERE {where} ORDER BY {order}", values, as_pandas)

    def _where(
        self, dataset: str, symbols: str | Iterable[str] | None, start: Day | None, end: Day | None
    ) -> tuple[str, list[Any]]:
        conditions, values = _sessions(start, end)
        if symbols is not None:
            chosen = [symbols] if isinstance(symbols, str) else list(symbols)
            there = self._values("SELECT DISTINCT symbol FROM clean.coverage WHERE dataset = ?", [dataset])
            for symbol in chosen:
                _known("symbol", symbol, there, dataset)
            conditions, values = [*conditions, "list_contains(?, symbol)"], [*values, chosen]
        return " AND ".join(["dataset = ?", *conditions]), [dataset, *values]

    def _dataset(self, name: str) -> None:
        known = self._values("SELECT DISTINCT dataset FROM clean.coverage", [])
        _known("dataset", name, known, "the lake", f"one of the universe is filled by `quantlytic backfill {name}`")

    def _made(self, table: str, command: str) -> None:
        if not self._columns(table):
            raise ReadError(f"{table} was not made yet: run `{command}`")

    def _columns(self, table: str) -> list[str]:
        return self._values(
            "SELECT column_name FROM duckdb_columns() WHERE database_name = 'lake' AND schema_name = ? "
            "AND table_name = ? ORDER BY column_index",
            table.split("."),
            ordered=True,
        )

    def _values(self, query: str, values: Sequence[Any], ordered: bool = False) -> list[str]:
        found = [value for (value,) in self._connection.execute(query, list(values)).fetchall()]
        return found if ordered else sorted(found)

    def _read(self, query: str, values: Sequence[Any], as_pandas: bool | None, as_of: Day | None = None) -> Frame:
        if as_of is None:
            self._connection.execute("RESET VARIABLE as_of")
        else:
            self._connection.execute(f"SET VARIABLE as_of = DATE '{_day('as_of', as_of).isoformat()}'")
        found = self._connection.execute(query, list(values))
        if self._frames == "pandas" if as_pandas is None else as_pandas:
            return found.df()
        return found.pl()


def open_reader(home: str | Path | None, frames: Frames) -> Reader:
    """See `quantlytic_assets.open`."""
    if frames not in ("polars", "pandas"):
        raise ReadError(f"frames={frames!r} is none of 'polars', 'pandas'")
    settings = load_settings()
    if home is not None:
        settings = settings.model_copy(update={"home": Path(home)})
    embedded = settings.profile == "embedded"
    if embedded and not (settings.data / "lake" / "catalog.sqlite").exists():
        raise ReadError(
            f"there is no installation in {settings.data}: `quantlytic demo` makes one, home= or QUANTLYTIC_HOME names "
            "another place"
        )
    return Reader(make_resources(settings).lake.reader(), str(settings.data) if embedded else settings.s3_root, frames)


def _sessions(start: Day | None, end: Day | None) -> tuple[list[str], list[Any]]:
    conditions, values = [], []
    if start is not None:
        conditions.append("session >= ?")
        values.append(_day("start", start))
    if end is not None:
        conditions.append("session <= ?")
        values.append(_day("end", end))
    if start is not None and end is not None and values[0] > values[1]:
        raise ReadError(f"start {values[0]} is after end {values[1]}")
    return conditions, values


def _day(name: str, value: Day) -> date:
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ReadError(f"{name}={value!r} is no day: give a date, or text such as '2014-06-09'") from None


def _known(kind: str, name: str, known: Sequence[str], where: str, hint: str = "") -> None:
    """Raise `ReadError` for a name that is not among the known ones, with the nearest of them."""
    if name in known:
        return
    near = get_close_matches(str(name), known, n=1, cutoff=0.6)
    likely = f": did you mean {near[0]!r}?" if near else "."
    shown = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
    raise ReadError(f"no {kind} {name!r} in {where}{likely} There are: {shown or 'none'}{f'; {hint}' if hint else ''}")
