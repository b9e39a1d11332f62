"""Landing: moving records from the bus into the archive, each exactly once, whatever is killed.

A range of offsets is decided once by a claim; its objects follow from the claim alone, so whoever repeats it writes
the same ones. Which partition a bar belongs to is given by the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import polars as pl

from quantlytic_assets.market_data.wire import BAR_HEADERS, REFUSED_HEADERS, decode, encode_bars, encode_refused
from quantlytic_assets.storage.archive import Archive, Claim
from quantlytic_assets.storage.bus import DEAD_LETTERS, Bus, bars_topic

# frame with open_time -> the same frame with a `partition` column (archive keys, text)
PartitionOf = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass
class Landed:
    """What a landing put into the archive, by archive partition key, and how many records it refused."""

    partitions: dict[str, dict] = field(default_factory=dict)
    refused: int = 0
    claims: list[Claim] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Bars in all partitions."""
        return sum(entry["rows"] for entry in self.partitions.values())

    def add(self, claim: Claim, landed: dict[str, dict]) -> None:
        """Count one claim's outcome in."""
        self.claims.append(claim)
        for key, entry in landed.items():
            if key == "refused":
                self.refused += entry["rows"]
                continue
            total = self.partitions.setdefault(key, {"rows": 0, "bytes": 0, "objects": 0})
            total["rows"] += entry["rows"]
            total["bytes"] += entry["bytes"]
            total["objects"] += 1

    def merge(self, later: Landed) -> None:
        """Count another landing's outcome in."""
        self.claims += later.claims
        self.refused += later.refused
        for key, entry in later.partitions.items():
            total = self.partitions.setdefault(key, {"rows": 0, "bytes": 0, "objects": 0})
            for name, count in entry.items():
                total[name] += count


class Lander:
    """Lands one dataset's topic. `claim_records` bounds a claim, and with it memory."""

    def __init__(self, bus: Bus, archive: Archive, dataset: str, partition_of: PartitionOf, claim_records: int):
        self.bus = bus
        self.archive = archive
        self.dataset = dataset
        self.topic = bars_topic(dataset)
        self.partition_of = partition_of
        self.claim_records = claim_records

    def publish(self, bars: pl.DataFrame) -> None:
        """Put RAW_SCHEMA bars on the dataset's topic, oldest first so that a claim spans few partitions."""
        ordered = bars.sort("open_time", "symbol")
        self.bus.publish(self.topic, encode_bars(ordered), ordered["symbol"].to_list(), BAR_HEADERS)

    def publish_refused(self, refused: pl.DataFrame) -> None:
        """Put rows that a file import refused on the topic, so that they are kept like everything else."""
        self.bus.publish(self.topic, encode_refused(refused), refused["symbol"].to_list(), REFUSED_HEADERS)

    def landed_through(self, partition: int, since: int = 0) -> int:
        """The offset up to which everything from `since` on is landed without a break."""
        through = since
        for claim in self.archive.claims(self.dataset, self.topic, partition, since):
            if claim.first > through or claim.landed is None:
                break
            through = max(through, claim.last)
        return through

    def land(self, ranges: dict[int, tuple[int, int]] | None = None) -> Landed:
        """Land everything up to the end of the topic, or just what `ranges` ({partition: [first, last)}) needs.

        Claims of others that overlap the ranges are finished if they were left half done, and reported as well, so
        that a repeated landing reports the same as the first. Raises `LookupError`, before anything is claimed, for
        a range that the bus does not hold.
        """
        outcome = Landed()
        marks = self.bus.watermarks(self.topic)
        if ranges is None:
            ranges = {partition: (first, end) for partition, (first, end) in marks.items()}
            ranges = {p: (self.landed_through(p, first), end) for p, (first, end) in ranges.items()}
        for partition, (first, last) in sorted(ranges.items()):
            if partition not in marks or last > marks[partition][1]:
                raise LookupError(f"topic {self.topic} ends before [{first}, {last}) of partition {partition}")
            for claim in self._claims_over(partition, first, last):
                outcome.add(claim, claim.landed if claim.landed is not None else self._land_claim(claim))
        return outcome

    def _claims_over(self, partition: int, first: int, last: int) -> list[Claim]:
        """Claims that cover [first, last): those that stand, and new ones after the last of them."""
        standing = self.archive.claims(self.dataset, self.topic, partition)
        # Claims from before that somebody left half done are finished too: nobody else may come back for them.
        covering = [
            claim
            for claim in standing
            if (claim.last > first and claim.first < last) or (claim.landed is None and claim.last <= first)
        ]
        begin = max([claim.last for claim in standing], default=self.bus.watermarks(self.topic)[partition][0])
        while begin < last:
            claim = self.archive.claim(
                self.dataset, self.topic, partition, begin, min(last, begin + self.claim_records)
            )
            covering.append(claim)
            begin = claim.last
        return covering

    def _land_claim(self, claim: Claim) -> dict[str, dict]:
        records = self.bus.read(claim.topic, claim.partition, claim.first, claim.last)
        decoded = decode(records.offsets, records.headers, records.values)
        landed: dict[str, dict] = {}
        if len(decoded.refused):
            self._dead_letter(claim, decoded.refused)
            size = self.archive.write(self.dataset, "refused", claim, decoded.refused)
            landed["refused"] = {"rows": len(decoded.refused), "bytes": size}
        if len(decoded.bars):
            filed = self.partition_of(decoded.bars)
            for (key,), rows in filed.partition_by("partition", as_dict=True, maintain_order=True).items():
                size = self.archive.write(self.dataset, f"partition={key}", claim, rows.drop("partition"))
                landed[key] = {"rows": len(rows), "bytes": size}
        self.archive.mark_done(self.dataset, claim, landed)
        return landed

    def _dead_letter(self, claim: Claim, refused: pl.DataFrame) -> None:
        """Announce refused records on the dead-letter topic, keyed by where they stood.

        At least once: a landing that dies before its object is written announces again under the same key. The
        object in the archive is the record that counts.
        """
        letters = refused.select(
            pl.concat_str(pl.lit(f"{claim.topic}:{claim.partition}:"), "bus_offset").alias("at"), "reason", "raw"
        )
        values = letters.write_ndjson().encode().rstrip(b"\n").split(b"\n")
        self.bus.publish(DEAD_LETTERS, values, letters["at"].to_list(), {"schema": "dead_letter", "version": "1"})
