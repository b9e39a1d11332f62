"""What a live path without a state begins with: the newest bars of the lake, and what features say of listings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.live.bars import Bar
from quantlytic_assets.live.lines import Closes, Listing
from quantlytic_assets.market_data.stream.messages import micros
from quantlytic_assets.schemas import clean, features
from quantlytic_assets.schemas.vocabulary import DEFECTS
from quantlytic_assets.tables.bars import clean_bars
from quantlytic_assets.tables.features import bars_through, closes_by_availability, indicators
from quantlytic_assets.tables.select import equal, scalar
from quantlytic_assets.tables.whole_rows import feature_columns
from quantlytic_assets.universe.feature_choice import features_of, others

if TYPE_CHECKING:
    from quantlytic_assets.storage.lake import Lake
    from quantlytic_assets.tables.select import Queries
    from quantlytic_assets.universe.models import Dataset

_SHORTEST_SESSION = timedelta(hours=6, minutes=30)
_DAY = timedelta(days=1)
_OLDEST_CLOSE = timedelta(days=40)


@dataclass
class History:
    """Known bars of a dataset, oldest first.

    natives; lines by interval, usable ones; sums by interval and symbol (`Lines.stored`); listings by symbol. floor: by
    symbol, the open time of the newest bar that the lake has: what is older is the graph's business.
    """

    natives: list[Bar] = field(default_factory=list)
    lines: dict[str, list[Bar]] = field(default_factory=dict)
    sums: dict[str, dict[str, tuple[int, tuple[float, ...]]]] = field(default_factory=dict)
    listings: dict[str, Listing] = field(default_factory=dict)
    floor: dict[str, int] = field(default_factory=dict)


def read_history(lake: Lake, dataset: Dataset, bars: Mapping[str, int], sums: Mapping[str, Sequence[str]],
                 natives: int) -> History:  # fmt: skip
    """The newest bars of a dataset in the lake.

    bars: how many of each interval's symbols; sums: the columns of each interval that are sums since the first bar;
    natives: how many native bars of a symbol.
    """
    found = History()
    last = scalar(lake, clean.BARS, "max(session)", equal("dataset", dataset.name))
    if last is None:
        return found
    found.natives = _natives(lake, dataset, last, natives)
    for bar in found.natives:
        found.floor[bar.symbol] = max(bar.open_time, found.floor.get(bar.symbol, -1))
    for interval, count in bars.items() if lake.has_table(features.BARS.name) else ():
        rows = _usable(lake, dataset, interval, last, count)
        if rows.is_empty():
            continue
        for symbol, listing, shares in rows.group_by("symbol").agg(pl.last("listing", "shares")).iter_rows():
            found.listings[symbol] = Listing(listing or symbol, 1.0 if shares is None else shares)
        newest = rows.filter(pl.col("listing").eq_missing(pl.col("listing").last().over("symbol")))
        found.lines[interval] = [_bar(row) for row in newest.iter_rows(named=True)]
        if sums.get(interval):
            found.sums[interval] = _sums(lake, dataset, interval, newest, sums[interval])
    return found


def _natives(lake: Queries, dataset: Dataset, last: date, count: int) -> list[Bar]:
    since = last - _days(dataset.interval, count)
    names = [
        "symbol", "session", "open_time", "close_time", "available_at", "open", "high", "low", "close", "volume",
        "vwap", "trade_count", "flags",
    ]  # fmt: skip
    rows = clean_bars(lake, dataset.name, names, since=since)
    wrong = pl.any_horizontal(pl.col("flags").list.contains(one) for one in DEFECTS)
    newest = rows.filter(~wrong.fill_null(False)).sort("symbol", "open_time").group_by("symbol").tail(count)
    return [_bar(row) for row in newest.iter_rows(named=True)]


def _usable(lake: Queries, dataset: Dataset, interval: str, last: date, count: int) -> pl.DataFrame:
    since = last - _days(interval, count)
    end = datetime.combine(last + 2 * _DAY, datetime.min.time(), UTC)
    rows = bars_through(lake, dataset.name, interval, end, last, count=count, since=since)
    usable = pl.col("close").is_not_null()
    if dataset.incomplete_bars != "keep":
        usable &= pl.col("complete")
    return rows.filter(usable).sort("symbol", "open_time").group_by("symbol", maintain_order=True).tail(count)


def _days(interval: str, count: int) -> timedelta:
    """Days that hold so many bars; sessions have weekends and holidays between them, and bars may be missing."""
    sessions = count if interval == "1d" else count * INTERVALS[interval] / _SHORTEST_SESSION
    return timedelta(days=int(sessions * 1.8) + 10)


def _bar(row: Mapping[str, Any]) -> Bar:
    times = [micros(row[name]) for name in ("open_time", "close_time", "available_at")]
    prices = [float(row[name]) for name in ("open", "high", "low", "close", "volume")]
    more = (row.get("vwap"), row.get("trade_count"), bool(row.get("complete", True)), True)
    return Bar._make((row["symbol"], row["session"], *times, *prices, *more))


def _sums(
    lake: Queries, dataset: Dataset, interval: str, bars: pl.DataFrame, columns: Sequence[str]
) -> dict[str, tuple[int, tuple[float, ...]]]:
    """By symbol, the first of these bars at which each sum is stored, and the sums."""
    if not {*columns} <= {*feature_columns(lake)}:
        return {}
    names = ["symbol", "open_time", *columns]
    stored = indicators(lake, dataset.name, interval, names, since=bars["session"].min())
    there = stored.drop_nulls().join(bars, on=["symbol", "open_time"], how="semi").sort("open_time")
    first = there.group_by("symbol").first().select("symbol", pl.col("open_time").dt.epoch("us"), *columns)
    return {symbol: (time, tuple(values)) for symbol, time, *values in first.iter_rows()}


def other_closes(lake: Lake, dataset: Dataset, since: datetime) -> tuple[dict[str, Closes], dict[str, str]]:
    """The closes of the other symbols that features read, by name, and those names of this dataset's own symbols.

    since: the time of the first bar for which they are wanted.
    """
    now = datetime.now(UTC)
    closes: dict[str, Closes] = {}
    own: dict[str, str] = {}
    for other, symbol in others(features_of(dataset)):
        name = f"{other}:{symbol}" if other else symbol
        if other in (None, dataset.name):
            own[symbol] = name
        if not lake.has_table(features.BARS.name):
            closes[name] = Closes()
            continue
        rows = closes_by_availability(lake, other or dataset.name, symbol, min(since, now) - _OLDEST_CLOSE, now)
        closes[name] = Closes(rows["available_at"].dt.epoch("us").to_list(), rows["close"].to_list())
    return closes, own
