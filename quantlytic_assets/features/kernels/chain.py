"""Kernels of kernels: the output of one is the input of the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quantlytic_assets.features.kernels.base import BankRow, Kernel, Outputs, bank_of


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

    def open(self, history: np.ndarray) -> BankRow:
        """A handle that has seen these bars."""
        return self.bank(history.shape[0]).open(0, history)

    def bank(self, inputs: int) -> ChainBank:
        """A bank without a symbol yet."""
        return ChainBank(self, inputs)

    def between(self, history: np.ndarray) -> np.ndarray:
        """What the second kernel has seen, of bars that the first one has."""
        count = history.shape[1]
        found = np.empty(0)
        if count:
            found = self.first.batch(history, np.zeros(1, dtype=np.int64), np.array([count]))[0][self.skipped :]
        return np.ascontiguousarray(found)[np.newaxis]


class ChainBank:
    """The banks of both kernels, and how many bars of each row the first leaves without a value; see `Bank`."""

    def __init__(self, chain: Chain, inputs: int):
        self._chain = chain
        self._first = bank_of(chain.first, inputs)
        self._then = bank_of(chain.then, 1)
        self._left: dict[int, int] = {}

    def open(self, row: int, history: np.ndarray) -> BankRow:
        """See `Bank.open`."""
        self._first.open(row, history)
        self._then.open(row, self._chain.between(history))
        self._left.pop(row, None)
        if history.shape[1] < self._chain.skipped:
            self._left[row] = self._chain.skipped - history.shape[1]
        return BankRow(self, row)

    def one(self, row: int, values: Sequence[float]) -> Sequence[float]:
        """See `Bank.one`."""
        between = self._first.one(row, values)
        return (np.nan,) * self._chain.outputs if self._waits(row) else self._then.one(row, between[:1])

    def update(self, rows: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """See `Bank.update`."""
        between = self._first.update(rows, inputs)[:1]
        known = np.array([not self._waits(row) for row in rows.tolist()]) if self._left else np.ones(len(rows), bool)
        if known.all():
            return self._then.update(rows, between)
        outputs = np.full((self._chain.outputs, len(rows)), np.nan)
        outputs[:, known] = self._then.update(rows[known], np.ascontiguousarray(between[:, known]))
        return outputs

    def _waits(self, row: int) -> bool:
        """Whether the next bar of a row is one of those without a value; it is none any more then."""
        left = self._left.get(row, 0)
        if left == 1:
            del self._left[row]
        elif left:
            self._left[row] = left - 1
        return left > 0
