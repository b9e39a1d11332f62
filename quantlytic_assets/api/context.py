"""What answering a request needs, made once for an application: the hot store, the names there are, who may ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlytic_assets.api.access import Access
from quantlytic_assets.api.problems import Problem, unknown
from quantlytic_assets.universe.models import Dataset, Strategy
from quantlytic_assets.universe.watch import WatchedUniverse

if TYPE_CHECKING:
    from quantlytic_assets.resources import Resources
    from quantlytic_assets.serving.hot_store import HotStore


class Context:
    """The parts of an application, and the names that requests may use. `hot` is the only store on the request path."""

    def __init__(self, resources: Resources):
        self.resources = resources
        self.settings = resources.settings
        self.hot: HotStore = resources.hot
        self.universe = WatchedUniverse(resources.settings.universe)
        self.access = Access(resources)

    def dataset(self, name: str) -> Dataset:
        """A dataset by its name. Raises `Problem` 404."""
        datasets = self.universe.now().datasets
        if name not in datasets:
            raise unknown("dataset", name, datasets)
        return datasets[name]

    def strategy(self, name: str) -> Strategy:
        """A strategy by its name. Raises `Problem` 404."""
        strategies = self.universe.now().strategies
        if name not in strategies:
            raise unknown("strategy", name, strategies)
        return strategies[name]

    def dataset_of(self, symbol: str, dataset: str | None = None) -> Dataset:
        """The dataset of a symbol: the one that is named, else the only one that has it.

        Raises `Problem`: 404 for what nobody declares, 409 where several datasets have the symbol.
        """
        datasets = self.universe.now().datasets
        if dataset is not None:
            found = self.dataset(dataset)
            names = [one.symbol for one in found.symbols]
            if symbol not in names:
                raise unknown(f"symbol in {dataset}", symbol, names)
            return found
        having = [one for one in datasets.values() if any(symbol == each.symbol for each in one.symbols)]
        if not having:
            raise unknown("symbol", symbol, sorted({each.symbol for one in datasets.values() for each in one.symbols}))
        if len(having) > 1:
            names = [one.name for one in having]
            raise Problem(
                409, f"{symbol} is in several datasets; say which: dataset={' or dataset='.join(names)}", datasets=names
            )
        return having[0]
