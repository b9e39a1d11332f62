"""How far back a dataset's tables go. What is deleted, and how, is in `storage.retention`."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantlytic_assets.universe.models import Dataset


def first_kept(dataset: Dataset, today: date) -> date:
    """The first session that the lake keeps: `keep` before today, or the dataset's first.

    Whole partitions stay or go, because a partition is what is made anew: of a month that began to expire all stays.
    """
    return _first(dataset, dataset.keep, today)


def first_hot(dataset: Dataset, today: date) -> date:
    """The first session that the hot store keeps: as above, with `keep_hot`; never one that the lake does not keep."""
    return max(first_kept(dataset, today), _first(dataset, dataset.keep_hot, today))


def _first(dataset: Dataset, kept: timedelta | None, today: date) -> date:
    if kept is None:
        return dataset.first_session
    edge = today - kept
    return max(dataset.first_session, edge.replace(day=1) if dataset.partition == "month" else edge)
