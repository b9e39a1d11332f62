"""What every kernel offers: one face for whole arrays, one for bar after bar, with the same numbers.

Arrays are rows of inputs by columns of bars. NaN stands for "not defined"; inputs have none, for whoever calls a kernel
leaves out bars on which one of its inputs is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

# One array an output.
Outputs = np.ndarray | Sequence[np.ndarray]


class Handle(Protocol):
    """A feature of one symbol that is carried on bar by bar."""

    def update(self, values: Sequence[float]) -> Sequence[float]:
        """The outputs at a bar, given its inputs."""
        ...


class Kernel(Protocol):
    """The arithmetic of a feature for fixed parameters."""

    outputs: int

    def batch(self, inputs: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> Outputs:
        """The outputs at every bar; each group of bars from a start to its stop is computed on its own."""
        ...

    def open(self, history: np.ndarray) -> Handle:
        """A handle that has seen these bars, of which there may be none."""
        ...


def room(outputs: int, count: int, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Arrays for a kernel that fills the groups: NaN where bars are in no group."""
    if int((stops - starts).sum()) == count:
        return np.empty((outputs, count))
    return np.full((outputs, count), np.nan)
