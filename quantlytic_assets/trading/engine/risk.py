"""What an account is worth, and when it is halted and goes on."""

from __future__ import annotations

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.compiling import helper
from quantlytic_assets.trading.engine.orders import cancel, exit_kind
from quantlytic_assets.trading.engine.tape import emit

_ENOUGH_RETURNS = 20


@helper
def mark(v):
    """The account at the last known closes."""
    net, gross = 0.0, 0.0
    quantities, lasts = v.symbols[c.QUANTITY], v.symbols[c.LAST]
    for symbol in range(len(quantities)):
        value = quantities[symbol] * lasts[symbol]
        net += value
        gross += abs(value)
    v.account[c.NET] = net
    v.account[c.GROSS] = gross
    v.account[c.EQUITY] = v.account[c.CASH] + net
    v.account[c.PEAK] = max(v.account[c.PEAK], v.account[c.EQUITY])


@helper
def take_closes(v, p, bar):
    """The closes of this bar become the last known; bars held, pauses and, where sizes need them, returns go on."""
    closes, lasts, quantities = bar[c.CLOSE], v.symbols[c.LAST], v.symbols[c.QUANTITY]
    held, pause = v.marks[c.HELD_BARS], v.marks[c.COOLDOWN]
    if p[c.P_SIZING] >= c.VOLATILITY_TARGET:
        _follow_returns(v, p, closes)
    for symbol in range(len(closes)):
        # NaN where there is no bar.
        if closes[symbol] > 0.0:
            lasts[symbol] = closes[symbol]
            if quantities[symbol] != 0.0:
                held[symbol] += 1
            if pause[symbol] > 0:
                pause[symbol] -= 1


@helper
def _follow_returns(v, p, closes):
    weight = p[c.P_DECAY]
    for symbol in range(len(closes)):
        last = v.symbols[c.LAST, symbol]
        if not (closes[symbol] > 0.0 and last > 0.0):
            continue
        change = closes[symbol] / last - 1.0
        seen = v.marks[c.SEEN, symbol] + 1
        v.marks[c.SEEN, symbol] = seen
        # Plain averages until the weights of the window are reached.
        share = max(weight, 1.0 / seen)
        away = change - v.symbols[c.MEAN, symbol]
        v.symbols[c.MEAN, symbol] += share * away
        v.symbols[c.VARIANCE, symbol] = (1.0 - share) * (v.symbols[c.VARIANCE, symbol] + share * away * away)


@helper
def liquidates(v, p):
    """Whether the account is halted and what is held is to be closed."""
    if v.counts[c.HALT] == 0:
        return False
    wanted = v.counts[c.HALT_LIQUIDATES]
    return p[c.P_LIQUIDATE] > 0.0 if wanted == c.BY_SETTINGS else wanted == c.LIQUIDATE


@helper
def halt(v, p, tape, time, reason, wanted):
    """Halts the account: what would make a position is cancelled, and refused from now on.

    wanted: whether what is held is closed (BY_SETTINGS, LIQUIDATE or KEEP). Where it is, reductions that wait for a
    price are cancelled too, for they would be in the way of the liquidation.
    """
    v.counts[c.HALT] = reason
    v.counts[c.HALT_SESSIONS] = 0
    v.counts[c.HALT_LIQUIDATES] = wanted
    emit(v, tape, c.K_HALT, time, -1, reason, v.account[c.EQUITY])
    closing = liquidates(v, p)
    for place in range(v.counts[c.ORDERS]):
        own = v.codes[place]
        if own[c.STATUS] != c.LIVE or exit_kind(own[c.LEG]) != 0:
            continue
        if own[c.REDUCE_ONLY] == 0 or (closing and own[c.TYPE] != c.MARKET):
            cancel(v, tape, c.K_CANCELLED, time, place, c.R_HALTED)


@helper
def resume(v, tape, time, reason):
    """Lets the account go on; its drawdown and its returns are counted anew."""
    if v.counts[c.HALT] == c.R_VAR or v.counts[c.HALT] == c.R_BY_HAND:
        v.counts[c.RETURNS] = 0
    v.counts[c.HALT] = 0
    v.counts[c.HALT_LIQUIDATES] = c.BY_SETTINGS
    v.account[c.PEAK] = v.account[c.EQUITY]
    v.account[c.DAY_START] = v.account[c.EQUITY]
    emit(v, tape, c.K_RESUME, time, -1, reason, v.account[c.EQUITY])


@helper
def _quantile(v, count, share):
    """The quantile of past returns, between the two nearest of them; sorts in the second half of their room."""
    known = v.returns
    base = c.RETURNS_WINDOW
    for taken in range(count):
        value = known[taken]
        place = base + taken
        while place > base and known[place - 1] > value:
            known[place] = known[place - 1]
            place -= 1
        known[place] = value
    at = share * (count - 1)
    below = int(at)
    above = min(below + 1, count - 1)
    return known[base + below] + (at - below) * (known[base + above] - known[base + below])


@helper
def begin_session(v, p, tape, time, last):
    """Closes the books of the session before: its return, whether a halt is over, whether the VaR is too high."""
    equity = v.account[c.EQUITY]
    if last > -(2**62):
        before = v.account[c.SESSION_EQUITY]
        at = v.counts[c.RETURNS] % c.RETURNS_WINDOW
        v.returns[at] = equity / before - 1.0 if before > 0.0 else 0.0
        v.counts[c.RETURNS] += 1
    v.account[c.SESSION_EQUITY] = equity
    v.account[c.DAY_START] = equity
    reason = v.counts[c.HALT]
    if reason != 0:
        v.counts[c.HALT_SESSIONS] += 1
        over = reason == c.R_DAILY_LOSS
        if reason == c.R_DRAWDOWN or reason == c.R_VAR:
            # False where it is NaN: by hand.
            over = v.counts[c.HALT_SESSIONS] >= p[c.P_RESUME]
        if over:
            resume(v, tape, time, c.R_RULE)
    known = min(v.counts[c.RETURNS], c.RETURNS_WINDOW)
    limited = p[c.P_VAR] == p[c.P_VAR] and v.counts[c.HALT] == 0 and known >= _ENOUGH_RETURNS
    if limited and -_quantile(v, known, 0.05) > p[c.P_VAR]:
        halt(v, p, tape, time, c.R_VAR, c.BY_SETTINGS)


@helper
def check(v, p, tape, time):
    """Halts the account where it has lost more than it may."""
    if v.counts[c.HALT] != 0:
        return
    equity = v.account[c.EQUITY]
    if equity <= 0.0:
        halt(v, p, tape, time, c.R_RUINED, c.BY_SETTINGS)
    # False where there is no limit.
    elif 1.0 - equity / v.account[c.DAY_START] > p[c.P_DAILY_LOSS]:
        halt(v, p, tape, time, c.R_DAILY_LOSS, c.BY_SETTINGS)
    elif 1.0 - equity / v.account[c.PEAK] > p[c.P_DRAWDOWN]:
        halt(v, p, tape, time, c.R_DRAWDOWN, c.BY_SETTINGS)
