"""How long after it was received a batch reached each stage, as counts in buckets, which Prometheus can add up."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

# Upper bounds, seconds; what takes longer is counted in a last one.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
# bars: made of the records; features; signals; published: on the bus; orders: accounts have gone on.
STAGES = ("bars", "features", "signals", "published", "orders")


class Stages:
    """Counts of one process."""

    def __init__(self) -> None:
        self._counts = {name: [0] * (len(BOUNDS) + 1) for name in STAGES}
        self._sums = dict.fromkeys(STAGES, 0.0)

    def reached(self, stage: str, seconds: float) -> None:
        """Count a batch that reached a stage so long after it was taken from the bus."""
        self._counts[stage][bisect_left(BOUNDS, seconds)] += 1
        self._sums[stage] += seconds

    def told(self) -> Mapping[str, Mapping[str, object]]:
        """By stage: `counts`, of each bucket by itself, and `sum`, seconds."""
        return {name: {"counts": counts, "sum": self._sums[name]} for name, counts in self._counts.items()}
