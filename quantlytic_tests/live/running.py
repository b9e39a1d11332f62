"""Live paths in the tests' own process, and what they put on the bus."""

from __future__ import annotations

import orjson
import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.commands.installation import with_members
from quantlytic_assets.live.process import LiveProcess
from quantlytic_assets.resources import Resources
from quantlytic_assets.storage.bus import Bus
from quantlytic_assets.universe.models import Universe


def live_process(universe: Universe, dataset: str, resources: Resources, **options) -> LiveProcess:
    """The live path of a dataset, with all strategies on it."""
    strategies = with_members(one for one in universe.strategies.values() if one.dataset == dataset)
    return LiveProcess(
        universe.datasets[dataset], strategies, resources.bus, resources.hot, resources.lake, {}, lambda _: None,
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
