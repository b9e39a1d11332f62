"""What may be subscribed to: datasets with their symbols and intervals, and strategies, as a universe declares them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantlytic_assets.universe.models import Universe


@dataclass(frozen=True)
class Market:
    """A dataset: its symbols in the file's order, the intervals of its bars, and whether it trades round the clock."""

    symbols: tuple[str, ...]
    intervals: tuple[str, ...]
    round_the_clock: bool


@dataclass(frozen=True)
class Catalog:
    """Markets by dataset, and each strategy's dataset and symbols."""

    markets: Mapping[str, Market]
    strategies: Mapping[str, tuple[str, tuple[str, ...]]]


def catalog_of(universe: Universe) -> Catalog:
    """The catalog of a universe."""
    markets = {
        name: Market(
            tuple(one.symbol for one in dataset.symbols),
            tuple(dict.fromkeys((dataset.interval, *dataset.feature_intervals))),
            dataset.calendar == "24/7",
        )
        for name, dataset in universe.datasets.items()
    }
    strategies = {name: (one.dataset, tuple(one.symbols)) for name, one in universe.strategies.items()}
    return Catalog(markets, strategies)
