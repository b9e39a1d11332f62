"""Working orders: taken in, found, dropped, and where in a bar each would fill."""

from __future__ import annotations

import numpy as np

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.compiling import helper
from quantlytic_assets.trading.engine.tape import emit_order

NAN = np.nan
# A price counts as the next tick's when it is within a twentieth of it; and a limit is as a rule not made worse.
_SHIFT = 0.45
_EPSILON = 10 * 2.220446049250313e-16


@helper
def to_tick(price, tick, down):
    """A price on the grid of ticks: down for what buys at a limit or sells at a stop, up for the other two."""
    if not tick > 0.0:
        return price
    shift = _SHIFT * tick - _EPSILON
    rounded = tick * np.floor((price - shift if down else price + shift) / tick + 0.5)
    return 0.0 if abs(rounded) < _EPSILON else rounded


@helper
def to_lot(quantity, lot):
    """As many whole lots as fit; what lacks a billionth of one for rounding is whole."""
    return round(np.floor(quantity / lot + 1e-9) * lot, 12)


@helper
def exit_kind(leg):
    """0 for an order of its own, 1 for a position's stop, 2 for its target, 3 for its trailing stop."""
    return leg % c.GENERATION_STEP // c.KIND_STEP


@helper
def add(v, symbol, side, kind, force, leg, start, decided, quantity, limit, stop, trail, anchor):
    """Takes an order in, at the end; returns its place."""
    place = v.counts[c.ORDERS]
    v.counts[c.ORDERS] = place + 1
    own, prices = v.codes[place], v.orders[place]
    own[:] = 0
    own[c.ID] = v.counts[c.NEXT_ORDER]
    v.counts[c.NEXT_ORDER] += 1
    own[c.SYMBOL] = symbol
    own[c.SIDE] = side
    own[c.TYPE] = kind
    own[c.FORCE] = force
    own[c.LEG] = leg
    own[c.FROM] = start
    own[c.DECIDED] = decided
    own[c.FIRST_SESSION] = -1
    own[c.BORN] = -1
    prices[:] = NAN
    prices[c.AMOUNT] = quantity
    prices[c.REMAINING] = quantity
    prices[c.LIMIT_PRICE] = limit
    prices[c.STOP_PRICE] = stop
    prices[c.TRAIL] = trail
    prices[c.ANCHOR] = anchor
    prices[c.NOTIONAL] = 0.0
    prices[c.CHARGED] = 0.0
    return place


@helper
def find(v, number):
    """The place of a working order, -1 where it is not."""
    for place in range(v.counts[c.ORDERS]):
        if v.codes[place, c.ID] == number and v.codes[place, c.STATUS] == c.LIVE:
            return place
    return -1


@helper
def drop(v, place):
    """Ends an order; its place is freed by `compact`."""
    own = v.codes[place]
    own[c.STATUS] = c.GONE
    v.counts[c.DEAD] += 1
    kind = exit_kind(own[c.LEG])
    if kind > 0 and v.marks[c.STOP_AT + kind - 1, own[c.SYMBOL]] == place:
        v.marks[c.STOP_AT + kind - 1, own[c.SYMBOL]] = -1


@helper
def cancel(v, tape, kind, time, place, reason):
    """Ends an order with an event of that kind, which tells the quantity that is left."""
    row = emit_order(v, tape, kind, time, place, reason)
    tape.floats[row, c.E_QUANTITY] = v.orders[place, c.REMAINING]
    drop(v, place)


@helper
def compact(v):
    """Frees the places of ended orders; the others keep their order, which is that of submission."""
    if v.counts[c.DEAD] == 0:
        return
    kept = 0
    for place in range(v.counts[c.ORDERS]):
        own = v.codes[place]
        if own[c.STATUS] == c.GONE:
            continue
        if kept != place:
            for field in range(c.ORDER_INTS):
                v.codes[kept, field] = own[field]
            for field in range(c.ORDER_FLOATS):
                v.orders[kept, field] = v.orders[place, field]
            kind = exit_kind(own[c.LEG])
            if kind > 0 and v.marks[c.STOP_AT + kind - 1, own[c.SYMBOL]] == place:
                v.marks[c.STOP_AT + kind - 1, own[c.SYMBOL]] = kept
        kept += 1
    v.counts[c.ORDERS] = kept
    v.counts[c.DEAD] = 0


@helper
def _limit(p, side, limit, opened, best, born):
    if born == c.WITHIN:
        # The bar's best price may have come before the entry.
        return c.NOWHERE, NAN
    touch = p[c.P_LIMIT_TOUCH] > 0.0
    inside = side * (limit - opened)
    if born == c.NOWHERE and (inside > 0.0 or (touch and inside == 0.0)):
        return c.AT_OPEN, opened
    inside = side * (limit - best)
    if inside > 0.0 or (touch and inside == 0.0):
        return c.WITHIN, limit
    return c.NOWHERE, NAN


@helper
def _stop_limit(p, side, limit, stop, opened, worst, best, close):
    """In the bar of the trigger; `worst` is the bar's price on the stop's side, `best` that on the limit's."""
    trigger = opened if side * (opened - stop) >= 0.0 else stop
    if p[c.P_STOP_LIMIT_BEST] > 0.0:
        if side * (limit - best) < 0.0:
            return c.NOWHERE, NAN
        return c.WITHIN, min(trigger, limit) if side > 0 else max(trigger, limit)
    if side * (limit - close) < 0.0:
        return c.NOWHERE, NAN
    return c.WITHIN, min(worst, limit) if side > 0 else max(worst, limit)


@helper
def _at_close(own, prices, close, opening, opened):
    """Where only closes are traded."""
    side, kind = own[c.SIDE], own[c.TYPE]
    if kind == c.MARKET_ON_OPEN:
        return (c.AT_OPEN, opened) if opening else (c.NOWHERE, NAN)
    if kind == c.STOP or kind == c.STOP_LIMIT or kind == c.TRAILING_STOP:
        if side * (close - prices[c.STOP_PRICE]) >= 0.0:
            own[c.TRIGGERED] = 1
        if own[c.TRIGGERED] == 0:
            return c.NOWHERE, NAN
    if (kind == c.LIMIT or kind == c.STOP_LIMIT) and side * (prices[c.LIMIT_PRICE] - close) < 0.0:
        return c.NOWHERE, NAN
    return c.AT_CLOSE, close


@helper
def quote(v, p, place, bar, opening, closing):
    """When in this bar an order would fill, and at which price before slippage; notes a stop that is reached."""
    own, prices = v.codes[place], v.orders[place]
    s, side, kind = own[c.SYMBOL], own[c.SIDE], own[c.TYPE]
    opened, high, low, close = bar[c.OPEN, s], bar[c.HIGH, s], bar[c.LOW, s], bar[c.CLOSE, s]
    born = own[c.BORN_AT] if own[c.BORN] == v.counts[c.BAR] else c.NOWHERE
    if born == c.AT_CLOSE:
        return c.NOWHERE, NAN
    if kind == c.MARKET_ON_CLOSE:
        return (c.AT_CLOSE, close) if closing else (c.NOWHERE, NAN)
    if p[c.P_FILL_AT_CLOSE] > 0.0:
        return _at_close(own, prices, close, opening, opened)
    if kind == c.MARKET:
        return c.AT_OPEN, opened
    if kind == c.MARKET_ON_OPEN:
        return (c.AT_OPEN, opened) if opening else (c.NOWHERE, NAN)
    worst, best = (high, low) if side > 0 else (low, high)
    if kind == c.LIMIT or (kind == c.STOP_LIMIT and own[c.TRIGGERED] == 1):
        return _limit(p, side, prices[c.LIMIT_PRICE], opened, best, born)
    stop = prices[c.STOP_PRICE]
    if kind != c.STOP_LIMIT and own[c.TRIGGERED] == 1:
        # It has become a market order, of which the volume left a rest.
        return c.AT_OPEN, opened
    if side * (worst - stop) < 0.0:
        return c.NOWHERE, NAN
    own[c.TRIGGERED] = 1
    if kind == c.STOP_LIMIT:
        return _stop_limit(p, side, prices[c.LIMIT_PRICE], stop, opened, worst, best, close)
    if born == c.NOWHERE and side * (opened - stop) >= 0.0:
        return c.AT_OPEN, opened
    return c.WITHIN, stop


@helper
def follow(v, place, bar):
    """Moves a trailing stop, which this bar has been tested against already."""
    own, prices = v.codes[place], v.orders[place]
    s, side = own[c.SYMBOL], own[c.SIDE]
    best = bar[c.LOW, s] if side > 0 else bar[c.HIGH, s]
    if own[c.BORN] == v.counts[c.BAR] and own[c.BORN_AT] != c.AT_OPEN:
        best = bar[c.CLOSE, s]
    if side * (prices[c.ANCHOR] - best) > 0.0:
        prices[c.ANCHOR] = best
        prices[c.STOP_PRICE] = best * (1.0 + side * prices[c.TRAIL])
