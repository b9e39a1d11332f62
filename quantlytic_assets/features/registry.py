"""All features by name, and the named sets of them.

Ours come from `library`; a user's own are added, and a name may be taken only once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from quantlytic_assets.features import declarations
from quantlytic_assets.features.library import (
    alpha158,
    candles,
    cross_asset,
    momentum,
    statistics,
    trend,
    volatility,
    volume,
)  # fmt: skip
from quantlytic_assets.features.spec import Feature, FeatureSpec

LIBRARY = (trend, momentum, volatility, volume, statistics, candles, cross_asset, alpha158)

SETS: dict[str, tuple[str, ...]] = {
    "core": (
        "ret", "log_ret", "sma(20)", "sma(50)", "sma(200)", "ema(12)", "ema(20)", "ema(26)", "rsi", "macd",
        "bb_middle", "bb_upper", "bb_lower", "atr", "vol",
    ),
    "candles": tuple(one.name for one in candles.SPECS),
    "alpha158": (
        "alpha_candle", "alpha_vwap",
        *(f"{name}({window})" for window in alpha158.WINDOWS for name in ("alpha_price", "alpha_volume")),
    ),
}  # fmt: skip


class Registry:
    """The features that may be declared."""

    def __init__(self, specs: Iterable[FeatureSpec] | None = None):
        self._specs: dict[str, FeatureSpec] = {}
        self._by_output: dict[str, FeatureSpec] = {}
        for spec in (one for module in LIBRARY for one in module.SPECS) if specs is None else specs:
            self.add(spec)

    def add(self, spec: FeatureSpec) -> None:
        """Adds a feature; a name or a column that another one already has is an error."""
        if spec.name in SETS:
            raise ValueError(f"Feature {spec.name!r} has the name of a feature set")
        for name in {spec.name, *(one.name for one in spec.outputs)}:
            if other := self._specs.get(name) or self._by_output.get(name):
                raise ValueError(f"Feature {name!r} is declared twice: in {spec.source!r} and in {other.source!r}")
        self._specs[spec.name] = spec
        self._by_output |= {one.name: spec for one in spec.outputs}

    def specs(self, family: str | None = None) -> tuple[FeatureSpec, ...]:
        """All features, or those of a family."""
        return tuple(one for one in self._specs.values() if family in (None, one.family))

    def spec(self, name: str) -> FeatureSpec:
        """The feature of a name; ValueError with the nearest name where there is none."""
        if name not in self._specs:
            raise declarations.unknown("feature", name, [*self._specs, *self._by_output, *SETS])
        return self._specs[name]

    def feature(self, declaration: str) -> Feature:
        """The feature that one declaration means; the name of one of its columns means that column alone."""
        name, arguments = declarations.split(declaration)
        if name not in self._specs and name in self._by_output:
            return self._by_output[name].bind(*arguments).only(name)
        return self.spec(name).bind(*arguments)

    def features(self, wanted: Sequence[str]) -> tuple[Feature, ...]:
        """The features of declarations and sets, in their order; what is declared twice is there once."""
        found: dict[str, tuple[Feature, int]] = {}
        for one in wanted:
            for declaration in SETS.get(one.strip(), (one,)):
                feature = self.feature(declaration)
                for column, place in zip(feature.columns, feature.selected, strict=True):
                    found.setdefault(column, (feature, place))
        result: list[Feature] = []
        for feature, place in found.values():
            if result and (result[-1].spec, result[-1].values) == (feature.spec, feature.values):
                result[-1] = Feature(feature.spec, feature.values, (*result[-1].selected, place))
            else:
                result.append(Feature(feature.spec, feature.values, (place,)))
        return tuple(result)

    def of_column(self, column: str) -> Feature:
        """The feature whose column has this name, as far as the name shows its parameters: `rsi_14`, `macd`."""
        for name, spec in self._by_output.items():
            if column != name and not column.startswith(name):
                continue
            rest = column.removeprefix(name)
            parts = [part.replace("p", ".").replace("m", "-") for part in rest.removeprefix("_").split("_") if part]
            try:
                _, values = declarations.split(f"{spec.name}({', '.join(parts)})")
                feature = spec.bind(*values).only(name)
            except ValueError:
                continue
            if feature.columns == (column,):
                return feature
        raise declarations.unknown("column", column, self._by_output)
