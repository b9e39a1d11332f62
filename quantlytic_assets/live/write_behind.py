"""What follows from a batch besides its records, written to the hot store after its signals are out.

That is what is served of it, and its places in the kept state, which lie all over the store. Until it is written it is
kept as records, in the batch's own transaction, so that a process that was killed in between writes it when it goes on.
Batches that come close together are written together: a block is changed once then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

import orjson

from quantlytic_assets.live import publishing
from quantlytic_assets.live.changes import Changes
from quantlytic_assets.live.pipeline import Made
from quantlytic_assets.live.publishing import Served

if TYPE_CHECKING:
    from quantlytic_assets.live.state import LiveState
    from quantlytic_assets.serving.hot_store import Writer
    from quantlytic_assets.universe.models import Dataset

# Rows that are written at the latest when so many wait: a transaction shall not take long.
_MOST_ROWS = 2_000


class WriteBehind:
    """What committed batches have to be written. columns: those of features, by interval."""

    def __init__(self, state: LiveState, dataset: Dataset, columns: Mapping[str, Sequence[str]]):
        self._state = state
        self._dataset = dataset
        self._columns = columns
        self._rows: list[Served] = []
        # Of each batch, though it may change nothing.
        self._changes: list[Changes] = []

    def __len__(self) -> int:
        return len(self._changes)

    @property
    def full(self) -> bool:
        """Whether so many rows wait that they are to be written now."""
        return len(self._rows) >= _MOST_ROWS

    def take_up(self, writer: Writer) -> None:
        """Write what a process before this one has committed and not written."""
        for kept in self._state.unserved(writer):
            rows = orjson.loads(kept)
            self._rows += [Served._make((*one[:3], date.fromisoformat(one[3]), *one[4:])) for one in rows]
        self._changes = self._state.unplaced(writer)
        self.write(writer)

    def keep(self, writer: Writer, made: Made, changes: Changes) -> None:
        """Note what is to be served of a batch, and what it changes, in the transaction of its state."""
        rows = publishing.served(made)
        if rows or changes:
            # A value that is not finite comes back as None: neither is served.
            self._state.put_behind(writer, len(self), orjson.dumps(list(map(tuple, rows))), changes)
            self._rows += rows
            self._changes.append(changes)

    def write(self, writer: Writer) -> None:
        """Write everything that waits."""
        publishing.write(writer, self._dataset, self._rows, self._columns)
        self._state.place(writer, self._changes)
        self._state.delete_behind(writer)
        self._rows, self._changes = [], []
