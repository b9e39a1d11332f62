"""Scoring rows as the asset of predictions does, outside of Dagster: by the model of the step of their session."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from quantlytic_assets.calendars.partitions import model_steps
from quantlytic_assets.learning.features import design_matrix, resolve_features
from quantlytic_assets.learning.registry import ModelNotFound
from quantlytic_assets.learning.training import predict
from quantlytic_assets.universe.feature_choice import learned_from

if TYPE_CHECKING:
    from quantlytic_assets.learning.registry import ModelStore
    from quantlytic_assets.universe.models import Dataset, ModelStrategy

_EMPTY = pl.Schema({"symbol": pl.String(), "open_time": pl.Datetime("us", "UTC"), "score": pl.Float64()})


def scorer(
    models: ModelStore, dataset: Dataset, strategy: ModelStrategy, report: Callable[[str], None]
) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """A function of rows of features.indicators: symbol, open_time and score of those that can be scored.

    A model is loaded with the first row of its step and kept. A step whose model was never trained has no scores, which
    is reported once; it is looked for again with the next session.
    """
    features = learned_from(strategy, resolve_features(strategy.features))
    scales = {name: feature.scales[0] for name, feature in features.items()}
    loaded: dict[str, tuple[Any, tuple[str, ...], datetime]] = {}
    missing: dict[str, date] = {}

    def model(session: date) -> tuple[Any, tuple[str, ...], datetime] | None:
        step = max((one for one in model_steps(dataset, strategy) if date.fromisoformat(one) <= session), default=None)
        if step is None or missing.get(step) == session:
            return None
        if step not in loaded:
            try:
                pipeline, names, _, trained_through = models.load(strategy, step)
            except ModelNotFound as error:
                missing[step] = session
                report(f"{strategy.name} has no scores: {error}")
                return None
            loaded[step] = (pipeline, names, trained_through)
        return loaded[step]

    def score(rows: pl.DataFrame) -> pl.DataFrame:
        known = rows.with_columns(pl.lit(dataset.name).alias("dataset"), pl.lit(strategy.interval).alias("interval"))
        frame = design_matrix(known, strategy.features, scales).frame
        parts = [_EMPTY.to_frame()]
        for (session,), own in frame.partition_by("session", as_dict=True).items():
            found = model(session)
            if found is not None:
                pipeline, names, trained_through = found
                # What was learned from is not predicted.
                own = own.filter(pl.col("available_at") > trained_through)
                parts.append(predict(pipeline, names, own).select(_EMPTY.names()))
        return pl.concat(parts)

    return score
