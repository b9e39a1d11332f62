"""The reasons of the engine's events in words that people read."""

from __future__ import annotations

# Reason of an event → what it means. Each of `engine.codes.REASONS` is here.
REASONS: dict[str, str] = {
    "bad_weight": "the target weight is not between -1 and 1",
    "no_price": "the bar has no usable price to size or place the order by",
    "bad_quantity": "the quantity is not a positive number",
    "bad_price": "a limit, stop or trail is not a usable price",
    "unknown_symbol": "the symbol is not one of the strategy's",
    "unknown_order": "no such order works",
    "delisted": "the symbol is delisted",
    "short_not_allowed": "the account may not sell short, so the target is to hold nothing",
    "buying_power": "cash and leverage do not allow it",
    "below_lot": "the target is smaller than one lot",
    "below_minimum": "the order's value is below the minimum",
    "halted": "the account is halted",
    "cooldown": "the symbol waits after a stop (risk.cooldown_bars)",
    "max_position": "the target is limited by risk.max_position",
    "max_gross": "all targets together are limited by risk.max_gross and the leverage",
    "by_hand": "asked for by hand",
    "oco": "another order of its group was filled",
    "superseded": "a later decision took its place",
    "position_closed": "the position that it belonged to is closed",
    "nothing_to_close": "there is no position to close",
    "session_end": "its session ended",
    "immediate_or_cancel": "it could not be filled at once",
    "max_daily_loss": "the account lost more than risk.max_daily_loss in the session",
    "max_drawdown": "the account fell more than risk.max_drawdown below its peak",
    "var_95": "the value at risk is above risk.var_95",
    "ruined": "the account has no equity left",
    "rule": "the time of the halt is over",
    "financing": "interest on borrowed money",
    "late": "the bars came after their time",
    "max_bars": "the position was held for exits.max_bars",
    "exited": "an exit closed the position, and the signal that led in has not changed since",
    "rejected_by_broker": "the broker rejected it; its words are in trading.broker_orders",
    "cancelled_by_broker": "the broker cancelled it; its words are in trading.broker_orders",
    "expired_at_broker": "it was not filled in its time at the broker",
    "commission": "a commission that the broker told after the fill",
}


def in_words(reason: str | None) -> str | None:
    """A reason in words, itself where it has none; None for None."""
    return None if reason is None else REASONS.get(reason, reason)
