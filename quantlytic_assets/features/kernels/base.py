"""What every kernel offers: one face for whole arrays, one for bar after bar, with the same numbers.

Arrays are rows of inputs by columns of bars. NaN stands for "not defined"; inputs have none, for whoever calls a kernel
leaves out bars on which one of its inputs is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

# One array an output.
Outputs = np.ndarray | Sequence[np.ndarray]


class Handle(Protocol):
    """A feature of one symbol that is carried on bar by bar."""

    def update(self, values: Sequence[float]) -> Sequence[float]:
        """The outputs at a bar, given its inputs."""
        ...


class Bank(Protocol):
    """A feature of many symbols that is carried on bar by bar; each symbol has a row, from 0 on."""

    def open(self, row: int, history: np.ndarray) -> Handle:
        """Begin a row anew, which has seen these bars, of which there may be none; a handle of it."""
        ...

    def one(self, row: int, values: Sequence[float]) -> Sequence[float]:
        """The outputs at a bar of one row, given its inputs."""
        ...

    def update(self, rows: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """The outputs at a bar of each of these rows, none of which is there twice: rows of outputs by columns of bars.

        inputs: a row an input, a column for each of `rows`.
        """
        ...


class BankRow:
    """One row of a bank as a handle."""

    __slots__ = ("_bank", "_row")

    def __init__(self, bank: Bank, row: int):
        self._bank = bank
        self._row = row

    def update(self, values: Sequence[float]) -> Sequence[float]:
        """See `Handle.update`."""
        return self._bank.one(self._row, values)


class Kernel(Protocol):
    """The arithmetic of a feature for fixed parameters."""

    outputs: int

    def batch(self, inputs: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> Outputs:
        """The outputs at every bar; each group of bars from a start to its stop is computed on its own."""
        ...

    def open(self, history: np.ndarray) -> Handle:
        """A handle that has seen these bars, of which there may be none."""
        ...

    # A kernel may have `bank(inputs)` besides, which gives a `Bank` for so many inputs: see `bank_of`.


class HandleBank:
    """A handle a row, for kernels without a bank of their own; see `Bank`."""

    def __init__(self, kernel: Kernel):
        self._kernel = kernel
        self._updates: dict[int, Callable[[Sequence[float]], Sequence[float]]] = {}

    def open(self, row: int, history: np.ndarray) -> Handle:
        """See `Bank.open`."""
        handle = self._kernel.open(history)
        self._updates[row] = handle.update
        return handle

    def one(self, row: int, values: Sequence[float]) -> Sequence[float]:
        """See `Bank.one`."""
        return self._updates[row](values)

    def update(self, rows: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """See `Bank.update`."""
        told = [self._updates[row](values) for row, values in zip(rows.tolist(), inputs.T.tolist(), strict=True)]
        return np.array(told, dtype=np.float64).T


def bank_of(kernel: Kernel, inputs: int) -> Bank:
    """A bank of a kernel with so many inputs."""
    make = getattr(kernel, "bank", None)
    return HandleBank(kernel) if make is None else make(inputs)


def room(outputs: int, count: int, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Arrays for a kernel that fills the groups: NaN where bars are in no group."""
    if int((stops - starts).sum()) == count:
        return np.empty((outputs, count))
    return np.full((outputs, count), np.nan)
