"""The vendor `sample`: real bars that ship with Quantlytic, served through the protocol of any other vendor.

It needs no network and never changes its mind. Which series there are is in `sample_data/index.json`, where they come
from in `sample_data/SOURCES.md`. Like any vendor it goes by symbol and interval: a dataset of another name may use it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import polars as pl

from quantlytic_assets.calendars.daily_bars import with_session_times
from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.vendors.finished import finished_bars
from quantlytic_assets.vendors.protocol import BarRequest, Limit, Served, VendorError, VendorTraits

SAMPLE_DATA = Path(__file__).parent / "sample_data"


@dataclass(frozen=True)
class _Series:
    """One file of the index: several symbols at one interval, sorted by symbol and time."""

    dataset: str
    file: Path
    interval: str
    adjustment: str
    omits_empty_bars: bool
    symbols: tuple[str, ...]


class SampleVendor:
    """Serves the Parquet files of a directory with an `index.json`; the shipped ones unless told otherwise."""

    name = "sample"
    limits: tuple[Limit, ...] = ()
    at_once = 1

    def __init__(self, directory: Path = SAMPLE_DATA):
        self._directory = directory

    @cached_property
    def _index(self) -> tuple[_Series, ...]:
        listed = json.loads((self._directory / "index.json").read_text("utf-8"))
        return tuple(
            _Series(
                dataset=dataset,
                file=self._directory / entry["file"],
                interval=entry["interval"],
                adjustment=entry["adjustment"],
                omits_empty_bars=entry["omits_empty_bars"],
                symbols=tuple(entry["symbols"]),
            )
            for dataset, entry in listed.items()
        )

    def traits(self, dataset: str) -> VendorTraits:
        """One attempt is enough: the files never change, so what they lack today they lack for good."""
        omits = any(series.omits_empty_bars for series in self._index if series.dataset == dataset)
        return VendorTraits(omits_empty_bars=omits, attempts_before_hole=1)

    def parts(self, request: BarRequest) -> list[BarRequest]:
        """See `Vendor.parts`: files are read at once."""
        return [request]

    def weight(self, request: BarRequest) -> int:
        """See `Vendor.weight`: files cost nothing."""
        return 0

    def unsupported(self, request: BarRequest) -> str | None:
        """See `Vendor.unsupported`: what the files lack is said when it is asked for."""
        return None

    def fetch(self, request: BarRequest) -> Served:
        """The shipped bars with open_time in `[start, end)`; see `Vendor.fetch`.

        The files of daily bars hold dates. Such a bar gets the open and close of that session of the request's
        calendar; a date without a session gets its local midnight and a close one day later, for cleaning to judge.
        """
        series = self._series(request)
        scan = pl.scan_parquet(series.file).filter(pl.col("symbol") == request.symbol)
        if series.interval == "1d":
            bars = _daily_bars(scan, request)
        else:
            bars = scan.filter(pl.col("open_time") >= request.start, pl.col("open_time") < request.end).collect()
            bars = bars.with_columns((pl.col("open_time") + INTERVALS[series.interval]).alias("close_time"))
        return Served(finished_bars(bars, request, self.name, series.adjustment, datetime.now(UTC)))

    def _series(self, request: BarRequest) -> _Series:
        at_interval = [series for series in self._index if series.interval == request.interval]
        for series in at_interval:
            if request.symbol in series.symbols:
                return series
        offered = "; ".join(f"{one.dataset}: {', '.join(one.symbols)}" for one in at_interval)
        if not offered:
            intervals = sorted({series.interval for series in self._index}, key=INTERVALS.__getitem__)
            offered = f"only bars of {', '.join(intervals)}"
        raise VendorError(
            f"the sample data have no {request.symbol} at {request.interval} (asked for {request.dataset}); "
            f"they have {offered}",
            retryable=False,
        )


def _daily_bars(scan: pl.LazyFrame, request: BarRequest) -> pl.DataFrame:
    """Rows with a `session` date made into bars whose open_time lies in the request's range."""
    # A session opens within a day of the midnight that names it, whatever the exchange's zone.
    first, last = request.start.date() - timedelta(days=2), request.end.date() + timedelta(days=2)
    rows = scan.filter(pl.col("session").is_between(first, last)).collect()
    return with_session_times(rows, request.calendar).filter(
        pl.col("open_time") >= request.start, pl.col("open_time") < request.end
    )
