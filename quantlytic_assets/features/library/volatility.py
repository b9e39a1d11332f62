"""Volatility: bands, ranges and deviations. Nothing is annualised."""

from __future__ import annotations

from quantlytic_assets.features.kernels import recursions, windows
from quantlytic_assets.features.kernels.chain import Chain
from quantlytic_assets.features.kernels.compiled import Recursive, Windowed
from quantlytic_assets.features.library.forms import (
    EMA_WARMUP,
    HLC,
    OHLC,
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
from quantlytic_assets.features.spec import FeatureSpec, Output, Parameter, Values


def _close_to_close(values: Values) -> Chain:
    returns = Windowed(windows.log_return, [1], 2)
    deviation = Recursive(recursions.deviation, [bars(values)], bars(values) + 7)
    return Chain(returns, deviation, 1, of=("log_ret", (1,)))


SPECS = (
    FeatureSpec(
        "bb", "volatility", ("close",),
        (*outputs("bb_middle", "bb_upper", "bb_lower"), Output("bb_width", "ratio", "fraction"),
         Output("bb_percent", "ratio", "fraction")),
        lambda v: Recursive(
            recursions.bollinger, [number(v, "window"), number(v, "deviations")], bars(v) + 7, 5,
        ),
        back(-1),
        "Mean of closes and bands at `deviations` population deviations; width is the distance of the bands over the "
        "mean, percent is 0 at the lower and 1 at the upper band", "Bollinger 2001", "price", "price",
        (Parameter("window", 20, 2), Parameter("deviations", 2.0, 0.01, "float")), naming="short",
    ),
    FeatureSpec(
        "keltner", "volatility", HLC, outputs("keltner_middle", "keltner_upper", "keltner_lower"),
        recursive(recursions.keltner, 4, "window", "multiple", "ranges", count=3),
        lambda v: (bars(v) - 1, *[max(bars(v) - 1, bars(v, "ranges"))] * 2),
        "EMA of closes, and bands at `multiple` ATR over `ranges` bars", "Chester Keltner 1960, as revised by Raschke",
        "price", "price",
        (Parameter("window", 20, 2), Parameter("multiple", 2.0, 0.01, "float"), Parameter("ranges", 10, 1)),
        lambda v: max(EMA_WARMUP * bars(v), WILDER_WARMUP * bars(v, "ranges")), naming="short",
    ),
    FeatureSpec(
        "donchian", "volatility", ("high", "low"), outputs("donchian_upper", "donchian_lower"),
        windowed(windows.donchian, count=2), back(-1),
        "Highest high and lowest low of the window, the current bar included", "Donchian 1960", "price", "price",
        window(20),
    ),
    FeatureSpec(
        "atr", "volatility", HLC, outputs("atr"), talib("ATR", timeperiod="window"), back(0),
        "Wilder's average of true ranges, seeded with the mean of the first ones that have a close before them",
        f"Wilder 1978; {TALIB}", "price", "price_difference", window(14, 2), times(WILDER_WARMUP),
    ),
    FeatureSpec(
        "natr", "volatility", HLC, outputs("natr"), talib("NATR", timeperiod="window"), back(0),
        "ATR over the close in percent", f"Forman 2006; {TALIB}", "percent", "ratio", window(14, 2),
        times(WILDER_WARMUP),
    ),
    FeatureSpec(
        "vol", "volatility", ("close",), outputs("vol"), _close_to_close, back(0),
        "Sample deviation of log returns from close to close", "definition", "fraction per bar", "ratio",
        window(20, 2),
    ),
    FeatureSpec(
        "vol_parkinson", "volatility", ("high", "low"), outputs("vol_parkinson"),
        windowed(windows.parkinson), back(-1),
        "Root of the mean of ln(high / low)² over 4 ln 2", "Parkinson 1980", "fraction per bar", "ratio", window(20, 2),
    ),
    FeatureSpec(
        "vol_garman_klass", "volatility", OHLC, outputs("vol_garman_klass"),
        windowed(windows.garman_klass), back(-1),
        "Root of the mean of ln(high / low)² / 2 - (2 ln 2 - 1) ln(close / open)²", "Garman and Klass 1980",
        "fraction per bar", "ratio", window(20, 2),
    ),
    FeatureSpec(
        "vol_yang_zhang", "volatility", OHLC, outputs("vol_yang_zhang"),
        windowed(windows.yang_zhang, 1), back(0),
        "Root of the variance from close to open, plus k times that from open to close, plus 1 - k times the mean of "
        "Rogers and Satchell's range; k = 0.34 / (1.34 + (window + 1) / (window - 1))", "Yang and Zhang 2000",
        "fraction per bar", "ratio", window(20, 2),
    ),
)  # fmt: skip
