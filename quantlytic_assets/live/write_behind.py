"""What follows from batches besides their records, written to the hot store after their signals are out.

That is what is served of them, and their places in the kept state, which lie all over the store. Batches that come
close together are written together: a block is changed once then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from quantlytic_assets.live import batches, older_state, publishing
from quantlytic_assets.live.pipeline import Made

if TYPE_CHECKING:
    from quantlytic_assets.live.state import LiveState
    from quantlytic_assets.serving.hot_store import Writer
    from quantlytic_assets.universe.models import Dataset

# Rows that are written at the latest when so many wait: a transaction shall not take long.
_MOST_ROWS = 2_000


class WriteBehind:
    """What committed batches have to be written. columns: those of features, by interval.

    A batch's record is kept until it is written here and all of it is on the bus.
    """

    def __init__(self, state: LiveState, dataset: Dataset, columns: Mapping[str, Sequence[str]]):
        self._state = state
        self._dataset = dataset
        self._columns = columns
        self._waiting: list[Made] = []
        self._rows = 0
        # Of the next batch, and of the oldest whose record is kept.
        self._next = self._oldest = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether so many rows wait that they are to be written now."""
        return self._rows >= _MOST_ROWS

    @property
    def next(self) -> int:
        """The number of the next batch."""
        return self._next

    def take_up(self, writer: Writer) -> list[Made]:
        """Write what a process before this one has committed and not written; the batches that the bus may lack."""
        older_state.take_up(writer, self._dataset, self._columns)
        kept = [(number, batches.unpacked(record)) for number, record in self._state.batches(writer)]
        written = self._state.written(writer)
        self._next = max([written, *(number + 1 for number, _ in kept)])
        self._oldest = min((number for number, _ in kept), default=self._next)
        self._waiting = [made for number, made in kept if number >= written]
        self.write(writer)
        return [made for _, made in kept]

    def keep(self, writer: Writer, made: Made) -> None:
        """Keep the record of a batch, in the transaction of its state."""
        if made.nothing:
            return
        self._state.put_batch(writer, self._next, batches.packed(made))
        self._next += 1
        self._waiting.append(made)
        self._rows += len(made) + sum(map(len, made.rows.values()))

    def write(self, writer: Writer) -> None:
        """Write everything that waits."""
        rows = [row for made in self._waiting for row in publishing.served(made)]
        publishing.write(writer, self._dataset, rows, self._columns)
        for made in self._waiting:
            self._state.place(writer, self._dataset.interval, self._columns, made)
        self._state.put_written(writer, self._next)
        self._waiting, self._rows = [], 0

    def forget(self, writer: Writer, published: int) -> None:
        """Delete the records of batches that are written. published: the bus has all of those before this number."""
        until = min(published, self._next - len(self._waiting))
        for number in range(self._oldest, until):
            self._state.delete_batch(writer, number)
        self._oldest = max(self._oldest, until)
