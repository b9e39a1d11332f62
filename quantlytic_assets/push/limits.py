"""What a reader may take: connects of an address, connections of a process, frames of a connection."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class PushLimits:
    """How much of what.

    connects: of one address in a minute; connections: open at once; frames: sent to us by a connection in a second,
    in the long run, and `burst` at once; wrong: frames in a row that can't be understood before it is closed;
    subscriptions: of a connection; sign_in: seconds until who must send a credential has sent it.
    """

    connects: int = 300
    connections: int = 2_000
    frames: float = 20.0
    burst: int = 100
    wrong: int = 100
    subscriptions: int = 100
    sign_in: float = 10.0


class Allowance:
    """So many at once, and so many a second in the long run."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic):
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left, self._at = burst, clock()

    def take(self) -> float:
        """Take one: 0, or the seconds until there is one."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / self._rate
        self._left -= 1
        return 0.0


class Connects:
    """How often each address connects; the addresses that were heard of last are remembered."""

    _MOST_ADDRESSES = 10_000

    def __init__(self, a_minute: int):
        self._a_minute = a_minute
        self._known: OrderedDict[str, Allowance] = OrderedDict()

    def take(self, address: str) -> float:
        """Note a connect: 0, or the seconds after which the address may try again."""
        found = self._known.get(address)
        if found is None:
            found = self._known[address] = Allowance(self._a_minute / 60, self._a_minute)
            if len(self._known) > self._MOST_ADDRESSES:
                self._known.popitem(last=False)
        self._known.move_to_end(address)
        return found.take()
