"""What a user's own file imports: the decorator that makes a function a feature.

Name the file under `plugins:` in the universe, and the function under `features:` of a dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args

from quantlytic_assets.features.custom import spec_of
from quantlytic_assets.features.spec import Scale

__all__ = ["feature"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_INPUTS = ("open", "high", "low", "close", "volume")
# Where the decorator leaves the declaration on the function.
SPEC_ATTRIBUTE = "quantlytic_feature"


def feature(
    *,
    inputs: Sequence[str],
    lookback: Callable[..., int] | int,
    warmup: Callable[..., int] | int | None = None,
    scale: Scale = "ratio",
) -> Callable[[_Function], _Function]:
    """Make a function of one symbol's arrays a feature.

    The function takes one float64 array for each of `inputs` (open, high, low, close, volume: one symbol's usable bars,
    oldest first, prices without jumps at splits) and its parameters by keyword, which are numbers with defaults. It
    returns an array of the same length, NaN where the feature is not defined, and reads no later bar for an earlier
    one. Its column is the function's name with the parameters: `my_alpha(window=20)` is `my_alpha_20`.

    `lookback`: the bars before the first value; `warmup`: the bars that decide a value, default the lookback. Both are
    numbers, or functions of the parameters with the same names. `scale`: ratio, price, price_difference or volume, by
    which a model makes it independent of the price. The docstring describes the column.

    Raises `ValueError` for a function that can't be a feature, with what to change.
    """
    wrong = [name for name in inputs if name not in _INPUTS]
    if wrong or not inputs:
        raise ValueError(f"inputs are some of {', '.join(_INPUTS)}, not {', '.join(wrong) or 'none'}")
    if scale not in get_args(Scale):
        raise ValueError(f"scale is one of {', '.join(get_args(Scale))}, not {scale!r}")

    def declare(function: _Function) -> _Function:
        setattr(function, SPEC_ATTRIBUTE, spec_of(function, inputs, lookback, scale, warmup))
        return function

    return declare
