"""Targets as signals that people read."""

from __future__ import annotations

import polars as pl
import polars.selectors as cs
import pytest

from quantlytic_assets.strategies.registry import Registry
from quantlytic_assets.strategies.signals import SAYS, SIGNALS_SCHEMA, rule_signals, said, signals
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
