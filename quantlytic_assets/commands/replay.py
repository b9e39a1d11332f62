"""`quantlytic replay`: bars that are known already, published again one close after the other, as a live feed would."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import polars as pl
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
    """Publish the bars of sessions `first` … `last` at `speed` times real time, and say what was published.

    The default is what the universe leaves for a replay (`replay_from`), else the last session known. Nothing is landed
    here: that is the bus sensor's part. Raises `CommandError` when there is nothing to play.
    """
    dataset = installation.dataset(name)
    if first is None and last is None:
        first = dataset.replay_from
    bars = _known_bars(installation, dataset, first, last)
    if bars.is_empty():
        raise CommandError(f"{name} has no bars there, neither with its vendors nor in the archive")
    lander = installation.resources.lander(dataset)
    due = bars.sort("close_time", "symbol").with_columns(
        ((pl.col("close_time") - pl.col("close_time").min()).dt.total_microseconds() / 1e6 / speed).alias("due")
    )
    moments = (due["due"] / _TICK).floor()
    begin, end = due["close_time"][0], due["close_time"][-1]
    out.print(
        f"replaying {_minute(begin)} to {_minute(end)} UTC at {speed:g} times real time: {len(due):,} bars in "
        f"{due['due'][-1]:.0f} s",
        highlight=False,
    )
    started = time.monotonic()
    published = 0
    try:
        with _progress(out) as progress:
            task = progress.add_task(name, total=len(due), at=_minute(begin))
            for (moment,), together in (
                due.with_columns(moments.alias("moment"))
                .partition_by("moment", as_dict=True, maintain_order=True)
                .items()
            ):
                time.sleep(max(0.0, started + moment * _TICK - time.monotonic()))
                now = datetime.now(UTC)
                replayed = together.with_columns(
                    pl.lit(now).cast(RAW_SCHEMA["fetched_at"]).alias("fetched_at"), pl.lit("replay").alias("vendor")
                )
                lander.publish(replayed.select(RAW_SCHEMA.names()))
                published += len(together)
                progress.update(task, completed=published, at=_minute(together["close_time"][-1]))
    finally:
        # Also where it was interrupted: what is published stays so.
        _summarize(out, due.head(published), lander.topic, name, time.monotonic() - started)


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def _progress(out: Console) -> Progress:
    """A bar with the replayed time, where somebody looks on."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[at]}"),
        TimeRemainingColumn(),
        console=out,
        transient=not out.is_terminal,
    )


def _summarize(out: Console, published: pl.DataFrame, topic: str, name: str, seconds: float) -> None:
    if published.is_empty():
        return
    out.print(
        f"{len(published)} bars of {published['symbol'].n_unique()} symbols, {_minute(published['close_time'][0])} to "
        f"{_minute(published['close_time'][-1])} UTC, published to {topic} in {seconds:.0f} s",
        highlight=False,
    )
    out.print(
        f"{name}_bus_sensor lands them and {name}_automation brings them into the tables, where they are switched on "
        f"under Automation in the UI; `quantlytic backfill {name}` does both at once",
        highlight=False,
    )


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
