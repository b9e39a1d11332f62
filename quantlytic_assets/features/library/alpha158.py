"""Alpha158, Qlib's set of 158 features of daily bars, with Qlib's names and semantics.

Windows begin with the first bar and grow (`min_periods=1`). R² and correlations are null where a series is constant
(deviation of at most 2e-5). VWAP0 takes the vendor's VWAP, and where there is none (high + low + close) / 3 as a proxy.
"""

from __future__ import annotations

from quantlytic_assets.features.kernels import alpha158, statistics
from quantlytic_assets.features.kernels.compiled import Windowed
from quantlytic_assets.features.library.forms import HLC, OHLC, bars, outputs, single, window
from quantlytic_assets.features.spec import FeatureSpec, Output

SOURCE = "Microsoft Qlib, Alpha158"
WINDOWS = (5, 10, 20, 30, 60)
FIRST = {"ROC": None, "STD": 1, "BETA": 1, "RSQR": 1, "RESI": 1, "SUMP": 1, "SUMN": 1, "SUMD": 1,
         "CORR": 1, "CORD": 2, "VSTD": 1, "WVMA": 2, "VSUMP": 1, "VSUMN": 1, "VSUMD": 1}  # fmt: skip


def _rolling(name: str, loop, inputs: tuple[str, ...], names: tuple[str, ...], formula: str) -> FeatureSpec:
    def lookbacks(values):
        first = [FIRST.get(one, 0) for one in names]
        return tuple(bars(values) if one is None else one for one in first)

    return FeatureSpec(
        name, "alpha158", inputs, tuple(Output(one) for one in names),
        lambda values: Windowed(loop, [bars(values)], bars(values) + 1, len(names)),
        lookbacks, formula, SOURCE, "ratio", "ratio", window(20, 2), bars, naming="joined",
    )  # fmt: skip


SPECS = (
    FeatureSpec(
        "alpha_candle", "alpha158", OHLC, outputs(*alpha158.CANDLE), single(alpha158.candle, count=12),
        lambda _: (0,),
        "Body (KMID), height (KLEN), shadows (KUP, KLOW) and shift (KSFT) of the bar over its open, with a 2 over its "
        "height; open, high and low over the close", SOURCE, "ratio",
    ),
    FeatureSpec(
        "alpha_vwap", "alpha158", ("vwap", "close"), outputs("VWAP0"), single(statistics.ratio), lambda _: (0,),
        "VWAP over the close; where the vendor has none, (high + low + close) / 3 stands for it", SOURCE, "ratio",
    ),
    _rolling(
        "alpha_price", alpha158.price, HLC, alpha158.PRICE,
        "Of the window's closes, over the close: earlier close (ROC), mean (MA), deviation (STD), slope (BETA), R² "
        "(RSQR) and residual (RESI) of a line, quantiles (QTLU, QTLD), rank (RANK); highest high and lowest low (MAX, "
        "MIN), where the close is between them (RSV), how recent they are (IMAX, IMIN, IMXD); share of bars that rose "
        "and fell (CNTP, CNTN, CNTD), sums of rises and falls over all changes (SUMP, SUMN, SUMD)",
    ),
    _rolling(
        "alpha_volume", alpha158.volume, ("close", "volume"), alpha158.VOLUME,
        "Correlation of close and ln(volume + 1) (CORR) and of their changes (CORD); of the window's volumes over the "
        "volume: mean (VMA) and deviation (VSTD); deviation over mean of volume times absolute return (WVMA); sums of "
        "rises and falls of volume over all changes (VSUMP, VSUMN, VSUMD)",
    ),
)  # fmt: skip
