"""The tape: rows of events as the kernel writes them, numbered on from the last one the account has seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.compiling import helper

NAN = np.nan


class Tape(NamedTuple):
    """Rows of integers and floats, how many are used, and by how many it moves: 0 writes on one row again and again."""

    integers: np.ndarray
    floats: np.ndarray
    used: np.ndarray
    pace: int


@helper
def emit(v, tape, kind, time, symbol, reason, value):
    """Writes an event; returns its row, for what only some kinds have."""
    row = tape.used[0]
    tape.used[0] = row + tape.pace
    v.counts[c.NEXT_EVENT] += 1
    i, f = tape.integers, tape.floats
    i[row, c.E_SEQ] = v.counts[c.NEXT_EVENT]
    i[row, c.E_TIME] = time
    i[row, c.E_KIND] = kind
    i[row, c.E_SYMBOL] = symbol
    i[row, c.E_ORDER] = 0
    i[row, c.E_LEG] = -1
    i[row, c.E_SIDE] = 0
    i[row, c.E_TYPE] = -1
    i[row, c.E_REASON] = reason
    i[row, c.E_AMBIGUOUS] = 0
    i[row, c.E_DECIDED] = 0
    i[row, c.E_SESSION] = v.counts[c.LAST_SESSION]
    for place in range(c.E_VALUE):
        f[row, place] = NAN
    f[row, c.E_CASH] = v.account[c.CASH]
    if symbol >= 0:
        f[row, c.E_POSITION] = v.symbols[c.QUANTITY, symbol]
    f[row, c.E_VALUE] = value
    return row


@helper
def emit_order(v, tape, kind, time, order, reason):
    """Writes an event of an order, as it stands; returns its row."""
    own, prices = v.codes[order], v.orders[order]
    row = emit(v, tape, kind, time, own[c.SYMBOL], reason, NAN)
    i, f = tape.integers, tape.floats
    i[row, c.E_ORDER] = own[c.ID]
    i[row, c.E_LEG] = own[c.LEG]
    i[row, c.E_SIDE] = own[c.SIDE]
    i[row, c.E_TYPE] = own[c.TYPE]
    i[row, c.E_DECIDED] = own[c.DECIDED]
    f[row, c.E_QUANTITY] = prices[c.AMOUNT]
    f[row, c.E_PRICE] = prices[c.LIMIT_PRICE]
    f[row, c.E_STOP] = prices[c.STOP_PRICE]
    return row


@helper
def refuse(v, tape, time, symbol, leg, side, quantity, decided, reason):
    """Writes that an order was refused; it has a number all the same."""
    row = emit(v, tape, c.K_REJECTED, time, symbol, reason, NAN)
    i = tape.integers
    i[row, c.E_ORDER] = v.counts[c.NEXT_ORDER]
    v.counts[c.NEXT_ORDER] += 1
    i[row, c.E_LEG] = leg
    i[row, c.E_SIDE] = side
    i[row, c.E_DECIDED] = decided
    tape.floats[row, c.E_QUANTITY] = quantity
