"""Alpha158 against numbers that pyqlib made, and against an implementation with pandas' rolling windows.

The numbers are those of some bars, see data/indicators/SOURCES.md; the implementation, written as Qlib's operators are,
also goes through bars without movement or volume.
"""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from quantlytic_assets.features.batch import compute
from quantlytic_tests.features.walks import REGISTRY, array, walk

DATA = Path(__file__).parents[1] / "data" / "indicators"
SHIPPED = files("quantlytic_assets") / "vendors" / "sample_data" / "equities_1d.parquet"
WINDOWS = (5, 10, 20, 30, 60)


def regression(values: np.ndarray) -> tuple[float, float, float]:
    """Slope, R² and last residual of values over their positions."""
    if len(values) < 2:
        return np.nan, np.nan, np.nan
    positions = np.arange(len(values))
    slope, level = np.polyfit(positions, values, 1)
    fitted = slope * positions + level
    total = ((values - values.mean()) ** 2).sum()
    squared = 1 - ((values - fitted) ** 2).sum() / total if total else np.nan
    return slope, squared, values[-1] - fitted[-1]


def constant(rolling) -> np.ndarray:
    return np.isclose(rolling.std(), 0, atol=2e-5)


def expected(bars: pl.DataFrame) -> dict[str, np.ndarray]:
    o, h, low, c, v, vwap = (
        pd.Series(array(bars, name)) for name in ("open", "high", "low", "close", "volume", "vwap")
    )
    vwap = vwap.fillna((h + low + c) / 3)
    top, bottom, tiny = np.maximum(o, c), np.minimum(o, c), 1e-12
    result = {
        "KMID": (c - o) / o, "KLEN": (h - low) / o, "KMID2": (c - o) / (h - low + tiny), "KUP": (h - top) / o,
        "KUP2": (h - top) / (h - low + tiny), "KLOW": (bottom - low) / o, "KLOW2": (bottom - low) / (h - low + tiny),
        "KSFT": (2 * c - h - low) / o, "KSFT2": (2 * c - h - low) / (h - low + tiny), "OPEN0": o / c, "HIGH0": h / c,
        "LOW0": low / c, "VWAP0": vwap / c,
    }  # fmt: skip
    before, volume_before = c.shift(1), v.shift(1)
    change, volume_change = c - before, v - volume_before
    weighted = (c / before - 1).abs() * v
    with np.errstate(divide="ignore", invalid="ignore"):
        flow = np.log(v / volume_before + 1)
    for d in WINDOWS:

        def over(series, d=d):
            return series.rolling(d, min_periods=1)

        line = [regression(c.to_numpy()[max(0, t - d + 1) : t + 1]) for t in range(len(c))]
        slope, squared, residual = (pd.Series([one[place] for one in line]) for place in range(3))
        squared[constant(over(c))] = np.nan
        highest, lowest = over(h).max(), over(low).min()
        high_at = over(h).apply(lambda x: x.argmax() + 1, raw=True)
        low_at = over(low).apply(lambda x: x.argmin() + 1, raw=True)
        up, down = (c > before).astype(float), (c < before).astype(float)
        rises, falls, moves = change.clip(lower=0), (-change).clip(lower=0), change.abs()
        more, less, moved = volume_change.clip(lower=0), (-volume_change).clip(lower=0), volume_change.abs()
        corr = over(c).corr(np.log(v + 1))
        corr[constant(over(c)) | constant(over(np.log(v + 1)))] = np.nan
        cord = over(c / before).corr(flow)
        cord[constant(over(c / before)) | constant(over(flow))] = np.nan
        found = {
            "ROC": c.shift(d) / c, "MA": over(c).mean() / c, "STD": over(c).std() / c, "BETA": slope / c,
            "RSQR": squared, "RESI": residual / c, "MAX": highest / c, "MIN": lowest / c,
            "QTLU": over(c).quantile(0.8) / c, "QTLD": over(c).quantile(0.2) / c, "RANK": over(c).rank(pct=True),
            "RSV": (c - lowest) / (highest - lowest + tiny), "IMAX": high_at / d, "IMIN": low_at / d,
            "IMXD": (high_at - low_at) / d, "CORR": corr, "CORD": cord, "CNTP": over(up).mean(),
            "CNTN": over(down).mean(), "CNTD": over(up).mean() - over(down).mean(),
            "SUMP": over(rises).sum() / (over(moves).sum() + tiny),
            "SUMN": over(falls).sum() / (over(moves).sum() + tiny),
            "SUMD": (over(rises).sum() - over(falls).sum()) / (over(moves).sum() + tiny),
            "VMA": over(v).mean() / (v + tiny), "VSTD": over(v).std() / (v + tiny),
            "WVMA": over(weighted).std() / (over(weighted).mean() + tiny),
            "VSUMP": over(more).sum() / (over(moved).sum() + tiny),
            "VSUMN": over(less).sum() / (over(moved).sum() + tiny),
            "VSUMD": (over(more).sum() - over(less).sum()) / (over(moved).sum() + tiny),
        }  # fmt: skip
        result |= {f"{name}{d}": values for name, values in found.items()}
    return {name: values.to_numpy() for name, values in result.items()}


def recorded() -> pl.DataFrame:
    prices = pl.read_csv(DATA / "skender_quotes.csv")
    return walk(len(prices), 1).with_columns(
        prices[name].cast(pl.Float64) for name in ("open", "high", "low", "close", "volume")
    )


def still() -> pl.DataFrame:
    """A stretch without movement, one without volume, and a VWAP of its own where there is one."""
    n = pl.int_range(pl.len())
    return walk(400, 8).with_columns(
        *(
            pl.when(n.is_between(100, 180)).then(pl.col("close").gather(100)).otherwise(pl.col(name)).alias(name)
            for name in ("open", "high", "low", "close")
        ),
        volume=pl.when(n.is_between(250, 265)).then(0.0).otherwise(pl.col("volume") + 1),
        vwap=pl.when(n % 2 == 0).then(pl.col("close") * 1.01),
    )


@pytest.mark.parametrize("bars", [recorded(), still()], ids=["recorded", "still"])
def test_all_158_are_those_of_qlibs_operators(bars: pl.DataFrame):
    bars = bars if "vwap" in bars.columns else bars.with_columns(vwap=pl.lit(None, pl.Float64))
    found, wanted = compute(bars, REGISTRY.features(["alpha158"])), expected(bars)
    assert len(wanted) == 158
    wrong = {}
    for name, values in wanted.items():
        got = array(found, name)
        # A relative volume of a bar without any is a number over 1e-12: pandas' running sums leave only noise there.
        usable = np.abs(np.nan_to_num(values)) < 1e9
        same = np.isclose(got, values, rtol=1e-6, atol=1e-9, equal_nan=True) | ~usable
        if not same.all():
            first = int(np.flatnonzero(~same)[0])
            wrong[name] = (first, int((~same).sum()), got[first], values[first])
    assert wrong == {}


def test_all_158_are_those_that_pyqlib_makes_of_the_shipped_bars():
    wanted = pl.read_parquet(DATA / "qlib_alpha158.parquet")
    bars = pl.read_parquet(str(SHIPPED)).filter(pl.col("symbol").is_in(wanted["symbol"].unique().to_list()))
    midnight = pl.col("session").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    computed = compute(bars.with_columns(open_time=midnight, interval=pl.lit("1d")), REGISTRY.features(["alpha158"]))
    found = wanted.select("symbol", "session").join(computed, on=["symbol", "session"], maintain_order="left")
    names = [name for name in wanted.columns if name not in ("symbol", "session")]
    assert len(names) == 158 and len(found) == len(wanted) == 36
    for name in names:
        np.testing.assert_allclose(array(found, name), array(wanted, name), rtol=1e-6, atol=1e-9, err_msg=name)
