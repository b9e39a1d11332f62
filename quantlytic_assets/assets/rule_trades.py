"""`<strategy>/paper_trades` and `<strategy>/performance` of a strategy that follows a rule.

The engine trades, as in a backtest; what happened is on record in the state database, and the lake's tables are a copy
of it (`services.rule_account`).
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from quantlytic_assets.assets.columns import table_metadata
from quantlytic_assets.assets.keys import corporate_actions_key, strategy_key
from quantlytic_assets.assets.paper_trades import account_counts
from quantlytic_assets.assets.partitions import definition
from quantlytic_assets.assets.per_partition import group_by_key, report
from quantlytic_assets.assets.performance import records
from quantlytic_assets.calendars.partitions import windows
from quantlytic_assets.resources import Resources
from quantlytic_assets.schemas.trading import EVENTS, STATISTICS
from quantlytic_assets.services.backtest import account_figures
from quantlytic_assets.services.rule_account import trade_rule
from quantlytic_assets.services.signals import NoSignals
from quantlytic_assets.strategies.spec import RuleError
from quantlytic_assets.tables.trading import event_counts, session_counts
from quantlytic_assets.trading.backtest.figures import side_by_side
from quantlytic_assets.universe.models import Dataset, RuleStrategy

_NOTHING = {"dagster/partition_row_count": 0, "orders": 0, "fills": 0}


def rule_paper_trades_asset(dataset: Dataset, strategy: RuleStrategy, common: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The asset that trades a rule on paper and writes trading.events, and the tables that follow from it."""
    # A new action is no reason to trade: what it changes comes with the next bar.
    actions = corporate_actions_key(dataset)
    condition = common["automation_condition"].ignore(dg.AssetSelection.assets(actions))

    @dg.asset(
        key=strategy_key(strategy, "paper_trades"),
        deps=[strategy_key(strategy, "signals"), actions],
        partitions_def=definition(dataset),
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
            done = trade_rule(resources.lake, resources.accounts, dataset, strategy, window.first, window.last)
        except (NoSignals, RuleError) as error:
            raise dg.Failure(str(error)) from None
        context.log.info(str(done))
        asked = {"since": window.first, "before": window.last}
        written = event_counts(resources.lake, strategy.name, **asked)
        counted = session_counts(resources.lake, strategy.name, **asked).join(written, on="session", how="left")
        report(context, group_by_key(context.partition_keys, account_counts(counted, dataset), _NOTHING))

    return paper_trades


def rule_performance_asset(dataset: Dataset, strategy: RuleStrategy, common: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The unpartitioned asset that reports on the whole account of a rule."""

    @dg.asset(
        key=strategy_key(strategy, "performance"),
        deps=[dg.AssetDep(strategy_key(strategy, "paper_trades"), partition_mapping=dg.AllPartitionMapping())],
        description=f"How {strategy.name} has done on paper: returns, risk, turnover and costs beside buying the same "
        "symbols and holding them, at the same costs.",
        kinds={"polars"},
        metadata=table_metadata(STATISTICS),
        required_resource_keys={"quantlytic"},
        **common,
    )
    def performance(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        resources: Resources = context.resources.quantlytic
        found = account_figures(resources.lake, dataset, strategy)
        if found is None:
            raise dg.Failure(f"{strategy.name} has not traded yet: materialize its paper_trades first")
        figures, held = found
        metadata: dict[str, Any] = {
            "statistics": dg.MetadataValue.table(records(side_by_side(figures, held))),
            **{name: value for name, value in figures.items() if value is not None},
        }
        return dg.MaterializeResult(metadata=metadata)

    return performance
