"""The hub: the one reader of the journal in a process, and the groups of readers who want the same.

What a group is sent is gathered, conflated and encoded once for all of its members. No reader has a queue: each knows
how far it has come and takes the next batch from its group. One that is too slow for the few batches that a group
keeps reads the journal itself, at its own speed, until it has caught up.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgpack
import orjson

from quantlytic_assets.push.ages import Ages
from quantlytic_assets.push.cursor import Cursor
from quantlytic_assets.push.subscriptions import Selection, wants
from quantlytic_assets.push.updates import Update, conflated, known
from quantlytic_assets.serving.hot_store import HotStore

# Entries read at one turn; a turn is short enough for others to have theirs.
_MOST_ENTRIES = 5_000
# Updates that a group gathers before it sends them early.
_MOST_PENDING = 2_000
_BATCHES_KEPT = 16


# As ASGI has them.
Message = MutableMapping[str, Any]


def message(frame: bytes, packed: bool) -> Message:
    """The ASGI message that sends a frame, MessagePack or JSON."""
    if packed:
        return {"type": "websocket.send", "bytes": frame}
    return {"type": "websocket.send", "text": frame.decode()}


class Dialect(Protocol):
    """How updates are said to a reader; the same object for all readers of a kind."""

    def said(self, updates: Sequence[Update], cursor: Cursor, dropped: int, packed: bool) -> bytes | None:
        """A frame, MessagePack or JSON, or None where there is nothing to say."""

    def heartbeat(self, cursor: Cursor, dropped: int, ages: bytes, packed: bool) -> bytes | None:
        """The frame of each second, or None where there is none. `ages`: those of all symbols, encoded."""


@dataclass
class Batch:
    """What a group is told at one time.

    A reader that has come to `after` or beyond, but not to `first`, takes it and has come to `last` then.
    """

    after: int
    first: int
    last: int
    updates: Sequence[Update]
    dropped: int
    encoded: dict[bool, Message | None] = field(default_factory=dict)


class Group:
    """Readers who want the same, in the same words. `position`: how far the journal has been looked through for it."""

    def __init__(self, selection: Selection, conflate: float, dialect: Dialect, position: int):
        self.selection = selection
        self.conflate = conflate
        self.dialect = dialect
        self.start = self.position = position
        self.members: set[Callable[[], None]] = set()
        self.encoded_ages: dict[bool, bytes] = {}
        self._pending: list[Update] = []
        self._batches: deque[Batch] = deque(maxlen=_BATCHES_KEPT)
        self._due = 0.0
        self._dropped = 0

    def take(self, update: Update) -> None:
        """Gather an update."""
        self._pending.append(update)

    def flush(self, position: int, now: float) -> None:
        """Make a batch of what was gathered, where it is time; the journal has been looked through to `position`."""
        if self._pending and now < self._due:
            if len(self._pending) >= _MOST_PENDING:
                self._pending, dropped = conflated(self._pending)
                self._dropped += dropped
            if len(self._pending) < _MOST_PENDING:
                return
        if self._pending:
            first = self._pending[0].sequence
            updates, dropped = conflated(self._pending) if self.conflate else (self._pending, 0)
            after = self._batches[-1].last if self._batches else self.start
            self._batches.append(Batch(after, first, position, updates, self._dropped + dropped))
            self._pending, self._dropped, self._due = [], 0, now + self.conflate
            self.position = position
            self.wake()
        else:
            self.position = position

    def skip_to(self, position: int) -> None:
        """Forget everything: entries before `position` are gone from the journal."""
        self._pending.clear()
        self._batches.clear()
        self.start = self.position = position
        self.wake()

    def wake(self) -> None:
        """Have all members look for what is new."""
        for wake in self.members:
            wake()

    def next_batch(self, position: int) -> Batch | None:
        """The batch for a reader who has come so far; None where there is none, see `is_read`."""
        # The newest is the one that nearly everybody wants.
        for one in reversed(self._batches):
            if one.after <= position:
                return one if position < one.first else None
        return None

    def is_read(self, position: int) -> bool:
        """Whether a reader who has come so far has had all that the group was told."""
        return position >= (self._batches[-1].last if self._batches else self.start)

    def encoded(self, batch: Batch, epoch: str, packed: bool) -> Message | None:
        """The message of a batch, made once."""
        if packed not in batch.encoded:
            said = self.dialect.said(batch.updates, Cursor(epoch, batch.last), batch.dropped, packed)
            batch.encoded[packed] = None if said is None else message(said, packed)
        return batch.encoded[packed]

    def ages(self, ages: Ages, packed: bool) -> bytes:
        """The ages of this second, encoded once."""
        if packed not in self.encoded_ages:
            found = ages.of(self.selection)
            self.encoded_ages[packed] = msgpack.packb(found) if packed else orjson.dumps(found)
        return self.encoded_ages[packed]


class Hub:
    """Follows the journal of a store and hands its entries to groups. Belongs to one event loop."""

    def __init__(self, store: HotStore, ages: Ages, poll: float = 0.015, heartbeat: float = 1.0):
        self.store = store
        self.ages = ages
        self.beat = 0
        self._poll = poll
        self._heartbeat = heartbeat
        self._groups: dict[tuple[Selection, float, Dialect], Group] = {}
        self._routes: dict[tuple[str, ...], list[Group]] = {}
        with store.read() as reader:
            self.epoch, self.position = reader.epoch, reader.sequence

    async def run(self) -> None:
        """Follow the journal until cancelled."""
        next_beat = time.monotonic() + self._heartbeat
        while True:
            now = time.monotonic()
            more = self.turn(now)
            if now >= next_beat:
                next_beat = max(next_beat + self._heartbeat, now)
                self._beat()
            await asyncio.sleep(0 if more else self._poll)

    def turn(self, now: float) -> bool:
        """Read what is new in the journal; whether there may be more of it."""
        with self.store.read() as reader:
            entries = reader.journal(self.position, _MOST_ENTRIES)
            if not self.epoch:
                self.epoch = reader.epoch
        if entries and entries[0].sequence != self.position + 1:
            # The journal has forgotten what was not read: each reader finds that out by itself.
            for group in self._groups.values():
                group.skip_to(entries[0].sequence - 1)
        for entry in entries:
            groups = self._routes.get(entry.channel)
            if groups is None:
                groups = self._routes[entry.channel] = self._route(entry.channel)
            if groups:
                update = Update(entry)
                for group in groups:
                    group.take(update)
        if entries:
            self.position = entries[-1].sequence
        for group in self._groups.values():
            group.flush(self.position, now)
        return len(entries) == _MOST_ENTRIES

    def _beat(self) -> None:
        self.beat += 1
        self.ages.forget()
        for group in self._groups.values():
            group.encoded_ages.clear()
            group.wake()

    def _route(self, channel: tuple[str, ...]) -> list[Group]:
        if not known(channel):
            return []
        return [group for group in self._groups.values() if wants(group.selection, channel)]

    def join(self, selection: Selection, conflate: float, dialect: Dialect, wake: Callable[[], None]) -> Group:
        """The group of these subscriptions, with a member that is called when there is something new."""
        key = (selection, conflate, dialect)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(selection, conflate, dialect, self.position)
            self._routes.clear()
        group.members.add(wake)
        return group

    def leave(self, group: Group, wake: Callable[[], None]) -> None:
        """Take a member out of a group; a group without members ends."""
        group.members.discard(wake)
        if not group.members:
            self._groups.pop((group.selection, group.conflate, group.dialect), None)
            self._routes.clear()
