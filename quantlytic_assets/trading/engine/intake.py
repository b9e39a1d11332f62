"""Orders by hand: submitted, modified and cancelled through the same kernel, after checks at the door."""

from __future__ import annotations

import math

import numpy as np

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.compiling import helper
from quantlytic_assets.trading.engine.orders import add, cancel, exit_kind, find, to_lot, to_tick
from quantlytic_assets.trading.engine.risk import halt, liquidates, resume
from quantlytic_assets.trading.engine.tape import emit, emit_order, refuse
from quantlytic_assets.trading.engine.targets import count_pending, liquidate

NAN = np.nan
_ROUNDING = 1e-9


@helper
def take_in_at_open(v, p, tape, time, static, integers, first, last):
    """The rows of the intake from `first` to `last` that take effect when a bar opens: halts and resumptions."""
    for row in range(first, last):
        action = integers[row, c.ACTION]
        if action == c.HALT_AT_OPEN:
            halt(v, p, tape, time, c.R_BY_HAND, integers[row, c.IN_HALT])
            if liquidates(v, p):
                liquidate(v, p, tape, time, static)
        elif action == c.RESUME_AT_OPEN and v.counts[c.HALT] != 0:
            resume(v, tape, time, c.R_BY_HAND)


@helper
def take_in(v, p, tape, time, static, integers, floats, first, last):
    """The rows of the intake from `first` to `last`, in their order, but for those that took effect at the open."""
    for row in range(first, last):
        action = integers[row, c.ACTION]
        if action == c.SUBMIT:
            _submit(v, p, tape, time, static, integers[row], floats[row])
        elif action == c.HALT_NOW:
            halt(v, p, tape, time, c.R_BY_HAND, integers[row, c.IN_HALT])
        elif action == c.HALT_AT_OPEN or action == c.RESUME_AT_OPEN:
            continue
        elif action == c.RESUME_NOW:
            if v.counts[c.HALT] != 0:
                resume(v, tape, time, c.R_BY_HAND)
        elif action == c.SEEN_LATE:
            emit(v, tape, c.K_SEEN_LATE, time, integers[row, c.IN_SYMBOL], c.R_LATE, floats[row, c.IN_QUANTITY])
        else:
            place = find(v, integers[row, c.IN_ORDER])
            if place < 0:
                told = emit(v, tape, c.K_REJECTED, time, -1, c.R_UNKNOWN_ORDER, NAN)
                tape.integers[told, c.E_ORDER] = integers[row, c.IN_ORDER]
            elif action == c.CANCEL:
                cancel(v, tape, c.K_CANCELLED, time, place, c.R_BY_HAND)
            else:
                _modify(v, p, tape, time, static, place, floats[row])


@helper
def _usable(price):
    return price > 0.0 and price < np.inf


@helper
def _wrong_price(kind, limit, stop, trail):
    if (kind == c.LIMIT or kind == c.STOP_LIMIT) and not _usable(limit):
        return True
    if (kind == c.STOP or kind == c.STOP_LIMIT) and not _usable(stop):
        return True
    return kind == c.TRAILING_STOP and not (trail > 0.0 and trail < 1.0)


@helper
def _fault(v, p, static, asked, symbol, side, kind, reduce_only, quantity, prices):
    """Why an order cannot be taken in, R_NONE where it can."""
    limit, stop = prices[c.IN_LIMIT], prices[c.IN_STOP]
    if not (asked > 0.0 and quantity < np.inf):
        return c.R_BAD_QUANTITY
    if _wrong_price(kind, limit, stop, prices[c.IN_TRAIL]):
        return c.R_BAD_PRICE
    for place in (c.IN_BRACKET_STOP, c.IN_BRACKET_TARGET, c.IN_BRACKET_TRAIL):
        level = prices[place]
        if level == level and not _usable(level):
            return c.R_BAD_PRICE
    if v.marks[c.DELISTED, symbol] == 1:
        return c.R_DELISTED
    if asked < static[c.LOT, symbol] * (1.0 - 1e-9):
        return c.R_BELOW_LOT
    last = v.symbols[c.LAST, symbol]
    near = limit if limit == limit else (stop if stop == stop else last)
    if kind == c.TRAILING_STOP and not last > 0.0:
        return c.R_NO_PRICE
    if near * quantity < static[c.MIN_NOTIONAL, symbol]:
        return c.R_BELOW_MINIMUM
    if reduce_only:
        return c.R_NONE
    held = v.symbols[c.QUANTITY, symbol]
    coming = max(0.0, v.symbols[c.PENDING, symbol] * side)
    opens = quantity - max(0.0, -side * held)
    if opens <= 0.0:
        return c.R_NONE
    if side < 0 and p[c.P_SHORT] == 0.0 and quantity > max(held, 0.0) + max(0.0, v.symbols[c.PENDING, symbol]):
        return c.R_SHORT
    if v.counts[c.HALT] != 0:
        return c.R_HALTED
    if v.marks[c.COOLDOWN, symbol] > 0:
        return c.R_COOLDOWN
    # Where no price is known yet it is checked when it fills.
    if near > 0.0:
        after = (opens + coming) * near + (abs(held) * last if side * held > 0.0 else 0.0)
        others = v.account[c.GROSS] - abs(held) * last
        equity = v.account[c.EQUITY]
        if after + others > p[c.P_LEVERAGE] * p[c.P_MAX_GROSS] * equity + _ROUNDING * max(1.0, abs(equity)):
            return c.R_BUYING_POWER
        if after > p[c.P_MAX_POSITION] * equity:
            return c.R_MAX_POSITION
    return c.R_NONE


@helper
def _submit(v, p, tape, time, static, row, prices):
    symbol, kind, leg = row[c.IN_SYMBOL], row[c.IN_TYPE], row[c.IN_LEG]
    side = 1 if row[c.IN_SIDE] > 0 else -1
    asked = prices[c.IN_QUANTITY]
    if symbol < 0 or symbol >= v.symbols.shape[1]:
        refuse(v, tape, time, -1, leg, side, asked, time, c.R_UNKNOWN_SYMBOL)
        return
    count_pending(v)
    lot = static[c.LOT, symbol]
    # A position's odd rest can be sold as it is.
    whole = asked > 0.0 and asked == abs(v.symbols[c.QUANTITY, symbol])
    quantity = to_lot(asked, lot) if asked < np.inf and not whole else asked
    least = max(asked, lot) if whole else asked
    fault = _fault(v, p, static, least, symbol, side, kind, row[c.IN_REDUCE_ONLY] == 1, quantity, prices)
    if fault != c.R_NONE:
        refuse(v, tape, time, symbol, leg, side, asked, time, fault)
        return
    tick = static[c.TICK, symbol]
    limit = to_tick(prices[c.IN_LIMIT], tick, side > 0)
    stop = to_tick(prices[c.IN_STOP], tick, side < 0)
    last, trail = v.symbols[c.LAST, symbol], prices[c.IN_TRAIL]
    if kind == c.TRAILING_STOP:
        stop = to_tick(last * (1.0 + side * trail), tick, side < 0)
    place = add(v, symbol, side, kind, row[c.IN_FORCE], leg, time, time, quantity, limit, stop, trail, last)
    own = v.codes[place]
    own[c.GROUP] = row[c.IN_GROUP]
    own[c.REDUCE_ONLY] = row[c.IN_REDUCE_ONLY]
    v.orders[place, c.BRACKET_STOP] = prices[c.IN_BRACKET_STOP]
    v.orders[place, c.BRACKET_TARGET] = prices[c.IN_BRACKET_TARGET]
    v.orders[place, c.BRACKET_TRAIL] = prices[c.IN_BRACKET_TRAIL]
    emit_order(v, tape, c.K_ACCEPTED, time, place, c.R_NONE)


@helper
def _modify(v, p, tape, time, static, place, prices):
    """Changes what is given of quantity, limit, stop and trail; works anew from the next bar that opens after that."""
    own, order = v.codes[place], v.orders[place]
    s, side = own[c.SYMBOL], own[c.SIDE]
    filled = order[c.AMOUNT] - order[c.REMAINING]
    asked = prices[c.IN_QUANTITY]
    limit = prices[c.IN_LIMIT] if prices[c.IN_LIMIT] == prices[c.IN_LIMIT] else order[c.LIMIT_PRICE]
    stop = prices[c.IN_STOP] if prices[c.IN_STOP] == prices[c.IN_STOP] else order[c.STOP_PRICE]
    reason = c.R_NONE
    amount = order[c.AMOUNT]
    if asked == asked:
        amount = to_lot(asked, static[c.LOT, s]) if asked < np.inf else asked
        # An exit is as large as its position.
        if not (amount > filled and amount < np.inf) or exit_kind(own[c.LEG]) > 0:
            reason = c.R_BAD_QUANTITY
    if _wrong_price(own[c.TYPE], limit, stop, order[c.TRAIL]):
        reason = c.R_BAD_PRICE
    more = amount - order[c.AMOUNT]
    if reason == c.R_NONE and more > 0.0 and own[c.REDUCE_ONLY] == 0:
        count_pending(v)
        prices[c.IN_LIMIT] = limit
        reason = _fault(v, p, static, math.inf, s, side, c.MARKET, False, more, prices)
    if reason != c.R_NONE:
        emit_order(v, tape, c.K_REJECTED, time, place, reason)
        return
    order[c.REMAINING] += more
    order[c.AMOUNT] = amount
    order[c.LIMIT_PRICE] = to_tick(limit, static[c.TICK, s], side > 0)
    order[c.STOP_PRICE] = to_tick(stop, static[c.TICK, s], side < 0)
    own[c.FROM] = max(own[c.FROM], time)
    emit_order(v, tape, c.K_REPLACED, time, place, c.R_BY_HAND)
