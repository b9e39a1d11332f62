"""What the live path keeps in the hot store to go on from: in the transaction of the values that follow from it.

Everything is under `("live", dataset, …)`: where on the bus it stands, the bars that features and longer bars are made
of, what was said last, trades of minutes that go on, the outbox, and what is not served yet. The outbox has what is to
be published of the last transactions and may not be yet: after a kill it is compared with what the bus has, and the
rest is published. Bars and what was said of them stay for a moment in the records of their batches (`Changes`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from operator import itemgetter
from typing import NamedTuple

import orjson

from quantlytic_assets.live.bars import Bar
from quantlytic_assets.live.changes import Changes
from quantlytic_assets.live.pipeline import Made, Pipeline
from quantlytic_assets.serving.hot_store import Reader, Writer
from quantlytic_assets.universe.models import Dataset, Strategy

# With another layout of what is kept, nothing of it is taken over.
_LAYOUT = 1
_ROOT = "live"


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
        return reader.state(_ROOT, self.dataset, "version") == self._version

    def begin(self, writer: Writer) -> None:
        """Delete what is kept, for a fresh start."""
        self._delete(writer)
        writer.put_state(self._version, _ROOT, self.dataset, "version")

    def places(self, reader: Reader) -> dict[str, Place]:
        """Where the reader of each topic stands."""
        kept = reader.state(_ROOT, self.dataset, "places")
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
        writer.put_state(orjson.dumps(said), _ROOT, self.dataset, "places")

    def outbox(self, reader: Reader) -> list[Message]:
        """What is to be published of the last transactions, and may be already."""
        kept = reader.state(_ROOT, self.dataset, "outbox")
        return [Message(topic, key, name, value.encode()) for topic, key, name, value in orjson.loads(kept or b"[]")]

    def put_outbox(self, writer: Writer, messages: Sequence[Message]) -> None:
        """Keep what is to be published, in place of what was to be at the last transaction."""
        said = [(one.topic, one.key, one.id, one.value.decode()) for one in messages]
        writer.put_state(orjson.dumps(said), _ROOT, self.dataset, "outbox")

    def minutes(self, reader: Reader) -> bytes | None:
        """Trades of minutes that are not over, as `minutes.Minutes` gave them."""
        return reader.state(_ROOT, self.dataset, "minutes")

    def put_minutes(self, writer: Writer, kept: bytes) -> None:
        """Keep the trades of minutes that are not over, in place of what was kept and its changes."""
        writer.put_state(kept, _ROOT, self.dataset, "minutes")
        self._delete(writer, "minutes_since")

    def changes_of_minutes(self, reader: Reader) -> list[bytes]:
        """What has changed of `minutes` since it was put, in order."""
        return [kept for _, kept in reader.states(_ROOT, self.dataset, "minutes_since")]

    def put_changes_of_minutes(self, writer: Writer, number: int, changes: bytes) -> None:
        """Keep what has changed of `minutes`. number: how many times that was done since it was put."""
        writer.put_state(changes, _ROOT, self.dataset, "minutes_since", _text(number))

    def counts(self, reader: Reader) -> dict[str, int]:
        """What was counted since the state began."""
        return orjson.loads(reader.state(_ROOT, self.dataset, "counts") or b"{}")

    def put_counts(self, writer: Writer, counts: Mapping[str, int]) -> None:
        """Keep what was counted."""
        writer.put_state(orjson.dumps(dict(counts)), _ROOT, self.dataset, "counts")

    def unserved(self, reader: Reader) -> list[bytes]:
        """What is not served yet, batch by batch in order."""
        return [kept for _, kept in reader.states(_ROOT, self.dataset, "unserved")]

    def unplaced(self, reader: Reader) -> list[Changes]:
        """What batches have changed and is not in its places yet, in order."""
        return [Changes.unpacked(kept) for _, kept in reader.states(_ROOT, self.dataset, "changes")]

    def put_behind(self, writer: Writer, number: int, served: bytes, changes: Changes) -> None:
        """Keep what is to be served of a batch, and what it changes. number: which one it is since `delete_behind`."""
        writer.put_state(served, _ROOT, self.dataset, "unserved", _text(number))
        writer.put_state(changes.packed(), _ROOT, self.dataset, "changes", _text(number))

    def place(self, writer: Writer, changes: Iterable[Changes]) -> None:
        """Put what batches have changed in its places."""
        for one in changes:
            one.write(writer, _ROOT, self.dataset)

    def delete_behind(self, writer: Writer) -> None:
        """Forget what has been served and put in its places."""
        self._delete(writer, "unserved")
        self._delete(writer, "changes")

    def _delete(self, writer: Writer, *below: str) -> None:
        for name in [name for name, _ in writer.states(_ROOT, self.dataset, *below)]:
            writer.delete_state(_ROOT, self.dataset, *below, *name)

    def restore(self, reader: Reader, pipeline: Pipeline) -> None:
        """Bring a new pipeline to where the kept one was."""
        for (symbol, _), kept in reader.states(_ROOT, self.dataset, "native"):
            pipeline.natives.restore(*Bar.unpacked(symbol, kept))
        for (symbol, time), _ in reader.states(_ROOT, self.dataset, "untraded"):
            pipeline.natives.untraded(symbol, int(time))
        for interval, lines in pipeline.lines.items():
            bars = [
                Bar.unpacked(symbol, kept) for (symbol, _), kept in reader.states(_ROOT, self.dataset, "line", interval)
            ]
            stored = {
                symbol: (int(time), tuple(float("nan") if one is None else one for one in values))
                for (symbol,), kept in reader.states(_ROOT, self.dataset, "sums", interval)
                for time, values in [orjson.loads(kept)]
            }
            lines.open(bars, stored)
        told = [(*name, orjson.loads(kept)) for name, kept in reader.states(_ROOT, self.dataset, "said")]
        for strategy, symbol, time, (says, revision) in sorted(told, key=itemgetter(2)):
            for deciders in pipeline.deciders.values():
                deciders.remember(strategy, symbol, int(time), says, revision)

    def keep_all(self, writer: Writer, natives: Sequence[Bar], lines: Mapping[str, Sequence[Bar]],
                 stored: Mapping[str, Mapping[str, tuple[int, tuple[float, ...]]]]) -> None:  # fmt: skip
        """Keep what a new pipeline was begun with."""
        for bar in natives:
            writer.put_state(bar.packed(0), _ROOT, self.dataset, "native", bar.symbol, _text(bar.open_time))
        for interval, bars in lines.items():
            for bar in bars:
                writer.put_state(bar.packed(0), _ROOT, self.dataset, "line", interval, bar.symbol, _text(bar.open_time))
            for symbol, (time, values) in stored.get(interval, {}).items():
                writer.put_state(orjson.dumps((time, values)), _ROOT, self.dataset, "sums", interval, symbol)

    def forget(self, writer: Writer, pipeline: Pipeline) -> None:
        """Delete what the pipeline no longer remembers to have said. What is deleted late is forgotten again."""
        for deciders in pipeline.deciders.values():
            for strategy, symbol, time in deciders.forgotten():
                writer.delete_state(_ROOT, self.dataset, "said", strategy, symbol, _text(time))


def changes_of(pipeline: Pipeline, made: Made) -> Changes:
    """What a batch changes of the kept state."""
    changes = Changes()
    native = pipeline.natives.interval
    for interval, bars in made.bars.items():
        for bar, revision, _ in bars:
            kept, time = bar.packed(revision), _text(bar.open_time)
            if interval == native:
                changes.put(kept, "native", bar.symbol, time)
            if interval in pipeline.lines:
                changes.put(kept, "line", interval, bar.symbol, time)
    for symbol, at in made.untraded:
        changes.put(b"", "untraded", symbol, _text(at))
    for _, symbol, at in made.forgotten:
        changes.delete("native", symbol, _text(at))
        changes.delete("untraded", symbol, _text(at))
    for interval, symbol in made.moved:
        lines = pipeline.lines[interval]
        changes.delete_before("line", interval, symbol, _text(lines.begins(symbol)))
        stored = lines.stored(symbol)
        if stored is not None:
            changes.put(orjson.dumps(stored), "sums", interval, symbol)
    for said, _, _ in made.signals:
        changes.put(orjson.dumps((said.says, said.revision)), "said", said.strategy, said.symbol, _text(said.time))
    return changes


def _text(time: int) -> str:
    """A time in the order of its number."""
    return f"{time:020d}"
