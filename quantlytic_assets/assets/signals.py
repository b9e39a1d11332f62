"""`<strategy>/signals`: what a strategy's rule says of its symbols at each bar, of a model's score where it has one.

Rules are `strategies`' business; what is read and written is in `services.signals`.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from quantlytic_assets.assets.columns import table_metadata
from quantlytic_assets.assets.keys import feature_key, strategy_key
from quantlytic_assets.assets.partitions import strategy_definition
from quantlytic_assets.assets.per_partition import group_by_key, report
from quantlytic_assets.calendars.partitions import windows, with_partition
from quantlytic_assets.resources import Resources
from quantlytic_assets.schemas.trading import SIGNALS
from quantlytic_assets.services.signals import NoSignals, bound_rule, rule_version, signal_figures, write_signals
from quantlytic_assets.strategies.spec import RuleError
from quantlytic_assets.universe.models import Dataset, ModelStrategy, PortfolioStrategy, Strategy

_NOTHING = {"dagster/partition_row_count": 0, "symbols": 0, "buys": 0, "sells": 0, "holds": 0}


def signals_asset(dataset: Dataset, strategy: Strategy, common: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The asset that writes trading.signals; it is stale when the strategy's rule is another one."""
    rule = bound_rule(strategy)
    read = [strategy_key(strategy, "predictions")] if isinstance(strategy, ModelStrategy) else []
    if isinstance(strategy, PortfolioStrategy):
        read = [strategy_key(member, "signals") for member in strategy.members]

    @dg.asset(
        key=strategy_key(strategy, "signals"),
        deps=[feature_key(dataset, "indicators"), *read],
        partitions_def=strategy_definition(dataset, strategy),
        description=f"Buy, sell or hold for each symbol of {strategy.name} at each usable bar (trading.signals), by "
        f"{rule}: {rule.spec.summary}.",
        kinds={"ducklake", "polars"},
        code_version=rule_version(strategy),
        metadata={
            "rule": str(rule),
            "interval": strategy.interval,
            "symbols": ", ".join(strategy.symbols),
            **table_metadata(SIGNALS),
        },
        required_resource_keys={"quantlytic"},
        **common,
    )
    def signals(context: dg.AssetExecutionContext) -> None:
        resources: Resources = context.resources.quantlytic
        (window,) = windows(dataset, context.partition_keys)
        try:
            made = write_signals(resources.lake, strategy, window.first, window.last)
        except (NoSignals, RuleError) as error:
            raise dg.Failure(str(error)) from None
        figures = signal_figures(with_partition(made, dataset), "partition")
        counted = {
            key: {"dagster/partition_row_count": one["buys"] + one["sells"] + one["holds"], **one}
            for key, one in figures.items()
        }
        metadata = group_by_key(context.partition_keys, counted, _NOTHING)
        for key, entry in metadata.items():
            entry["page"] = dg.MetadataValue.url(resources.links.partition(dataset.name, key))
        report(context, metadata)

    return signals
