"""Cleaning as assets and commands both do it: archive objects into the lake, and what depends on new knowledge again.

Bars of a partition follow from its objects, the archived corporate actions and the price levels of the partitions
beside it. What must be cleaned again because one of these is new is never remembered by a run: it is the difference
between what the lake's rows were made with (`clean.followed_split_factors`, `factor` in `clean.price_levels`) and what
they would be made with now. Both change only once the cleaning is done, so that a run that ends anywhere loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from quantlytic_assets.calendars.partitions import Window, deciding_key, known_keys, windows, with_partition
from quantlytic_assets.calendars.sessions import expected_bars, session_table
from quantlytic_assets.market_data.actions.late_actions import first_changed
from quantlytic_assets.market_data.actions.reconcile import Reconciled, reconcile
from quantlytic_assets.market_data.actions.split_factors import split_factors
from quantlytic_assets.market_data.bars import QUARANTINE_SCHEMA
from quantlytic_assets.market_data.quality.cleaning import Cleaned, clean
from quantlytic_assets.market_data.quality.levels import neighbours_within, with_factors
from quantlytic_assets.tables import actions as tables
from quantlytic_assets.tables.bars import (
    bases,
    price_levels,
    quarantined,
    quarantined_objects,
    sessions_with_bars,
)

if TYPE_CHECKING:
    from quantlytic_assets.resources import Resources
    from quantlytic_assets.storage.archive import StoredObject
    from quantlytic_assets.universe.models import Dataset

# Rows cleaned at once: bounds memory at a few hundred megabytes.
_ROWS_AT_ONCE = 500_000
# What others keep in clean.quarantine: rejected records, and rejected reports of corporate actions.
_NOT_REJECTED = "source_object NOT LIKE '%/refused/%' AND source_object NOT LIKE '%/actions/%'"
_REPORTS = "%/actions/%"
_SHOWN = 50

# Partition key → what people are shown of it.
Figures = dict[str, dict[str, Any]]
# Called with each partition that was cleaned beside those that a run is for, and its figures.
Report = Callable[[str, Mapping[str, Any]], None]


def partitions_at_once(dataset: Dataset) -> int:
    """How many partitions hold about as many bars as are worked on at once."""
    week = expected_bars(
        dataset.calendar, dataset.interval, dataset.first_session, dataset.first_session + timedelta(days=13)
    )
    per_session = max(1, len(week) // max(1, week["session"].n_unique())) * len(dataset.symbols)
    return max(1, _ROWS_AT_ONCE // (per_session * (22 if dataset.partition == "month" else 1)))


@dataclass(frozen=True)
class Followed:
    """What following the archived corporate actions did.

    `changed`: whether clean.corporate_actions is another now. `since`: the first session with bars in the lake whose
    flags or features are others by the split factors that are new; None where there is none.
    """

    reconciled: Reconciled
    changed: bool
    since: date | None


class Cleaner:
    """Cleans partitions of a dataset with what the archive holds when it is made."""

    def __init__(self, resources: Resources, dataset: Dataset):
        self.dataset = dataset
        self._archive = resources.archive
        self._lake = resources.lake
        # The archive's actions, not the lake's: a bar's flags follow from the archive alone.
        self.reconciled = reconcile(resources.actions.read(dataset.name), dataset.name)
        actions = self.reconciled.actions
        self._splits = actions.filter(pl.col("kind") == "split").select("symbol", "session", "value")
        self._within = neighbours_within(dataset.partition)

    @cached_property
    def _filed(self) -> dict[str, list[StoredObject]]:
        """The archive's objects by the partition that cleans them."""
        known = known_keys(self.dataset)
        filed: dict[str, list[StoredObject]] = {}
        for stored in self._archive.objects(self.dataset.name):
            filed.setdefault(deciding_key(self.dataset, stored.partition, known) or "", []).append(stored)
        return filed

    def clean(self, window: Window) -> Figures:
        """Clean a window's partitions, and those again that see other neighbours now; the figures are of both."""
        context = self._levels(window)
        outside = context.filter(~pl.col("partition").is_in(window.keys))
        cleaned = self._clean(window, outside)
        figures = _figures(self.dataset, window, cleaned)
        again = self._seen_otherwise(window, pl.concat([outside, with_partition(cleaned.levels, self.dataset)]))
        for other in windows(self.dataset, again, partitions_at_once(self.dataset)):
            figures |= self._again(other)
        return figures

    def follow_actions(self, report: Report) -> Followed:
        """Bring what follows from corporate actions up to date: their table, split factors, bars that depend on them.

        `report` is called for each partition that is cleaned again, before the next ones are. A call that ends early is
        made good by the next one, whoever makes it.
        """
        name, actions = self.dataset.name, self.reconciled.actions
        factors = split_factors(actions, name)
        kept = tables.corporate_actions(self._lake, name)
        changed = not kept.sort(pl.all(), nulls_last=True).equals(
            actions.select(kept.columns).sort(pl.all(), nulls_last=True)
        )
        mine = ("dataset = ?", [name])
        writes = []
        if changed:
            writes.append(("clean.corporate_actions", *mine, actions))
        if not tables.split_factors(self._lake, name, factors.columns).equals(factors):
            # Features read them next to the bars, and are made again after the bars: never with older ones.
            writes.append(("clean.split_factors", *mine, factors))
        rejected = self.reconciled.rejected
        if quarantined(self._lake, name, _REPORTS) != len(rejected):
            writes.append(("clean.quarantine", "dataset = ? AND source_object LIKE ?", [name, _REPORTS], rejected))
        if writes:
            self._lake.replace(writes)
        followed = tables.followed_split_factors(self._lake, name, factors.columns)
        if followed.equals(factors):
            return Followed(self.reconciled, changed, None)
        since = self._first_changed(followed, factors)
        late = self._cleaned_since(since) if since else set()
        for window in windows(self.dataset, late, partitions_at_once(self.dataset)):
            for key, figures in self._again(window).items():
                report(key, figures)
        self._lake.replace([("clean.followed_split_factors", *mine, factors)])
        return Followed(self.reconciled, changed, since)

    def _again(self, window: Window) -> Figures:
        return _figures(
            self.dataset,
            window,
            self._clean(window, self._levels(window).filter(~pl.col("partition").is_in(window.keys))),
        )

    def _clean(self, window: Window, neighbours: pl.DataFrame) -> Cleaned:
        """Clean the window's objects and replace its rows in the lake."""
        raw = self._archive.read([stored for key in window.keys for stored in self._filed.get(key, [])])
        first, last = window.first, window.last
        if len(raw):
            first = min(first, raw["open_time"].min().date())
            last = max(last, raw["open_time"].max().date())
        sessions = session_table(self.dataset.calendar, first - timedelta(days=15), last + timedelta(days=2))
        cleaned = clean(raw, self.dataset, with_partition(sessions, self.dataset), self._splits, neighbours)
        # A row so far off that the calendar has no session for it is filed under its own day.
        quarantine = cleaned.quarantine.with_columns(pl.coalesce("session", pl.col("open_time").dt.date()))
        condition, parameters = window.condition()
        mine = (f"dataset = ? AND {condition}", [self.dataset.name, *parameters])
        inside = sessions.filter(pl.col("session") >= window.first, pl.col("session") < window.last)
        self._lake.replace(
            [
                ("clean.bars", *mine, cleaned.bars),
                ("clean.quarantine", f"{mine[0]} AND {_NOT_REJECTED}", mine[1], quarantine),
                ("clean.repairs", *mine, cleaned.repairs),
                ("clean.price_levels", *mine, cleaned.levels),
                ("clean.vendor_differences", *mine, cleaned.differences),
                (
                    "clean.sessions",
                    *mine,
                    inside.select(pl.lit(self.dataset.name).alias("dataset"), *inside.columns),
                ),
            ]
        )
        return cleaned

    def _levels(self, window: Window) -> pl.DataFrame:
        """LEVELS_SCHEMA rows with `partition` of the window, of its neighbours and of theirs."""
        around = 2 * self._within
        rows = price_levels(self._lake, self.dataset.name, window.first - around, window.last + around)
        return with_partition(rows, self.dataset)

    def _seen_otherwise(self, window: Window, levels: pl.DataFrame) -> set[str]:
        """Keys of neighbouring partitions in which a bar would be off by another factor than when it was cleaned."""
        now = with_factors(levels, self._splits, self._within)
        then = levels.sort("symbol", "session", "bar")["factor"]
        others = now.filter(
            (now["factor"] / then - 1).abs() > 1e-9,
            ~pl.col("partition").is_in(window.keys),
            pl.col("session").is_between(window.first - self._within, window.last + self._within),
        )
        known = known_keys(self.dataset)
        keys = {deciding_key(self.dataset, key, known) for key in others["partition"].unique()}
        return {key for key in keys if key is not None}

    def _first_changed(self, before: pl.DataFrame, after: pl.DataFrame) -> date | None:
        symbols = pl.concat([before["symbol"], after["symbol"]]).unique().to_list()
        return first_changed(bases(self._lake, self.dataset.name, symbols), before, after)

    def _cleaned_since(self, first: date) -> set[str]:
        """Keys of the partitions that hold bars of `first` or later."""
        sessions = sessions_with_bars(self._lake, self.dataset.name, first)
        known = known_keys(self.dataset)
        archived: Iterable[str] = with_partition(sessions, self.dataset)["partition"].unique()
        keys = {deciding_key(self.dataset, key, known) for key in archived}
        return {key for key in keys if key is not None}


def action_figures(reconciled: Reconciled) -> dict[str, Any]:
    """What people are shown of a dataset's actions: rows, kinds, rejected reports, and those that contradict others."""
    kinds = dict(reconciled.actions.group_by("kind").len().sort("kind").iter_rows())
    shown = reconciled.disputed.head(_SHOWN).select(
        "symbol", "session", "kind", "value", "new_symbol", "vendor", "recorded_at"
    )
    return {
        "dagster/row_count": len(reconciled.actions),
        "kinds": kinds,
        "rejected": len(reconciled.rejected),
        "reported_differently": reconciled.disputed.select("symbol", "session", "kind").n_unique(),
        "differing_reports": shown.with_columns(pl.col(pl.Date, pl.Datetime).cast(pl.String)).to_dicts(),
    }


def quarantine_rejected(resources: Resources, dataset: Dataset) -> int:
    """Bring records that landing rejected into clean.quarantine, those it does not have yet; returns how many."""
    paths = resources.archive.rejected_objects(dataset.name)
    if not paths:
        return 0
    known = quarantined_objects(resources.lake, dataset.name, "%/refused/%")
    new = sorted(set(paths) - set(known))
    if not new:
        return 0
    rejected = resources.archive.read_rejected(dataset.name, new).with_columns(
        pl.col("open_time").dt.date().alias("session"),
        pl.when(pl.col("line").is_not_null())
        .then(pl.concat_str(pl.lit("line "), "line", pl.lit(": "), "raw"))
        .otherwise("raw")
        .alias("raw"),
    )
    rows = rejected.select(QUARANTINE_SCHEMA.names())
    marks = ", ".join("?" for _ in new)
    resources.lake.replace([("clean.quarantine", f"source_object IN ({marks})", new, rows)])
    return len(rows)


def _figures(dataset: Dataset, window: Window, cleaned: Cleaned) -> Figures:
    """Rows, symbols, flags, repairs and what was quarantined, by partition."""
    kept = (
        with_partition(cleaned.bars, dataset)
        .group_by("partition")
        .agg(
            pl.len().alias("dagster/partition_row_count"),
            pl.col("symbol").n_unique().alias("symbols"),
            (pl.col("flags").list.len() > 0).sum().alias("flagged"),
        )
    )
    rejected = (
        with_partition(cleaned.quarantine, dataset)
        .group_by("partition")
        .agg(pl.len().alias("quarantined"), pl.col("reason").value_counts().alias("reasons"))
    )
    mended = with_partition(cleaned.repairs, dataset).group_by("partition").agg(pl.len().alias("repairs"))
    apart = with_partition(cleaned.differences, dataset).group_by("partition").agg(pl.len().alias("vendor_differences"))
    counts: dict[str, dict[str, Any]] = {}
    for row in (row for part in (kept, mended, apart) for row in part.iter_rows(named=True)):
        counts.setdefault(row.pop("partition"), {}).update(row)
    for row in rejected.iter_rows(named=True):
        reasons = {entry["reason"]: entry["count"] for entry in row["reasons"]}
        # Rows from before the first partition or after the last are shown with it.
        shown = min(max(row["partition"] or window.keys[0], window.keys[0]), window.keys[-1])
        entry = counts.setdefault(shown, {})
        entry["quarantined"] = entry.get("quarantined", 0) + row["quarantined"]
        entry["quarantine_reasons"] = {**entry.get("quarantine_reasons", {}), **reasons}
    empty = {"dagster/partition_row_count": 0, "symbols": 0, "flagged": 0, "quarantined": 0}
    return {key: {**empty, **counts.get(key, {})} for key in window.keys}
