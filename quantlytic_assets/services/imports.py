"""Files into the archive, and back out of it: what the command line and others do about imports.

Nothing here knows Dagster: whoever calls it records what was landed, and cleans the partitions that changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.calendars.sessions import assign_sessions
from quantlytic_assets.imports.options import ImportOptions
from quantlytic_assets.imports.tables import VENDOR, ImportedFile, read_bars
from quantlytic_assets.storage.archive import Archive
from quantlytic_assets.storage.import_records import ImportRecord, ImportRecords
from quantlytic_assets.storage.lake import Lake
from quantlytic_assets.storage.landing import Lander
from quantlytic_assets.storage.tombstones import offset_runs
from quantlytic_assets.universe.models import Dataset

# A partition's key may lie so far from the open times of its bars.
_FILED_WITHIN = timedelta(days=40)


@dataclass(frozen=True)
class Chosen:
    """Which imported rows are meant: those of all these imports and objects, cut down by symbol and session.

    Without imports and objects every imported row of the dataset. `objects`: paths in the archive, as they stand in
    `clean.quarantine`. `first` and `last` are sessions, both included.
    """

    imports: Sequence[ImportRecord] = ()
    objects: Sequence[str] = ()
    symbol: str | None = None
    first: date | None = None
    last: date | None = None

    @property
    def moments(self) -> list[datetime]:
        """When the imports were."""
        return [one.imported_at for one in self.imports]


@dataclass(frozen=True)
class FoundRows:
    """Imported rows that count: where each of the `bars` and of the `rejected` stands, and in which partitions.

    `bars`: symbol, session, fetched_at, bus_offset, source_object, partition; `rejected`: symbol, fetched_at,
    bus_offset, source_object.
    """

    bars: pl.DataFrame
    rejected: pl.DataFrame

    def __len__(self) -> int:
        return len(self.bars) + len(self.rejected)


class Imports:
    """Imports of one dataset."""

    def __init__(self, dataset: Dataset, archive: Archive, lander: Lander, lake: Lake):
        self.dataset = dataset
        self.archive = archive
        self.lander = lander
        self.lake = lake
        self.records = ImportRecords(archive.store)

    def read(self, path: Path, symbol: str | None, options: ImportOptions) -> ImportedFile:
        """The rows of a file; see `read_bars`."""
        return read_bars(path, dataset=self.dataset, symbol=symbol, options=options, fetched_at=datetime.now(UTC))

    def publish(self, path: Path, imported: ImportedFile, options: ImportOptions) -> ImportRecord:
        """Record the import of a file and put its rows on the bus; they count when they are landed."""
        bars = imported.bars
        record = self.records.create(
            ImportRecord(
                dataset=self.dataset.name,
                imported_at=datetime.now(UTC),
                path=str(path.absolute()),
                sha256=content_hash(path),
                symbols=bars["symbol"].unique().sort().to_list(),
                accepted=len(bars),
                rejected=len(imported.rejected),
                first=bars["open_time"].min() if len(bars) else None,
                last=bars["open_time"].max() if len(bars) else None,
                options=asdict(options),
            )
        )
        moment = pl.lit(record.imported_at, TIME).alias("fetched_at")
        if len(bars):
            self.lander.publish(bars.with_columns(moment))
        if len(imported.rejected):
            self.lander.publish_rejected(imported.rejected.with_columns(moment))
        return record

    def of_file(self, text: str) -> list[ImportRecord]:
        """The imports of this id, of a file of this content, or of whatever stood under this path."""
        path = Path(text)
        digest = content_hash(path) if path.is_file() else None
        return [
            one
            for one in self.records.read(self.dataset.name)
            if one.id == text or one.sha256 == digest or one.path == str(path.absolute())
        ]

    def find(self, chosen: Chosen, taken_back: bool = False) -> FoundRows:
        """The chosen rows that are landed and count, or with `taken_back` all that are landed.

        Rows that vendors and feeds gave are never among them.
        """
        return FoundRows(self._find_bars(chosen, taken_back), self._find_rejected(chosen, taken_back))

    def _find_bars(self, chosen: Chosen, taken_back: bool) -> pl.DataFrame:
        objects = self.archive.objects(self.dataset.name, *self._bounds(chosen))
        rows = self.archive.origins(objects, VENDOR, taken_back)
        if chosen.imports or chosen.objects:
            rows = rows.filter(
                pl.col("fetched_at").is_in(chosen.moments)
                | pl.col("source_object").is_in(chosen.objects)
                | pl.col("object").is_in(chosen.objects)
            )
        if chosen.symbol is not None:
            rows = rows.filter(pl.col("symbol") == chosen.symbol)
        rows = assign_sessions(rows, self.dataset.calendar)
        return rows.filter(_between(chosen))

    def _find_rejected(self, chosen: Chosen, taken_back: bool) -> pl.DataFrame:
        objects = self.archive.rejected_objects(self.dataset.name)
        rows = self.archive.read_rejected(self.dataset.name, objects, taken_back)
        if "fetched_at" not in rows.columns:
            # Landed before rejected rows said when they were.
            rows = rows.with_columns(pl.lit(None, TIME).alias("fetched_at"))
        if chosen.imports or chosen.objects:
            rows = rows.filter(
                pl.col("fetched_at").is_in(chosen.moments) | pl.col("source_object").is_in(chosen.objects)
            )
        else:
            rows = rows.filter(pl.col("fetched_at").is_not_null())
        if chosen.symbol is not None:
            rows = rows.filter(pl.col("symbol") == chosen.symbol)
        rows = rows.with_columns(pl.col("open_time").dt.date().alias("session"))
        return rows.filter(_between(chosen)).select("symbol", "fetched_at", "bus_offset", "source_object")

    def _bounds(self, chosen: Chosen) -> tuple[date | None, date | None]:
        """The partitions [first, last) that can hold the chosen rows; None: no bound."""
        if chosen.objects or not chosen.imports:
            return None, None
        firsts = [one.first for one in chosen.imports if one.first]
        lasts = [one.last for one in chosen.imports if one.last]
        if not firsts or not lasts:
            return date.min, date.min
        return (min(firsts) - _FILED_WITHIN).date(), (max(lasts) + _FILED_WITHIN).date()

    def take_back(self, rows: FoundRows, about: Mapping[str, Any]) -> str:
        """Let rows count no more, by one tombstone; returns its path. Nothing is deleted from the archive.

        Rejected rows leave `clean.quarantine` at once; the caller cleans the partitions of the bars again.
        """
        where = ["bus_offset", "source_object"]
        runs = offset_runs(pl.concat([rows.bars.select(where), rows.rejected.select(where)]))
        counts = {"bars": len(rows.bars), "rejected": len(rows.rejected)}
        path = self.archive.tombstones.add(self.dataset.name, runs, {**about, **counts})
        touched = rows.rejected["source_object"].unique().to_list()
        if touched:
            marks = ", ".join("?" for _ in touched)
            self.lake.replace([("clean.quarantine", f"source_object IN ({marks})", touched, pl.DataFrame())])
        return path


def content_hash(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _between(chosen: Chosen) -> pl.Expr:
    bounds = [pl.lit(True)]
    if chosen.first is not None:
        bounds.append(pl.col("session") >= chosen.first)
    if chosen.last is not None:
        bounds.append(pl.col("session") <= chosen.last)
    return pl.all_horizontal(bounds)
