"""Reasons in words: each that the engine can give has some."""

from quantlytic_assets.trading.engine import codes
from quantlytic_assets.trading.reasons import REASONS, in_words


def test_each_reason_of_the_engine_has_words():
    assert REASONS.keys() == set(codes.REASONS) - {None}
    assert in_words(None) is None and in_words("below_lot") == "the target is smaller than one lot"
