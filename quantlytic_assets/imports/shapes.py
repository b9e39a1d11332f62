"""The shapes of files that vendors and libraries write, each one small declaration.

A shape looks at a file's first rows and says what its columns are (`Layout`), or that the file is none of its own. A
new shape is a function of the first rows, and an entry in SHAPES. What is read from the columns is in `tables`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from quantlytic_assets.imports.options import NUMBERS, OURS

# The first rows of a file, as text.
Rows = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Layout:
    """What the columns of a file are.

    `names`: one a column, as the file has them. `begin`: rows before the first bar. `columns`: ours to theirs where
    the usual names do not tell. `symbol`: the column of symbols. `clock`: the column with the time of day, where `time`
    has the date alone. `period`: the column with each row's interval. `date_format`: how times are written.
    `blocks`: symbols that stand side by side, each with the place of its own columns. `note`: what a user should know.
    """

    names: Sequence[str]
    begin: int = 1
    columns: Mapping[str, str] = field(default_factory=dict)
    symbol: str | None = None
    clock: str | None = None
    period: str | None = None
    date_format: str | None = None
    blocks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    note: str = ""


# What Stooq and MetaTrader write for an interval.
PERIODS = {"1": "1m", "5": "5m", "15": "15m", "60": "1h", "D": "1d"}

_ADJUSTED = "prices of {} are adjusted for splits: import them with --adjustment split"
_ADJUSTED_FOR_DIVIDENDS = (
    "yfinance without a column Adj Close has prices adjusted for dividends too; "
    "for prices as they were use download(…, auto_adjust=False)"
)
_TUPLE = re.compile(r"\('([^']*)', '([^']*)'\)")
_KLINE = (*OURS, "close_time", "quote_volume", "trades", "taker_base", "taker_quote", "ignore")


def _folded(row: Sequence[str]) -> list[str]:
    return [name.strip().casefold() for name in row]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def yfinance(rows: Rows) -> Layout | None:
    """`yf.download(…).to_csv()`: a header row of prices, one of tickers (or the reverse), one with `Date` alone."""
    if len(rows) < 3 or len(rows[0]) < 6 or len(rows[0]) != len(rows[1]):
        return None
    upper, lower = rows[0], rows[1]
    if {*_folded(upper)} >= {"open", "high", "low", "close"}:
        fields, tickers = upper, lower
    elif {*_folded(lower)} >= {"open", "high", "low", "close"}:
        fields, tickers = lower, upper
    else:
        return None
    # In an ordinary file the first column is called otherwise, and the second row is the first bar.
    if not {rows[0][0].casefold(), rows[1][0].casefold()} <= {"price", "ticker", ""} or not all(tickers[1:]):
        return None
    third = _folded(rows[2])
    begin = 3 if third[0] in ("date", "datetime", "") and not any(third[1:]) else 2
    names = ["Date", *(f"{name} {ticker}" for name, ticker in zip(fields[1:], tickers[1:], strict=True))]
    return _side_by_side(fields, tickers, 0, begin, names)


def yfinance_columns(rows: Rows) -> Layout | None:
    """`yf.download(…).to_parquet()`, whose columns are called `('Close', 'AAPL')`."""
    pairs = [_TUPLE.fullmatch(name.strip()) for name in rows[0]]
    times = [at for at, pair in enumerate(pairs) if pair is None]
    if len(times) != 1 or len(pairs) < 6:
        return None
    fields, tickers = ([pair[part] if pair else "" for pair in pairs] for part in (1, 2))
    if "open" not in _folded(fields):
        fields, tickers = tickers, fields
    return _side_by_side(fields, tickers, times[0], 1, rows[0]) if "open" in _folded(fields) else None


def _side_by_side(fields: Sequence[str], tickers: Sequence[str], time: int, begin: int, names: Sequence[str]) -> Layout:
    blocks: dict[str, dict[str, int]] = {}
    for at, (name, ticker) in enumerate(zip(_folded(fields), tickers, strict=True)):
        if at != time and name in NUMBERS:
            blocks.setdefault(ticker.strip(), {"time": time})[name] = at
    adjusted = "adj close" in _folded(fields)
    note = _ADJUSTED.format("yfinance") if adjusted else _ADJUSTED_FOR_DIVIDENDS
    return Layout(names, begin, blocks=blocks, note=note)


def bracketed(rows: Rows) -> Layout | None:
    """Stooq, MetaTrader: `<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>`."""
    names = _folded(rows[0])
    there = {name.strip("<>"): rows[0][at] for at, name in enumerate(names) if re.fullmatch("<[a-z]+>", name)}
    date = there.get("date") or there.get("dtyyyymmdd")
    if date is None or not there.keys() >= {"open", "high", "low", "close"}:
        return None
    columns = {name: there[name] for name in NUMBERS if name in there} | {"time": date}
    if "vol" in there:
        columns["volume"] = there["vol"]
    return Layout(rows[0], 1, columns, symbol=there.get("ticker"), clock=there.get("time"), period=there.get("per"))


def cryptodatadownload(rows: Rows) -> Layout | None:
    """`unix,date,symbol,open,high,low,close,Volume BTC,Volume USD`, after a line with the site's address."""
    names = _folded(rows[0])
    volumes = [rows[0][at] for at, name in enumerate(names) if name.startswith("volume ")]
    if "symbol" not in names or not volumes or len(rows) < 2 or len(rows[1]) != len(rows[0]):
        return None
    pair = rows[1][names.index("symbol")].upper()
    # What was traded, not what was paid for it.
    base = [name for name in volumes if pair.startswith(name.split()[-1].upper())]
    time = next((name for name in ("unix", "unix timestamp", "date") if name in names), None)
    if time is None or not base:
        return None
    at = names.index(time)
    hourly = re.fullmatch(r"\d{4}-\d{2}-\d{2} \d{2}-[AP]M", rows[1][at].strip())
    return Layout(
        rows[0],
        1,
        {"time": rows[0][at], "volume": base[0]},
        symbol=rows[0][names.index("symbol")],
        date_format="%Y-%m-%d %I-%p" if hourly else None,
    )


def binance_klines(rows: Rows) -> Layout | None:
    """Binance's klines without a header: twelve columns, the open and close time as epochs in ms or µs."""
    first = [_number(text) for text in rows[0]]
    if len(first) != len(_KLINE) or any(number is None for number in first):
        return None
    opens, closes = first[0] or 0, first[_KLINE.index("close_time")] or 0
    return Layout(_KLINE, 0) if 1e11 < opens < closes < opens * 1.01 else None


def freqtrade(rows: Rows) -> Layout | None:
    """Lists of freqtrade and ccxt, each `[time, open, high, low, close, volume]` with the time as an epoch in ms."""
    first = [_number(text) for text in rows[0]]
    if len(first) != len(OURS) or any(number is None for number in first):
        return None
    return Layout(OURS, 0) if (first[0] or 0) > 1e11 else None


def date_and_time(rows: Rows) -> Layout | None:
    """A column with the date and one with the time of day."""
    names = _folded(rows[0])
    if len(rows) < 2 or names.count("date") != 1 or names.count("time") != 1 or len(rows[1]) != len(rows[0]):
        return None
    date, time = names.index("date"), names.index("time")
    if not re.fullmatch(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?", rows[1][time].strip()):
        return None
    return Layout(rows[0], 1, {"time": rows[0][date]}, clock=rows[0][time])


def yahoo(rows: Rows) -> Layout | None:
    """Yahoo's download: `Date,Open,High,Low,Close,Adj Close,Volume`."""
    return Layout(rows[0], note=_ADJUSTED.format("Yahoo")) if "adj close" in _folded(rows[0]) else None


# The first that knows a file is taken.
SHAPES: Sequence[Callable[[Rows], Layout | None]] = (
    yfinance,
    yfinance_columns,
    bracketed,
    cryptodatadownload,
    binance_klines,
    freqtrade,
    date_and_time,
    yahoo,
)


def layout_of(rows: Rows) -> Layout:
    """What the columns of a file with these first rows are; for a file of no known shape its first row names them."""
    found = (shape(rows) for shape in SHAPES)
    return next((layout for layout in found if layout is not None), Layout(rows[0]))


def by_position(columns: int) -> Layout:
    """The layout of a file of so many columns that names none."""
    names = [*OURS, *(f"column {at + 1}" for at in range(len(OURS), columns))]
    return Layout(names[:columns], 0)
