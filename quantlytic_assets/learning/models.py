"""Which models a strategy may name, and the naive baselines every model is shown beside.

Only construction lives here: fitting is in `training`, scoring in `evaluation`. Names can be read without loading
scikit-learn, so that checking a universe file stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import Pipeline

MODEL_NAMES: tuple[str, ...] = ("logistic_regression", "gradient_boosting", "random_forest")
BASELINE_NAMES: tuple[str, ...] = ("majority", "persistence")

# One seed for all: two trainings on the same rows give the same model.
SEED = 20_150_102


def build_model(name: str) -> Pipeline:
    """A fresh, unfitted pipeline for one of `MODEL_NAMES`.

    Every pipeline takes a float matrix [rows, features] without nulls and has `predict_proba`. Construction is
    deterministic: fixed seed, one job. Settings lean towards heavy regularisation, because a day's return carries
    little signal. Raises `ValueError` for an unknown name.
    """
    from sklearn.pipeline import Pipeline

    return Pipeline(_steps(name))


def _steps(name: str) -> list[tuple[str, BaseEstimator]]:
    if name == "logistic_regression":
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        return [
            ("scale", StandardScaler()),
            ("model", LogisticRegression(C=0.1, max_iter=1000, random_state=SEED)),
        ]
    if name == "gradient_boosting":
        from sklearn.ensemble import HistGradientBoostingClassifier

        # Early stopping would cut its own random validation rows out of the series, neighbours of training rows.
        return [
            (
                "model",
                HistGradientBoostingClassifier(
                    learning_rate=0.05,
                    max_iter=80,
                    max_leaf_nodes=8,
                    min_samples_leaf=100,
                    l2_regularization=1.0,
                    early_stopping=False,
                    random_state=SEED,
                ),
            )
        ]
    if name == "random_forest":
        from sklearn.ensemble import RandomForestClassifier

        return [
            (
                "model",
                RandomForestClassifier(n_estimators=100, max_depth=4, min_samples_leaf=50, n_jobs=1, random_state=SEED),
            )
        ]
    raise ValueError(f"unknown model {name!r}: take one of {', '.join(MODEL_NAMES)}")


def majority_scores(fitted_on: pl.DataFrame, frame: pl.DataFrame) -> pl.DataFrame:
    """Baseline `majority`: every row of `frame` gets the share of ups among the labels of `fitted_on`.

    `fitted_on` needs `label` (0 or 1). Returns `frame` with `score` (Float64) and `prediction` (Int64).
    """
    import numpy as np
    from sklearn.dummy import DummyClassifier

    labels = fitted_on["label"].to_numpy()
    dummy = DummyClassifier(strategy="prior").fit(np.zeros((len(labels), 1)), labels)
    shares = dict(zip(dummy.classes_.tolist(), dummy.class_prior_.tolist(), strict=True))
    return with_prediction(frame.with_columns(pl.lit(shares.get(1, 0.0), pl.Float64).alias("score")))


def persistence_scores(frame: pl.DataFrame) -> pl.DataFrame:
    """Baseline `persistence`: the next move has the sign of the last return.

    `frame` needs `last_return`; a null or zero return counts as not up. Returns `frame` with `score` (1.0 or 0.0)
    and `prediction`.
    """
    up = (pl.col("last_return") > 0).fill_null(False)
    return with_prediction(frame.with_columns(up.cast(pl.Float64).alias("score")))


def with_prediction(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with `prediction`: 1 where `score` (P(up) in [0, 1]) is above one half, else 0."""
    return frame.with_columns((pl.col("score") > 0.5).cast(pl.Int64).alias("prediction"))
