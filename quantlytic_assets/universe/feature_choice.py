"""Which features a dataset has and a strategy learns from: the universe's names against the registry.

The registry brings compilers with it, which take as long to load as all else of a light command. It is loaded only
where a universe names more than the set `core`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from quantlytic_assets.universe.declarations import DatasetDeclaration, UniverseDeclaration
from quantlytic_assets.universe.fields import suggestion
from quantlytic_assets.universe.models import Dataset, ModelStrategy
from quantlytic_assets.universe.yaml_tree import Place, short

if TYPE_CHECKING:
    from quantlytic_assets.features.registry import Registry
    from quantlytic_assets.features.spec import Feature

Mistakes = Iterator[tuple[Place, str]]

CORE = ("core",)
# Declarations and columns of the set `core`, by which a universe is checked without the registry; a test compares them.
CORE_DECLARATIONS = (
    "ret", "log_ret", "sma(20)", "sma(50)", "sma(200)", "ema(12)", "ema(20)", "ema(26)", "rsi", "macd", "bb_middle",
    "bb_upper", "bb_lower", "atr", "vol",
)  # fmt: skip
CORE_COLUMNS = (
    "ret_1", "log_ret_1", "sma_20", "sma_50", "sma_200", "ema_12", "ema_20", "ema_26", "rsi_14", "macd", "macd_signal",
    "macd_hist", "bb_middle", "bb_upper", "bb_lower", "atr_14", "vol_20",
)  # fmt: skip
# Each dataset has it: models are compared with the forecast that the last return goes on.
_ALWAYS = "ret"
# Of sma_200.
_CORE_WARM_UP = 200


def declared(declarations: Sequence[str], plugins: Sequence[str]) -> tuple[Feature, ...]:
    """The features that a dataset with these declarations has, in the order of their columns."""
    from quantlytic_assets.universe.plugins import registry_with

    return registry_with(tuple(plugins)).features((*declarations, _ALWAYS))


def features_of(dataset: Dataset) -> tuple[Feature, ...]:
    """The features of a dataset, in the order of their columns."""
    return declared(dataset.features, dataset.plugins)


def learned_from(strategy: ModelStrategy, columns: Sequence[str]) -> dict[str, Feature]:
    """The feature behind each of these columns of a strategy, with that output alone.

    Raises `KeyError` for a column that the strategy's dataset does not declare.
    """
    from quantlytic_assets.features.spec import Feature

    found = {
        column: Feature(feature.spec, feature.values, (place,))
        for feature in declared(strategy.declared, strategy.plugins)
        for column, place in zip(feature.columns, feature.selected, strict=True)
    }
    return {name: found[name] for name in columns}


def learnable(features: Sequence[Feature]) -> tuple[str, ...]:
    """The columns that a model can learn from: all but volumes, which differ by orders of magnitude between symbols."""
    return tuple(
        column
        for feature in features
        for column, scale in zip(feature.columns, feature.scales, strict=True)
        if scale != "volume"
    )


def others(features: Sequence[Feature]) -> list[tuple[str | None, str]]:
    """(dataset, symbol) of the closes that features read beside a bar's own; None for the bar's own dataset."""
    inputs = [name for feature in features if feature.spec.kind == "pair" for name in feature.inputs]
    names = dict.fromkeys(
        name for kind, _, name in (one.partition(":") for one in inputs) if kind in ("close", "age") and name
    )
    return [(dataset or None, symbol) for dataset, _, symbol in (name.rpartition(":") for name in names)]


def datasets_read(dataset: Dataset) -> list[str]:
    """The other datasets that a dataset's features and checks read."""
    compared = [dataset.compare_with.dataset] if dataset.compare_with else []
    names = [*(name for name, _ in others(features_of(dataset))), *compared]
    return [name for name in dict.fromkeys(names) if name is not None and name != dataset.name]


def warm_up_bars(features: Sequence[Feature], columns: Sequence[str] | None) -> int:
    """The bars until these columns, or all of the features', are defined; never fewer than the set `core` needs.

    A strategy's first step follows from it, which is not to move to and fro with each feature that is tried.
    """
    needed = [
        lookback + 1
        for feature in features
        for column, lookback in zip(feature.columns, feature.lookbacks, strict=True)
        if columns is None or column in columns
    ]
    return max([_CORE_WARM_UP, *needed])


def plugins_of(declared: UniverseDeclaration, directory: Path) -> tuple[tuple[str, ...], list[tuple[Place, str]]]:
    """The plugins that can be used, as `located` gives them, and what is wrong with the others."""
    if not declared.plugins:
        return (), []
    from quantlytic_assets.universe.plugins import PluginError, located, registry_with

    good: list[str] = []
    mistakes: list[tuple[Place, str]] = []
    for i, plugin in enumerate(declared.plugins):
        if plugin is None:
            continue
        try:
            found = located(plugin, directory)
            registry_with((*good, found))
        except PluginError as error:
            mistakes.append((("plugins", i), str(error)))
        else:
            good.append(found)
    return tuple(good), mistakes


def expanded(dataset: DatasetDeclaration, sets: Mapping[str, Sequence[str | None] | None]) -> tuple[str, ...]:
    """The declarations of a dataset, the universe's own sets replaced by what is in them."""
    wanted: list[str] = []
    for one in dataset.features or CORE:
        wanted += [each for each in sets[one] or () if each] if one in sets else [one] if one else []
    return tuple(dict.fromkeys(wanted))


def wrong_features(declared: UniverseDeclaration, plugins: tuple[str, ...]) -> Mistakes:
    """Each name among `feature_sets`, of a dataset or of a strategy that is no feature."""
    sets = declared.feature_sets or {}
    named = [one for one in (declared.datasets or {}).values() if one is not None and one.features]
    if not sets and not named and not plugins:
        yield from _wrong_columns(declared, lambda dataset: (CORE_COLUMNS, CORE_COLUMNS))
        return
    from quantlytic_assets.features.registry import SETS
    from quantlytic_assets.universe.plugins import registry_with

    registry = registry_with(plugins)
    for name, members in sets.items():
        if name in SETS:
            yield ("feature_sets", name), "is a set that is always there, give this one another name"
        for i, member in enumerate(members or ()):
            yield from _wrong(("feature_sets", name, i), member, registry)
    datasets = {name: one for name, one in (declared.datasets or {}).items() if one is not None}
    for name, dataset in datasets.items():
        for i, feature in enumerate(dataset.features or ()):
            place: Place = ("datasets", name, "features", i)
            if feature not in sets:
                yield from _wrong(place, feature, registry)
            for each in sets.get(feature) or [feature]:
                yield from _unknown_others(place, each, name, datasets, registry)
    yield from _wrong_columns(declared, lambda dataset: _offered(registry, expanded(dataset, sets)))


def _offered(registry: Registry, declarations: Sequence[str]) -> tuple[Sequence[str], Sequence[str]] | None:
    """The columns of these declarations and those that a model can learn from; None where a declaration is wrong."""
    try:
        features = registry.features((*declarations, _ALWAYS))
    except ValueError:
        # It is said where the dataset names it.
        return None
    return [column for feature in features for column in feature.columns], learnable(features)


def _wrong_columns(
    declared: UniverseDeclaration,
    offered: Callable[[DatasetDeclaration], tuple[Sequence[str], Sequence[str]] | None],
) -> Mistakes:
    """The names of strategies that are no columns to learn from; `offered` as `_offered` says it of a dataset."""
    for name, strategy in (declared.strategies or {}).items():
        dataset = (declared.datasets or {}).get(strategy.dataset) if strategy else None
        found = offered(dataset) if dataset else None
        if strategy is None or found is None:
            continue
        columns, usable = found
        for i, column in enumerate(strategy.features or ()):
            if column is None or column in usable:
                continue
            place: Place = ("strategies", name, "features", i)
            if column in columns:
                yield place, f"{column} is a volume, which means another thing for each symbol; leave it out"
            else:
                hint = suggestion(column, usable)
                yield place, f"'{short(column)}' is no feature of {strategy.dataset}, {hint}"


def are_core(declarations: Iterable[str]) -> bool:
    """Whether these are declarations of the set `core`, as far as that is seen without the registry."""
    return set(declarations) <= set(CORE_DECLARATIONS)


def missing_declarations(features: Sequence[str], plugins: tuple[str, ...], needed: Iterable[str]) -> tuple[str, ...]:
    """Those of the needed declarations of which a dataset with these features lacks a column."""
    if are_core(needed) and "core" in features:
        return ()
    from quantlytic_assets.universe.plugins import registry_with

    registry = registry_with(plugins)
    there = {column for feature in registry.features((*features, _ALWAYS)) for column in feature.columns}
    missing: list[str] = []
    for one in needed:
        columns = registry.feature(one).columns
        if not there.issuperset(columns):
            missing.append(one)
            there.update(columns)
    return tuple(missing)


def wrong_declaration(
    place: Place, declaration: str, name: str, datasets: Mapping[str, DatasetDeclaration], registry: Registry
) -> Mistakes:
    """What is wrong with one declaration of a feature of the dataset `name`."""
    wrong = list(_wrong(place, declaration, registry))
    yield from wrong
    if not wrong and name in datasets:
        yield from _unknown_others(place, declaration, name, datasets, registry)


def _wrong(place: Place, declaration: str | None, registry: Registry) -> Mistakes:
    from quantlytic_assets.features.registry import SETS

    if declaration is None or declaration in SETS:
        return
    try:
        feature = registry.feature(declaration)
        if feature.spec.kind == "cross_section":
            of = registry.of_column(feature.inputs[0])
            if of.spec.cumulative:
                # Its stored values are those of another family.
                yield place, f"{declaration} compares sums since the first bar of each symbol; take a change of them"
    except ValueError as error:
        yield place, str(error)


def _unknown_others(
    place: Place, declaration: str | None, name: str, datasets: Mapping[str, DatasetDeclaration], registry: Registry
) -> Mistakes:
    """The symbols that a declaration reads and that no dataset has."""
    from quantlytic_assets.features.registry import SETS

    if declaration is None or declaration in SETS:
        return
    try:
        read = others([registry.feature(declaration)])
    except ValueError:
        # It is said already.
        return
    for other, symbol in read:
        dataset = other or name
        if dataset not in datasets:
            yield place, f"{declaration} reads dataset '{short(dataset)}', {suggestion(dataset, tuple(datasets))}"
            continue
        symbols = [one.symbol for one in datasets[dataset].symbols or () if one and one.symbol]
        if symbol not in symbols:
            yield place, f"{declaration} reads '{short(symbol)}', no symbol of {dataset}; {suggestion(symbol, symbols)}"
