"""What a user's own file imports: decorators that make a function a feature, a rule or a model, and the base of bots.

Name the file under `plugins:` in the universe, a feature under `features:` of a dataset, a rule or a bot under `rule:`
of a strategy, and a model under its `model:`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, get_args, overload

from quantlytic_assets.features.custom import spec_of
from quantlytic_assets.features.spec import Scale
from quantlytic_assets.strategies.bots import Bar, Bot
from quantlytic_assets.strategies.custom import rule_of

__all__ = ["Bar", "Bot", "feature", "model", "rule"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_INPUTS = ("open", "high", "low", "close", "volume")
# Where the decorators leave the declaration on the function.
SPEC_ATTRIBUTE = "quantlytic_feature"
RULE_ATTRIBUTE = "quantlytic_rule"
MODEL_ATTRIBUTE = "quantlytic_model"


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


@overload
def rule(function: _Function, /) -> _Function: ...


@overload
def rule(
    *, features: Sequence[str] = (), lookback: int = 0, weights: Literal["signal", "portfolio"] = "signal"
) -> Callable[[_Function], _Function]: ...


def rule(
    function: _Function | None = None,
    /,
    *,
    features: Sequence[str] = (),
    lookback: int = 0,
    weights: Literal["signal", "portfolio"] = "signal",
) -> _Function | Callable[[_Function], _Function]:
    """Make a function of a frame a rule, bare (`@rule`) or with what it needs (`@rule(features=["rsi(14)"])`).

    The function takes a polars frame with a row a symbol and bar (symbol, session, open_time, available_at, close and
    the dataset's features), and its parameters by keyword, which are numbers, or true and false, with defaults. It
    returns target weights from −1 to 1 in the order of the rows (a series, an array, or an expression of the frame's
    columns); null keeps what is held. It reads no later bar for an earlier one.

    `features`: declarations of the features that it reads. `lookback`: how many bars of the frame before a bar its
    target depends on. `weights`: "signal" for a position's direction and strength in its own symbol, to which sizing
    gives money; "portfolio" for shares of the equity. The docstring describes the rule.

    Raises `ValueError` for a function that can't be a rule, with what to change.
    """
    if weights not in ("signal", "portfolio"):
        raise ValueError(f"weights is signal or portfolio, not {weights!r}")
    if isinstance(features, str):
        raise ValueError(f'features is a list of declarations such as ["rsi(14)"], not {features!r}')

    def declare(function: _Function) -> _Function:
        setattr(function, RULE_ATTRIBUTE, rule_of(function, features, lookback, weights))
        return function

    return declare if function is None else declare(function)


def model(function: _Function, /) -> _Function:
    """Make a function of parameters a model: it returns an unfitted scikit-learn estimator under its own name.

    The parameters are given by keyword. Raises `ValueError` for a function that asks for anything else.
    """
    name = getattr(function, "__name__", "")
    if not name.isidentifier():
        raise ValueError(f"{function!r} has no name that a model could have")
    for one in inspect.signature(function).parameters.values():
        if one.kind not in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
            raise ValueError(f"{name} takes its parameters by keyword, as in def {name}(*, {one.name}=…)")
    setattr(function, MODEL_ATTRIBUTE, name)
    return function
