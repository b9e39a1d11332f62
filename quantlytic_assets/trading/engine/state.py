"""All that an account has to remember, as two arrays; stored as bytes and taken up again it goes on bit for bit.

The arrays hold, one after the other, the account, what is known of each symbol, the working orders and (floats only)
the returns of past sessions. `views` names the parts inside and outside compiled code.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.compiling import helper

_MAGIC, _LAYOUT = b"QENG", 1
_HEADER = struct.Struct("<4sIqq")


class Views(NamedTuple):
    """The parts of a state: account, symbols and orders, each as floats and as integers, and returns."""

    account: np.ndarray
    counts: np.ndarray
    symbols: np.ndarray
    marks: np.ndarray
    orders: np.ndarray
    codes: np.ndarray
    returns: np.ndarray


@helper
def views(floats, integers, symbols, room):
    """The parts of a state of that many symbols with room for that many orders."""
    a = c.ACCOUNT_FLOATS
    b = a + c.SYMBOL_FLOATS * symbols
    d = b + c.ORDER_FLOATS * room
    e = c.ACCOUNT_INTS
    f = e + c.SYMBOL_INTS * symbols
    g = f + c.ORDER_INTS * room
    return Views(
        floats[:a],
        integers[:e],
        floats[a:b].reshape(c.SYMBOL_FLOATS, symbols),
        integers[e:f].reshape(c.SYMBOL_INTS, symbols),
        floats[b:d].reshape(room, c.ORDER_FLOATS),
        integers[f:g].reshape(room, c.ORDER_INTS),
        floats[d : d + 2 * c.RETURNS_WINDOW],
    )


class State:
    """An account between two bars; `floats` and `integers` are the kernel's to write."""

    def __init__(self, symbols: int, capital: float, room: int | None = None):
        self.symbols = symbols
        self.room = room or max(16, 8 * symbols)
        self._allocate()
        view = self.view
        view.account[[c.CASH, c.EQUITY, c.PEAK, c.DAY_START, c.SESSION_EQUITY]] = capital
        view.counts[c.LAST_SESSION] = np.iinfo(np.int64).min
        view.counts[c.NEXT_ORDER] = 1
        view.symbols[c.WEIGHT] = np.nan
        view.marks[[c.STOP_AT, c.TARGET_AT, c.TRAIL_AT]] = -1
        view.marks[c.USED_BAR] = -1

    def _allocate(self) -> None:
        floats = c.ACCOUNT_FLOATS + c.SYMBOL_FLOATS * self.symbols + c.ORDER_FLOATS * self.room + 2 * c.RETURNS_WINDOW
        integers = c.ACCOUNT_INTS + c.SYMBOL_INTS * self.symbols + c.ORDER_INTS * self.room
        self.floats, self.integers = np.zeros(floats), np.zeros(integers, dtype=np.int64)

    @property
    def view(self) -> Views:
        """The parts of the state, to read."""
        return views.py_func(self.floats, self.integers, self.symbols, self.room)

    @property
    def cash(self) -> float:
        """Money that is not in shares."""
        return float(self.floats[c.CASH])

    @property
    def equity(self) -> float:
        """Cash and positions, at the last known closes."""
        return float(self.floats[c.EQUITY])

    @property
    def positions(self) -> np.ndarray:
        """Shares held of each symbol, negative where sold short."""
        return self.view.symbols[c.QUANTITY].copy()

    @property
    def halted(self) -> str | None:
        """Why the account is halted, None where it is not."""
        return c.REASONS[int(self.integers[c.HALT])]

    @property
    def working_orders(self) -> int:
        """How many orders wait."""
        return int(self.integers[c.ORDERS])

    def with_room(self, orders: int) -> State:
        """The same account with room for at least that many orders."""
        grown = object.__new__(State)
        grown.symbols, grown.room = self.symbols, max(orders, self.room)
        grown._allocate()
        for old, new in zip(self.view, grown.view, strict=True):
            new[: len(old)] = old
        return grown

    def for_symbols(self, own: Sequence[str], wanted: Sequence[str]) -> State:
        """The same account for a market of other symbols, or in another order; what is held must be among them."""
        if len(own) != self.symbols:
            raise ValueError(f"state: is of {self.symbols} symbols, not of {len(own)}")
        at = {name: place for place, name in enumerate(wanted)}
        moved = State(len(wanted), 0.0, max(self.room, 8 * len(wanted)))
        old, new = self.view, moved.view
        new.account[:], new.counts[:], new.returns[:] = old.account, old.counts, old.returns
        used = self.working_orders
        new.orders[:used], new.codes[:used] = old.orders[:used], old.codes[:used]
        ordered = set(old.codes[:used, c.SYMBOL].tolist())
        for place, name in enumerate(own):
            if name in at:
                new.symbols[:, at[name]] = old.symbols[:, place]
                new.marks[:, at[name]] = old.marks[:, place]
            elif old.symbols[c.QUANTITY, place] != 0 or place in ordered:
                raise ValueError(f"symbols: {name} is held or ordered, and not among the wanted ones")
        for order in range(used):
            new.codes[order, c.SYMBOL] = at[own[old.codes[order, c.SYMBOL]]]
        return moved

    def copy(self) -> State:
        """An account of its own that goes on from here."""
        return self.with_room(self.room)

    def to_bytes(self) -> bytes:
        """The account as bytes: the same for the same account, whatever room it has."""
        view = self.view
        used = int(view.counts[c.ORDERS])
        # Scratch of one step says nothing about the account.
        symbols, marks = view.symbols.copy(), view.marks
        symbols[[c.PENDING, c.WANTED]] = 0.0
        parts = (
            view.account,
            view.counts,
            symbols,
            marks,
            view.orders[:used],
            view.codes[:used],
            view.returns[: c.RETURNS_WINDOW],
        )
        return _HEADER.pack(_MAGIC, _LAYOUT, self.symbols, used) + b"".join(part.tobytes() for part in parts)

    @classmethod
    def from_bytes(cls, stored: bytes) -> State:
        """The account that `to_bytes` stored."""
        if len(stored) < _HEADER.size:
            raise ValueError("state: too short to be one")
        magic, layout, symbols, used = _HEADER.unpack_from(stored)
        if (magic, layout) != (_MAGIC, _LAYOUT):
            raise ValueError(f"state: of another kind or layout ({magic!r}, {layout}), {_LAYOUT} would be right")
        state = cls(symbols, 0.0, max(16, 8 * symbols, used))
        view = state.view
        parts = (
            view.account,
            view.counts,
            view.symbols,
            view.marks,
            view.orders[:used],
            view.codes[:used],
            view.returns[: c.RETURNS_WINDOW],
        )
        if len(stored) != _HEADER.size + sum(part.nbytes for part in parts):
            raise ValueError("state: cut short, or longer than it says")
        at = _HEADER.size
        for part in parts:
            part[...] = np.frombuffer(stored, part.dtype, part.size, at).reshape(part.shape)
            at += part.nbytes
        return state
