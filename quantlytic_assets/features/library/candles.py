"""TA-Lib's candle patterns: 100 where a bullish one ends at the bar, -100 for a bearish one, else 0."""

from __future__ import annotations

from quantlytic_assets.features.kernels.talib_alone import abstract, talib
from quantlytic_assets.features.kernels.talib_kernel import Talib
from quantlytic_assets.features.library.forms import OHLC, outputs
from quantlytic_assets.features.spec import FeatureSpec


def _pattern(function: str) -> FeatureSpec:
    information = abstract.Function(function)  # type: ignore[attr-defined]
    skipped = information.lookback
    title = information.info["display_name"]
    return FeatureSpec(
        name=function.lower(),
        family="candles",
        inputs=OHLC,
        outputs=outputs(function.lower()),
        kernel=lambda _: Talib(function, skipped=skipped),
        lookbacks=lambda _: (skipped,),
        formula=f"Candle pattern {title}: 100 bullish, -100 bearish, 0 none; stronger ones up to 200",
        source="TA-Lib 0.8",
        unit="index",
        # The sizes of earlier candles are carried as sums, which some patterns also keep from confirmed ones before.
        warmups=lambda _: skipped,
    )


SPECS = tuple(_pattern(name) for name in sorted(talib.get_function_groups()["Pattern Recognition"]))
