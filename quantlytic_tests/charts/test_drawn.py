"""Charts of features, accounts and models: each is drawn from little and from nothing, and shows what differs."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from quantlytic_assets.charts import accounts, bars, features, models
from quantlytic_assets.charts.figures import small_figures
from quantlytic_tests.charts.test_bars import ORANGE, covered, has_colour, pixels

DAY = date(2025, 1, 6)
OPEN = datetime(2025, 1, 6, 14, 30, tzinfo=UTC)
VIOLET, BLUE, GREEN = (0xCC, 0x79, 0xA7), (0x00, 0x72, 0xB2), (0x00, 0x9E, 0x73)


def session(*holes: tuple[int, int, str]) -> pl.DataFrame:
    """Coverage of one session of 390 minutes: (first minute, minutes, cause) are missing."""
    ranges = [
        {"start": OPEN + timedelta(minutes=at), "end": OPEN + timedelta(minutes=at + long), "cause": cause}
        for at, long, cause in holes
    ]
    missing = sum(long for _, long, _ in holes)
    frame = covered(1, {}).with_columns(
        pl.lit(390, pl.Int64).alias("expected_bars"),
        pl.lit(390 - missing, pl.Int64).alias("present_bars"),
        pl.lit(missing, pl.Int64).alias("missing_bars"),
    )
    return frame.with_columns(pl.Series("missing_ranges", [ranges], frame.schema["missing_ranges"]))


def share_of(png: bytes, colour: tuple[int, int, int]) -> float:
    # Below the title line, where the legend shows the same colours.
    return float((abs(pixels(png)[60:] - colour).max(axis=2) <= 2).mean())


def test_a_session_shows_when_its_holes_are_and_of_what_cause():
    closes = OPEN + timedelta(minutes=390)
    assert share_of(bars.timeline(session(), OPEN, closes), ORANGE) == 0
    one, many = (bars.timeline(session((60, long, "outage")), OPEN, closes) for long in (1, 120))
    # A minute is seen, two hours are much more.
    assert 0 < share_of(one, ORANGE) < share_of(many, ORANGE) / 10
    late = bars.timeline(session((300, 1, "outage")), OPEN, closes)
    assert (pixels(one) != pixels(late)).any()
    both = bars.timeline(session((60, 30, "outage"), (200, 30, "vendor_hole")), OPEN, closes)
    assert share_of(both, ORANGE) > 0 and share_of(both, VIOLET) > 0
    nothing = bars.timeline(session().with_columns(pl.lit(0, pl.Int64).alias("expected_bars")), OPEN, closes)
    assert pixels(nothing).shape[0] > 100


def indicator_rows(count: int) -> pl.DataFrame:
    steps = pl.int_range(count, eager=True)
    return pl.DataFrame(
        {
            "session": [DAY + timedelta(days=i // 4) for i in range(count)],
            "open_time": [OPEN + timedelta(hours=i) for i in range(count)],
            "close": 100.0 + steps,
            "sma_20": [None] * min(19, count) + [100.0] * max(0, count - 19),
            "sma_200": [None] * count,
            "bb_lower": 95.0 + steps,
            "bb_upper": 105.0 + steps,
            "rsi_14": 50.0 + steps % 7,
            "macd": 0.1 * (steps % 5),
            "macd_signal": [0.2] * count,
            "macd_hist": [-0.1] * count,
        },
        schema_overrides={"sma_20": pl.Float64, "sma_200": pl.Float64},
    )


@pytest.mark.parametrize("count", [1, 5, 120])
def test_features_are_drawn_from_little_and_from_much(count):
    png = features.indicators(indicator_rows(count), "AAA", "1h", DAY)
    assert pixels(png).shape[0] > 500
    # With few bars the legend fills most of the chart.
    assert count < 120 or share_of(png, BLUE) > 0.002
    assert has_colour(png, BLUE)


def test_features_that_a_table_has_not_got_are_left_out():
    rows = indicator_rows(40).select("session", "open_time", "close")
    assert not has_colour(features.indicators(rows, "AAA", "1h", DAY), BLUE)


def test_a_family_is_drawn_with_nulls_and_without_a_known_return():
    random = np.random.default_rng(3)
    known = pl.Series("forward_return", random.normal(0, 0.01, 200))
    rows = pl.DataFrame({"good": known * 5 + 0.01, "bad": -known, "flat": [1.0] * 200}).with_columns(known)
    rows = rows.with_columns(pl.when(pl.int_range(200) >= 80).then("bad").alias("bad"))
    drawn = features.family(rows, ["good", "bad", "flat"], "d")
    assert has_colour(drawn, GREEN) and has_colour(drawn, ORANGE) and has_colour(drawn, BLUE)
    unknown = rows.with_columns(pl.lit(None, pl.Float64).alias("forward_return"))
    assert not has_colour(features.family(unknown, ["good"], "d"), GREEN)


def test_the_ic_of_a_feature_is_spearman_s():
    rows = pl.DataFrame({"a": [1.0, 8.0, 27.0, None], "forward_return": [0.1, 0.2, 0.4, 0.3]})
    assert features._rank_ic(rows) == pytest.approx(1.0)
    assert features._rank_ic(rows.head(2)) is None
    assert features._rank_ic(rows.with_columns(pl.lit(1.0).alias("a"))) is None


def test_what_is_before_the_partition_is_shaded():
    rows, ground = indicator_rows(40), (0xF0, 0xF4, 0xF8)
    assert share_of(features.indicators(rows, "AAA", "1h", DAY), ground) < 0.01
    assert share_of(features.indicators(rows, "AAA", "1h", DAY + timedelta(days=5)), ground) > 0.2


def test_labels_up_and_not_up_are_told_apart():
    both = pl.DataFrame({"forward_return": [-0.02, 0.01, 0.03], "label": [0, 1, 1]})
    falling = pl.DataFrame({"forward_return": [-0.02, -0.01], "label": [0, 0]})
    assert has_colour(features.labels(both, "d"), GREEN) and has_colour(features.labels(both, "d"), ORANGE)
    # The legend's own green is left out: below the title line, but above the bars.
    assert share_of(features.labels(falling, "d"), GREEN) < share_of(features.labels(both, "d"), GREEN) / 4
    for rows in (both.clear(), both.head(1), both.with_columns(pl.lit(0.0).alias("forward_return"))):
        assert pixels(features.labels(rows, "d")).shape[0] > 100


def test_accounts_are_drawn_from_nothing_and_from_one_session():
    curve = pl.DataFrame({"session": [DAY], "equity": [100.0]})
    fills = pl.DataFrame({"session": [DAY], "symbol": ["A"], "side": ["sell"], "price": [10.0], "quantity": [2.0]})
    for png in (
        accounts.equity(curve.clear(), curve.clear(), "x"),
        accounts.equity(curve, curve, "x"),
        accounts.trades(curve.clear(), fills.clear(), "x"),
        accounts.trades(curve, fills.clear(), "x"),
    ):
        assert pixels(png).shape[0] > 100
    sold, bought = (
        accounts.trades(curve, fills.with_columns(pl.lit(side).alias("side")), "x") for side in ("sell", "buy")
    )
    assert share_of(sold, ORANGE) > 4 * share_of(bought, ORANGE)
    assert share_of(bought, GREEN) > 4 * share_of(sold, GREEN)


def test_predictions_above_and_below_one_half_have_other_colours():
    def drawn(score: float) -> bytes:
        rows = {"symbol": ["A", "B"], "open_time": [OPEN, OPEN], "score": [score, score]}
        return accounts.predictions(pl.DataFrame(rows), "x")

    high, low = (pixels(drawn(score))[60:].mean(axis=(0, 1)) for score in (0.6, 0.4))
    # Red, green, blue: what is likely to rise is blue, the other red.
    assert high[2] > high[0] and low[0] > low[2]
    assert pixels(accounts.predictions(pl.DataFrame(), "x")).shape[0] > 100


def test_a_model_is_drawn_whatever_its_holdout_is_like():
    scored = pl.DataFrame({"score": [0.2, 0.4, 0.6, 0.8] * 20, "label": [0, 1, 0, 1] * 20})
    one_class = scored.with_columns(pl.lit(1).alias("label"))
    for rows in (scored, one_class, scored.head(2)):
        png = models.evaluation(rows, {"ret_1": 0.2, "rsi_14": -0.1}, "coefficient", "m")
        assert has_colour(png, BLUE) and has_colour(png, ORANGE)


def test_a_small_chart_is_narrower_and_only_while_it_is_asked_for():
    rows = indicator_rows(40)

    def width() -> int:
        return pixels(features.indicators(rows, "AAA", "1h", DAY)).shape[1]

    with small_figures():
        small = width()
    assert small <= 600 < width()
