"""How far back a dataset's tables go. What is deleted, and how, is in `storage.retention`."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantlytic_assets.universe.models import Dataset


def first_kept(dataset: Dataset, today: date) -> date:
    """The first session that the lake keeps: `keep` before today, or the dataset's first.

    Whole partitions stay or go, because a partition is what is made anew: of a month that began to expire all stays.
    """
    if dataset.keep is None:
        return dataset.first_session
    edge = today - dataset.keep
    return max(dataset.first_session, edge.replace(day=1) if dataset.partition == "month" else edge)
