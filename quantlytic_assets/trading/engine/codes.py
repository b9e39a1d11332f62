"""Numbers that stand for words and places inside the compiled engine; `events` gives the words back.

Order types, times in force, legs, kinds of events and reasons are small integers; the account is rows of two arrays.
"""

from __future__ import annotations

# Bars: bars[t, field, symbol], and times[t, field] in microseconds since 1970 (sessions in days, flags 0 or 1).
OPEN, HIGH, LOW, CLOSE, VOLUME = range(5)
BAR_FIELDS = 5
OPENS, CLOSES, AVAILABLE, SESSION, LAST_BAR = range(5)
TIME_FIELDS = 5
LOT, TICK, MIN_NOTIONAL = range(3)
STATIC_FIELDS = 3

# The account as floats and as integers.
CASH, EQUITY, GROSS, NET, PEAK, DAY_START, SESSION_EQUITY = range(7)
ACCOUNT_FLOATS = 8
BAR, LAST_SESSION, ORDERS, NEXT_ORDER, NEXT_EVENT, HALT, HALT_SESSIONS, RETURNS, DEAD, HALT_LIQUIDATES = range(10)
ACCOUNT_INTS = 10

# What is known of each symbol: floats[field, symbol], integers[field, symbol].
QUANTITY, AVERAGE, LAST, MEAN, VARIANCE, WEIGHT, PENDING, USED, WANTED = range(9)
SYMBOL_FLOATS = 9
HELD_BARS, COOLDOWN, DELISTED, STOP_AT, TARGET_AT, TRAIL_AT, SEEN, USED_BAR, LAST_REASON, ENDED = range(10)
SYMBOL_INTS = 10

# A working order: floats[order, field], integers[order, field].
AMOUNT, REMAINING, LIMIT_PRICE, STOP_PRICE, TRAIL, ANCHOR, NOTIONAL, CHARGED, BRACKET_STOP, BRACKET_TARGET = range(10)
BRACKET_TRAIL, QUOTED = 10, 11
ORDER_FLOATS = 12
ID, SYMBOL, SIDE, TYPE, FORCE, LEG, FROM, DECIDED, FIRST_SESSION, GROUP, PARENT, REDUCE_ONLY = range(12)
TRIGGERED, BORN, BORN_AT, CHILDREN, STATUS, PHASE = range(12, 18)
ORDER_INTS = 18

# Order types, times in force and the moments of a bar at which an order can fill.
MARKET, LIMIT, STOP, STOP_LIMIT, TRAILING_STOP, MARKET_ON_OPEN, MARKET_ON_CLOSE = range(7)
ORDER_TYPES = ("market", "limit", "stop", "stop_limit", "trailing_stop", "market_on_open", "market_on_close")
DAY, GTC, IOC = range(3)
FORCES = ("day", "gtc", "ioc")
NOWHERE, AT_OPEN, WITHIN, AT_CLOSE = range(4)
UNSEEN = -1
LIVE, GONE = range(2)

# Legs of a decision. An exit's leg is its parent's plus KIND_STEP x kind plus GENERATION_STEP x generation.
ENTRY, REDUCE, TIME_EXIT, LIQUIDATION = range(4)
LEGS = ("entry", "reduce", "max_bars", "liquidation")
FIRST_OWN_LEG = 10
KIND_STEP, GENERATION_STEP = 10_000, 100_000
EXIT_KINDS = ("", "stop", "target", "trail")

# Rows of the order intake: integers[row, field], floats[row, field].
# HALT_AT_OPEN and RESUME_AT_OPEN take effect before the bar's orders are filled, the others after its close.
SUBMIT, CANCEL, MODIFY, HALT_NOW, RESUME_NOW, SEEN_LATE, HALT_AT_OPEN, RESUME_AT_OPEN = range(8)
# Whether a halt closes what is held: the settings decide, it does, or it does not.
BY_SETTINGS, LIQUIDATE, KEEP = range(3)
ACTION, IN_SYMBOL, IN_SIDE, IN_TYPE, IN_FORCE, IN_LEG, IN_GROUP, IN_REDUCE_ONLY, IN_ORDER, IN_HALT = range(10)
INTAKE_INTS = 10
IN_QUANTITY, IN_LIMIT, IN_STOP, IN_TRAIL, IN_BRACKET_STOP, IN_BRACKET_TARGET, IN_BRACKET_TRAIL = range(7)
INTAKE_FLOATS = 7

# What a broker reports, one row each: integers[field], floats[field]. A fill; the end of an order; a commission that
# came after its fill; a fill that was changed afterwards, from the quantity and price before to those now.
FILLED, ENDED_THERE, CHARGED_LATER, CORRECTED = range(4)
(
    RP_ACTION, RP_ORDER, RP_TIME, RP_SESSION, RP_SYMBOL, RP_SIDE, RP_TYPE, RP_LEG, RP_DECIDED, RP_END, RP_REASON,
) = range(11)  # fmt: skip
REPORT_INTS = 11
RP_QUANTITY, RP_PRICE, RP_COMMISSION, RP_LEFT, RP_QUANTITY_BEFORE, RP_PRICE_BEFORE = range(6)
REPORT_FLOATS = 6

# Corporate actions, in the order in which they take effect on one day.
SPLIT, DIVIDEND, RENAME, DELISTING = range(4)
ACTIONS = ("split", "dividend", "rename", "delisting")

# Events: integers[row, field], floats[row, field].
(
    E_SEQ, E_TIME, E_KIND, E_SYMBOL, E_ORDER, E_LEG, E_SIDE, E_TYPE, E_REASON, E_AMBIGUOUS, E_DECIDED, E_SESSION,
) = range(12)  # fmt: skip
EVENT_INTS = 12
E_QUANTITY, E_PRICE, E_STOP, E_COMMISSION, E_SLIPPAGE, E_CASH, E_POSITION, E_VALUE = range(8)
EVENT_FLOATS = 8
KINDS = (
    "decision", "order_accepted", "order_rejected", "order_cancelled", "order_expired", "order_replaced", "fill",
    "split", "dividend", "rename", "delisting", "fee", "borrow", "halt", "resume", "seen_late",
    "correction",
)  # fmt: skip
(
    K_DECISION, K_ACCEPTED, K_REJECTED, K_CANCELLED, K_EXPIRED, K_REPLACED, K_FILL,
    K_SPLIT, K_DIVIDEND, K_RENAME, K_DELISTING, K_FEE, K_BORROW, K_HALT, K_RESUME, K_SEEN_LATE,
    K_CORRECTION,
) = range(17)  # fmt: skip
REASONS = (
    None, "bad_weight", "no_price", "bad_quantity", "bad_price", "unknown_symbol", "unknown_order", "delisted",
    "short_not_allowed", "buying_power", "below_lot", "below_minimum", "halted", "cooldown", "max_position",
    "max_gross", "by_hand", "oco", "superseded", "position_closed", "nothing_to_close", "session_end",
    "immediate_or_cancel", "max_daily_loss", "max_drawdown", "var_95", "ruined", "rule", "financing", "late",
    "max_bars", "exited", "rejected_by_broker", "cancelled_by_broker", "expired_at_broker", "commission",
)  # fmt: skip
(
    R_NONE, R_BAD_WEIGHT, R_NO_PRICE, R_BAD_QUANTITY, R_BAD_PRICE, R_UNKNOWN_SYMBOL, R_UNKNOWN_ORDER, R_DELISTED,
    R_SHORT, R_BUYING_POWER, R_BELOW_LOT, R_BELOW_MINIMUM, R_HALTED, R_COOLDOWN, R_MAX_POSITION,
    R_MAX_GROSS, R_BY_HAND, R_OCO, R_SUPERSEDED, R_CLOSED, R_NOTHING, R_SESSION_END,
    R_IOC, R_DAILY_LOSS, R_DRAWDOWN, R_VAR, R_RUINED, R_RULE, R_FINANCING, R_LATE, R_MAX_BARS, R_EXITED,
    R_REJECTED_THERE, R_CANCELLED_THERE, R_EXPIRED_THERE, R_COMMISSION,
) = range(36)  # fmt: skip

# Settings, one array of floats.
(
    P_SHORT, P_LEVERAGE, P_VOLUME_CAP, P_LIMIT_TOUCH, P_STOP_LIMIT_BEST, P_FILL_AT_CLOSE, P_BAND, P_BUFFER,
    P_TYPE, P_FORCE, P_LIMIT_OFFSET, P_STOP_OFFSET, P_TRAIL,
    P_STOP_LOSS, P_TAKE_PROFIT, P_TRAILING, P_ATR_STOP, P_MAX_BARS, P_REENTER,
    P_SIZING, P_AMOUNT, P_FRACTION, P_ANNUAL, P_KELLY_CAP, P_DECAY, P_PERIODS, P_SHARES,
    P_MAX_POSITION, P_MAX_GROSS, P_DAILY_LOSS, P_DRAWDOWN, P_RESUME, P_VAR, P_COOLDOWN, P_LIQUIDATE,
    P_COMMISSION, P_SLIPPAGE, P_PER_SHARE, P_PER_ORDER, P_MINIMUM, P_MAXIMUM, P_IMPACT, P_BORROW, P_FINANCING,
    P_FILLED_ELSEWHERE,
) = range(45)  # fmt: skip
SETTINGS = 45
WEIGHTS, EQUAL_WEIGHT, FIXED, VOLATILITY_TARGET, KELLY = range(5)
SIZINGS = ("weights", "equal_weight", "fixed", "volatility_target", "kelly")

# Why the kernel came back, and the two halves of a step.
DONE, ORDERS_FULL, EVENTS_FULL = range(3)
BARS, DECIDE = range(2)
RETURNS_WINDOW = 250
