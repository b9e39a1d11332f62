"""Statistics of log returns and prices over a window, and the time of a bar. Nothing is annualised."""

from __future__ import annotations

from quantlytic_assets.features.kernels import statistics
from quantlytic_assets.features.library.forms import back, outputs, single, window, windowed
from quantlytic_assets.features.spec import FeatureSpec

DAY = 86_400.0
# The Unix epoch was a Thursday: Monday is four days later.
MONDAY = 4 * DAY

SPECS = (
    FeatureSpec(
        "sharpe", "statistics", ("close",), outputs("sharpe"), windowed(statistics.sharpe, 1), back(0),
        "Mean of log returns over their sample deviation", "Sharpe 1966", "ratio per bar", "ratio", window(60, 2),
    ),
    FeatureSpec(
        "sortino", "statistics", ("close",), outputs("sortino"), windowed(statistics.sortino, 1), back(0),
        "Mean of log returns over the root of the mean square of those below zero, counted over all bars",
        "Sortino and Price 1994", "ratio per bar", "ratio", window(60, 2),
    ),
    FeatureSpec(
        "drawdown", "statistics", ("close",), outputs("drawdown"), windowed(statistics.drawdown), back(-1),
        "Close over the highest close of the window, less one", "definition", "fraction", "ratio", window(60, 2),
    ),
    FeatureSpec(
        "max_drawdown", "statistics", ("close",), outputs("max_drawdown"),
        windowed(statistics.max_drawdown, -1, factor=2), lambda values: (2 * int(values["window"]) - 2,),
        "The lowest of the window's drawdowns, each against the highest close of the window before it", "definition",
        "fraction", "ratio", window(60, 2),
    ),
    FeatureSpec(
        "skew", "statistics", ("close",), outputs("skew"), windowed(statistics.skew, 1), back(0),
        "Adjusted Fisher-Pearson skewness of log returns", "Joanes and Gill 1998, G1", "number", "ratio", window(60, 3),
    ),
    FeatureSpec(
        "kurtosis", "statistics", ("close",), outputs("kurtosis"), windowed(statistics.kurtosis, 1), back(0),
        "Excess kurtosis of log returns, adjusted for the size of the sample", "Joanes and Gill 1998, G2", "number",
        "ratio", window(60, 4),
    ),
    FeatureSpec(
        "time_of_day", "statistics", ("time",), outputs("time_of_day"), single(statistics.phase, [DAY, 0.0]),
        lambda _: (0,), "When the bar opens within the UTC day, from 0 to 1", "definition", "fraction of a day",
    ),
    FeatureSpec(
        "time_of_week", "statistics", ("time",), outputs("time_of_week"),
        single(statistics.phase, [7 * DAY, MONDAY]), lambda _: (0,),
        "When the bar opens within the UTC week, from 0 on Monday to 1", "definition", "fraction of a week",
    ),
)  # fmt: skip
