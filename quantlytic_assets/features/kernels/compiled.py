"""Kernels of compiled loops: one loop for arrays and for single bars, so that both give the same bits.

A loop is a numba function. `Recursive` ones carry a state from bar to bar, `Windowed` ones look at the last bars anew
each time and so do not depend on where the computation began. What is carried on of many symbols lies side by side in a
bank, which one call takes on by a bar of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from quantlytic_assets.features.kernels.base import BankRow, room
from quantlytic_assets.features.kernels.compiling import compiled_around

Loop = Callable[..., None]

# What is compiled around a loop, under which name it stands there as `loop`. rows: of the bank, none of them twice;
# inputs: a row an input, a column for each of `rows`.
_RECURSIVE = """
def loop_each(rows, inputs, parameters, states, outputs):
    for i in range(len(rows)):
        loop(inputs, parameters, states[rows[i]], i, i + 1, outputs)
"""
_WINDOWED = """
def loop_each(rows, inputs, parameters, bars, buffers, stops, results, outputs):
    for i in range(len(rows)):
        own, at = buffers[rows[i]], stops[rows[i]]
        count, capacity = own.shape
        if at == capacity:
            for one in range(count):
                for place in range(bars - 1):
                    own[one, place] = own[one, capacity - bars + 1 + place]
            at = bars - 1
        for one in range(count):
            own[one, at] = inputs[one, i]
        stops[rows[i]] = at + 1
        loop(own, parameters, max(0, at + 1 - bars), at, at + 1, results)
        for one in range(len(outputs)):
            outputs[one, i] = results[one, at]
"""


class Recursive:
    """A loop(inputs, parameters, state, start, stop, outputs) that leaves in `state` what the next bar needs."""

    def __init__(self, loop: Loop, parameters: Sequence[float], state: int, outputs: int = 1):
        self.loop = loop
        self.parameters = np.array(parameters, dtype=np.float64)
        self.state = state
        self.outputs = outputs

    def batch(self, inputs: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        """The outputs at every bar; the state is new for each group."""
        result = room(self.outputs, inputs.shape[1], starts, stops)
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            self.loop(inputs, self.parameters, np.zeros(self.state), start, stop, result)
        return result

    def open(self, history: np.ndarray) -> BankRow:
        """A handle whose state is that after these bars."""
        return self.bank(history.shape[0]).open(0, history)

    def bank(self, inputs: int) -> RecursiveBank:
        """A bank without a symbol yet."""
        return RecursiveBank(self, inputs)


class RecursiveBank:
    """The states of many symbols; see `Bank`."""

    def __init__(self, kernel: Recursive, inputs: int):
        self._kernel = kernel
        self._each = compiled_around(kernel.loop, _RECURSIVE)
        self._states = np.zeros((1, kernel.state))
        self._bar = np.empty((inputs, 1))
        self._result = np.empty((kernel.outputs, 1))
        self._answer = self._result[:, 0]

    def open(self, row: int, history: np.ndarray) -> BankRow:
        """See `Bank.open`."""
        self._states = _with_row(self._states, row)
        state, count = self._states[row], history.shape[1]
        state[:] = 0.0
        self._kernel.loop(
            history, self._kernel.parameters, state, 0, count, np.empty((self._kernel.outputs, count))
        )  # fmt: skip
        return BankRow(self, row)

    def one(self, row: int, values: Sequence[float]) -> Sequence[float]:
        """See `Bank.one`."""
        # One by one: for a few numbers numpy takes longer to make an array of them.
        for place, value in enumerate(values):
            self._bar[place, 0] = value
        self._kernel.loop(self._bar, self._kernel.parameters, self._states[row], 0, 1, self._result)
        return self._answer.tolist()

    def update(self, rows: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """See `Bank.update`."""
        outputs = np.empty((self._kernel.outputs, len(rows)))
        self._each(rows, inputs, self._kernel.parameters, self._states, outputs)
        return outputs


class Windowed:
    """A loop(inputs, parameters, begin, start, stop, outputs) over windows of the last `bars` bars.

    It fills the outputs from `start` to `stop` and reads no bar before `begin`.
    """

    def __init__(self, loop: Loop, parameters: Sequence[float], bars: int, outputs: int = 1):
        self.loop = loop
        self.parameters = np.array(parameters, dtype=np.float64)
        self.bars = bars
        self.outputs = outputs

    def batch(self, inputs: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        """The outputs at every bar; no window reaches into another group."""
        result = room(self.outputs, inputs.shape[1], starts, stops)
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            self.loop(inputs, self.parameters, start, start, stop, result)
        return result

    def open(self, history: np.ndarray) -> BankRow:
        """A handle with the last of these bars in its buffer."""
        return self.bank(history.shape[0]).open(0, history)

    def bank(self, inputs: int) -> WindowedBank:
        """A bank without a symbol yet."""
        return WindowedBank(self, inputs)


class WindowedBank:
    """The last bars of many symbols, in buffers of twice their number, so that they are moved once in a window.

    See `Bank`.
    """

    def __init__(self, kernel: Windowed, inputs: int):
        self._kernel = kernel
        self._each = compiled_around(kernel.loop, _WINDOWED)
        self._buffers = np.empty((1, inputs, 2 * kernel.bars))
        self._stops = np.zeros(1, dtype=np.int64)
        self._results = np.empty((kernel.outputs, 2 * kernel.bars))

    def open(self, row: int, history: np.ndarray) -> BankRow:
        """See `Bank.open`."""
        self._buffers, self._stops = _with_row(self._buffers, row), _with_row(self._stops, row)
        kept = history[:, max(0, history.shape[1] - self._kernel.bars) :]
        self._stops[row] = kept.shape[1]
        self._buffers[row, :, : kept.shape[1]] = kept
        return BankRow(self, row)

    def one(self, row: int, values: Sequence[float]) -> Sequence[float]:
        """See `Bank.one`."""
        own, at, bars = self._buffers[row], int(self._stops[row]), self._kernel.bars
        if at == own.shape[1]:
            own[:, : bars - 1] = own[:, at - bars + 1 :]
            at = bars - 1
        for place, value in enumerate(values):
            own[place, at] = value
        self._stops[row] = at + 1
        self._kernel.loop(own, self._kernel.parameters, max(0, at + 1 - bars), at, at + 1, self._results)
        return self._results[:, at].tolist()

    def update(self, rows: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """See `Bank.update`."""
        kernel, outputs = self._kernel, np.empty((self._kernel.outputs, len(rows)))
        self._each(
            rows, inputs, kernel.parameters, kernel.bars, self._buffers, self._stops, self._results, outputs
        )  # fmt: skip
        return outputs


def _with_row(array: np.ndarray, row: int) -> np.ndarray:
    """The array, or a larger one that begins with it, which has such a row."""
    if row < len(array):
        return array
    larger = np.zeros((max(row + 1, 2 * len(array)), *array.shape[1:]), dtype=array.dtype)
    larger[: len(array)] = array
    return larger
