"""Features of two symbols, and of all symbols at one time.

The close of another symbol is a column `close:SPY` or `close:yields_1d:^TNX` of the bars, joined by when it was
available, on a scale without splits; `age:SPY` says for how many minutes it had been. References name the symbol, with
its dataset where that is another one.
"""

from __future__ import annotations

from quantlytic_assets.features.kernels import statistics
from quantlytic_assets.features.kernels.compiled import Windowed
from quantlytic_assets.features.kernels.cross_section import CrossSection
from quantlytic_assets.features.library.forms import back, bars, outputs, single
from quantlytic_assets.features.spec import FeatureSpec, Parameter, Values

PAIR = (Parameter("left", kind="reference"), Parameter("right", kind="reference"))
OF_RETURNS = (Parameter("window", 60, 2), Parameter("symbol", kind="reference"))
COLUMN = (Parameter("column", kind="reference"),)


def _pair(values: Values) -> tuple[str, ...]:
    return f"close:{values['left']}", f"close:{values['right']}"


def _with_other(values: Values) -> tuple[str, ...]:
    return "close", f"close:{values['symbol']}"


def _age(values: Values) -> tuple[str, ...]:
    return (f"age:{values['symbol']}",)


def _column(values: Values) -> tuple[str, ...]:
    return (str(values["column"]),)


def _beta(output: int):
    return lambda values: Windowed(statistics.beta, [bars(values), output], bars(values) + 1)


SPECS = (
    FeatureSpec(
        "beta", "cross_asset", (), outputs("beta"), _beta(0), back(0),
        "Covariance of log returns with those of another symbol, over the variance of these", "Sharpe 1964", "ratio",
        "ratio", OF_RETURNS, inputs_of=_with_other, kind="pair",
    ),
    FeatureSpec(
        "corr", "cross_asset", (), outputs("corr"), _beta(1), back(0),
        "Correlation of log returns with those of another symbol", "Pearson 1895", "ratio", "ratio", OF_RETURNS,
        inputs_of=_with_other, kind="pair",
    ),
    FeatureSpec(
        "spread", "cross_asset", (), outputs("spread"), single(statistics.spread), lambda _: (0,),
        "Close of the first symbol less that of the second", "definition", "price of the two", "ratio", PAIR,
        inputs_of=_pair, kind="pair",
    ),
    FeatureSpec(
        "ratio", "cross_asset", (), outputs("ratio"), single(statistics.ratio), lambda _: (0,),
        "Close of the first symbol over that of the second", "definition", "ratio", "ratio", PAIR, inputs_of=_pair,
        kind="pair",
    ),
    FeatureSpec(
        "staleness", "cross_asset", (), outputs("staleness"), single(statistics.itself), lambda _: (0,),
        "For how long another symbol's last close had been available when the bar was", "definition", "minutes",
        "ratio", (Parameter("symbol", kind="reference"),), inputs_of=_age, kind="pair",
    ),
    FeatureSpec(
        "rank", "cross_asset", (), outputs("rank"), lambda _: CrossSection("rank"), lambda _: (0,),
        "Rank of a column among all symbols of one time over their number; equal values share their mean rank",
        "definition", "fraction", "ratio", COLUMN, inputs_of=_column, kind="cross_section",
    ),
    FeatureSpec(
        "zscore", "cross_asset", (), outputs("zscore"), lambda _: CrossSection("zscore"), lambda _: (0,),
        "A column less its mean over all symbols of one time, in sample deviations", "definition", "deviations",
        "ratio", COLUMN, inputs_of=_column, kind="cross_section",
    ),
)  # fmt: skip
