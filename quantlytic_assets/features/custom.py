"""A user's own function as a feature, from its signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

from quantlytic_assets.features.kernels.function import Function
from quantlytic_assets.features.spec import FeatureSpec, Output, Parameter, Scale, Values


def spec_of(
    function: Callable[..., object],
    inputs: Sequence[str],
    lookback: Callable[..., int] | int,
    scale: Scale = "ratio",
    warmup: Callable[..., int] | int | None = None,
) -> FeatureSpec:
    """The declaration of a function of arrays, whose keyword-only arguments are the parameters.

    `lookback` and `warmup` are numbers of bars, or functions of some of the parameters by name. The column has the
    function's name and the parameters; `source` is the file that the function is in.
    """
    name = getattr(function, "__name__", "")
    if not name.isidentifier():
        raise ValueError(f"{function!r} has no name that a column could have")
    parameters = []
    for one in inspect.signature(function).parameters.values():
        if one.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if isinstance(one.default, bool) or not isinstance(one.default, int | float):
            raise ValueError(f"{name}: parameter {one.name} needs a number as its default")
        whole = isinstance(one.default, int)
        lower = 1 if whole and one.default >= 1 else float("-inf")
        parameters.append(Parameter(one.name, one.default, lower, "int" if whole else "float"))
    looks = _of_parameters(name, lookback)
    warms = looks if warmup is None else _of_parameters(name, warmup)
    return FeatureSpec(
        name=name,
        family="custom",
        inputs=tuple(inputs),
        outputs=(Output(name),),
        kernel=lambda values: Function(name, function, values, max(looks(values), warms(values)) + 1),
        lookbacks=lambda values: (looks(values),),
        formula=" ".join((inspect.getdoc(function) or f"The function {name}").split()).rstrip("."),
        source=inspect.getsourcefile(function) or "a user's function",
        unit=scale,
        scale=scale,
        parameters=tuple(parameters),
        warmups=warms,
    )


def _of_parameters(name: str, bars: Callable[..., int] | int) -> Callable[[Values], int]:
    """A number of bars as a function of all parameters, from one of some of them by name."""
    if isinstance(bars, int):
        return lambda _: bars
    wanted = tuple(inspect.signature(bars).parameters)

    def counted(values: Values) -> int:
        unknown = [one for one in wanted if one not in values]
        if unknown:
            raise ValueError(f"{name}: lookback or warmup asks for {', '.join(unknown)}, which is no parameter of it")
        return int(bars(**{one: values[one] for one in wanted}))

    return counted
