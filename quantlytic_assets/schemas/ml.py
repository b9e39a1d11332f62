"""The tables of `ml`: what models predict."""

from __future__ import annotations

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.schemas.columns import OPEN_TIME, SESSION, STRATEGY, SYMBOL
from quantlytic_assets.schemas.table import Column, Rule, Table, described

PREDICTIONS = Table(
    "ml.predictions",
    writer="predictions",
    description="One prediction per strategy, symbol and bar, by a model that has not seen the bar's session.",
    columns=(
        STRATEGY,
        SYMBOL,
        described(SESSION, "Trading day of the bar predicted from."),
        described(OPEN_TIME, "Start of the bar predicted from, UTC."),
        Column("available_at", TIME, "Earliest time, UTC, at which a decision could use the prediction."),
        Column(
            "score",
            pl.Float64,
            "Probability of a rise over the strategy's horizon.",
            unit="probability",
            at_least=0,
            at_most=1,
        ),
        Column("prediction", pl.Int64, "1 where a rise is the more probable outcome, else 0.", at_least=0, at_most=1),
        Column("model_version", pl.String, "Version of the strategy's registered model in MLflow."),
        Column("trained_through", TIME, "When the last outcome that the model learned from was known, UTC."),
    ),
    key=("strategy", "symbol", "open_time"),
    rules=(
        Rule(
            "trained_before",
            "the model learned from nothing known at the decision or later",
            "trained_through < available_at",
        ),
        Rule("available_after_open", "available_at is after open_time", "available_at > open_time"),
    ),
)

# In MLflow's registry, not in the lake.
MODELS = Table(
    "mlflow.models",
    writer="model",
    description="The model in force of each walk-forward step: the newest version registered for it.",
    columns=(
        Column("step", pl.String, "Key of the step's partition: the first day that the model may predict."),
        Column("cut", TIME, "Start of that day, UTC: nothing known later was learned from."),
        Column("model_version", pl.String, "Version of the strategy's registered model."),
        Column("trained_through", TIME, "When the last outcome that the model learned from was known, UTC."),
        Column("training_rows", pl.Int64, "Rows learned from.", above=0),
        Column("training_sessions", pl.Int64, "Sessions learned from.", above=0),
    ),
    key=("step",),
    rules=(Rule("trained_before", "the model learned from nothing known after the cut", "trained_through <= cut"),),
)

TABLES = (PREDICTIONS,)
