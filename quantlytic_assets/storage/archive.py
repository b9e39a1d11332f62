"""The archive: immutable Parquet objects and landing claims on an object store; the source of truth.

Paths are `<dataset>/partition=YYYY-MM-DD/<topic>.<partition>.<first>-<last>.parquet` for bars,
`<dataset>/refused/…` for records that are no bar, `<dataset>/claims/<topic>.<partition>/<first>.json` for claims and
`….done.json` for what a claim's landing wrote. Offsets are half-open. What rows mean is not known here.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

import duckdb
import obstore
import polars as pl
from obstore.exceptions import AlreadyExistsError
from obstore.store import ObjectStore

from quantlytic_assets.market_data.bars import SOURCED_SCHEMA
from quantlytic_assets.market_data.wire import REFUSED_SCHEMA


@dataclass(frozen=True)
class Claim:
    """The offsets [first, last) of one topic partition, landed as one unit, and what landing it wrote (if done)."""

    topic: str
    partition: int
    first: int
    last: int
    landed: dict[str, dict] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class StoredObject:
    """One object of the archive: its path below the archive's root, its partition key and its size in bytes."""

    path: str
    partition: str
    size: int


class Archive:
    """Objects below one root. `store` is the obstore for it, `root` the same place as DuckDB names it."""

    def __init__(self, store: ObjectStore, root: str):
        self.store = store
        self.root = root.rstrip("/")

    # Claims ----------------------------------------------------------------------------------------------------

    def _claims_path(self, dataset: str, topic: str, partition: int) -> str:
        return f"{dataset}/claims/{topic}.{partition}"

    def claims(self, dataset: str, topic: str, partition: int, since: int = 0) -> list[Claim]:
        """All claims of a topic partition that start at `since` or later, in offset order."""
        prefix = self._claims_path(dataset, topic, partition)
        offset = f"{prefix}/{since:020d}" if since else None
        paths = {
            item["path"]
            for batch in obstore.list(self.store, prefix=prefix + "/", offset=offset)
            for item in batch
        }
        found = []
        for path in sorted(path for path in paths if not path.endswith(".done.json")):
            content = self._read_json(path)
            done = path.removesuffix(".json") + ".done.json"
            landed = self._read_json(done)["landed"] if done in paths else None
            found.append(Claim(topic, partition, content["first"], content["last"], landed))
        if since:
            # A listing by offset leaves out the claim that starts exactly there.
            exact = self._claim_at(dataset, topic, partition, since)
            found = [exact, *found] if exact and exact not in found else found
        return found

    def _claim_at(self, dataset: str, topic: str, partition: int, first: int) -> Claim | None:
        path = f"{self._claims_path(dataset, topic, partition)}/{first:020d}"
        try:
            content = self._read_json(f"{path}.json")
        except FileNotFoundError:
            return None
        try:
            landed = self._read_json(f"{path}.done.json")["landed"]
        except FileNotFoundError:
            landed = None
        return Claim(topic, partition, content["first"], content["last"], landed)

    def claim(self, dataset: str, topic: str, partition: int, first: int, last: int) -> Claim:
        """Decide, once for all, that [first, last) lands as one unit; whoever comes second gets the first's claim."""
        path = f"{self._claims_path(dataset, topic, partition)}/{first:020d}.json"
        try:
            obstore.put(self.store, path, json.dumps({"first": first, "last": last}).encode(), mode="create")
        except AlreadyExistsError:
            content = self._read_json(path)
            return Claim(topic, partition, content["first"], content["last"])
        return Claim(topic, partition, first, last)

    def mark_done(self, dataset: str, claim: Claim, landed: dict[str, dict]) -> None:
        """Record that all objects of a claim are written, and per partition what they hold."""
        path = f"{self._claims_path(dataset, claim.topic, claim.partition)}/{claim.first:020d}.done.json"
        obstore.put(self.store, path, json.dumps({"landed": landed}, sort_keys=True).encode())

    def _read_json(self, path: str) -> dict:
        return json.loads(bytes(obstore.get(self.store, path).bytes()))

    # Objects ---------------------------------------------------------------------------------------------------

    def write(self, dataset: str, folder: str, claim: Claim, frame: pl.DataFrame) -> int:
        """Write one object of a claim and return its size; a repeat of the same landing leaves the first as it is."""
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="zstd", statistics=True)
        path = f"{dataset}/{folder}/{claim.topic}.{claim.partition}.{claim.first}-{claim.last}.parquet"
        try:
            obstore.put(self.store, path, buffer.getvalue(), mode="create")
        except AlreadyExistsError:
            return obstore.head(self.store, path)["size"]
        return buffer.tell()

    def objects(self, dataset: str, first: date | None = None, last: date | None = None) -> list[StoredObject]:
        """Bar objects whose partition key is in [first, last), either end open when None; oldest first."""
        found = []
        for batch in obstore.list(self.store, prefix=f"{dataset}/"):
            for item in batch:
                folder = item["path"].split("/")[1]
                if not folder.startswith("partition="):
                    continue
                key = folder.removeprefix("partition=")
                if (first is None or key >= first.isoformat()) and (last is None or key < last.isoformat()):
                    found.append(StoredObject(item["path"], key, item["size"]))
        return sorted(found, key=lambda stored: stored.path)

    def refused_objects(self, dataset: str) -> list[str]:
        """Paths of the objects that keep refused records."""
        listing = obstore.list(self.store, prefix=f"{dataset}/refused/")
        return sorted(item["path"] for batch in listing for item in batch)

    def _query(self, select: str, paths: Sequence[str], where: str = "true") -> pl.DataFrame:
        """Columns of the objects' rows; `filename` and `file_row_number` are among what can be selected."""
        with duckdb.connect(config={"threads": 2}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.execute(
                f"SELECT {select} FROM read_parquet(?, filename = true, file_row_number = true, "
                f"hive_partitioning = false) WHERE {where}",
                [[f"{self.root}/{path}" for path in paths]],
            ).pl()

    def _sourced(self, paths: Sequence[str]) -> pl.DataFrame:
        """All rows, with the object and row that each came from."""
        source = f"substr(filename, {len(self.root) + 2}) AS source_object, file_row_number AS source_row"
        return self._query(f"* EXCLUDE (filename, file_row_number), {source}", paths)

    def read(self, objects: Sequence[StoredObject]) -> pl.DataFrame:
        """All rows of the objects, as SOURCED_SCHEMA: where each stands in the archive beside it."""
        if not objects:
            return pl.DataFrame(schema=SOURCED_SCHEMA)
        frame = self._sourced([stored.path for stored in objects])
        return frame.cast(dict(SOURCED_SCHEMA)).select(SOURCED_SCHEMA.names())

    def usable_keys(self, objects: Sequence[StoredObject]) -> pl.DataFrame:
        """Distinct (symbol, open_time) of archived rows with a full, consistent set of prices.

        Consistent as cleaning sees it: a vendor's rounding may put the high a hair below the close.
        """
        schema = {"symbol": pl.String, "open_time": SOURCED_SCHEMA["open_time"]}
        if not objects:
            return pl.DataFrame(schema=schema)
        frame = self._query(
            "DISTINCT symbol, open_time",
            [stored.path for stored in objects],
            "least(open, high, low, close) > 0 AND volume >= 0 "
            "AND open IS NOT NULL AND high IS NOT NULL AND low IS NOT NULL AND close IS NOT NULL "
            "AND high >= greatest(open, close) * (1 - 1e-9) AND low <= least(open, close) * (1 + 1e-9)",
        )
        return frame.cast(schema)

    def read_refused(self, dataset: str, paths: Sequence[str]) -> pl.DataFrame:
        """Refused records of these objects: REFUSED_SCHEMA with dataset, source_object and source_row."""
        if not paths:
            return pl.DataFrame(
                schema={**REFUSED_SCHEMA, "dataset": pl.String, "source_object": pl.String, "source_row": pl.Int64}
            )
        return self._sourced(paths).with_columns(pl.lit(dataset).alias("dataset"))


def local_archive(root: str) -> Archive:
    """An archive in a directory of this machine."""
    from obstore.store import LocalStore

    return Archive(LocalStore(root, mkdir=True), root)
