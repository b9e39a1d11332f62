"""Updates: entries of the journal as they are pushed, and which of them a newer one replaces.

A provisional bar is replaced by a later word on the same bar, a price by the next one of the symbol, a row of features
by a later one of the same time. Final bars and their revisions, signals and orders are never replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import orjson

from quantlytic_assets.serving.hot_store import Entry

# The names of what follows the kind in a channel of the journal.
PARTS = {
    "bars": ("dataset", "interval", "symbol"),
    "latest": ("dataset", "symbol"),
    "features": ("dataset", "interval", "symbol"),
    "signals": ("strategy", "symbol"),
    "orders": ("strategy",),
}


def known(channel: tuple[str, ...]) -> bool:
    """Whether a channel of the journal is one that is pushed."""
    return channel[0] in PARTS and len(channel) == 1 + len(PARTS[channel[0]])


@lru_cache(maxsize=100_000)
def _head(channel: tuple[str, ...]) -> bytes:
    """The item up to its sequence number, which is the same for all updates of a channel."""
    named = {"channel": channel[0], **dict(zip(PARTS[channel[0]], channel[1:], strict=True))}
    return orjson.dumps(named)[:-1] + b',"sequence":'


class Update:
    """An entry of the journal. `channel` must be `known`."""

    def __init__(self, entry: Entry):
        self.sequence = entry.sequence
        self.channel = entry.channel
        self.body = entry.body

    @cached_property
    def data(self) -> dict[str, Any]:
        """The body's members."""
        return orjson.loads(self.body)

    @cached_property
    def key(self) -> tuple[object, ...]:
        """What a later update of the same key is the newer word on."""
        if self.channel[0] in ("bars", "features"):
            return (*self.channel, self.data.get("t"))
        return self.channel

    @cached_property
    def kept(self) -> bool:
        """Whether everybody gets it who asked for its channel, whatever comes after it."""
        kind = self.channel[0]
        return kind in ("signals", "orders") or (kind == "bars" and bool(self.data.get("final", True)))

    @cached_property
    def item(self) -> bytes:
        """It as JSON: `channel`, the channel's parts by name, `sequence` and `data`."""
        return b'%s%d,"data":%s}' % (_head(self.channel), self.sequence, self.body)


def conflated(updates: Sequence[Update]) -> tuple[list[Update], int]:
    """The updates without those that a newer one replaces, in their order, and how many were left out."""
    newer: set[tuple[object, ...]] = set()
    left: list[Update] = []
    for update in reversed(updates):
        if update.kept or update.key not in newer:
            left.append(update)
        newer.add(update.key)
    left.reverse()
    return left, len(updates) - len(left)


def updates_of(entries: Iterable[Entry]) -> list[Update]:
    """The entries that can be pushed."""
    return [Update(entry) for entry in entries if known(entry.channel)]
