"""The beginning of a session: corporate actions on positions and working orders, and what holding overnight costs."""

from __future__ import annotations

import numpy as np

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.compiling import helper
from quantlytic_assets.trading.engine.exits import end_exits
from quantlytic_assets.trading.engine.orders import cancel
from quantlytic_assets.trading.engine.tape import emit

_DECIMALS = 9
_DAYS = 365.0


@helper
def overnight(v, p, tape, time, days):
    """Borrow for what is sold short and interest on lent cash, for the calendar days since the last session."""
    short = (v.account[c.GROSS] - v.account[c.NET]) / 2.0
    due = p[c.P_BORROW] / _DAYS * days * short
    if due > 0.0:
        v.account[c.CASH] -= due
        emit(v, tape, c.K_BORROW, time, -1, c.R_NONE, due)
    due = p[c.P_FINANCING] / _DAYS * days * max(0.0, -v.account[c.CASH])
    if due > 0.0:
        v.account[c.CASH] -= due
        emit(v, tape, c.K_FEE, time, -1, c.R_FINANCING, due)


@helper
def act(v, tape, time, actions, values, last, session):
    """Applies what took effect after the `last` session and up to this one."""
    low, high = 0, len(actions)
    while low < high:
        middle = (low + high) // 2
        if actions[middle, 0] <= last:
            low = middle + 1
        else:
            high = middle
    for row in range(low, len(actions)):
        if actions[row, 0] > session:
            break
        symbol, kind = actions[row, 2], actions[row, 1]
        if kind == c.SPLIT:
            _split(v, tape, time, symbol, values[row])
        elif kind == c.DIVIDEND:
            _dividend(v, tape, time, symbol, values[row])
        elif kind == c.RENAME:
            _rename(v, tape, time, symbol, actions[row, 3])
        else:
            _delist(v, tape, time, symbol)


@helper
def _split(v, tape, time, symbol, ratio):
    touched = v.symbols[c.QUANTITY, symbol] != 0.0
    v.symbols[c.QUANTITY, symbol] = round(v.symbols[c.QUANTITY, symbol] * ratio, _DECIMALS)
    v.symbols[c.AVERAGE, symbol] /= ratio
    v.symbols[c.LAST, symbol] /= ratio
    for place in range(v.counts[c.ORDERS]):
        if v.codes[place, c.SYMBOL] != symbol or v.codes[place, c.STATUS] == c.GONE:
            continue
        touched = True
        order = v.orders[place]
        for name in (c.AMOUNT, c.REMAINING):
            order[name] = round(order[name] * ratio, _DECIMALS)
        for name in (c.LIMIT_PRICE, c.STOP_PRICE, c.ANCHOR, c.BRACKET_STOP, c.BRACKET_TARGET):
            order[name] /= ratio
    if touched:
        emit(v, tape, c.K_SPLIT, time, symbol, c.R_NONE, ratio)


@helper
def _dividend(v, tape, time, symbol, value):
    held = v.symbols[c.QUANTITY, symbol]
    if held == 0.0:
        return
    v.account[c.CASH] += held * value
    row = emit(v, tape, c.K_DIVIDEND, time, symbol, c.R_NONE, held * value)
    tape.floats[row, c.E_QUANTITY] = held
    tape.floats[row, c.E_PRICE] = value


@helper
def _rename(v, tape, time, symbol, into):
    if into == symbol:
        return
    own, other = v.symbols[:, symbol], v.symbols[:, into]
    touched = own[c.QUANTITY] != 0.0
    if touched:
        quantity = own[c.QUANTITY] + other[c.QUANTITY]
        if quantity != 0.0:
            paid = own[c.AVERAGE] * own[c.QUANTITY] + other[c.AVERAGE] * other[c.QUANTITY]
            other[c.AVERAGE] = paid / quantity
        other[c.QUANTITY] = quantity
    if v.marks[c.ENDED, symbol] != 0:
        v.marks[c.ENDED, into] = v.marks[c.ENDED, symbol]
    if own[c.LAST] > 0.0:
        for name in (c.LAST, c.MEAN, c.VARIANCE):
            other[name] = own[name]
        v.marks[c.SEEN, into] = v.marks[c.SEEN, symbol]
    if touched:
        v.marks[c.HELD_BARS, into] = v.marks[c.HELD_BARS, symbol]
        for place in (c.STOP_AT, c.TARGET_AT, c.TRAIL_AT):
            v.marks[place, into] = v.marks[place, symbol]
    for place in (c.STOP_AT, c.TARGET_AT, c.TRAIL_AT):
        v.marks[place, symbol] = -1
    for place in range(v.counts[c.ORDERS]):
        if v.codes[place, c.SYMBOL] == symbol and v.codes[place, c.STATUS] == c.LIVE:
            v.codes[place, c.SYMBOL] = into
            touched = True
    for name in (c.QUANTITY, c.AVERAGE, c.LAST, c.MEAN, c.VARIANCE):
        own[name] = 0.0
    own[c.WEIGHT] = np.nan
    v.marks[c.SEEN, symbol] = 0
    v.marks[c.HELD_BARS, symbol] = 0
    v.marks[c.ENDED, symbol] = 0
    # The value is the number of the new symbol.
    if touched:
        emit(v, tape, c.K_RENAME, time, symbol, c.R_NONE, float(into))


@helper
def _delist(v, tape, time, symbol):
    v.marks[c.DELISTED, symbol] = 1
    held, last = v.symbols[c.QUANTITY, symbol], v.symbols[c.LAST, symbol]
    end_exits(v, tape, symbol, time, c.R_DELISTED)
    for place in range(v.counts[c.ORDERS]):
        if v.codes[place, c.SYMBOL] == symbol and v.codes[place, c.STATUS] == c.LIVE:
            cancel(v, tape, c.K_CANCELLED, time, place, c.R_DELISTED)
    v.marks[c.HELD_BARS, symbol] = 0
    if held == 0.0:
        return
    v.account[c.CASH] += held * last
    v.symbols[c.QUANTITY, symbol] = 0.0
    v.symbols[c.AVERAGE, symbol] = 0.0
    row = emit(v, tape, c.K_DELISTING, time, symbol, c.R_NONE, held * last)
    tape.floats[row, c.E_QUANTITY] = held
    tape.floats[row, c.E_PRICE] = last
