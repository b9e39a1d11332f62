"""The asset checks on what cleaning and coverage wrote: the rows that stand in the lake, against their declarations.

How a declaration is checked is in `schemas`. Each partition gets an evaluation of its own, which a run over a range
would not give.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from quantlytic_assets.assets.keys import clean_bars_key, coverage_key
from quantlytic_assets.calendars.partitions import Window, windows, with_partition
from quantlytic_assets.checks.schemas import failures
from quantlytic_assets.dagster_internals import check_evaluation
from quantlytic_assets.resources import Resources
from quantlytic_assets.schemas import clean
from quantlytic_assets.schemas.table import Table
from quantlytic_assets.services.clean import partitions_at_once
from quantlytic_assets.tables.select import equal, select, sessions
from quantlytic_assets.universe.models import Dataset


def schema_checks(dataset: Dataset, partitions_def: dg.PartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    """The checks of a dataset, one an asset: `clean_bars_schema` (kept and quarantined rows) and `coverage_schema`."""
    return [
        _schema_check(
            dataset, partitions_def, clean_bars_key(dataset), "clean_bars_schema", [clean.BARS, clean.QUARANTINE]
        ),
        _schema_check(dataset, partitions_def, coverage_key(dataset), "coverage_schema", [clean.COVERAGE]),
    ]


def _schema_check(
    dataset: Dataset, partitions_def: dg.PartitionsDefinition, key: dg.AssetKey, name: str, tables: list[Table]
) -> dg.AssetChecksDefinition:
    """Severity is an error, for the asset promises that no such row gets into its table."""

    @dg.asset_check(
        asset=key,
        name=name,
        partitions_def=partitions_def,
        description=f"Types, values and keys of the rows of {' and '.join(table.name for table in tables)}.",
        required_resource_keys={"quantlytic"},
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        resources: Resources = context.resources.quantlytic
        run = context.op_execution_context
        failed: dict[str, int] = {}
        cases: list[pl.DataFrame] = []
        for window in windows(dataset, run.partition_keys, partitions_at_once(dataset)):
            found = pl.concat([_failures(resources, dataset, window, table) for table in tables])
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


def _failures(resources: Resources, dataset: Dataset, window: Window, table: Table) -> pl.DataFrame:
    of_window = sessions(window.since, window.before, table.session)
    rows = select(resources.lake, table, table.polars.names(), equal("dataset", dataset.name), of_window)
    return failures(with_partition(rows, dataset), table)


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
