"""What time it is at a venue, told from the times it writes into its messages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from quantlytic_assets.market_data.stream.messages import MINUTE, micros

_DAY = 24 * 60 * MINUTE


class VenueClock:
    """Our clock, corrected by how far it was off the venue's in the last minute or two.

    A message says that the venue's clock stands at its time or later. The least delayed message of the last minutes
    gives the correction, so that the result is late by that message's delay and never early. Before the first message
    it is our clock.
    """

    def __init__(self, clock: Callable[[], datetime]):
        self._clock = clock
        self._bucket = 0
        self._newest: int | None = None
        self._before: int | None = None

    @property
    def known(self) -> bool:
        """Whether the venue was heard."""
        return self._newest is not None

    def ours(self) -> int:
        """Our own clock, microseconds since 1970."""
        return micros(self._clock())

    def hear(self, written: int, received: int) -> bool:
        """Take in that a message written at `written` by the venue's clock came at `received` by ours.

        False where that is not believed, because it is a day or more ahead of what the venue said before.
        """
        if self.known and written > self.now() + _DAY:
            return False
        ahead, bucket = written - received, received // MINUTE
        if bucket != self._bucket or self._newest is None:
            # A clock that was set, or minutes without a message: what was known is of no use any more.
            self._before = self._newest if bucket == self._bucket + 1 else None
            self._bucket, self._newest = bucket, ahead
        else:
            self._newest = max(self._newest, ahead)
        return True

    def now(self) -> int:
        """The venue's time, microseconds since 1970."""
        return self.ours() + max((ahead for ahead in (self._newest, self._before) if ahead is not None), default=0)
