"""The engine's step, compiled: state and the cross-section of one time → events, over as many times as there are.

A step has two halves. BARS: the session's corporate actions, halts at the open, fills of working orders, what ends with
the bar, mark to market. DECIDE: halts, orders by hand, targets → sizes → risk → new orders. What is decided on a bar
works from the first bar that opens when the deciding one is available, so the second half sees nothing of a later bar.
"""

from __future__ import annotations

from typing import Any

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.actions import act, overnight
from quantlytic_assets.trading.engine.compiling import entry, fingerprint, helper
from quantlytic_assets.trading.engine.fills import end_of_bar, work
from quantlytic_assets.trading.engine.intake import take_in, take_in_at_open
from quantlytic_assets.trading.engine.orders import cancel, compact
from quantlytic_assets.trading.engine.risk import begin_session, check, mark, take_closes
from quantlytic_assets.trading.engine.state import views
from quantlytic_assets.trading.engine.tape import Tape
from quantlytic_assets.trading.engine.targets import decide


@helper
def _begin(v, p, tape, moments, actions, values):
    """The first bar of a session."""
    last, session, time = v.counts[c.LAST_SESSION], moments[c.SESSION], moments[c.OPENS]
    v.counts[c.LAST_SESSION] = session
    # Of what a broker fills it says when it is over.
    for place in range(v.counts[c.ORDERS] if p[c.P_FILLED_ELSEWHERE] == 0.0 else 0):
        own = v.codes[place]
        over = own[c.FORCE] == c.DAY and 0 <= own[c.FIRST_SESSION] < session
        if over and own[c.STATUS] == c.LIVE:
            cancel(v, tape, c.K_EXPIRED, time, place, c.R_SESSION_END)
    begin_session(v, p, tape, time, last)
    if last > -(2**62):
        overnight(v, p, tape, time, session - last)
    act(v, tape, time, actions, values, last, session)
    mark(v)


@helper
def bars_half(v, p, tape, bar, moments, static, atr, actions, values, intake, first, last):
    """Fills and marks of one time, after the rows of the intake from `first` to `last` that come before them.

    Orders that a broker fills are left as they are: its reports are settled between the steps.
    """
    v.counts[c.BAR] += 1
    opening = moments[c.SESSION] > v.counts[c.LAST_SESSION]
    closing = moments[c.LAST_BAR] == 1
    if opening:
        _begin(v, p, tape, moments, actions, values)
    if last > first:
        take_in_at_open(v, p, tape, moments[c.OPENS], static, intake, first, last)
    if p[c.P_FILLED_ELSEWHERE] > 0.0:
        compact(v)
    elif v.counts[c.ORDERS] > 0:
        work(v, p, tape, bar, moments, static, atr, opening, closing)
        end_of_bar(v, tape, bar, moments, closing)
        compact(v)
    take_closes(v, p, bar)
    mark(v)


@helper
def room_needed(v, rows, actions):
    """Bounds of the orders and events that one half of a step can add: (orders, events)."""
    symbols, orders = v.symbols.shape[1], v.counts[c.ORDERS]
    # An order brings three exits at most, a symbol an entry and a reduction, each with a decision.
    return orders * 4 + symbols * 2 + rows, orders * 16 + symbols * 8 + rows * 4 + actions + 16


def _advance(mark_of_sources: int) -> Any:
    # The number is closed over, so that the kept machine code is found by it.
    def advance(floats, integers, room, p, bars, times, static, actions, values, targets, atrs, curve, told,
                told_values, used, pace, intake, prices, offsets, start, half, stop, last_half):  # fmt: skip
        """Runs the halves of steps from (start, half) to (stop - 1, last_half); returns where and why it stopped.

        targets and atrs are [time, symbol] or have no rows; offsets[t] is the first row of the intake for time t.
        """
        symbols = bars.shape[2]
        v = views(floats, integers, symbols, room)
        tape = Tape(told, told_values, used, pace)
        nothing = floats[: min(mark_of_sources, 0)]
        has_targets, has_atr, has_intake = len(targets) > 0, len(atrs) > 0, len(offsets) > 0
        plain = not has_targets and p[c.P_MAX_BARS] != p[c.P_MAX_BARS]
        for t in range(start, stop):
            bar, moments = bars[t], times[t]
            while half <= c.DECIDE:
                if t == stop - 1 and half > last_half:
                    break
                first, last = (offsets[t], offsets[t + 1]) if has_intake else (0, 0)
                orders, events = room_needed(v, max(last - first, 0), len(actions))
                if orders > room:
                    return t, half, c.ORDERS_FULL, orders
                if pace > 0 and used[0] + events > len(told):
                    return t, half, c.EVENTS_FULL, events
                if half == c.BARS:
                    atr = atrs[t] if has_atr else nothing
                    bars_half(v, p, tape, bar, moments, static, atr, actions, values, intake, first, last)
                else:
                    time = moments[c.AVAILABLE]
                    check(v, p, tape, time)
                    if last > first:
                        take_in(v, p, tape, time, static, intake, prices, first, last)
                    if has_targets:
                        decide(v, p, tape, bar, time, static, targets[t])
                    elif not plain or v.counts[c.HALT] != 0:
                        wishes = v.symbols[c.WANTED]
                        wishes[:] = float("nan")
                        decide(v, p, tape, bar, time, static, wishes)
                    compact(v)
                    curve[t, 0] = v.account[c.EQUITY]
                    curve[t, 1] = v.account[c.CASH]
                    curve[t, 2] = v.account[c.GROSS]
                half += 1
            half = c.BARS
        return stop, c.BARS, c.DONE, 0

    return advance


advance = entry(_advance(fingerprint()))
