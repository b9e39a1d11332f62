"""The hot store: what is asked for often, ready to be sent, in one memory-mapped LMDB file a host.

The live path and the asset graph write it; the API reads it, and opens no lake. It holds nothing that can't be made
again: a store that is missing or damaged is made anew from the lake and the bus.

- `latest`: the newest price of a symbol, JSON.
- `series`: blocks of rows (`rows.Block`) by dataset, kind, symbol and session; a kind is `bars/1m`, `bars/1d/split`
  (bars adjusted for splits), `features/1h` and the like. The newest rows of a session may be in a second block, its
  tail.
- `facts`: JSON by name, such as a strategy's positions or a dataset's coverage of a session.
- `journal`: what happened, in order of its sequence number; who is pushed to reads on from its own.
- `state`: bytes by name that belong to one writer, such as the offsets and the state of the live path. They change in
  the transaction of the values that follow from them.

LMDB lets one writer in at a time, over all processes, and readers never wait. Nothing is forced to the disk at the end
of a transaction: a killed process loses nothing, a power cut may take the store.
"""

from __future__ import annotations

import os
import struct
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any
from zlib import crc32

import lmdb

from quantlytic_assets.serving.rows import Block

# Address space, not disk: the file grows with what is in it.
_MAP_BYTES = 1 << 36
_DATABASES = ("latest", "series", "facts", "journal", "state")
_SEQUENCE = struct.Struct(">Q")
_LAST_SEQUENCE = b"\0sequence"
_EPOCH = b"\0epoch"
# So many old entries of the journal go with those that come, for no writer to wait long.
_MOST_GONE = 10_000
# A session's tail: rows are added to it, for its block not to be written anew with each of them. Its key follows that
# of the block.
_TAIL = b"+"
# A tail with so many rows goes into its block, and it may be with up to as many more: those of all symbols, which get
# their rows together, shall not do so together.
_TAIL_ROWS = 32


class HotStoreError(Exception):
    """The store can't be opened or read; the message says what to do."""


@dataclass(frozen=True)
class Entry:
    """One entry of the journal: its number, its channel such as `("bars", "crypto_1m", "1m", "BTC-USD")`, its JSON."""

    sequence: int
    channel: tuple[str, ...]
    body: bytes


def _key(*parts: str) -> bytes:
    name = "\0".join(parts)
    if name.count("\0") >= len(parts) > 0:
        raise ValueError(f"{parts}: a name holds a zero byte")
    return name.encode()


@dataclass(frozen=True)
class _Opened:
    """An LMDB environment with its databases."""

    environment: lmdb.Environment
    databases: dict[str, Any]


# An environment may be opened once in a process, and not be used by a child that was forked with it.
_open: dict[tuple[int, str, bool], _Opened] = {}
_opening = threading.Lock()


def _open_once(path: Path, readonly: bool) -> _Opened:
    name = os.path.realpath(path)
    with _opening:
        # One that writes can read as well.
        for writes in (False, True) if readonly else (False,):
            found = _open.get((os.getpid(), name, writes))
            if found is not None:
                return found
        try:
            if not readonly:
                path.mkdir(parents=True, exist_ok=True)
            made = lmdb.open(
                name, map_size=_MAP_BYTES, max_dbs=len(_DATABASES), readonly=readonly, create=not readonly,
                sync=False, metasync=False, max_readers=512, max_spare_txns=8,
            )  # fmt: skip
        except lmdb.Error as error:
            raise HotStoreError(
                f"the hot store in {path} can't be opened ({error}); "
                "delete that directory, it is made anew by: quantlytic publish"
            ) from error
        try:
            databases = _databases_of(made, create=not readonly)
        except lmdb.Error as error:
            made.close()
            raise HotStoreError(f"{path} is no hot store ({error}); make one with: quantlytic publish") from error
        found = _open[os.getpid(), name, readonly] = _Opened(made, databases)
        return found


def _databases_of(environment: lmdb.Environment, create: bool) -> dict[str, Any]:
    """The databases, which have to be there before a reader can open them.

    In a transaction of our own: `open_db` by itself would wait for another writer with Python's global lock held.
    """
    with environment.begin(write=create) as transaction:
        return {name: environment.open_db(name.encode(), transaction, create=create) for name in _DATABASES}


class HotStore:
    """The store in a directory. Reading needs no call to open; each read is one moment of the store."""

    def __init__(self, path: Path, readonly: bool = False):
        self.path = Path(path)
        self._opened = _open_once(self.path, readonly)

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """What the store holds at one moment."""
        with self._opened.environment.begin(buffers=True) as transaction:
            yield Reader(transaction, self._opened.databases)

    @contextmanager
    def write(self) -> Iterator[Writer]:
        """A transaction: all of it, or, where the block raises or the process dies, nothing."""
        with self._opened.environment.begin(write=True, buffers=True) as transaction:
            writer = Writer(transaction, self._opened.databases)
            yield writer
            writer.end()

    def sync(self) -> None:
        """Force what was written to the disk."""
        self._opened.environment.sync(True)

    def close(self) -> None:
        """Let go of the file; no other store of this process on the same directory may be in use."""
        with _opening:
            for place, one in list(_open.items()):
                if one is self._opened:
                    del _open[place]
        self._opened.environment.close()


class Reader:
    """The store as it is at one moment; see `HotStore.read`."""

    def __init__(self, transaction: lmdb.Transaction, databases: dict[str, Any]):
        self._transaction = transaction
        self._databases = databases

    def _get(self, database: str, key: bytes) -> bytes | None:
        found = self._transaction.get(key, db=self._databases[database])
        return None if found is None else bytes(found)

    def _scan(self, database: str, first: bytes, prefix: bytes) -> Iterator[tuple[bytes, bytes | memoryview]]:
        """Keys and values from `first` on, as long as keys have the prefix."""
        with self._transaction.cursor(db=self._databases[database]) as cursor:
            if not cursor.set_range(first):
                return
            for key, value in cursor:
                name = bytes(key)
                if not name.startswith(prefix):
                    return
                yield name, value

    def latest(self, dataset: str, symbol: str) -> bytes | None:
        """The newest price of a symbol, JSON."""
        return self._get("latest", _key(dataset, symbol))

    def block(self, dataset: str, kind: str, symbol: str, session: date) -> Block | None:
        """The rows of a session."""
        key, series = _key(dataset, kind, symbol, session.isoformat()), self._databases["series"]
        found = [self._transaction.get(name, db=series) for name in (key, key + _TAIL)]
        blocks = [Block.unpacked(one) for one in found if one is not None]
        return Block.joined(blocks) if blocks else None

    def blocks(
        self, dataset: str, kind: str, symbol: str, since: date = date.min, before: date = date.max
    ) -> Iterator[tuple[date, Block]]:
        """The sessions [since, before) that have rows, oldest first."""
        prefix = _key(dataset, kind, symbol, "")
        found = self._scan("series", prefix + since.isoformat().encode(), prefix)
        for day, parts in groupby(found, lambda one: one[0][len(prefix) :].removesuffix(_TAIL)):
            session = date.fromisoformat(day.decode())
            if session >= before:
                return
            yield session, Block.joined([Block.unpacked(value) for _, value in parts])

    def newest_blocks(
        self, dataset: str, kind: str, symbol: str, before: date = date.max
    ) -> Iterator[tuple[date, Block]]:
        """The sessions before a date that have rows, newest first."""
        prefix = _key(dataset, kind, symbol, "")
        with self._transaction.cursor(db=self._databases["series"]) as cursor:
            # Where no later key is, the newest is the very last one.
            later = cursor.set_range(prefix + before.isoformat().encode())
            there = cursor.prev() if later else cursor.last()
            while there and bytes(cursor.key()).startswith(prefix):
                key = bytes(cursor.key())
                own, block = key.removesuffix(_TAIL), Block.unpacked(cursor.value())
                there = cursor.prev()
                if own != key and there and bytes(cursor.key()) == own:
                    block = Block.joined((Block.unpacked(cursor.value()), block))
                    there = cursor.prev()
                yield date.fromisoformat(own[len(prefix) :].decode()), block

    def fact(self, *name: str) -> bytes | None:
        """The JSON of this name."""
        return self._get("facts", _key(*name))

    def facts(self, *prefix: str, since: str = "") -> Iterator[tuple[tuple[str, ...], bytes]]:
        """Names, without the prefix, and JSON of all facts whose names go on after the prefix, from `since` on."""
        start = _key(*prefix, "")
        for key, value in self._scan("facts", start + since.encode(), start):
            yield tuple(key[len(start) :].decode().split("\0")), bytes(value)

    def kinds(self, dataset: str) -> dict[str, list[str]]:
        """The symbols that a dataset has blocks of, by kind."""
        found: dict[str, list[str]] = {}
        prefix = _key(dataset, "")
        with self._transaction.cursor(db=self._databases["series"]) as cursor:
            there = cursor.set_range(prefix)
            while there and bytes(cursor.key()).startswith(prefix):
                kind, symbol, _ = bytes(cursor.key())[len(prefix) :].decode().split("\0")
                found.setdefault(kind, []).append(symbol)
                # On to the next symbol: no session's name has a byte of this value.
                there = cursor.set_range(_key(dataset, kind, symbol, "") + b"\xff")
        return found

    def state(self, *name: str) -> bytes | None:
        """The bytes that a writer keeps under this name."""
        return self._get("state", _key(*name))

    def states(self, *prefix: str) -> Iterator[tuple[tuple[str, ...], bytes]]:
        """Names, without the prefix, and bytes of all that writers keep under names that go on after the prefix."""
        start = _key(*prefix, "")
        for key, value in self._scan("state", start, start):
            yield tuple(key[len(start) :].decode().split("\0")), bytes(value)

    @property
    def moment(self) -> int:
        """A number that grows with each transaction that writes: what was read at the same moment is the same."""
        return self._transaction.id()

    @property
    def epoch(self) -> str:
        """What tells this store from one that was made anew: sequence numbers of another one mean nothing here."""
        return (self._get("state", _EPOCH) or b"").decode()

    @property
    def sequence(self) -> int:
        """The number of the newest entry of the journal, 0 where it never had one."""
        found = self._get("state", _LAST_SEQUENCE)
        return _SEQUENCE.unpack(found)[0] if found else 0

    @property
    def oldest_sequence(self) -> int:
        """The number of the oldest entry that is kept, one more than `sequence` where none is."""
        with self._transaction.cursor(db=self._databases["journal"]) as cursor:
            return _SEQUENCE.unpack(cursor.key())[0] if cursor.first() else self.sequence + 1

    def journal(self, after: int, most: int = 10_000) -> list[Entry]:
        """The entries that follow the number `after`, at most so many, oldest first."""
        entries: list[Entry] = []
        for key, value in self._scan("journal", _SEQUENCE.pack(after + 1), b""):
            channel, body = bytes(value).split(b"\n", 1)
            entries.append(Entry(_SEQUENCE.unpack(key)[0], tuple(channel.decode().split("\0")), body))
            if len(entries) >= most:
                break
        return entries


class Writer(Reader):
    """The store as this transaction leaves it; see `HotStore.write`."""

    # The number of the newest entry that this transaction has appended, 0 of none.
    _told = 0

    @property
    def sequence(self) -> int:
        """See `Reader.sequence`."""
        return self._told or super().sequence

    def end(self) -> None:
        """Write what is written once for all entries of the journal."""
        if self._told:
            self._put("state", _LAST_SEQUENCE, _SEQUENCE.pack(self._told))

    def _put(self, database: str, key: bytes, value: bytes) -> None:
        self._transaction.put(key, value, db=self._databases[database])

    def put_latest(self, dataset: str, symbol: str, body: bytes) -> None:
        """Set the newest price of a symbol, JSON."""
        self._put("latest", _key(dataset, symbol), body)

    def put_block(self, dataset: str, kind: str, symbol: str, session: date, block: Block) -> None:
        """Set the rows of a session in place of those that are there."""
        key = _key(dataset, kind, symbol, session.isoformat())
        self._put("series", key, block.packed())
        self._transaction.delete(key + _TAIL, db=self._databases["series"])

    def add_rows(self, dataset: str, kind: str, symbol: str, session: date, rows: Iterable[tuple[int, bytes]]) -> None:
        """Add rows (microseconds since 1970, JSON) to a session; one of a time that is there takes its place."""
        key, series = _key(dataset, kind, symbol, session.isoformat()), self._databases["series"]
        found, kept = self._transaction.get(key, db=series), self._transaction.get(key + _TAIL, db=series)
        tail = Block(0, -1, b"") if kept is None else Block.unpacked(kept)
        told = list(rows)
        if found is not None and told and min(told)[0] <= Block.last_of(found):
            self.put_block(dataset, kind, symbol, session, Block.joined((Block.unpacked(found), tail)).with_rows(told))
            return
        tail = tail.with_rows(told)
        if tail.count < _TAIL_ROWS + crc32(key) % _TAIL_ROWS:
            self._put("series", key + _TAIL, tail.packed())
        else:
            block = tail if found is None else Block.joined((Block.unpacked(found), tail))
            self.put_block(dataset, kind, symbol, session, block)

    def delete_block(self, dataset: str, kind: str, symbol: str, session: date) -> None:
        """Delete the rows of a session, if there are any."""
        key = _key(dataset, kind, symbol, session.isoformat())
        for name in (key, key + _TAIL):
            self._transaction.delete(name, db=self._databases["series"])

    def forget_blocks(self, dataset: str, kind: str, symbol: str, before: date = date.max) -> int:
        """Delete the sessions before a date; returns how many there were."""
        sessions = [session for session, _ in self.blocks(dataset, kind, symbol, before=before)]
        for session in sessions:
            self.delete_block(dataset, kind, symbol, session)
        return len(sessions)

    def put_fact(self, body: bytes, *name: str) -> None:
        """Set the JSON of this name."""
        self._put("facts", _key(*name), body)

    def delete_fact(self, *name: str) -> None:
        """Delete the JSON of this name, if it is there."""
        self._transaction.delete(_key(*name), db=self._databases["facts"])

    def put_state(self, value: bytes, *name: str) -> None:
        """Keep these bytes under this name."""
        self._put("state", _key(*name), value)

    def delete_state(self, *name: str) -> None:
        """Delete the bytes under this name, if they are there."""
        self._transaction.delete(_key(*name), db=self._databases["state"])

    def tell(self, channel: tuple[str, ...], body: bytes, keep: int = 1_000_000) -> int:
        """Append to the journal, JSON; returns its number. All but the newest `keep` entries go in time."""
        if not self._told and not self.epoch:
            self._put("state", _EPOCH, uuid.uuid4().hex[:12].encode())
        number = self._told = self.sequence + 1
        self._put("journal", _SEQUENCE.pack(number), _key(*channel) + b"\n" + body)
        if number % 1000 == 0:
            self._shorten(number - keep)
        return number

    def _shorten(self, last_gone: int) -> None:
        with self._transaction.cursor(db=self._databases["journal"]) as cursor:
            there = cursor.first()
            for _ in range(_MOST_GONE):
                if not there or _SEQUENCE.unpack(cursor.key())[0] > last_gone:
                    return
                there = cursor.delete()
