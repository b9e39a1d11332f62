"""The lake's rows of datasets put into the hot store, ready to be served; those of strategies: `published_strategies`.

A block holds a partition's rows of a symbol: a session, or the month of a dataset that is partitioned by months. Kinds
of series: `bars/<interval>`, at the dataset's own interval as served, at others as traded; below them `/split`,
`/dividend` and `/all`, adjusted for splits, dividends or both as of the day of publication, where that makes a
difference; and `features/<interval>`.

Facts, JSON: `("coverage", dataset, symbol, day)` what a block should hold and what it lacks, `("figures", dataset,
symbol, day)` what a session of intraday bars came to, `("dataset", name)` what there is of a dataset, `("adjusted",
dataset)` what its adjusted bars rest on, `("names", dataset)` which company a ticker meant when.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson
import polars as pl

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.calendars.partitions import known_keys, windows
from quantlytic_assets.features.spec import column_names
from quantlytic_assets.market_data.quality.retention import first_hot
from quantlytic_assets.market_data.session_figures import session_figures
from quantlytic_assets.services.clean import partitions_at_once
from quantlytic_assets.services.published_adjusted import publish_adjusted
from quantlytic_assets.services.published_bars import BAR, KEYS, MORE, bar_blocks, with_day
from quantlytic_assets.serving.encoding import blocks, json_rows
from quantlytic_assets.serving.rows import iso, micros
from quantlytic_assets.serving.updates import Place, Series, Updated, put_blocks
from quantlytic_assets.tables.bars import clean_bars
from quantlytic_assets.tables.coverage import coverage
from quantlytic_assets.tables.features import indicators, usable_bars
from quantlytic_assets.tables.whole_rows import feature_columns
from quantlytic_assets.universe.feature_choice import features_of

if TYPE_CHECKING:
    from quantlytic_assets.serving.hot_store import HotStore
    from quantlytic_assets.tables.select import Queries
    from quantlytic_assets.universe.models import Dataset

_COVERED = ["symbol", "session", "expected_bars", "present_bars", "missing_bars", "missing_ranges", "checked_at"]


@dataclass
class Published:
    """What a publication read and wrote: rows of the lake, and blocks, rows and revisions in the store.

    bars: how many bars of a dataset's own interval each partition has, by its first day.
    """

    read: int
    updated: Updated
    bars: dict[date, int] = field(default_factory=dict)


def publish_dataset(
    lake: Queries, hot: HotStore, dataset: Dataset, since: date, before: date, now: datetime | None = None
) -> Published:
    """Publish the sessions [since, before) of a dataset, whole partitions, as far back as it keeps them hot.

    All sessions where the dataset was never published. Where actions became known that change older adjusted bars,
    these are published anew too.
    """
    now = now or datetime.now(UTC)
    with hot.read() as store:
        whole = store.fact("dataset", dataset.name) is not None
    return _publish(lake, hot, dataset, since, before, now) if whole else publish_whole(lake, hot, dataset, now)


def publish_whole(lake: Queries, hot: HotStore, dataset: Dataset, now: datetime | None = None) -> Published:
    """Publish all that the lake has of a dataset and that it keeps hot. Partitions are read some at a time."""
    now = now or datetime.now(UTC)
    done = Published(0, Updated())
    for window in windows(dataset, known_keys(dataset, now), partitions_at_once(dataset)):
        part = _publish(lake, hot, dataset, window.first, window.last, now)
        done.read += part.read
        done.updated += part.updated
        done.bars |= part.bars
    # Only now: what was not published to its end is published again.
    _describe(hot, dataset, now)
    return done


def _publish(lake: Queries, hot: HotStore, dataset: Dataset, since: date, before: date, now: datetime) -> Published:
    kept = first_hot(dataset, now.date())
    publication = _Publication(lake, hot, dataset, max(since, kept), before, now)
    if publication.since < before:
        publication.bars()
        publication.features()
        publication.published.updated += publish_adjusted(lake, hot, dataset, publication.since, before, now)
    with hot.read() as store:
        known = store.fact("dataset", dataset.name) is not None
    if known:
        _describe(hot, dataset, now)
    if dataset.keep_hot is not None or dataset.keep is not None:
        _forget(hot, dataset, kept)
    return publication.published


class _Publication:
    """The publication of the sessions [since, before) of a dataset."""

    def __init__(self, lake: Queries, hot: HotStore, dataset: Dataset, since: date, before: date, now: datetime):
        self.lake = lake
        self.hot = hot
        self.dataset = dataset
        self.since = since
        self.before = before
        self.now = now
        self.published = Published(0, Updated())
        self.covered = with_day(coverage(lake, dataset.name, _COVERED, since=since, before=before), dataset)
        self.places: set[Place] = set(self.covered.select("symbol", "day").unique().iter_rows())

    def bars(self) -> None:
        """Bars at all intervals, adjusted ones, coverage and newest prices."""
        dataset = self.dataset
        columns = ["symbol", "session", "open_time", *BAR, *MORE]
        native = clean_bars(
            self.lake, dataset.name, [*columns, "close_time", "adjustment"], since=self.since, before=self.before
        )
        native = with_day(native, dataset)
        self._put(f"bars/{dataset.interval}", native, told=dataset.interval)
        self.published.bars = dict(native.group_by("day").len().iter_rows())
        self._put_coverage(native)
        if dataset.partition == "session":
            self._put_figures(native)
        self._put_latest(native)
        for interval in dataset.feature_intervals:
            if interval == dataset.interval:
                continue
            bars = usable_bars(
                self.lake, dataset.name, interval, ["symbol", "session", "open_time", *BAR],
                incomplete=True, since=self.since, before=self.before,
            )  # fmt: skip
            self._put(f"bars/{interval}", with_day(bars, dataset), told=interval)

    def features(self) -> None:
        """Features at all intervals."""
        there = set(feature_columns(self.lake))
        columns = [name for name in column_names(features_of(self.dataset)) if name in there]
        for interval in self.dataset.feature_intervals if columns else ():
            rows = indicators(
                self.lake, self.dataset.name, interval, ["symbol", "session", "open_time", *columns],
                since=self.since, before=self.before,
            )  # fmt: skip
            self.published.read += len(rows)
            made = blocks(with_day(rows, self.dataset), KEYS, "open_time", columns)
            self._written(Series(self.dataset.name, f"features/{interval}", live=True), made)

    def _put(self, kind: str, bars: pl.DataFrame, told: str) -> None:
        """Put bars in place, as they are."""
        self.published.read += len(bars)
        self._written(Series(self.dataset.name, kind, (self.dataset.name, told), live=True), bar_blocks(bars))

    def _written(self, series: Series, made: pl.DataFrame) -> None:
        self.published.updated += put_blocks(self.hot, series, made, self.places, self.now)

    def _put_coverage(self, native: pl.DataFrame) -> None:
        body = coverage_facts(self.covered, native, INTERVALS[self.dataset.interval])
        with self.hot.write() as store:
            for symbol, day, fact in body.iter_rows():
                store.put_fact(fact.encode(), "coverage", self.dataset.name, symbol, day.isoformat())

    def _put_figures(self, native: pl.DataFrame) -> None:
        """What each session came to."""
        named = native.select(
            "symbol", "session", pl.col("open_time").alias("t"), *(pl.col(a).alias(b) for a, b in BAR.items())
        )
        figures = session_figures(named)
        bodies = json_rows(figures.drop("symbol"))
        with self.hot.write() as store:
            for symbol, day, body in zip(figures["symbol"], figures["session"], bodies, strict=True):
                store.put_fact(body.encode(), "figures", self.dataset.name, symbol, day.isoformat())

    def _put_latest(self, native: pl.DataFrame) -> None:
        """The close of each symbol's newest bar, unless a newer price is there."""
        newest = native.sort("open_time").group_by("symbol").agg(pl.col("close_time", "close", "volume").last())
        said = newest.select(pl.col("close_time").alias("t"), pl.col("close").alias("p"), pl.col("volume").alias("s"))
        bodies = json_rows(said.with_columns(pl.lit("lake").alias("source")))
        with self.hot.write() as store:
            for symbol, time, body in zip(newest["symbol"], newest["close_time"], bodies, strict=True):
                there = store.latest(self.dataset.name, symbol)
                if there is None or _replaces(orjson.loads(there), time):
                    store.put_latest(self.dataset.name, symbol, body.encode())


def coverage_facts(covered: pl.DataFrame, native: pl.DataFrame, interval: timedelta) -> pl.DataFrame:
    """symbol, day, fact: JSON of what a block should hold, what it has, its holes, and what prices are adjusted for.

    covered: columns of clean.coverage with `day`; native: symbol, day, adjustment of the bars.
    """
    keys = ["symbol", "day"]
    holes = (
        covered.select(*keys, "missing_ranges")
        .explode("missing_ranges")
        .drop_nulls("missing_ranges")
        .unnest("missing_ranges")
        .sort(*keys, "start")
    )
    # Of a day's bar one is missing; a stretch of minutes ends with the session, be its last bar whole or not.
    count = 1 if interval >= timedelta(days=1) else ((pl.col("end") - pl.col("start")) / interval).ceil().cast(pl.Int64)
    told = holes.select(
        "start", "end", "cause", pl.lit(count).alias("bars") if isinstance(count, int) else count.alias("bars")
    )
    per_hole = holes.select(keys).with_columns(json_rows(told))
    adjustment = pl.col("adjustment").unique()
    served = native.group_by(keys).agg(
        pl.when(adjustment.len() == 1).then(adjustment.first()).otherwise(pl.lit("mixed")).alias("adjustment")
    )
    summed = (
        covered.group_by(keys, maintain_order=True)
        .agg(pl.col("expected_bars", "present_bars", "missing_bars").sum(), pl.col("checked_at").max())
        .join(served, on=keys, how="left", maintain_order="left")
        .join(
            per_hole.group_by(keys, maintain_order=True).agg(pl.col("row").str.join(",")),
            on=keys,
            how="left",
            maintain_order="left",
        )
    )
    facts = summed.select(
        pl.col("expected_bars").alias("expected"),
        pl.col("present_bars").alias("present"),
        pl.col("missing_bars").alias("missing"),
        pl.col("adjustment").fill_null("none"),
        pl.col("checked_at").alias("asof"),
    )
    with_holes = json_rows(facts).str.strip_suffix("}") + ',"holes":[' + summed["row"].fill_null("") + "]}"
    return summed.select(keys).with_columns(with_holes.alias("fact"))


def _replaces(there: dict[str, Any], time: datetime) -> bool:
    """Whether a close of the lake, valid from a time on, takes the place of the newest price that is there."""
    return there.get("source") == "lake" or micros(there["t"]) <= micros(time)


def _describe(hot: HotStore, dataset: Dataset, now: datetime) -> None:
    """What there is of a dataset."""
    intervals = list(dict.fromkeys([dataset.interval, *dataset.feature_intervals]))
    body = {
        "name": dataset.name,
        "calendar": dataset.calendar,
        "interval": dataset.interval,
        "intervals": intervals,
        "partition": dataset.partition,
        "delay_seconds": dataset.delay.total_seconds(),
        "first_session": dataset.first_session.isoformat(),
        "last_session": dataset.last_session.isoformat() if dataset.last_session else None,
        "symbols": [one.symbol for one in dataset.symbols],
        "feature_intervals": list(dataset.feature_intervals),
        "features": column_names(features_of(dataset)),
        "published_at": iso(micros(now)),
    }
    with hot.write() as store:
        store.put_fact(orjson.dumps(body), "dataset", dataset.name)


def _forget(hot: HotStore, dataset: Dataset, first: date) -> None:
    """Delete what is older than a dataset keeps hot."""
    with hot.write() as store:
        for kind, symbols in store.kinds(dataset.name).items():
            for symbol in symbols:
                store.forget_blocks(dataset.name, kind, symbol, first)
        for name in ("coverage", "figures", "revisions"):
            old = [key for key, _ in store.facts(name, dataset.name) if key[-1] < first.isoformat()]
            for key in old:
                store.delete_fact(name, dataset.name, *key)
