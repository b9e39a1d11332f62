"""The shape of corporate actions as vendors and files give them; what they do to prices is in `adjustment`."""

from __future__ import annotations

import polars as pl

from quantlytic_assets.market_data.bars import TIME

KINDS = ("split", "dividend", "rename")

# One action of one symbol. `session`: the first one on which it has happened (a split's or dividend's ex-date, the
# first session under a new name). `value`: new shares for one old (4.0 for 4:1, 0.1 for 1:10), or cash a share.
# `new_symbol`: of a rename. `known_on`: the day from which the public knew of it. `adjustment`: `none` for a dividend
# as it was paid, `split` for one already divided by the splits between its day and `recorded_at`.
ACTIONS_SCHEMA = pl.Schema(
    {
        "symbol": pl.String,
        "session": pl.Date,
        "kind": pl.String,
        "value": pl.Float64,
        "new_symbol": pl.String,
        "known_on": pl.Date,
        "adjustment": pl.String,
        "vendor": pl.String,
        "recorded_at": TIME,
    }
)
