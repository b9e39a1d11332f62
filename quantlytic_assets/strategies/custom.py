"""A user's own function as a rule, from its signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Literal

from quantlytic_assets.strategies.spec import Parameter, RuleSpec


def rule_of(
    function: Callable[..., object],
    features: Sequence[str] = (),
    lookback: int = 0,
    weights: Literal["signal", "portfolio"] = "signal",
) -> RuleSpec:
    """The declaration of a function of a frame, whose keyword-only arguments are the parameters.

    `features`: declarations of features that the function reads. `lookback`: bars of the frame before a bar that its
    target depends on. Raises `ValueError` for a function that can't be a rule, with what to change.
    """
    name = getattr(function, "__name__", "")
    if not name.isidentifier():
        raise ValueError(f"{function!r} has no name that a rule could have")
    if not callable(function) or inspect.isclass(function):
        raise ValueError(f"{name}: a rule is a function; what decides bar by bar derives from Bot")
    positional, parameters = [], []
    for one in inspect.signature(function).parameters.values():
        if one.kind is inspect.Parameter.KEYWORD_ONLY:
            parameters.append(parameter_of(name, one.name, one.default))
        elif one.kind is inspect.Parameter.VAR_KEYWORD:
            raise ValueError(f"{name}: parameters have names and defaults; **{one.name} has neither")
        else:
            positional.append(one.name)
    if len(positional) != 1:
        raise ValueError(
            f"{name} takes one frame and its parameters by keyword, as in def {name}(features, *, threshold=0.5)"
        )
    return RuleSpec(
        name=name,
        summary=" ".join((inspect.getdoc(function) or f"The function {name}").split()).rstrip("."),
        source=inspect.getsourcefile(function) or "a user's function",
        parameters=tuple(parameters),
        function=function,
        features=lambda _: {one: one for one in features},
        lookback=lookback,
        weights=weights,
    )


def parameter_of(owner: str, name: str, default: object) -> Parameter:
    """A parameter whose kind is that of its default. Raises `ValueError` for a default that has none."""
    if isinstance(default, bool):
        return Parameter(name, default, kind="flag")
    if isinstance(default, int):
        return Parameter(name, default, lower=1 if default >= 1 else float("-inf"))
    if isinstance(default, float):
        return Parameter(name, default, kind="float")
    raise ValueError(f"{owner}: parameter {name} needs a number, or true or false, as its default")
