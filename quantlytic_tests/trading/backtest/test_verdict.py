"""The verdict: sentences that the figures carry, and none that they do not."""

from __future__ import annotations

import numpy as np
import pytest

from quantlytic_assets.trading.backtest.verdict import verdict

OWN = {"total_return": 0.3, "sharpe": 0.8, "round_trips": 12.0, "deflated_sharpe": 0.91, "trials": 5.0}
HELD = {"total_return": 0.5, "sharpe": 1.1}


def test_each_figure_has_its_sentence():
    said = verdict(OWN, HELD, np.array([0.1, 0.2, 0.35, 0.4]), {"accuracy": 0.52, "always_up_accuracy": 0.53})
    assert said == [
        "It made 30.0%; buying the same symbols and holding them made 50.0%, so it did worse by 20.0%.",
        "For its fluctuation it earned less than holding, 0.80 against 1.10 (Sharpe ratio of a year).",
        "50% of its own targets at random other times made as much or more: the timing may be luck.",
        "That its Sharpe ratio is above zero, for the 5 trials on record, has a probability of 91.0%.",
        "Of its forecasts 52.0% were right; the best naive one was right in 53.0%, so the model adds nothing to it.",
    ]


@pytest.mark.parametrize(
    ("own", "random", "forecasts", "expected"),
    [
        ({"total_return": 0.6}, [], {}, "so it did better by 10.0%."),
        ({}, [0.1] * 99 + [0.4], {}, "1% of its own targets at random other times made as much or more: the timing is"),
        ({"trials": 1.0}, [], {}, "for this trial alone, has a probability of 91.0%."),
        ({"round_trips": 0.0}, [], {}, "It closed no position: figures of trades say nothing."),
        ({}, [], {"accuracy": 0.55, "persistence_accuracy": 0.5}, "the best naive one was right in 50.0%."),
    ],
)
def test_what_the_figures_say_otherwise(own, random, forecasts, expected):
    assert expected in " ".join(verdict(OWN | own, HELD, np.array(random), forecasts))


def test_what_is_not_defined_is_not_said():
    nothing = {"total_return": None, "sharpe": None, "round_trips": 3.0, "deflated_sharpe": None}
    (only,) = verdict(nothing, HELD, np.empty(0), {})
    assert only.startswith("It made 0.0%;")
