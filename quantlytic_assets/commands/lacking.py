"""Which partitions lack bars that a vendor may be asked for, or sessions that the lake should cover.

Read from archive, attempts and lake; what the event log says is in `pending`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.calendars.partitions import partition_key, windows
from quantlytic_assets.tables.coverage import coverage

if TYPE_CHECKING:
    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.universe.models import Dataset


def lacking_partitions(installation: Installation, dataset: Dataset, keys: Sequence[str]) -> set[str]:
    """Those of `keys` whose archive lacks bars that may be asked for, or whose lake covers less than all its sessions.

    The lake covers a session as soon as its partition was made, with bars or without. Asks nobody.
    """
    ingest, lake = installation.resources.ingest(dataset), installation.resources.lake
    found: set[str] = set()
    for span in windows(dataset, keys, installation.settings.backfill_chunk):
        need = ingest.need(span.first, date.fromordinal(span.last.toordinal() - 1))
        covered = coverage(lake, dataset.name, ["session"], since=span.first, before=span.last)["session"]
        expected = need.expected["session"].unique()
        uncovered = expected.filter(~expected.is_in(covered.unique().implode()))
        sessions = pl.concat([need.missing["session"].unique(), uncovered])
        found.update(partition_key(dataset, session) for session in sessions)
    return found & set(keys)
