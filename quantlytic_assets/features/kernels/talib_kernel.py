"""TA-Lib's functions: arrays by its batch functions, single bars by its streaming handles.

The two give the same bits. A handle needs some bars before it opens; until then they are kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from quantlytic_assets.features.kernels.base import Bank, Handle, HandleBank, Outputs, room
from quantlytic_assets.features.kernels.compiled import Recursive
from quantlytic_assets.features.kernels.recursions import mean
from quantlytic_assets.features.kernels.talib_alone import abstract, stream, talib


class Talib:
    """A function of TA-Lib, its parameters, and the order in which its results are given.

    `skipped` bars at the start of a group have no value: functions that answer in whole numbers have no NaN for them.
    """

    def __init__(self, function: str, *, order: tuple[int, ...] = (0,), skipped: int = 0, **parameters: float):
        self.function = function
        self.order = order
        self.outputs = len(order)
        self.skipped = skipped
        self.parameters = parameters

    @cached_property
    def lookback(self) -> int:
        """How many bars come before the first one with a value: with no more than these no handle opens."""
        return int(abstract.Function(self.function, **self.parameters).lookback)  # type: ignore[attr-defined]

    def batch(self, inputs: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> Outputs:
        """The outputs at every bar, group by group."""
        function = getattr(talib, self.function)
        if len(starts) == 1 and starts[0] == 0 and stops[0] == inputs.shape[1]:
            return self._results(function(*inputs, **self.parameters))
        outputs = room(len(self.order), inputs.shape[1], starts, stops)
        for start, stop in zip(starts, stops, strict=True):
            if start < stop:
                rows = inputs[:, start:stop]
                for output, result in zip(outputs, self._results(function(*rows, **self.parameters)), strict=True):
                    output[start:stop] = result
        return outputs

    def open(self, history: np.ndarray) -> _TalibHandle:
        """A handle that has seen these bars."""
        return _TalibHandle(self, history)

    def bank(self, inputs: int) -> Bank:
        """A bank of handles; for the mean, of its bars: handles lie all over the memory, and each is waited for."""
        if self.function == "SMA" and set(self.parameters) == {"timeperiod"}:
            period = self.parameters["timeperiod"]
            return Recursive(mean, [period], 2 + int(period)).bank(inputs)
        return _TalibBank(self)

    def _results(self, answer: Any) -> list[np.ndarray]:
        results = answer if isinstance(answer, tuple) else (answer,)
        ordered = [results[place].astype(np.float64, copy=False) for place in self.order]
        if self.skipped:
            for result in ordered:
                result[: self.skipped] = np.nan
        return ordered


class _TalibBank(HandleBank):
    """A handle a row. Those of TA-Lib that are open, and give one number, are called without ours around them."""

    def __init__(self, kernel: Talib):
        super().__init__(kernel)
        self._plain = kernel.order == (0,)
        self._handles: dict[int, _TalibHandle] = {}
        self._streams: dict[int, Callable[..., float]] = {}

    def open(self, row: int, history: np.ndarray) -> Handle:
        """See `Bank.open`."""
        handle = super().open(row, history)
        assert isinstance(handle, _TalibHandle)
        self._handles[row] = handle
        self._note(row)
        return handle

    def update(self, rows: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """See `Bank.update`."""
        places = rows.tolist()
        if not all(row in self._streams for row in places):
            told = super().update(rows, inputs)
            for row in places:
                self._note(row)
            return told
        streams = [self._streams[row] for row in places]
        if len(inputs) == 1:
            answers = [stream(value) for stream, value in zip(streams, inputs[0].tolist(), strict=True)]
        else:
            answers = [stream(*values) for stream, values in zip(streams, inputs.T.tolist(), strict=True)]
        return np.array([answers], dtype=np.float64)

    def _note(self, row: int) -> None:
        """Keep TA-Lib's handle of a row, where it is open and gives one number."""
        stream = self._handles[row].stream
        if self._plain and stream is not None:
            self._streams[row] = stream
        else:
            self._streams.pop(row, None)


class _TalibHandle:
    """TA-Lib's handle, or the bars it is waiting for."""

    __slots__ = ("_bars", "_kernel", "_many", "_open", "_order", "stream")

    def __init__(self, kernel: Talib, history: np.ndarray):
        self._kernel = kernel
        self._open = getattr(stream, kernel.function)
        self._order = kernel.order
        self._many = kernel.outputs > 1 or kernel.order != (0,)
        self._bars: list[Sequence[float]] = []
        # Of TA-Lib's handle, once it is open.
        self.stream: Any = None
        if history.shape[1]:
            self._bars = list(map(tuple, history.T.tolist()))
            self._try_to_open()

    def update(self, values: Sequence[float]) -> Sequence[float]:
        """The outputs at the next bar."""
        if self.stream is None:
            self._bars.append(values)
            answer = self._try_to_open()
            if answer is None:
                return (np.nan,) * self._kernel.outputs
        else:
            answer = self.stream(*values)
        if self._many:
            return [float(answer[place]) for place in self._order]
        return (float(answer),)

    def _try_to_open(self) -> Any:
        if len(self._bars) <= max(self._kernel.skipped, self._kernel.lookback):
            return None
        rows = np.ascontiguousarray(np.array(self._bars, dtype=np.float64).T)
        try:
            handle = self._open(*rows, **self._kernel.parameters)
        except talib.InsufficientHistory:
            return None
        self.stream = handle.update
        self._bars = []
        return handle.value
