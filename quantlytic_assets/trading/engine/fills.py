"""Fills: how much of an order a bar can take, what the account is afterwards, and what that does to other orders."""

from __future__ import annotations

import numpy as np

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.compiling import helper
from quantlytic_assets.trading.engine.costs import commission, commission_of, slipped
from quantlytic_assets.trading.engine.exits import protect
from quantlytic_assets.trading.engine.orders import cancel, drop, exit_kind, follow, quote, to_lot
from quantlytic_assets.trading.engine.tape import emit_order

NAN = np.nan
# Shares are rounded to this many decimals, or sums of parts would leave a trace.
_DECIMALS = 9
_DUST = 1e-9
# Sums of floats may pass a limit they are equal to.
_ROUNDING = 1e-9


@helper
def work(v, p, tape, bar, moments, static, atr, opening, closing):
    """All working orders against one bar: what happens at its open first, then what happens within it, then its close.

    Within each of these the orders come in the order of their submission.
    """
    latest = c.AT_OPEN
    moment = c.AT_OPEN
    while moment <= latest:
        place = 0
        # The number of orders grows under way: an entry brings its exits.
        while place < v.counts[c.ORDERS]:
            own = v.codes[place]
            if moment == c.AT_OPEN or own[c.PHASE] == c.UNSEEN:
                latest = max(latest, _look(v, p, place, bar, moments, opening, closing))
            if own[c.PHASE] != moment or own[c.STATUS] == c.GONE:
                place += 1
                continue
            first, ambiguous = _first_of(v, place, moment)
            execute(v, p, tape, first, bar, moments, static, atr, ambiguous)
            v.codes[first, c.PHASE] = c.NOWHERE
            if first == place:
                place += 1
        moment += 1


@helper
def _look(v, p, place, bar, moments, opening, closing):
    own = v.codes[place]
    own[c.PHASE] = c.NOWHERE
    if own[c.STATUS] == c.GONE or own[c.FROM] > moments[c.OPENS]:
        return c.NOWHERE
    if own[c.FIRST_SESSION] < 0:
        own[c.FIRST_SESSION] = moments[c.SESSION]
    # NaN where there is no bar.
    if not bar[c.CLOSE, own[c.SYMBOL]] > 0.0:
        return c.NOWHERE
    moment, price = quote(v, p, place, bar, opening, closing)
    own[c.PHASE] = moment
    v.orders[place, c.QUOTED] = price
    return moment


@helper
def _first_of(v, place, moment):
    """Which order is to fill before the one at `place`, or that one: (place, whether nobody can know it).

    Of a group whose stop and target are both reached within a bar the stop comes first, of two stops the nearer one.
    """
    own = v.codes[place]
    group = own[c.GROUP]
    born_within = own[c.BORN] == v.counts[c.BAR] and own[c.BORN_AT] == c.WITHIN
    first, ambiguous = place, 1 if born_within else 0
    if group == 0 or moment == c.AT_OPEN:
        return first, ambiguous
    for other in range(v.counts[c.ORDERS]):
        rival = v.codes[other]
        if rival[c.GROUP] != group or rival[c.STATUS] == c.GONE or other == place or rival[c.PHASE] != moment:
            continue
        if (rival[c.TYPE] == c.LIMIT) != (own[c.TYPE] == c.LIMIT):
            ambiguous = 1
        if rival[c.TYPE] == c.LIMIT:
            continue
        nearer = own[c.SIDE] * (v.orders[other, c.QUOTED] - v.orders[first, c.QUOTED]) < 0.0
        if v.codes[first, c.TYPE] == c.LIMIT or nearer:
            first = other
    return first, ambiguous


@helper
def _affordable(v, p, symbol, side, quantity, price, fee, lot):
    """How much of a quantity cash and leverage allow; what makes a position smaller is always allowed."""
    held = v.symbols[c.QUANTITY, symbol]
    closes = min(quantity, max(0.0, -side * held))
    if closes >= quantity:
        return quantity
    mark = v.symbols[c.LAST, symbol]
    limit = p[c.P_LEVERAGE] * p[c.P_MAX_GROSS]
    # The symbol itself is worth what it is traded at.
    equity = v.account[c.CASH] + v.account[c.NET] + held * (price - mark) - fee
    others = v.account[c.GROSS] - abs(held) * mark
    room = limit * equity - others
    if p[c.P_LEVERAGE] <= 1.0 and side > 0:
        # Proceeds of what was sold short can't be spent, beyond what covers it.
        room = (
            min(room, v.account[c.CASH] - fee + held * price)
            if held > 0.0
            else min(room, v.account[c.CASH] - fee - closes * price)
        )
    after = abs(held + side * quantity) * price
    if after <= room + _ROUNDING * max(1.0, abs(equity)):
        return quantity
    most = max(0.0, room / price)
    opens = max(0.0, most - (abs(held) - closes))
    return closes + to_lot(min(opens, quantity - closes), lot)


@helper
def execute(v, p, tape, place, bar, moments, static, atr, ambiguous):
    """Fills of an order what can be filled at its quoted price."""
    own, prices = v.codes[place], v.orders[place]
    s, side = own[c.SYMBOL], own[c.SIDE]
    held = v.symbols[c.QUANTITY, s]
    at_open = own[c.PHASE] == c.AT_OPEN
    time = moments[c.OPENS] if at_open else moments[c.CLOSES]
    wanted = prices[c.REMAINING]
    if own[c.REDUCE_ONLY] == 1 or (side < 0 and p[c.P_SHORT] == 0.0):
        wanted = min(wanted, -side * held)
        if wanted <= _DUST:
            cancel(v, tape, c.K_CANCELLED, time, place, c.R_NOTHING)
            return
    lot, volume = static[c.LOT, s], bar[c.VOLUME, s]
    if v.marks[c.USED_BAR, s] != v.counts[c.BAR]:
        v.marks[c.USED_BAR, s] = v.counts[c.BAR]
        v.symbols[c.USED, s] = 0.0
    used = v.symbols[c.USED, s]
    quantity = wanted
    # Without a cap, or where nobody knows the volume, it is no limit.
    if p[c.P_VOLUME_CAP] == p[c.P_VOLUME_CAP] and volume == volume:
        left = p[c.P_VOLUME_CAP] * volume - used
        if left < quantity:
            quantity = to_lot(max(0.0, left), lot)
    if quantity <= _DUST:
        return
    reference = prices[c.QUOTED]
    passive = own[c.TYPE] == c.LIMIT or own[c.TYPE] == c.STOP_LIMIT
    price = reference
    if not passive or p[c.P_FILL_AT_CLOSE] > 0.0:
        price = slipped(p, reference, side, quantity, used, volume)
        if passive and side * (price - prices[c.LIMIT_PRICE]) > 0.0:
            return
    if not price > 0.0:
        return
    # The fee of the whole is at least that of a part; with that of the part a little more may do.
    part = _affordable(v, p, s, side, quantity, price, commission_of(p, quantity * price, quantity), lot)
    if part < quantity:
        more = _affordable(v, p, s, side, quantity, price, commission_of(p, part * price, part), lot)
        if more > part and _affordable(v, p, s, side, more, price, commission_of(p, more * price, more), lot) < more:
            more = part
        part = more
    quantity = part
    if quantity <= _DUST:
        return
    fee = commission(p, prices, quantity, price)
    book(v, s, side * quantity, price, fee)
    v.symbols[c.USED, s] = used + quantity
    prices[c.REMAINING] = round(prices[c.REMAINING] - quantity, _DECIMALS)
    prices[c.NOTIONAL] += quantity * price
    prices[c.CHARGED] += fee
    row = emit_order(v, tape, c.K_FILL, time, place, c.R_NONE)
    tape.integers[row, c.E_AMBIGUOUS] = ambiguous
    told = tape.floats
    told[row, c.E_QUANTITY] = quantity
    told[row, c.E_PRICE] = price
    told[row, c.E_COMMISSION] = fee
    told[row, c.E_SLIPPAGE] = abs(price - reference) * quantity
    told[row, c.E_VALUE] = prices[c.REMAINING]
    afterwards(v, p, tape, place, held, price, time, atr, static, at_open)


@helper
def book(v, symbol, change, price, fee):
    """What a change of shares at a price does to the account."""
    held, mark = v.symbols[c.QUANTITY, symbol], v.symbols[c.LAST, symbol]
    now = round(held + change, _DECIMALS)
    if abs(now) <= _DUST:
        now = 0.0
    if now == 0.0 or held * now < 0.0 or held == 0.0:
        v.symbols[c.AVERAGE, symbol] = price if now != 0.0 else 0.0
    elif abs(now) > abs(held):
        v.symbols[c.AVERAGE, symbol] = (v.symbols[c.AVERAGE, symbol] * held + price * change) / now
    v.symbols[c.QUANTITY, symbol] = now
    v.account[c.CASH] -= change * price + fee
    if not mark > 0.0:
        # The first price that is known of it.
        mark = price
        v.symbols[c.LAST, symbol] = price
    v.account[c.NET] += (now - held) * mark
    v.account[c.GROSS] += (abs(now) - abs(held)) * mark


@helper
def afterwards(v, p, tape, place, held, price, time, atr, static, at_open):
    """What a fill means for other orders: its group ends, a position's exits begin, follow its size, or end."""
    own = v.codes[place]
    s = own[c.SYMBOL]
    kind, parent = exit_kind(own[c.LEG]), own[c.PARENT]
    now = v.symbols[c.QUANTITY, s]
    if kind == 0 and own[c.GROUP] != 0:
        for other in range(v.counts[c.ORDERS]):
            same = v.codes[other, c.GROUP] == own[c.GROUP] and other != place
            if same and v.codes[other, c.STATUS] == c.LIVE:
                cancel(v, tape, c.K_CANCELLED, time, other, c.R_OCO)
    if kind in (1, 3):
        v.marks[c.COOLDOWN, s] = np.int64(p[c.P_COOLDOWN])
    if now == 0.0 and (kind > 0 or own[c.LEG] == c.TIME_EXIT):
        v.marks[c.ENDED, s] = 1 if held > 0.0 else -1
    if kind > 0 and now == 0.0:
        # What had been meant to be bought is not bought after its own exit.
        for other in range(v.counts[c.ORDERS]):
            if v.codes[other, c.ID] == parent and v.codes[other, c.STATUS] == c.LIVE:
                cancel(v, tape, c.K_CANCELLED, time, other, c.R_CLOSED)
    done = v.orders[place, c.REMAINING] <= _DUST
    if done:
        v.orders[place, c.REMAINING] = 0.0
        drop(v, place)
    protect(v, p, tape, place, held, price, time, atr, static, at_open)


@helper
def end_of_bar(v, tape, bar, moments, closing):
    """After a bar: what had to fill at once or in this session ends, trailing stops move."""
    for place in range(v.counts[c.ORDERS]):
        own = v.codes[place]
        if own[c.STATUS] == c.GONE or own[c.FIRST_SESSION] < 0:
            continue
        if own[c.FORCE] == c.IOC:
            cancel(v, tape, c.K_EXPIRED, moments[c.CLOSES], place, c.R_IOC)
        elif closing and own[c.FORCE] == c.DAY:
            cancel(v, tape, c.K_EXPIRED, moments[c.CLOSES], place, c.R_SESSION_END)
        elif own[c.TYPE] == c.TRAILING_STOP and own[c.TRIGGERED] == 0 and bar[c.CLOSE, own[c.SYMBOL]] > 0.0:
            follow(v, place, bar)
