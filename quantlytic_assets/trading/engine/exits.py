"""A position's exits: a stop, a target and a trailing stop, each an order as large as the position.

They begin with the fill that opens it, at prices of the order's own bracket or of the declared exits, follow its size
and its average price, and end with it. In the bar of the entry a stop is tested at once, a target only where the entry
was at the open: within the bar nobody knows whether its best price came before.
"""

from __future__ import annotations

import numpy as np

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.compiling import helper
from quantlytic_assets.trading.engine.orders import add, cancel, to_tick
from quantlytic_assets.trading.engine.tape import emit_order, refuse

NAN = np.nan


@helper
def end_exits(v, tape, symbol, time, reason):
    """Cancels a position's exits."""
    for kind in range(1, 4):
        place = v.marks[c.STOP_AT + kind - 1, symbol]
        if place >= 0:
            cancel(v, tape, c.K_CANCELLED, time, place, reason)


@helper
def _declared(p, kind, average, direction, atr):
    """The price of a declared exit, NaN where there is none."""
    if kind == 1:
        if p[c.P_ATR_STOP] == p[c.P_ATR_STOP]:
            return average - direction * p[c.P_ATR_STOP] * atr
        return average * (1.0 - direction * p[c.P_STOP_LOSS])
    if kind == 2:
        return average * (1.0 + direction * p[c.P_TAKE_PROFIT])
    return average * (1.0 - direction * p[c.P_TRAILING])


@helper
def protect(v, p, tape, place, held, price, time, atr, static, at_open):
    """Brings the exits of a symbol in line with its position after a fill of the order at `place`."""
    own, asked = v.codes[place], v.orders[place]
    s = own[c.SYMBOL]
    now = v.symbols[c.QUANTITY, s]
    if now == 0.0 or held * now < 0.0:
        end_exits(v, tape, s, time, c.R_CLOSED)
        v.marks[c.HELD_BARS, s] = 0
    if now == 0.0:
        return
    if held * now <= 0.0:
        # What should only reduce and did more, as a broker's fills can, opens nothing that is to be protected.
        if own[c.REDUCE_ONLY] == 1:
            return
        _begin(v, p, tape, place, price, time, atr, static, at_open)
        return
    for kind in range(1, 4):
        other = v.marks[c.STOP_AT + kind - 1, s]
        if other < 0:
            continue
        prices = v.orders[other]
        change = abs(now) - prices[c.REMAINING]
        prices[c.AMOUNT] += change
        prices[c.REMAINING] = abs(now)
        if other == place:
            prices[c.AMOUNT] -= change
            continue
        if abs(now) > abs(held) and kind < 3 and not asked[c.BRACKET_STOP + kind - 1] > 0.0:
            moved = _declared(p, kind, v.symbols[c.AVERAGE, s], 1.0 if now > 0.0 else -1.0, atr[s])
            if moved > 0.0:
                if kind == 1:
                    prices[c.STOP_PRICE] = to_tick(moved, static[c.TICK, s], now > 0.0)
                else:
                    prices[c.LIMIT_PRICE] = to_tick(moved, static[c.TICK, s], now < 0.0)
        emit_order(v, tape, c.K_REPLACED, time, other, c.R_NONE)


@helper
def _begin(v, p, tape, place, price, time, atr, static, at_open):
    s, parent = v.codes[place, c.SYMBOL], v.codes[place, c.ID]
    now, average = v.symbols[c.QUANTITY, s], v.symbols[c.AVERAGE, s]
    direction = 1.0 if now > 0.0 else -1.0
    side = -1 if now > 0.0 else 1
    generation = v.codes[place, c.CHILDREN]
    tick = static[c.TICK, s]
    moment = c.AT_OPEN if at_open else v.codes[place, c.PHASE]
    for kind in range(1, 4):
        trail = NAN
        level = v.orders[place, c.BRACKET_STOP + kind - 1]
        own_level = level == level
        if kind == 3:
            trail = level if own_level else p[c.P_TRAILING]
            level = price * (1.0 - direction * trail)
        elif not own_level:
            level = _declared(p, kind, average, direction, atr[s])
        leg = v.codes[place, c.LEG] + kind * c.KIND_STEP + generation * c.GENERATION_STEP
        if not level > 0.0:
            if kind == 1 and p[c.P_ATR_STOP] == p[c.P_ATR_STOP] and not own_level:
                # A stop was declared and nobody knows where it would be.
                refuse(v, tape, time, s, leg, side, abs(now), v.codes[place, c.DECIDED], c.R_NO_PRICE)
            continue
        v.codes[place, c.CHILDREN] = generation + 1
        down = side < 0 if kind != 2 else side > 0
        level = to_tick(level, tick, down)
        type_ = c.STOP if kind == 1 else (c.LIMIT if kind == 2 else c.TRAILING_STOP)
        child = add(
            v, s, side, type_, c.GTC, leg, 0, v.codes[place, c.DECIDED], abs(now),
            level if kind == 2 else NAN, NAN if kind == 2 else level, trail, price,
        )  # fmt: skip
        own = v.codes[child]
        own[c.REDUCE_ONLY] = 1
        own[c.PARENT] = parent
        # Negative, so that it is none of those that are given by hand.
        own[c.GROUP] = -parent
        own[c.BORN] = v.counts[c.BAR]
        own[c.BORN_AT] = moment
        own[c.PHASE] = c.UNSEEN
        v.marks[c.STOP_AT + kind - 1, s] = child
        emit_order(v, tape, c.K_ACCEPTED, time, child, c.R_NONE)
