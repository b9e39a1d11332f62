"""What a vendor is to the rest of the program: one request for bars, one answer or one error.

No vendor's own wire format, retry or rate limit is known here; those are in the vendor's module and in `policy`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import polars as pl

from quantlytic_assets.market_data.actions.reconcile import ACTIONS_SCHEMA


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
    """

    omits_empty_bars: bool
    attempts_before_hole: int


@dataclass(frozen=True)
class Limit:
    """A vendor's rate limit: at most `weight` in any `seconds`, of all that this installation asks it."""

    seconds: int
    weight: int


@dataclass(frozen=True)
class Served:
    """An answer of a vendor.

    bars: RAW_SCHEMA, oldest first, finished ones only; none where it was asked and has none. actions: the splits and
    dividends that came along with them (ACTIONS_SCHEMA), where the vendor reports them in the same answer.
    """

    bars: pl.DataFrame
    actions: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=ACTIONS_SCHEMA))


class VendorError(Exception):
    """A vendor did not answer a request.

    retryable: whether the same request may do better a little later. retry_after: how many seconds the vendor itself
    asked to wait, if it did. opens_circuit: it rejects everything for now (a ban, a used-up daily quota), so nothing
    more is asked for `retry_after` seconds.
    """

    def __init__(self, message: str, retryable: bool, retry_after: float | None = None, opens_circuit: bool = False):
        super().__init__(message)
        self.retryable = retryable
        self.retry_after = retry_after
        self.opens_circuit = opens_circuit


class Vendor(Protocol):
    """A source of bars that can be asked. `limits` are the vendor's own; () where there are none.

    `at_once`: how many questions a run may have waiting for answers. More than one takes less time, and as many are
    asked in vain where a run is killed; `fetch` is then called by as many threads.
    """

    @property
    def name(self) -> str:
        """As the universe calls it."""
        ...

    @property
    def limits(self) -> tuple[Limit, ...]:
        """Its rate limits."""
        ...

    @property
    def at_once(self) -> int:
        """How many questions may wait for answers."""
        ...

    def traits(self, dataset: str) -> VendorTraits:
        """What missing bars mean for this dataset. Never raises; an unknown dataset has the vendor's general traits."""
        ...

    def parts(self, request: BarRequest) -> list[BarRequest]:
        """The request cut into what one `fetch` can answer each, oldest first, with nothing left out or doubled.

        Parts of a part are that part, also a while later. Never raises.
        """
        ...

    def weight(self, request: BarRequest) -> int:
        """What one `fetch` of the request counts against the limits."""
        ...

    def unsupported(self, request: BarRequest) -> str | None:
        """Why the vendor can't serve such a part at all (its interval, its age), known without asking; else None."""
        ...

    def fetch(self, request: BarRequest) -> Served:
        """The bars of `request`, which is one of `parts`: one question to the vendor.

        Raises `VendorError` and nothing else.
        """
        ...
