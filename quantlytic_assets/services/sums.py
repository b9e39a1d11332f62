"""Sums since the first bar in a family's table, of which a run replaces a stretch.

They go on from the value that is stored before the stretch, so that a run reads no more history than other features
need. What is stored after the stretch and what the run computes again behind it is moved by one number, so that a late
bar is in each later row whatever the order in which partitions are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.features.batch import GROUP
from quantlytic_assets.features.spec import column_names, column_scales
from quantlytic_assets.storage.dbt_writes import Move
from quantlytic_assets.tables.features import stored_values

if TYPE_CHECKING:
    from quantlytic_assets.features.spec import Feature
    from quantlytic_assets.schemas.table import Table
    from quantlytic_assets.tables.select import Queries

_KEY = (*GROUP, "open_time")
# A difference of this share of a sum is rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Sums:
    """The sums among the features of a run: `table` has their values, `before` is the first session after the run's."""

    lake: Queries
    table: Table
    dataset: str
    features: Sequence[Feature]
    before: date

    def stored_before(self, bars: pl.DataFrame) -> pl.DataFrame | None:
        """Of each sum and group the last value that is stored at one of the bars with `lookback`; None without bars."""
        return self._stored(bars.filter("lookback"), last=True)

    def first_stored(self, bars: pl.DataFrame) -> pl.DataFrame | None:
        """Of each sum and group the first value that is stored at one of the bars; None without bars."""
        return self._stored(bars, last=False)

    def moves(self, computed: pl.DataFrame) -> list[Move]:
        """How far the sums after the last of the computed bars are off, of groups with bars after the run's range.

        `computed` has the sums, `session`, and perhaps `listing` and `shares`, of the bars that the run replaces.
        """
        after = computed.filter(pl.col("session") >= self.before)
        names = column_names(self.features)
        if after.is_empty():
            return []
        old = self._rows(after, names)
        if old.is_empty():
            return []
        both = after.select(*_KEY, "listing", "shares", *names, last_time=pl.col("open_time").max().over(GROUP)).join(
            old, on=_KEY, suffix="_stored"
        )
        found = []
        for name, scale in column_scales(self.features).items():
            stored = pl.col(f"{name}_stored")
            by = pl.col(name) - stored
            off = (
                both.drop_nulls([name, f"{name}_stored"])
                .sort("open_time")
                .group_by(GROUP, maintain_order=True)
                .last()
                .filter(by.abs() > _ROUNDING * pl.max_horizontal(pl.col(name).abs(), stored.abs()))
                .select(*GROUP, "listing", "last_time", by / pl.col("shares") if scale == "volume" else by)
            )
            for symbol, interval, listing, after, moved in off.iter_rows():
                of_shares = scale == "volume"
                found.append(Move(self.dataset, name, symbol, interval, listing, after, moved, of_shares))
        return found

    def _stored(self, bars: pl.DataFrame, last: bool) -> pl.DataFrame | None:
        bars = bars.filter(pl.col("close").is_not_null())
        if bars.is_empty():
            return None
        names = column_names(self.features)
        rows = self._rows(bars, names).join(bars.select(_KEY), on=_KEY, how="semi").sort("open_time")
        ends = []
        for name in names:
            groups = rows.drop_nulls(name).group_by(GROUP).agg(pl.col("open_time", name).get(-1 if last else 0))
            ends.append(groups)
        return pl.concat(ends, how="diagonal").group_by(_KEY).agg(pl.col(name).drop_nulls().first() for name in names)

    def _rows(self, bars: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
        """What is stored of the sums in the sessions of these bars."""
        day = timedelta(days=1)
        since, before = bars["session"].min(), bars["session"].max() + day
        symbols = bars["symbol"].unique().to_list()
        return stored_values(self.lake, self.table, self.dataset, names, since=since, before=before, symbols=symbols)
