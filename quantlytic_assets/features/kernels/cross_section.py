"""Kernels over all symbols of one time: their inputs are one value a symbol, a group is a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from quantlytic_assets.features.kernels.compiling import compiled


@compiled
def _rank(values):
    count = 0
    for value in values:
        count += value == value
    result = np.full(len(values), np.nan)
    for i in range(len(values)):
        if values[i] == values[i]:
            below, equal = 0, 0
            for value in values:
                below += value < values[i]
                equal += value == values[i]
            result[i] = (below + (equal + 1.0) / 2.0) / count
    return result


@compiled
def _zscore(values):
    count, total, lowest, highest = 0, 0.0, np.inf, -np.inf
    for value in values:
        if value == value:
            count += 1
            total += value
            lowest, highest = min(lowest, value), max(highest, value)
    result = np.full(len(values), np.nan)
    if count < 2 or lowest == highest:
        return result
    mean, squares = total / count, 0.0
    for value in values:
        if value == value:
            squares += (value - mean) ** 2
    return (values - mean) / np.sqrt(squares / (count - 1))


class CrossSection:
    """Rank or z-score of one value among those of all symbols; symbols without a value are left out."""

    outputs = 1

    def __init__(self, kind: Literal["rank", "zscore"]):
        self._function = _rank if kind == "rank" else _zscore

    def batch(self, inputs: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> list[np.ndarray]:
        """The result of every symbol and time; each group is one time."""
        result = np.full(inputs.shape[1], np.nan)
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            result[start:stop] = self._function(inputs[0, start:stop])
        return [result]

    def at(self, values: Sequence[float]) -> np.ndarray:
        """The result of every symbol at one time."""
        return self._function(np.array(values, dtype=np.float64))

    def open(self, history: np.ndarray) -> CrossSection:
        """A cross-section remembers nothing of earlier times; this is the kernel itself."""
        return self

    def update(self, values: Sequence[float]) -> Sequence[float]:
        """The same as `at`, as a sequence."""
        return self.at(values).tolist()
