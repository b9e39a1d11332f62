"""A reader: how far one connection has come, and what it is sent next; from its group, or from the journal itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from quantlytic_assets.push.cursor import Cursor
from quantlytic_assets.push.hub import Dialect, Group, Hub, Message, message
from quantlytic_assets.push.subscriptions import Selection, wants
from quantlytic_assets.push.updates import Update, conflated, known

# Entries that are read from the journal at once, and updates that are worth a frame of their own.
_MOST_ENTRIES, _MOST_UPDATES = 2_000, 500

Send = Callable[[Message], Awaitable[None]]


class Forgotten(Exception):
    """The journal does not reach back to where the reader is."""


class JournalReader:
    """Follows subscriptions from a place in the journal on; `send` waits for a reader that is slow.

    position: every entry up to this number that was subscribed to has been sent; dropped: how many updates were left
    out so far, because a newer one took their place.
    """

    def __init__(self, hub: Hub, dialect: Dialect, packed: bool, send: Send, wake: Callable[[], None]):
        self.selection: Selection = frozenset()
        self.position = hub.position
        self.dropped = 0
        self.group: Group | None = None
        self._hub = hub
        self._dialect = dialect
        self._packed = packed
        self._send = send
        self._wake = wake
        self._conflate = 0.0

    @property
    def cursor(self) -> Cursor:
        """Where it is."""
        return Cursor(self._hub.epoch, self.position)

    def speak(self, dialect: Dialect) -> None:
        """Say updates so from the next `follow` on."""
        self._dialect = dialect

    def follow(self, selection: Selection, conflate: float, position: int) -> None:
        """Want these subscriptions from now on; `position`: what of them has been sent."""
        self.close()
        self.selection, self._conflate, self.position = selection, conflate, position
        if selection:
            self.group = self._hub.join(selection, conflate, self._dialect, self._wake)

    async def deliver(self) -> None:
        """Send what is new. Raises `Forgotten`."""
        group = self.group
        while group is not None and self.position < group.position:
            batch = group.next_batch(self.position)
            if batch is not None:
                said = group.encoded(batch, self._hub.epoch, self._packed)
                self.position = batch.last
                self.dropped += batch.dropped
                if said is not None:
                    await self._send(said)
            elif group.is_read(self.position):
                self.position = group.position
            else:
                await self.catch_up(group.position)

    async def catch_up(self, until: int) -> None:
        """Send what the journal has from the position to `until`. Raises `Forgotten`."""
        if not self.selection:
            self.position = max(self.position, until)
        while self.position < until:
            updates: list[Update] = []
            dropped, position = 0, self.position
            while position < until and len(updates) < _MOST_UPDATES:
                with self._hub.store.read() as store:
                    if store.oldest_sequence > position + 1:
                        raise Forgotten
                    entries = store.journal(position, min(_MOST_ENTRIES, until - position))
                if not entries:
                    position = until
                    break
                position = entries[-1].sequence
                updates += [
                    Update(entry) for entry in entries if known(entry.channel) and wants(self.selection, entry.channel)
                ]
                if self._conflate:
                    updates, left_out = conflated(updates)
                    dropped += left_out
                # Others have their turn.
                await asyncio.sleep(0)
            self.position = position
            self.dropped += dropped
            frame = self._dialect.said(updates, self.cursor, dropped, self._packed) if updates else None
            if frame is not None:
                await self._send(message(frame, self._packed))

    def close(self) -> None:
        """Want nothing any more."""
        if self.group is not None:
            self._hub.leave(self.group, self._wake)
            self.group = None
