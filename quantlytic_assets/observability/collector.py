"""Figures for Prometheus, gathered part by part in the background: a scrape shows what is known and waits for nobody.

Each part is asked in a thread of its own, so that a server that is down costs its own figures and no others; that it
did not answer is a figure itself. What the figures are is the business of the modules beside this one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True)
class Part:
    """A source of figures: `read` is called every `seconds` and returns whole metric families, or raises."""

    name: str
    seconds: float
    read: Callable[[], Sequence[Metric]]


@dataclass
class _State:
    families: Sequence[Metric] = ()
    up: bool = False
    read_at: float = 0.0
    took: float = 0.0
    asked: bool = field(default=False)


class PartsCollector(Collector):
    """What the parts said last; nothing is raised to a scrape.

    `on_change(part, error)` is told when a part begins to fail, fails in another way, or answers again (None).
    """

    def __init__(self, parts: Sequence[Part], on_change: Callable[[str, Exception | None], None]):
        self.parts = {part.name: part for part in parts}
        self._states = {name: _State() for name in self.parts}
        self._failing: dict[str, type[Exception]] = {}
        self._on_change = on_change

    def refresh(self, name: str) -> None:
        """Ask one part now. A part that fails has no figures until it answers again: old ones would pass for new."""
        started = time.time()
        try:
            families, up = self.parts[name].read(), True
        except Exception as error:
            families, up = (), False
            if self._failing.get(name) is not type(error):
                self._failing[name] = type(error)
                self._on_change(name, error)
        else:
            if self._failing.pop(name, None) is not None:
                self._on_change(name, None)
        self._states[name] = _State(families, up, time.time(), time.time() - started, asked=True)

    def start(self, stopping: threading.Event) -> list[threading.Thread]:
        """Keep every part fresh until `stopping` is set, each in a thread of its own."""
        threads = [threading.Thread(target=self._keep, args=(name, stopping), daemon=True) for name in self.parts]
        for thread in threads:
            thread.start()
        return threads

    def _keep(self, name: str, stopping: threading.Event) -> None:
        while not stopping.is_set():
            self.refresh(name)
            stopping.wait(self.parts[name].seconds)

    def collect(self) -> Iterable[Metric]:
        """All families, those about the parts first; a part that hangs counts as down after three of its turns."""
        up = GaugeMetricFamily(
            "quantlytic_part_up", "1 where a part answered when it was last asked, 0 where not", labels=["part"]
        )
        took = GaugeMetricFamily(
            "quantlytic_part_read_seconds", "how long a part took to answer last time", labels=["part"]
        )
        now = time.time()
        states = dict(self._states)
        for name, state in states.items():
            late = state.asked and now - state.read_at > 3 * self.parts[name].seconds + 60
            up.add_metric([name], float(state.up and not late))
            if state.asked:
                took.add_metric([name], state.took)
        yield up
        yield took
        for state in states.values():
            yield from state.families
