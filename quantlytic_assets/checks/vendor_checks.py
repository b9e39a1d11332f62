"""The asset check `vendors_agree`: clean bars against what other vendors, or another dataset, say of the same bars.

How prices are compared is in `market_data.vendor_comparison`. Each partition gets an evaluation of its own.
"""

from typing import Any

import dagster as dg
import polars as pl

from quantlytic_assets.assets.keys import clean_bars_key
from quantlytic_assets.calendars.partitions import Window, windows, with_partition
from quantlytic_assets.checks.schema_checks import report_each
from quantlytic_assets.market_data.actions.reconcile import reconcile
from quantlytic_assets.market_data.quality.vendor_comparison import DIFFERENCES_SCHEMA, as_traded, differences
from quantlytic_assets.resources import Resources
from quantlytic_assets.schemas.vocabulary import COMPARED_FIELDS
from quantlytic_assets.services.clean import partitions_at_once
from quantlytic_assets.tables.bars import clean_bars, vendor_differences
from quantlytic_assets.universe.models import Dataset

NAME = "vendors_agree"
_SHOWN = 50
_COLUMNS = ("symbol", "session", "open_time", "vendor", "fetched_at", "adjustment", *COMPARED_FIELDS)


def vendor_checks(dataset: Dataset, partitions_def: dg.PartitionsDefinition) -> list[dg.AssetChecksDefinition]:
    """The check of a dataset that has two vendors or more, or a `compare_with`; else none."""
    if len(dataset.vendors) < 2 and dataset.compare_with is None:
        return []
    key = clean_bars_key(dataset)
    against = f" and with {dataset.compare_with.dataset}" if dataset.compare_with else ""

    @dg.asset_check(
        asset=key,
        name=NAME,
        partitions_def=partitions_def,
        description=f"Close, high and low of {dataset.name} agree between its vendors{against}, in the same shares.",
        required_resource_keys={"quantlytic"},
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        resources: Resources = context.resources.quantlytic
        run = context.op_execution_context
        cases = [pl.DataFrame(schema=DIFFERENCES_SCHEMA)]
        compared = 0
        for window in windows(dataset, run.partition_keys, partitions_at_once(dataset)):
            cases.append(_between_vendors(resources, dataset, window))
            if dataset.compare_with:
                both, found = against_other(resources, dataset, window)
                compared += both
                cases.append(found)
        found = pl.concat(cases)
        if len(run.partition_keys) > 1:
            parts = with_partition(found, dataset).partition_by("partition", as_dict=True, include_key=False)
            report_each(
                context,
                key,
                NAME,
                {partition: len(rows) for (partition,), rows in parts.items()},
                {partition: _shown(rows) for (partition,), rows in parts.items()},
            )
        return dg.AssetCheckResult(
            passed=found.is_empty(),
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={
                "partitions_checked": len(run.partition_keys),
                "bars_compared_with_dataset": compared,
                "failures": len(found),
                **_shown(found),
            },
        )

    return [check]


def _shown(found: pl.DataFrame) -> dict[str, Any]:
    """Differences as the UI shows them: how many each session has, and the first rows."""
    sessions = found.group_by("session").len().sort("session").head(_SHOWN)
    return {
        "failures_by_session": {str(session): count for session, count in sessions.iter_rows()},
        "cases": found.head(_SHOWN).write_json(),
    }


def _between_vendors(resources: Resources, dataset: Dataset, window: Window) -> pl.DataFrame:
    """What cleaning wrote down of the window."""
    return vendor_differences(resources.lake, dataset.name, since=window.since, before=window.before)


def against_other(resources: Resources, dataset: Dataset, window: Window) -> tuple[int, pl.DataFrame]:
    """How many bars of the window both datasets have, and the DIFFERENCES_SCHEMA rows beyond the tolerance.

    `vendor` and `other_vendor` are who served each, the other dataset's name before it.
    """
    other = dataset.compare_with
    assert other is not None, "the check exists where the universe names another dataset"
    splits = _splits(resources, dataset.name, other.dataset)
    mine = as_traded(_bars(resources, dataset.name, window), splits)
    theirs = as_traded(_bars(resources, other.dataset, window), splits).with_columns(
        pl.concat_str(pl.lit(f"{other.dataset}: "), "vendor").alias("vendor")
    )
    found = differences(mine, theirs, other.tolerance_bps, dataset.name)
    both = mine.join(theirs, on=["symbol", "session", "open_time"], how="semi")
    return len(both), found


def _bars(resources: Resources, name: str, window: Window) -> pl.DataFrame:
    return clean_bars(resources.lake, name, _COLUMNS, since=window.since, before=window.before)


def _splits(resources: Resources, *names: str) -> pl.DataFrame:
    """Splits that any of the datasets knows of; where they differ, those of the first one.

    Of the archive, for clean.corporate_actions may be made later in the same run.
    """
    reported = [reconcile(resources.actions.read(name), name).actions for name in names]
    splits = pl.concat(reported).filter(pl.col("kind") == "split")
    return splits.unique(["symbol", "session"], keep="first", maintain_order=True).select("symbol", "session", "value")
