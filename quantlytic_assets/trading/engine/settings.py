"""What a strategy's account is allowed to do and what it pays: settings, checked once, for the compiled engine.

Fractions are fractions (0.05 is 5 %), 1 basis point (bps) is 1e-4, money is in the currency of the prices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np

from quantlytic_assets.trading.engine import codes as c

NAN = math.nan


def _number(name: str, value: float | None, low: float = 0.0, high: float = math.inf, open_low: bool = False) -> None:
    if value is None:
        return
    wrong = isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating)
    if wrong or not (low < value if open_low else low <= value) or not value <= high:
        above = f"{'more than' if open_low else 'at least'} {low:g}"
        raise ValueError(
            f"{name}: {value!r} is not a number of {above}{'' if high == math.inf else f' and at most {high:g}'}"
        )


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: {value!r} is unknown, one of {', '.join(allowed)} would be right")


@dataclass(frozen=True)
class OrderStyle:
    """How targets are sent: offsets are from the close of the deciding bar.

    A limit is `offset_bps` better than the close; a stop is `offset_bps` beyond it, and the limit of a stop-limit
    `limit_offset_bps` beyond the stop; a trailing stop keeps the distance `trail`, a fraction.
    """

    type: str = "market"
    time_in_force: str = "day"
    offset_bps: float = 0.0
    limit_offset_bps: float = 0.0
    trail: float | None = None

    def __post_init__(self) -> None:
        _one_of("orders.type", self.type, c.ORDER_TYPES)
        _one_of("orders.time_in_force", self.time_in_force, c.FORCES)
        _number("orders.offset_bps", self.offset_bps, 0.0, 9_999.0)
        _number("orders.limit_offset_bps", self.limit_offset_bps, 0.0, 9_999.0)
        _number("orders.trail", self.trail, 0.0, 0.99, open_low=True)
        if (self.type == "trailing_stop") != (self.trail is not None):
            raise ValueError("orders.trail: belongs to the type trailing_stop, which needs one")


@dataclass(frozen=True)
class Exits:
    """When a position is closed without a new target; fractions of the average price, ATRs, or bars held.

    After an exit a symbol is not entered again while the target stays on the side that was left, unless `reenter`.
    """

    stop_loss: float | None = None
    take_profit: float | None = None
    trailing_stop: float | None = None
    atr_stop: float | None = None
    max_bars: int | None = None
    reenter: bool = False

    def __post_init__(self) -> None:
        _number("exits.stop_loss", self.stop_loss, 0.0, 0.99, open_low=True)
        _number("exits.take_profit", self.take_profit, 0.0, open_low=True)
        _number("exits.trailing_stop", self.trailing_stop, 0.0, 0.99, open_low=True)
        _number("exits.atr_stop", self.atr_stop, 0.0, open_low=True)
        _number("exits.max_bars", self.max_bars, 1.0)
        if self.stop_loss is not None and self.atr_stop is not None:
            raise ValueError("exits.atr_stop: contradicts exits.stop_loss, one of the two would be right")
        if self.stop_loss is not None and self.trailing_stop is not None and self.trailing_stop > self.stop_loss:
            raise ValueError(
                "exits.trailing_stop: is farther away than exits.stop_loss, so it would hardly ever act; "
                "a smaller one, or one of the two, would be right"
            )


@dataclass(frozen=True)
class Sizing:
    """What a target weight amounts to.

    weights: weight x equity. equal_weight: weight x equity / symbols. fixed: weight x `amount`, or x `fraction` of the
    equity. volatility_target: as equal_weight, x `annual` / the symbol's yearly volatility. kelly: weight x equity x
    mean / variance of the symbol's returns, at most `cap`. Means and variances are exponentially weighted over
    `lookback` bars of the engine's own closes, and used once that many have been seen.
    """

    method: str = "equal_weight"
    amount: float | None = None
    fraction: float | None = None
    annual: float | None = None
    cap: float | None = None
    lookback: int = 60
    periods_per_year: float = 252.0
    symbols: int | None = None

    def __post_init__(self) -> None:
        _one_of("sizing.method", self.method, c.SIZINGS)
        for name in ("amount", "fraction", "annual", "cap"):
            _number(f"sizing.{name}", getattr(self, name), 0.0, open_low=True)
        _number("sizing.lookback", self.lookback, 2.0)
        _number("sizing.periods_per_year", self.periods_per_year, 0.0, open_low=True)
        _number("sizing.symbols", self.symbols, 1.0)
        if (self.method == "fixed") != ((self.amount is None) != (self.fraction is None)):
            raise ValueError(
                "sizing.amount: the method fixed needs either an amount or a fraction, and no other has one"
            )
        if (self.method == "volatility_target") != (self.annual is not None):
            raise ValueError("sizing.annual: belongs to the method volatility_target, which needs one")
        if (self.method == "kelly") != (self.cap is not None):
            raise ValueError("sizing.cap: belongs to the method kelly, which needs one")


@dataclass(frozen=True)
class Risk:
    """Limits: what is beyond them is made smaller, refused, or halts the account with a reason.

    max_position and max_gross are fractions of the equity (of equity x leverage for the gross). A halt for the loss of
    a day ends with the session; one for drawdown or VaR after `resume_after_sessions`, or by hand where that is None.
    var_95 is the historical one of up to 250 sessions' returns, from the twentieth on. `liquidate` closes what is held
    at a halt. After a stop a symbol is not entered for `cooldown_bars`.
    """

    max_position: float | None = None
    max_gross: float = 1.0
    max_daily_loss: float | None = None
    max_drawdown: float | None = None
    resume_after_sessions: int | None = None
    var_95: float | None = None
    cooldown_bars: int = 0
    liquidate: bool = True

    def __post_init__(self) -> None:
        _number("risk.max_position", self.max_position, 0.0, open_low=True)
        _number("risk.max_gross", self.max_gross, 0.0, open_low=True)
        for name in ("max_daily_loss", "max_drawdown", "var_95"):
            _number(f"risk.{name}", getattr(self, name), 0.0, 1.0, open_low=True)
        _number("risk.resume_after_sessions", self.resume_after_sessions, 1.0)
        _number("risk.cooldown_bars", self.cooldown_bars)


@dataclass(frozen=True)
class Costs:
    """What trading costs.

    Commission of an order: bps of its value + `per_share` + `per_order`, at least `minimum`, at most `maximum_bps` of
    the value, charged fill by fill. The price of what takes liquidity is moved by `slippage_bps`, half of `spread_bps`
    and impact x price x (share of the bar's volume)^2. Borrow and financing are a year's, for each calendar day.
    """

    commission_bps: float = 0.0
    slippage_bps: float = 0.0
    per_share: float = 0.0
    per_order: float = 0.0
    minimum: float = 0.0
    maximum_bps: float | None = None
    spread_bps: float = 0.0
    impact: float = 0.0
    borrow_bps_annual: float = 0.0
    financing_bps_annual: float = 0.0

    def __post_init__(self) -> None:
        for one in fields(self):
            _number(f"costs.{one.name}", getattr(self, one.name))
        _number("costs.slippage_bps", self.slippage_bps, 0.0, 9_999.0)


@dataclass(frozen=True)
class EngineSettings:
    """An account and its conventions; the defaults are the careful ones.

    `volume_cap` is the share of a bar's volume that all orders of its symbol can have together, None for no cap; where
    the volume is not known (NaN) there is none either.
    `rebalance_band`: a holding within this fraction of its target is left alone. `cash_buffer`: the fraction of the
    equity that targets leave aside.
    """

    capital: float
    short: bool = False
    leverage: float = 1.0
    volume_cap: float | None = 0.025
    orders: OrderStyle = field(default_factory=OrderStyle)
    exits: Exits = field(default_factory=Exits)
    sizing: Sizing = field(default_factory=Sizing)
    risk: Risk = field(default_factory=Risk)
    costs: Costs = field(default_factory=Costs)
    limit_fill: Literal["penetrate", "touch"] = "penetrate"
    stop_limit_fill: Literal["close_inside", "best"] = "close_inside"
    fill_at: Literal["open", "close"] = "open"
    rebalance_band: float = 0.0
    cash_buffer: float = 0.0

    def __post_init__(self) -> None:
        _number("capital", self.capital, 0.0, open_low=True)
        if not math.isfinite(self.capital):
            raise ValueError(f"capital: {self.capital!r} is not a finite amount")
        _number("leverage", self.leverage, 0.0, 100.0, open_low=True)
        _number("volume_cap", self.volume_cap, 0.0, open_low=True)
        _number("rebalance_band", self.rebalance_band, 0.0, 1.0)
        _number("cash_buffer", self.cash_buffer, 0.0, 0.99)
        _one_of("limit_fill", self.limit_fill, ("penetrate", "touch"))
        _one_of("stop_limit_fill", self.stop_limit_fill, ("close_inside", "best"))
        _one_of("fill_at", self.fill_at, ("open", "close"))
        if self.exits.stop_loss is not None and self.short and self.exits.take_profit is not None:
            _number("exits.take_profit", self.exits.take_profit, 0.0, 0.99, open_low=True)

    def packed(self, symbols: int, *, filled_elsewhere: bool = False) -> np.ndarray:
        """The settings as the array that the kernel reads; NaN where there is none.

        filled_elsewhere: a broker fills the orders, and its reports change the account (`engine.settlement`).
        """

        def known(value: float | None) -> float:
            return NAN if value is None else float(value)

        orders, exits, sizing, risk, costs = self.orders, self.exits, self.sizing, self.risk, self.costs
        values = {
            c.P_SHORT: self.short, c.P_LEVERAGE: self.leverage, c.P_VOLUME_CAP: known(self.volume_cap),
            c.P_LIMIT_TOUCH: self.limit_fill == "touch", c.P_STOP_LIMIT_BEST: self.stop_limit_fill == "best",
            c.P_FILL_AT_CLOSE: self.fill_at == "close", c.P_BAND: self.rebalance_band, c.P_BUFFER: self.cash_buffer,
            c.P_TYPE: c.ORDER_TYPES.index(orders.type), c.P_FORCE: c.FORCES.index(orders.time_in_force),
            c.P_LIMIT_OFFSET: (orders.offset_bps if orders.type == "limit" else orders.limit_offset_bps) / 1e4,
            c.P_STOP_OFFSET: orders.offset_bps / 1e4, c.P_TRAIL: known(orders.trail),
            c.P_STOP_LOSS: known(exits.stop_loss), c.P_TAKE_PROFIT: known(exits.take_profit),
            c.P_TRAILING: known(exits.trailing_stop), c.P_ATR_STOP: known(exits.atr_stop),
            c.P_MAX_BARS: known(exits.max_bars), c.P_REENTER: exits.reenter,
            c.P_SIZING: c.SIZINGS.index(sizing.method), c.P_AMOUNT: known(sizing.amount),
            c.P_FRACTION: known(sizing.fraction), c.P_ANNUAL: known(sizing.annual), c.P_KELLY_CAP: known(sizing.cap),
            c.P_DECAY: 2.0 / (sizing.lookback + 1.0), c.P_PERIODS: sizing.periods_per_year,
            c.P_SHARES: sizing.symbols or symbols,
            c.P_MAX_POSITION: known(risk.max_position), c.P_MAX_GROSS: risk.max_gross,
            c.P_DAILY_LOSS: known(risk.max_daily_loss), c.P_DRAWDOWN: known(risk.max_drawdown),
            c.P_RESUME: known(risk.resume_after_sessions), c.P_VAR: known(risk.var_95),
            c.P_COOLDOWN: risk.cooldown_bars, c.P_LIQUIDATE: risk.liquidate,
            c.P_COMMISSION: costs.commission_bps / 1e4, c.P_SLIPPAGE: (costs.slippage_bps + costs.spread_bps / 2) / 1e4,
            c.P_PER_SHARE: costs.per_share, c.P_PER_ORDER: costs.per_order, c.P_MINIMUM: costs.minimum,
            c.P_MAXIMUM: known(costs.maximum_bps) / 1e4, c.P_IMPACT: costs.impact,
            c.P_BORROW: costs.borrow_bps_annual / 1e4, c.P_FINANCING: costs.financing_bps_annual / 1e4,
            c.P_FILLED_ELSEWHERE: filled_elsewhere,
        }  # fmt: skip
        packed = np.empty(c.SETTINGS)
        for place, value in values.items():
            packed[place] = value
        return packed
