"""What the live path keeps in the hot store to go on from: in the transaction of the values that follow from it.

Everything is under `("live", dataset, …)`: where on the bus it stands, the bars that features and longer bars are made
of, what was said last, trades of minutes that go on, the outbox, and what is not served yet. The outbox has what is to
be published of the last transactions and may not be yet: after a kill it is compared with what the bus has, and the
rest is published. Bars and what was said of them stay for a moment in the records of their batches (`Changes`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from operator import itemgetter
from typing import NamedTuple

import orjson

from quantlytic_assets.live.bars import Bar
from quantlytic_assets.live.pipeline import Made, Pipeline
from quantlytic_assets.serving.hot_store import Reader, Writer
from quantlytic_assets.universe.models import Dataset, Strategy

# With another layout of what is kept, nothing of it is taken over.
_LAYOUT = 1
# Below this and the name of the dataset lies its state.
ROOT = "live"


class Message(NamedTuple):
    """A record that is to be published. id: what it says something about, the same whenever it is made again."""

    topic: str
    key: str
    id: str
    value: bytes


class Place(NamedTuple):
    """Where a reader of a topic stands: the identity of the topic, and the next offset of each partition."""

    identity: str
    offsets: dict[int, int]


def version(dataset: Dataset, strategies: Sequence[Strategy], topic: str) -> str:
    """A short text that is another one where what is kept can't be gone on from."""
    said = [
        _LAYOUT, topic, dataset.calendar, dataset.interval, dataset.feature_intervals, dataset.features,
        str(dataset.delay), dataset.incomplete_bars,
        [(one.name, one.interval, one.symbols, str(one.rule)) for one in strategies],
    ]  # fmt: skip
    return sha256(orjson.dumps(said)).hexdigest()[:12]


class LiveState:
    """The state of one dataset in the hot store."""

    def __init__(self, dataset: str, version: str):
        self.dataset = dataset
        self._version = version.encode()

    def usable(self, reader: Reader) -> bool:
        """Whether there is a state, and it is one that can be gone on from."""
        return reader.state(ROOT, self.dataset, "version") == self._version

    def begin(self, writer: Writer) -> None:
        """Delete what is kept, for a fresh start."""
        self._delete(writer)
        writer.put_state(self._version, ROOT, self.dataset, "version")

    def places(self, reader: Reader) -> dict[str, Place]:
        """Where the reader of each topic stands."""
        kept = reader.state(ROOT, self.dataset, "places")
        return {
            topic: Place(identity, {int(number): offset for number, offset in offsets.items()})
            for topic, (identity, offsets) in orjson.loads(kept or b"{}").items()
        }

    def put_places(self, writer: Writer, places: Mapping[str, Place]) -> None:
        """Keep where the readers stand."""
        said = {
            topic: (one.identity, {str(number): offset for number, offset in one.offsets.items()})
            for topic, one in places.items()
        }
        writer.put_state(orjson.dumps(said), ROOT, self.dataset, "places")

    def batches(self, reader: Reader) -> list[tuple[int, bytes]]:
        """The records of the last batches with their numbers, in order."""
        return [(int(number), kept) for (number,), kept in reader.states(ROOT, self.dataset, "batches")]

    def put_batch(self, writer: Writer, number: int, record: bytes) -> None:
        """Keep the record of a batch."""
        writer.put_state(record, ROOT, self.dataset, "batches", _text(number))

    def delete_batch(self, writer: Writer, number: int) -> None:
        """Forget the record of a batch."""
        writer.delete_state(ROOT, self.dataset, "batches", _text(number))

    def written(self, reader: Reader) -> int:
        """The number of the first batch that is not served, or not in its places yet."""
        return int(reader.state(ROOT, self.dataset, "written") or 0)

    def put_written(self, writer: Writer, number: int) -> None:
        """Keep that all batches before this number are served and in their places."""
        writer.put_state(b"%d" % number, ROOT, self.dataset, "written")

    def minutes(self, reader: Reader) -> bytes | None:
        """Trades of minutes that are not over, as `minutes.Minutes` gave them."""
        return reader.state(ROOT, self.dataset, "minutes")

    def put_minutes(self, writer: Writer, kept: bytes) -> None:
        """Keep the trades of minutes that are not over, in place of what was kept and its changes."""
        writer.put_state(kept, ROOT, self.dataset, "minutes")
        self._delete(writer, "minutes_since")

    def changes_of_minutes(self, reader: Reader) -> list[bytes]:
        """What has changed of `minutes` since it was put, in order."""
        return [kept for _, kept in reader.states(ROOT, self.dataset, "minutes_since")]

    def put_changes_of_minutes(self, writer: Writer, number: int, changes: bytes) -> None:
        """Keep what has changed of `minutes`. number: how many times that was done since it was put."""
        writer.put_state(changes, ROOT, self.dataset, "minutes_since", _text(number))

    def counts(self, reader: Reader) -> dict[str, int]:
        """What was counted since the state began."""
        return orjson.loads(reader.state(ROOT, self.dataset, "counts") or b"{}")

    def put_counts(self, writer: Writer, counts: Mapping[str, int]) -> None:
        """Keep what was counted."""
        writer.put_state(orjson.dumps(dict(counts)), ROOT, self.dataset, "counts")

    def place(self, writer: Writer, native: str, lines: Collection[str], made: Made) -> None:
        """Put what a batch has changed in its places. native: the dataset's interval; lines: those of features.

        To do it twice leaves what once has left.
        """
        below = (ROOT, self.dataset)
        for interval, bars in made.bars.items():
            for bar, revision, _ in bars:
                kept, time = bar.packed(revision), _text(bar.open_time)
                if interval == native:
                    writer.put_state(kept, *below, "native", bar.symbol, time)
                if interval in lines:
                    writer.put_state(kept, *below, "line", interval, bar.symbol, time)
        for symbol, at in made.untraded:
            writer.put_state(b"", *below, "untraded", symbol, _text(at))
        for _, symbol, at in made.forgotten:
            writer.delete_state(*below, "native", symbol, _text(at))
            writer.delete_state(*below, "untraded", symbol, _text(at))
        for interval, symbol, begins, stored in made.moved:
            self._delete_before(writer, begins, "line", interval, symbol)
            if stored is not None:
                writer.put_state(orjson.dumps(stored), *below, "sums", interval, symbol)
        for said, _, _ in made.signals:
            told = orjson.dumps((said.says, said.revision))
            writer.put_state(told, *below, "said", said.strategy, said.symbol, _text(said.time))

    def _delete_before(self, writer: Writer, time: int, *below: str) -> None:
        for (gone,) in [name for name, _ in writer.states(ROOT, self.dataset, *below) if name[0] < _text(time)]:
            writer.delete_state(ROOT, self.dataset, *below, gone)

    def _delete(self, writer: Writer, *below: str) -> None:
        for name in [name for name, _ in writer.states(ROOT, self.dataset, *below)]:
            writer.delete_state(ROOT, self.dataset, *below, *name)

    def restore(self, reader: Reader, pipeline: Pipeline) -> None:
        """Bring a new pipeline to where the kept one was."""
        for (symbol, _), kept in reader.states(ROOT, self.dataset, "native"):
            pipeline.natives.restore(*Bar.unpacked(symbol, kept))
        for (symbol, time), _ in reader.states(ROOT, self.dataset, "untraded"):
            pipeline.natives.untraded(symbol, int(time))
        for interval, lines in pipeline.lines.items():
            bars = [
                Bar.unpacked(symbol, kept) for (symbol, _), kept in reader.states(ROOT, self.dataset, "line", interval)
            ]
            stored = {
                symbol: (int(time), tuple(float("nan") if one is None else one for one in values))
                for (symbol,), kept in reader.states(ROOT, self.dataset, "sums", interval)
                for time, values in [orjson.loads(kept)]
            }
            lines.open(bars, stored)
        told = [(*name, orjson.loads(kept)) for name, kept in reader.states(ROOT, self.dataset, "said")]
        for strategy, symbol, time, (says, revision) in sorted(told, key=itemgetter(2)):
            for deciders in pipeline.deciders.values():
                deciders.remember(strategy, symbol, int(time), says, revision)

    def keep_all(self, writer: Writer, natives: Sequence[Bar], lines: Mapping[str, Sequence[Bar]],
                 stored: Mapping[str, Mapping[str, tuple[int, tuple[float, ...]]]]) -> None:  # fmt: skip
        """Keep what a new pipeline was begun with."""
        for bar in natives:
            writer.put_state(bar.packed(0), ROOT, self.dataset, "native", bar.symbol, _text(bar.open_time))
        for interval, bars in lines.items():
            for bar in bars:
                writer.put_state(bar.packed(0), ROOT, self.dataset, "line", interval, bar.symbol, _text(bar.open_time))
            for symbol, (time, values) in stored.get(interval, {}).items():
                writer.put_state(orjson.dumps((time, values)), ROOT, self.dataset, "sums", interval, symbol)

    def forget(self, writer: Writer, pipeline: Pipeline) -> None:
        """Delete what the pipeline no longer remembers to have said. What is deleted late is forgotten again."""
        for deciders in pipeline.deciders.values():
            for strategy, symbol, time in deciders.forgotten():
                writer.delete_state(ROOT, self.dataset, "said", strategy, symbol, _text(time))


def _text(time: int) -> str:
    """A time in the order of its number."""
    return f"{time:020d}"
