"""The tables of `features`, which dbt makes: bars at every interval, features by family, labels, adjusted bars.

A column or rule that is declared here reaches the models by `make generate`, which writes their properties. The SQL
that fills a column is the model's.
"""

from __future__ import annotations

import polars as pl

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.schemas.columns import (
    CLOSE,
    CLOSE_TIME,
    DATASET,
    HIGH,
    INTERVAL,
    LOW,
    OPEN,
    OPEN_TIME,
    PRICE,
    SESSION,
    SHARES,
    SYMBOL,
    VOLUME,
)
from quantlytic_assets.schemas.table import Column, Rule, Table, described

BARS = Table(
    "features.bars",
    writer="bars",
    description="Bars at every feature interval of a dataset, made of its clean bars, in prices as they were traded. "
    "Buckets start at the session's open (and again after a lunch break); the last one of a session ends with it. One "
    "row per dataset, symbol, interval and open time.",
    columns=(
        DATASET,
        SYMBOL,
        SESSION,
        INTERVAL,
        OPEN_TIME,
        described(
            CLOSE_TIME,
            "End of the bar, UTC, not part of it: the end of its bucket or of the session, whichever comes first.",
        ),
        Column("open", pl.Float64, "Open of the first native bar that has a price.", nullable=True, unit=PRICE),
        Column("high", pl.Float64, "Highest high.", nullable=True, unit=PRICE),
        Column("low", pl.Float64, "Lowest low.", nullable=True, unit=PRICE),
        Column(
            "close",
            pl.Float64,
            "Close of the last native bar that has a price. All prices are null where none has one.",
            nullable=True,
            unit=PRICE,
        ),
        Column("volume", pl.Float64, "Sum of the volumes, shares or base units.", nullable=True, unit=SHARES),
        Column(
            "available_at",
            TIME,
            "Earliest time, UTC, at which a decision could have used the bar: its end plus the delay of its native "
            "bars.",
        ),
        Column(
            "complete",
            pl.Boolean,
            "Whether the bucket has ended and each native bar of it is there or is known not to have traded "
            "(no_trade). A native bar whose price is known to be wrong by a factor counts as missing, unless its "
            "repair rests on no later bar.",
        ),
        Column(
            "listing",
            pl.String,
            "The stretch of time in which the symbol means one company: symbol@first session, or the symbol alone "
            "where it has no beginning.",
        ),
        Column(
            "shares",
            pl.Float64,
            "How many shares one share of the company's beginning has become by that session. Price times shares has "
            "no jump at a split.",
            unit="shares per first share",
        ),
    ),
    key=("symbol", "interval", "open_time"),
    partitioned_by=("dataset", '"interval"', "year(session)"),
    rules=(
        Rule(
            "priced",
            "A bar has all of its prices or none of them, a complete one has them all.",
            "(open is null) = (close is null) and (high is null) = (close is null) "
            "and (low is null) = (close is null) and (close is not null or not complete)",
        ),
        Rule(
            "prices_ordered",
            "No price of a bar is above its high or below its low, and no volume is negative.",
            "high >= greatest(open, close, low) and low <= least(open, close) and coalesce(volume, 0) >= 0",
        ),
        Rule(
            "times_ordered",
            "A bar starts before it ends and cannot be known before that.",
            "open_time < close_time and available_at >= close_time",
        ),
    ),
)

ADJUSTED_BARS = Table(
    "features.adjusted_bars",
    writer="adjusted_bars",
    description="Clean bars adjusted for splits and dividends as of any day, computed when asked: bars and actions "
    "after that day, or not known by then, don't exist. `SET VARIABLE as_of = DATE '2014-06-01'` chooses the day "
    "(`quantlytic sql --as-of`); without it the day is today. One row per dataset, symbol and open time, at the "
    "dataset's own interval.",
    columns=(
        DATASET,
        SYMBOL,
        Column(
            "instrument",
            pl.String,
            "What the symbol meant on that session: the company's name at the end of its renames known by `as_of`. "
            "`X@date` is one whose ticker X passed to another company on that day.",
        ),
        SESSION,
        OPEN_TIME,
        CLOSE_TIME,
        described(OPEN, "First traded price, as served unless `repaired`.", above=None),
        described(HIGH, "Highest traded price, as served unless `repaired`.", above=None),
        described(LOW, "Lowest traded price, as served unless `repaired`.", above=None),
        described(CLOSE, "Last traded price, as served unless `repaired`.", above=None),
        described(VOLUME, "Traded shares or base units, as served unless `repaired`.", at_least=None, nullable=True),
        Column("split_factor", pl.Float64, "What prices are multiplied by to be in shares as of the day."),
        Column(
            "dividend_factor",
            pl.Float64,
            "What closes are multiplied by besides, for the dividends after the session: the product of 1 - dividend "
            "/ close before its ex-date. A dividend that is not below that close adjusts nothing.",
        ),
        Column("split_open", pl.Float64, "Open in shares as of the day.", unit=PRICE),
        Column("split_high", pl.Float64, "High in shares as of the day.", unit=PRICE),
        Column("split_low", pl.Float64, "Low in shares as of the day.", unit=PRICE),
        Column("split_close", pl.Float64, "Close in shares as of the day.", unit=PRICE),
        Column("split_volume", pl.Float64, "Volume in shares as of the day.", nullable=True, unit=SHARES),
        Column(
            "adjusted_close",
            pl.Float64,
            "Close adjusted for splits and dividends, as CRSP and Yahoo do it.",
            unit=PRICE,
        ),
        Column(
            "adjustment",
            pl.String,
            "What the prices served were adjusted for: none or split. Both end in the same basis here.",
        ),
        Column("repaired", pl.Boolean, "Whether the prices or the volume are those of clean.repairs."),
        Column("as_of", pl.Date, "The day the adjustment is for."),
        Column("available_at", TIME, "Earliest time, UTC, at which a decision could have used the bar."),
        Column("flags", pl.List(pl.String), "What is unusual about the bar, defects included; empty when nothing is."),
    ),
    key=("symbol", "open_time"),
    rules=(
        Rule(
            "positive",
            "No dividend is as large as the close before it, and no ratio is zero.",
            "split_factor > 0 and dividend_factor > 0",
            warning=True,
        ),
    ),
)

_FRACTION = "fraction"

# What each row of a family begins with.
FAMILY_KEYS = (
    DATASET,
    SYMBOL,
    SESSION,
    INTERVAL,
    OPEN_TIME,
    Column("available_at", TIME, "Earliest time, UTC, at which a decision could have used the row."),
)
# The columns by which the rows of the families belong together; `session` says which files have them.
JOINED_BY = ("dataset", "symbol", "session", "interval", "open_time")
_ROW_KEY = ("symbol", "interval", "open_time")
_FILES = ("dataset", '"interval"', "year(session)")
_OF_A_CLOSE = (
    Column(
        "close",
        pl.Float64,
        "Close of the bar, the price the features are about; null where the bar may not be used.",
        nullable=True,
        unit=PRICE,
    ),
    Column(
        "history_bars",
        pl.Int32,
        "Usable bars of this symbol and interval up to this one, counted to 200 at most; null where this one is no "
        "usable bar.",
        nullable=True,
        unit="bars",
        at_least=1,
        at_most=200,
    ),
)

CLOSES = Table(
    "features.closes",
    writer="closes",
    description="Every bar of `features.bars` with the close that features are about: null where the bar may not be "
    "used, because it is not complete or its price is known to be wrong. The families of features have a row for each "
    "of these rows.",
    columns=(*FAMILY_KEYS, *_OF_A_CLOSE),
    key=_ROW_KEY,
    partitioned_by=_FILES,
    rules=(
        Rule(
            "of_usable_bars",
            "A bar that may be used has a close and a history, another one has neither.",
            "(close is null) = (history_bars is null)",
        ),
    ),
)

# What each family is about, and the rules of its columns.
_FAMILIES = {
    "trend": "where prices tend to: averages, MACD, channels and stops that follow the price",
    "momentum": "returns, and how fast and how far prices have moved: RSI, stochastics, ADX and their kin",
    "volatility": "how much prices move: ranges, bands and deviations of returns",
    "volume": "what was traded, and at which prices",
    "statistics": "figures of a window of returns: Sharpe, drawdown, skew, time of day and week",
    "candles": "TA-Lib's candle patterns: 100 bullish, -100 bearish, 0 none",
    "cross_asset": "a symbol beside others: beta, correlation, spreads, and its rank among all symbols of one time",
    "alpha158": "Qlib's Alpha158",
    "custom": "the features of the universe's plugins",
}
_FAMILY_RULES = {
    "volatility": (
        Rule(
            "bands_ordered",
            "The lower Bollinger band is not above the middle one, nor that above the upper one.",
            "bb_lower <= bb_middle and bb_middle <= bb_upper",
        ),
    )
}

# In the order in which features.indicators shows their columns.
FAMILIES: dict[str, Table] = {
    family: Table(
        f"features.{family}",
        writer=family,
        description=f"Features of the family `{family}`: {about}. One column for each that a dataset declares, null "
        "for the other datasets and until its window is full, and a row for each row of `features.closes`. "
        "`quantlytic features` lists all with their formulas.",
        columns=FAMILY_KEYS,
        key=_ROW_KEY,
        partitioned_by=_FILES,
        more=pl.Float64,
        rows_of=CLOSES.name,
        rules=_FAMILY_RULES.get(family, ()),
    )
    for family, about in _FAMILIES.items()
}

INDICATORS = Table(
    "features.indicators",
    writer="indicators",
    description="The features that a dataset declares, for every bar of `features.bars`, from that bar and the ones "
    "before it only: a view of `features.closes` and the tables of all families. A feature is null until its window is "
    "full, and a column is null for datasets that do not declare it. A bar that may not be used, because it is not "
    "complete or its price is known to be wrong, has a row of nulls and enters no window. Prices are in shares of the "
    "bar's own session, a split is no return, and nothing goes on from one company to the next under the same ticker. "
    "Computed session by session or all at once, the numbers are the same. `quantlytic features` lists all features "
    "with their formulas.",
    columns=(*FAMILY_KEYS, *_OF_A_CLOSE),
    key=_ROW_KEY,
    more=pl.Float64,
    rows_of=CLOSES.name,
    rules=(
        Rule(
            "null_until_full",
            "A feature of the set core is null while its window is not full.",
            "(sma_20 is null or history_bars >= 20) and (sma_50 is null or history_bars >= 50) "
            "and (sma_200 is null or history_bars >= 200) and (ema_26 is null or history_bars >= 26) "
            "and (macd_signal is null or history_bars >= 34) and (rsi_14 is null or history_bars >= 15)",
        ),
    ),
)

LABELS = Table(
    "features.labels",
    writer="labels",
    description="What a trade decided on a bar would have earned: decided when the bar is available, entered at the "
    "open of the first bar that opens then or later, left at the open `horizon` bars after that. No label is decided "
    "on, entered or left at a bar that may not be used. A row appears when its outcome is known, in the partition of "
    "the session in which that happens.",
    columns=(
        DATASET,
        SYMBOL,
        described(SESSION, "Trading day of the bar decided on."),
        INTERVAL,
        Column("horizon", pl.Int32, "Bars between entry and exit.", unit="bars"),
        described(OPEN_TIME, "Start of the bar decided on, UTC."),
        Column("available_at", TIME, "Earliest time, UTC, at which the decision could be made."),
        Column(
            "entry_time",
            TIME,
            "Start of the first bar that opens at or after available_at, at whose open the trade is entered, UTC.",
        ),
        Column("exit_time", TIME, "Start of the bar at whose open the trade is left, UTC."),
        Column(
            "forward_return",
            pl.Float64,
            "Open at the exit over open at the entry, less one, splits in between taken out; neither costs nor "
            "dividends are counted.",
            unit=_FRACTION,
        ),
        Column("label", pl.Int32, "1 if forward_return is above zero, else 0."),
        Column("label_session", pl.Date, "Trading day of the exit bar: the first that could know the label."),
        Column(
            "label_available_at",
            TIME,
            "When the exit bar is available, UTC: training on the row before that would be a look ahead.",
        ),
    ),
    key=("symbol", "interval", "horizon", "open_time"),
    partitioned_by=("dataset", '"interval"', "year(label_session)"),
    session="label_session",
    rules=(
        Rule(
            "no_look_ahead",
            "The outcome comes after the decision, and the label says what the return says.",
            "open_time < entry_time and available_at <= entry_time and entry_time < exit_time "
            "and label_available_at > available_at and label = cast(forward_return > 0 as integer)",
        ),
    ),
)

# In the order in which dbt's documentation lists them.
TABLES = (BARS, ADJUSTED_BARS, CLOSES, *FAMILIES.values(), INDICATORS, LABELS)
