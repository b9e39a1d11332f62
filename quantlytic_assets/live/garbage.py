"""When Python's collector of cycles runs in a process whose answers are waited for.

Left to itself it runs when many objects are made, which is when bars come: it looks through everything that is kept,
and the signals of that minute wait for it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

# Seconds without a bar after which no signal is waited for.
_QUIET = 0.2
# Seconds after which is collected though bars come all the time.
_OVERDUE = 10.0
# Seconds between two looks through all that was made since the beginning.
_WHOLE_EVERY = 600.0


class Garbage:
    """Collects between bars. What was there at its beginning stays, and is not looked through.

    clock: seconds of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # When the newest bar came, the first one since it collected, and when it looked through everything.
        self._bar = self._first = self._whole = clock()
        self._made = False
        self._was_on = True

    def __enter__(self) -> Self:
        self._was_on = gc.isenabled()
        gc.collect()
        gc.freeze()
        gc.disable()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._was_on:
            gc.enable()

    def after(self, made: bool) -> None:
        """Collect what is due after a batch. made: whether bars came with it, and more of them may."""
        now = self._clock()
        if made:
            self._first = self._first if self._made else now
            self._bar, self._made = now, True
        if now - self._bar < _QUIET and now - self._first < _OVERDUE:
            return
        if now - self._whole >= _WHOLE_EVERY:
            gc.collect()
            self._whole = now
        elif self._made:
            gc.collect(1)
        self._made = False
