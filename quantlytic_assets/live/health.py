"""How a live path is, as people and metrics see it: `("live", dataset)` of the hot store's facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from quantlytic_assets.live.counts import Counts
from quantlytic_assets.live.stages import Stages
from quantlytic_assets.storage.bus import BusUnavailable

if TYPE_CHECKING:
    from quantlytic_assets.serving.hot_store import HotStore
    from quantlytic_assets.storage.bus import Bus


class Health:
    """What is told of one dataset's live path. clock: seconds since 1970."""

    def __init__(self, bus: Bus, hot: HotStore, dataset: str, clock: Callable[[], float]):
        self._bus = bus
        self._hot = hot
        self._dataset = dataset
        self._clock = clock
        self._ends: dict[int, int] = {}

    def look(self, topic: str) -> None:
        """Ask the bus where a topic ends, which takes longer than a batch. Nothing is known while it does not say."""
        try:
            self._ends = {number: end for number, (_, end) in self._bus.watermarks(topic).items()}
        except BusUnavailable:
            self._ends = {}

    def tell(self, topic: str, offsets: Mapping[int, int], newest: int, counts: Counts, stages: Stages) -> None:
        """Write how it is.

        offsets: the next of each partition. newest: the time of the newest price, microseconds since 1970 UTC, negative
        without one. behind: records up to where the topic ended when it was looked at last.
        """
        now = self._clock()
        told = {
            "at": datetime.fromtimestamp(now, UTC).isoformat(),
            "source": topic,
            "behind": sum(max(0, end - offsets.get(number, end)) for number, end in self._ends.items()),
            "lag_ms": None if newest < 0 else max(0, int(now * 1000) - newest // 1000),
            **counts.told(),
            "stages": stages.told(),
        }
        with self._hot.write() as writer:
            writer.put_fact(orjson.dumps(told), "live", self._dataset)
