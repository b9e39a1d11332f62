"""Rebuild: 250 sessions of 5 symbols of 1-minute bars from the archive through clean, coverage and dbt.

Printed as a ratio to two baselines of the same run: (a) the same graph with empty bodies on Dagster as it comes, which
is Dagster's own cost, and (b) one DuckDB statement that reads the same objects and writes the same rows once. The empty
graph is also run on this project's storage of Dagster's events. Run with `make bench`.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

SESSIONS = 250
SYMBOLS = ["BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "XRP-USD"]
FIRST = date(2024, 1, 1)
UNIVERSE = f"""
datasets:
  rebuild_1m:
    calendar: "24/7"
    interval: 1m
    first_session: {FIRST}
    last_session: {FIRST + timedelta(days=SESSIONS - 1)}
    vendors: []
    feature_intervals: [5m, 1h]
    symbols: [{", ".join(SYMBOLS)}]
"""


def _installation():
    from quantlytic_assets.commands.installation import Installation

    return Installation()


def fill_archive() -> None:
    """Land a seeded random walk for each symbol through the bus, as any bars land."""
    import numpy as np
    import polars as pl

    from quantlytic_assets.calendars.intervals import TIME
    from quantlytic_assets.market_data.bars import RAW_SCHEMA

    installation = _installation()
    lander = installation.resources.lander(installation.universe.datasets["rebuild_1m"])
    random = np.random.default_rng(7)
    days = 25
    for begin in range(0, SESSIONS, days):
        start = datetime.combine(FIRST, datetime.min.time()) + timedelta(days=begin)
        opens = pl.datetime_range(
            start, start + timedelta(days=min(days, SESSIONS - begin)), "1m", closed="left", eager=True, time_zone="UTC"
        ).cast(TIME)
        frames = []
        for symbol in SYMBOLS:
            close = 100 * np.exp(np.cumsum(random.normal(0, 5e-4, len(opens))))
            first = np.concatenate([[close[0]], close[:-1]])
            spread = np.abs(random.normal(0, 2e-4, len(opens)))
            frames.append(
                pl.DataFrame(
                    {
                        "symbol": symbol,
                        "open_time": opens,
                        "close_time": opens + timedelta(minutes=1),
                        "open": first,
                        "high": np.maximum(first, close) * (1 + spread),
                        "low": np.minimum(first, close) * (1 - spread),
                        "close": close,
                        "volume": random.uniform(1, 100, len(opens)),
                        "vwap": pl.Series([None] * len(opens), dtype=pl.Float64),
                        "trade_count": pl.Series([None] * len(opens), dtype=pl.Int64),
                        "vendor": "benchmark",
                        "fetched_at": pl.Series([datetime(2025, 6, 1)] * len(opens)).cast(pl.Datetime("us")),
                        "adjustment": "none",
                    }
                ).with_columns(pl.col("fetched_at").dt.replace_time_zone("UTC"))
            )
        lander.publish(pl.concat(frames).select(RAW_SCHEMA.names()))
    landed = lander.land()
    print(json.dumps({"rows": landed.rows, "partitions": len(landed.partitions)}))


def rebuild() -> None:
    """The measured part: clean, coverage and dbt for all sessions in one run."""
    import dagster as dg

    from quantlytic_assets.calendars import partitions
    from quantlytic_assets.dagster_internals import range_tags

    installation = _installation()
    dataset = installation.universe.datasets["rebuild_1m"]
    keys = partitions.known_keys(dataset)
    job = installation.definitions.resolve_job_def("rebuild_1m_pipeline")
    selection = [key for key in job.asset_layer.selected_asset_keys if key.path[-1] != "raw_bars"]
    instance = installation.instance
    started = _now()
    result = job.execute_in_process(
        instance=instance,
        asset_selection=selection,
        tags=range_tags(keys[0], keys[-1]),
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=True,
    )
    taken = _since(started)
    assert result.success
    steps: dict[str, float] = {}
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_SUCCESS:
            steps[event.step_key] = round(event.step_success_data.duration_ms / 1000, 1)
    rows = installation.resources.lake.query(
        "SELECT (SELECT count(*) FROM clean.bars) AS bars, (SELECT count(*) FROM features.bars) AS feature_bars, "
        "(SELECT count(*) FROM features.indicators) AS indicators, (SELECT count(*) FROM features.labels) AS labels, "
        "(SELECT count(*) FROM clean.coverage) AS coverage"
    ).to_dicts()[0]
    _print(taken, {"rows": rows, "steps": steps})


def empty_graph_as_dagster_comes() -> None:
    """Baseline (a): assets and checks with the same keys, partitions and policy that do nothing."""
    import dagster as dg

    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        _empty_graph(instance)


def empty_graph_on_our_storage() -> None:
    """The same on the instance that installations have."""
    _empty_graph(_installation().instance)


def _empty_graph(instance: dg.DagsterInstance) -> None:
    from quantlytic_assets.assets.partitions import definition
    from quantlytic_assets.calendars import partitions
    from quantlytic_assets.dagster_internals import range_tags
    from quantlytic_tests.benchmarks.empty_graph import empty_job

    installation = _installation()
    dataset = installation.universe.datasets["rebuild_1m"]
    keys = partitions.known_keys(dataset)
    real = installation.definitions.resolve_job_def("rebuild_1m_pipeline")
    wanted = [key for key in real.asset_layer.selected_asset_keys if key.path[-1] != "raw_bars"]
    job = empty_job(real, wanted, definition(dataset))
    started = _now()
    job.execute_in_process(
        instance=instance,
        tags=range_tags(keys[0], keys[-1]),
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=True,
    )
    _print(_since(started), {"assets": len(wanted)})


def one_statement() -> None:
    """Baseline (b): one INSERT … SELECT from the archive's objects into a lake table of the same shape."""
    installation = _installation()
    resources = installation.resources
    paths = [f"{resources.archive.root}/{stored.path}" for stored in resources.archive.objects("rebuild_1m")]
    connection = resources.lake.connect()
    started = _now()
    connection.execute(
        "INSERT INTO clean.bars SELECT 'rebuild_1m', symbol, open_time::DATE, open_time, close_time, open, high, low, "
        "close, volume, vwap, trade_count, vendor, fetched_at, adjustment, close_time, []::VARCHAR[] "
        "FROM read_parquet(?, hive_partitioning = false)",
        [paths],
    )
    taken = _since(started)
    _print(taken, {"rows": connection.execute("SELECT count(*) FROM clean.bars").fetchall()[0][0]})


def _now() -> tuple[float, float]:
    """Seconds on the clock, and seconds of a processor that this process and its children have taken."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.monotonic(), sum(one.ru_utime + one.ru_stime for one in used)


def _since(started: tuple[float, float]) -> dict[str, float]:
    clock, processor = _now()
    return {"seconds": round(clock - started[0], 2), "processor": round(processor - started[1], 2)}


def _print(taken: dict[str, float], more: dict) -> None:
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({**taken, "own_mib": own // 1024, "child_mib": child // 1024, **more}))


def _in_process_of_its_own(part: str, home: Path, archive: Path) -> dict:
    """Run one part in a fresh process and a fresh home that shares the archive; its last line is its result."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "universe.yaml").write_text(UNIVERSE)
    if not (home / "archive").exists() and archive.parent != home:
        (home / "archive").symlink_to(archive)
    environment = {
        **os.environ,
        "QUANTLYTIC_HOME": str(home),
        "QUANTLYTIC_UNIVERSE": str(home / "universe.yaml"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "quantlytic_tests.benchmarks.rebuild", part],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{part} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Run all parts and print the ratio."""
    with tempfile.TemporaryDirectory(prefix="quantlytic-rebuild-") as scratch:
        root = Path(scratch)
        archive = root / "rebuild" / "archive"
        print("archive:", _in_process_of_its_own("fill_archive", root / "rebuild", archive))
        statement = _in_process_of_its_own("one_statement", root / "statement", archive)
        empty = _in_process_of_its_own("empty_graph_as_dagster_comes", root / "empty", archive)
        ours = _in_process_of_its_own("empty_graph_on_our_storage", root / "ours", archive)
        full = _in_process_of_its_own("rebuild", root / "rebuild", archive)
    print("(a) empty graph:  ", empty)
    print("... on our storage:", ours)
    print("(b) one statement:", statement)
    print("rebuild:          ", full)
    clock, processor = (full[unit] / (empty[unit] + statement[unit]) for unit in ("seconds", "processor"))
    # On a machine that has other things to do only the second says something.
    print(f"rebuild / (a + b) = {clock:.2f}, in processor time {processor:.2f}")
    print(f"empty graph on our storage / as Dagster comes = {ours['seconds'] / empty['seconds']:.2f}")
    print(f"peak memory {full['own_mib'] + full['child_mib']} MiB at most")


if __name__ == "__main__":
    {
        "fill_archive": fill_archive,
        "rebuild": rebuild,
        "empty_graph_as_dagster_comes": empty_graph_as_dagster_comes,
        "empty_graph_on_our_storage": empty_graph_on_our_storage,
        "one_statement": one_statement,
    }[sys.argv[1]]() if len(sys.argv) > 1 else main()
