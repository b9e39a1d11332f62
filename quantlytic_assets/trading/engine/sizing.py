"""How much of a symbol a target weight amounts to, as money."""

from __future__ import annotations

import math

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.compiling import helper


@helper
def sized(v, p, symbol, weight, equity):
    """The value to hold for a weight, negative where sold short; 0 while the returns it needs are too few."""
    method = p[c.P_SIZING]
    if method == c.WEIGHTS:
        return weight * equity
    if method == c.EQUAL_WEIGHT:
        return weight * equity / p[c.P_SHARES]
    if method == c.FIXED:
        return weight * (p[c.P_AMOUNT] if p[c.P_AMOUNT] == p[c.P_AMOUNT] else p[c.P_FRACTION] * equity)
    variance = v.symbols[c.VARIANCE, symbol]
    if v.marks[c.SEEN, symbol] < 2.0 / p[c.P_DECAY] - 1.0 or not variance > 0.0:
        return 0.0
    if method == c.VOLATILITY_TARGET:
        return weight * equity / p[c.P_SHARES] * p[c.P_ANNUAL] / math.sqrt(variance * p[c.P_PERIODS])
    edge = v.symbols[c.MEAN, symbol] / variance
    return weight * equity * min(max(edge if weight > 0.0 else -edge, 0.0), p[c.P_KELLY_CAP])
