"""Work that storage tests let other processes do, and kill.

They are forked from a process that has the heavy imports behind it, in milliseconds, so that many can be killed. That
one is itself forked (`forking`) where tests run.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from datetime import date
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

import obstore
import polars as pl

from quantlytic_assets.storage.attempts import AttemptLog
from quantlytic_assets.storage.budgets import BudgetLog
from quantlytic_assets.storage.lake import Lake
from quantlytic_assets.storage.landing import Landed, Lander
from quantlytic_assets.vendors.protocol import Limit
from quantlytic_tests.storage.places import Place

HEADERS = {"schema": "bar", "version": "1", "encoding": "json"}


def context() -> BaseContext:
    """Where processes come from."""
    chosen = multiprocessing.get_context("forkserver")
    chosen.set_forkserver_preload([__name__, "quantlytic_tests.services.desk"])
    return chosen


def start(work: Callable, *arguments: object) -> BaseProcess:
    """A started process."""
    process = context().Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def together(work: Callable, each: list[tuple]) -> None:
    """Let one process per tuple of arguments do `work(barrier, *arguments)` at once; all must end well."""
    barrier = context().Barrier(len(each))
    running = [start(work, barrier, *arguments) for arguments in each]
    for process in running:
        process.join(120)
    assert [process.exitcode for process in running] == [0] * len(each)


# Bus -----------------------------------------------------------------------------------------------------------


def publish_many(barrier: Barrier, place: Place, topic: str, name: str, batches: int, size: int) -> None:
    """Publish `batches` batches of `size` numbered records."""
    bus = place.resources.bus
    barrier.wait(60)
    for batch in range(batches):
        values = [f"{name}:{batch}:{i}".encode() for i in range(size)]
        bus.publish(topic, values, [name] * size, HEADERS)


def publish_forever(place: Place, topic: str, size: int) -> None:
    """Publish batches whose records say their batch, until killed."""
    bus = place.resources.bus
    batch = 0
    while True:
        bus.publish(topic, [f"{os.getpid()}:{batch}:{i}".encode() for i in range(size)], ["k"] * size, HEADERS)
        batch += 1


# Landing -------------------------------------------------------------------------------------------------------


def by_day(frame: pl.DataFrame) -> pl.DataFrame:
    """Archive keys by UTC day."""
    return frame.with_columns(pl.col("open_time").dt.strftime("%Y-%m-%d").alias("partition"))


def make_lander(bus: Place, archive: Place, dataset: str = "sample_set", claim_records: int = 250) -> Lander:
    """A lander on one place's bus and another's archive."""
    return Lander(bus.resources.bus, archive.resources.archive, dataset, by_day, claim_records)


def land(bus: Place, archive: Place) -> Landed:
    """Land everything."""
    return make_lander(bus, archive).land()


def land_at_once(barrier: Barrier, bus: Place, archive: Place, ranges: dict[int, tuple[int, int]] | None) -> None:
    """Land when the others do."""
    lander = make_lander(bus, archive)
    barrier.wait(60)
    lander.land(ranges)


def land_and_die(bus: Place, archive: Place, puts: int, before: bool, suffix: str = "") -> None:
    """Land until so many objects (whose names end in `suffix`) are put, and die before or after the last of them."""
    put, count = obstore.put, 0

    def counting(*arguments: object, **options: object) -> object:
        nonlocal count
        count += str(arguments[1]).endswith(suffix)
        if before and count == puts:
            os.kill(os.getpid(), signal.SIGKILL)
        result = put(*arguments, **options)
        if count == puts:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    obstore.put = counting
    land(bus, archive)


# Lake ----------------------------------------------------------------------------------------------------------


def lake_rows(version: int, symbol: str, session: date, count: int) -> pl.DataFrame:
    """Rows of clean.bars that carry their version in every price."""
    start_time = pl.datetime(session.year, session.month, session.day, time_zone="UTC")
    return (
        pl.select(
            pl.lit("sample_set").alias("dataset"),
            pl.lit(symbol).alias("symbol"),
            pl.lit(session).alias("session"),
            pl.datetime_ranges(start_time, start_time + pl.duration(minutes=count), "1m", closed="left").alias(
                "open_time"
            ),
        )
        .explode("open_time")
        .with_columns(pl.lit(float(version)).alias("close"))
    )


def replace_session(lake: Lake, version: int, symbol: str, session: date, count: int) -> int:
    """Replace a symbol's session."""
    condition = "dataset = 'sample_set' AND symbol = ? AND session = ?"
    rows = lake_rows(version, symbol, session, count)
    return lake.replace([("clean.bars", condition, [symbol, session], rows)])


def replace_at_once(
    barrier: Barrier, place: Place, version: int, symbols: list[str], session: date, count: int
) -> None:
    """Replace session after session, each when the others do theirs."""
    lake = place.resources.lake
    lake.connect()
    for symbol in symbols:
        barrier.wait(60)
        replace_session(lake, version, symbol, session, count)


def replace_forever(place: Place, session: date, count: int) -> None:
    """Replace one session with ever new versions, bars and coverage in one transaction, until killed."""
    lake = place.resources.lake
    version = 0
    while True:
        version += 1
        rows = lake_rows(version, "A", session, count)
        told = pl.DataFrame({"dataset": "sample_set", "symbol": "A", "session": [session], "present_bars": version})
        lake.replace(
            [
                ("clean.bars", "dataset = ? AND session = ?", ["sample_set", session], rows),
                ("clean.coverage", "dataset = ? AND session = ?", ["sample_set", session], told),
            ]
        )


# Attempts ------------------------------------------------------------------------------------------------------


def count_attempts(barrier: Barrier, place: Place, times: int, session: date) -> None:
    """Record the same hole again and again."""
    barrier.wait(60)
    log = AttemptLog(place.resources.state_url)
    holes = pl.DataFrame(
        {"symbol": ["A"], "session": [session], "error": [None]},
        schema={"symbol": pl.String, "session": pl.Date, "error": pl.String},
    )
    for _ in range(times):
        log.record("sample_set", holes)


# Locks ---------------------------------------------------------------------------------------------------------


def hold_lock(place: Place, name: str, ready: Path) -> None:
    """Hold a lock until killed; `ready` is made when it is held."""
    with place.resources.lock(name, wait=False):
        ready.touch()
        signal.pause()


# Budgets -------------------------------------------------------------------------------------------------------


def reserve_places(barrier: Barrier, place: Place, calls: int) -> None:
    """Ask `calls` times for one of the hundred places that vendor `v` has in an hour; a wait is no place."""
    budgets = BudgetLog(place.resources.state_url)
    barrier.wait(60)
    for _ in range(calls):
        budgets.reserve("v", (Limit(3600, 100),), 1)
