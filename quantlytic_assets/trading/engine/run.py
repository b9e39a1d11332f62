"""Running the engine: a whole history in one compiled call, or step by step from Python with the same kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl

from quantlytic_assets.trading.engine import codes as c
from quantlytic_assets.trading.engine.events import Events
from quantlytic_assets.trading.engine.kernel import advance
from quantlytic_assets.trading.engine.market import BARS_SCHEMA, Market
from quantlytic_assets.trading.engine.requests import NAN, Requests, joined
from quantlytic_assets.trading.engine.settings import EngineSettings
from quantlytic_assets.trading.engine.state import State

_NONE = np.zeros((0, 0))
_NO_ROWS = np.zeros((0, c.INTAKE_INTS), dtype=np.int64)
_NO_PRICES = np.zeros((0, c.INTAKE_FLOATS))
_NO_OFFSETS = np.zeros(0, dtype=np.int64)
_NOTHING = (_NO_ROWS, _NO_PRICES, _NO_OFFSETS)
_FIRST_ROWS = 4096
_MOST_ROWS = 1 << 18


@dataclass(frozen=True)
class Result:
    """What a run came to: the account at its end, its events, and equity, cash and gross exposure after each time."""

    state: State
    events: Events
    equity: np.ndarray
    cash: np.ndarray
    gross: np.ndarray


class _Engine:
    """The kernel with its arrays: makes room and goes on where the kernel stopped for want of it."""

    def __init__(self, market: Market, settings: EngineSettings, state: State | None, targets: np.ndarray | None,
                 atr: np.ndarray | None, events: bool, filled_elsewhere: bool = False):  # fmt: skip
        symbols = len(market.symbols)
        if state is not None and state.symbols != symbols:
            raise ValueError(f"state: is of {state.symbols} symbols, the market of {symbols}")
        self.market = market
        self.state = State(symbols, settings.capital) if state is None else state.copy()
        self.settings = settings.packed(symbols, filled_elsewhere=filled_elsewhere)
        self.targets = _laid_out("targets", targets, market)
        self.atr = _laid_out("atr", atr, market)
        if settings.exits.atr_stop is not None and atr is None:
            raise ValueError("atr: exits.atr_stop needs the average true range of each time and symbol")
        self.curve = np.full((len(market), 3), np.nan)
        self.pace = 1 if events else 0
        self.used = np.zeros(1, dtype=np.int64)
        self._new_tape(_FIRST_ROWS if events else 1)
        self._chunks: list[tuple[np.ndarray, np.ndarray]] = []
        self.arrange()

    def _new_tape(self, rows: int) -> None:
        self.told = np.zeros((rows, c.EVENT_INTS), dtype=np.int64)
        self.values = np.zeros((rows, c.EVENT_FLOATS))
        self.used[0] = 0

    def run(self, start: int, half: int, stop: int, last_half: int, intake: np.ndarray, prices: np.ndarray,
            offsets: np.ndarray) -> None:  # fmt: skip
        """Runs the halves of steps from (start, half) to (stop - 1, last_half)."""
        while True:
            start, half, status, needed = advance(
                *self.arrays, intake, prices, offsets, start, half, stop, last_half,
            )  # fmt: skip
            if status == c.DONE:
                return
            if status == c.ORDERS_FULL:
                self.state = self.state.with_room(2 * needed)
            else:
                self._keep()
                self._new_tape(min(max(needed, 4 * len(self.told)), max(needed, _MOST_ROWS)))
            self.arrange()

    def arrange(self) -> None:
        """Notes the arrays anew, after one was replaced: a step from Python has no time to gather them."""
        market, state = self.market, self.state
        self.arrays = (
            state.floats, state.integers, state.room, self.settings, market.bars, market.times, market.static,
            market.actions, market.action_values, self.targets, self.atr, self.curve, self.told, self.values,
            self.used, self.pace,
        )  # fmt: skip

    def _keep(self) -> None:
        used = int(self.used[0])
        if self.pace and used:
            self._chunks.append((self.told[:used].copy(), self.values[:used].copy()))
            self.used[0] = 0

    def events(self) -> Events:
        """All events so far."""
        self._keep()
        if not self._chunks:
            self._chunks.append((self.told[:0].copy(), self.values[:0].copy()))
        if len(self._chunks) > 1:
            self._chunks = [
                (np.concatenate([one for one, _ in self._chunks]), np.concatenate([one for _, one in self._chunks]))
            ]
        return Events(*self._chunks[0], self.market.symbols)

    def result(self) -> Result:
        """Account, events and curves as they stand."""
        return Result(self.state, self.events(), self.curve[:, 0], self.curve[:, 1], self.curve[:, 2])


def _laid_out(name: str, given: np.ndarray | None, market: Market) -> np.ndarray:
    if given is None:
        return _NONE
    laid = np.ascontiguousarray(given, dtype=np.float64)
    if laid.shape != (len(market), len(market.symbols)):
        raise ValueError(f"{name}: shape {laid.shape} is not the market's {(len(market), len(market.symbols))}")
    return laid


def run(
    market: Market,
    targets: np.ndarray | pl.DataFrame | None,
    settings: EngineSettings,
    state: State | None = None,
    *,
    atr: np.ndarray | None = None,
    orders: Mapping[int, Requests] | None = None,
    events: bool = True,
    filled_elsewhere: bool = False,
) -> Result:
    """Trades a market, from a new account or from where `state` ended, which stays as it was.

    targets: weights -1…1 [time, symbol], NaN to keep what is held, or a frame (symbol, open_time, weight). atr: as the
    targets, for exits.atr_stop. orders: what is asked for by hand, by number of the deciding time. filled_elsewhere: a
    broker fills the orders; see `settlement`.
    """
    if isinstance(targets, pl.DataFrame):
        targets = market.matrix(targets, "weight")
    engine = _Engine(market, settings, state, targets, atr, events, filled_elsewhere)
    asked = joined(orders, len(market)) if orders else _NOTHING
    if len(market):
        engine.run(0, c.BARS, len(market), c.DECIDE, *asked)
    return engine.result()


def prepare() -> None:
    """Compile the engine where its machine code is not kept yet, by trading one bar of nothing.

    That takes a processor some ten seconds, once an installation.
    """
    moment = datetime(2000, 1, 3, tzinfo=UTC)
    row = {name: 1.0 if kind == pl.Float64 else moment for name, kind in BARS_SCHEMA.items()}
    bars = pl.DataFrame([{**row, "symbol": "A", "session": moment.date()}], schema=BARS_SCHEMA)
    run(Market.from_frame(bars), None, EngineSettings(capital=1.0))


class Stepper:
    """The engine bar by bar: after each `step` one can look at the account and ask for orders or targets.

    What is asked for after a step is decided on its bar, when the next `step` or `finish` comes; what is asked for
    before the first one, at that bar's open (halts and resumptions `at_open`) or with its decision.
    """

    def __init__(self, market: Market, settings: EngineSettings, state: State | None = None, *,
                 targets: np.ndarray | None = None, atr: np.ndarray | None = None, events: bool = True,
                 filled_elsewhere: bool = False):  # fmt: skip
        self._engine = _Engine(market, settings, state, targets, atr, events, filled_elsewhere)
        self.market = market
        self.time = -1
        self._requests = Requests(market.symbols)
        self._offsets = np.zeros(len(market) + 2, dtype=np.int64)
        self._own_targets = False
        self._decided = True
        self._view = self._engine.state.view
        self._stop = len(market)

    def step(self) -> bool:
        """Decides on the last bar what was asked for, then trades the next one; False where there is none."""
        following = self.time + 1
        if following >= self._stop:
            return False
        start, half = (following, c.BARS) if self._decided else (self.time, c.DECIDE)
        if self._requests.count:
            self._run(start, half, following + 1, c.BARS)
        else:
            # As `_run` does, without its calls: a step of one symbol takes no longer than they do.
            start, half, status, _ = advance(*self._engine.arrays, *_NOTHING, start, half, following + 1, c.BARS)
            if status != c.DONE:
                self._run(start, half, following + 1, c.BARS)
        self.time = following
        self._decided = False
        return True

    def finish(self) -> Result:
        """Decides on the last bar, and gives what it all came to."""
        if not self._decided:
            self._run(self.time, c.DECIDE, self.time + 1, c.DECIDE)
            self._decided = True
        return self._engine.result()

    def _run(self, start: int, half: int, stop: int, last_half: int) -> None:
        asked, engine = self._requests, self._engine
        before = engine.state
        if asked.count:
            self._offsets[start] = 0
            self._offsets[start + 1] = asked.count
            engine.run(start, half, stop, last_half, asked.integers, asked.floats, self._offsets)
            self._offsets[start + 1] = 0
            # Before the first step there is only an open to ask for: the rest waits for the decision on that bar.
            if half == c.DECIDE:
                asked.clear()
        else:
            engine.run(start, half, stop, last_half, *_NOTHING)
        if engine.state is not before:
            self._view = engine.state.view

    @property
    def state(self) -> State:
        """The account as it stands; what was asked for since the last step is not in it yet."""
        return self._engine.state

    @property
    def cash(self) -> float:
        """Money that is not in shares."""
        return float(self._view.account[c.CASH])

    @property
    def equity(self) -> float:
        """Cash and positions at the last closes."""
        return float(self._view.account[c.EQUITY])

    def position(self, symbol: str | int) -> float:
        """Shares held, negative where sold short."""
        return float(self._view.symbols[c.QUANTITY, self._requests.place(symbol)])

    def positions(self) -> dict[str, float]:
        """Shares held by symbol, negative where sold short; of all symbols."""
        return dict(zip(self.market.symbols, self._view.symbols[c.QUANTITY].tolist(), strict=True))

    def target(self, symbol: str | int, weight: float) -> None:
        """Asks for a weight of the symbol, by the settings' sizing."""
        place = self._requests.place(symbol)
        if not self._own_targets:
            shape = (len(self.market), len(self.market.symbols))
            given = self._engine.targets
            self._engine.targets = np.full(shape, NAN) if len(given) == 0 else given.copy()
            self._own_targets = True
            self._engine.arrange()
        self._engine.targets[max(self.time, 0), place] = weight

    def submit(self, symbol: str | int, quantity: float, **how: float | str | bool | None) -> int:
        """Asks for an order, as `Requests.submit` says; returns the number it is known by."""
        number = self._requests.submit(symbol, quantity, **how)  # type: ignore[arg-type]
        return int(self._view.counts[c.NEXT_ORDER]) + number

    def cancel(self, order: int) -> None:
        """Asks to cancel an order."""
        self._requests.cancel(order)

    def modify(self, order: int, *, quantity: float = NAN, limit: float = NAN, stop: float = NAN) -> None:
        """Asks to change an order."""
        self._requests.modify(order, quantity=quantity, limit=limit, stop=stop)

    @property
    def requests(self) -> Requests:
        """What is asked for so far, with halts, resumptions and notes."""
        return self._requests
