"""What a feed tells a person: a line a minute at most, however much happens."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

_LINE_SECONDS = 60.0


class Report:
    """Gathers counts and notes; `write` gets a line of them when one is due. `clock` counts seconds."""

    def __init__(self, name: str, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        self._name = name
        self._write = write
        self._clock = clock
        self._written_at: float | None = None
        self._counts: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()

    def count(self, what: str, number: int) -> None:
        """Add to a count of this minute's line."""
        self._counts[what] += number

    def note(self, text: str) -> None:
        """Something went wrong or was mended: at once where no line was written for a minute, else in the next."""
        self._notes[text] += 1
        if self._written_at is not None and self._clock() >= self._written_at + _LINE_SECONDS:
            self.line()

    def tick(self) -> None:
        """Write the line when it is due; the first one is due at once."""
        if self._written_at is None or self._clock() >= self._written_at + _LINE_SECONDS:
            self.line()

    def line(self) -> None:
        """Write what was gathered since the last line."""
        counts = ", ".join(f"{number:,} {what}" for what, number in self._counts.items() if number)
        notes = [text if times == 1 else f"{text} ({times} times)" for text, times in self._notes.items()]
        said = [part for part in (counts, *notes) if part]
        self._write(f"{self._name}: {'; '.join(said) or 'nothing new'}")
        self._written_at = self._clock()
        self._counts.clear()
        self._notes.clear()
