"""Bars adjusted as of the day of publication, put into the hot store where adjusting makes a difference.

`bars/<interval>/split` has prices in shares as of the day, `bars/<interval>/dividend` is adjusted for dividends alone,
`bars/<interval>/all` for both. All have repairs of known defects at the dataset's own interval. A block that would be
the same as without adjustment is not there.

The fact `("names", dataset)` says which company a ticker meant when, as `market_data.actions.tickers` reads it.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING

import orjson
import polars as pl

from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.market_data.actions.adjustment import traded_factors
from quantlytic_assets.market_data.actions.listings import listings
from quantlytic_assets.market_data.actions.tickers import Stretch
from quantlytic_assets.market_data.quality.retention import first_hot
from quantlytic_assets.services.published_bars import BAR, KEYS, MORE, bar_blocks, with_day
from quantlytic_assets.serving.encoding import json_rows
from quantlytic_assets.serving.rows import micros
from quantlytic_assets.serving.updates import Series, Updated, put_blocks
from quantlytic_assets.tables.actions import corporate_actions
from quantlytic_assets.tables.bars import clean_bars, repaired_symbols
from quantlytic_assets.tables.features import usable_bars
from quantlytic_assets.tables.whole_rows import FACTORS, between, factored_bars

if TYPE_CHECKING:
    from quantlytic_assets.serving.hot_store import HotStore
    from quantlytic_assets.tables.select import Queries
    from quantlytic_assets.universe.models import Dataset

_PRICES = ("open", "high", "low", "close")
# What each of these kinds is adjusted by.
_FACTORS = {"split": FACTORS[:1], "dividend": FACTORS[1:], "all": FACTORS}
# Part of each mark: with other kinds than before all is published anew.
_KINDS = ",".join(_FACTORS)


def publish_adjusted(
    lake: Queries, hot: HotStore, dataset: Dataset, since: date, before: date, now: datetime
) -> Updated:
    """Publish the adjusted bars of the sessions [since, before), of symbols with other actions than last time all."""
    today = now.date()
    known = corporate_actions(lake, dataset.name).filter(pl.col("session") <= today, pl.col("known_on") <= today)
    rest_on = _marks(known)
    with hot.write() as store:
        store.put_fact(orjson.dumps(_names(known, dataset)), "names", dataset.name)
    with hot.read() as store:
        before_that: dict[str, str] = orjson.loads(store.fact("adjusted", dataset.name) or b"{}")
    changed = {one for one in {*rest_on, *before_that} if rest_on.get(one) != before_that.get(one)}
    others = {*rest_on, *repaired_symbols(lake, dataset.name)} - changed
    done = Updated()
    for symbols, first, last in ((others, since, before), (changed, first_hot(dataset, today), None)):
        if not symbols:
            continue
        part = _publish(lake, hot, dataset, sorted(symbols), first, last, known, now)
        if part is None:
            return done
        done += part
    # Last: what could not be done is done the next time.
    with hot.write() as store:
        store.put_fact(orjson.dumps(rest_on), "adjusted", dataset.name)
    return done


def _names(actions: pl.DataFrame, dataset: Dataset) -> list[dict[str, object]]:
    """The stretches of time in which each renamed ticker meant one company, from the first session's open on."""
    found = listings(actions.filter(pl.col("kind") == "rename"))
    return [
        asdict(Stretch(symbol, since, instrument, _opens(dataset, since)))
        for symbol, since, instrument in found.iter_rows()
    ]


def _opens(dataset: Dataset, since: date) -> int | None:
    """The open of the first session from a day on, microseconds since 1970; None for the beginning of all."""
    if since == date.min:
        return None
    # Longer than exchanges ever closed.
    sessions = session_table(dataset.calendar, since, since + timedelta(days=60))
    return micros(sessions["open_time"][0]) if len(sessions) else micros(since.isoformat())


def _marks(actions: pl.DataFrame) -> dict[str, str]:
    """What tells the actions of each symbol, and of companies that were renamed to or from it, from others."""
    said = actions.sort("symbol", "session", "kind").select("symbol", "session", "kind", "value", "new_symbol")
    each = said.with_columns(json_rows(said))
    # What a company did under one name counts for bars under another one.
    renamed = each.filter(pl.col("kind") == "rename")
    every = sha256("".join(renamed["row"]).encode()).hexdigest()[:8] if len(renamed) else ""
    mine = each.group_by("symbol", maintain_order=True).agg(pl.col("row").str.join(""))
    return {symbol: sha256(f"{_KINDS}{text}{every}".encode()).hexdigest()[:12] for symbol, text in mine.iter_rows()}


def _publish(
    lake: Queries,
    hot: HotStore,
    dataset: Dataset,
    symbols: list[str],
    since: date,
    before: date | None,
    actions: pl.DataFrame,
    now: datetime,
) -> Updated | None:
    """None where the lake has no adjusted bars, before dbt first ran."""
    done = Updated()
    factored = factored_bars(lake, dataset.name, *between(since, before, symbols))
    if not factored.columns:
        return None
    columns = ["symbol", "session", "open_time", *BAR, *MORE]
    served = clean_bars(lake, dataset.name, columns, since=since, before=before, symbols=symbols)
    average = served.select("symbol", "open_time", *MORE)
    done += _put(hot, dataset, dataset.interval, served, factored.join(average, on=["symbol", "open_time"]), now)
    dividends = factored.select("symbol", "session", "dividend_factor").unique(["symbol", "session"])
    for interval in dataset.feature_intervals:
        if interval == dataset.interval:
            continue
        traded = usable_bars(
            lake, dataset.name, interval, ["symbol", "session", "open_time", *BAR],
            incomplete=True, since=since, before=before, symbols=symbols,
        )  # fmt: skip
        split = traded_factors(traded, actions, now.date()).join(dividends, on=["symbol", "session"], how="left")
        done += _put(hot, dataset, interval, traded, split.with_columns(pl.col("dividend_factor").fill_null(1.0)), now)
    return done


def _put(
    hot: HotStore, dataset: Dataset, interval: str, plain: pl.DataFrame, factored: pl.DataFrame, now: datetime
) -> Updated:
    """Put each adjustment in place where its blocks are others than those of `plain` bars."""
    base = bar_blocks(with_day(plain, dataset))
    places = set(base.select(*KEYS).iter_rows())
    prices = [name for name in (*_PRICES, "vwap") if name in factored.columns]
    done = Updated()
    for adjustment, factors in _FACTORS.items():
        bars = factored
        for factor in factors:
            bars = bars.with_columns(pl.col(name) * pl.col(factor) for name in prices)
        if "split_factor" in factors:
            bars = bars.with_columns(pl.col("volume") / pl.col("split_factor"))
        made = bar_blocks(with_day(bars, dataset))
        other = made.join(base.select(*KEYS, "body"), on=[*KEYS, "body"], how="anti", maintain_order="left")
        done += put_blocks(hot, Series(dataset.name, f"bars/{interval}/{adjustment}"), other, places, now)
    return done
