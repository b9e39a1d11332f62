"""Targets as signals that people read."""

from __future__ import annotations

import polars as pl
import polars.selectors as cs
import pytest

from quantlytic_assets.strategies.registry import Registry
from quantlytic_assets.strategies.signals import SAYS, SIGNALS_SCHEMA, Words, rule_signals, said, signals
from quantlytic_tests.strategies.walks import bars, walk


def test_a_rule_says_what_and_why():
    frame = bars("AAA", [1.0] * 3, rsi_14=[20, 50, 85])
    found = rule_signals("dip", Registry().bind("rsi"), frame)
    assert found["signal"].to_list() == ["buy", "hold", "sell"]
    assert found["strength"].to_list() == pytest.approx([0.6, 0.0, 0.7])
    assert found["reason"].to_list() == [
        "rsi(14) 20.0 is below 30",
        "rsi(14) 50.0 is between 30 and 70",
        "rsi(14) 85.0 is above 70",
    ]
    assert found["strategy"].unique().to_list() == ["dip"]


def test_targets_without_words_say_their_weight():
    frame = bars("AAA", [1.0] * 4)
    found = signals("mine", frame, pl.Series([0.25, -0.5, 0.0, None]))
    assert found["signal"].to_list() == ["buy", "sell", "sell", "hold"]
    assert found["strength"].to_list() == [0.25, 0.5, 1.0, 0.0]
    assert found["reason"].to_list()[::3] == ["target weight 0.25", "no target: what is held is kept"]


def test_every_rule_gives_whole_rows_in_the_order_of_the_frame():
    for spec in Registry().specs():
        rule = spec.bind()
        frame = walk(rule, 80, 7)
        found = rule_signals("one", rule, frame)
        assert found.schema == SIGNALS_SCHEMA
        assert found.drop("target").null_count().row(0) == (0,) * (len(SIGNALS_SCHEMA) - 1)
        assert (found["target"].is_null() == (found["signal"] == "hold")).all()
        assert found.select("symbol", "open_time").equals(frame.select("symbol", "open_time"))
        assert found["strength"].is_between(0, 1).all()
        assert set(found["signal"]) <= {"buy", "sell", "hold"}
        told = said(rule.opinions(frame))
        assert told.columns == list(SAYS) and told.equals(found.select(SAYS))
        own = frame.select(pl.col(rule.columns.get(name, name)).alias(name) for name in rule.reads)
        assert said(rule.opinions_of(own.with_columns(cs.float().fill_nan(None)))).equals(told)


def test_no_row_is_no_signal():
    assert rule_signals("one", Registry().bind("buy_and_hold"), bars("AAA", [])).schema == SIGNALS_SCHEMA


@pytest.mark.parametrize("given", [(), ("score",), ("reason",), ("score", "reason")], ids="+".join)
def test_words_that_are_remembered_are_those_that_are_made_anew(given):
    targets = [1.0, None, 0.0, -0.5, 1 / 3, 1e-9, 1.0, None]
    told = pl.DataFrame(
        {
            "target": pl.Series(targets, dtype=pl.Float64),
            "score": pl.Series([0.5, -1.0, None, 0.0, float("nan"), -0.25, 1.0, None], dtype=pl.Float64),
            "reason": ["above", None, "below", "", None, "equal", "above", None],
        }
    ).select("target", *given)
    words = Words()
    for part in (told[:3], told, told[2:], told[:0], told.with_columns(-pl.col("target")), told):
        assert list(map(str, words.of(part.to_dict(as_series=False)))) == list(map(str, said(part).rows()))


def test_words_are_those_of_the_target_s_own_after_many_others():
    words = Words()
    for first in range(0, 10_000, 1000):
        told = pl.DataFrame({"target": [one / 10_000 for one in range(first, first + 1000)]})
        assert words.of(told.to_dict(as_series=False)) == said(told).rows()
