"""`quantlytic replay`: bars that are known already, published again one close after the other, as a live feed would."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import polars as pl
from rich.progress import Progress

from quantlytic_assets.calendars.partitions import keys_between, windows
from quantlytic_assets.commands.installation import CommandError
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.vendors.policy import fetch_with_policy
from quantlytic_assets.vendors.protocol import BarRequest

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.universe.models import Dataset

# Bars that fall due within this many seconds are published together.
_TICK = 0.25


def run_replay(
    installation: Installation, out: Console, name: str, speed: float, first: date | None, last: date | None
) -> None:
    """Publish the bars of sessions `first` … `last` (default: the last one known) at `speed` times real time.

    Nothing is landed here: that is the bus sensor's part. Raises `CommandError` when there is nothing to play.
    """
    dataset = installation.dataset(name)
    bars = _known_bars(installation, dataset, first, last)
    if bars.is_empty():
        raise CommandError(f"{name} has no bars there, neither with its vendors nor in the archive")
    lander = installation.resources.lander(dataset)
    due = bars.sort("close_time", "symbol").with_columns(
        ((pl.col("close_time") - pl.col("close_time").min()).dt.total_microseconds() / 1e6 / speed).alias("due")
    )
    moments = (due["due"] / _TICK).floor()
    started = time.monotonic()
    with Progress(console=out, transient=not out.is_terminal) as progress:
        task = progress.add_task(f"replaying {name}", total=len(due))
        for (moment,), together in (
            due.with_columns(moments.alias("moment")).partition_by("moment", as_dict=True, maintain_order=True).items()
        ):
            time.sleep(max(0.0, started + moment * _TICK - time.monotonic()))
            now = datetime.now(UTC)
            published = together.with_columns(
                pl.lit(now).cast(RAW_SCHEMA["fetched_at"]).alias("fetched_at"), pl.lit("replay").alias("vendor")
            )
            lander.publish(published.select(RAW_SCHEMA.names()))
            progress.advance(task, len(together))
    out.print(f"{len(due)} bars published to {lander.topic}; its bus sensor lands them", highlight=False)


def _known_bars(installation: Installation, dataset: Dataset, first: date | None, last: date | None) -> pl.DataFrame:
    """Bars of the sessions from the sample, else from the archive."""
    keys = keys_between(dataset, first, last)
    if first is None and last is None:
        keys = keys[-1:]
    if not keys:
        return pl.DataFrame(schema=RAW_SCHEMA)
    span = windows(dataset, keys)
    begin = datetime.combine(span[0].first, datetime.min.time(), UTC)
    end = datetime.combine(span[-1].last, datetime.min.time(), UTC)
    if "sample" in dataset.vendors:
        sample = installation.resources.vendor("sample")
        requests = [
            BarRequest(dataset.name, one.symbol, dataset.interval, dataset.calendar, begin, end)
            for one in dataset.symbols
        ]
        return pl.concat([fetch_with_policy(sample, request).bars for request in requests])
    objects = installation.resources.archive.objects(dataset.name, span[0].first, span[-1].last)
    archived = installation.resources.archive.read(objects)
    newest = archived.sort("fetched_at", "bus_offset").unique(["symbol", "open_time"], keep="last")
    return newest.select(RAW_SCHEMA.names())
