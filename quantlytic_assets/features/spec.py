"""What a feature is: one declaration from which its columns, its kernel and its description follow.

Here belong names, parameters, units and how many bars a feature reads. Arithmetic belongs in `kernels`, and the list of
features in `library`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from quantlytic_assets.features.kernels.base import Kernel

Scale = Literal["ratio", "price", "price_difference", "volume"]
# A number, or the reference to a symbol or a column.
Value = int | float | str
Values = Mapping[str, Value]


@dataclass(frozen=True)
class Parameter:
    """A number that a feature is declared with, or the symbol or column that it reads (`kind="reference"`)."""

    name: str
    default: Value | None = None
    lower: float = 1
    kind: Literal["int", "float", "reference"] = "int"


@dataclass(frozen=True)
class Output:
    """A column that a feature gives; scale and unit where they differ from those of the feature."""

    name: str
    scale: Scale | None = None
    unit: str | None = None


@dataclass(frozen=True)
class FeatureSpec:
    """The declaration of a feature.

    `inputs` are columns of bars; `inputs_of` gives them where they depend on the parameters. `lookbacks` gives, for one
    output after the other, how many bars come before the first value. `warmups` gives how many bars before a bar must
    be read for its value to be what all of history would give; without it that is the largest lookback.

    `cumulative`: the values are sums since the first bar; a computation that begins later reads `warmup` bars and one
    more, and goes on from the stored value of the last of them.
    `whole_session`: a computation must begin with the first bar of a session.
    `naming`: "window" columns always show the parameters, "short" ones show them where they are not the defaults, and
    "joined" ones append them without an underscore, as Qlib does.
    `kind`: "bars" reads bars of one symbol, "pair" also closes of others, "cross_section" all symbols at one time.
    """

    name: str
    family: str
    inputs: tuple[str, ...]
    outputs: tuple[Output, ...]
    kernel: Callable[[Values], Kernel]
    lookbacks: Callable[[Values], tuple[int, ...]]
    formula: str
    source: str
    unit: str
    scale: Scale = "ratio"
    parameters: tuple[Parameter, ...] = ()
    warmups: Callable[[Values], int] | None = None
    inputs_of: Callable[[Values], tuple[str, ...]] | None = None
    naming: Literal["window", "short", "joined"] = "window"
    cumulative: bool = False
    whole_session: bool = False
    kind: Literal["bars", "pair", "cross_section"] = "bars"

    def bind(self, *values: Value, **named: Value) -> Feature:
        """The feature with these parameters, and the defaults of those that are not given.

        Raises ValueError with the name of the feature and of the parameter that is wrong.
        """
        names = [one.name for one in self.parameters]
        if len(values) > len(names):
            raise ValueError(f"{self.name} takes {_count(len(names))}, not {len(values)}: {self.signature()}")
        given: dict[str, Value] = dict(zip(names, values, strict=False))
        for name, value in named.items():
            if name not in names:
                raise ValueError(f"{self.name} has no parameter {name!r}: {self.signature()}")
            if name in given:
                raise ValueError(f"{self.name}: {name} is given twice")
            given[name] = value
        bound = tuple(self._checked(one, given.get(one.name, one.default)) for one in self.parameters)
        return Feature(self, bound, tuple(range(len(self.outputs))))

    def signature(self) -> str:
        """The name with its parameters and defaults, as people write it: `bb(window=20, deviations=2)`."""
        shown = [one.name if one.default is None else f"{one.name}={_plain(one.default)}" for one in self.parameters]
        return f"{self.name}({', '.join(shown)})" if self.parameters else self.name

    def _checked(self, parameter: Parameter, value: Value | None) -> Value:
        if value is None:
            raise ValueError(f"{self.name} needs {parameter.name}: {self.signature()}")
        if parameter.kind == "reference":
            return str(value)
        if isinstance(value, str):
            raise ValueError(f"{self.name}: {parameter.name} is a number, not {value!r}")
        if parameter.kind == "int":
            if value != int(value):
                raise ValueError(f"{self.name}: {parameter.name} is a whole number of bars, not {value:g}")
            value = int(value)
        if not parameter.lower <= value < float("inf"):
            raise ValueError(f"{self.name}: {parameter.name} is at least {parameter.lower:g}, not {value:g}")
        return value


@dataclass(frozen=True)
class Feature:
    """A feature with its parameters, and those of its outputs that are asked for."""

    spec: FeatureSpec
    values: tuple[Value, ...]
    selected: tuple[int, ...]

    @property
    def parameters(self) -> dict[str, Value]:
        """The parameters by name."""
        return {one.name: value for one, value in zip(self.spec.parameters, self.values, strict=True)}

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns that are asked for."""
        shown = [_shown(value) for value in self.values]
        defaults = all(one.default == value for one, value in zip(self.spec.parameters, self.values, strict=True))
        if self.spec.naming == "joined":
            ending = "".join(shown)
        elif not shown or (self.spec.naming == "short" and defaults):
            ending = ""
        else:
            ending = "_" + "_".join(shown)
        return tuple(f"{self.spec.outputs[place].name}{ending}" for place in self.selected)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns of bars that are read; `close:SPY` is the close of another symbol."""
        return self.spec.inputs_of(self.parameters) if self.spec.inputs_of else self.spec.inputs

    @property
    def lookbacks(self) -> tuple[int, ...]:
        """How many bars come before the first value of each column."""
        every = self.spec.lookbacks(self.parameters)
        return tuple(every[place] if len(every) > 1 else every[0] for place in self.selected)

    @property
    def lookback(self) -> int:
        """How many bars come before the first bar at which every column has a value."""
        return max(self.lookbacks)

    @property
    def warmup(self) -> int:
        """How many bars before a bar decide its values; those before them no longer matter."""
        full = max(self.spec.lookbacks(self.parameters))
        return max(full, self.spec.warmups(self.parameters)) if self.spec.warmups else full

    @property
    def scales(self) -> tuple[Scale, ...]:
        """What each column is proportional to."""
        return tuple(self.spec.outputs[place].scale or self.spec.scale for place in self.selected)

    @property
    def description(self) -> str:
        """Formula, parameters, unit and source in a few sentences, for the documentation of the columns."""
        numbers = ", ".join(f"{name} {_plain(value)}" for name, value in self.parameters.items())
        return " ".join(
            part
            for part in (
                f"{self.spec.formula}.",
                f"Parameters: {numbers}." if numbers else "",
                f"Unit: {self.spec.unit}.",
                "Sum since the first bar." if self.spec.cumulative else f"Defined after {self.lookback} bars.",
                f"Source: {self.spec.source}.",
            )
            if part
        )

    def kernel(self) -> Kernel:
        """The arithmetic for these parameters; it gives all outputs of the spec."""
        return self.spec.kernel(self.parameters)

    def only(self, output: str) -> Feature:
        """The same feature with one of its outputs."""
        place = [one.name for one in self.spec.outputs].index(output)
        return Feature(self.spec, self.values, (place,))

    def __str__(self) -> str:
        return f"{self.spec.name}({', '.join(map(_plain, self.values))})" if self.values else self.spec.name


def column_names(features: Iterable[Feature]) -> list[str]:
    """The columns of all these features, in their order."""
    return [name for feature in features for name in feature.columns]


def column_scales(features: Iterable[Feature]) -> dict[str, Scale]:
    """The columns of all these features, in their order, and what each is proportional to."""
    return {name: scale for feature in features for name, scale in zip(feature.columns, feature.scales, strict=True)}


def _plain(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:.12g}"


def _shown(value: Value) -> str:
    """A parameter in the name of a column: letters, digits and underscores only."""
    if isinstance(value, str):
        reference = value.rpartition(":")[2]
        return "".join(letter for letter in reference if letter.isalnum() or letter == "_")
    return _plain(value).replace(".", "p").replace("-", "m").replace("+", "")


def _count(parameters: int) -> str:
    return {0: "no parameters", 1: "one parameter"}.get(parameters, f"{parameters} parameters")
