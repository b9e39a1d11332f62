"""`<dataset>/corporate_actions`: the archive's reports made into one table, and what follows for share counts.

Which of them count is decided in `market_data.actions`; what was made without them, in `market_data.late_actions`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import dagster as dg
import polars as pl

from quantlytic_assets.assets.per_partition import table_metadata
from quantlytic_assets.assets.raw_bars import raw_bars_key
from quantlytic_assets.market_data.actions.late_actions import first_changed
from quantlytic_assets.market_data.actions.reconcile import CORPORATE_ACTIONS_SCHEMA, Reconciled, reconcile
from quantlytic_assets.market_data.actions.split_factors import SPLIT_FACTORS_SCHEMA, split_factors
from quantlytic_assets.resources import Resources
from quantlytic_assets.tables import actions as actions_table
from quantlytic_assets.tables.bars import bases
from quantlytic_assets.universe.models import Dataset

# Rejected reports in clean.quarantine, distinguished from bars by the object they are in.
REPORTED_IN = "source_object LIKE '%/actions/%'"
_SHOWN = 50


def corporate_actions_key(dataset: Dataset) -> dg.AssetKey:
    """The key of a dataset's corporate actions."""
    return dg.AssetKey([dataset.name, "corporate_actions"])


def corporate_actions_asset(
    dataset: Dataset, common: Mapping[str, object], columns: Mapping[str, str]
) -> dg.AssetsDefinition:
    """The asset that writes clean.corporate_actions, all of a dataset at once. `columns` describes its columns."""

    @dg.asset(
        key=corporate_actions_key(dataset),
        deps=[raw_bars_key(dataset)],
        description=f"Splits, dividends and renames of {dataset.name} (clean.corporate_actions), from vendors and "
        "imported files; where they differ an import counts, then the newest.",
        kinds={"ducklake", "polars"},
        metadata=table_metadata("clean.corporate_actions", CORPORATE_ACTIONS_SCHEMA, columns),
        required_resource_keys={"quantlytic"},
        **common,
    )
    def corporate_actions(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata=figures(rebuild(context.resources.quantlytic, dataset)))

    return corporate_actions


def rebuild(resources: Resources, dataset: Dataset) -> Reconciled:
    """Make clean.corporate_actions of a dataset anew from the archive; what was made of it.

    Share counts are replaced by who sees to the bars and features that were made with the old ones.
    """
    reconciled = reconcile(resources.actions.read(dataset.name), dataset.name)
    resources.lake.replace(
        [
            ("clean.corporate_actions", "dataset = ?", [dataset.name], reconciled.actions),
            ("clean.quarantine", f"dataset = ? AND {REPORTED_IN}", [dataset.name], reconciled.rejected),
        ]
    )
    return reconciled


@dataclass(frozen=True)
class NewSplitFactors:
    """`counts` (SPLIT_FACTORS_SCHEMA) of a dataset that differ from those in the lake.

    `since`: the first session with bars in the lake whose flags or features are others with them; None where there is
    none.
    """

    counts: pl.DataFrame
    since: date | None


def new_split_factors(resources: Resources, dataset: Dataset, actions: pl.DataFrame) -> NewSplitFactors | None:
    """What these actions make of clean.share_counts; None where it says that already."""
    kept = actions_table.split_factors(resources.lake, dataset.name, SPLIT_FACTORS_SCHEMA.names())
    counts = split_factors(actions, dataset.name)
    if kept.equals(counts):
        return None
    symbols = pl.concat([kept["symbol"], counts["symbol"]]).unique().to_list()
    days = bases(resources.lake, dataset.name, symbols)
    return NewSplitFactors(counts, first_changed(days, kept, counts))


def replace_split_factors(resources: Resources, dataset: Dataset, new: NewSplitFactors) -> None:
    """Put them into clean.share_counts. After this nobody knows what was made with the old ones: see to that before."""
    resources.lake.replace([("clean.share_counts", "dataset = ?", [dataset.name], new.counts)])


def figures(reconciled: Reconciled) -> dict[str, object]:
    """What the UI shows of a rebuild: rows, kinds, rejected reports, and those that contradict each other."""
    kinds = dict(reconciled.actions.group_by("kind").len().sort("kind").iter_rows())
    shown = reconciled.disputed.head(_SHOWN).select(
        "symbol", "session", "kind", "value", "new_symbol", "vendor", "recorded_at"
    )
    return {
        "dagster/row_count": len(reconciled.actions),
        "kinds": kinds,
        "rejected": len(reconciled.rejected),
        "reported_differently": reconciled.disputed.select("symbol", "session", "kind").n_unique(),
        "differing_reports": shown.with_columns(pl.col(pl.Date, pl.Datetime).cast(pl.String)).to_dicts(),
    }
