"""Tombstones: which landed rows no longer count, although their objects stay.

A tombstone is an immutable object `<dataset>/tombstones/<time>.parquet`, created once, with one row for each run of
offsets that it takes back. A row of the archive is named by where on the bus it stood, because that never changes:
compaction moves rows to other objects, and importing the same file again gives its rows new offsets. What rows mean,
and which of them were wrong, is not known here.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from datetime import UTC, datetime

import obstore
import polars as pl
from obstore.exceptions import AlreadyExistsError
from obstore.store import ObjectStore

from quantlytic_assets.storage.manifests import list_stored

# `source` is `<life of the topic>.<bus partition>`, as in the names of objects; [first, last) are offsets.
RUNS_SCHEMA = pl.Schema({"source": pl.String, "first": pl.Int64, "last": pl.Int64})
# The source in an object's path, for Rust's regular expressions and RE2 (DuckDB's) alike.
SOURCE_PATTERN = r"([^/]+)\.\d+-\d+\.parquet$"


class Tombstones:
    """The tombstones of all datasets in one object store. Each is read once a process, for they never change."""

    def __init__(self, store: ObjectStore):
        self._store = store
        self._read: dict[str, pl.DataFrame] = {}

    def runs(self, dataset: str) -> pl.DataFrame:
        """Everything that was taken back of a dataset: RUNS_SCHEMA, sorted, no two runs overlapping."""
        paths = [stored.path for stored in list_stored(self._store, f"{dataset}/tombstones/")]
        for path in paths:
            if path not in self._read:
                content = bytes(obstore.get(self._store, path).bytes())
                self._read[path] = pl.read_parquet(io.BytesIO(content)).match_to_schema(RUNS_SCHEMA)
        return joined_runs(pl.concat([pl.DataFrame(schema=RUNS_SCHEMA), *(self._read[path] for path in paths)]))

    def add(self, dataset: str, runs: pl.DataFrame, about: Mapping[str, object]) -> str:
        """Take runs (RUNS_SCHEMA) back, all of them or, if the process dies, none; returns the tombstone's path.

        `about` says what was asked for and is kept in the object's metadata.
        """
        buffer = io.BytesIO()
        runs.match_to_schema(RUNS_SCHEMA).write_parquet(
            buffer, compression="zstd", metadata={"quantlytic": json.dumps(about, sort_keys=True, default=str)}
        )
        while True:
            path = f"{dataset}/tombstones/{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z.parquet"
            try:
                obstore.put(self._store, path, buffer.getvalue(), mode="create")
            except AlreadyExistsError:
                # Another process took something else back in the same microsecond.
                continue
            return path


def offset_runs(rows: pl.DataFrame) -> pl.DataFrame:
    """The runs (RUNS_SCHEMA) of rows with source_object and bus_offset."""
    offsets = rows.select(pl.col("source_object").str.extract(SOURCE_PATTERN, 1).alias("source"), "bus_offset")
    single = offsets.select("source", pl.col("bus_offset").alias("first"), (pl.col("bus_offset") + 1).alias("last"))
    return joined_runs(single.cast(dict(RUNS_SCHEMA)))


def joined_runs(runs: pl.DataFrame) -> pl.DataFrame:
    """The same offsets as sorted runs that neither overlap nor touch."""
    ordered = runs.sort("source", "first", "last")
    reached = pl.col("last").cum_max().shift().over("source")
    begins = (reached.is_null() | (pl.col("first") > reached)).alias("begins")
    return (
        ordered.with_columns(begins)
        .with_columns(pl.col("begins").cum_sum().alias("run"))
        .group_by("run", maintain_order=True)
        .agg(pl.col("source").first(), pl.col("first").first(), pl.col("last").max())
        .select(RUNS_SCHEMA.names())
    )
