"""The core features in and out of the lake, against one statement that writes as much and bare TA-Lib.

A made lake of 50 symbols of 1-minute bars round the clock. Ours are the seconds of dbt's models from the bars on: the
closes and the families that the core set has columns in. The baseline is one DuckDB statement in a process that reads
the same bars and writes as many columns of doubles to a table of the lake, plus TA-Lib's functions on the same arrays
(target 1.3). What dbt takes to start is in neither.
Run with `python -m quantlytic_tests.benchmarks.lake_features [symbols] [sessions]`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from quantlytic_assets.features.registry import Registry
from quantlytic_tests.benchmarks.features import bare, fastest
from quantlytic_tests.benchmarks.sessions import DATASET, built, fill
from quantlytic_tests.dbt.conftest import Warehouse
from quantlytic_tests.storage.places import opened

MODELS = ("closes", "trend", "momentum", "volatility", "statistics", "indicators")


def one_statement(warehouse: Warehouse, columns: int) -> float:
    """Seconds of a statement that reads the bars and writes this many columns to a table split as the families are."""
    connection = warehouse.lake.connect()
    connection.execute("DROP TABLE IF EXISTS features.baseline")
    written = ", ".join(f"close * {1 + number / 1000} AS c{number}" for number in range(columns))
    read = (
        f'SELECT dataset, symbol, session, "interval", open_time, available_at, {written} FROM features.bars '
        f"WHERE dataset = '{DATASET}' AND high + low + volume > 0"
    )
    connection.execute(f"CREATE TABLE features.baseline AS {read} LIMIT 0")
    connection.execute('ALTER TABLE features.baseline SET PARTITIONED BY (dataset, "interval", year(session))')
    begun = time.perf_counter()
    connection.execute(f"INSERT INTO features.baseline {read} ORDER BY symbol, open_time")
    return time.perf_counter() - begun


def main() -> None:
    symbols, sessions = (int(one) for one in (*sys.argv[1:3], *("50", "14")[len(sys.argv) - 1 :]))
    names = [f"S{number:03}" for number in range(symbols)]
    columns = [name for feature in Registry().features(["core"]) for name in feature.columns]
    with tempfile.TemporaryDirectory(prefix="quantlytic-lake-") as scratch, opened("embedded", Path(scratch)) as place:
        warehouse = Warehouse(place)
        fill(warehouse, 0, sessions, names)
        taken = built(warehouse, 0, sessions, ["core"])
        models = {name: taken.get(f"model.quantlytic.{name}", 0.0) for name in MODELS}
        ours = sum(models.values())
        rounds = [one_statement(warehouse, len(columns) + 2) for _ in range(3)]
        frame = warehouse.lake.query("SELECT symbol, high, low, close FROM features.bars ORDER BY symbol, open_time")
    arrays = [
        tuple(one[name].to_numpy().copy() for name in ("high", "low", "close"))
        for one in frame.partition_by("symbol", maintain_order=True)
    ]
    alone = fastest(lambda: bare(arrays))
    print(
        f"{len(frame):,} rows, {len(columns)} columns: models {ours:.2f} s "
        f"({', '.join(f'{name} {seconds:.2f}' for name, seconds in models.items() if seconds)}), statement "
        f"{min(rounds):.2f} s, bare TA-Lib {alone:.2f} s, ratio {ours / (min(rounds) + alone):.2f} (target 1.3)"
    )


if __name__ == "__main__":
    main()
