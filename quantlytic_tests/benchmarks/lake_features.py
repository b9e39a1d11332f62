"""The core features in and out of the lake, against statements that write as much and bare TA-Lib.

A made lake of 50 symbols of 1-minute bars round the clock. Ours are the seconds of dbt's models from the bars on: the
closes and the families that the core set has columns in. The baseline is DuckDB in a process, one statement a table,
which reads the same bars and writes as many columns of doubles beside the same keys, plus TA-Lib's functions on the
same arrays (target 1.3). A second ratio is to one statement that writes all columns to one table, so that keys are
there once; a third says what tables of their own cost. What dbt takes to start is in none. Models of a few rows take
more than a second as well, for what is imported, compiled machine code and the tables: the same two ratios are printed
of the rest, which is what the rows take.
Run with `python -m quantlytic_tests.benchmarks.lake_features [symbols] [sessions]`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from quantlytic_assets.features.columns import of_family
from quantlytic_assets.features.registry import Registry
from quantlytic_assets.schemas.features import FAMILIES, FAMILY_KEYS
from quantlytic_assets.schemas.table import quoted
from quantlytic_tests.benchmarks.features import bare, fastest
from quantlytic_tests.benchmarks.sessions import DATASET, built, fill
from quantlytic_tests.dbt.conftest import Warehouse
from quantlytic_tests.storage.places import opened

ROUNDS = 3


def statements(warehouse: Warehouse, tables: Sequence[int]) -> float:
    """Seconds of a statement a table that reads the bars and writes so many columns, to files split as a family's."""
    connection = warehouse.lake.connect()
    keys = ", ".join(quoted(column.name) for column in FAMILY_KEYS)
    taken = 0.0
    for number, columns in enumerate(tables):
        table = f"features.baseline_{number}"
        written = ", ".join(f"close * {1 + column / 1000} AS c{column}" for column in range(columns))
        read = f"SELECT {keys}, {written} FROM features.bars WHERE dataset = '{DATASET}' AND high + low + volume > 0"
        connection.execute(f"DROP TABLE IF EXISTS {table}")
        connection.execute(f"CREATE TABLE {table} AS {read} LIMIT 0")
        connection.execute(f'ALTER TABLE {table} SET PARTITIONED BY (dataset, "interval", year(session))')
        begun = time.perf_counter()
        connection.execute(f"INSERT INTO {table} {read} ORDER BY symbol, open_time")
        taken += time.perf_counter() - begun
    return taken


def of_few(columns: Sequence[int]) -> tuple[float, float, float]:
    """Seconds of the models, of a statement a table, and of one statement, for a session of two symbols."""
    with tempfile.TemporaryDirectory(prefix="quantlytic-lake-") as scratch, opened("embedded", Path(scratch)) as place:
        warehouse = Warehouse(place)
        fill(warehouse, 0, 1, ["S000", "S001"])
        models = [_models(built(warehouse, 0, 1, ["core"])) for _ in range(ROUNDS)]
        several, single = (
            min(statements(warehouse, tables) for _ in range(ROUNDS)) for tables in (columns, [sum(columns)])
        )
        return min(sum(one.values()) for one in models), several, single


def _models(taken: dict[str, float]) -> dict[str, float]:
    """Seconds by model, of those from the bars on."""
    first = "model.quantlytic."
    return {name: taken[first + name] for name in ("closes", *FAMILIES, "indicators") if first + name in taken}


def main() -> None:
    symbols, sessions = (int(one) for one in (*sys.argv[1:3], *("50", "14")[len(sys.argv) - 1 :]))
    names = [f"S{number:03}" for number in range(symbols)]
    core = Registry().features(["core"])
    columns = {name: sum(len(one.columns) for one in of_family(core, name)) for name in FAMILIES}
    families = {name: count for name, count in columns.items() if count}
    # A close and how much history it has.
    tables = [2, *families.values()]
    few = of_few(tables)
    with tempfile.TemporaryDirectory(prefix="quantlytic-lake-") as scratch, opened("embedded", Path(scratch)) as place:
        warehouse = Warehouse(place)
        fill(warehouse, 0, sessions, names)
        # One after the other, for a busy machine is busier in one minute than in the next.
        several, single, builds = [], [], []
        for _ in range(ROUNDS):
            builds.append(_models(built(warehouse, 0, sessions, ["core"])))
            several.append(statements(warehouse, tables))
            single.append(statements(warehouse, [sum(tables)]))
        frame = warehouse.lake.query("SELECT symbol, high, low, close FROM features.bars ORDER BY symbol, open_time")
    arrays = [
        tuple(one[name].to_numpy().copy() for name in ("high", "low", "close"))
        for one in frame.partition_by("symbol", maintain_order=True)
    ]
    alone = fastest(lambda: bare(arrays))
    best = min(builds, key=lambda models: sum(models.values()))
    ours = sum(best.values())
    print(
        f"{len(frame):,} rows, {sum(families.values())} columns in {len(families)} families: models {ours:.2f} s "
        f"({', '.join(f'{name} {seconds:.2f}' for name, seconds in best.items())}), bare TA-Lib {alone:.2f} s; "
        f"ratio {ours / (min(several) + alone):.2f} (target 1.3) where {len(tables)} statements write the same tables "
        f"in {min(several):.2f} s, {ours / (min(single) + alone):.2f} where one writes one table "
        f"in {min(single):.2f} s; "
        f"tables of their own cost {min(several) / min(single):.2f}"
    )
    fixed, *others = few
    rows = ours - fixed
    print(
        f"models of 2,880 rows {fixed:.2f} s; of the rest {rows / (min(several) - others[0] + alone):.2f} (target 1.3) "
        f"and {rows / (min(single) - others[1] + alone):.2f}"
    )


if __name__ == "__main__":
    main()
