"""Corporate actions: their shape as vendors and files give them, and which of several reports counts.

What they do to prices is in `adjustment`, whose prices they are in `listings`, how a file of them is read in
`action_files`.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.market_data.bars import QUARANTINE_SCHEMA
from quantlytic_assets.schemas.clean import CORPORATE_ACTIONS
from quantlytic_assets.schemas.vocabulary import ACTION_KINDS, ADJUSTMENTS

# Who reports what a user's file says: it wins over every vendor.
IMPORT = "import"

# One action of one symbol. `session`: the first one on which it has happened (a split's or dividend's ex-date, the
# first session under a new name). `value`: new shares for one old (4.0 for 4:1, 0.1 for 1:10), or cash a share; a split
# of 1 and a dividend of 0 say that there was none. `new_symbol`: of a rename, "" in an import where there was none.
# `known_on`: the day from which the public knew of it. `adjustment`: `none` for a dividend as it was paid, `split` for
# one already divided by the splits between its day and `recorded_at`.
ACTIONS_SCHEMA = CORPORATE_ACTIONS.without("dataset", "source_object", "source_row")

# One action of clean.corporate_actions: as above, but `value` of a dividend is cash as paid whatever it was reported as
# (`adjustment`), and `known_on` has a value.
CORPORATE_ACTIONS_SCHEMA = CORPORATE_ACTIONS.polars

# Reason → what is wrong with a report that is not used.
REASONS: dict[str, str] = {
    "no_symbol": "It does not say of which symbol.",
    "no_date": "It does not say from which session on.",
    "unknown_kind": "It is neither a split, a dividend nor a rename.",
    "bad_value": "A split's value is missing, not finite or not above zero, or a dividend's is below zero.",
    "no_new_symbol": "A rename does not say what the symbol became.",
    "unknown_adjustment": "It is neither as paid (none) nor adjusted for splits (split).",
}

# Vendors round adjusted dividends to six decimals or so: less than this part of the larger is no disagreement.
SAME_VALUE = 1e-3

_KEY = ["symbol", "session", "kind"]


@dataclass(frozen=True)
class Reconciled:
    """What counts, and what does not.

    actions: CORPORATE_ACTIONS_SCHEMA, one a symbol, session and kind. rejected: QUARANTINE_SCHEMA. disputed: every
    report of those actions that were reported differently.
    """

    actions: pl.DataFrame
    rejected: pl.DataFrame
    disputed: pl.DataFrame


def reconcile(reported: pl.DataFrame, dataset: str) -> Reconciled:
    """Choose among reports of a dataset's actions.

    `reported`: ACTIONS_SCHEMA with source_object and source_row, in any order; the result depends on the set alone. An
    import wins over vendors, then the newest `recorded_at`. Split-adjusted dividends are made cash as paid with the
    splits after their session up to the day they were recorded; a split on the dividend's own session is not undone,
    so the cash is that of a share as it stands on the ex-date. Without a `known_on` the public knew on the ex-date,
    or when the action was recorded if that was earlier.
    """
    checked = reported.with_columns(_reason().alias("reason"))
    good = checked.filter(pl.col("reason").is_null()).drop("reason")
    splits = _chosen(good.filter(pl.col("kind") == "split"))
    cash = _as_paid(good.filter(pl.col("kind") == "dividend"), splits)
    as_paid = pl.concat([good.filter(pl.col("kind") != "dividend"), cash])
    # A split of 1 changes nothing where it stands; a rename that was none can't stand anywhere.
    taken_back = (pl.col("kind") == "rename") & (pl.col("new_symbol") == "")
    actions = (
        _chosen(as_paid)
        .filter(~taken_back.fill_null(False))
        .with_columns(
            pl.lit(dataset).alias("dataset"),
            pl.coalesce("known_on", pl.min_horizontal("session", pl.col("recorded_at").dt.date())).alias("known_on"),
        )
    )
    rejected = checked.filter(pl.col("reason").is_not_null()).select(
        pl.lit(dataset).alias("dataset"),
        "symbol",
        "session",
        pl.lit(None, TIME).alias("open_time"),
        "reason",
        pl.struct([pl.col(name).cast(pl.String) for name in ACTIONS_SCHEMA]).struct.json_encode().alias("raw"),
        "source_object",
        "source_row",
    )
    return Reconciled(
        actions=actions.match_to_schema(CORPORATE_ACTIONS_SCHEMA).sort(*_KEY),
        rejected=rejected.match_to_schema(QUARANTINE_SCHEMA).sort("source_object", "source_row"),
        disputed=_disputed(as_paid),
    )


def _reason() -> pl.Expr:
    """The first of REASONS that applies, else null."""
    value, renamed, new_symbol = pl.col("value"), pl.col("kind") == "rename", pl.col("new_symbol")
    taken_back = (pl.col("vendor") == IMPORT) & (new_symbol == "").fill_null(False)
    possible = (value > 0) | ((value == 0) & (pl.col("kind") == "dividend"))
    rules = {
        "no_symbol": pl.col("symbol").is_null() | (pl.col("symbol").str.strip_chars() == ""),
        "no_date": pl.col("session").is_null(),
        "unknown_kind": ~pl.col("kind").is_in(ACTION_KINDS).fill_null(False),
        "bad_value": ~renamed & ~(value.is_finite() & possible).fill_null(False),
        "no_new_symbol": renamed & (new_symbol.fill_null(" ").str.strip_chars() == "") & ~taken_back,
        "unknown_adjustment": ~pl.col("adjustment").is_in(ADJUSTMENTS).fill_null(False),
    }
    return pl.coalesce(pl.when(rule).then(pl.lit(reason)) for reason, rule in rules.items())


def _chosen(reported: pl.DataFrame) -> pl.DataFrame:
    """One report a key: the best one."""
    order = [pl.col("vendor") == IMPORT, "recorded_at", "source_object", "source_row"]
    return reported.sort(order).unique(_KEY, keep="last")


def _as_paid(dividends: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """`dividends` with `value` in cash a share as paid."""
    after = (
        dividends.with_row_index("row")
        .filter(pl.col("adjustment") == "split")
        .join(splits.select("symbol", pl.col("session").alias("ex"), pl.col("value").alias("ratio")), on="symbol")
        .filter(pl.col("ex") > pl.col("session"), pl.col("ex") <= pl.col("recorded_at").dt.date())
        .group_by("row")
        .agg(pl.col("ratio").product())
    )
    return (
        dividends.with_row_index("row")
        .join(after, on="row", how="left", maintain_order="left")
        .with_columns((pl.col("value") * pl.col("ratio").fill_null(1.0)).alias("value"))
        .drop("row", "ratio")
    )


def _disputed(reported: pl.DataFrame) -> pl.DataFrame:
    apart = (pl.col("value").max() - pl.col("value").min()) > SAME_VALUE * pl.col("value").max()
    differ = apart.fill_null(False) | (pl.col("new_symbol").n_unique() > 1)
    keys = reported.group_by(_KEY).agg(differ.alias("differ")).filter("differ").select(_KEY)
    return reported.join(keys, on=_KEY, how="semi").sort(*_KEY, "vendor", "recorded_at")
