"""Trend: averages of prices, and what follows a trend."""

from __future__ import annotations

from quantlytic_assets.features.kernels import recursions, windows
from quantlytic_assets.features.kernels.compiled import Windowed
from quantlytic_assets.features.kernels.talib_kernel import Talib
from quantlytic_assets.features.library.forms import (
    ADX_WARMUP,
    EMA_WARMUP,
    HLC,
    TALIB,
    back,
    bars,
    number,
    outputs,
    recursive,
    talib,
    times,
    window,
)  # fmt: skip
from quantlytic_assets.features.spec import FeatureSpec, Output, Parameter

PRICE = "price"


def _hma_lookback(values):
    return (bars(values) - 1 + int(bars(values) ** 0.5) - 1,)


SPECS = (
    FeatureSpec(
        "sma", "trend", ("close",), outputs("sma"), talib("SMA", timeperiod="window"), back(-1),
        "Mean of the last closes", TALIB, PRICE, "price", window(20, 2),
    ),
    FeatureSpec(
        "ema", "trend", ("close",), outputs("ema"), talib("EMA", timeperiod="window"), back(-1),
        "Exponential average of closes with weight 2 / (window + 1), seeded with the mean of the first window",
        TALIB, PRICE, "price", window(20, 2), times(EMA_WARMUP),
    ),
    FeatureSpec(
        "wma", "trend", ("close",), outputs("wma"), talib("WMA", timeperiod="window"), back(-1),
        "Mean of the last closes with weights 1, 2, 3 … up to the newest", TALIB, PRICE, "price", window(20, 2),
    ),
    FeatureSpec(
        "dema", "trend", ("close",), outputs("dema"), talib("DEMA", timeperiod="window"),
        lambda values: (2 * (bars(values) - 1),),
        "Twice the EMA less the EMA of the EMA", f"Mulloy 1994; {TALIB}", PRICE, "price", window(20, 2),
        times(2 * EMA_WARMUP),
    ),
    FeatureSpec(
        "tema", "trend", ("close",), outputs("tema"), talib("TEMA", timeperiod="window"),
        lambda values: (3 * (bars(values) - 1),),
        "Three times the EMA less three times the EMA of it, plus the EMA of that", f"Mulloy 1994; {TALIB}",
        PRICE, "price", window(20, 2), times(3 * EMA_WARMUP),
    ),
    FeatureSpec(
        "hma", "trend", ("close",), outputs("hma"), talib("HMA", timeperiod="window"), _hma_lookback,
        "WMA over the root of the window of twice the WMA over half the window less the WMA over the window",
        f"Hull 2005; {TALIB}", PRICE, "price", window(20, 4),
    ),
    FeatureSpec(
        "kama", "trend", ("close",), outputs("kama"), talib("KAMA", timeperiod="window"), back(0),
        "Adaptive average: the smoothing constant goes from 2/31 to 2/3 with the efficiency of the move",
        f"Kaufman 1995; {TALIB}", PRICE, "price", window(10, 2), lambda values: 1000 + 10 * bars(values),
    ),
    FeatureSpec(
        "macd", "trend", ("close",), outputs("macd", "macd_signal", "macd_hist"),
        recursive(recursions.macd, 5, "fast", "slow", "signal", count=3),
        lambda v: (
            max(bars(v, "fast"), bars(v, "slow")) - 1,
            *[max(bars(v, "fast"), bars(v, "slow")) + bars(v, "signal") - 2] * 2,
        ),
        "EMA of `fast` closes less EMA of `slow` closes, each from its own beginning; the signal is its EMA, seeded "
        "with the mean of its first values", "Appel 1979", "price", "price_difference",
        (Parameter("fast", 12, 2), Parameter("slow", 26, 2), Parameter("signal", 9, 1)),
        lambda v: EMA_WARMUP * (max(bars(v, "fast"), bars(v, "slow")) + bars(v, "signal")),
        naming="short",
    ),
    FeatureSpec(
        "adx", "trend", HLC, outputs("adx", "plus_di", "minus_di"),
        recursive(recursions.adx, 10, "window", count=3),
        lambda values: (2 * bars(values) - 1, bars(values), bars(values)),
        "Wilder's average of |+DI - -DI| / (+DI + -DI); DI is the average of directional movement over the average "
        "true range; every average begins with a plain one", "Wilder 1978", "percent", "ratio", window(14, 2),
        times(ADX_WARMUP),
    ),
    FeatureSpec(
        "aroon", "trend", ("high", "low"), outputs("aroon_up", "aroon_down"),
        talib("AROON", order=(1, 0), timeperiod="window"), back(0),
        "How recent the highest high (up) and the lowest low (down) of the window are: 100 for the current bar",
        f"Chande 1995; {TALIB}", "percent", "ratio", window(25, 2),
    ),
    FeatureSpec(
        "psar", "trend", ("high", "low"), outputs("psar"),
        talib("SAR", acceleration="acceleration", maximum="maximum"), lambda _: (1,),
        "Parabolic stop and reverse: it moves towards the extreme price by an acceleration that grows with each new "
        "extreme", f"Wilder 1978; {TALIB}", PRICE, "price",
        (Parameter("acceleration", 0.02, 0.001, "float"), Parameter("maximum", 0.2, 0.001, "float")),
        lambda values: int(20 + 10 / number(values, "acceleration")), naming="short",
    ),
    FeatureSpec(
        "supertrend", "trend", HLC, (Output("supertrend", "price", PRICE), Output("supertrend_direction")),
        lambda v: Talib(
            "SUPERTREND", order=(0, 1), skipped=bars(v), timeperiod=bars(v), multiplier=number(v, "multiplier"),
        ),
        back(0),
        "Midpoint of the bar less or plus `multiplier` ATR, moved only in the direction of the trend; the direction is "
        "1 above the line and -1 below", f"Seban; {TALIB}", "direction", "ratio",
        (Parameter("window", 10, 2), Parameter("multiplier", 3.0, 0.1, "float")),
        lambda values: 21 * bars(values) + int(300 * number(values, "multiplier")), naming="short",
    ),
    FeatureSpec(
        "ichimoku", "trend", ("high", "low"),
        outputs("ichimoku_tenkan", "ichimoku_kijun", "ichimoku_senkou_a", "ichimoku_senkou_b"),
        lambda v: Windowed(
            windows.ichimoku, [number(v, name) for name in ("tenkan", "kijun", "senkou")],
            max(bars(v, name) for name in ("tenkan", "kijun", "senkou")), 4,
        ),
        lambda v: (
            bars(v, "tenkan") - 1, bars(v, "kijun") - 1, max(bars(v, "tenkan"), bars(v, "kijun")) - 1,
            bars(v, "senkou") - 1,
        ),
        "Midpoints of highest high and lowest low over three windows; span A is the mean of the first two. Nothing is "
        "shifted into the future", "Hosoda 1969", PRICE, "price",
        (Parameter("tenkan", 9), Parameter("kijun", 26), Parameter("senkou", 52)), naming="short",
    ),
)  # fmt: skip
