import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from quantlytic_assets.learning.models import MODEL_NAMES, build_model, majority_scores, persistence_scores


def test_model_names_can_be_read_without_loading_scikit_learn():
    code = (
        "import sys; from quantlytic_assets.learning.models import MODEL_NAMES; assert MODEL_NAMES; "
        "from quantlytic_assets.learning.features import core_columns; assert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_two_fits_on_the_same_rows_give_the_same_probabilities(name):
    random = np.random.default_rng(1)
    rows = random.normal(size=(600, 4))
    truth = (rows[:, 0] + random.normal(size=600) > 0).astype(int)
    first, second = (build_model(name).fit(rows, truth).predict_proba(rows) for _ in range(2))
    assert np.array_equal(first, second)
    assert ((first[:, 1] > 0.5) == truth).mean() > 0.6


def test_threads_that_wait_for_one_another_let_others_have_the_processor():
    code = "from quantlytic_assets.learning.models import build_model; build_model('gradient_boosting')"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    # OpenMP says what it goes by as it is loaded.
    environment["OMP_DISPLAY_ENV"] = "verbose"
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert "GOMP_SPINCOUNT = '10000'" in done.stderr


def test_an_unknown_model_is_named_with_what_there_is():
    with pytest.raises(ValueError, match="unknown model 'linear'.*logistic_regression"):
        build_model("linear")


def test_majority_gives_the_training_share_of_ups():
    scored = majority_scores(pl.DataFrame({"label": [1, 1, 0, 1]}), pl.DataFrame({"x": [1, 2]}))
    assert scored["score"].to_list() == [0.75, 0.75]
    assert scored["prediction"].to_list() == [1, 1]
    never_up = majority_scores(pl.DataFrame({"label": [0, 0]}), pl.DataFrame({"x": [1]}))
    assert never_up["score"].to_list() == [0.0]


def test_persistence_goes_on_as_before_and_a_missing_return_is_not_up():
    scored = persistence_scores(pl.DataFrame({"last_return": [0.01, -0.01, 0.0, None]}))
    assert scored["prediction"].to_list() == [1, 0, 0, 0]
