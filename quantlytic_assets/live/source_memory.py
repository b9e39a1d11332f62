"""What a source remembers, in the hot store: all of it now and then, and in between what has changed.

All of it takes longer to write than the rest of a batch: for trades, it is the last minutes of all symbols.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantlytic_assets.live.sources import Source
from quantlytic_assets.live.state import LiveState

if TYPE_CHECKING:
    from quantlytic_assets.serving.hot_store import Reader, Writer

# After so many changes all of it is written, when no signal is waited for, or after the second number in any case.
_WHOLE_AFTER, _MOST_CHANGES = 20, 400


class SourceMemory:
    """What one source remembers, in the state of its dataset."""

    def __init__(self, state: LiveState, source: Source):
        self._state = state
        self._source = source
        # How many changes were written since all of it was; None where this process has not written all of it.
        self._written: int | None = None

    def take_up(self, reader: Reader) -> None:
        """Bring the source to where it was at the last transaction."""
        kept = self._state.minutes(reader)
        if kept is not None:
            self._source.restore(kept, self._state.changes_of_minutes(reader))

    def keep(self, writer: Writer, waited_for: bool) -> None:
        """Write what the source remembers now. waited_for: whether signals wait for the transaction."""
        if self._written is None or self._written >= (_MOST_CHANGES if waited_for else _WHOLE_AFTER):
            kept = self._source.kept()
            if kept is not None:
                self._state.put_minutes(writer, kept)
                self._written = 0
            return
        self._state.put_changes_of_minutes(writer, self._written, self._source.changes())
        self._written += 1
