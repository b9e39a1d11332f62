"""Corporate actions in the archive: immutable objects `<dataset>/actions/<hash>.parquet`, each report once.

What actions mean, and which of two that differ is right, is not known here.
"""

from __future__ import annotations

import hashlib
import io

import obstore
import polars as pl
from obstore.exceptions import AlreadyExistsError

from quantlytic_assets.market_data.actions.reconcile import ACTIONS_SCHEMA, IMPORT
from quantlytic_assets.storage.archive import Archive

SOURCED_ACTIONS_SCHEMA = pl.Schema({**ACTIONS_SCHEMA, "source_object": pl.String, "source_row": pl.Int64})
# Who reports what. When it was recorded makes no other report of it; nor does the day it was known by, which vendors
# give as the day they were asked, unless a user says it.
_SUBJECT = ["symbol", "session", "kind", "adjustment", "vendor"]
_SAID = ["value", "new_symbol", "known"]
_KNOWN = pl.when(pl.col("vendor") == IMPORT).then("known_on").alias("known")


class ActionArchive:
    """The corporate actions of all datasets in one archive."""

    def __init__(self, archive: Archive):
        self._archive = archive
        # By path, for objects never change: a run that records fifty answers reads each but once.
        self._objects: dict[str, pl.DataFrame] = {}

    def record(self, dataset: str, actions: pl.DataFrame) -> int:
        """Keep those ACTIONS_SCHEMA rows that say something else than the same teller said last; returns how many."""
        if actions.is_empty():
            return 0
        last = self.read(dataset).with_columns(_KNOWN).sort("recorded_at").unique(_SUBJECT, keep="last")
        new = (
            actions.select(ACTIONS_SCHEMA.names())
            .cast(dict(ACTIONS_SCHEMA))
            .with_columns(_KNOWN)
            .unique([*_SUBJECT, *_SAID], keep="first", maintain_order=True)
            .join(last, on=[*_SUBJECT, *_SAID], how="anti", nulls_equal=True, maintain_order="left")
        )
        if new.is_empty():
            return 0
        reported = hashlib.sha256(new.write_csv().encode()).hexdigest()[:24]
        buffer = io.BytesIO()
        new.select(ACTIONS_SCHEMA.names()).write_parquet(buffer, compression="zstd")
        try:
            obstore.put(self._archive.store, f"{dataset}/actions/{reported}.parquet", buffer.getvalue(), mode="create")
        except AlreadyExistsError:
            # Another process reported the very same at this moment.
            return 0
        return len(new)

    def read(self, dataset: str) -> pl.DataFrame:
        """All that was reported, SOURCED_ACTIONS_SCHEMA, in no particular order."""
        listing = obstore.list(self._archive.store, prefix=f"{dataset}/actions/")
        frames = [self._object(path) for path in sorted(item["path"] for batch in listing for item in batch)]
        return pl.concat(frames) if frames else pl.DataFrame(schema=SOURCED_ACTIONS_SCHEMA)

    def _object(self, path: str) -> pl.DataFrame:
        if path not in self._objects:
            content = io.BytesIO(bytes(obstore.get(self._archive.store, path).bytes()))
            self._objects[path] = (
                pl.read_parquet(content)
                .with_row_index("source_row")
                .with_columns(pl.lit(path).alias("source_object"))
                .select(SOURCED_ACTIONS_SCHEMA.names())
                .cast(dict(SOURCED_ACTIONS_SCHEMA))
            )
        return self._objects[path]
