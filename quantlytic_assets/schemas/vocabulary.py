"""The words that columns of tables may hold, each with its meaning.

Where a module of the domain decides which word applies, it takes the words from here; so do the declarations of tables.
"""

from __future__ import annotations

# What the prices of a bar are adjusted for.
ADJUSTMENTS = ("none", "split")

# Flag → what a user should know about the bar. Those of DEFECTS say that its prices are wrong by a known factor.
DEFECTS: dict[str, str] = {
    "times_100": "Prices are a hundred times too large or too small beside their neighbours, as where pence are taken "
    "for pounds. Where prices have two levels, the level of most bars is right.",
    "missing_split": "A split of these days is not in the bar's prices although it should be, or is in raw prices of "
    "before it. The partition's newest prices are right.",
    "doubled_split": "A split of these days is twice in the bar's prices. The partition's newest prices are right.",
    "pre_split_print": "A bar of a split's first session has a price from before the split beside ones from after it.",
}

# Flag → what a user should know about a bar that is kept.
FLAGS: dict[str, str] = {
    "zero_volume": "Nothing was traded in the bar.",
    "jump": "The open or the close is implausibly far from the close before it, known splits taken out.",
    "out_of_session": "The bar opens when the exchange is closed; the dataset keeps such bars.",
    **DEFECTS,
}

# Cause → what it says, in the order in which they are considered (and named first where two miss as many bars).
CAUSES: dict[str, str] = {
    "outage": "A known outage of the venue, or at least three quarters of its symbols, two or more, miss the same "
    "minutes.",
    "no_trade": "The vendor serves no bar for a minute without a trade, and there are bars before and after it.",
    "vendor_hole": "The vendor was asked the configured number of times and answered without the bar.",
    "not_fetched": "Nobody asked, or asked and failed.",
    "unknown": "The data were imported and the dataset has no vendor to ask.",
}

# Kinds of corporate actions.
ACTION_KINDS = ("split", "dividend", "rename")

# The fields of a bar in which two vendors are compared.
COMPARED_FIELDS = ("close", "high", "low")

SIDES = ("buy", "sell")

# Status of an order → what it says.
ORDER_STATUSES: dict[str, str] = {
    "open": "It waits for its fill.",
    "filled": "Its fill is on record.",
    "rejected": "A check rejected it; `reason` says which.",
    "cancelled": "It was called back before all of it was filled; `reason` says why.",
    "expired": "Its time was over before all of it was filled; `reason` says why.",
}

# Status of an order at a broker → what it says.
BROKER_STATUSES: dict[str, str] = {
    "written": "It is to be sent.",
    "sent": "It was sent, and the broker has not confirmed it yet.",
    "working": "The broker has confirmed it.",
    "filled": "All of it was filled.",
    "cancelled": "It was called back, or the broker cancelled it; `reason` says why.",
    "rejected": "It was not sent, or the broker rejected it; `reason` says why.",
    "expired": "Its time was over before all of it was filled.",
}

# What can happen to an account that the engine trades.
EVENT_KINDS = (
    "decision", "order_accepted", "order_rejected", "order_cancelled", "order_expired", "order_replaced", "fill",
    "split", "dividend", "rename", "delisting", "fee", "borrow", "halt", "resume", "seen_late",
    "correction",
)  # fmt: skip

# What a rule or a model says of a symbol at a bar → what it asks for.
SIGNALS: dict[str, str] = {
    "buy": "Hold the symbol.",
    "sell": "Be out of it, or short.",
    "hold": "Keep what is held.",
}
