"""Segments for the compaction tests, and compactions that other processes do and die in."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.synchronize import Barrier

import obstore
import polars as pl
import pytest

from quantlytic_assets.storage.archive import Archive, Claim
from quantlytic_assets.storage.compaction import Compacted, Compactor
from quantlytic_tests.frames import make_bars, minutes, utc
from quantlytic_tests.storage.places import Place

DATASET = "sample_set"
TOPIC = "bars.sample_set"
DAY = "2025-05-10"


def segment(day: str, number: int, count: int = 40) -> pl.DataFrame:
    """Bars of two symbols that overlap those of the segments before and after, each time with other values."""
    start = utc(f"{day}T00:00") + timedelta(minutes=number * count // 2)
    bars = pl.concat(
        make_bars(symbol, minutes(start, count), close=100.0 + number / 7, vwap=None if number % 2 else 100.1)
        for symbol in ("B", "A")
    )
    return bars.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("bus_offset") + 1_000 * number)


def land_segment(
    archive: Archive, day: str, number: int, topic: str = TOPIC, partition: int = 0, done: bool = True
) -> str:
    """Put one segment into the archive as a landing does; its path."""
    rows = segment(day, number)
    claim = archive.claim(DATASET, topic, partition, 1_000 * number, 1_000 * (number + 1))
    size = archive.write(DATASET, f"partition={day}", claim, rows)
    if done:
        # One landing may write to several days.
        (standing,) = [one for one in archive.claims(DATASET, topic, partition) if one.first == claim.first]
        landed = archive.with_landed(DATASET, standing).landed if standing.done else {}
        archive.mark_done(DATASET, claim, landed | {day: {"rows": len(rows), "bytes": size}})
    return path_of(claim, day)


def lose_a_row(archive: Archive, path: str) -> None:
    """Write an object anew without its last row."""
    buffer = io.BytesIO()
    pl.read_parquet(io.BytesIO(obstore.get(archive.store, path).bytes())).head(-1).write_parquet(buffer)
    obstore.put(archive.store, path, buffer.getvalue())


def path_of(claim: Claim, day: str) -> str:
    """Where a claim's bars of a day are."""
    return f"{DATASET}/partition={day}/{claim.topic}.{claim.partition}.{claim.first}-{claim.last}.parquet"


def fill(archive: Archive, days: tuple[str, ...] = (DAY,)) -> list[str]:
    """Two bus partitions' segments of each day, one of them from after the topic was made anew."""
    return [
        land_segment(archive, day, number, topic, partition)
        for day in days
        for number, topic, partition in (
            (0, TOPIC, 0),
            (1, TOPIC, 1),
            (2, TOPIC, 0),
            (3, f"{TOPIC}@1", 0),
        )
    ]


def all_rows(archive: Archive) -> pl.DataFrame:
    """Every row that counts, with where it came from, in one order."""
    rows = archive.read(archive.objects(DATASET))
    return rows.sort("symbol", "open_time", "source_object", "source_row")


def compact(archive: Archive, grace: timedelta = timedelta(0), **options: object) -> Compacted:
    """Compact every partition."""
    return Compactor(archive, DATASET, grace=grace, **options).run(lambda key: True)


@contextmanager
def watched(note: Callable[[str, str, bool], None]) -> Iterator[None]:
    """Call `note(what, path, whether it is done)` around each put and delete of this process."""

    def around(what: str, work: Callable) -> Callable:
        def noting(*arguments: object, **options: object) -> object:
            note(what, str(arguments[1]), False)
            result = work(*arguments, **options)
            note(what, str(arguments[1]), True)
            return result

        return noting

    with pytest.MonkeyPatch.context() as patch:
        for what in ("put", "delete"):
            patch.setattr(obstore, what, around(what, getattr(obstore, what)))
        yield


def compact_and_die(place: Place, step: int, before: bool) -> None:
    """Merge, then delete what was merged, and die before or after the given put or delete."""
    count = 0

    def die(what: str, path: str, done: bool) -> None:
        nonlocal count
        count += not done
        if count == step and done is not before:
            os.kill(os.getpid(), signal.SIGKILL)

    with watched(die):
        compact(place.resources.archive)
        compact(place.resources.archive)


def compact_at_once(barrier: Barrier, place: Place, name: int, rounds: int) -> None:
    """Compact when the others do, each time with one more segment of one's own."""
    archive = place.resources.archive
    for number in range(rounds):
        barrier.wait(60)
        land_segment(archive, DAY, 10 * name + number, partition=name)
        compact(archive, grace=timedelta(hours=1))


def compact_forever(place: Place) -> None:
    """Land a segment, merge it with the others, delete what was merged, and so on until killed."""
    archive = place.resources.archive
    landed = len(list(archive.claims(DATASET, TOPIC, 7)))
    while True:
        land_segment(archive, DAY, landed, partition=7)
        landed += 1
        compact(archive)
