"""Orders by hand, on their way into the kernel: rows that say submit, cancel or modify."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from quantlytic_assets.trading.engine import codes as c

NAN = math.nan


class Requests:
    """What is asked for at one time, in its order; symbols are meant by name or number."""

    def __init__(self, symbols: Sequence[str], room: int = 16):
        self._places: Mapping[str, int] = {name: number for number, name in enumerate(symbols)}
        self.integers = np.zeros((room, c.INTAKE_INTS), dtype=np.int64)
        self.floats = np.full((room, c.INTAKE_FLOATS), NAN)
        self.count = 0
        self.submitted = 0

    def clear(self) -> None:
        """Forgets all that was asked for."""
        self.count = self.submitted = 0

    def extend(self, other: Requests) -> None:
        """Asks also for what another one asks, after what is asked for already."""
        for integers, floats in zip(other.integers[: other.count], other.floats[: other.count], strict=True):
            row = self._row()
            self.integers[row], self.floats[row] = integers, floats
        self.submitted += other.submitted

    def _row(self) -> int:
        row = self.count
        if row == len(self.integers):
            self.integers = np.concatenate([self.integers, np.zeros_like(self.integers)])
            self.floats = np.concatenate([self.floats, np.full_like(self.floats, NAN)])
        self.count = row + 1
        return row

    def _place(self, symbol: str | int) -> int:
        return self._places.get(symbol, -1) if isinstance(symbol, str) else int(symbol)

    def place(self, symbol: str | int) -> int:
        """The number of a symbol of the market, or a KeyError."""
        found = self._place(symbol)
        if not 0 <= found < len(self._places):
            raise KeyError(f"{symbol!r} is not a symbol of the market")
        return found

    def submit(
        self,
        symbol: str | int,
        quantity: float,
        *,
        limit: float = NAN,
        stop: float = NAN,
        trail: float = NAN,
        type: str | None = None,
        time_in_force: str = "day",
        group: int = 0,
        reduce_only: bool = False,
        stop_loss: float = NAN,
        take_profit: float = NAN,
        trailing_stop: float = NAN,
    ) -> int:
        """Asks for an order, a buy of a positive quantity or a sell of a negative one; returns which of them it is.

        The type follows from the prices where it is not given. Of a group (a positive number of one's own) the first
        fill cancels the others. stop_loss and take_profit (prices) and trailing_stop (a fraction) are its bracket: they
        begin when it fills.
        """
        if type is None:
            if trail == trail:
                kind = c.TRAILING_STOP
            elif stop == stop:
                kind = c.STOP_LIMIT if limit == limit else c.STOP
            else:
                kind = c.LIMIT if limit == limit else c.MARKET
        elif type in c.ORDER_TYPES:
            kind = c.ORDER_TYPES.index(type)
        else:
            raise ValueError(f"type: {type!r} is unknown, one of {', '.join(c.ORDER_TYPES)} would be right")
        if time_in_force not in c.FORCES:
            raise ValueError(
                f"time_in_force: {time_in_force!r} is unknown, one of {', '.join(c.FORCES)} would be right"
            )
        if group < 0:
            raise ValueError(f"group: {group} is not 0 for none, or a positive number")
        row = self._row()
        self.integers[row] = (
            c.SUBMIT, self._place(symbol), 1 if quantity >= 0 else -1, kind, c.FORCES.index(time_in_force),
            c.FIRST_OWN_LEG + self.submitted, group, reduce_only, 0, 0,
        )  # fmt: skip
        self.floats[row] = (abs(quantity), limit, stop, trail, stop_loss, take_profit, trailing_stop)
        self.submitted += 1
        return self.submitted - 1

    def cancel(self, order: int) -> None:
        """Asks to cancel a working order, by its number."""
        row = self._row()
        self.integers[row] = (c.CANCEL, -1, 0, 0, 0, 0, 0, 0, order, 0)

    def modify(self, order: int, *, quantity: float = NAN, limit: float = NAN, stop: float = NAN) -> None:
        """Asks to change a working order: its whole quantity, limit or stop; what is not given stays."""
        row = self._row()
        self.integers[row] = (c.MODIFY, -1, 0, 0, 0, 0, 0, 0, order, 0)
        self.floats[row] = (quantity, limit, stop, NAN, NAN, NAN, NAN)

    def halt(self, liquidate: bool | None = None, *, at_open: bool = False) -> None:
        """Halts the account by hand.

        liquidate: whether what is held is closed; None leaves that to the settings. at_open: before the bar's orders
        are filled, and what is closed is closed in that bar; else after its close, as what is decided on it.
        """
        wanted = c.BY_SETTINGS if liquidate is None else (c.LIQUIDATE if liquidate else c.KEEP)
        self.integers[self._row()] = (c.HALT_AT_OPEN if at_open else c.HALT_NOW, -1, 0, 0, 0, 0, 0, 0, 0, wanted)

    def resume(self, *, at_open: bool = False) -> None:
        """Lets a halted account go on, before the bar's orders are filled (`at_open`) or after its close."""
        self.integers[self._row()] = (c.RESUME_AT_OPEN if at_open else c.RESUME_NOW, -1, 0, 0, 0, 0, 0, 0, 0, 0)

    def seen_late(self, symbol: str | int, bars: float) -> None:
        """Notes that bars came after their time and were not traded."""
        row = self._row()
        self.integers[row] = (c.SEEN_LATE, self._place(symbol), 0, 0, 0, 0, 0, 0, 0, 0)
        self.floats[row, c.IN_QUANTITY] = bars


def joined(requests: Mapping[int, Requests], times: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The requests of many times, by number of the time, as one intake: rows, prices and where each time's begin."""
    offsets = np.zeros(times + 1, dtype=np.int64)
    for time, asked in requests.items():
        if not 0 <= time < times:
            raise ValueError(f"orders: time {time} is not one of the market's {times}")
        offsets[time + 1] = asked.count
    ordered = [requests[time] for time in sorted(requests)]
    return (
        np.concatenate([np.zeros((0, c.INTAKE_INTS), dtype=np.int64), *(one.integers[: one.count] for one in ordered)]),
        np.concatenate([np.zeros((0, c.INTAKE_FLOATS)), *(one.floats[: one.count] for one in ordered)]),
        np.cumsum(offsets),
    )
