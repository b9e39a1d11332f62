"""What splits and dividends make of prices: factors in closed form, as of any day. Nothing is stored adjusted.

S(x) is the product of an instrument's split ratios with ex-dates up to and on x. A price in the basis of day b (the
bar's session for raw prices, the day it was fetched for split-adjusted ones) is times S(b) / S(D) a price as of day D.
A dividend d with ex-date e multiplies adjusted closes before e by 1 - d / c, c being the close before e in shares of
e: the convention of CRSP's and of Yahoo's adjusted close. One that is not below c has no factor and adjusts nothing, as
in zipline. `features.adjusted_bars` says the same in SQL.
"""

from __future__ import annotations

from datetime import date

import polars as pl

from quantlytic_assets.market_data.actions.listings import BEGINNING, listings, with_instrument, with_last_step

_PRICES = ("open", "high", "low", "close")


def adjusted_bars(bars: pl.DataFrame, actions: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """One dataset's bars up to `as_of` with instrument, split_factor, dividend_factor, split_open … adjusted_close.

    `bars`: CLEAN_SCHEMA columns (symbol, session, open_time, prices, volume, fetched_at, adjustment, flags at least);
    `actions`: CORPORATE_ACTIONS_SCHEMA of the same dataset. Actions after `as_of`, or not known by then, don't exist,
    except that a split-adjusted price is freed of every split its vendor had put into it. Rows keep their order.
    """
    known = (pl.col("session") <= as_of) & (pl.col("known_on") <= as_of)
    stretches = listings(actions.filter(known, pl.col("kind") == "rename"))
    placed = with_instrument(bars.filter(pl.col("session") <= as_of), stretches).with_columns(basis().alias("basis"))
    events = with_instrument(actions.with_columns(known.alias("known")), stretches)
    splits = split_steps(events.filter(pl.col("kind") == "split"))
    at_basis = factor_at(placed, splits, "basis", "shares")
    at_session = factor_at(placed, splits, "session", "shares")
    later = factor_at(placed, splits, "session", "later_splits")
    traded = placed.with_columns((pl.col("close") * at_basis / at_session).alias("traded"))
    dividends = _dividend_steps(traded, events.filter(pl.col("kind") == "dividend", "known"), splits)
    return (
        placed.with_columns(
            (at_basis / at_session / later).alias("split_factor"),
            factor_at(placed, dividends, "session", "later_dividends").alias("dividend_factor"),
            pl.lit(as_of).alias("as_of"),
        )
        .with_columns(
            *((pl.col(name) * pl.col("split_factor")).alias(f"split_{name}") for name in _PRICES),
            (pl.col("volume") / pl.col("split_factor")).alias("split_volume"),
            (pl.col("close") * pl.col("split_factor") * pl.col("dividend_factor")).alias("adjusted_close"),
        )
        .drop("basis")
    )


def traded_factors(bars: pl.DataFrame, actions: pl.DataFrame, as_of: date) -> pl.DataFrame:
    """One dataset's bars as they were traded (symbol, session) with `split_factor`: what makes them prices of `as_of`.

    `actions`: see `adjusted_bars`. Rows keep their order.
    """
    known = (pl.col("session") <= as_of) & (pl.col("known_on") <= as_of)
    stretches = listings(actions.filter(known, pl.col("kind") == "rename"))
    events = with_instrument(actions.with_columns(known.alias("known")), stretches)
    splits = split_steps(events.filter(pl.col("kind") == "split"))
    later = factor_at(with_instrument(bars, stretches), splits, "session", "later_splits")
    return bars.with_columns((1 / later).alias("split_factor"))


def basis() -> pl.Expr:
    """The day in whose shares a bar's prices are. The vendor is taken to have known of splits up to the day, UTC.

    Never one before its session, which may begin on the evening before: in Sydney, or where futures trade all night.
    """
    fetched = pl.max_horizontal("session", pl.col("fetched_at").dt.date())
    return pl.when(pl.col("adjustment") == "split").then(fetched).otherwise("session")


def split_steps(splits: pl.DataFrame) -> pl.DataFrame:
    """instrument, session (first at BEGINNING), `shares` S(session), `later_splits`: product of known ones after it.

    `splits`: instrument, session, value and `known` (whether it counts as of the day that is asked about).
    """
    daily = splits.group_by("instrument", "session").agg(
        pl.col("value").product(), pl.col("value").filter("known").product().alias("known")
    )
    return _with_beginning(daily, value=1.0, known=1.0).with_columns(
        pl.col("value").cum_prod().over("instrument", order_by="session").alias("shares"),
        _product_after("known").alias("later_splits"),
    )


def factor_at(frame: pl.DataFrame, steps: pl.DataFrame, day: str, name: str) -> pl.Series:
    """For each row of `frame` (instrument, `day`) the step function `name` of its instrument on that day; else 1."""
    asked = frame.select("instrument", pl.col(day).alias("day"))
    found = with_last_step(asked, steps.select("instrument", "session", name), "instrument", "day", "session")
    return found[name].fill_null(1.0)


def _dividend_steps(bars: pl.DataFrame, dividends: pl.DataFrame, splits: pl.DataFrame) -> pl.DataFrame:
    """instrument, session (first at BEGINNING), `later_dividends`: product of the factors of dividends after it.

    `bars` have each bar's close as it was `traded`. Without a bar before the ex-date there is nothing to adjust.
    """
    closes = (
        bars.filter(~pl.col("flags").list.contains("out_of_session"))
        .sort("open_time")
        .group_by("instrument", "session")
        .agg(pl.col("traded").last())
    )
    before = (
        dividends.select("instrument", "session", "value")
        .with_columns((pl.col("session") - pl.duration(days=1)).alias("eve"))
        .sort("eve")
        .join_asof(
            closes.rename({"session": "previous"}).sort("previous"),
            left_on="eve",
            right_on="previous",
            by="instrument",
            check_sortedness=False,
        )
        .filter(pl.col("traded").is_not_null())
    )
    then, now = (factor_at(before, splits, day, "shares") for day in ("previous", "session"))
    close = before["traded"] * then / now
    daily = before.select("instrument", "session", (1 - pl.col("value") / close).alias("factor"))
    daily = daily.group_by("instrument", "session").agg(pl.col("factor").product()).filter(pl.col("factor") > 0)
    return _with_beginning(daily, factor=1.0).with_columns(_product_after("factor").alias("later_dividends"))


def _with_beginning(steps: pl.DataFrame, **values: float) -> pl.DataFrame:
    first = (
        steps.select("instrument")
        .unique()
        .with_columns(BEGINNING.alias("session"), *(pl.lit(value).alias(name) for name, value in values.items()))
    )
    return pl.concat([first.select(steps.columns), steps])


def _product_after(name: str) -> pl.Expr:
    """The product of all later values of the instrument, without the row's own."""
    return pl.col(name).reverse().cum_prod().reverse().shift(-1).fill_null(1.0).over("instrument", order_by="session")
