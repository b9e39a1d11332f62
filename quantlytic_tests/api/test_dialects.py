"""The clients of Alpaca and Massive, as they are, against the API: what they get is what the lake has."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from alpaca.common.enums import Sort
from alpaca.common.exceptions import APIError
from alpaca.data.enums import Adjustment
from alpaca.data.historical import CryptoHistoricalDataClient, StockHistoricalDataClient
from alpaca.data.requests import (
    CryptoBarsRequest,
    CryptoLatestBarRequest,
    StockBarsRequest,
    StockLatestBarRequest,
)
from alpaca.data.timeframe import TimeFrame, TimeFrameUnit
from massive import RESTClient
from massive.exceptions import BadResponse

from quantlytic_assets.api.dialects import with_every_member
from quantlytic_tests.api.desk import Client, Desk, make_desk, serving

NAMES = {"timestamp": "open_time", "open": "open", "high": "high", "low": "low", "close": "close", "volume": "volume",
         "trade_count": "trade_count", "vwap": "vwap"}  # fmt: skip


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    # 70 sessions: more than 100,000 minutes of each symbol.
    made = make_desk(tmp_path_factory.mktemp("dialects"), minutes=70, published=False)
    made.act("stocks_1d", "AAPL", date(2020, 8, 31), "split", 4.0)
    made.act("stocks_1d", "AAPL", date(2021, 2, 5), "dividend", 0.5)
    made.adjust()
    made.publish()
    return made


@pytest.fixture(scope="module")
def api(desk: Desk) -> Iterator[Client]:
    with serving(desk.resources) as client:
        yield client


@pytest.fixture(scope="module")
def stocks(api: Client) -> StockHistoricalDataClient:
    return StockHistoricalDataClient("any", "thing", url_override=api.base)


def frame(bars: list) -> pl.DataFrame:
    columns = {ours: [getattr(bar, theirs) for bar in bars] for theirs, ours in NAMES.items()}
    return pl.DataFrame(columns).with_columns(pl.col("open_time").cast(pl.Datetime("us", "UTC")))


def lake(desk: Desk, dataset: str, symbol: str) -> pl.DataFrame:
    bars = desk.bars[dataset].filter(pl.col("symbol") == symbol).sort("open_time")
    return bars.select(NAMES.values()).with_columns(pl.col("trade_count").cast(pl.Float64))


def test_alpaca_py_gets_a_hundred_thousand_bars_as_the_lake_has_them(desk: Desk, api: Client):
    client = CryptoHistoricalDataClient("any", "thing", url_override=api.base)

    def bars_of(*symbols: str, end: datetime | None = None) -> dict[str, list]:
        asked = CryptoBarsRequest(
            symbol_or_symbols=list(symbols), timeframe=TimeFrame.Minute, start=datetime(2026, 1, 1, tzinfo=UTC), end=end
        )
        return client.get_crypto_bars(asked).data

    (found,) = bars_of("ETH/USD").values()
    assert len(found) == 70 * 1440 > 100_000
    assert frame(found).equals(lake(desk, "crypto_1m", "ETH-USD"))
    newest = client.get_crypto_latest_bar(CryptoLatestBarRequest(symbol_or_symbols="ETH/USD"))["ETH/USD"]
    assert newest == found[-1]
    # Its objects take 200 MB; pages that go on from one symbol to the next need fewer.
    del found, newest
    end = datetime(2026, 1, 20, 23, 59, 30, tzinfo=UTC)
    both = bars_of("BTC/USD", "ETH/USD", end=end)
    assert [len(bars) for bars in both.values()] == [16 * 1440 - 10, 16 * 1440]
    for symbol, bars in both.items():
        expected = lake(desk, "crypto_1m", symbol.replace("/", "-")).filter(pl.col("open_time") < end)
        assert frame(bars).equals(expected), symbol


def test_alpaca_py_pages_over_symbols_in_both_directions(desk: Desk, stocks: StockHistoricalDataClient):
    for sort in ("asc", "desc"):
        asked = StockBarsRequest(
            symbol_or_symbols=["MSFT", "AAPL"], timeframe=TimeFrame.Day, start=datetime(2020, 1, 1),
            end=datetime(2022, 1, 1), sort=sort,
        )  # fmt: skip
        # Pages of seven bars, as its own loop goes through them.
        pages = stocks._get_marketdata("/stocks/bars", asked.to_request_fields() | {"limit": 1100}, page_limit=7)
        plain = stocks.get_stock_bars(asked).data
        for symbol in ("AAPL", "MSFT"):
            expected = lake(desk, "stocks_1d", symbol)
            expected = expected if sort == "asc" else expected.reverse()
            assert frame(plain[symbol]).equals(expected.cast(frame(plain[symbol]).schema))
            assert [row["t"] for row in pages[symbol]] == expected["open_time"].dt.to_string(
                "%Y-%m-%dT%H:%M:%SZ"
            ).to_list()


def test_alpaca_py_gets_adjusted_bars(desk: Desk, stocks: StockHistoricalDataClient):
    def closes(adjustment: Adjustment, symbol: str = "AAPL") -> pl.Series:
        asked = StockBarsRequest(
            symbol_or_symbols=symbol, timeframe=TimeFrame.Day, start=datetime(2020, 1, 1), adjustment=adjustment
        )
        return frame(stocks.get_stock_bars(asked).data[symbol])["close"]

    kinds = (Adjustment.RAW, Adjustment.SPLIT, Adjustment.DIVIDEND, Adjustment.ALL)
    raw, split, paid, both = (closes(one) for one in kinds)
    sessions = desk.bars["stocks_1d"].filter(pl.col("symbol") == "AAPL").sort("open_time")["session"]
    before = sessions < date(2020, 8, 31)
    assert split.equals(raw * before.map_elements(lambda early: 0.25 if early else 1.0, pl.Float64), check_names=False)
    ex_date = int((sessions < date(2021, 2, 5)).sum())
    factor = 1 - 0.5 / raw[ex_date - 1]
    assert both[0] == pytest.approx(raw[0] / 4 * factor, rel=1e-12)
    assert both[ex_date:].equals(split[ex_date:])
    assert paid[:ex_date].to_list() == pytest.approx((raw[:ex_date] * factor).to_list(), rel=1e-12)
    assert paid[ex_date:].equals(raw[ex_date:])
    # Nothing happened to the other one.
    assert closes(Adjustment.ALL, "MSFT").equals(closes(Adjustment.RAW, "MSFT"))


def test_the_newest_bar_of_a_stock_is_of_its_shortest_interval(desk: Desk, stocks: StockHistoricalDataClient):
    found = stocks.get_stock_latest_bar(StockLatestBarRequest(symbol_or_symbols=["AAPL", "MSFT"]))
    assert found["AAPL"].timestamp == desk.bars["stocks_5m"]["open_time"].max()
    msft = desk.bars["stocks_1d"].filter(pl.col("symbol") == "MSFT")
    assert found["MSFT"].timestamp == msft["open_time"].max()


def test_alpaca_py_is_told_what_is_wrong(stocks: StockHistoricalDataClient):
    def asked(symbol: str, timeframe: TimeFrame, **more: str) -> None:
        stocks.get_stock_bars(StockBarsRequest(symbol_or_symbols=symbol, timeframe=timeframe, **more))

    with pytest.raises(APIError) as error:
        asked("AAPLE", TimeFrame.Day)
    assert error.value.status_code == 404 and "Did you mean 'AAPL'?" in error.value.message
    assert error.value.code == 40410000
    with pytest.raises(APIError, match="AAPL has bars at 1d, 5m"):
        asked("AAPL", TimeFrame(15, TimeFrameUnit.Minute))
    with pytest.raises(APIError, match="asof=yesterday is no date"):
        asked("AAPL", TimeFrame.Day, asof="yesterday")


def test_alpaca_py_gets_a_renamed_company_under_whichever_ticker_it_is_asked_for(tmp_path: Path):
    desk = make_desk(tmp_path, minutes=2, published=False)
    prices = pl.col("open", "high", "low", "close")
    same = desk.bars["stocks_1d"]
    # Both have the same prices; here they are told apart by them.
    desk.fill("stocks_1d", same.with_columns(pl.when(pl.col("symbol") == "MSFT").then(prices * 3).otherwise(prices)))
    renamed = date(2021, 6, 9)
    desk.act("stocks_1d", "AAPL", renamed, "rename", None, "MSFT")
    desk.publish()
    bars = desk.bars["stocks_1d"].sort("open_time")
    company = bars.filter((pl.col("symbol") == "AAPL") == (pl.col("session") < renamed))
    with serving(desk.resources) as api:
        client = StockHistoricalDataClient("key", "secret", url_override=api.base)

        def closes(symbol: str, sort: Sort = Sort.ASC, **more: str) -> list[float]:
            asked = StockBarsRequest(
                symbol_or_symbols=symbol, timeframe=TimeFrame.Day, start=datetime(2020, 1, 1), sort=sort, **more
            )
            return [bar.close for bar in client.get_stock_bars(asked).data[symbol]]

        assert closes("MSFT") == closes("AAPL", asof="2021-06-08") == company["close"].to_list()
        assert closes("MSFT", Sort.DESC) == company["close"].reverse().to_list()
        # Who took the old ticker is another company, and so is who had the new one.
        others = bars.join(company, on=["symbol", "session"], how="anti")
        for symbol, asof in (("AAPL", "2021-06-09"), ("MSFT", "2021-06-08")):
            assert closes(symbol, asof=asof) == others.filter(pl.col("symbol") == symbol)["close"].to_list()
        assert closes("MSFT", asof="-") == bars.filter(pl.col("symbol") == "MSFT")["close"].to_list()
        for sort in ("asc", "desc"):
            found, token = [], ""
            while token is not None:
                page = api.get(
                    f"/v2/stocks/MSFT/bars?timeframe=1Day&start=2021-06-01&end=2021-06-20&limit=3&sort={sort}"
                    + (f"&page_token={token}" if token else "")
                ).json
                found, token = found + page["bars"], page["next_page_token"]
            wanted = company.filter(pl.col("session").is_between(date(2021, 6, 1), date(2021, 6, 20)))["close"]
            assert [bar["c"] for bar in found] == (wanted if sort == "asc" else wanted.reverse()).to_list()


def test_a_single_stock_and_half_known_members(api: Client):
    one = api.get("/v2/stocks/AAPL/bars?timeframe=1Day&start=2020-01-02&end=2020-01-03").json
    assert one["symbol"] == "AAPL" and [bar["t"][:10] for bar in one["bars"]] == ["2020-01-02", "2020-01-03"]
    mixed = (
        b'{"t":"a","c":1.0,"v":2.0},{"t":"b","c":1.0,"v":2.0,"n":3},'
        b'{"t":"c","c":1.0,"v":2.0,"vw":4.0},{"t":"d","c":1.0,"v":2.0,"n":3,"vw":4.0}'
    )
    assert with_every_member(mixed, 4) == (
        b'{"t":"a","c":1.0,"v":2.0,"n":null,"vw":null},{"t":"b","c":1.0,"v":2.0,"n":3,"vw":null},'
        b'{"t":"c","c":1.0,"v":2.0,"n":null,"vw":4.0},{"t":"d","c":1.0,"v":2.0,"n":3,"vw":4.0}'
    )


def test_massive_gets_bars_by_page_in_both_directions(desk: Desk, api: Client):
    client = RESTClient("any", base=api.base)
    expected = lake(desk, "crypto_1m", "ETH-USD").filter(pl.col("open_time").dt.date() <= date(2026, 1, 6))
    for sort in ("asc", "desc"):
        bars = list(client.list_aggs("X:ETHUSD", 1, "minute", "2026-01-05", "2026-01-06", sort=sort, limit=999))
        wanted = expected if sort == "asc" else expected.reverse()
        assert [bar.timestamp for bar in bars] == wanted["open_time"].dt.epoch("ms").to_list()
        for theirs, ours in (("open", "open"), ("close", "close"), ("volume", "volume"), ("vwap", "vwap")):
            assert [getattr(bar, theirs) for bar in bars] == wanted[ours].to_list()
    split = list(client.list_aggs("AAPL", 1, "day", "2020-01-01", "2020-02-01"))
    plain = list(client.list_aggs("AAPL", 1, "day", "2020-01-01", "2020-02-01", adjusted=False))
    assert [bar.close for bar in split] == [bar.close / 4 for bar in plain]
    with pytest.raises(BadResponse, match="minute, hour, day"):
        list(client.list_aggs("AAPL", 1, "week", "2020-01-01", "2020-02-01"))
