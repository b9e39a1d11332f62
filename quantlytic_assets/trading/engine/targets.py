"""From target weights to orders: sizes of the current equity, limits, what is on its way, and the rest as orders."""

from __future__ import annotations

import math

import numpy as np

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.compiling import helper
from quantlytic_assets.trading.engine.orders import add, cancel, exit_kind, to_lot, to_tick
from quantlytic_assets.trading.engine.risk import liquidates
from quantlytic_assets.trading.engine.sizing import sized
from quantlytic_assets.trading.engine.tape import emit, emit_order, refuse

NAN = np.nan
_DUST = 1e-9
# Sums of floats may pass a limit they are equal to.
_ROUNDING = 1e-9


@helper
def count_pending(v):
    """What is on its way of each symbol: the rest of working orders that are no exits."""
    v.symbols[c.PENDING][:] = 0.0
    for place in range(v.counts[c.ORDERS]):
        own = v.codes[place]
        if own[c.STATUS] == c.LIVE and exit_kind(own[c.LEG]) == 0:
            v.symbols[c.PENDING, own[c.SYMBOL]] += own[c.SIDE] * v.orders[place, c.REMAINING]


@helper
def _told(v, tape, time, symbol, weight, reason):
    """Writes a decision that is new, or that is not followed for a new reason; a repeated one is silent."""
    if v.symbols[c.WEIGHT, symbol] == weight and (reason == c.R_NONE or v.marks[c.LAST_REASON, symbol] == reason):
        return False
    row = emit(v, tape, c.K_DECISION, time, symbol, reason, weight)
    tape.integers[row, c.E_DECIDED] = time
    v.symbols[c.WEIGHT, symbol] = weight
    v.marks[c.LAST_REASON, symbol] = reason
    return True


@helper
def _refused(v, tape, time, symbol, weight, reason):
    if _told(v, tape, time, symbol, weight, reason):
        refuse(v, tape, time, symbol, c.ENTRY, 0, NAN, time, reason)


@helper
def _wish(v, p, tape, bar, time, symbol, weight, equity):
    """The value that a symbol is to have; NaN where it is left as it is."""
    held, pending = v.symbols[c.QUANTITY, symbol], v.symbols[c.PENDING, symbol]
    reason = c.R_NONE
    if liquidates(v, p):
        weight, reason = 0.0, c.R_HALTED
        if held == 0.0 and pending == 0.0:
            return NAN
    elif held != 0.0 and v.marks[c.HELD_BARS, symbol] >= p[c.P_MAX_BARS]:
        weight, reason = 0.0, c.R_MAX_BARS
    if weight != weight:
        return NAN
    if abs(weight) > 1.0:
        _refused(v, tape, time, symbol, weight, c.R_BAD_WEIGHT)
        return NAN
    if v.marks[c.ENDED, symbol] != 0 and reason == c.R_NONE:
        if weight * v.marks[c.ENDED, symbol] > 0.0 and p[c.P_REENTER] == 0.0:
            # The signal that led in is still there; the exit overruled it.
            if held == 0.0 and pending == 0.0:
                _told(v, tape, time, symbol, weight, c.R_EXITED)
                return NAN
        else:
            v.marks[c.ENDED, symbol] = 0
    if v.marks[c.DELISTED, symbol] == 1:
        if weight != 0.0:
            _refused(v, tape, time, symbol, weight, c.R_DELISTED)
        return NAN
    if weight < 0.0 and p[c.P_SHORT] == 0.0:
        weight, reason = 0.0, c.R_SHORT
    if weight == 0.0 and held == 0.0 and pending == 0.0:
        _told(v, tape, time, symbol, weight, reason)
        return NAN
    if not bar[c.CLOSE, symbol] > 0.0:
        _refused(v, tape, time, symbol, weight, c.R_NO_PRICE)
        return NAN
    value = sized(v, p, symbol, weight, equity)
    most = p[c.P_MAX_POSITION] * equity
    # False where there is no limit.
    if abs(value) > most:
        value, reason = math.copysign(most, value), c.R_MAX_POSITION
    _told(v, tape, time, symbol, weight, reason)
    return value


@helper
def decide(v, p, tape, bar, time, static, weights):
    """Orders that bring each symbol to its target; `weights` has NaN for what is to be kept."""
    count_pending(v)
    equity = max(v.account[c.EQUITY], 0.0) * (1.0 - p[c.P_BUFFER])
    wanted, kept = 0.0, 0.0
    quantities, lasts, pending, wishes = (
        v.symbols[c.QUANTITY], v.symbols[c.LAST], v.symbols[c.PENDING], v.symbols[c.WANTED],
    )  # fmt: skip
    asked = False
    forced = v.counts[c.HALT] != 0 or p[c.P_MAX_BARS] == p[c.P_MAX_BARS]
    for symbol in range(len(weights)):
        value = NAN
        if forced or weights[symbol] == weights[symbol]:
            value = _wish(v, p, tape, bar, time, symbol, weights[symbol], equity)
        wishes[symbol] = value
        if value == value:
            asked = True
            wanted += abs(value)
        else:
            kept += abs((quantities[symbol] + pending[symbol]) * lasts[symbol])
    if not asked:
        return
    limit = p[c.P_LEVERAGE] * p[c.P_MAX_GROSS] * equity
    scale = 1.0
    if wanted > 0.0 and wanted + kept > limit:
        scale = max(0.0, limit - kept) / wanted
        if scale < 1.0 - _ROUNDING:
            # Of all symbols together, with the share that is left of each target.
            emit(v, tape, c.K_DECISION, time, -1, c.R_MAX_GROSS, scale)
    for symbol in range(len(weights)):
        if wishes[symbol] == wishes[symbol]:
            _order(v, p, tape, symbol, wishes[symbol] * scale, bar[c.CLOSE, symbol], time, static)


@helper
def liquidate(v, p, tape, time, static):
    """Orders at the market for all that is held, as they can be given before a bar opens: at the closes before it."""
    count_pending(v)
    quantities, lasts = v.symbols[c.QUANTITY], v.symbols[c.LAST]
    for symbol in range(len(quantities)):
        if quantities[symbol] != 0.0 and lasts[symbol] > 0.0 and v.marks[c.DELISTED, symbol] == 0:
            _told(v, tape, time, symbol, 0.0, c.R_HALTED)
            _order(v, p, tape, symbol, 0.0, lasts[symbol], time, static)


@helper
def _order(v, p, tape, symbol, value, price, time, static):
    lot = static[c.LOT, symbol]
    wanted = math.copysign(to_lot(abs(value) / price, lot), value)
    held, pending = v.symbols[c.QUANTITY, symbol], v.symbols[c.PENDING, symbol]
    ahead = held + pending
    if wanted == 0.0:
        change = -ahead
        if ahead == 0.0 and value != 0.0:
            _refused(v, tape, time, symbol, v.symbols[c.WEIGHT, symbol], c.R_BELOW_LOT)
    else:
        change = wanted - ahead
        if wanted * ahead > 0.0 and abs(change) * price <= p[c.P_BAND] * abs(value):
            return
    if pending * change < 0.0:
        # It is called back, rather than undone by an order against it.
        for place in range(v.counts[c.ORDERS]):
            own = v.codes[place]
            if own[c.SYMBOL] == symbol and own[c.STATUS] == c.LIVE and exit_kind(own[c.LEG]) == 0:
                cancel(v, tape, c.K_CANCELLED, time, place, c.R_SUPERSEDED)
        v.symbols[c.PENDING, symbol] = 0.0
        ahead = held
        change = wanted - ahead
    if wanted != 0.0 and wanted * ahead >= 0.0:
        # What a split left of a lot stays until all of it goes.
        change = math.copysign(to_lot(abs(change), lot), change)
    if abs(change) <= _DUST:
        return
    side = 1 if change > 0.0 else -1
    if wanted != 0.0 and abs(change) * price < static[c.MIN_NOTIONAL, symbol]:
        _refused(v, tape, time, symbol, v.symbols[c.WEIGHT, symbol], c.R_BELOW_MINIMUM)
        return
    reducing = min(abs(change), abs(ahead)) if change * ahead < 0.0 else 0.0
    if reducing > _DUST:
        leg = c.REDUCE
        if v.marks[c.LAST_REASON, symbol] == c.R_MAX_BARS:
            leg = c.TIME_EXIT
        elif liquidates(v, p):
            leg = c.LIQUIDATION
        _send(v, p, tape, symbol, side, reducing, price, leg, time, static)
    if abs(change) - reducing > _DUST:
        if v.counts[c.HALT] != 0:
            _refused(v, tape, time, symbol, v.symbols[c.WEIGHT, symbol], c.R_HALTED)
        elif v.marks[c.COOLDOWN, symbol] > 0:
            _refused(v, tape, time, symbol, v.symbols[c.WEIGHT, symbol], c.R_COOLDOWN)
        else:
            _send(v, p, tape, symbol, side, abs(change) - reducing, price, c.ENTRY, time, static)


@helper
def _send(v, p, tape, symbol, side, quantity, price, leg, time, static):
    kind, force = int(p[c.P_TYPE]), int(p[c.P_FORCE])
    if leg == c.TIME_EXIT or leg == c.LIQUIDATION:
        kind, force = c.MARKET, c.GTC
    limit, stop, trail = NAN, NAN, NAN
    tick = static[c.TICK, symbol]
    if kind == c.LIMIT:
        limit = to_tick(price * (1.0 - side * p[c.P_LIMIT_OFFSET]), tick, side > 0)
    elif kind == c.STOP or kind == c.STOP_LIMIT:
        stop = to_tick(price * (1.0 + side * p[c.P_STOP_OFFSET]), tick, side < 0)
        if kind == c.STOP_LIMIT:
            limit = to_tick(stop * (1.0 + side * p[c.P_LIMIT_OFFSET]), tick, side > 0)
    elif kind == c.TRAILING_STOP:
        trail = p[c.P_TRAIL]
        stop = to_tick(price * (1.0 + side * trail), tick, side < 0)
    place = add(v, symbol, side, kind, force, leg, time, time, quantity, limit, stop, trail, price)
    v.codes[place, c.REDUCE_ONLY] = 0 if leg == c.ENTRY else 1
    # What is refused after this is refused anew.
    v.marks[c.LAST_REASON, symbol] = c.R_NONE
    emit_order(v, tape, c.K_ACCEPTED, time, place, c.R_NONE)
