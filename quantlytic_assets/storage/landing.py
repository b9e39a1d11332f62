"""Landing: moving records from the bus into the archive, each exactly once, whatever is killed.

A range of offsets is decided once by a claim; its objects follow from the claim alone, so whoever repeats it writes
the same ones. Records that the bus has dropped before anybody landed them are claimed too, and counted as lost. Which
partition a bar belongs to is given by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import polars as pl

from quantlytic_assets.market_data.wire.records import (
    BAR_HEADERS,
    REJECTED_HEADERS,
    decode,
    encode_bars,
    encode_rejected,
)
from quantlytic_assets.storage.archive import Archive, Claim, earlier_lives
from quantlytic_assets.storage.bus import DEAD_LETTERS, Bus, Records, bars_topic

# frame with open_time -> the same frame with a `partition` column (archive keys, text)
PartitionOf = Callable[[pl.DataFrame], pl.DataFrame]


# What a claim's landing counts beside bars, under these names in place of a partition key.
REJECTED, LOST = "refused", "lost"
# Done claims after which the checkpoint is moved on: bounds what has to be listed, without a write each time.
_CHECKPOINT_EVERY = 50


class TopicChanged(Exception):
    """A topic was deleted and made anew while it was being landed; landing again takes the new one from its start."""


@dataclass
class Landed:
    """What a landing put into the archive, by archive partition key, and how many records it rejected or found gone."""

    partitions: dict[str, dict] = field(default_factory=dict)
    rejected: int = 0
    lost: int = 0
    claims: list[Claim] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Bars in all partitions."""
        return sum(entry["rows"] for entry in self.partitions.values())

    @property
    def lost_ranges(self) -> list[str]:
        """The claims with lost records, each as `topic:partition:first-last`."""
        return [
            f"{one.topic}:{one.partition}:{one.first}-{one.last}" for one in self.claims if LOST in (one.landed or {})
        ]

    def add(self, claim: Claim) -> None:
        """Count one done claim in."""
        self.claims.append(claim)
        for key, entry in (claim.landed or {}).items():
            if key == REJECTED:
                self.rejected += entry["rows"]
                continue
            if key == LOST:
                self.lost += entry["rows"]
                continue
            total = self.partitions.setdefault(key, {"rows": 0, "bytes": 0, "objects": 0})
            total["rows"] += entry["rows"]
            total["bytes"] += entry["bytes"]
            total["objects"] += 1

    def merge(self, later: Landed) -> None:
        """Count another landing's outcome in."""
        for claim in later.claims:
            self.add(claim)


@dataclass(frozen=True)
class Source:
    """A topic as it stands: its identity, what the archive calls this life of it, and its watermarks."""

    identity: str
    life: str
    marks: dict[int, tuple[int, int]]


class Lander:
    """Lands one dataset's topic. `claim_records` bounds a claim, and with it memory: two of them are held at once."""

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

    def publish_rejected(self, rejected: pl.DataFrame) -> None:
        """Put rows that a file import rejected on the topic, so that they are kept like everything else."""
        self.bus.publish(self.topic, encode_rejected(rejected), rejected["symbol"].to_list(), REJECTED_HEADERS)

    def source(self) -> Source | None:
        """The topic as it stands now, or None where there is none."""
        identity = self.bus.identity(self.topic)
        if identity is None:
            return None
        marks = self.bus.watermarks(self.topic)
        return Source(identity, self.archive.life(self.dataset, self.topic, identity), marks)

    def landed_through(self, life: str, partition: int) -> int:
        """The offset up to which everything is landed, or known to be lost, without a break."""
        return self.archive.landed_through(self.dataset, life, partition)

    def land(self, ranges: dict[int, tuple[int, int]] | None = None, life: str | None = None) -> Landed:
        """Land everything up to the end of the topic, or just what `ranges` ({partition: [first, last)}) needs.

        Claims of others that overlap the ranges are finished if they were left half done, and reported as well, so
        that a repeated landing reports the same as the first. `life` says which life of the topic the ranges were read
        from; of one that is over, what was not landed is recorded as lost. Raises `LookupError`, before anything is
        claimed, for a range that the bus does not hold yet, `TopicChanged` where the topic is replaced meanwhile.
        """
        outcome = Landed()
        source = self.source()
        if life is not None and (source is None or life != source.life):
            for claim in self._give_up(life, ranges or {}):
                outcome.add(claim)
            return outcome
        if source is None:
            if ranges:
                raise LookupError(f"there is no topic {self.topic}")
            return outcome
        for earlier in earlier_lives(source.life):
            for claim in self._give_up(earlier, {}):
                outcome.add(claim)
        if ranges is None:
            ranges = {
                partition: (self.landed_through(source.life, partition), end)
                for partition, (_, end) in source.marks.items()
            }
        for partition, (first, last) in sorted(ranges.items()):
            if partition not in source.marks or last > source.marks[partition][1]:
                raise LookupError(f"topic {self.topic} ends before [{first}, {last}) of partition {partition}")
        for claim in self._landed_claims(source, ranges):
            outcome.add(claim)
        for partition in ranges:
            self._move_checkpoint(source.life, partition)
        return outcome

    def _landed_claims(self, source: Source, ranges: dict[int, tuple[int, int]]) -> Iterator[Claim]:
        """The claims over the ranges, done. While one is decoded and written, the next one is being read."""
        with ThreadPoolExecutor(1, thread_name_prefix="landing") as writer:
            writing: Future[Claim] | None = None
            for partition, (first, last) in sorted(ranges.items()):
                for claim in self._claims_over(source, partition, first, last):
                    if claim.done:
                        yield self.archive.with_landed(self.dataset, claim)
                        continue
                    records, lost = self._read(source, claim)
                    if writing is not None:
                        yield writing.result()
                    writing = writer.submit(self._write, source, claim, records, lost)
            if writing is not None:
                yield writing.result()

    def _claims_over(self, source: Source, partition: int, first: int, last: int) -> Iterator[Claim]:
        """Claims that cover [first, last): those that stand, then new ones after the last of them."""
        checkpoint = self.archive.checkpoint(self.dataset, source.life, partition)
        # Everything before the checkpoint is done: listed only when a run from before it is repeated.
        standing = self.archive.claims(self.dataset, source.life, partition, checkpoint if first >= checkpoint else 0)
        for claim in standing:
            # Claims from before that somebody left half done are finished too: nobody else may come back for them.
            left_behind = not claim.done and claim.last <= first
            if left_behind or (claim.last > first and claim.first < last):
                yield claim
        begin = max([claim.last for claim in standing], default=checkpoint)
        kept = source.marks[partition][0]
        while begin < last:
            # What the bus has dropped already is one claim, however much it is: it has no records to hold in memory.
            until = kept if begin < kept else min(last, begin + self.claim_records)
            claim = self.archive.claim(self.dataset, source.life, partition, begin, until)
            yield claim
            begin = claim.last

    def _read(self, source: Source, claim: Claim) -> tuple[Records, int]:
        """A claim's records, and how many of them the bus has dropped."""
        begin = claim.first
        for _ in range(4):
            try:
                records = self.bus.read(self.topic, claim.partition, begin, claim.last)
            except LookupError:
                # Retention works, also while we read: look at what is kept.
                self._check_life(source)
                kept = self.bus.watermarks(self.topic).get(claim.partition, (0, 0))[0]
                begin = min(max(claim.first, kept), claim.last)
                continue
            self._check_life(source)
            return records, begin - claim.first
        raise LookupError(f"topic {self.topic} does not give [{claim.first}, {claim.last}) of {claim.partition}")

    def _check_life(self, source: Source) -> None:
        if self.bus.identity(self.topic) != source.identity:
            raise TopicChanged(f"topic {self.topic} was deleted and made anew; land it again")

    def _write(self, source: Source, claim: Claim, records: Records, lost: int) -> Claim:
        decoded = decode(records.offsets, records.headers, records.values)
        landed: dict[str, dict] = {LOST: {"rows": lost}} if lost else {}
        if len(decoded.rejected):
            self._dead_letter(claim, decoded.rejected)
            size = self.archive.write(self.dataset, REJECTED, claim, decoded.rejected)
            landed[REJECTED] = {"rows": len(decoded.rejected), "bytes": size}
        if len(decoded.bars):
            filed = self.partition_of(decoded.bars)
            for (key,), rows in filed.partition_by("partition", as_dict=True, maintain_order=True).items():
                size = self.archive.write(self.dataset, f"partition={key}", claim, rows.drop("partition"))
                landed[key] = {"rows": len(rows), "bytes": size}
        return self.archive.mark_done(self.dataset, claim, landed)

    def _give_up(self, life: str, ranges: dict[int, tuple[int, int]]) -> Iterator[Claim]:
        """Record as lost what nobody can land any more: of a life that is over, half-done claims and these ranges."""
        for partition in sorted({*self.archive.claimed_partitions(self.dataset, life), *ranges}):
            since = self.archive.checkpoint(self.dataset, life, partition)
            claims = self.archive.claims(self.dataset, life, partition, since)
            through = claims[-1].last if claims else since
            wanted = ranges.get(partition, (0, 0))[1]
            if through < wanted:
                claims.append(self.archive.claim(self.dataset, life, partition, through, wanted))
            for claim in claims:
                if not claim.done:
                    yield self.archive.mark_done(self.dataset, claim, {LOST: {"rows": claim.last - claim.first}})
            if claims and claims[-1].last > since:
                self.archive.set_checkpoint(self.dataset, life, partition, claims[-1].last)

    def _move_checkpoint(self, life: str, partition: int) -> None:
        since = self.archive.checkpoint(self.dataset, life, partition)
        claims = self.archive.claims(self.dataset, life, partition, since)
        done = 0
        for claim in claims:
            if not claim.done:
                break
            done += 1
        if done >= _CHECKPOINT_EVERY:
            self.archive.set_checkpoint(self.dataset, life, partition, claims[done - 1].last)

    def _dead_letter(self, claim: Claim, rejected: pl.DataFrame) -> None:
        """Announce rejected records on the dead-letter topic, keyed by where they stood.

        At least once: a landing that dies before its object is written announces again under the same key. The
        object in the archive is the record that counts.
        """
        letters = rejected.select(
            pl.concat_str(pl.lit(f"{claim.topic}:{claim.partition}:"), "bus_offset").alias("at"), "reason", "raw"
        )
        values = letters.write_ndjson().encode().rstrip(b"\n").split(b"\n")
        self.bus.publish(DEAD_LETTERS, values, letters["at"].to_list(), {"schema": "dead_letter", "version": "1"})
