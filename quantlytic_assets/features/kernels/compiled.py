"""Kernels of compiled loops: one loop for arrays and for single bars, so that both give the same bits.

A loop is a numba function. `Recursive` ones carry a state from bar to bar, `Windowed` ones look at the last bars anew
each time and so do not depend on where the computation began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from quantlytic_assets.features.kernels.base import room

Loop = Callable[..., None]


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

    def open(self, history: np.ndarray) -> _RecursiveHandle:
        """A handle whose state is that after these bars."""
        return _RecursiveHandle(self, history)


class _RecursiveHandle:
    __slots__ = ("_answer", "_bar", "_loop", "_parameters", "_result", "_state")

    def __init__(self, kernel: Recursive, history: np.ndarray):
        self._loop = kernel.loop
        self._parameters = kernel.parameters
        self._state = np.zeros(kernel.state)
        self._bar = np.empty((history.shape[0], 1))
        self._result = np.empty((kernel.outputs, 1))
        self._answer = self._result[:, 0]
        kernel.loop(
            history, self._parameters, self._state, 0, history.shape[1], np.empty((kernel.outputs, history.shape[1]))
        )

    def update(self, values: Sequence[float]) -> Sequence[float]:
        """The outputs at the next bar."""
        # One by one: for a few numbers numpy takes longer to make an array of them.
        for row, value in enumerate(values):
            self._bar[row, 0] = value
        self._loop(self._bar, self._parameters, self._state, 0, 1, self._result)
        return self._answer.tolist()


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

    def open(self, history: np.ndarray) -> _WindowedHandle:
        """A handle with the last of these bars in its buffer."""
        return _WindowedHandle(self, history)


class _WindowedHandle:
    """The last bars, in a buffer of twice their number, so that they are moved only once in a window."""

    __slots__ = ("_bars", "_capacity", "_inputs", "_loop", "_parameters", "_result", "_stop")

    def __init__(self, kernel: Windowed, history: np.ndarray):
        self._loop = kernel.loop
        self._parameters = kernel.parameters
        self._bars = kernel.bars
        self._capacity = 2 * kernel.bars
        self._inputs = np.empty((history.shape[0], self._capacity))
        self._result = np.empty((kernel.outputs, self._capacity))
        kept = history[:, max(0, history.shape[1] - kernel.bars) :]
        self._stop = kept.shape[1]
        self._inputs[:, : self._stop] = kept

    def update(self, values: Sequence[float]) -> Sequence[float]:
        """The outputs at the next bar."""
        if self._stop == self._capacity:
            kept = self._bars - 1
            self._inputs[:, :kept] = self._inputs[:, self._capacity - kept :]
            self._stop = kept
        at = self._stop
        for row, value in enumerate(values):
            self._inputs[row, at] = value
        self._stop = at + 1
        self._loop(self._inputs, self._parameters, max(0, at + 1 - self._bars), at, at + 1, self._result)
        return self._result[:, at].tolist()
