"""What a vendor is to the rest of the program: one request for bars, one answer or one error.

No vendor's own wire format, retry or rate limit is known here; those are in the vendor's module and in `policy`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import polars as pl


@dataclass(frozen=True)
class BarRequest:
    """Bars of one symbol whose open_time lies in `[start, end)`, both UTC.

    `name` is what the vendor calls the symbol, where the universe says so; else the vendor derives it from `symbol`.
    """

    dataset: str
    symbol: str
    interval: str
    calendar: str
    start: datetime
    end: datetime
    name: str | None = None

    def __post_init__(self) -> None:
        if self.start.utcoffset() is None or self.end.utcoffset() is None:
            raise ValueError("start and end need a time zone")
        if self.end <= self.start:
            raise ValueError(f"the range is empty: {self.start} to {self.end}")


@dataclass(frozen=True)
class VendorTraits:
    """What a vendor's silence means.

    omits_empty_bars: it serves no bar for an interval without a trade, so a lone missing bar says nothing is wrong.
    attempts_before_hole: after how many answers without a bar it counts as a hole of the vendor's.
    bars_per_request: how many bars one `fetch` may ask for; None: as many as one likes.
    """

    omits_empty_bars: bool
    attempts_before_hole: int
    bars_per_request: int | None = None


class VendorError(Exception):
    """A vendor did not answer a request. `retryable` says whether the same request may do better a little later,

    `retry_after` how many seconds the vendor itself asked to wait, if it did.
    """

    def __init__(self, message: str, retryable: bool, retry_after: float | None = None):
        super().__init__(message)
        self.retryable = retryable
        self.retry_after = retry_after


class Vendor(Protocol):
    """A source of bars that can be asked. An answer without rows means: asked, and there are none."""

    name: str

    def traits(self, dataset: str) -> VendorTraits:
        """What missing bars mean for this dataset. Never raises; an unknown dataset has the vendor's general traits."""
        ...

    def fetch(self, request: BarRequest) -> pl.DataFrame:
        """The bars of `request` as a RAW_SCHEMA frame, oldest first, finished ones only.

        One question to the vendor: `policy.fetch_with_policy` cuts longer ranges to `bars_per_request`. Raises
        `VendorError` and nothing else.
        """
        ...
