"""What is served of a batch, written to the hot store after its signals are out: they don't wait for it.

Until it is written it is kept with the state of the live path, in the batch's own transaction, so that a process that
was killed in between writes it when it goes on. Batches that come close together are written together: a block is
changed once then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

import orjson

from quantlytic_assets.live import publishing
from quantlytic_assets.live.pipeline import Made
from quantlytic_assets.live.publishing import Served

if TYPE_CHECKING:
    from quantlytic_assets.live.state import LiveState
    from quantlytic_assets.serving.hot_store import Reader, Writer
    from quantlytic_assets.universe.models import Dataset

# Rows that are written at the latest when so many wait: a transaction shall not take long.
_MOST_ROWS = 2_000


class WriteBehind:
    """The rows of committed batches that are not served yet. columns: those of features, by interval."""

    def __init__(self, state: LiveState, dataset: Dataset, columns: Mapping[str, Sequence[str]]):
        self._state = state
        self._dataset = dataset
        self._columns = columns
        self._rows: list[Served] = []
        self._batches: list[int] = []

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def full(self) -> bool:
        """Whether so many rows wait that they are to be written now."""
        return len(self._rows) >= _MOST_ROWS

    def restore(self, reader: Reader) -> None:
        """Take up what a process before this one has committed and not written."""
        for number, kept in self._state.unserved(reader):
            self._batches.append(number)
            rows = orjson.loads(kept)
            self._rows += [Served._make((*one[:3], date.fromisoformat(one[3]), *one[4:])) for one in rows]

    def keep(self, writer: Writer, made: Made) -> None:
        """Note what is to be served of a batch, in the transaction of its state."""
        rows = publishing.served(made)
        if rows:
            number = self._batches[-1] + 1 if self._batches else 0
            # A value that is not finite comes back as None: neither is served.
            self._state.put_unserved(writer, number, orjson.dumps(list(map(tuple, rows))))
            self._batches.append(number)
            self._rows += rows

    def write(self, writer: Writer) -> None:
        """Write everything that waits."""
        publishing.write(writer, self._dataset, self._rows, self._columns)
        for number in self._batches:
            self._state.delete_unserved(writer, number)
        self._rows, self._batches = [], []
