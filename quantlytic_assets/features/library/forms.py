"""Short forms that the library's declarations are written with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from quantlytic_assets.features.kernels.base import Kernel
from quantlytic_assets.features.kernels.compiled import Loop, Recursive, Windowed
from quantlytic_assets.features.kernels.talib_kernel import Talib
from quantlytic_assets.features.spec import Output, Parameter, Value, Values

# The source of what TA-Lib computes.
TALIB = "TA-Lib 0.8"

OHLC = ("open", "high", "low", "close")
HLC = ("high", "low", "close")
HLCV = ("high", "low", "close", "volume")

# Bars after which an average no longer depends on where it began, to 1e-9 of the price: measured.
EMA_WARMUP = 11
WILDER_WARMUP = 21
ADX_WARMUP = 42


def outputs(*names: str) -> tuple[Output, ...]:
    """Outputs without anything of their own."""
    return tuple(Output(name) for name in names)


def window(default: int, lower: int = 1) -> tuple[Parameter, ...]:
    """One window of bars as the only parameter."""
    return (Parameter("window", default, lower),)


def number(values: Values, name: str) -> float:
    """A parameter as a number."""
    return float(values[name])


def bars(values: Values, name: str = "window") -> int:
    """A parameter as a number of bars."""
    return int(values[name])


def back(offset: int, name: str = "window") -> Callable[[Values], tuple[int, ...]]:
    """A lookback of the window and some bars."""
    return lambda values: (bars(values, name) + offset,)


def times(factor: int, name: str = "window") -> Callable[[Values], int]:
    """A warm-up of so many windows."""
    return lambda values: factor * bars(values, name)


def talib(
    function: str, *, order: tuple[int, ...] = (0,), skipped: int = 0, **parameters: str
) -> Callable[[Values], Kernel]:
    """A function of TA-Lib; `parameters` say which of ours is which of its own."""
    return lambda values: Talib(
        function, order=order, skipped=skipped, **{theirs: _number(values[ours]) for theirs, ours in parameters.items()}
    )


def windowed(loop: Loop, extra: int = 0, *, factor: int = 1, count: int = 1) -> Callable[[Values], Kernel]:
    """A loop over the last `factor` windows and `extra` bars, of one window as the only number."""
    return lambda values: Windowed(loop, [bars(values)], factor * bars(values) + extra, count)


def single(loop: Loop, parameters: Sequence[float] = (), *, count: int = 1) -> Callable[[Values], Kernel]:
    """A loop that looks at one bar at a time."""
    return lambda _: Windowed(loop, parameters, 1, count)


def recursive(loop: Loop, state: int, *names: str, count: int = 1) -> Callable[[Values], Kernel]:
    """A loop with a state of fixed size, of the numbers that are named."""
    return lambda values: Recursive(loop, [number(values, name) for name in names], state, count)


def _number(value: Value) -> float:
    if isinstance(value, str):
        raise TypeError(f"{value!r} is no number")
    return value
