"""Compaction: many small segments of a partition made into one object, laid out by symbol and time.

In steps, each of which may be the last that a killed process does:

1. The segments (of landings that are done) and earlier compacted objects are read, each segment counted against its
   landing's own record, and written as one new object. Nobody counts it yet.
2. It is read back the way every reader reads it, and compared with what it was made from: each value of each row, and
   which object and row it came from.
3. The next manifest is written, if nobody wrote it first; from then on the new object counts and the old ones don't.
4. After a time of grace, for those who are still reading them, the old ones are deleted.

Manifests are numbered, and one number is given once: of several compactions at once one goes on, the others' objects
never count. An object can only be brought into force by the manifest whose number is in its name, so what has missed
its number is rubbish for good. What a manifest replaces, it and its successors replace for ever: a landing that was
held up for a day and writes its segment again adds nothing.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import obstore
import polars as pl
from obstore.exceptions import AlreadyExistsError

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.market_data.bars import SOURCED_SCHEMA
from quantlytic_assets.storage.archive import Archive, Claim, StoredObject
from quantlytic_assets.storage.manifests import (
    ArchiveDamaged,
    Contents,
    Manifest,
    Stored,
    compacted_name,
    compaction_number,
    contents,
    is_compacted,
    list_stored,
    manifest_name,
    read_manifest,
)

# By symbol, then time; what else may be equal is told apart by where it came from, so that a set of rows has one order.
_ORDER = ("symbol", "open_time", "source_object", "source_row")
# Few enough that a reader of one symbol skips most of a session.
_ROW_GROUP = 20_000
_READ_AT_ONCE = 8


class CompactionError(Exception):
    """A compacted object does not hold what it was made from. Nothing was replaced by it."""


@dataclass
class Compacted:
    """What a compaction of a dataset did.

    `merged` objects became fewer, `deleted` ones had been replaced before. `left_alone`: segments whose landing is not
    done. `problems`: partitions that were left as they were because something in them is not as it should be.
    """

    partitions: int = 0
    merged: int = 0
    rows: int = 0
    bytes_merged: int = 0
    bytes_written: int = 0
    deleted: int = 0
    left_alone: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


class Compactor:
    """Compacts one dataset of an archive.

    `grace`: how long after its replacement an object is kept for those who may be reading it. `most_bytes`: segments
    are merged up to this size at once, which bounds memory at some 30 times as much; objects of half of it or more
    are left as they are.
    """

    def __init__(
        self,
        archive: Archive,
        dataset: str,
        grace: timedelta = timedelta(hours=1),
        most_bytes: int = 16 << 20,
    ):
        self.archive = archive
        self.store = archive.store
        self.dataset = dataset
        self.grace = grace
        self.most_bytes = most_bytes

    def run(self, closed: Callable[[str], bool], progress: Callable[[str], None] | None = None) -> Compacted:
        """Merge the segments of partitions whose key `closed` says is over, then delete what is long replaced.

        `progress` is called with each partition key that was changed. Raises `ArchiveDamaged` where a compacted object
        is gone; whatever else is wrong with a partition is told among the `problems`, and the others go on.
        """
        outcome = Compacted()
        for found in contents(self.store, self._listed()):
            key = found.folder.rpartition("=")[2]
            before = (outcome.merged, outcome.deleted)
            try:
                if len(self._group(found.live)) > 1 and closed(key):
                    self._merge_partition(found, outcome)
                if len(found.stored) > len(found.live) + (found.number > 0):
                    outcome.deleted += self.clear(found.folder)
            except (CompactionError, ArchiveDamaged) as error:
                outcome.problems.append(str(error))
            if progress and (outcome.merged, outcome.deleted) != before:
                progress(key)
        return outcome

    def _listed(self) -> Iterable[Stored]:
        offset = f"{self.dataset}/partition="
        return [one for one in list_stored(self.store, f"{self.dataset}/", offset) if one.folder.startswith(offset)]

    def _merge_partition(self, found: Contents, outcome: Compacted) -> None:
        while len(group := self._group(found.live)) > 1 and self._merge(found, group, outcome):
            (found,) = contents(self.store, list_stored(self.store, f"{found.folder}/"))

    def _group(self, live: Sequence[Stored]) -> list[Stored]:
        """The next objects to be merged: small ones, in the order of names, as many as fit."""
        group: list[Stored] = []
        size = 0
        for one in live:
            if one.size < self.most_bytes / 2 and size + one.size <= self.most_bytes:
                group.append(one)
                size += one.size
        return group

    def _merge(self, found: Contents, group: list[Stored], outcome: Compacted) -> bool:
        """Make one object of several and bring it into force; whether that was done."""
        try:
            standing = read_manifest(self.store, found.folder, found.number)
            parts = list(zip(group, self._read(group), strict=True))
        except FileNotFoundError:
            # Whoever compacted this meanwhile may have deleted it already.
            self._check_replaced(found)
            return False
        outcome.left_alone |= {one.path for one, rows in parts if rows is None}
        taken = [one for one, rows in parts if rows is not None]
        if len(taken) < 2:
            return False
        wanted = pl.concat(rows for _, rows in parts if rows is not None).sort(_ORDER)
        number = found.number + 1
        made = self._write(found.folder, number, taken, wanted)
        self._verify(made, wanted)
        manifest = _successor(standing, taken, made)
        try:
            obstore.put(self.store, f"{found.folder}/{manifest_name(number)}", manifest.to_json(), mode="create")
        except AlreadyExistsError:
            return False
        outcome.partitions += 1
        outcome.rows += len(wanted)
        outcome.merged += len(taken)
        outcome.bytes_merged += sum(one.size for one in taken)
        outcome.bytes_written += made.size
        return True

    def _check_replaced(self, found: Contents) -> None:
        """Raise where an object is gone although nobody has replaced it."""
        newest = contents(self.store, list_stored(self.store, f"{found.folder}/"))
        if not newest or newest[0].number == found.number:
            raise ArchiveDamaged(f"an object of {found.folder} is gone that was listed a moment ago")

    def _read(self, group: list[Stored]) -> list[pl.DataFrame | None]:
        """Each object's rows as SOURCED_SCHEMA; None for a segment whose landing is not done."""
        with ThreadPoolExecutor(_READ_AT_ONCE) as threads:
            return list(threads.map(self._read_one, group))

    def _read_one(self, one: Stored) -> pl.DataFrame | None:
        if is_compacted(one.name):
            return self._frame(one.path).select(SOURCED_SCHEMA.names())
        landed = self._landed(one)
        if landed is None:
            return None
        rows = self._frame(one.path).with_columns(
            pl.lit(one.path).alias("source_object"), pl.int_range(pl.len(), dtype=pl.Int64).alias("source_row")
        )
        if len(rows) != landed:
            raise CompactionError(f"{one.path} holds {len(rows)} rows, where its landing wrote {landed}")
        return rows.select(SOURCED_SCHEMA.names())

    def _landed(self, segment: Stored) -> int | None:
        """How many rows a segment's landing says it wrote; None when that landing is not done."""
        source, _, offsets = segment.name.removesuffix(".parquet").rpartition(".")
        topic, _, partition = source.rpartition(".")
        first, _, last = offsets.partition("-")
        try:
            done = self.archive.with_landed(self.dataset, Claim(topic, int(partition), int(first), int(last)))
        except FileNotFoundError:
            return None
        return (done.landed or {}).get(segment.folder.rpartition("=")[2], {}).get("rows")

    def _frame(self, path: str) -> pl.DataFrame:
        return pl.read_parquet(io.BytesIO(obstore.get(self.store, path).bytes()))

    def _write(self, folder: str, number: int, taken: list[Stored], rows: pl.DataFrame) -> Stored:
        # The same objects make the same name: what a killed compaction left is used by the next.
        digest = hashlib.sha256("\n".join(one.path for one in taken).encode()).hexdigest()
        path = f"{folder}/{compacted_name(number, digest)}"
        content = _parquet(rows)
        try:
            obstore.put(self.store, path, content, mode="create")
        except AlreadyExistsError:
            # Still to be verified, like one's own.
            return Stored(path, obstore.head(self.store, path)["size"], datetime.now(UTC))
        return Stored(path, len(content), datetime.now(UTC))

    def _verify(self, made: Stored, wanted: pl.DataFrame) -> None:
        key = made.folder.rpartition("=")[2]
        found = self.archive.read([StoredObject(made.path, key, made.size)], taken_back=True).sort(_ORDER)
        if not _bits(found).equals(_bits(wanted)):
            raise CompactionError(f"{made.path} does not hold the rows that it was made from; it replaces nothing")

    def clear(self, folder: str, now: datetime | None = None) -> int:
        """Delete what has been replaced for longer than the grace, and what never came into force; returns how many.

        Raises `ArchiveDamaged`, before anything is deleted, unless all that replaces it is there in full.
        """
        stored = list(list_stored(self.store, f"{folder}/"))
        numbers = [compaction_number(one.name) or 0 for one in stored if one.name.endswith(".json")]
        if not numbers:
            return 0
        newest = max(numbers)
        try:
            manifest = read_manifest(self.store, folder, newest)
        except FileNotFoundError:
            # Replaced and deleted since it was listed: somebody else is at it.
            return 0
        sizes = {one.name: one.size for one in stored}
        written = next(one.modified for one in stored if one.name == manifest_name(newest))
        if (now or datetime.now(UTC)) - written < self.grace:
            return 0
        wrong = [name for name, size in manifest.objects.items() if sizes.get(name) != size]
        if wrong:
            raise ArchiveDamaged(f"{', '.join(wrong)} of {folder} is gone or cut off; nothing was deleted for it")
        doomed = [one.path for one in stored if _is_over(one.name, manifest)]
        for path in doomed:
            try:
                obstore.delete(self.store, path)
            except FileNotFoundError:
                # Another process deletes the same.
                continue
        return len(doomed)


def _successor(standing: Manifest, taken: list[Stored], made: Stored) -> Manifest:
    """The next manifest: the new object among those that count, and all that any of them replaces."""
    names = {one.name for one in taken}
    kept = {name: size for name, size in standing.objects.items() if name not in names}
    return Manifest(standing.number + 1, kept | {made.name: made.size}, standing.replaces | names)


def _is_over(name: str, manifest: Manifest) -> bool:
    """Whether what has this name can never count again."""
    if name in manifest.objects:
        return False
    number = compaction_number(name)
    if number is None:
        return name in manifest.replaces
    # What has a later number may yet be brought into force.
    return number < manifest.number or (number == manifest.number and name.endswith(".parquet"))


def _parquet(rows: pl.DataFrame) -> bytes:
    """Rows as a Parquet file. Whole numbers and times go as differences: in this order they take half as much so."""
    import pyarrow.parquet as pq

    strings = [name for name, kind in SOURCED_SCHEMA.items() if kind == pl.String]
    whole = [name for name, kind in SOURCED_SCHEMA.items() if kind in (pl.Int64, TIME)]
    buffer = io.BytesIO()
    pq.write_table(
        rows.to_arrow(),
        buffer,
        row_group_size=_ROW_GROUP,
        compression="zstd",
        use_dictionary=strings,
        column_encoding=dict.fromkeys(whole, "DELTA_BINARY_PACKED"),
    )
    return buffer.getvalue()


def _bits(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with their numbers as bits: equal only where every digit, sign and NaN is."""
    return rows.select(SOURCED_SCHEMA.names()).with_columns(pl.col(pl.Float64).reinterpret(dtype=pl.UInt64))
