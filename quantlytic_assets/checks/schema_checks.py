"""The asset checks on what assets wrote, against the declarations of their tables.

How a declaration is checked is in `schemas`. Each partition gets an evaluation of its own, which a run over a range
would not give.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from quantlytic_assets.assets.keys import clean_bars_key, coverage_key, raw_bars_key, strategy_key
from quantlytic_assets.assets.partitions import model_definition
from quantlytic_assets.calendars.partitions import windows, with_partition
from quantlytic_assets.checks.schemas import failures
from quantlytic_assets.dagster_internals import check_evaluation
from quantlytic_assets.resources import Resources
from quantlytic_assets.schemas import archive, clean, ml, trading
from quantlytic_assets.schemas.table import Table
from quantlytic_assets.services.clean import partitions_at_once
from quantlytic_assets.tables.select import Condition, equal, select, sessions
from quantlytic_assets.tables.trading import account_differences
from quantlytic_assets.universe.models import Dataset, ModelStrategy, Strategy

# What finds breaches (`checks.schemas.FAILURES_SCHEMA`) in the partitions of a run, a part of them at a time.
Finder = Callable[[Resources, Sequence[str]], Iterator[pl.DataFrame]]


def schema_checks(dataset: Dataset, partitions_def: dg.PartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    """The checks of a dataset, one an asset: `raw_bars_schema`, `clean_bars_schema` and `coverage_schema`."""
    written = {
        clean_bars_key(dataset): [clean.BARS, clean.QUARANTINE],
        coverage_key(dataset): [clean.COVERAGE],
    }
    return [
        _schema_check(raw_bars_key(dataset), partitions_def, [archive.BARS], _in_archive(dataset)),
        *(
            _schema_check(key, partitions_def, tables, _in_lake(dataset, tables, equal("dataset", dataset.name)))
            for key, tables in written.items()
        ),
    ]


def strategy_checks(
    dataset: Dataset, strategy: Strategy, partitions_def: dg.PartitionsDefinition
) -> list[dg.AssetChecksDefinition]:
    """The checks of a strategy, one an asset: types, values and keys of its rows, and whether the account adds up."""
    written = {
        **({} if strategy.bar_by_bar else {"signals": [trading.SIGNALS]}),
        "paper_trades": [trading.EVENTS, trading.ORDERS, trading.FILLS, trading.POSITIONS, trading.EQUITY],
    }
    models = []
    if isinstance(strategy, ModelStrategy):
        written = {"predictions": [ml.PREDICTIONS], **written}
        steps = model_definition(dataset, strategy)
        models = [_schema_check(strategy_key(strategy, "model"), steps, [ml.MODELS], _in_registry(strategy))]
    mine = equal("strategy", strategy.name)
    return [
        *models,
        *(
            _schema_check(strategy_key(strategy, name), partitions_def, tables, _in_lake(dataset, tables, mine))
            for name, tables in written.items()
        ),
        _account_check(strategy),
    ]


def _in_lake(dataset: Dataset, tables: Sequence[Table], mine: Condition) -> Finder:
    """Rows of lake tables, by sessions of the dataset's calendar."""

    def find(resources: Resources, keys: Sequence[str]) -> Iterator[pl.DataFrame]:
        for window in windows(dataset, keys, partitions_at_once(dataset)):
            for table in tables:
                of_window = sessions(window.since, window.before, table.session)
                rows = select(resources.lake, table, table.polars.names(), mine, of_window)
                yield failures(with_partition(rows, dataset), table)

    return find


def _in_archive(dataset: Dataset) -> Finder:
    """Rows of the archive's objects, by the partition in whose folder they were landed."""

    def find(resources: Resources, keys: Sequence[str]) -> Iterator[pl.DataFrame]:
        for window in windows(dataset, keys, partitions_at_once(dataset)):
            objects = resources.archive.objects(dataset.name, window.first, window.last)
            rows = resources.archive.read(objects)
            folder = pl.col("source_object").str.extract(r"partition=([0-9-]+)/").alias("partition")
            yield failures(rows.with_columns(folder), archive.BARS)

    return find


def _in_registry(strategy: ModelStrategy) -> Finder:
    """The models in force of walk-forward steps."""

    def find(resources: Resources, keys: Sequence[str]) -> Iterator[pl.DataFrame]:
        rows = resources.models.in_force(strategy, keys)
        yield failures(rows.with_columns(pl.col("step").alias("partition")), ml.MODELS)

    return find


def _schema_check(
    key: dg.AssetKey, partitions_def: dg.PartitionsDefinition, tables: Sequence[Table], find: Finder
) -> dg.AssetChecksDefinition:
    """Severity is an error, for the asset promises that no such row gets into its table."""
    name = f"{key.path[-1]}_schema"

    @dg.asset_check(
        asset=key,
        name=name,
        partitions_def=partitions_def,
        description=f"Types, values and keys of the rows of {', '.join(table.name for table in tables)}.",
        required_resource_keys={"quantlytic"},
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        resources: Resources = context.resources.quantlytic
        run = context.op_execution_context
        failed: dict[str, int] = {}
        cases: list[pl.DataFrame] = []
        for found in find(resources, run.partition_keys):
            if len(found):
                cases.append(found)
                for partition, count in found.group_by("partition").agg(pl.col("failures").sum()).iter_rows():
                    failed[partition] = failed.get(partition, 0) + count
        if len(run.partition_keys) > 1:
            report_each(context, key, name, failed)
        shown = pl.concat(cases).head(50).write_json() if cases else "[]"
        return dg.AssetCheckResult(
            passed=not failed,
            metadata={"partitions_checked": len(run.partition_keys), "failures": sum(failed.values()), "cases": shown},
        )

    return check


def _account_check(strategy: Strategy) -> dg.AssetChecksDefinition:
    """The account of every session against the holdings of that session."""

    @dg.asset_check(
        asset=strategy_key(strategy, "performance"),
        name="account_adds_up",
        description="In each session equity is cash and the market value of what is held.",
        required_resource_keys={"quantlytic"},
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        resources: Resources = context.resources.quantlytic
        apart = account_differences(resources.lake, strategy.name)
        cases = apart.with_columns(pl.col("session").cast(pl.String)).head(50).write_json()
        return dg.AssetCheckResult(passed=apart.is_empty(), metadata={"failures": len(apart), "cases": cases})

    return check


def report_each(
    context: dg.AssetCheckExecutionContext,
    key: dg.AssetKey,
    name: str,
    failed: Mapping[str, int],
    details: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """One evaluation a partition, tied to the materialization it judged; `details`: metadata by partition beside.

    As events of this run: of evaluations reported without one Dagster keeps a partition's first and rejects the next.
    """
    run = context.op_execution_context
    newest = run.instance.get_latest_storage_id_by_partition(key, dg.DagsterEventType.ASSET_MATERIALIZATION)
    for partition in run.partition_keys:
        if partition not in newest:
            continue
        evaluation = check_evaluation(
            key,
            name,
            partition,
            partition not in failed,
            {"failures": failed.get(partition, 0), **(details or {}).get(partition, {})},
            (newest[partition], run.run_id),
        )
        # Dagster logs any user event; its annotation names three kinds.
        run.log_event(evaluation)  # type: ignore[arg-type]
