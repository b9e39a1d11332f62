"""What answering a request needs, made once for an application: the hot store, the names there are, who may ask."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from quantlytic_assets.api.access import Access
from quantlytic_assets.api.limits import Limits
from quantlytic_assets.api.problems import Problem, unknown
from quantlytic_assets.api.store import WatchedStore
from quantlytic_assets.universe.watch import WatchedUniverse

if TYPE_CHECKING:
    from quantlytic_assets.resources import Resources
    from quantlytic_assets.serving.hot_store import HotStore
    from quantlytic_assets.universe.models import Dataset, Strategy, Universe

# How often the universe file is looked at, in seconds.
_LOOKED_AT = 1.0


class Context:
    """The parts of an application, and the names that requests may use. `hot` is the only store on the request path."""

    def __init__(self, resources: Resources):
        self.resources = resources
        self.settings = resources.settings
        self.store = WatchedStore(resources)
        self.access = Access(resources)
        self.limits = Limits(resources)
        self.universe = WatchedUniverse(resources.settings.universe)
        self._looked = time.monotonic()
        self._declared = self.universe.now()
        self._learn()

    def close(self) -> None:
        """Write down what was counted."""
        self.limits.close()

    @property
    def hot(self) -> HotStore:
        """The hot store. Raises `Problem` 503 while it is being filled for the first time."""
        return self.store.ready()

    @property
    def declared(self) -> Universe:
        """The universe as its file says, looked at once a second."""
        now = time.monotonic()
        if now - self._looked > _LOOKED_AT:
            self._looked = now
            found = self.universe.now()
            if found is not self._declared:
                self._declared = found
                self._learn()
        return self._declared

    def _learn(self) -> None:
        having: dict[str, list[Dataset]] = {}
        for dataset in self._declared.datasets.values():
            for one in dataset.symbols:
                having.setdefault(one.symbol, []).append(dataset)
        self._having = having

    def dataset(self, name: str) -> Dataset:
        """A dataset by its name. Raises `Problem` 404."""
        datasets = self.declared.datasets
        if name not in datasets:
            raise unknown("dataset", name, datasets)
        return datasets[name]

    def strategy(self, name: str) -> Strategy:
        """A strategy by its name. Raises `Problem` 404."""
        strategies = self.declared.strategies
        if name not in strategies:
            raise unknown("strategy", name, strategies)
        return strategies[name]

    def having(self, symbol: str) -> list[Dataset]:
        """The datasets that have a symbol, in the order of the universe. Raises `Problem` 404 where none has it."""
        _ = self.declared
        found = self._having.get(symbol)
        if found is None:
            raise unknown("symbol", symbol, self._having)
        return found

    def dataset_of(self, symbol: str, dataset: str | None = None, interval: str | None = None) -> Dataset:
        """The dataset of a symbol: the one that is named, else the only one that has it (at the interval, if one is).

        Raises `Problem`: 404 for what nobody declares, 409 where several datasets have the symbol.
        """
        if dataset is not None:
            found = self.dataset(dataset)
            names = [one.symbol for one in found.symbols]
            if symbol not in names:
                raise unknown(f"symbol in {dataset}", symbol, names)
            return found
        having = self.having(symbol)
        if interval is not None and len(having) > 1:
            having = [one for one in having if interval in intervals_of(one)] or having
        if len(having) > 1:
            names = [one.name for one in having]
            raise Problem(
                409, f"{symbol} is in several datasets; say which: dataset={' or dataset='.join(names)}", datasets=names
            )
        return having[0]


def intervals_of(dataset: Dataset) -> tuple[str, ...]:
    """The intervals that a dataset has bars at, its own first."""
    return tuple(dict.fromkeys((dataset.interval, *dataset.feature_intervals)))


def chosen_interval(dataset: Dataset, interval: str | None) -> str:
    """An interval of a dataset's bars, its own where none is asked for. Raises `Problem` 422 for another one."""
    known = intervals_of(dataset)
    if interval is None:
        return known[0]
    if interval not in known:
        raise Problem(
            422, f"{dataset.name} has bars at {', '.join(known)}, not at interval={interval}.", parameter="interval",
            known=list(known),
        )  # fmt: skip
    return interval
