"""One chart of a trained model: calibration and ROC curve of held-out rows, and what it goes by."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from quantlytic_assets.charts.figures import BLUE, GREY, RED, legend, new_figure, tidy, title, to_png

_BINS = 10
_MOST_FEATURES = 15


def evaluation(scored: pl.DataFrame, importances: Mapping[str, float], kind: str, what: str) -> bytes:
    """Three panels. scored: score (P(up)) and label (0 or 1) of rows that the model was not fitted on.

    Calibration: mean score against the share of ups, in tenths of the rows by score. importances: see
    `learning.importance`; the largest 15 by size are drawn.
    """
    figure = new_figure(13, 4.2)
    reliability, roc, bars = figure.subplots(1, 3, width_ratios=[1, 1, 1.1])
    _calibration(reliability, scored, what)
    _roc(roc, scored)
    shown = sorted(importances.items(), key=lambda item: abs(item[1]), reverse=True)[:_MOST_FEATURES][::-1]
    values = [value for _, value in shown]
    bars.barh([name for name, _ in shown], values, color=[BLUE if value >= 0 else RED for value in values])
    bars.axvline(0, color=GREY, linewidth=0.7)
    tidy(bars, "", grid=False)
    said = {"coefficient": "coefficient (standardised)", "permutation": "log loss added by shuffling"}
    bars.set_xlabel(said.get(kind, kind), fontsize=9)
    title(bars, "importances")
    return to_png(figure)


def _calibration(axes, scored: pl.DataFrame, what: str) -> None:
    tenths = (
        scored.sort("score")
        .with_columns((pl.int_range(pl.len()) * _BINS // pl.len()).alias("bin"))
        .group_by("bin", maintain_order=True)
        .agg(pl.col("score").mean(), pl.col("label").mean())
    )
    low = min([0.4, *tenths["score"], *tenths["label"]]) - 0.02
    high = max([0.6, *tenths["score"], *tenths["label"]]) + 0.02
    axes.plot([low, high], [low, high], color=GREY, linewidth=0.8, linestyle="--", label="perfect")
    axes.plot(tenths["score"], tenths["label"], color=BLUE, linewidth=1.2, marker="o", markersize=4, label="held out")
    tidy(axes, "share of ups")
    axes.set_xlabel("mean score, in tenths of the rows", fontsize=9)
    legend(axes, ncols=1)
    title(axes, f"{what}: calibration, {len(scored):,} rows")


def _roc(axes, scored: pl.DataFrame) -> None:
    from sklearn.metrics import roc_auc_score, roc_curve

    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--", label="no skill")
    text = "ROC: one class only"
    if scored["label"].n_unique() == 2:
        truth, scores = scored["label"].to_numpy(), scored["score"].to_numpy()
        false_positive, true_positive, _ = roc_curve(truth, scores)
        axes.plot(false_positive, true_positive, color=BLUE, linewidth=1.2, label="held out")
        text = f"ROC, area {roc_auc_score(truth, scores):.3f}"
    tidy(axes, "true positive rate")
    axes.set_xlabel("false positive rate", fontsize=9)
    legend(axes, ncols=1)
    title(axes, text)
