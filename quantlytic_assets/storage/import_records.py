"""What was imported when: one immutable object `<dataset>/imports/<time>.json` for each file, written before its rows.

Rows of a file carry the moment of its import as `fetched_at`, which no other import of the dataset has. So they are
found again, also those of an import that was killed half way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import ObjectStore

_AT_ONCE = 16


@dataclass(frozen=True)
class ImportRecord:
    """One import of one file.

    `imported_at` is the `fetched_at` of its rows. `path` and `sha256` (of the content) tell the file, `first` and
    `last` are the earliest and latest open time of its bars, None where it had none.
    """

    dataset: str
    imported_at: datetime
    path: str
    sha256: str
    symbols: Sequence[str]
    accepted: int
    rejected: int
    first: datetime | None
    last: datetime | None
    options: Mapping[str, object]

    @property
    def id(self) -> str:
        """What people call it by."""
        return _id(self.imported_at)


class ImportRecords:
    """The records of all datasets in one object store."""

    def __init__(self, store: ObjectStore):
        self._store = store

    def create(self, record: ImportRecord) -> ImportRecord:
        """Keep a record, and return it with the moment that is its own from now on."""
        while True:
            content = json.dumps(asdict(record), default=datetime.isoformat, sort_keys=True).encode()
            try:
                obstore.put(self._store, f"{record.dataset}/imports/{record.id}.json", content, mode="create")
            except AlreadyExistsError:
                # Another process imports at the very same microsecond.
                record = replace(record, imported_at=record.imported_at + timedelta(microseconds=1))
                continue
            return record

    def of(self, dataset: str, imported_at: datetime) -> ImportRecord | None:
        """The import that was made at a moment, which is the `fetched_at` of its rows; None where none is on record."""
        try:
            return self._read(f"{dataset}/imports/{_id(imported_at)}.json")
        except FileNotFoundError:
            return None

    def read(self, dataset: str) -> list[ImportRecord]:
        """All records of a dataset, oldest first."""
        listing = obstore.list(self._store, prefix=f"{dataset}/imports/")
        paths = sorted(item["path"] for batch in listing for item in batch)
        if not paths:
            return []
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return list(threads.map(self._read, paths))

    def _read(self, path: str) -> ImportRecord:
        content = json.loads(bytes(obstore.get(self._store, path).bytes()))
        times = {
            name: datetime.fromisoformat(content[name]) if content[name] else None
            for name in ("imported_at", "first", "last")
        }
        return ImportRecord(**(content | times))


def _id(imported_at: datetime) -> str:
    return f"{imported_at:%Y%m%dT%H%M%S%f}Z"
