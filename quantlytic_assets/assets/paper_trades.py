"""`<strategy>/paper_trades`: signals, or a bot's wishes, made into orders and fills, once each, as lake tables.

The engine trades, as in a backtest; what happened is on record in the state database, and the lake's tables are a copy
of it (`services.paper_account`). Where a broker fills the orders they are sent to it, and its fills are on record.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from quantlytic_assets.assets.at_broker import TRADING_ERRORS, trade_at_broker
from quantlytic_assets.assets.columns import table_metadata
from quantlytic_assets.assets.keys import corporate_actions_key, feature_key, strategy_key
from quantlytic_assets.assets.partitions import strategy_definition
from quantlytic_assets.assets.per_partition import chart_and_page, group_by_key, report
from quantlytic_assets.calendars.partitions import windows, with_partition
from quantlytic_assets.resources import Resources
from quantlytic_assets.schemas.trading import EVENTS
from quantlytic_assets.services.halts import standings
from quantlytic_assets.services.paper_account import trade
from quantlytic_assets.tables.trading import event_counts, session_counts
from quantlytic_assets.universe.models import Dataset, Strategy, Universe

_NOTHING = {"dagster/partition_row_count": 0, "orders": 0, "fills": 0}


def paper_trades_asset(
    dataset: Dataset, strategy: Strategy, common: Mapping[str, Any], universe: Universe
) -> dg.AssetsDefinition:
    """The asset that trades a strategy on paper and writes trading.events, and the tables that follow from it."""
    # A new action is no reason to trade: what it changes comes with the next bar.
    actions = corporate_actions_key(dataset)
    condition = common["automation_condition"].ignore(dg.AssetSelection.assets(actions))
    decided_by = feature_key(dataset, "indicators") if strategy.bar_by_bar else strategy_key(strategy, "signals")

    @dg.asset(
        key=strategy_key(strategy, "paper_trades"),
        deps=[decided_by, actions],
        partitions_def=strategy_definition(dataset, strategy),
        description=f"The paper account of {strategy.name} (trading.events, orders, fills, positions and equity): the "
        "engine of backtests goes on from the last bar that was traded. Each bar is traded once; one that comes late "
        "is seen and not traded. The account begins with the first session that is materialized.",
        kinds={"ducklake"},
        metadata={"capital": strategy.settings.capital, **table_metadata(EVENTS)},
        required_resource_keys={"quantlytic"},
        **{**common, "automation_condition": condition},
    )
    def paper_trades(context: dg.AssetExecutionContext) -> None:
        resources: Resources = context.resources.quantlytic
        (window,) = windows(dataset, context.partition_keys)
        try:
            if not strategy.at_broker:
                done = trade(resources.lake, resources.accounts, dataset, strategy, window.first, window.last)
                context.log.info(str(done))
            else:
                trade_at_broker(context, resources, dataset, strategy, universe, window)
        except TRADING_ERRORS as error:
            raise dg.Failure(str(error)) from None
        asked = {"since": window.first, "before": window.last}
        written = event_counts(resources.lake, strategy.name, **asked)
        counted = session_counts(resources.lake, strategy.name, **asked).join(written, on="session", how="left")
        metadata = group_by_key(context.partition_keys, account_counts(counted, dataset), _NOTHING)
        links, standing = resources.links, standings(resources.accounts, [strategy.name])[strategy.name]
        if standing.halted:
            context.log.warning(f"{strategy.name}: {standing.said}")
        for key, entry in metadata.items():
            entry.update({"halted": standing.said} if standing.halted else {})
            chart = links.trading_chart(strategy.name, key, "trades")
            entry.update(chart_and_page(chart, links.strategy(strategy.name)))
        report(context, metadata)

    return paper_trades


def account_counts(counts: pl.DataFrame, dataset: Dataset) -> dict[str, dict[str, Any]]:
    """What is shown of each partition, of `session_counts` and, as `rows`, how many rows the asset's table has."""
    per_key = (
        with_partition(counts, dataset)
        .group_by("partition", maintain_order=True)
        .agg(
            pl.col("orders", "fills", "rejected", "open").sum(),
            pl.col("equity", "costs_to_date").last(),
            pl.col("rows").sum().alias("dagster/partition_row_count"),
        )
    )
    return {row.pop("partition"): row for row in per_key.iter_rows(named=True)}
