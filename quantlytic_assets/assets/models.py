"""`<strategy>/model` and `<strategy>/predictions`: walk-forward training, and scores for sessions after each cut.

What is learned and measured is in `learning`; here rows are read, steps walked and results reported.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import polars as pl

from quantlytic_assets.assets.columns import table_metadata
from quantlytic_assets.assets.keys import feature_key, strategy_key
from quantlytic_assets.assets.partitions import model_definition, partitions_before, strategy_definition
from quantlytic_assets.assets.per_partition import chart_and_page, group_by_key, report
from quantlytic_assets.calendars.partitions import model_steps, windows, with_partition
from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.features.columns import feature_columns
from quantlytic_assets.learning.features import (
    LABEL_COLUMNS,
    Design,
    design_columns,
    design_matrix,
    resolve_features,
    with_labels,
)
from quantlytic_assets.learning.training import predictions_table, train, training_version
from quantlytic_assets.resources import Resources
from quantlytic_assets.schemas.features import INDICATORS, LABELS
from quantlytic_assets.schemas.ml import MODELS, PREDICTIONS
from quantlytic_assets.schemas.table import Table
from quantlytic_assets.services.accounts import read_labels
from quantlytic_assets.tables.features import indicators
from quantlytic_assets.universe.feature_choice import learned_from
from quantlytic_assets.universe.models import Dataset, ModelStrategy, Strategy


def strategy_metadata(strategy: Strategy) -> dict[str, Any]:
    """What the UI shows of a strategy on each of its assets."""
    model: dict[str, Any] = {}
    if isinstance(strategy, ModelStrategy):
        model = {"model": strategy.model, "horizon_bars": strategy.horizon}
    return {
        **model,
        "rule": strategy.rule_name,
        "interval": strategy.interval,
        "symbols": ", ".join(strategy.symbols),
    }


def read_design(resources: Resources, strategy: ModelStrategy, since: date | None, before: date) -> Design:
    """The strategy's design matrix of the sessions [since, before), made of the columns that it uses."""
    rows = indicators(
        resources.lake,
        strategy.dataset,
        strategy.interval,
        design_columns(strategy.features),
        since=since,
        before=before,
        symbols=strategy.symbols,
    )
    features = learned_from(strategy, resolve_features(strategy.features))
    return design_matrix(rows, strategy.features, {name: feature.scales[0] for name, feature in features.items()})


def _learned_from(strategy: ModelStrategy) -> Table:
    """The columns that the strategy's models learn from: features, and the outcome of the label."""
    features = feature_columns(learned_from(strategy, resolve_features(strategy.features)).values())
    outcome = [LABELS.column(name) for name in ("forward_return", "label")]
    return replace(
        INDICATORS, name=f"{strategy.name}.design", writer="model", columns=(*features, *outcome), key=(), rules=()
    )


def model_asset(dataset: Dataset, strategy: ModelStrategy, common: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The asset that trains the strategy's model at the start of each walk-forward step."""
    before = partitions_before(dataset, strategy)

    @dg.asset(
        key=strategy_key(strategy, "model"),
        deps=[dg.AssetDep(feature_key(dataset, name), partition_mapping=before) for name in ("indicators", "labels")],
        partitions_def=model_definition(dataset, strategy),
        code_version=training_version(strategy),
        description=f"{strategy.model} of {strategy.name}, trained on what was known at the start of each "
        f"{strategy.retrain} step, purged and embargoed; in MLflow beside its naive baselines.",
        kinds={"scikitlearn", "mlflow"},
        metadata={**strategy_metadata(strategy), **table_metadata(_learned_from(strategy), MODELS)},
        required_resource_keys={"quantlytic"},
        **common,
    )
    def model(context: dg.AssetExecutionContext) -> None:
        resources: Resources = context.resources.quantlytic
        steps = sorted(context.partition_keys)
        tags = {"dagster.run_id": context.run_id, "quantlytic.lake_snapshot": str(resources.lake.snapshot())}
        last = date.fromisoformat(steps[-1])
        design = read_design(resources, strategy, None, last)
        frame = with_labels(design, read_labels(resources.lake, strategy, LABEL_COLUMNS, last))
        sessions = session_table(dataset.calendar, dataset.first_session, last)["session"]
        done: dict[str, dict[str, Any]] = {}
        for step in steps:
            try:
                done[step] = _train_step(resources, strategy, frame, sessions, step, tags)
            except Exception:
                # The steps before this one stay trained.
                for key, metadata in done.items():
                    context.log_event(dg.AssetMaterialization(context.asset_key, partition=key, metadata=metadata))
                raise
        report(context, done)

    return model


def _train_step(
    resources: Resources,
    strategy: ModelStrategy,
    frame: pl.DataFrame,
    sessions: pl.Series,
    step: str,
    tags: Mapping[str, str],
) -> dict[str, Any]:
    cut = datetime.combine(date.fromisoformat(step), datetime.min.time(), UTC)
    trained = train(strategy, frame, cut, sessions)
    version = resources.models.log(strategy, step, trained, tags)
    baselines = {
        f"baseline/{baseline}/{name}": value
        for baseline, metrics in trained.baseline_metrics.items()
        for name, value in metrics.items()
    }
    links = resources.links
    metadata: dict[str, Any] = {
        **chart_and_page(links.model_chart(strategy.name, step), links.strategy(strategy.name)),
        "mlflow": dg.MetadataValue.url(links.model(strategy.name, version)),
        "model_version": version,
        "trained_through": trained.trained_through.isoformat(),
        "training_rows": trained.rows,
        "training_sessions": trained.sessions,
        **{f"holdout/{name}": value for name, value in trained.metrics.items()},
        **baselines,
    }
    return {name: value for name, value in metadata.items() if value is not None}


def predictions_asset(dataset: Dataset, strategy: ModelStrategy, common: Mapping[str, Any]) -> dg.AssetsDefinition:
    """The asset that writes ml.predictions: each session scored by the model of the step it lies in."""

    @dg.asset(
        key=strategy_key(strategy, "predictions"),
        deps=[
            dg.AssetDep(strategy_key(strategy, "model"), partition_mapping=dg.TimeWindowPartitionMapping()),
            feature_key(dataset, "indicators"),
        ],
        partitions_def=strategy_definition(dataset, strategy),
        description=f"Probability of a rise over the next {strategy.horizon} bars for each symbol of {strategy.name} "
        "(ml.predictions), by a model that has not seen the session.",
        kinds={"ducklake", "scikitlearn"},
        metadata={**strategy_metadata(strategy), **table_metadata(PREDICTIONS)},
        required_resource_keys={"quantlytic"},
        **common,
    )
    def predictions(context: dg.AssetExecutionContext) -> None:
        resources: Resources = context.resources.quantlytic
        steps = model_steps(dataset, strategy)
        (window,) = windows(dataset, context.partition_keys)
        design = read_design(resources, strategy, window.first, window.last)
        scored = []
        for i, step in enumerate(steps):
            begin = date.fromisoformat(step)
            end = date.fromisoformat(steps[i + 1]) if i + 1 < len(steps) else date.max
            rows = design.frame.filter(pl.col("session") >= begin, pl.col("session") < end)
            if len(rows):
                pipeline, names, version, trained_through = resources.models.load(strategy, step)
                scored.append(predictions_table(strategy, pipeline, names, rows, version, trained_through))
        table = pl.concat(scored) if scored else pl.DataFrame()
        resources.lake.replace(
            [
                (
                    "ml.predictions",
                    "strategy = ? AND session >= ? AND session < ?",
                    [strategy.name, window.first, window.last],
                    table,
                )
            ]
        )
        counts: dict[str, dict[str, Any]] = {}
        if len(table):
            counts = {
                row.pop("partition"): row
                for row in with_partition(table, dataset)
                .group_by("partition")
                .agg(
                    pl.len().alias("dagster/partition_row_count"),
                    pl.col("symbol").n_unique().alias("symbols"),
                    pl.col("score").mean().alias("mean_score"),
                    (pl.col("prediction") == 1).mean().alias("share_up"),
                    pl.col("model_version").last(),
                )
                .iter_rows(named=True)
            }
        metadata = group_by_key(context.partition_keys, counts, {"dagster/partition_row_count": 0})
        links = resources.links
        for key, entry in metadata.items():
            chart = links.trading_chart(strategy.name, key, "predictions")
            entry.update(chart_and_page(chart, links.strategy(strategy.name)))
        report(context, metadata)

    return predictions
