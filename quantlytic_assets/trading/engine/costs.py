"""What a fill costs: the price it gets after slippage and impact, and its part of the order's commission."""

from __future__ import annotations

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.compiling import helper


@helper
def slipped(p, price, side, quantity, used, volume):
    """The price that an order which takes liquidity gets; the impact grows with the square of the share of volume."""
    moved = price * (1.0 + side * p[c.P_SLIPPAGE])
    if p[c.P_IMPACT] > 0.0 and volume > 0.0:
        share = (used + quantity) / volume
        moved += side * price * p[c.P_IMPACT] * share * share
    return moved


@helper
def commission_of(p, notional, quantity):
    """Commission of a whole order of this value and quantity."""
    due = p[c.P_COMMISSION] * notional + p[c.P_PER_SHARE] * quantity + p[c.P_PER_ORDER]
    due = max(due, p[c.P_MINIMUM])
    if p[c.P_MAXIMUM] == p[c.P_MAXIMUM]:
        due = min(due, p[c.P_MAXIMUM] * notional)
    return due


@helper
def commission(p, order, quantity, price):
    """What this fill adds to the commission of its order, whose earlier fills have paid their part."""
    filled = order[c.AMOUNT] - order[c.REMAINING] + quantity
    return max(0.0, commission_of(p, order[c.NOTIONAL] + quantity * price, filled) - order[c.CHARGED])
