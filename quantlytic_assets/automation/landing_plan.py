"""What a bus sensor asks for next: pure, so that each turn of events can be tried by itself.

What is landed is told by the archive's claims alone; what was asked for before only tells a failed run from a new
range.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

# Seconds before a range whose run failed is asked for again: doubled with each try, up to the second figure.
_FIRST_WAIT, LONGEST_WAIT = 15.0, 300.0


@dataclass(frozen=True)
class Asked:
    """A sensor's memory: the life of the topic, ends seen of its partitions, what was asked for when, and how often."""

    life: str | None = None
    seen: Mapping[int, int] = field(default_factory=dict)
    through: Mapping[int, int] = field(default_factory=dict)
    tries: int = 0
    at: float = 0.0

    def to_json(self) -> str:
        """The cursor."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, cursor: str | None) -> Asked:
        """A cursor read back; one that can't be read is nothing asked yet, and loses nothing."""
        content = json.loads(cursor) if cursor else {}
        if "life" not in content:
            return cls()
        offsets = {name: {int(p): end for p, end in content[name].items()} for name in ("seen", "through")}
        return cls(life=content["life"], tries=content["tries"], at=content["at"], **offsets)


@dataclass(frozen=True)
class Request:
    """Offsets [first, last) to land, by bus partition, and a key that no other request has."""

    key: str
    ranges: dict[int, tuple[int, int]]


@dataclass(frozen=True)
class Wait:
    """Records that are not landed because a run has failed, and how many seconds it is until they are asked for."""

    records: int
    seconds: float


def next_request(
    asked: Asked, life: str, landed: Mapping[int, int], ends: Mapping[int, int], batch: int, now: float
) -> tuple[Request | Wait | None, Asked]:
    """The request to make now, or why to wait, or None where nothing is new; and the memory to keep.

    To be called while no landing run is at work. landed and ends: offsets by bus partition; batch: records of each
    partition at most; now: seconds since 1970.
    """
    if asked.life != life:
        asked = Asked(life=life)
    asked = replace(asked, seen=dict(ends))
    ranges = {
        partition: (landed[partition], min(end, landed[partition] + batch))
        for partition, end in sorted(ends.items())
        if landed[partition] < end
    }
    if not ranges:
        return None, replace(asked, tries=0)
    # Nobody is at work, and yet something that was asked for is not landed: that run has failed for good.
    failed = any(landed[partition] < asked.through.get(partition, 0) for partition in ranges)
    tries = asked.tries + 1 if failed else 0
    wait = asked.at + min(LONGEST_WAIT, _FIRST_WAIT * 2 ** (tries - 1)) - now if failed else 0.0
    if wait > 0:
        return Wait(sum(ends[partition] - landed[partition] for partition in ranges), wait), asked
    through = {**asked.through, **{partition: last for partition, (_, last) in ranges.items()}}
    spans = ",".join(f"{partition}:{first}-{last}" for partition, (first, last) in ranges.items())
    key = f"{life}:{spans}" + (f"#{tries}" if tries else "")
    return Request(key, ranges), replace(asked, through=through, tries=tries, at=now)
