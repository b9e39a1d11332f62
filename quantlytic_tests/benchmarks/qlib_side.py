"""Computes Alpha158 with pyqlib's own expression engine: run with the Python of an environment that has pyqlib.

`python qlib_side.py BARS COLUMNS` reads bars (symbol, open_time, open, high, low, close, volume, and vwap, for which
the typical price stands where it is missing) and writes symbol, open_time and the 158 columns; both are parquet files.
It prints how many bars it took, the seconds in the engine in the faster of two rounds and the process's peak memory
in MiB, as JSON.

Bars come from memory and in double precision: pyqlib's own files hold single precision, which alone is 6e-8 of a price
and far more of a difference of two. The expressions, the operators and their compiled loops are pyqlib's.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time

import pandas as pd
import qlib
from qlib.config import C
from qlib.contrib.data.loader import Alpha158DL
from qlib.data.base import Expression
from qlib.data.cache import H
from qlib.data.data import ExpressionD, FeatureD
from qlib.data.ops import register_all_ops

CONFIG = {"kbar": {}, "price": {"windows": [0], "feature": ["OPEN", "HIGH", "LOW", "VWAP"]}, "rolling": {}}

ROUNDS = 2


class InMemory:
    """Gives the engine the bars of one symbol after another."""

    def __init__(self) -> None:
        self.bars = pd.DataFrame()

    def feature(self, instrument: str, field: str, start: int, end: int, freq: str) -> pd.Series:
        """One column of the bars; named as FeatureProvider's method, whose arguments these are."""
        return self.bars[field.removeprefix("$")].loc[start:end]


def main() -> None:
    source, target = sys.argv[1:3]
    qlib.init(provider_uri="/nowhere", expression_cache=None, dataset_cache=None, logging_level=40)
    register_all_ops(C)
    memory = InMemory()
    FeatureD.register(memory)
    fields, names = Alpha158DL.get_feature_config(CONFIG)
    expressions: list[Expression] = [ExpressionD.get_expression_instance(field) for field in fields]
    bars = pd.read_parquet(source).sort_values(["symbol", "open_time"])
    if "vwap" not in bars.columns:
        bars["vwap"] = float("nan")
    bars["vwap"] = bars["vwap"].fillna((bars["high"] + bars["low"] + bars["close"]) / 3)
    taken = math.inf
    for _ in range(ROUNDS):
        parts: list[pd.DataFrame] = []
        seconds = 0.0
        for symbol, of_symbol in bars.groupby("symbol"):
            memory.bars = of_symbol.reset_index(drop=True)
            H["f"].clear()
            begun = time.perf_counter()
            columns = {
                name: expression.load(str(symbol), 0, len(of_symbol) - 1, "day")
                for name, expression in zip(names, expressions, strict=True)
            }
            made = pd.DataFrame(columns)
            seconds += time.perf_counter() - begun
            made.insert(0, "symbol", symbol)
            made.insert(1, "open_time", memory.bars["open_time"])
            parts.append(made)
        taken = min(taken, seconds)
    pd.concat(parts).to_parquet(target, index=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"version": qlib.__version__, "rows": len(bars), "seconds": taken, "peak": peak}))


if __name__ == "__main__":
    main()
