"""`build_definitions(settings)`: the only place where assets, checks, jobs, sensors and resources are wired together.

Dagster loads `defs` from here. Avoid putting the implementation of any of them into this module.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import dagster as dg

from quantlytic_assets.assets.broker_account import broker_account_asset
from quantlytic_assets.assets.clean_bars import clean_bars_asset
from quantlytic_assets.assets.corporate_actions import corporate_actions_asset
from quantlytic_assets.assets.coverage import coverage_asset
from quantlytic_assets.assets.features import dbt_project, dbt_resource, feature_assets
from quantlytic_assets.assets.keys import feature_key, strategy_key
from quantlytic_assets.assets.maintenance import (
    archive_maintenance_asset,
    instance_maintenance_asset,
    lake_maintenance_asset,
    retention_asset,
)
from quantlytic_assets.assets.models import model_asset, predictions_asset
from quantlytic_assets.assets.paper_trades import paper_trades_asset
from quantlytic_assets.assets.partitions import definition, strategy_definition
from quantlytic_assets.assets.performance import performance_asset
from quantlytic_assets.assets.published import published_asset, published_strategy_asset
from quantlytic_assets.assets.raw_bars import landing_job, raw_bars_asset
from quantlytic_assets.assets.signals import signals_asset
from quantlytic_assets.automation.alerts import alert_sensor
from quantlytic_assets.automation.bus_sensor import bus_sensor
from quantlytic_assets.automation.conditions import follow_any_upstream, follow_hourly, follow_upstream, hourly
from quantlytic_assets.automation.gap_sensor import gap_sensor
from quantlytic_assets.automation.schedules import daily_maintenance
from quantlytic_assets.checks.broker_checks import broker_checks
from quantlytic_assets.checks.feature_checks import feature_checks
from quantlytic_assets.checks.schema_checks import schema_checks, strategy_checks
from quantlytic_assets.checks.vendor_checks import vendor_checks
from quantlytic_assets.dagster_internals import assign_freed_slots, fork_run_workers, keep_watching_runs
from quantlytic_assets.pages.links import Links
from quantlytic_assets.resources import make_resources
from quantlytic_assets.settings import Settings, load_settings
from quantlytic_assets.storage.session_tables import keep_session_tables
from quantlytic_assets.universe.loading import load_universe
from quantlytic_assets.universe.models import Dataset, ModelStrategy, Strategy, Universe

OWNERS = ["team:quantlytic"]
MAINTENANCE = "maintenance"


def features_key(dataset: Dataset) -> dg.AssetKey:
    """The asset that is ready when all features of a dataset are."""
    return feature_key(dataset, "indicators")


def strategy_keys(strategy: Strategy) -> dict[str, dg.AssetKey]:
    """A strategy's asset keys by name; a bot, which sees its positions when it decides, has no signals."""
    of_model = ("model", "predictions") if isinstance(strategy, ModelStrategy) else ()
    of_rule = () if strategy.bar_by_bar else ("signals",)
    names = (*of_model, *of_rule, "paper_trades", "performance", "published")
    return {name: strategy_key(strategy, name) for name in names}


def dataset_job_name(dataset: Dataset) -> str:
    """The job that runs a dataset from raw bars to features."""
    return f"{dataset.name}_pipeline"


def model_job_name(strategy: ModelStrategy) -> str:
    """The job that trains a strategy's models."""
    return f"{strategy.name}_training"


def trading_job_name(strategy: Strategy) -> str:
    """The job that predicts, where there is a model, makes signals and trades."""
    return f"{strategy.name}_trading"


def performance_job_name(strategy: Strategy) -> str:
    """The job that reports."""
    return f"{strategy.name}_reporting"


def _dataset_parts(dataset: Dataset, universe: Universe, settings: Settings) -> dg.Definitions:
    partitions_def = definition(dataset)
    links = Links(settings.pages, settings.dashboard)
    policy = dg.BackfillPolicy.multi_run(settings.backfill_chunk)
    source: dict[str, Any] = {
        "partitions_def": partitions_def,
        "backfill_policy": policy,
        "group_name": dataset.name,
        "owners": OWNERS,
    }
    # Raw bars are asked for by people, backfills and gap filling; everything after them follows by itself.
    common = {**source, "automation_condition": follow_upstream(dataset.keep)}
    whole = {"group_name": dataset.name, "owners": OWNERS, "automation_condition": follow_hourly()}
    landing = landing_job(dataset)
    horizons = [one.horizon for one in universe.models.values() if one.dataset == dataset.name] or [1]
    pipeline = dg.define_asset_job(
        dataset_job_name(dataset),
        selection=dg.AssetSelection.groups(dataset.name),
        description=f"{dataset.name} from raw bars to features.",
        executor_def=dg.in_process_executor,
        partitions_def=partitions_def,
    )
    assets = dg.with_source_code_references(
        [
            raw_bars_asset(dataset, source),
            corporate_actions_asset(dataset, whole),
            clean_bars_asset(dataset, common),
            coverage_asset(dataset, common),
            feature_assets(dataset, universe.datasets, horizons, common),
            published_asset(dataset, common),
        ]
    )
    return dg.Definitions(
        assets=_with_pages(assets, links.dataset(dataset.name), links.dashboard(dataset.name)),
        asset_checks=[
            *schema_checks(dataset, partitions_def),
            *vendor_checks(dataset, partitions_def),
            *feature_checks(dataset, partitions_def),
        ],
        jobs=[landing, pipeline],
        sensors=[
            bus_sensor(dataset, landing, 5 * settings.claim_records),
            *([gap_sensor(dataset, pipeline, settings.backfill_chunk)] if dataset.vendors else []),
            _automation_sensor(
                dataset.name, f"Brings the tables of {dataset.name} up to date whenever bars have landed.", seconds=10
            ),
        ],
    )


def _strategy_parts(dataset: Dataset, strategy: Strategy, universe: Universe, settings: Settings) -> dg.Definitions:
    keys, partitions_def = strategy_keys(strategy), strategy_definition(dataset, strategy)
    # A model learns from all that the dataset keeps: what has left the lake is no reason to make any of it again.
    keep = None if isinstance(strategy, ModelStrategy) else dataset.keep
    links = Links(settings.pages, settings.dashboard)
    common, unpartitioned = _of_strategy(strategy, settings, follow_upstream(keep))
    jobs = []
    assets = [
        paper_trades_asset(dataset, strategy, common, universe),
        performance_asset(dataset, strategy, unpartitioned),
        published_strategy_asset(dataset, strategy, unpartitioned),
    ]
    if not strategy.bar_by_bar:
        assets = [signals_asset(dataset, strategy, common), *assets]
    made = [] if strategy.bar_by_bar else ["signals"]
    if isinstance(strategy, ModelStrategy):
        jobs.append(_job(model_job_name(strategy), [keys["model"]], f"Trains {strategy.name}."))
        assets = [model_asset(dataset, strategy, common), predictions_asset(dataset, strategy, common), *assets]
        made = ["predictions", *made]
    jobs += [
        _job(
            trading_job_name(strategy),
            [keys[name] for name in (*made, "paper_trades")],
            f"Makes the {' and '.join(made)} of {strategy.name} and trades them on paper."
            if made
            else f"Trades {strategy.name} on paper.",
            partitions_def,
        ),
        _job(
            performance_job_name(strategy),
            [keys["performance"], keys["published"]],
            f"Reports how {strategy.name} has done, and publishes it for the API.",
        ),
    ]
    return dg.Definitions(
        assets=_with_pages(
            dg.with_source_code_references(assets),
            links.strategy(strategy.name),
            links.dashboard(dataset.name, strategy.name),
        ),
        asset_checks=strategy_checks(dataset, strategy, partitions_def),
        jobs=jobs,
        sensors=[_automation_sensor(strategy.name, f"Keeps {strategy.name} trading as new features come in.")],
    )


def _broker_parts(broker: str, universe: Universe) -> dg.Definitions:
    common: dict[str, Any] = {"group_name": broker, "owners": OWNERS, "automation_condition": hourly()}
    return dg.Definitions(
        assets=dg.with_source_code_references([broker_account_asset(broker, universe, common)]),
        asset_checks=broker_checks(broker),
        sensors=[_automation_sensor(broker, f"Looks at the account at {broker} once an hour.")],
    )


def _of_strategy(
    strategy: Strategy, settings: Settings, condition: dg.AutomationCondition
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a strategy's assets have in common: those with partitions, which follow by `condition`, and the others."""
    every: dict[str, Any] = {"group_name": strategy.name, "owners": OWNERS}
    policy = dg.BackfillPolicy.multi_run(settings.backfill_chunk)
    return (
        {**every, "backfill_policy": policy, "automation_condition": condition},
        {**every, "automation_condition": follow_any_upstream()},
    )


def _job(
    name: str, keys: Sequence[dg.AssetKey], description: str, partitions_def: dg.PartitionsDefinition | None = None
) -> Any:
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*keys),
        description=description,
        executor_def=dg.in_process_executor,
        partitions_def=partitions_def,
    )


def _with_pages(assets: Sequence[Any], page: str, dashboard: str) -> list[Any]:
    """The assets, each with links to the page of its dataset or strategy and to its dashboard."""
    pages = {"page": dg.MetadataValue.url(page), "dashboard": dg.MetadataValue.url(dashboard)}
    return list(dg.map_asset_specs(lambda spec: spec.merge_attributes(metadata=pages), assets))


def _automation_sensor(
    group: str, description: str, seconds: int | None = None
) -> dg.AutomationConditionSensorDefinition:
    return dg.AutomationConditionSensorDefinition(
        f"{group}_automation",
        target=dg.AssetSelection.groups(group),
        default_status=dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=seconds,
        description=description,
        # Conditions of our own are Python, which the daemon does not load.
        use_user_code_server=True,
    )


def _maintenance_parts(universe: Universe) -> dg.Definitions:
    common: dict[str, Any] = {"group_name": MAINTENANCE, "owners": OWNERS}
    assets = [archive_maintenance_asset(dataset, common) for dataset in universe.datasets.values()]
    assets += [retention_asset(dataset, common) for dataset in universe.datasets.values() if dataset.keep is not None]
    assets += [lake_maintenance_asset(common), instance_maintenance_asset(common)]
    return dg.Definitions.merge(
        dg.Definitions(assets=dg.with_source_code_references(assets)), daily_maintenance(MAINTENANCE)
    )


def build_definitions(settings: Settings) -> dg.Definitions:
    """Everything that the universe declares, wired to the parts of the settings' profile.

    Raises `UniverseError` listing every mistake of the universe file.
    """
    assign_freed_slots()
    keep_session_tables(settings)
    universe = load_universe(settings.universe)
    resources = make_resources(settings)
    # Backfill policies and partitioned checks are beta in this Dagster, pinned for that; no need to say so each time.
    warnings.simplefilter("ignore", dg.BetaWarning)
    warnings.simplefilter("ignore", dg.PreviewWarning)
    parts = [_dataset_parts(dataset, universe, settings) for dataset in universe.datasets.values()]
    parts += [
        _strategy_parts(universe.datasets[strategy.dataset], strategy, universe, settings)
        for strategy in universe.strategies.values()
    ]
    parts.append(_maintenance_parts(universe))
    brokers = sorted({one.broker for one in universe.strategies.values() if one.at_broker})
    parts += [_broker_parts(broker, universe) for broker in brokers]
    datasets = list(universe.datasets.values())
    alerts = alert_sensor(datasets, list(universe.strategies), universe.alerts, brokers)
    parts.append(dg.Definitions(sensors=[alerts]))
    wiring = dg.Definitions(
        resources={
            "quantlytic": dg.ResourceDefinition.hardcoded_resource(resources),
            "dbt": dbt_resource(dbt_project()),
        },
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(*parts, wiring)


# What a run imports beside this module, most of it when it is first needed.
_RUN_IMPORTS = (__name__, "dagster._grpc.impl", "exchange_calendars", "dbt.graph", "pandera.polars", "numba", "talib")
# Seconds until the code server has answered the webserver's and the daemon's first questions.
_WARM_UP_AFTER = 10.0


@dg.definitions
def defs() -> dg.Definitions:
    """What Dagster loads, in its code server: the definitions of the environment's settings."""
    keep_watching_runs()
    fork_run_workers(_RUN_IMPORTS, _WARM_UP_AFTER)
    return build_definitions(load_settings())
