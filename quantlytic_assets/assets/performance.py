"""`<strategy>/performance`: how the paper trades have done, beside buy-and-hold and the naive baselines.

Figures are those of `services.accounts`; the chart and the report are made by `pages` when somebody opens them.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from quantlytic_assets.assets.columns import table_metadata
from quantlytic_assets.assets.keys import strategy_key
from quantlytic_assets.assets.models import strategy_metadata
from quantlytic_assets.assets.per_partition import chart_and_page
from quantlytic_assets.resources import Resources
from quantlytic_assets.schemas.trading import STATISTICS
from quantlytic_assets.services.accounts import read_account
from quantlytic_assets.universe.models import Dataset, Strategy


def performance_asset(dataset: Dataset, strategy: Strategy, common: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The unpartitioned asset that reports on all trades so far."""

    @dg.asset(
        key=strategy_key(strategy, "performance"),
        deps=[dg.AssetDep(strategy_key(strategy, "paper_trades"), partition_mapping=dg.AllPartitionMapping())],
        description=f"How {strategy.name} has done on paper: returns, risk, turnover and costs beside buying the same "
        "symbols and holding them, at the same costs, and a link to one HTML report.",
        kinds={"polars"},
        metadata={**strategy_metadata(strategy), **table_metadata(STATISTICS)},
        required_resource_keys={"quantlytic"},
        **common,
    )
    def performance(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        resources: Resources = context.resources.quantlytic
        account = read_account(resources.lake, dataset, strategy)
        if account is None:
            raise dg.Failure(f"{strategy.name} has not traded yet: materialize its paper_trades first")
        links = resources.links
        metadata: dict[str, Any] = {
            **chart_and_page(links.account_chart(strategy.name), links.strategy(strategy.name)),
            "report": dg.MetadataValue.url(links.report(strategy.name)),
            "verdict": dg.MetadataValue.md("\n".join(f"- {one}" for one in account.verdict)),
            "statistics": dg.MetadataValue.table(records(account.comparison)),
            **{name: value for name, value in account.statistics.items() if value is not None},
            **{f"forecast/{name}": value for name, value in account.forecasts.items()},
        }
        return dg.MaterializeResult(metadata=metadata)

    return performance


def records(figures: pl.DataFrame) -> list[dg.TableRecord]:
    """A comparison of two accounts (`performance.comparison`) as the table that Dagster shows."""
    shown = figures.with_columns(pl.exclude("statistic").round(6).cast(pl.String).fill_null("undefined"))
    return [dg.TableRecord(row) for row in shown.to_dicts()]
