"""What was published against what is in the archive and in `clean.bars`, offset by offset and bar by bar."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl

from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.wire.records import decode
from quantlytic_assets.storage.archive import Archive
from quantlytic_assets.storage.bus import Bus, bars_topic

BAR = ["symbol", "open_time"]
# Every published bar has a volume of its own.
WANTED = pl.Schema({name: RAW_SCHEMA[name] for name in (*BAR, "volume")})
_AT = ["bus_partition", "bus_offset"]
_PLACED = pl.Schema({"bus_partition": pl.Int64, "bus_offset": pl.Int64, **WANTED})
_READ_AT_ONCE = 50_000


@dataclass
class Comparison:
    """Counts, and each difference in words. Nothing is wrong where there are no differences.

    bars: those in clean.bars, where one looked.
    """

    records: int = 0
    landed: int = 0
    lost: int = 0
    twice: int = 0
    bars: int | None = None
    differences: list[str] = field(default_factory=list)

    def note(self, rows: pl.DataFrame, what: str) -> int:
        """How many rows there are; where there are any, what they are is a difference."""
        if len(rows):
            self.differences.append(f"{len(rows)} {what}, first {rows.row(0)}")
        return len(rows)


def on_bus(bus: Bus, dataset: str) -> pl.DataFrame:
    """Where each record of a dataset's topic stands, and which bar it is."""
    topic = bars_topic(dataset)
    found = [pl.DataFrame(schema=_PLACED)]
    for partition, (_, end) in bus.watermarks(topic).items():
        # From 0: nothing may have been dropped.
        for first in range(0, end, _READ_AT_ONCE):
            records = bus.read(topic, partition, first, min(first + _READ_AT_ONCE, end))
            bars = decode(records.offsets, records.headers, records.values).bars
            if len(bars) != len(records):
                raise ValueError(f"{topic} has records that are no bars from {first} of partition {partition} on")
            found.append(bars.with_columns(bus_partition=pl.lit(partition, pl.Int64)).select(_PLACED.names()))
    return pl.concat(found)


def in_archive(archive: Archive, dataset: str) -> pl.DataFrame:
    """Where on the bus each archived row stood, by its object's name and its offset; rejected ones are among them."""
    bars = archive.read(archive.objects(dataset))
    rejected = archive.read_rejected(dataset, archive.rejected_objects(dataset))
    rows = pl.concat(
        [bars.select(*WANTED.names(), "bus_offset", "source_object"),
         rejected.select(*BAR, pl.lit(None, pl.Float64).alias("volume"), "bus_offset", "source_object")]
    )  # fmt: skip
    named = pl.col("source_object").str.extract_groups(r"\.(?<partition>\d+)\.(?<first>\d+)-(?<last>\d+)\.parquet$")
    return rows.with_columns(named.alias("named")).with_columns(
        pl.col("named").struct.field("partition").cast(pl.Int64).alias("bus_partition"),
        pl.col("named").struct.field("first").cast(pl.Int64).alias("first"),
        pl.col("named").struct.field("last").cast(pl.Int64).alias("last"),
    )


def compare(
    published: pl.DataFrame, archived: pl.DataFrame, clean: pl.DataFrame | None, wanted: pl.DataFrame, once: bool
) -> Comparison:
    """Compare all four. `once`: whether no bar may stand on the bus twice.

    published: `on_bus`. archived: `in_archive`. clean: rows of clean.bars, or None to leave them out. wanted: WANTED,
    every bar whose publishing was acknowledged.
    """
    told = Comparison(records=len(published), landed=archived.select(_AT).n_unique())
    told.lost += told.note(published.join(archived, on=_AT, how="anti"), "records of the bus are not in the archive")
    told.lost += told.note(
        wanted.join(published, on=WANTED.names(), how="anti"), "acknowledged bars are not on the bus"
    )
    told.lost += told.note(
        archived.join(published, on=_PLACED.names(), how="anti"),
        "archived rows are not what the bus has at their offset",
    )
    told.lost += told.note(
        archived.filter(~pl.col("bus_offset").is_between("first", "last", closed="left")),
        "archived rows are outside of the offsets that their object is named by",
    )
    told.twice += told.note(_repeated(archived, _AT), "offsets are in the archive twice")
    if once:
        told.twice += told.note(_repeated(published, BAR), "bars are on the bus twice")
    if clean is not None:
        told.bars = len(clean)
        told.lost += told.note(
            wanted.join(clean, on=WANTED.names(), how="anti"), "acknowledged bars are not in clean.bars"
        )
        told.lost += told.note(
            published.join(clean, on=WANTED.names(), how="anti"), "bars of the bus are not in clean.bars"
        )
        told.twice += told.note(_repeated(clean, BAR), "bars are in clean.bars twice")
    return told


def _repeated(rows: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    return rows.filter(~pl.struct(by).is_first_distinct()).select(by)
