"""Momentum: returns, oscillators and money flow."""

from __future__ import annotations

from quantlytic_assets.features.kernels import recursions, windows
from quantlytic_assets.features.kernels.chain import Chain
from quantlytic_assets.features.kernels.compiled import Recursive, Windowed
from quantlytic_assets.features.library.forms import (
    HLC,
    HLCV,
    TALIB,
    WILDER_WARMUP,
    back,
    bars,
    number,
    outputs,
    recursive,
    talib,
    times,
    window,
    windowed,
)  # fmt: skip
from quantlytic_assets.features.spec import FeatureSpec, Parameter, Values


def _stochastic(values: Values) -> Windowed:
    numbers = [number(values, name) for name in ("window", "smooth", "signal")]
    return Windowed(windows.stochastic, numbers, int(sum(numbers)) - 2, 2)


def _stochastic_of_rsi(values: Values) -> Chain:
    rsi = Recursive(recursions.rsi, [number(values, "rsi")], 5)
    return Chain(rsi, _stochastic(values), bars(values, "rsi"), of=("rsi", (bars(values, "rsi"),)))


def _stochastic_lookbacks(values: Values) -> tuple[int, ...]:
    first = bars(values, "window") + bars(values, "smooth") - 2
    return first, first + bars(values, "signal") - 1


SPECS = (
    FeatureSpec(
        "ret", "momentum", ("close",), outputs("ret"), windowed(windows.simple_return, 1), back(0),
        "Close over the close `window` bars ago, less one", "definition", "fraction", "ratio", window(1),
    ),
    FeatureSpec(
        "log_ret", "momentum", ("close",), outputs("log_ret"), windowed(windows.log_return, 1), back(0),
        "Natural logarithm of close over the close `window` bars ago", "definition", "fraction", "ratio", window(1),
    ),
    FeatureSpec(
        "cum_log_ret", "momentum", ("close",), outputs("cum_log_ret"),
        recursive(recursions.cumulative_log_return, 3), lambda _: (0,),
        "Sum of the log returns since the first bar", "definition", "fraction", "ratio", cumulative=True,
        warmups=lambda _: 1,
    ),
    FeatureSpec(
        "roc", "momentum", ("close",), outputs("roc"), talib("ROC", timeperiod="window"), back(0),
        "Change of the close over `window` bars in percent", TALIB, "percent", "ratio", window(10),
    ),
    FeatureSpec(
        "mom", "momentum", ("close",), outputs("mom"), talib("MOM", timeperiod="window"), back(0),
        "Close less the close `window` bars ago", TALIB, "price", "price_difference", window(10),
    ),
    FeatureSpec(
        "rsi", "momentum", ("close",), outputs("rsi"), recursive(recursions.rsi, 5, "window"), back(0),
        "Average gain over average gain and loss, by Wilder, seeded with plain averages of the first changes; 50 where "
        "the price has never moved", "Wilder 1978", "percent", "ratio", window(14, 2), times(WILDER_WARMUP),
    ),
    FeatureSpec(
        "stoch", "momentum", HLC, outputs("stoch_k", "stoch_d"), _stochastic, _stochastic_lookbacks,
        "%K: where the close is between lowest low and highest high of the window, smoothed by a mean; %D: its mean",
        "Lane 1984", "percent", "ratio",
        (Parameter("window", 14), Parameter("smooth", 3), Parameter("signal", 3)), naming="short",
    ),
    FeatureSpec(
        "stochrsi", "momentum", ("close",), outputs("stochrsi_k", "stochrsi_d"), _stochastic_of_rsi,
        lambda values: tuple(bars(values, "rsi") + one for one in _stochastic_lookbacks(values)),
        "The stochastic of the RSI: where it is between its lowest and highest of the window, smoothed by a mean",
        "Chande and Kroll 1994", "percent", "ratio",
        (Parameter("rsi", 14, 2), Parameter("window", 14), Parameter("smooth", 3), Parameter("signal", 3)),
        # The stochastic divides by the range of the RSI, which may be far smaller than the RSI.
        lambda values: 32 * bars(values, "rsi") + sum(bars(values, one) for one in ("window", "smooth", "signal")),
        naming="short",
    ),
    FeatureSpec(
        "willr", "momentum", HLC, outputs("willr"), talib("WILLR", timeperiod="window"), back(-1),
        "Where the close is below the highest high, relative to the range of the window: 0 to -100",
        f"Williams 1973; {TALIB}", "percent", "ratio", window(14, 2),
    ),
    FeatureSpec(
        "cci", "momentum", HLC, outputs("cci"), talib("CCI", timeperiod="window"), back(-1),
        "Typical price less its mean, over 0.015 mean absolute deviations", f"Lambert 1980; {TALIB}", "index", "ratio",
        window(20, 2),
    ),
    FeatureSpec(
        "mfi", "momentum", HLCV, outputs("mfi"), talib("MFI", timeperiod="window"), back(0),
        "Money flow of bars whose typical price rose, over all money flow of the window", f"Quong 1989; {TALIB}",
        "percent", "ratio", window(14, 2),
    ),
    FeatureSpec(
        "ultosc", "momentum", HLC, outputs("ultosc"),
        talib("ULTOSC", timeperiod1="short", timeperiod2="middle", timeperiod3="long"),
        lambda v: (max(bars(v, one) for one in ("short", "middle", "long")),),
        "Buying pressure over true range, over three windows, weighted 4 to 2 to 1", f"Williams 1985; {TALIB}",
        "percent", "ratio", (Parameter("short", 7), Parameter("middle", 14), Parameter("long", 28)), naming="short",
    ),
)  # fmt: skip
