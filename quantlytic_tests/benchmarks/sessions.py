"""All families of features through dbt: the memory of a long range, and one new session with more history behind it.

Two made lakes of 5 symbols of 1-minute bars round the clock, one of 25 sessions and one of ten times as many. Each is
filled by one dbt build over all its sessions, in every feature that there is; then the next session is built, in turns,
some times. Printed are the peak memory of the long build (target 2 GiB) and what one new session costs with ten times
the history, as a ratio (target 1.3): of the seconds of dbt's models and tests, as dbt notes them, and of processor time
of the whole command, most of which is dbt's start.
Run with `python -m quantlytic_tests.benchmarks.sessions [sessions]`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from quantlytic_assets.features.registry import Registry
from quantlytic_tests.dbt.conftest import Warehouse
from quantlytic_tests.storage.places import opened

SYMBOLS = ("BTC-USD", "ETH-USD", "SOL-USD", "ADA-USD", "XRP-USD")
FIRST = date(2024, 1, 1)
DATASET = "made_1m"
TIMES, ROUNDS = 10, 3
OF_OTHERS = (
    "beta(60, BTC-USD)", "corr(60, BTC-USD)", "spread(BTC-USD, ETH-USD)", "ratio(BTC-USD, ETH-USD)",
    "staleness(BTC-USD)", "rank(ret_1)", "zscore(ret_1)",
)  # fmt: skip


def every_feature() -> list[str]:
    """A declaration of each feature of the library."""
    plain = [one.name for one in Registry().specs() if one.kind == "bars" and one.family != "alpha158"]
    return ["core", "alpha158", *plain, *OF_OTHERS]


def fill(warehouse: Warehouse, first: int, last: int, symbols: Sequence[str] = SYMBOLS) -> None:
    """Clean bars of these sessions, counted from the first: a random walk a symbol."""
    begin = datetime.combine(FIRST, datetime.min.time(), UTC) + timedelta(days=first)
    minute, count = timedelta(minutes=1), (last - first) * 1440
    opens = pl.datetime_range(begin, begin + count * minute, "1m", closed="left", eager=True).cast(
        pl.Datetime("us", "UTC")
    )
    frames = []
    for number, symbol in enumerate(symbols):
        drawn = np.random.default_rng([first, number])
        close = 100 * np.exp(np.cumsum(drawn.normal(0, 5e-4, count)))
        before = np.concatenate((close[:1], close[:-1]))
        frames.append(
            pl.DataFrame({"symbol": pl.repeat(symbol, count, eager=True), "open_time": opens}).with_columns(
                session=pl.col("open_time").dt.date(),
                close_time=pl.col("open_time") + minute,
                open=pl.Series(before),
                high=pl.Series(np.maximum(before, close) * 1.0002),
                low=pl.Series(np.minimum(before, close) * 0.9998),
                close=pl.Series(close),
                volume=pl.Series(drawn.uniform(1, 100, count)),
            )
        )
    bars = pl.concat(frames)
    days = bars.select("session").unique().sort("session")
    midnight = pl.col("session").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    warehouse.add(DATASET, bars, days.with_columns(open_time=midnight, close_time=midnight + timedelta(days=1)))


def built(warehouse: Warehouse, first: int, last: int, features: Sequence[str]) -> dict[str, float]:
    """One dbt build of these sessions: seconds in models and tests, of a processor in all, and peak memory in MiB."""
    start, end = (str(FIRST + timedelta(days=one)) for one in (first, last))
    command, environment = warehouse.command(DATASET, start, end, "1m", ["1m"], features=features)
    with tempfile.TemporaryFile() as said:
        running = subprocess.Popen([*command, "--write-json"], env=environment, stdout=said, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
        if running.returncode:
            said.seek(0)
            raise SystemExit(said.read().decode()[-4000:])
    results = json.loads((warehouse.target / "run_results.json").read_text())["results"]
    return {
        "models": sum(one["execution_time"] for one in results),
        **{one["unique_id"]: one["execution_time"] for one in results if one["unique_id"].startswith("model.")},
        "processor": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss / 1024,
    }


def main() -> None:
    few = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    features = every_feature()
    with tempfile.TemporaryDirectory(prefix="quantlytic-sessions-") as scratch, ExitStack() as places:
        warehouses = {}
        for sessions in (few, few * TIMES):
            directory = Path(scratch) / str(sessions)
            directory.mkdir()
            warehouses[sessions] = Warehouse(places.enter_context(opened("embedded", directory)))
        for sessions, warehouse in warehouses.items():
            for begin in range(0, sessions, 25):
                fill(warehouse, begin, min(begin + 25, sessions))
            whole = built(warehouse, 0, sessions, features)
            print(
                f"{sessions} sessions, {sessions * 1440 * len(SYMBOLS):,} rows, {len(features)} features: "
                f"{whole['models']:.0f} s, peak memory {whole['peak'] / 1024:.2f} GiB (target 2 at 250 sessions)",
                flush=True,
            )
            fill(warehouse, sessions, sessions + 1)
        taken: dict[int, list[dict[str, float]]] = {sessions: [] for sessions in warehouses}
        for _ in range(ROUNDS):
            for sessions, warehouse in warehouses.items():
                taken[sessions].append(built(warehouse, sessions, sessions + 1, features))
    fastest = {
        sessions: {unit: min(one[unit] for one in rounds) for unit in ("models", "processor")}
        for sessions, rounds in taken.items()
    }
    short, long = fastest.values()
    print(
        f"one new session after {few * TIMES} and after {few}: models {long['models']:.2f} s and "
        f"{short['models']:.2f} s, ratio {long['models'] / short['models']:.2f} (target 1.3); processor time "
        f"{long['processor']:.2f} s and {short['processor']:.2f} s, ratio {long['processor'] / short['processor']:.2f}"
    )


if __name__ == "__main__":
    main()
