"""What a live path has counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from quantlytic_assets.live.pipeline import Made
from quantlytic_assets.live.sources import Taken

# What every live path counts; `Counts.other` has what else came up.
_COUNTED = ("records", "bars", "signals", "revised", "late")


@dataclass
class Counts:
    """What has happened since the state began, or since the process did."""

    records: int = 0
    bars: int = 0
    signals: int = 0
    revised: int = 0
    late: int = 0
    other: dict[str, int] = field(default_factory=dict)

    def add(self, records: int, taken: Taken, made: Made) -> None:
        """Count a batch in."""
        self.records += records
        self.bars += sum(map(len, made.bars.values()))
        self.signals += len(made.signals)
        self.revised += made.revised
        self.late += made.late
        for name, count in taken.counts.items():
            self.other[name] = self.other.get(name, 0) + count

    def told(self) -> dict[str, int]:
        """By name."""
        own = {name: getattr(self, name) for name in _COUNTED}
        return own | self.other

    @classmethod
    def of(cls, told: Mapping[str, int]) -> Counts:
        """What `told` gave."""
        own = {name: told.get(name, 0) for name in _COUNTED}
        return cls(**own, other={name: count for name, count in told.items() if name not in own})
