"""`<strategy>/paper_trades`: predictions made into orders and fills, once each, and shown as lake tables.

The ledger decides what happened; the tables of the lake are a copy of it. How trading works is in `trading`, what is
read and published in `services.paper_account`.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from quantlytic_assets.assets.columns import table_metadata
from quantlytic_assets.assets.keys import corporate_actions_key, strategy_key
from quantlytic_assets.assets.models import strategy_metadata
from quantlytic_assets.assets.partitions import trading_definition
from quantlytic_assets.assets.per_partition import chart_and_page, group_by_key, report
from quantlytic_assets.calendars.partitions import windows, with_partition
from quantlytic_assets.resources import Resources
from quantlytic_assets.schemas.trading import FILLS
from quantlytic_assets.services.paper_account import WrongShares, trade_sessions
from quantlytic_assets.tables.trading import session_counts
from quantlytic_assets.universe.models import Dataset, Strategy


def paper_trades_asset(dataset: Dataset, strategy: Strategy, common: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The asset that trades on paper and writes trading.orders, fills, positions and equity."""
    # A new action is no reason to trade: what it changes is published with the next session, or by a backfill.
    actions = corporate_actions_key(dataset)
    condition = common["automation_condition"].ignore(dg.AssetSelection.assets(actions))

    @dg.asset(
        key=strategy_key(strategy, "paper_trades"),
        deps=[strategy_key(strategy, "predictions"), actions],
        partitions_def=trading_definition(dataset, strategy),
        description=f"Orders, fills and positions of {strategy.name}: one order a session and symbol, filled at the "
        "open of the first usable bar after the decision, less slippage and commission. Splits and dividends reach "
        "what is held. A rerun never trades twice.",
        kinds={"ducklake"},
        metadata={**strategy_metadata(strategy), **table_metadata(FILLS)},
        required_resource_keys={"quantlytic"},
        **{**common, "automation_condition": condition},
    )
    def paper_trades(context: dg.AssetExecutionContext) -> None:
        resources: Resources = context.resources.quantlytic
        (window,) = windows(dataset, context.partition_keys)
        try:
            summary = trade_sessions(resources.lake, resources.ledger, dataset, strategy, window.first, window.last)
        except WrongShares as error:
            raise dg.Failure(str(error)) from None
        context.log.info(str(summary))
        counted = session_counts(resources.lake, strategy.name, since=window.first, before=window.last)
        counts = account_counts(counted.with_columns(pl.col("fills").alias("rows")), dataset)
        metadata = group_by_key(context.partition_keys, counts, {"dagster/partition_row_count": 0, "fills": 0})
        links = resources.links
        for key, entry in metadata.items():
            entry.update(
                chart_and_page(links.trading_chart(strategy.name, key, "trades"), links.strategy(strategy.name))
            )
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
