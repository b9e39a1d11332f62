"""What an installation holds, for Python: read-only, offline, as polars or pandas frames.

`quantlytic_assets.open` gives it. All times are UTC. Sessions are dates; `start` and `end` are the first and the last
session wanted, both included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import duckdb

from quantlytic_assets.resources import make_resources
from quantlytic_assets.settings import load_settings
from quantlytic_assets.storage.statements import NotReading, one_select
from quantlytic_assets.tables import whole_rows

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from quantlytic_assets.tables.select import Condition

Frame: TypeAlias = "pl.DataFrame | pd.DataFrame"
Frames = Literal["polars", "pandas"]
Day = str | date


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
        chosen = self._chosen(symbols, start, end, lambda: whole_rows.symbols(self, dataset), dataset)
        day = None if as_of is None else _day("as_of", as_of)
        if adjusted is False:
            known = None if day is None else whole_rows.between(None, day + timedelta(days=1), None)[0]
            return self._framed(whole_rows.bars(self, dataset, *chosen, known), as_pandas)
        if adjusted not in (True, "splits"):
            raise ReadError(f"adjusted={adjusted!r} is none of False, 'splits', True")
        self._set_day(day)
        adjusted_for = "dividends" if adjusted is True else "splits"
        return self._framed(whole_rows.adjusted_bars(self, dataset, adjusted_for, *chosen), as_pandas)

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
        known = whole_rows.feature_columns(self)
        if not known:
            raise ReadError(f"there are no features yet: run `quantlytic backfill {dataset}`")
        names = known if columns is None else [*dict.fromkeys([columns] if isinstance(columns, str) else columns)]
        for name in names:
            _known("feature", name, known, "features.indicators")
        if interval is not None:
            _known("interval", interval, whole_rows.intervals(self, dataset), f"the features of {dataset}")
        chosen = self._chosen(symbols, start, end, lambda: whole_rows.symbols(self, dataset), dataset)
        found = whole_rows.features(self, dataset, names, *chosen, whole_rows.of_interval(interval))
        return self._framed(found, as_pandas)

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
        return self._framed(
            whole_rows.predictions(self, strategy, *self._of_strategy(strategy, symbols, start, end)), as_pandas
        )

    def signals(
        self,
        strategy: str,
        *,
        symbols: str | Iterable[str] | None = None,
        start: Day | None = None,
        end: Day | None = None,
        as_pandas: bool | None = None,
    ) -> Frame:
        """Signals of a strategy's rule, oldest first: signal (buy, sell or hold), strength and reason.

        `available_at` is when each could be acted on. Raises `ReadError` for a strategy without any row.
        """
        return self._framed(
            whole_rows.signals(self, strategy, *self._of_strategy(strategy, symbols, start, end)), as_pandas
        )

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
        return self._framed(
            whole_rows.fills(self, strategy, *self._of_strategy(strategy, symbols, start, end)), as_pandas
        )

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
        self._set_day(None if as_of is None else _day("as_of", as_of))
        return self._framed(self.query(query, parameters), as_pandas)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pl.DataFrame:
        """See `tables.select.Queries`."""
        return self._connection.execute(sql, list(parameters)).pl()

    def _of_strategy(
        self, strategy: str, symbols: str | Iterable[str] | None, start: Day | None, end: Day | None
    ) -> tuple[Condition | None, Condition | None]:
        hint = f"`quantlytic backfill {strategy}` makes the rows of one that the universe declares"
        _known("strategy", strategy, whole_rows.strategies(self), "the lake", hint)
        return self._chosen(symbols, start, end, lambda: whole_rows.traded_symbols(self, strategy), strategy)

    def _chosen(
        self,
        symbols: str | Iterable[str] | None,
        start: Day | None,
        end: Day | None,
        there: Callable[[], list[str]],
        where: str,
    ) -> tuple[Condition | None, Condition | None]:
        first = None if start is None else _day("start", start)
        last = None if end is None else _day("end", end)
        if first is not None and last is not None and first > last:
            raise ReadError(f"start {first} is after end {last}")
        wanted = None
        if symbols is not None:
            wanted = [symbols] if isinstance(symbols, str) else list(symbols)
            known = there() if wanted else []
            for symbol in wanted:
                _known("symbol", symbol, known, where)
        return whole_rows.between(first, None if last is None else last + timedelta(days=1), wanted)

    def _dataset(self, name: str) -> None:
        hint = f"`quantlytic backfill {name}` fills one that the universe declares"
        _known("dataset", name, whole_rows.datasets(self), "the lake", hint)

    def _set_day(self, day: date | None) -> None:
        """The day that features.adjusted_bars is for."""
        said = "RESET VARIABLE as_of" if day is None else f"SET VARIABLE as_of = DATE '{day.isoformat()}'"
        self._connection.execute(said)

    def _framed(self, found: pl.DataFrame, as_pandas: bool | None) -> Frame:
        if self._frames == "pandas" if as_pandas is None else as_pandas:
            return found.to_pandas()
        return found


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
