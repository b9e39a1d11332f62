"""Alerts on thresholds: what a universe declares of them, against its datasets, their columns and its strategies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quantlytic_assets.calendars.intervals import INTERVALS
from quantlytic_assets.thresholds.condition import BAR_FIELDS
from quantlytic_assets.universe.declarations import AlertDeclaration, UniverseDeclaration
from quantlytic_assets.universe.feature_choice import CORE, CORE_COLUMNS, features_of
from quantlytic_assets.universe.fields import suggestion
from quantlytic_assets.universe.models import Dataset, Threshold
from quantlytic_assets.universe.yaml_tree import Place

Mistakes = Iterator[tuple[Place, str]]


def wrong_alerts(declared: UniverseDeclaration, datasets: Mapping[str, Dataset]) -> Mistakes:
    """Each mistake with its place. `datasets`: those that are right, with all features that they have."""
    seen: set[tuple[Any, ...]] = set()
    for i, one in enumerate(declared.alerts or ()):
        if one is None or one.when is None:
            continue
        place: Place = ("alerts", i)
        if one.when.kind == "drawdown":
            yield from _of_account(place, one, declared)
        else:
            yield from _of_dataset(place, one, declared, datasets)
        same = (one.dataset, one.interval, one.when.text)
        if same in seen:
            yield place, "is declared twice, put the symbols of both into one"
        seen.add(same)


def _of_account(place: Place, one: AlertDeclaration, declared: UniverseDeclaration) -> Mistakes:
    for field in ("dataset", "symbols", "interval"):
        if getattr(one, field) is not None:
            yield (*place, field), "does not go with drawdown(strategy), leave it out"
    names = list(declared.strategies or {})
    for operand in one.when.operands:
        if operand.kind == "drawdown" and operand.name not in names:
            near = suggestion(operand.name, names) if names else "there are none"
            yield (*place, "when"), f"there is no strategy '{operand.name}', {near}"


def _of_dataset(
    place: Place, one: AlertDeclaration, declared: UniverseDeclaration, datasets: Mapping[str, Dataset]
) -> Mistakes:
    names = list(declared.datasets or {})
    if one.dataset is None:
        yield place, f"dataset is missing, take one of {', '.join(names)}"
        return
    if one.dataset not in names:
        yield (*place, "dataset"), f"there is no dataset '{one.dataset}', {suggestion(one.dataset, names)}"
        return
    dataset = datasets.get(one.dataset)
    if dataset is None:
        return
    symbols = [each.symbol for each in dataset.symbols]
    for i, symbol in enumerate(one.symbols or ()):
        if symbol is not None and symbol not in symbols:
            yield (*place, "symbols", i), f"{one.dataset} has no symbol '{symbol}', {suggestion(symbol, symbols)}"
    if one.interval is not None and one.interval not in dataset.feature_intervals:
        there = ", ".join(dataset.feature_intervals)
        yield (*place, "interval"), f"{one.dataset} has features at {there}, not at {one.interval}"
    if one.when.kind == "column":
        known = [*BAR_FIELDS, *columns_of(dataset)]
        for name in one.when.columns:
            if name not in known:
                yield (
                    (*place, "when"),
                    (
                        f"{one.dataset} has no column '{name}', {suggestion(name, known)}; "
                        "its `features` say which it has"
                    ),
                )


def columns_of(dataset: Dataset) -> tuple[str, ...]:
    """The columns of a dataset's features."""
    if dataset.features == CORE:
        return CORE_COLUMNS
    return tuple(column for feature in features_of(dataset) for column in feature.columns)


def thresholds(declared: UniverseDeclaration, datasets: Mapping[str, Dataset]) -> tuple[Threshold, ...]:
    """The alerts of a universe without mistakes."""
    made = []
    for one in declared.alerts:
        if one.dataset is None:
            made.append(Threshold(one.when, one.cooldown))
            continue
        dataset = datasets[one.dataset]
        symbols = tuple(one.symbols or (each.symbol for each in dataset.symbols))
        shortest = min(dataset.feature_intervals, key=INTERVALS.__getitem__)
        made.append(Threshold(one.when, one.cooldown, one.dataset, symbols, one.interval or shortest))
    return tuple(made)
