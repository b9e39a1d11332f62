"""Live paths in the tests' own process, and what they put on the bus."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.commands.installation import with_members
from quantlytic_assets.live.graph_watch import Graph
from quantlytic_assets.live.process import LiveProcess
from quantlytic_assets.resources import Resources
from quantlytic_assets.storage.bus import Bus
from quantlytic_assets.universe.models import Universe


def live_process(
    universe: Universe, dataset: str, resources: Resources, report: Callable[[str], None] = lambda _: None, **options
) -> LiveProcess:
    """The live path of a dataset, with all strategies on it."""
    strategies = with_members(one for one in universe.strategies.values() if one.dataset == dataset)
    return LiveProcess(
        universe.datasets[dataset], strategies, resources.bus, resources.hot, resources.lake, {}, report,
        **options,
    )  # fmt: skip


def bars_on(bus: Bus, topic: str) -> pl.DataFrame:
    """The rows of a topic that the live path writes, times as times."""
    values: list[bytes] = []
    for partition, (first, end) in bus.watermarks(topic).items():
        values += bus.read(topic, partition, first, end).values
    rows = pl.DataFrame([orjson.loads(one) for one in values], infer_schema_length=None)
    times = [name for name in ("open_time", "close_time", "available_at") if name in rows.columns]
    return rows.with_columns(pl.col(times).str.to_datetime(time_zone="UTC").cast(TIME))


def look(process: LiveProcess) -> Graph:
    """What the graph has anew, read as the thread of the live path does; its next step compares it."""
    watch = process._watch
    process._watch.look(process._since(), {"": process._revised})
    process._revised = set()
    assert watch._since is not None
    graph = watch._fresh = watch._reader.read(watch._since, watch._again)
    watch._again = {}
    return graph
