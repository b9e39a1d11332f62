"""Features as columns of a table: what dbt, Dagster and the documentation say of them follows from the declaration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import polars as pl

from quantlytic_assets.features.registry import Registry
from quantlytic_assets.features.spec import Feature
from quantlytic_assets.schemas.features import FAMILIES, INDICATORS
from quantlytic_assets.schemas.table import Column, Table


def feature_columns(features: Iterable[Feature]) -> tuple[Column, ...]:
    """One column for each output of the features, in their order."""
    return tuple(
        Column(name, pl.Float64, feature.description, nullable=True) for feature in features for name in feature.columns
    )


def with_core(table: Table) -> Table:
    """The table; a family's and features.indicators with their columns of the set `core`, which each lake has."""
    if table not in (INDICATORS, *FAMILIES.values()):
        return table
    core = Registry().features(["core"])
    if table is not INDICATORS:
        return replace(table, columns=(*table.columns, *feature_columns(of_family(core, table.table_name))))
    *keys, last = table.columns
    ordered = [feature for family in FAMILIES for feature in of_family(core, family)]
    return replace(table, columns=(*keys, *feature_columns(ordered), last))


def of_family(features: Iterable[Feature], family: str) -> list[Feature]:
    """Those of the features that belong to a family, in their order."""
    return [feature for feature in features if feature.spec.family == family]
