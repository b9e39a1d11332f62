"""What a landing touched, by the partitions that clean it: the same for assets, the landing job and commands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from quantlytic_assets.calendars.partitions import deciding_key, known_keys

if TYPE_CHECKING:
    from quantlytic_assets.universe.models import Dataset


def landed_by_partition(dataset: Dataset, landed: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Rows and bytes landed by partition of raw_bars, oldest first; `landed` counts rows and bytes by archive key.

    Keys that no partition cleans yet, such as those of a session that has not begun, are not in it.
    """
    known = known_keys(dataset)
    figures: dict[str, dict[str, int]] = {}
    for archived, entry in landed.items():
        key = deciding_key(dataset, archived, known)
        if key is None:
            continue
        total = figures.setdefault(key, {"rows_landed": 0, "bytes_landed": 0})
        total["rows_landed"] += entry["rows"]
        total["bytes_landed"] += entry["bytes"]
    return dict(sorted(figures.items()))
