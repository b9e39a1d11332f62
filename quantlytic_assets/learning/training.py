"""Fits a strategy's model at one cut, beside its baselines, and applies a fitted model to new rows.

Which rows may be used is decided in `splits`; where a fitted model is kept is decided in `registry`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.learning.evaluation import Metrics, evaluate, evaluate_baselines
from quantlytic_assets.learning.features import resolve_features
from quantlytic_assets.learning.importance import Importances, importances
from quantlytic_assets.learning.models import build_model, with_prediction
from quantlytic_assets.learning.splits import holdout, training_rows
from quantlytic_assets.schemas.ml import PREDICTIONS

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from quantlytic_assets.universe.models import ModelStrategy


class SingleClass(ValueError):
    """All labels of a training set are the same, so there is nothing to tell apart."""


class SeenInTraining(ValueError):
    """Rows to predict that the model could have learned from."""


@dataclass(frozen=True)
class TrainedModel:
    """A fitted pipeline and what has to be known about it.

    feature_names: columns of the matrix, in order. trained_through: the latest label_available_at among the rows it
    learned from (UTC). rows, sessions: how many of them. metrics and baseline_metrics: those of the holdout, whose
    rows the measured pipeline had not seen; the kept pipeline has been fitted again on all rows. holdout: score and
    label of those rows. importances: of the measured pipeline. learned_from: the rows it learned from, the features
    in their order and `label`.
    """

    pipeline: Pipeline
    feature_names: tuple[str, ...]
    trained_through: datetime
    rows: int
    sessions: int
    metrics: Metrics
    baseline_metrics: dict[str, Metrics]
    holdout: pl.DataFrame
    importances: Importances
    learned_from: pl.DataFrame


def training_version(strategy: ModelStrategy) -> str:
    """A short text that is another one when the strategy declares another model, or other data to learn from."""
    learned = [strategy.interval, strategy.symbols, resolve_features(strategy.features), strategy.horizon]
    said = [strategy.model, *learned, strategy.min_train_sessions, strategy.embargo_sessions]
    return sha256(json.dumps(said).encode()).hexdigest()[:12]


def train(strategy: ModelStrategy, frame: pl.DataFrame, cut: datetime, sessions: pl.Series) -> TrainedModel:
    """The strategy's model as it could have been fitted at `cut`.

    frame: a design matrix with labels (`features.with_labels`). cut: aware UTC datetime, the start of the stretch the
    model will be used for. sessions: every session of the dataset. Two calls with the same rows give the same model.
    Raises `NotEnoughHistory`, or `SingleClass` if the labels of the whole or of the fitted part do not differ.
    """
    names = resolve_features(strategy.features)
    rows = training_rows(frame, cut, strategy.embargo_sessions, sessions, max(1, strategy.min_train_sessions))
    rows = rows.sort("open_time", "symbol")
    fit, validate = holdout(rows, strategy.embargo_sessions, sessions)
    validated = _fit(strategy, fit, names, f"the part of the training rows before the holdout (cut {cut:%Y-%m-%d})")
    scored = predict(validated, names, validate)
    baselines = evaluate_baselines(fit, validate)
    return TrainedModel(
        pipeline=_fit(strategy, rows, names, f"the training rows before {cut:%Y-%m-%d}"),
        feature_names=names,
        trained_through=rows["label_available_at"].max(),
        rows=len(rows),
        sessions=rows["session"].n_unique(),
        metrics=evaluate(scored),
        baseline_metrics=baselines,
        holdout=scored.select("score", "label"),
        importances=importances(validated, _matrix(validate, names), validate["label"].to_numpy(), names),
        learned_from=rows.select(*(pl.col(name).cast(pl.Float64) for name in names), "label"),
    )


def _fit(strategy: ModelStrategy, rows: pl.DataFrame, names: Sequence[str], what: str) -> Pipeline:
    if rows["label"].n_unique() < 2:
        found = f"only label {rows['label'][0]}" if len(rows) else "no label at all"
        raise SingleClass(
            f"strategy {strategy.name}: {what} ({len(rows)} rows) hold {found}, a model needs both ups and downs: "
            "more history or another horizon is needed"
        )
    return build_model(strategy.model).fit(_matrix(rows, names), rows["label"].to_numpy())


def _matrix(frame: pl.DataFrame, names: Sequence[str]):
    return frame.select(pl.col(name).cast(pl.Float64) for name in names).to_numpy(order="c")


def predict(pipeline: Pipeline, feature_names: Sequence[str], frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with `score` = P(up) in [0, 1] and `prediction` = 1 if the score is above 0.5, else 0.

    `frame` needs `feature_names` without nulls (`features.design_matrix`). An empty frame is fine.
    """
    if frame.is_empty():
        return with_prediction(frame.with_columns(pl.lit(None, pl.Float64).alias("score")))
    up = pipeline.classes_.tolist().index(1)
    scores = pipeline.predict_proba(_matrix(frame, feature_names))[:, up]
    return with_prediction(frame.with_columns(pl.Series("score", scores, pl.Float64)))


def predictions_table(
    strategy: ModelStrategy,
    pipeline: Pipeline,
    feature_names: Sequence[str],
    frame: pl.DataFrame,
    model_version: str,
    trained_through: datetime,
) -> pl.DataFrame:
    """Rows of ml.predictions (`schemas.ml`) for a design matrix, sorted by open_time and symbol.

    Raises `SeenInTraining` if a row was available no later than the outcomes the model learned from: such a prediction
    would be no prediction.
    """
    seen = frame.filter(pl.col("available_at") <= trained_through)
    if len(seen):
        raise SeenInTraining(
            f"strategy {strategy.name}: {len(seen)} rows up to {seen['available_at'].max()} are not after "
            f"{trained_through}, the end of what model version {model_version} learned from: use an earlier model"
        )
    return (
        predict(pipeline, feature_names, frame)
        .with_columns(
            pl.lit(strategy.name).alias("strategy"),
            pl.lit(str(model_version)).alias("model_version"),
            pl.lit(trained_through, TIME).alias("trained_through"),
        )
        .match_to_schema(PREDICTIONS.polars, extra_columns="ignore", integer_cast="upcast")
        .sort("open_time", "symbol")
    )
