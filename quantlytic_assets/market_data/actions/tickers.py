"""Under which tickers a company traded, and when: what a ticker of a day means at other times.

The stretches are those of `listings`, as plain values: whoever asks once a request needs no frame for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class Stretch:
    """From a session on a ticker means a company. opens: that session's open, microseconds since 1970, None: always."""

    symbol: str
    since: date
    instrument: str
    opens: int | None


def tickers_of(
    stretches: Iterable[Stretch], symbol: str, day: date, first: int, end: int
) -> list[tuple[str, int, int]]:
    """The tickers of the company that a ticker means on a day, each with the times [from, to) of it, oldest first.

    first, end: what stands for times without a beginning or an end. A ticker that was never renamed is its own.
    """
    by_symbol: dict[str, list[Stretch]] = {}
    for one in sorted(stretches, key=lambda one: one.since):
        by_symbol.setdefault(one.symbol, []).append(one)
    meant = [one.instrument for one in by_symbol.get(symbol, []) if one.since <= day]
    if not meant:
        return [(symbol, first, end)]
    found = []
    for name, own in by_symbol.items():
        starts = [first if one.opens is None else one.opens for one in own]
        found += [
            (name, start, until)
            for one, start, until in zip(own, starts, [*starts[1:], end], strict=True)
            if one.instrument == meant[-1]
        ]
    return sorted(found, key=lambda one: one[1])
