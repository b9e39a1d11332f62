"""`quantlytic features`: the features there are, with formula and names of their columns, and what datasets declare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from quantlytic_assets.commands.inspection import print_json
from quantlytic_assets.features.registry import SETS
from quantlytic_assets.features.spec import column_names
from quantlytic_assets.services.features import null_shares
from quantlytic_assets.universe.feature_choice import features_of
from quantlytic_assets.universe.plugins import registry_with

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.features.registry import Registry
    from quantlytic_assets.features.spec import Feature


def show_features(
    installation: Installation, out: Console, name: str | None, dataset: str | None, as_json: bool
) -> None:
    """Print one feature, those of a dataset with their share of nulls, or all that may be declared.

    Raises `UsageError` for a feature or dataset that there is not.
    """
    registry = registry_with(_plugins(installation))
    if name is not None:
        _explain(out, registry, name, as_json)
    elif dataset is not None:
        _of_dataset(installation, out, dataset, as_json)
    else:
        _list_all(out, registry, as_json)


def _plugins(installation: Installation) -> tuple[str, ...]:
    return next(iter(installation.universe.datasets.values())).plugins


def _explain(out: Console, registry: Registry, name: str, as_json: bool) -> None:
    from quantlytic_assets.commands.installation import UsageError

    try:
        features = registry.features([name])
    except ValueError as error:
        raise UsageError(str(error)) from error
    rows = [_row(feature) for feature in features]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        for key, value in row.items():
            out.print(f"[bold]{key:12}[/] {value}", highlight=False, soft_wrap=True)
        out.print()


def _row(feature: Feature) -> dict[str, Any]:
    return {
        "feature": str(feature),
        "columns": ", ".join(feature.columns),
        "family": feature.spec.family,
        "formula": feature.spec.formula,
        "source": feature.spec.source,
        "inputs": ", ".join(feature.inputs),
        "scale": ", ".join(dict.fromkeys(feature.scales)),
        "lookback": feature.lookback,
        "warmup": feature.warmup,
        "parameters": feature.spec.signature(),
    }


def _of_dataset(installation: Installation, out: Console, dataset: str, as_json: bool) -> None:
    features = features_of(installation.dataset(dataset))
    shares = null_shares(installation.resources.lake, dataset, column_names(features))
    rows = [
        (column, lookback, shares.get(column), feature.spec.formula)
        for feature in features
        for column, lookback in zip(feature.columns, feature.lookbacks, strict=True)
    ]
    if as_json:
        print_json([dict(zip(("column", "lookback", "null_share", "formula"), row, strict=True)) for row in rows])
        return
    table = Table("column", "defined after", "null", "formula")
    for column, lookback, share, formula in rows:
        table.add_row(column, f"{lookback:,} bars", "" if share is None else f"{share:.1%}", formula)
    out.print(table)
    if not shares:
        out.print(f"none of them is computed yet: run `quantlytic backfill {dataset}`", highlight=False)


def _list_all(out: Console, registry: Registry, as_json: bool) -> None:
    specs = registry.specs()
    if as_json:
        keys = ("name", "family", "declaration", "formula")
        said = [(one.name, one.family, one.signature(), one.formula) for one in specs]
        print_json([dict(zip(keys, row, strict=True)) for row in said])
        return
    table = Table("family", "declaration", "columns", "formula")
    for spec in sorted((one for one in specs if one.family != "candles"), key=lambda one: one.family):
        table.add_row(spec.family, spec.signature(), ", ".join(one.name for one in spec.outputs), spec.formula)
    out.print(table)
    candles = sum(one.family == "candles" for one in specs)
    out.print(
        f"and {candles} candle patterns (cdldoji …). Sets: {', '.join(SETS)}. `quantlytic features NAME` explains one, "
        "`quantlytic features --dataset D` shows a dataset's. Declare them under `features:` of a dataset.",
        highlight=False,
        soft_wrap=True,
    )
