"""The hot store made from the lake as a whole: by hand, and where it is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from quantlytic_assets.services.published_strategies import publish_strategy
from quantlytic_assets.services.publishing import Published, publish_whole
from quantlytic_assets.tables.pages import LakeRows

if TYPE_CHECKING:
    from quantlytic_assets.resources import Resources
    from quantlytic_assets.serving.hot_store import HotStore
    from quantlytic_assets.universe.models import Dataset, Universe


def unpublished(hot: HotStore, universe: Universe) -> list[Dataset]:
    """The datasets of the universe that the store does not have as a whole."""
    with hot.read() as store:
        return [one for one in universe.datasets.values() if store.fact("dataset", one.name) is None]


def publish_everything(
    resources: Resources,
    universe: Universe,
    datasets: Iterable[Dataset],
    said: Callable[[str, Published], None] = lambda _name, _done: None,
) -> None:
    """Publish datasets with their strategies, whatever was published before; `said` is told of each.

    Two processes that do it take turns. A lake or table that is not there yet has no rows.
    """
    lake, hot = LakeRows(resources.lake), resources.hot
    try:
        with resources.lock("publish"):
            for dataset in datasets:
                said(dataset.name, publish_whole(lake, hot, dataset))
                for strategy in universe.strategies.values():
                    if strategy.dataset == dataset.name:
                        said(strategy.name, publish_strategy(lake, hot, dataset, strategy, anew=True))
    finally:
        lake.close()
