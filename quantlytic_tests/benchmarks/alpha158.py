"""Alpha158 of many daily bars against pyqlib's own expression engine, in the same run, with the peak memory of both.

QUANTLYTIC_QLIB_PYTHON names the Python of an environment that has pyqlib (`pip install pyqlib`); without it only our
side is run. Each side is a process of its own with one thread, its bars in memory, and is timed without start-up,
compilation and reading. pyqlib takes the bars of the first symbols only, for it goes through them one after another:
what is compared is the time of a bar, of the faster of two rounds, for a virtual machine's first touch of memory can
cost more than the arithmetic. Where both have a row, all 158 columns are compared too.
Run with `python -m quantlytic_tests.benchmarks.alpha158 [symbols] [bars] [symbols for pyqlib]`.
"""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from quantlytic_assets.features.batch import compute
from quantlytic_assets.features.registry import Registry
from quantlytic_tests.benchmarks.features import bars

QLIB_PYTHON = "QUANTLYTIC_QLIB_PYTHON"
OURS = "--ours"
ROUNDS = 2
# The deviation of a daily return.
STEP = 0.015


def ours(source: str, target: str) -> None:
    """Our side, in this process: the columns of the bars in a file, as `qlib_side` does it."""
    frame = pl.read_parquet(source)
    alpha = Registry().features(["alpha158"])
    compute(frame[:1000], alpha)
    taken = math.inf
    for _ in range(ROUNDS):
        found = None  # The memory of the round before.
        begun = time.perf_counter()
        found = compute(frame, alpha)
        taken = min(taken, time.perf_counter() - begun)
    assert found is not None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    columns = [name for feature in alpha for name in feature.columns]
    compared = found.filter(pl.col("symbol") < f"S{int(os.environ['COMPARED']):03}")
    compared.select("symbol", "open_time", *columns).write_parquet(target)
    print(json.dumps({"rows": len(frame), "seconds": taken, "peak": peak}))


def side(command: list[str], compared: int) -> dict[str, float]:
    """What a side prints."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    environment = os.environ | threads | {"COMPARED": str(compared)}
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(run.stdout.splitlines()[-1])


def differing(found: pl.DataFrame, wanted: pl.DataFrame) -> list[str]:
    """The columns that are not the same to 1e-6."""
    names = [name for name in wanted.columns if name not in ("symbol", "open_time")]
    arrays = ([one[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for one in (found, wanted)] for name in names)
    return [
        name
        for name, (left, right) in zip(names, arrays, strict=True)
        if not np.isclose(left, right, rtol=1e-6, atol=1e-9, equal_nan=True).all()
    ]


def main() -> None:
    symbols, count, fewer = (int(one) for one in (*sys.argv[1:], *("800", "3400", "40")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as directory:
        source, few, found, wanted = (str(Path(directory) / name) for name in ("all", "few", "ours", "qlibs"))
        frame = bars(symbols, count, STEP)
        frame.write_parquet(source)
        frame.filter(pl.col("symbol") < f"S{fewer:03}").write_parquet(few)
        del frame
        mine = side([sys.executable, "-m", __spec__.name, OURS, source, found], fewer)
        each = mine["seconds"] / mine["rows"] * 1e6
        print(
            f"alpha158: {symbols} symbols x {count:,} bars in {mine['seconds']:.1f} s, {each:.2f} us a bar of 158 "
            f"columns, peak memory {mine['peak'] / 1024:.2f} GiB (target 6)"
        )
        python = os.environ.get(QLIB_PYTHON)
        if not python:
            print(f"pyqlib is not compared: {QLIB_PYTHON} names no Python that has it")
            return
        theirs = side([python, str(Path(__file__).with_name("qlib_side.py")), few, wanted], fewer)
        another = theirs["seconds"] / theirs["rows"] * 1e6
        wrong = differing(pl.read_parquet(found), pl.read_parquet(wanted))
        print(
            f"pyqlib {theirs['version']}: {another:.2f} us a bar over {fewer} symbols, peak memory "
            f"{theirs['peak'] / 1024:.2f} GiB; ratio of ours to pyqlib's {each / another:.3f} (target 0.15); "
            f"columns that differ by more than 1e-6: {', '.join(wrong) or 'none'} of 158"
        )


if __name__ == "__main__":
    if OURS in sys.argv:
        ours(*sys.argv[2:4])
    else:
        main()
