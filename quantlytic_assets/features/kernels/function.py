"""A user's own function of arrays as a kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np


class Function:
    """A function of one symbol's arrays, oldest first, that answers with an array of the same length.

    Online it is called on the last `bars` bars, so that a value may differ from batch in its last digits.
    """

    outputs = 1

    def __init__(self, name: str, function: Callable[..., object], parameters: Mapping[str, object], bars: int):
        self.name = name
        self.function = function
        self.parameters = dict(parameters)
        self.bars = bars

    def batch(self, inputs: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> list[np.ndarray]:
        """The values at every bar; the function is called once a group, on arrays of its own."""
        result = np.full(inputs.shape[1], np.nan)
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            if start < stop:
                result[start:stop] = self._called(inputs[:, start:stop])
        return [result]

    def open(self, history: np.ndarray) -> _FunctionHandle:
        """A handle that keeps the last bars."""
        return _FunctionHandle(self, history)

    def _called(self, inputs: np.ndarray) -> np.ndarray:
        # The rows are copies: a function that writes into its arguments harms nobody else.
        values = np.asarray(self.function(*(row.copy() for row in inputs), **self.parameters), dtype=np.float64)
        if values.shape != (inputs.shape[1],):
            raise ValueError(
                f"{self.name} was given {inputs.shape[1]} bars and returned an array of shape {values.shape}; "
                "a feature returns one value a bar, NaN where there is none"
            )
        return values


class _FunctionHandle:
    def __init__(self, kernel: Function, history: np.ndarray):
        self._kernel = kernel
        self._bars = history[:, max(0, history.shape[1] - kernel.bars) :].copy()

    def update(self, values: Sequence[float]) -> Sequence[float]:
        """The value at the next bar."""
        bars = np.column_stack((self._bars, np.asarray(values, dtype=np.float64)))
        self._bars = bars[:, max(0, bars.shape[1] - self._kernel.bars) :]
        return (float(self._kernel._called(self._bars)[-1]),)
