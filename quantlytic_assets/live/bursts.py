"""Bars that end together: minutes of many symbols end at about the same time, and their signals come first.

What follows from them besides, orders and what is served, waits until there was no bar for a moment, and not for long.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from quantlytic_assets.live.lines import Row

# Seconds without a bar after which a burst is over, and after which it is over in any case.
_QUIET = 0.02
_LONGEST = 0.25


class Burst:
    """The bars of which something is still to be done; none at first. It is true as long as there are any."""

    def __init__(self) -> None:
        # When the records of the first came, and when the last were added: seconds of `time.perf_counter`.
        self._first: float | None = None
        self._last = 0.0
        self._rows: dict[str, list[Row]] = {}

    def __bool__(self) -> bool:
        return self._first is not None

    def add(self, received: float, rows: Mapping[str, Iterable[Row]]) -> None:
        """Add bars with the rows of features that follow from them, by interval. received: when their records came."""
        self._first = received if self._first is None else self._first
        self._last = time.perf_counter()
        for interval, own in rows.items():
            self._rows.setdefault(interval, []).extend(own)

    @property
    def over_in(self) -> float:
        """Seconds until it is over, should no other bar come; 0 without any."""
        if self._first is None:
            return 0.0
        return max(0.0, min(self._first + _LONGEST, self._last + _QUIET) - time.perf_counter())

    def end(self) -> tuple[float, dict[str, list[Row]]]:
        """When its first records came, and its rows by interval; there are none any more then."""
        found = (self._first or time.perf_counter(), self._rows)
        self._first, self._rows = None, {}
        return found
