"""Alpaca's market data API over the hot store: an unmodified `alpaca-py` works by `url_override`.

Bars of stocks and of crypto by page, and the latest bar. As Alpaca has it, `end` is part of the range, symbols come one
after another within a page, and crypto symbols are written with a slash. A stock's symbol means the company that it
meant on the day `asof`, today without it, and the bars of that company under its other tickers come with it, where the
dataset has them. Adjusted prices are as of the day they were published.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import Path, Query, Request
from fastapi.responses import Response

from quantlytic_assets.api import models
from quantlytic_assets.api.access import MARKET
from quantlytic_assets.api.answers import Reply, respond
from quantlytic_assets.api.dialects import dataset_for, parts_of, token, with_every_member
from quantlytic_assets.api.parameters import BEGINNING, END, chosen, inclusive_span_of, time_of
from quantlytic_assets.api.problems import Problem
from quantlytic_assets.api.routes import responses, router
from quantlytic_assets.api.series import ADJUSTMENTS, bars_kind, page
from quantlytic_assets.market_data.actions.tickers import Stretch, tickers_of
from quantlytic_assets.serving.rows import Block, iso

if TYPE_CHECKING:
    from fastapi import APIRouter

    from quantlytic_assets.api.context import Context
    from quantlytic_assets.serving.hot_store import Reader
    from quantlytic_assets.universe.models import Dataset

_UNITS = {"min": "m", "t": "m", "hour": "h", "h": "h", "day": "d", "d": "d"}
_TIMEFRAME = re.compile(r"(\d+)\s*(Min|T|Hour|H|Day|D)", re.IGNORECASE)
_EXAMPLE = {
    "bars": {"AAPL": [{"t": "2012-01-03T14:30:00Z", "o": 58.485714, "h": 58.92857, "l": 58.42857, "c": 58.747143,
                       "v": 75555200.0, "n": None, "vw": None}]},
    "next_page_token": None,
}  # fmt: skip

Symbols = Annotated[str, Query(description="Symbols, by comma", examples=["AAPL,MSFT"])]
Timeframe = Annotated[str, Query(description="1Min, 5Min, 15Min, 1Hour or 1Day", examples=["1Day"])]
Start = Annotated[
    str | None, Query(description="Beginning, part of the range; left out: the newest", examples=["2012-01-03"])
]
End = Annotated[str | None, Query(description="End, part of the range", examples=["2012-02-01"])]
Limit = Annotated[int, Query(ge=1, le=10_000, description="Bars of a page, all symbols together")]
Token = Annotated[str | None, Query(description="`next_page_token` of the page before")]
Sort = Annotated[str, Query(description="asc or desc, by time", examples=["asc"])]
Adjustment = Annotated[str, Query(description="raw, split, dividend, or all for both", examples=["raw"])]
AsOf = Annotated[
    str | None,
    Query(
        description="Day on which symbols mean a company; default today, - for tickers alone", examples=["2022-06-08"]
    ),
]
Feed = Annotated[str | None, Query(description="Any: there is one feed here")]
Currency = Annotated[str, Query(description="USD", examples=["USD"])]
Loc = Annotated[str, Path(description="Any: there is one crypto venue here", examples=["us"])]


def interval_of(timeframe: str) -> str:
    """Our interval of a timeframe such as 5Min. Raises `Problem` 422 for another text."""
    found = _TIMEFRAME.fullmatch(timeframe.strip())
    if found is None:
        raise Problem(422, f"timeframe={timeframe} is none of 1Min, 5Min, 15Min, 1Hour, 1Day.", parameter="timeframe")
    count, unit = int(found[1]), _UNITS[found[2].lower()]
    return "1h" if (count, unit) == (60, "m") else f"{count}{unit}"


def named_on(asof: str | None) -> date | None:
    """The day on which symbols mean a company; None for `-`, tickers alone. Raises `Problem` 422 for no date."""
    if asof == "-":
        return None
    try:
        return date.fromisoformat(asof) if asof else datetime.now(UTC).date()
    except ValueError:
        raise Problem(422, f"asof={asof} is no date: write asof=2022-06-08.", parameter="asof") from None


def _stretches(store: Reader, dataset: str) -> list[Stretch]:
    """Which company each renamed ticker of a dataset meant when."""
    said = orjson.loads(store.fact("names", dataset) or b"[]")
    return [Stretch(**one | {"since": date.fromisoformat(one["since"])}) for one in said]


def _rows(
    store: Reader, dataset: Dataset, kinds: tuple[str, ...], tickers: list[tuple[str, int, int]], since: int,
    before: int, most: int, newest: bool,
) -> Block:  # fmt: skip
    """The first rows of a range, or its `newest`, at most so many, under whichever ticker they are."""
    found: list[Block] = []
    left = most
    for symbol, start, end in reversed(tickers) if newest else tickers:
        first, last = max(since, start), min(before, end)
        if left == 0 or first >= last:
            continue
        part = page(store, dataset, kinds, symbol, BEGINNING if newest else first, last, left).block.between(
            first, last
        )
        found.append(part)
        left -= part.count
    return Block.joined(found[::-1] if newest else found)


def _names(symbols: str) -> list[str]:
    found = sorted({one.strip() for one in symbols.split(",") if one.strip()})
    if not found:
        raise Problem(422, "symbols is empty: write symbols=AAPL,MSFT.", parameter="symbols")
    return found


def _page(
    context: Context, crypto: bool, names: list[str], timeframe: str, start: str | None, end: str | None, limit: int,
    page_token: str | None, sort: str, adjustment: str, named: date | None,
) -> tuple[list[tuple[str, bytes]], str | None]:  # fmt: skip
    """Rows by symbol, those that have some, and the token of the next page."""
    interval = interval_of(timeframe)
    chosen("sort", sort, ("asc", "desc"))
    kinds = bars_kind(interval, chosen("adjustment", adjustment, ADJUSTMENTS))
    first, last = inclusive_span_of(start, end)
    after, at = parts_of("page_token", page_token, 2) if page_token else ("", "")
    found: list[tuple[str, bytes]] = []
    left = limit
    # All names are checked before anything is read.
    datasets = {
        name: dataset_for(context, name.replace("/", "-") if crypto else name, interval, crypto) for name in names
    }
    with context.hot.read() as store:
        # Read once a dataset. Without a day tickers are taken as they stand.
        asked = {one.name for one in datasets.values()} if named is not None else ()
        stretches = {dataset: _stretches(store, dataset) for dataset in asked}
        for name in names:
            if name < after:
                continue
            if left == 0:
                return found, token(name, "")
            symbol = name.replace("/", "-") if crypto else name
            since, before = first, last
            if name == after and at:
                since, before = (
                    (time_of("page_token", at), before) if sort == "asc" else (since, time_of("page_token", at))
                )
            newest = sort == "desc" or since == BEGINNING
            # One more tells whether there is another page.
            tickers = [(symbol, BEGINNING, END)]
            if named is not None:
                tickers = tickers_of(stretches[datasets[name].name], symbol, named, BEGINNING, END)
            part = _rows(store, datasets[name], kinds, tickers, since, before, left + 1, newest)
            more = part.count > left
            rows = (part.newest(left) if newest else part.oldest(left)) if more else part
            if rows.count:
                body = with_every_member(rows.body if sort == "asc" else rows.reversed_body(), rows.count)
                found.append((name, body))
            left -= rows.count
            if more and sort == "desc":
                return found, token(name, iso(rows.first))
            if more and not newest:
                return found, token(name, iso(part.newest(1).first))
    return found, None


def alpaca_routes(context: Context) -> APIRouter:
    """Alpaca's routes of bars."""
    routes = router("Alpaca's dialect", MARKET)
    told = responses(models.Anything, _EXAMPLE)

    async def of_symbols(request: Request, crypto: bool, symbols: str, *asked: Any) -> Response:
        bars, following = _page(context, crypto, _names(symbols), *asked)
        body = b",".join(orjson.dumps(name) + b":[" + rows + b"]" for name, rows in bars)
        said = b'{"bars":{' + body + b'},"next_page_token":' + orjson.dumps(following) + b"}"
        return respond(request, Reply(orjson.Fragment(said)))

    def latest(crypto: bool, names: list[str]) -> Reply:
        found: list[bytes] = []
        with context.hot.read() as store:
            for name in names:
                symbol = name.replace("/", "-") if crypto else name
                dataset = dataset_for(context, symbol, None, crypto)
                newest = next(store.newest_blocks(dataset.name, f"bars/{dataset.interval}", symbol), None)
                row = newest[1].newest(1) if newest else Block(0, -1, b"")
                if row.count:
                    found.append(orjson.dumps(name) + b":" + with_every_member(row.body, 1))
        return Reply(orjson.Fragment(b'{"bars":{' + b",".join(found) + b"}}"))

    @routes.get("/v2/stocks/bars/latest", summary="The newest bar of stocks", responses=told)
    async def latest_stocks(
        request: Request, symbols: Symbols, feed: Feed = None, currency: Currency = "USD"
    ) -> Response:
        return respond(request, latest(False, _names(symbols)))

    @routes.get("/v2/stocks/bars", summary="Bars of stocks, by page", responses=told)
    async def stocks(
        request: Request, symbols: Symbols, timeframe: Timeframe, start: Start = None, end: End = None,
        limit: Limit = 1000, adjustment: Adjustment = "raw", asof: AsOf = None, feed: Feed = None,
        currency: Currency = "USD", page_token: Token = None, sort: Sort = "asc",
    ) -> Response:  # fmt: skip
        asked = (timeframe, start, end, limit, page_token, sort, adjustment, named_on(asof))
        return await of_symbols(request, False, symbols, *asked)

    @routes.get("/v2/stocks/{symbol}/bars", summary="Bars of a stock, by page", responses=told)
    async def stock(
        request: Request, symbol: Annotated[str, Path(examples=["AAPL"])], timeframe: Timeframe, start: Start = None,
        end: End = None, limit: Limit = 1000, adjustment: Adjustment = "raw", asof: AsOf = None, feed: Feed = None,
        currency: Currency = "USD", page_token: Token = None, sort: Sort = "asc",
    ) -> Response:  # fmt: skip
        asked = (timeframe, start, end, limit, page_token, sort, adjustment, named_on(asof))
        bars, following = _page(context, False, [symbol], *asked)
        body = bars[0][1] if bars else b""
        said = orjson.dumps({"symbol": symbol, "next_page_token": following})[:-1] + b',"bars":[' + body + b"]}"
        return respond(request, Reply(orjson.Fragment(said)))

    @routes.get("/v1beta3/crypto/{loc}/bars", summary="Bars of crypto, by page", responses=told)
    async def crypto(
        request: Request, loc: Loc, symbols: Annotated[str, Query(examples=["BTC/USD"])], timeframe: Timeframe,
        start: Start = None, end: End = None, limit: Limit = 1000, page_token: Token = None, sort: Sort = "asc",
    ) -> Response:  # fmt: skip
        return await of_symbols(request, True, symbols, timeframe, start, end, limit, page_token, sort, "raw", None)

    @routes.get("/v1beta3/crypto/{loc}/latest/bars", summary="The newest bar of crypto", responses=told)
    async def latest_crypto(
        request: Request, loc: Loc, symbols: Annotated[str, Query(examples=["BTC/USD"])]
    ) -> Response:
        return respond(request, latest(True, _names(symbols)))

    return routes
