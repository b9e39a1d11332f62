"""The bus: append-only topics with partitions and offsets, read by explicit ranges.

`Bus` is what sensors and landing code see; `LocalBus` keeps it on disk without a server, `kafka_bus` in Apache Kafka.
What a record means is not known here (`market_data.wire` does that), nor who lands it (`landing`).
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from quantlytic_assets.storage.sqlite import PATIENCE, use_write_ahead_log

DEAD_LETTERS = "dead_letters"
_TICKS = "ticks."
# So many records at most go with one that comes, for nobody to wait long.
_MOST_GONE = 50_000
# How long a tail sleeps between two glances at a topic's files.
_GLANCE_SECONDS = 0.004


def bars_topic(dataset: str) -> str:
    """The topic that carries a dataset's bars."""
    return f"bars.{dataset}"


def made_bars_topic(interval: str, dataset: str) -> str:
    """The topic that carries the bars of an interval that the live path makes of a dataset."""
    return f"bars.{interval}.{dataset}"


def signals_topic(strategy: str) -> str:
    """The topic that carries the signals of a strategy that the live path makes."""
    return f"signals.{strategy}"


def ticks_topic(market: str) -> str:
    """The topic that carries a market's trades."""
    return f"{_TICKS}{market}"


class BusUnavailable(Exception):
    """The bus does not answer; the same call may do better later. The message says where it was looked for."""


@dataclass(frozen=True)
class Records:
    """A stretch of one topic partition in offset order; the four lists have one entry a record.

    Equal headers are the same string object, so that whoever reads them can tell at a glance that all are alike.
    """

    offsets: list[int]
    keys: list[str | None]
    headers: list[str]
    values: list[bytes]

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(frozen=True)
class Sending:
    """Records on their way to a topic.

    wait: waits until they are durable; it may raise `BusUnavailable`, and is to be called once, by the thread that sent
    them. done: whether that would take no time.
    """

    wait: Callable[[], None]
    done: Callable[[], bool] = lambda: True


class Bus(Protocol):
    """Topics of records; offsets start at 0 in every partition and never change their record.

    Records of one key keep their order. Each method may raise `BusUnavailable`.
    """

    def create(self, topic: str) -> None:
        """Make a topic; nothing happens where it exists."""

    def prepare(self, topic: str) -> None:
        """Make a topic if need be, and all connections that the first record sent to it would wait for."""

    def identity(self, topic: str) -> str | None:
        """What tells a topic from one of the same name made after it was deleted; None for an unknown topic."""

    def publish(
        self, topic: str, values: Sequence[bytes], keys: Sequence[str | None], headers: Mapping[str, str]
    ) -> None:
        """Append records, durable on return, making the topic if need be. `headers` go on each of them.

        Raises `ValueError` where values and keys differ in number.
        """

    def send(
        self, topic: str, values: Sequence[bytes], keys: Sequence[str | None], headers: Mapping[str, str]
    ) -> Sending:
        """Begin to append records as `publish` does.

        Until they were waited for it is not known which of them are there. What is sent first to a topic stands there
        first.
        """

    def watermarks(self, topic: str) -> dict[int, tuple[int, int]]:
        """First kept offset and end offset (one past the last) of each partition; empty for an unknown topic."""

    def read(self, topic: str, partition: int, first: int, last: int) -> Records:
        """The records of [first, last). Raises `LookupError` where the range is not wholly there."""

    def tail(
        self, topic: str, after: Mapping[int, int], wait: float, most: int = 50_000, only_values: bool = False
    ) -> dict[int, Records]:
        """What is new: of each partition that has any the records from its offset in `after` on, about `most` in all.

        Waits up to `wait` seconds for the first of them; empty where none came. Partitions that `after` does not name
        are not read. only_values: whether keys and headers are not wanted, which may be None and empty then. Raises
        `LookupError` where a partition no longer has its offset.
        """


class LocalBus:
    """A bus in a directory: one SQLite log a topic, one partition each, safe for many processes at once.

    Ticks go when they are older than `ticks_hours` and newer ones come: their bars stay, and a live feed brings more of
    them in a day than all bars together. `clock` gives seconds since 1970 and is there for tests.
    """

    def __init__(self, root: Path, ticks_hours: float = 72, clock: Callable[[], float] = time.time):
        self.root = Path(root)
        self._ticks_seconds = ticks_hours * 3600
        self._clock = clock
        # The state of a topic's files in which nothing stood at an offset and after it.
        self._nothing_new: dict[tuple[str, int], tuple[int, ...]] = {}

    def _path(self, topic: str) -> Path:
        return self.root / f"{topic}.sqlite"

    @contextmanager
    def _open(self, topic: str) -> Iterator[sqlite3.Connection]:
        # isolation_level None: transactions are begun by hand, so that an append takes its lock before it looks.
        with closing(sqlite3.connect(self._path(topic), timeout=PATIENCE, isolation_level=None)) as connection:
            yield connection

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Begin a transaction that may write, in a file that has its tables."""
        use_write_ahead_log(connection)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS records ("
            '"offset" INTEGER PRIMARY KEY, published_at REAL, key TEXT, headers TEXT, value BLOB)'
        )
        connection.execute("CREATE TABLE IF NOT EXISTS topic (identity TEXT)")
        connection.execute("INSERT INTO topic SELECT ? WHERE NOT EXISTS (SELECT 1 FROM topic)", (uuid4().hex,))

    def create(self, topic: str) -> None:
        """See `Bus.create`."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self._open(topic) as connection:
            self._begin(connection)
            connection.execute("COMMIT")

    def prepare(self, topic: str) -> None:
        """See `Bus.prepare`."""
        self.create(topic)

    def identity(self, topic: str) -> str | None:
        """See `Bus.identity`."""
        if not self._path(topic).exists():
            return None
        # A file from before topics had an identity gets one now.
        self.create(topic)
        with self._open(topic) as connection:
            return connection.execute("SELECT identity FROM topic").fetchone()[0]

    def publish(
        self, topic: str, values: Sequence[bytes], keys: Sequence[str | None], headers: Mapping[str, str]
    ) -> None:
        """See `Bus.publish`; all the records or, if the process dies, none of them."""
        if len(values) != len(keys):
            raise ValueError(f"{len(values)} values with {len(keys)} keys")
        if not values:
            return
        self.root.mkdir(parents=True, exist_ok=True)
        head = json.dumps(dict(headers), sort_keys=True)
        with self._open(topic) as connection:
            self._begin(connection)
            start = connection.execute('SELECT coalesce(max("offset") + 1, 0) FROM records').fetchone()[0]
            now = self._clock()
            connection.executemany(
                "INSERT INTO records VALUES (?, ?, ?, ?, ?)",
                zip(
                    range(start, start + len(values)),
                    (now for _ in values),
                    keys,
                    (head for _ in values),
                    values,
                ),
            )
            if topic.startswith(_TICKS):
                self._forget(connection, now - self._ticks_seconds, start)
            connection.execute("COMMIT")

    def send(
        self, topic: str, values: Sequence[bytes], keys: Sequence[str | None], headers: Mapping[str, str]
    ) -> Sending:
        """See `Bus.send`: they are durable when this returns."""
        self.publish(topic, values, keys, headers)
        return Sending(lambda: None)

    @staticmethod
    def _forget(connection: sqlite3.Connection, before: float, first_kept: int) -> None:
        """Delete the oldest records up to `first_kept`, as far as they were published before that time."""
        oldest = connection.execute('SELECT published_at FROM records ORDER BY "offset" LIMIT 1').fetchone()[0]
        if oldest < before:
            connection.execute(
                'DELETE FROM records WHERE "offset" IN (SELECT "offset" FROM records WHERE "offset" < ? '
                'ORDER BY "offset" LIMIT ?) AND published_at < ?',
                (first_kept, _MOST_GONE, before),
            )

    def watermarks(self, topic: str) -> dict[int, tuple[int, int]]:
        """See `Bus.watermarks`."""
        if not self._path(topic).exists():
            return {}
        with self._open(topic) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'records'").fetchone():
                return {}
            first, last = connection.execute('SELECT min("offset"), max("offset") FROM records').fetchone()
        return {0: (first, last + 1)} if last is not None else {0: (0, 0)}

    def read(self, topic: str, partition: int, first: int, last: int) -> Records:
        """See `Bus.read`."""
        if partition != 0 or not self._path(topic).exists():
            raise LookupError(f"the bus has no partition {partition} of topic {topic}")
        records = self._records(topic, first, last)
        if len(records) != last - first:
            raise LookupError(f"topic {topic} has {len(records)} of the {last - first} records of [{first}, {last})")
        return records

    def tail(
        self, topic: str, after: Mapping[int, int], wait: float, most: int = 50_000, only_values: bool = False
    ) -> dict[int, Records]:
        """See `Bus.tail`; a look at the times of two files tells whether anybody has written."""
        if 0 not in after:
            return {}
        first, deadline = after[0], time.monotonic() + wait
        while True:
            seen = self._written(topic)
            if seen is not None and seen != self._nothing_new.get((topic, first)):
                records = self._records(topic, first, first + most)
                if len(records):
                    if records.offsets[0] != first:
                        raise LookupError(f"topic {topic} begins with {records.offsets[0]}, not with {first}")
                    return {0: records}
                # Asked before the look: what was written meanwhile is looked for again.
                self._nothing_new = {(topic, first): seen}
            left = deadline - time.monotonic()
            if left <= 0:
                return {}
            time.sleep(min(left, _GLANCE_SECONDS))

    def _written(self, topic: str) -> tuple[int, ...] | None:
        """What changes with every append to a topic; None where there is no topic."""
        found: list[int] = []
        path = self._path(topic)
        for one in (path, path.with_name(f"{path.name}-wal")):
            try:
                status = one.stat()
            except FileNotFoundError:
                if one == path:
                    return None
                continue
            found += (status.st_ino, status.st_size, status.st_mtime_ns)
        return tuple(found)

    def _records(self, topic: str, first: int, last: int) -> Records:
        """The records of [first, last) that are there."""
        with self._open(topic) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'records'").fetchone():
                return Records([], [], [], [])
            rows = connection.execute(
                'SELECT "offset", key, headers, value FROM records WHERE "offset" >= ? AND "offset" < ? '
                'ORDER BY "offset"',
                (first, last),
            ).fetchall()
        if not rows:
            return Records([], [], [], [])
        offsets, keys, headers, values = (list(column) for column in zip(*rows, strict=True))
        return Records(offsets, keys, [sys.intern(header) for header in headers], values)
