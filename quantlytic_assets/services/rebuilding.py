"""The hot store made from the lake as a whole: by hand, and where it is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date
from typing import TYPE_CHECKING

from quantlytic_assets.services.published_strategies import publish_strategy
from quantlytic_assets.services.publishing import Published, publish_dataset
from quantlytic_assets.tables.pages import LakeRows

if TYPE_CHECKING:
    from quantlytic_assets.resources import Resources
    from quantlytic_assets.universe.models import Dataset, Universe

# A store with this mark has been filled once; what it holds is kept up to date by the asset graph.
WHOLE = ("store", "whole")


def publish_everything(
    resources: Resources,
    universe: Universe,
    datasets: Iterable[Dataset],
    said: Callable[[str, Published], None] = lambda _name, _done: None,
) -> None:
    """Publish datasets with their strategies, whatever was published before; `said` is told of each.

    Two processes that do it take turns. A lake or table that is not there yet has no rows.
    """
    lake, hot, chosen = LakeRows(resources.lake), resources.hot, list(datasets)
    try:
        with resources.lock("publish"):
            for dataset in chosen:
                said(dataset.name, publish_dataset(lake, hot, dataset, date.min, date.max))
                for strategy in universe.strategies.values():
                    if strategy.dataset == dataset.name:
                        said(strategy.name, publish_strategy(lake, hot, dataset, strategy, anew=True))
            if {one.name for one in chosen} >= set(universe.datasets):
                with hot.write() as store:
                    store.put_fact(b"true", *WHOLE)
    finally:
        lake.close()
