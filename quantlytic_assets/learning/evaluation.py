"""How good scores were, measured the same way for a model and for the baselines.

Takes rows that already carry a score and an outcome; who made the score does not matter here. Money is the business of
`trading.backtest.figures`.
"""

from __future__ import annotations

import math

import polars as pl

from quantlytic_assets.learning.models import majority_scores, persistence_scores

METRIC_NAMES: tuple[str, ...] = ("accuracy", "precision", "recall", "ic")
CROSS_SECTION_SYMBOLS = 3

Metrics = dict[str, float | None]

# What judging predictions needs of ml.predictions.
PREDICTION_COLUMNS = ("symbol", "session", "open_time", "score", "prediction")


def evaluate(scored: pl.DataFrame) -> Metrics:
    """Accuracy, precision and recall of `prediction` against `label`, and the information coefficient of `score`.

    scored: symbol, session, open_time, score (P(up)), prediction (0/1), label (0/1), forward_return. Precision and
    recall are those of the class up, 0 where nothing was predicted (or was) up. A figure that is not defined is None:
    all of them without rows, `ic` for constant scores. See `information_coefficient` for which of its two forms is
    used.
    """
    from sklearn.metrics import accuracy_score, precision_score, recall_score

    if scored.is_empty():
        return dict.fromkeys(METRIC_NAMES)
    truth, guess = scored["label"].to_numpy(), scored["prediction"].to_numpy()
    return {
        "accuracy": float(accuracy_score(truth, guess)),
        "precision": float(precision_score(truth, guess, zero_division=0)),
        "recall": float(recall_score(truth, guess, zero_division=0)),
        "ic": information_coefficient(scored),
    }


def information_coefficient(scored: pl.DataFrame) -> float | None:
    """Spearman rank correlation of `score` with `forward_return`, in [-1, 1].

    With three symbols or more it is cross-sectional: the correlation over the symbols of one bar time (three or more
    of them present), averaged within each session and then over sessions. With fewer symbols it is the pooled
    correlation over the time series. None where it is not defined.
    """
    if scored["symbol"].n_unique() < CROSS_SECTION_SYMBOLS:
        return _pooled(scored)
    ranked = scored.with_columns(pl.col("score", "forward_return").rank("average").over("open_time"))
    # Sorted, because sums of floats depend on their order and a figure should come out the same twice.
    by_bar = (
        ranked.sort("open_time", "symbol")
        .group_by("session", "open_time", maintain_order=True)
        .agg(pl.corr("score", "forward_return").alias("ic"), pl.len().alias("symbols"))
    )
    usable = by_bar.filter((pl.col("symbols") >= CROSS_SECTION_SYMBOLS) & pl.col("ic").is_finite())
    if usable.is_empty():
        return None
    return float(usable.group_by("session", maintain_order=True).agg(pl.col("ic").mean())["ic"].mean())


def _pooled(scored: pl.DataFrame) -> float | None:
    from scipy.stats import spearmanr

    if len(scored) < 2 or scored["score"].n_unique() < 2 or scored["forward_return"].n_unique() < 2:
        return None
    value = float(spearmanr(scored["score"].to_numpy(), scored["forward_return"].to_numpy()).statistic)
    return value if math.isfinite(value) else None


def evaluate_baselines(fitted_on: pl.DataFrame, frame: pl.DataFrame) -> dict[str, Metrics]:
    """`evaluate` of the naive baselines on `frame`: {"majority": …, "persistence": …}.

    `fitted_on` gives the majority its share of ups (`label`); `frame` needs `last_return` and the outcome columns.
    """
    return {
        "majority": evaluate(majority_scores(fitted_on, frame)),
        "persistence": evaluate(persistence_scores(frame)),
    }


def evaluate_predictions(
    predictions: pl.DataFrame, labels: pl.DataFrame, indicators: pl.DataFrame
) -> tuple[Metrics, dict[str, Metrics], int]:
    """How stored predictions turned out: (metrics, {"persistence": metrics}, rows that have an outcome).

    predictions: PREDICTION_COLUMNS of one strategy. labels: symbol, open_time, label, forward_return of
    the strategy's dataset, interval and horizon. indicators: symbol, open_time, ret_1. These rows are out of sample,
    so this is the honest figure; what training reports is its holdout's.
    """
    keys = ["symbol", "open_time"]
    outcome = labels.select(*keys, "label", "forward_return").drop_nulls()
    last = indicators.select(*keys, pl.col("ret_1").alias("last_return"))
    rows = predictions.join(outcome, on=keys, how="inner").join(last, on=keys, how="left")
    return evaluate(rows), {"persistence": evaluate(persistence_scores(rows))}, len(rows)
