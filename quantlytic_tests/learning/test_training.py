from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from quantlytic_assets.learning.evaluation import evaluate, evaluate_predictions, information_coefficient
from quantlytic_assets.learning.features import design_matrix, with_labels
from quantlytic_assets.learning.models import MODEL_NAMES
from quantlytic_assets.learning.splits import NotEnoughHistory
from quantlytic_assets.learning.training import (
    SeenInTraining,
    SingleClass,
    predict,
    predictions_table,
    train,
)
from quantlytic_assets.schemas.ml import PREDICTIONS
from quantlytic_tests.learning.frames import indicators, labels, strategy, weekdays

CUT = datetime(2015, 1, 1, tzinfo=UTC)


def data(horizon: int = 1):
    rows = indicators()
    design = design_matrix(rows, strategy().features)
    return rows, design, with_labels(design, labels(rows, horizon))


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_a_model_finds_the_lean_that_is_in_the_data(name):
    _, _, frame = data()
    trained = train(strategy(model=name), frame, CUT, weekdays(400))
    assert trained.metrics["accuracy"] > 0.55
    assert trained.metrics["accuracy"] > trained.baseline_metrics["majority"]["accuracy"]
    assert set(trained.baseline_metrics) == {"majority", "persistence"}
    assert trained.trained_through < CUT
    assert trained.rows == trained.sessions * 4
    assert trained.feature_names == ("ret_1", "sma_20", "rsi_14")


def test_what_happens_after_the_cut_does_not_change_the_model():
    rows, _, frame = data()
    later = pl.col("available_at") >= CUT
    spoilt = frame.with_columns(
        pl.when(pl.col("label_available_at") >= CUT).then(1 - pl.col("label")).otherwise("label").alias("label"),
        pl.when(later).then(99.0).otherwise("ret_1").alias("ret_1"),
    )
    for name in MODEL_NAMES:
        honest, other = (train(strategy(model=name), f, CUT, weekdays(400)) for f in (frame, spoilt))
        probe = frame.filter(~later).head(200)
        names = honest.feature_names
        assert predict(honest.pipeline, names, probe).equals(predict(other.pipeline, names, probe))
        assert honest.metrics == other.metrics


def test_row_order_does_not_change_the_model():
    _, _, frame = data()
    mixed = frame.sample(fraction=1.0, shuffle=True, seed=3)
    first, second = (train(strategy(model="random_forest"), f, CUT, weekdays(400)) for f in (frame, mixed))
    names = first.feature_names
    assert predict(first.pipeline, names, frame).equals(predict(second.pipeline, names, frame))


def test_too_little_history_and_one_sided_labels_have_clear_errors():
    _, _, frame = data()
    with pytest.raises(NotEnoughHistory, match="504 are needed"):
        train(strategy(min_train_sessions=504), frame, CUT, weekdays(400))
    rising = frame.with_columns(pl.lit(1).alias("label"))
    with pytest.raises(SingleClass, match="momentum_1d.*only label 1"):
        train(strategy(), rising, CUT, weekdays(400))
    few = frame.filter(pl.col("session") < frame["session"][0].replace(day=6))
    with pytest.raises(SingleClass, match="no label at all"):
        train(strategy(min_train_sessions=1), few, CUT, weekdays(400))


def test_predictions_are_probabilities_of_up_in_the_contract_columns():
    _, design, frame = data()
    trained = train(strategy(), frame, CUT, weekdays(400))
    ahead = design.frame.filter(pl.col("available_at") > CUT)
    table = predictions_table(strategy(), trained.pipeline, trained.feature_names, ahead, "7", trained.trained_through)
    assert table.schema == PREDICTIONS.polars
    assert len(table) == len(ahead)
    assert table["score"].is_between(0, 1).all()
    assert ((table["score"] > 0.5) == (table["prediction"] == 1)).all()
    assert table["model_version"].unique().to_list() == ["7"]
    # The last return leads the next one in this data, so P(up) must rise with it.
    rising = ahead.join(table, on=["symbol", "open_time"]).select(pl.corr("ret_1", "score")).item()
    assert rising > 0.5
    through = trained.trained_through
    empty = predictions_table(strategy(), trained.pipeline, trained.feature_names, ahead.clear(), "7", through)
    assert empty.is_empty() and empty.schema == PREDICTIONS.polars


def test_a_model_refuses_rows_it_may_have_learned_from():
    _, design, frame = data()
    trained = train(strategy(), frame, CUT, weekdays(400))
    with pytest.raises(SeenInTraining, match="version 7"):
        predictions_table(
            strategy(), trained.pipeline, trained.feature_names, design.frame, "7", trained.trained_through
        )


def scored(scores, returns, symbols, sessions):
    frame = pl.DataFrame({"symbol": symbols, "session": sessions, "score": scores, "forward_return": returns})
    return frame.with_columns(
        pl.col("session").alias("open_time"),
        (pl.col("score") > 0.5).cast(pl.Int64).alias("prediction"),
        (pl.col("forward_return") > 0).cast(pl.Int64).alias("label"),
    )


def test_figures_of_a_small_example_by_hand():
    frame = scored([0.9, 0.8, 0.2, 0.1, 0.7], [0.1, -0.1, 0.2, -0.2, 0.3], ["A"] * 5, [1, 2, 3, 4, 5])
    figures = evaluate(frame)
    # Predicted up: 3, of them up: 2. Up: 3, of them predicted: 2. Right: rows 1, 4 and 5.
    assert figures["accuracy"] == pytest.approx(3 / 5)
    assert figures["precision"] == figures["recall"] == pytest.approx(2 / 3)
    # Ranks 5 4 2 1 3 against 3 2 4 1 5: squared differences 4 4 4 0 4, 1 - 6 * 16 / (5 * 24).
    assert figures["ic"] == pytest.approx(0.2)


def test_with_three_symbols_the_ic_is_the_mean_over_sessions():
    random = np.random.default_rng(5)
    scores, returns = random.random(40), random.normal(size=40)
    frame = scored(scores, returns, ["A", "B", "C", "D"] * 10, np.repeat(np.arange(10), 4))
    by_session = [spearmanr(scores[i : i + 4], returns[i : i + 4]).statistic for i in range(0, 40, 4)]
    assert information_coefficient(frame) == pytest.approx(np.mean(by_session))


def test_undefined_figures_are_none():
    assert evaluate(scored([], [], [], []).cast({"score": pl.Float64})) == dict.fromkeys(
        ("accuracy", "precision", "recall", "ic")
    )
    constant = scored([0.6] * 6, [0.1, -0.1, 0.2] * 2, ["A", "B", "C"] * 2, [1, 1, 1, 2, 2, 2])
    assert evaluate(constant)["ic"] is None
    assert evaluate(constant.filter(pl.col("symbol") == "A"))["ic"] is None


def test_stored_predictions_are_judged_by_what_came_of_them():
    rows, design, frame = data()
    trained = train(strategy(), frame, CUT, weekdays(400))
    ahead = design.frame.filter(pl.col("available_at") > CUT)
    table = predictions_table(strategy(), trained.pipeline, trained.feature_names, ahead, "1", trained.trained_through)
    metrics, baselines, count = evaluate_predictions(table, labels(rows), rows)
    assert count == len(ahead) - 4
    assert metrics["accuracy"] > 0.6 and baselines["persistence"]["accuracy"] > 0.6
    assert metrics["ic"] > 0.2
