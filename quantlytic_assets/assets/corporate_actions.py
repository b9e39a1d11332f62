"""`<dataset>/corporate_actions`: the archive's reports made into one table, and bars cleaned again that depend on them.

Which reports count is decided in `market_data.actions.reconcile`; what follows is in `services.clean`.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from quantlytic_assets.assets.columns import table_metadata
from quantlytic_assets.assets.keys import clean_bars_key, corporate_actions_key, raw_bars_key
from quantlytic_assets.schemas.clean import CORPORATE_ACTIONS
from quantlytic_assets.services.clean import Cleaner, action_figures
from quantlytic_assets.universe.models import Dataset


def corporate_actions_asset(dataset: Dataset, common: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The asset that writes clean.corporate_actions, all of a dataset at once."""

    @dg.asset(
        key=corporate_actions_key(dataset),
        deps=[raw_bars_key(dataset)],
        description=f"Splits, dividends and renames of {dataset.name} (clean.corporate_actions), from vendors and "
        "imported files; where they differ an import counts, then the newest. Bars that depend on new ones are cleaned "
        "again.",
        kinds={"ducklake", "polars"},
        metadata=table_metadata(CORPORATE_ACTIONS),
        required_resource_keys={"quantlytic"},
        **common,
    )
    def corporate_actions(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        def report(key: str, figures: Mapping[str, Any]) -> None:
            context.log_event(dg.AssetMaterialization(clean_bars_key(dataset), partition=key, metadata=figures))

        followed = Cleaner(context.resources.quantlytic, dataset).follow_actions(report)
        return dg.MaterializeResult(metadata=action_figures(followed.reconciled))

    return corporate_actions
