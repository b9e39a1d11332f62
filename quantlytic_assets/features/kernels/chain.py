"""Kernels of kernels: the output of one is the input of the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quantlytic_assets.features.kernels.base import Handle, Kernel, Outputs


class Chain:
    """A kernel that reads the first output of another one, from where that is defined.

    `skipped` is how many bars of a group the first kernel leaves without a value. `of` is the feature, by name and
    parameters, that the first kernel computes: where it has been computed already, that is taken.
    """

    def __init__(self, first: Kernel, then: Kernel, skipped: int, of: tuple[str, tuple]):
        self.first = first
        self.then = then
        self.skipped = skipped
        self.of = of
        self.outputs = then.outputs

    def batch(self, inputs: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> Outputs:
        """The outputs at every bar, group by group."""
        return self.after(self.first.batch(inputs, starts, stops)[0], starts, stops)

    def after(self, between: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> Outputs:
        """The outputs, given those of the first kernel."""
        rows = np.ascontiguousarray(between)[np.newaxis]
        return self.then.batch(rows, np.minimum(starts + self.skipped, stops), stops)

    def open(self, history: np.ndarray) -> _ChainHandle:
        """A handle that has seen these bars."""
        return _ChainHandle(self, history)


class _ChainHandle:
    __slots__ = ("_first", "_left", "_outputs", "_then")

    def __init__(self, chain: Chain, history: np.ndarray):
        self._first: Handle = chain.first.open(history)
        count = history.shape[1]
        between = np.empty(0)
        if count:
            between = chain.first.batch(history, np.zeros(1, dtype=np.int64), np.array([count]))[0][chain.skipped :]
        self._then: Handle = chain.then.open(np.ascontiguousarray(between)[np.newaxis])
        self._left = max(0, chain.skipped - count)
        self._outputs = chain.outputs

    def update(self, values: Sequence[float]) -> Sequence[float]:
        """The outputs at the next bar."""
        between = self._first.update(values)
        if self._left:
            self._left -= 1
            return (np.nan,) * self._outputs
        return self._then.update((between[0],))
