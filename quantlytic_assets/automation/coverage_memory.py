"""What a gap sensor remembers of clean.coverage between its ticks, so that a tick reads what has changed and no more.

The memory belongs to the process that evaluates the sensor. What holes mean is `services.gaps`' business.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from quantlytic_assets.services.gaps import coverage_rows
from quantlytic_assets.storage.lake import Lake

# Rows are deleted as well as written (by retention, or with the whole lake), and only a full look shows that.
_FULL_LOOK = timedelta(hours=1)


@dataclass(frozen=True)
class _Known:
    """Rows read so far, as of a snapshot of the lake, and when all were read."""

    rows: pl.DataFrame
    snapshot: int
    full_at: datetime


class CoverageMemory:
    """The rows of clean.coverage of one dataset, brought up to date with each reading."""

    def __init__(self, dataset: str):
        self.dataset = dataset
        self._known: _Known | None = None

    def read(self, lake: Lake, now: datetime) -> pl.DataFrame:
        """COVERAGE_COLUMNS of all sessions.

        now: aware. Nothing is read where the lake has no newer snapshot than last time; else the rows that were
        written since; all rows in the first reading, once an hour, and where the lake was made anew.
        """
        snapshot = lake.snapshot()
        known = self._known
        if known is None or snapshot < known.snapshot or now - known.full_at >= _FULL_LOOK:
            known = _Known(coverage_rows(lake, self.dataset), snapshot, now)
        elif snapshot > known.snapshot:
            changed = coverage_rows(lake, self.dataset, after=known.snapshot)
            kept = known.rows.join(changed, on=["symbol", "session"], how="anti")
            known = _Known(pl.concat([kept, changed]), snapshot, known.full_at)
        self._known = known
        return known.rows
