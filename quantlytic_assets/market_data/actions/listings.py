"""Whose bars a ticker's are: renames made into stretches of time in which a ticker means one company.

A rename says that what traded as X trades as Y from a session on. Where X and Y are the same, it says that from then on
another company trades under the ticker. Where two tickers become the same one on the same session, two companies have
become a third, which goes on with the prices of neither. What is known of prices is in `adjustment`.
"""

from __future__ import annotations

import polars as pl

# `instrument` is what the company is called at the end of its known renames. `since`: first session of the stretch
# (1-01-01 where it has no beginning); it ends where the ticker's next one begins.
LISTINGS_SCHEMA = pl.Schema({"symbol": pl.String, "since": pl.Date, "instrument": pl.String})

# The beginning of a stretch that has none; DuckDB and Python both have it.
BEGINNING = pl.date(1, 1, 1)


def listings(renames: pl.DataFrame) -> pl.DataFrame:
    """LISTINGS_SCHEMA of the tickers that occur in `renames` (symbol, session, new_symbol), by symbol and since.

    A company that held a ticker until another one took it, without a rename of its own, is called `X@<that day>`:
    @ and the ISO date of the session on which X passed on. Tickers that don't occur are their own instruments.
    """
    stretches = _stretches(renames)
    walk = stretches.select(
        "symbol", "since", pl.col("symbol").alias("now"), pl.col("until").alias("day"), pl.col("next").alias("to")
    )
    ended = []
    # Each round goes one rename on for all; a day never comes twice, so as many rounds as renames are enough.
    while len(walk):
        gone = walk["to"].is_not_null()
        ended.append(walk.filter(~gone))
        walk = (
            walk.filter(gone)
            .select("symbol", "since", "to", "day")
            .sort("day")
            .join_asof(
                stretches.select("since", "until", "next", pl.col("symbol").alias("now")).sort("since"),
                left_on="day",
                right_on="since",
                by_left="to",
                by_right="now",
                check_sortedness=False,
                coalesce=False,
            )
            .select(
                "symbol", "since", pl.col("to").alias("now"), pl.col("until").alias("day"), pl.col("next").alias("to")
            )
        )
    name = (
        pl.when(pl.col("day").is_null())
        .then("now")
        .otherwise(pl.concat_str("now", pl.lit("@"), pl.col("day").dt.to_string("%Y-%m-%d")))
    )
    if not ended:
        return pl.DataFrame(schema=LISTINGS_SCHEMA)
    found = pl.concat([part.select("symbol", "since", name.alias("instrument")) for part in ended])
    return found.match_to_schema(LISTINGS_SCHEMA).sort("symbol", "since")


def with_instrument(frame: pl.DataFrame, stretches: pl.DataFrame) -> pl.DataFrame:
    """`frame` (symbol, session, …) with the `instrument` that each row's symbol meant then; rows keep their order."""
    return (
        with_last_step(frame, stretches, "symbol", "session", "since")
        .with_columns(pl.coalesce("instrument", "symbol").alias("instrument"))
        .drop("since")
    )


def with_last_step(frame: pl.DataFrame, steps: pl.DataFrame, by: str, day: str, since: str) -> pl.DataFrame:
    """`frame` (`by`, `day`, …) with the columns of the last of `steps` (`by`, `since`, …) until each row's day.

    Nulls where there is none yet; rows keep their order.
    """
    return (
        frame.with_row_index("row")
        .sort(day)
        .join_asof(steps.sort(since), left_on=day, right_on=since, by=by, check_sortedness=False)
        .sort("row")
        .drop("row")
    )


def _stretches(renames: pl.DataFrame) -> pl.DataFrame:
    """symbol, since, until (null: still), next: the ticker its company went on under, null where it has none."""
    left = renames.filter(pl.col("symbol") != pl.col("new_symbol"))
    alone = pl.col("symbol").n_unique().over("session", "new_symbol") == 1
    events = pl.concat(
        [
            left.select("symbol", "session", pl.when(alone).then("new_symbol").alias("next")),
            renames.select(pl.col("new_symbol").alias("symbol"), "session", pl.lit(None, pl.String).alias("next")),
        ]
    )
    # On a day on which one company leaves a ticker and another takes it, the one before went on elsewhere.
    ends = events.group_by("symbol", "session").agg(pl.col("next").max()).sort("symbol", "session")
    begins = pl.concat(
        [
            ends.select("symbol").unique().with_columns(BEGINNING.alias("since")),
            ends.select("symbol", pl.col("session").alias("since")),
        ]
    ).sort("symbol", "since")
    return begins.join(
        ends.with_columns(
            pl.col("session").shift(1).over("symbol", order_by="session").fill_null(BEGINNING).alias("since")
        ).select("symbol", "since", pl.col("session").alias("until"), "next"),
        on=["symbol", "since"],
        how="left",
    )
