"""The archive: immutable Parquet objects and landing claims on an object store; the source of truth.

Paths are `<dataset>/partition=YYYY-MM-DD/<topic>.<partition>.<first>-<last>.parquet` for bars,
`<dataset>/refused/…` for records that are no bar, `<dataset>/claims/<topic>.<partition>/<first>.json` for claims and
`…/<first>-<last>.done.json` for what a claim's landing wrote: one listing tells which claims are done and where they
end. Archives from before that have `…/<first>.done.json`, which is read as well. `<dataset>/imports/…` says what was
imported when, `<dataset>/tombstones/…` which rows count no more. Offsets are half-open. A topic that was deleted and
made anew counts its offsets from 0 again, so each such life of a topic has a name of its own: the topic's for the first
one, `<topic>@<n>` for the n-th after it, remembered in `<dataset>/topics/<topic>/<n>.json`. What rows mean is not known
here.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import partial
from pathlib import Path

import duckdb
import obstore
import polars as pl
from obstore.exceptions import AlreadyExistsError
from obstore.store import ObjectStore

from quantlytic_assets.market_data.bars import SOURCED_SCHEMA
from quantlytic_assets.market_data.wire.records import REJECTED_SCHEMA
from quantlytic_assets.storage.manifests import contents, is_compacted, list_stored
from quantlytic_assets.storage.object_store import S3Place
from quantlytic_assets.storage.tombstones import SOURCE_PATTERN, Tombstones

# A claim's own object, and how the name of what its landing wrote ends.
_CLAIM = re.compile(r"[0-9]{20}\.json")
_DONE = ".done.json"


@dataclass(frozen=True)
class Claim:
    """The offsets [first, last) of one topic partition, landed as one unit, and whether that is done.

    `topic` is the name of the topic's life. `landed` is None until `Archive.with_landed` has read it: what landing
    wrote, counted by partition key, with `refused` for records that are no bar (rejected) and `lost` for those that
    were gone from the bus before they could be landed.
    """

    topic: str
    partition: int
    first: int
    last: int
    done: bool = field(default=False, compare=False)
    landed: dict[str, dict] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class StoredObject:
    """One object of the archive: its path below the archive's root, its partition key and its size in bytes."""

    path: str
    partition: str
    size: int


class Archive:
    """Objects below one root. `store` is the obstore for it, `root` the same place as DuckDB names it.

    prepare: lets a DuckDB connection read there. ordered: whether the store lists names in their order, as S3 does.
    """

    def __init__(
        self,
        store: ObjectStore,
        root: str,
        prepare: Callable[[duckdb.DuckDBPyConnection], None] | None = None,
        ordered: bool = False,
    ):
        self.store = store
        self.root = root.rstrip("/")
        self.prepare = prepare
        self.ordered = ordered
        self._last_done: dict[tuple[str, str, int], Claim] = {}
        self.tombstones = Tombstones(store)

    # Lives of topics -------------------------------------------------------------------------------------------

    def lives(self, dataset: str, topic: str) -> list[str]:
        """Identities of a topic's lives, oldest first; see `life`."""
        prefix = f"{dataset}/topics/{topic}/"
        paths = sorted(item["path"] for batch in obstore.list(self.store, prefix=prefix) for item in batch)
        return [self._read_json(path)["identity"] for path in paths]

    def life(self, dataset: str, topic: str, identity: str) -> str:
        """The name of the life of a topic that has this identity; a new identity becomes the newest life."""
        while True:
            known = self.lives(dataset, topic)
            if identity in known:
                return life_name(topic, known.index(identity))
            try:
                self._create_json(f"{dataset}/topics/{topic}/{len(known):06d}.json", {"identity": identity})
            except AlreadyExistsError:
                continue

    # Claims ----------------------------------------------------------------------------------------------------

    def _claims_path(self, dataset: str, topic: str, partition: int) -> str:
        return f"{dataset}/claims/{topic}.{partition}"

    def claims(self, dataset: str, topic: str, partition: int, since: int = 0) -> list[Claim]:
        """All claims of a topic partition that start at `since` or later, in offset order."""
        prefix = self._claims_path(dataset, topic, partition)
        # A listing after this name begins with the claim at `since` itself.
        offset = f"{prefix}/{since - 1:020d}.~" if since else None
        names = [
            item["path"].rpartition("/")[2]
            for batch in obstore.list(self.store, prefix=prefix + "/", offset=offset)
            for item in batch
        ]
        done = [name.removesuffix(_DONE).split("-") for name in names if name.endswith(_DONE)]
        # The object of a claim says where it ends, unless its name does: a claim that is not done has no such name.
        ends = {int(first): int(last[0]) if last else None for first, *last in done}
        firsts = {int(name.removesuffix(".json")) for name in names if _CLAIM.fullmatch(name)}
        return [
            Claim(topic, partition, first, ends.get(first) or self._claimed_end(prefix, first), done=first in ends)
            for first in sorted(firsts)
        ]

    def _claimed_end(self, prefix: str, first: int) -> int:
        return self._read_json(f"{prefix}/{first:020d}.json")["last"]

    def with_landed(self, dataset: str, claim: Claim) -> Claim:
        """A done claim with what its landing wrote. Raises `FileNotFoundError` where the claim is not done."""
        path = self._claims_path(dataset, claim.topic, claim.partition)
        try:
            content = self._read_json(f"{path}/{claim.first:020d}-{claim.last:020d}{_DONE}")
        except FileNotFoundError:
            content = self._read_json(f"{path}/{claim.first:020d}{_DONE}")
        return replace(claim, done=True, landed=content["landed"])

    def landed_through(self, dataset: str, topic: str, partition: int) -> int:
        """The offset up to which every claim is done, without a break.

        This process remembers the last done claim it has seen and lists from there on: one request, however many
        claims there are.
        """
        place = (dataset, topic, partition)
        known = self._last_done.get(place)
        claims = self.claims(dataset, topic, partition, known.first) if known else []
        if known and (claims[:1] != [known] or not claims[0].done):
            # Somebody has replaced the whole archive meanwhile.
            known = None
        if known is None:
            through = self.checkpoint(dataset, topic, partition)
            claims = self.claims(dataset, topic, partition, through)
        else:
            through = known.first
        for claim in claims:
            if claim.first > through or not claim.done:
                break
            through = max(through, claim.last)
            self._last_done[place] = claim
        return through

    def claimed_partitions(self, dataset: str, topic: str) -> list[int]:
        """The bus partitions of a topic's life that have claims."""
        folders = obstore.list_with_delimiter(self.store, prefix=f"{dataset}/claims/")["common_prefixes"]
        names = (folder.rstrip("/").rpartition("/")[2].rpartition(".") for folder in folders)
        return sorted(int(partition) for name, _, partition in names if name == topic)

    def checkpoint(self, dataset: str, topic: str, partition: int) -> int:
        """An offset up to which every claim is known to be done; claims before it need not be listed."""
        try:
            return self._read_json(f"{self._claims_path(dataset, topic, partition)}/landed.json")["through"]
        except FileNotFoundError:
            return 0

    def set_checkpoint(self, dataset: str, topic: str, partition: int, through: int) -> None:
        """Remember that every claim before `through` is done. An older one written late only costs a longer list."""
        path = f"{self._claims_path(dataset, topic, partition)}/landed.json"
        obstore.put(self.store, path, json.dumps({"through": through}).encode())

    def claim(self, dataset: str, topic: str, partition: int, first: int, last: int) -> Claim:
        """Decide, once for all, that [first, last) lands as one unit; whoever comes second gets the first's claim."""
        path = f"{self._claims_path(dataset, topic, partition)}/{first:020d}.json"
        try:
            self._create_json(path, {"first": first, "last": last})
        except AlreadyExistsError:
            content = self._read_json(path)
            return Claim(topic, partition, content["first"], content["last"])
        return Claim(topic, partition, first, last)

    def mark_done(self, dataset: str, claim: Claim, landed: dict[str, dict]) -> Claim:
        """Record that all objects of a claim are written, and per partition what they hold."""
        path = f"{self._claims_path(dataset, claim.topic, claim.partition)}/{claim.first:020d}-{claim.last:020d}{_DONE}"
        obstore.put(self.store, path, json.dumps({"landed": landed}, sort_keys=True).encode())
        return replace(claim, done=True, landed=landed)

    def _create_json(self, path: str, content: dict) -> None:
        """Write an object that must not be there yet. Raises `AlreadyExistsError` where it is."""
        obstore.put(self.store, path, json.dumps(content, sort_keys=True).encode(), mode="create")

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
        """Bar objects whose partition key is in [first, last), either end open when None; oldest first.

        Each row that landed is in exactly one of them: what has been compacted is told by `manifests`.
        """
        listed = []
        # Claims are not among it: they come before in the order of names.
        offset = f"{dataset}/partition={'' if first is None else first.isoformat()}"
        for one in list_stored(self.store, f"{dataset}/", offset):
            folder = one.path.split("/")[1]
            key = folder.removeprefix("partition=")
            if not folder.startswith("partition=") or (last is not None and key >= last.isoformat()):
                if self.ordered:
                    break
                continue
            if first is None or key >= first.isoformat():
                listed.append(one)
        return [
            StoredObject(one.path, found.folder.rpartition("=")[2], one.size)
            for found in contents(self.store, listed)
            for one in found.live
        ]

    def rejected_objects(self, dataset: str) -> list[str]:
        """Paths of the objects that keep rejected records."""
        listing = obstore.list(self.store, prefix=f"{dataset}/refused/")
        return sorted(item["path"] for batch in listing for item in batch)

    def _query(
        self,
        select: str,
        paths: Sequence[str],
        where: str = "true",
        taken_back: bool = False,
        parameters: Sequence[str] = (),
    ) -> pl.DataFrame:
        """Columns of the objects' rows that count; `filename` and `file_row_number` are among what can be selected.

        `taken_back`: rows under a tombstone count as well.
        """
        moved = any(map(is_compacted, paths))
        union = moved or any("/refused/" in path for path in paths)
        rows = (
            "read_parquet(?, filename = true, file_row_number = true, "
            f"hive_partitioning = false, union_by_name = {union})"
        )
        dead = None if taken_back else self._dead(paths)
        if dead is not None:
            stood_in = "coalesce(source_object, filename)" if moved else "filename"
            rows = (
                f"(SELECT one.* EXCLUDE (_source) FROM (SELECT *, regexp_extract({stood_in}, '{SOURCE_PATTERN}', 1) "
                f"AS _source FROM {rows}) AS one ASOF LEFT JOIN dead ON one._source = dead.source "
                "AND one.bus_offset >= dead.first WHERE dead.last IS NULL OR one.bus_offset >= dead.last)"
            )
        with duckdb.connect(config={"threads": 2}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            if self.prepare:
                self.prepare(connection)
            if dead is not None:
                connection.register("dead", dead.to_arrow())
            return connection.execute(
                f"SELECT {select} FROM {rows} WHERE {where}", [[f"{self.root}/{path}" for path in paths], *parameters]
            ).pl()

    def _dead(self, paths: Sequence[str]) -> pl.DataFrame | None:
        """The runs of offsets that were taken back of the datasets of these paths; None where there are none."""
        datasets = sorted({path.partition("/")[0] for path in paths})
        runs = pl.concat(self.tombstones.runs(dataset) for dataset in datasets)
        return None if runs.is_empty() else runs

    def _sourced(self, paths: Sequence[str], taken_back: bool = False) -> pl.DataFrame:
        """All rows, with the object and row that each was landed in; a compacted object says so itself."""
        path = f"substr(filename, {len(self.root) + 2})"
        if not any(map(is_compacted, paths)):
            return self._query(
                f"* EXCLUDE (filename, file_row_number), {path} AS source_object, file_row_number AS source_row",
                paths,
                taken_back=taken_back,
            )
        return self._query(
            f"* EXCLUDE (filename, file_row_number) REPLACE (coalesce(source_object, {path}) AS source_object, "
            "coalesce(source_row, file_row_number) AS source_row)",
            paths,
            taken_back=taken_back,
        )

    def read(self, objects: Sequence[StoredObject], taken_back: bool = False) -> pl.DataFrame:
        """All rows of the objects, as SOURCED_SCHEMA: where each stands in the archive beside it.

        `taken_back`: those under a tombstone too, which count for nobody but whoever moves or verifies objects.
        """
        if not objects:
            return pl.DataFrame(schema=SOURCED_SCHEMA)
        frame = self._sourced([stored.path for stored in objects], taken_back)
        return frame.cast(dict(SOURCED_SCHEMA)).select(SOURCED_SCHEMA.names())

    def records(self, objects: Sequence[StoredObject], symbol: str) -> pl.DataFrame:
        """A symbol's rows that count, as `read` gives them, with the path of the `object` that holds each now.

        Only the parts of the objects that can hold the symbol are read.
        """
        schema = pl.Schema({**SOURCED_SCHEMA, "object": pl.String})
        if not objects:
            return schema.to_frame()
        paths = [stored.path for stored in objects]
        path = f"substr(filename, {len(self.root) + 2})"
        landed, place = (f"{path} AS source_object", "file_row_number AS source_row")
        if any(map(is_compacted, paths)):
            landed = f"coalesce(source_object, {path}) AS source_object"
            place = "coalesce(source_row, file_row_number) AS source_row"
        own = ", ".join(name for name in SOURCED_SCHEMA.names() if name not in ("source_object", "source_row"))
        select = f"{own}, {landed}, {place}, {path} AS object"
        frame = self._query(select, paths, "symbol = ?", parameters=[symbol])
        return frame.cast(dict(schema)).select(schema.names())

    def written_at(self, path: str) -> datetime:
        """When an object was written, UTC. Raises `FileNotFoundError` where it is not there."""
        return obstore.head(self.store, path)["last_modified"]

    def origins(self, objects: Sequence[StoredObject], vendor: str, taken_back: bool = False) -> pl.DataFrame:
        """Where the rows that a vendor gave came from and where they are.

        Columns: symbol, open_time, fetched_at, bus_offset, source_object, and the `object` and `partition` of now.
        """
        times = {name: SOURCED_SCHEMA[name] for name in ("open_time", "fetched_at")}
        texts = dict.fromkeys(("symbol", "source_object", "object", "partition"), pl.String)
        schema = {**texts, **times, "bus_offset": pl.Int64}
        if not objects:
            return pl.DataFrame(schema=schema)
        paths = [stored.path for stored in objects]
        path = f"substr(filename, {len(self.root) + 2})"
        source = f"coalesce(source_object, {path})" if any(map(is_compacted, paths)) else path
        frame = self._query(
            f"symbol, open_time, fetched_at, bus_offset, {source} AS source_object, {path} AS object, "
            "regexp_extract(filename, 'partition=([^/]+)/', 1) AS partition",
            paths,
            f"vendor = '{vendor}'",
            taken_back,
        )
        return frame.cast(schema)

    def row_counts(self, objects: Sequence[StoredObject]) -> dict[str, int]:
        """Path to number of rows, those under a tombstone too, read from the end of each object alone."""
        if not objects:
            return {}
        with duckdb.connect(config={"threads": 2}) as connection:
            if self.prepare:
                self.prepare(connection)
            counts = connection.execute(
                "SELECT substr(file_name, ?), num_rows FROM parquet_file_metadata(?)",
                [len(self.root) + 2, [f"{self.root}/{stored.path}" for stored in objects]],
            ).fetchall()
        return dict(counts)

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

    def read_rejected(self, dataset: str, paths: Sequence[str], taken_back: bool = False) -> pl.DataFrame:
        """Rejected records of these objects: REJECTED_SCHEMA with dataset, source_object and source_row."""
        if not paths:
            return pl.DataFrame(
                schema={**REJECTED_SCHEMA, "dataset": pl.String, "source_object": pl.String, "source_row": pl.Int64}
            )
        return self._sourced(paths, taken_back).with_columns(pl.lit(dataset).alias("dataset"))


def life_name(topic: str, number: int) -> str:
    """What the archive calls the n-th life of a topic, 0 being the first."""
    return topic if number == 0 else f"{topic}@{number}"


def earlier_lives(life: str) -> list[str]:
    """The names of the lives that a topic had before this one."""
    topic, _, number = life.partition("@")
    return [life_name(topic, i) for i in range(int(number or 0))]


def local_archive(root: str) -> Archive:
    """An archive in a directory of this machine."""
    from obstore.store import LocalStore

    return Archive(LocalStore(root, mkdir=True), root)


def s3_archive(place: S3Place, extensions: Path) -> Archive:
    """An archive in a bucket. `extensions`: where DuckDB's extensions are kept on this machine."""
    return Archive(
        place.store("archive"),
        place.url("archive"),
        prepare=partial(place.prepare, extensions=extensions),
        ordered=True,
    )
