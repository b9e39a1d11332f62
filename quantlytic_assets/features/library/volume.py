"""Volume: sums of it, and prices weighted by it."""

from __future__ import annotations

from quantlytic_assets.features.kernels import recursions, statistics, windows
from quantlytic_assets.features.library.forms import HLCV, TALIB, back, outputs, recursive, talib, window, windowed
from quantlytic_assets.features.spec import FeatureSpec

SPECS = (
    FeatureSpec(
        "obv", "volume", ("close", "volume"), outputs("obv"), talib("OBV"), lambda _: (0,),
        "Sum of the volume of bars that closed higher less that of bars that closed lower; begins with the volume of "
        "the first bar", f"Granville 1963; {TALIB}", "volume", "volume", warmups=lambda _: 1, cumulative=True,
    ),
    FeatureSpec(
        "ad", "volume", HLCV, outputs("ad"), talib("AD"), lambda _: (0,),
        "Sum of volume times where the close is within its bar, from -1 to 1", f"Chaikin; {TALIB}", "volume", "volume",
        cumulative=True,
    ),
    FeatureSpec(
        "cmf", "volume", HLCV, outputs("cmf"), windowed(windows.money_flow), back(-1),
        "Volume times where the close is within its bar, from -1 to 1, over the volume of the window", "Chaikin",
        "fraction", "ratio", window(20),
    ),
    FeatureSpec(
        "vwap_session", "volume", (*HLCV, "session"), outputs("vwap_session"),
        recursive(recursions.session_vwap, 4), lambda _: (0,),
        "Typical price (high + low + close) / 3 weighted by volume, since the first bar of the session", "definition",
        "price", "price", whole_session=True,
    ),
    FeatureSpec(
        "vwap", "volume", HLCV, outputs("vwap"), windowed(windows.window_vwap), back(-1),
        "Typical price (high + low + close) / 3 weighted by volume, over the window", "definition", "price", "price",
        window(20),
    ),
    FeatureSpec(
        "volume_zscore", "volume", ("volume",), outputs("volume_zscore"), windowed(statistics.volume_score), back(-1),
        "Volume less the mean of the window, in sample deviations", "definition", "deviations", "ratio", window(20, 2),
    ),
)  # fmt: skip
