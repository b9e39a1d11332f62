"""Settlement: what a broker reports of an account's orders changes the account, between two steps of the engine.

Where a broker fills the orders the steps fill none (`filled_elsewhere`): they decide, size and check, and the account
changes with the broker's reports, one after the other. A fill does what a simulated one does: exits begin, follow the
position and end. An order that the account has called back may be filled all the same, before the broker hears of it;
that fill counts like any other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

import numpy as np

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.compiling import entry, fingerprint, helper
from quantlytic_assets.trading.engine.events import Events, leg_name
from quantlytic_assets.trading.engine.exits import end_exits
from quantlytic_assets.trading.engine.fills import afterwards, book
from quantlytic_assets.trading.engine.market import day_number, micros
from quantlytic_assets.trading.engine.orders import add, cancel, compact, exit_kind, find
from quantlytic_assets.trading.engine.risk import mark
from quantlytic_assets.trading.engine.settings import EngineSettings
from quantlytic_assets.trading.engine.state import State, views
from quantlytic_assets.trading.engine.tape import Tape, emit, emit_order

NAN = math.nan
_DECIMALS = 9
_REDUCING = (c.REDUCE, c.TIME_EXIT, c.LIQUIDATION)
End = Literal["rejected", "cancelled", "expired"]
_ENDS: dict[End, tuple[int, int]] = {
    "rejected": (c.K_REJECTED, c.R_REJECTED_THERE),
    "cancelled": (c.K_CANCELLED, c.R_CANCELLED_THERE),
    "expired": (c.K_EXPIRED, c.R_EXPIRED_THERE),
}


@dataclass(frozen=True)
class Ordered:
    """An order that reports are of, as its account knows it.

    number: the account's. side: 1 buys, -1 sells. type, leg: in the engine's words.
    """

    number: int
    symbol: str
    side: int
    type: str
    leg: str
    decision_time: datetime


@dataclass(frozen=True)
class BrokerReport:
    """A report that changes an account; times are UTC.

    filled: quantity shares at price, with a commission and what is left of the order. corrected: an earlier fill of
    quantity_before at price_before is now one of quantity at price. charged: a commission that came later. ended: why,
    in `end`.
    """

    kind: Literal["filled", "corrected", "charged", "ended"]
    order: Ordered
    time: datetime
    session: date
    quantity: float = NAN
    price: float = NAN
    commission: float = 0.0
    left: float = NAN
    quantity_before: float = NAN
    price_before: float = NAN
    end: End | None = None


@helper
def _filled(v, p, tape, told, values, static, atr):
    s, side, time, number = told[c.RP_SYMBOL], told[c.RP_SIDE], told[c.RP_TIME], told[c.RP_ORDER]
    quantity, price, fee = values[c.RP_QUANTITY], values[c.RP_PRICE], values[c.RP_COMMISSION]
    place = find(v, number)
    if place < 0:
        # It was called back here, and the broker was quicker.
        following = v.counts[c.NEXT_ORDER]
        place = add(
            v, s, side, told[c.RP_TYPE], c.DAY, told[c.RP_LEG], told[c.RP_DECIDED], told[c.RP_DECIDED], quantity,
            NAN, NAN, NAN, NAN,
        )  # fmt: skip
        v.counts[c.NEXT_ORDER] = following
        v.codes[place, c.ID] = number
        v.codes[place, c.REDUCE_ONLY] = 1 if exit_kind(told[c.RP_LEG]) > 0 or told[c.RP_LEG] in _REDUCING else 0
    order = v.orders[place]
    held = v.symbols[c.QUANTITY, s]
    book(v, s, side * quantity, price, fee)
    order[c.REMAINING] = max(0.0, round(order[c.REMAINING] - quantity, _DECIMALS))
    order[c.NOTIONAL] += quantity * price
    order[c.CHARGED] += fee
    row = emit_order(v, tape, c.K_FILL, time, place, c.R_NONE)
    floats = tape.floats
    floats[row, c.E_QUANTITY] = quantity
    floats[row, c.E_PRICE] = price
    floats[row, c.E_COMMISSION] = fee
    # What it cost beyond a simulated fill is known when its bar is.
    floats[row, c.E_SLIPPAGE] = 0.0
    floats[row, c.E_VALUE] = values[c.RP_LEFT]
    v.codes[place, c.PHASE] = c.WITHIN
    afterwards(v, p, tape, place, held, price, time, atr, static, False)


@helper
def _corrected(v, tape, told, values):
    s, side, time = told[c.RP_SYMBOL], told[c.RP_SIDE], told[c.RP_TIME]
    before, now = values[c.RP_QUANTITY_BEFORE], values[c.RP_QUANTITY]
    money = -side * (now * values[c.RP_PRICE] - before * values[c.RP_PRICE_BEFORE])
    held = v.symbols[c.QUANTITY, s]
    after = round(held + side * (now - before), _DECIMALS)
    average = v.symbols[c.AVERAGE, s]
    if after != 0.0 and held * after > 0.0 and side * held > 0.0:
        v.symbols[c.AVERAGE, s] = (average * held - money) / after
    elif after != 0.0 and held * after <= 0.0:
        v.symbols[c.AVERAGE, s] = values[c.RP_PRICE]
    elif after == 0.0:
        v.symbols[c.AVERAGE, s] = 0.0
    v.symbols[c.QUANTITY, s] = after
    v.account[c.CASH] += money
    row = emit(v, tape, c.K_CORRECTION, time, s, c.R_NONE, money)
    integers, floats = tape.integers, tape.floats
    integers[row, c.E_ORDER] = told[c.RP_ORDER]
    integers[row, c.E_LEG] = told[c.RP_LEG]
    integers[row, c.E_SIDE] = side
    integers[row, c.E_TYPE] = told[c.RP_TYPE]
    integers[row, c.E_DECIDED] = told[c.RP_DECIDED]
    floats[row, c.E_QUANTITY] = now - before
    floats[row, c.E_PRICE] = values[c.RP_PRICE]
    if after == held:
        return
    if after == 0.0 or held * after < 0.0:
        end_exits(v, tape, s, time, c.R_CLOSED)
        return
    for kind in range(3):
        place = v.marks[c.STOP_AT + kind, s]
        if place >= 0:
            exit_order = v.orders[place]
            exit_order[c.AMOUNT] += abs(after) - exit_order[c.REMAINING]
            exit_order[c.REMAINING] = abs(after)
            emit_order(v, tape, c.K_REPLACED, time, place, c.R_NONE)


def _settle(mark_of_sources: int) -> Any:
    # The number is closed over, so that the kept machine code is found by it.
    def settle_one(floats, integers, room, p, static, atr, told, values, written, written_floats, used):
        """Takes one report in; the events begin at `used` and have the report's session."""
        v = views(floats, integers, static.shape[1], room)
        tape = Tape(written, written_floats, used, 1 + min(mark_of_sources, 0))
        first = used[0]
        action, time = told[c.RP_ACTION], told[c.RP_TIME]
        if action == c.FILLED:
            _filled(v, p, tape, told, values, static, atr)
        elif action == c.CORRECTED:
            _corrected(v, tape, told, values)
        elif action == c.CHARGED_LATER:
            v.account[c.CASH] -= values[c.RP_COMMISSION]
            emit(v, tape, c.K_FEE, time, told[c.RP_SYMBOL], c.R_COMMISSION, values[c.RP_COMMISSION])
        else:
            place = find(v, told[c.RP_ORDER])
            if place >= 0:
                cancel(v, tape, told[c.RP_END], time, place, told[c.RP_REASON])
        compact(v)
        mark(v)
        for row in range(first, used[0]):
            written[row, c.E_SESSION] = told[c.RP_SESSION]

    return settle_one


_settle_one = entry(_settle(fingerprint()))


def settle(
    state: State,
    settings: EngineSettings,
    symbols: Sequence[str],
    static: np.ndarray,
    reports: Iterable[BrokerReport],
    atr: np.ndarray | None = None,
) -> tuple[State, Events]:
    """The account after a broker's reports, in their order, and what happened; `state` stays as it was.

    static: of the market (`Market.static`), with a column a symbol. atr: by symbol, for exits.atr_stop; without it such
    an exit is refused. Raises `ValueError` for a symbol that is not one of the account's.
    """
    after, packed = state.copy(), settings.packed(len(symbols), filled_elsewhere=True)
    ranges = np.full(len(symbols), NAN) if atr is None else np.ascontiguousarray(atr, dtype=np.float64)
    places = {name: place for place, name in enumerate(symbols)}
    chunks: list[tuple[np.ndarray, np.ndarray]] = []
    for report in reports:
        integers, floats = _laid_out(report, places)
        if after.working_orders + 4 > after.room:
            after = after.with_room(2 * after.room)
        rows = 4 * after.working_orders + 16
        written, written_floats = np.zeros((rows, c.EVENT_INTS), dtype=np.int64), np.zeros((rows, c.EVENT_FLOATS))
        used = np.zeros(1, dtype=np.int64)
        _settle_one(
            after.floats, after.integers, after.room, packed, static, ranges, integers, floats, written, written_floats,
            used,
        )  # fmt: skip
        chunks.append((written[: used[0]], written_floats[: used[0]]))
    if not chunks:
        chunks.append((np.zeros((0, c.EVENT_INTS), dtype=np.int64), np.zeros((0, c.EVENT_FLOATS))))
    told = (np.concatenate([one for one, _ in chunks]), np.concatenate([one for _, one in chunks]))
    return after, Events(*told, tuple(symbols))


def _laid_out(report: BrokerReport, places: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    order = report.order
    if order.symbol not in places:
        raise ValueError(f"{order.symbol} is not one of the account's symbols, and an order of it was reported")
    action = {"filled": c.FILLED, "corrected": c.CORRECTED, "charged": c.CHARGED_LATER, "ended": c.ENDED_THERE}
    end, reason = _ENDS[report.end] if report.end is not None else (0, 0)
    integers = np.array(
        [
            action[report.kind], order.number, micros(report.time), day_number(report.session), places[order.symbol],
            order.side, c.ORDER_TYPES.index(order.type), leg_number(order.leg), micros(order.decision_time), end,
            reason,
        ],
        dtype=np.int64,
    )  # fmt: skip
    floats = np.array(
        [
            report.quantity, report.price, report.commission, report.left, report.quantity_before, report.price_before,
        ]
    )  # fmt: skip
    return integers, floats


def leg_number(name: str) -> int:
    """The number of a leg by its name; the other way round it is `leg_name`."""
    parent, *rest = name.split(".")
    number = c.LEGS.index(parent) if parent in c.LEGS else c.FIRST_OWN_LEG + int(parent.removeprefix("own_")) - 1
    for part in rest:
        if part.isdigit():
            number += (int(part) - 1) * c.GENERATION_STEP
        else:
            number += c.EXIT_KINDS.index(part) * c.KIND_STEP
    assert leg_name(number) == name, f"{name} is no leg"
    return number
