"""Prices, candles and what they lack, over HTTP, against the lake that they come from."""

from __future__ import annotations

import gzip
from datetime import UTC, date, datetime
from io import BytesIO
from urllib.parse import quote

import msgpack
import orjson
import polars as pl
import pytest

from quantlytic_assets.serving.rows import Block, iso, micros, row
from quantlytic_tests.api.desk import Client, Desk, make_desk, serving

BTC = "/candles/BTC-USD"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return make_desk(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def api(desk: Desk):
    with serving(desk.resources) as client:
        yield client


def rows_of(desk: Desk, symbol: str, first: datetime, last: datetime) -> pl.DataFrame:
    bars = desk.bars["crypto_1m"].filter(
        pl.col("symbol") == symbol, pl.col("open_time") >= first, pl.col("open_time") < last
    )
    columns = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v", "trade_count": "n", "vwap": "vw"}
    return bars.sort("open_time").select(
        pl.col("open_time").alias("t"), *(pl.col(a).alias(b) for a, b in columns.items())
    )


def told(bars: list[dict]) -> pl.DataFrame:
    return pl.DataFrame(bars).with_columns(pl.col("t").str.to_datetime(time_unit="us", time_zone="UTC"))


def test_a_session_has_each_bar_of_the_lake_bit_by_bit(desk: Desk, api: Client):
    answer = api.get(f"{BTC}?session=2026-01-07").json
    expected = rows_of(desk, "BTC-USD", datetime(2026, 1, 7, tzinfo=UTC), datetime(2026, 1, 8, tzinfo=UTC))
    assert told(answer.pop("bars")).equals(expected)
    assert answer == {
        "dataset": "crypto_1m", "symbol": "BTC-USD", "interval": "1m", "adjustment": "none",
        "asof": "2026-06-01T00:00:00Z", "expected": 1440, "present": 1440, "holes": [], "count": 1440, "next": None,
    }  # fmt: skip


def test_an_answer_says_what_it_lacks_and_why(api: Client):
    whole = api.get(f"{BTC}?session=2026-01-06").json
    hole = {"start": "2026-01-06T10:00:00Z", "end": "2026-01-06T10:10:00Z", "cause": "vendor_hole", "bars": 10}
    assert (whole["expected"], whole["present"], whole["count"], whole["holes"]) == (1440, 1430, 1430, [hole])
    cut = api.get(f"{BTC}?start=2026-01-06T09:55&end=2026-01-06T10:05").json
    assert (cut["expected"], cut["present"], cut["count"]) == (10, 5, 5)
    assert cut["holes"] == [{**hole, "end": "2026-01-06T10:05:00Z", "bars": 5}]


@pytest.mark.parametrize("limit", [40, 999, 1440, 3000])
def test_pages_have_each_bar_once(desk: Desk, api: Client, limit: int):
    found, cursor = [], ""
    while True:
        page = api.get(f"{BTC}?start=2026-01-06T23:00&end=2026-01-08&limit={limit}{cursor}").json
        found += page["bars"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    expected = rows_of(desk, "BTC-USD", datetime(2026, 1, 6, 23, tzinfo=UTC), datetime(2026, 1, 8, tzinfo=UTC))
    assert told(found).equals(expected)


def test_without_a_start_the_newest_come(api: Client):
    answer = api.get(f"{BTC}?limit=3").json
    assert [bar["t"] for bar in answer["bars"]] == [f"2026-01-09T23:{minute}:00Z" for minute in (57, 58, 59)]
    before = api.get(f"{BTC}?limit=2&end=2026-01-07T00:01").json
    assert [bar["t"] for bar in before["bars"]] == ["2026-01-06T23:59:00Z", "2026-01-07T00:00:00Z"]


def test_the_newest_price_is_the_last_close(desk: Desk, api: Client):
    answer = api.get("/prices/ETH-USD").json
    last = desk.bars["crypto_1m"].filter(pl.col("symbol") == "ETH-USD").sort("open_time").row(-1, named=True)
    assert (answer["price"], answer["size"], answer["time"]) == (last["close"], last["volume"], "2026-01-10T00:00:00Z")
    assert (answer["source"], answer["dataset"]) == ("lake", "crypto_1m")


def test_media_types_say_the_same(api: Client):
    path = f"{BTC}?session=2026-01-06"
    plain = api.get(path).json
    packed = api.get(path, accept="application/msgpack")
    assert packed.headers["content-type"] == "application/msgpack"
    assert msgpack.unpackb(packed.body) == plain
    arrow = api.get(path, accept="application/vnd.apache.arrow.stream")
    frame = pl.read_ipc_stream(BytesIO(arrow.body))
    assert frame.equals(told(plain["bars"]).select(frame.columns))
    assert api.get(path, accept="image/png").status == 406


@pytest.mark.parametrize("path", [f"{BTC}?session=2026-01-06", "/api/ohlc/BTC-USD?session=2026-01-06"])
def test_an_unchanged_answer_is_not_sent_again_and_a_long_one_compressed(api: Client, path: str):
    first = api.get(path)
    again = api.get(path, if_none_match=first.headers["etag"])
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
    packed = api.get(path, accept_encoding="gzip")
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == first.body and len(packed.body) < len(first.body)


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/prices/BTC-USX", 404, "Did you mean 'BTC-USD'?"),
        ("/prices/AAPL", 409, "dataset=stocks_1d or dataset=stocks_5m"),
        ("/prices/AAPL?dataset=crypto_1m", 404, "BTC-USD, ETH-USD"),
        (f"{BTC}?interval=2m", 422, "has bars at 1m, 5m, 1h"),
        (f"{BTC}?start=yesterday", 422, "write 2025-05-30"),
        (f"{BTC}?start=2026-01-07&end=2026-01-06", 422, "is not before"),
        (f"{BTC}?limit=0", 422, "greater than or equal to 1"),
        (f"{BTC}?limit=ten", 422, "valid integer"),
        (f"{BTC}?strat=2026-01-07", 422, "Did you mean start?"),
        (f"{BTC}?adjustment=splits", 422, "raw, split, dividend, all"),
        (f"{BTC}?session=2026-01-06&limit=3", 422, "takes the place"),
        ("/indicators/BTC-USD?name=rsi_15", 404, "rsi_14"),
        ("/indicators/BTC-USD?type=rsi&name=rsi_14", 422, "take one of them"),
        ("/gaps/crypto", 404, "crypto_1m"),
        ("/signals/cross", 404, "cross_1d"),
        ("/nowhere", 404, "Not Found"),
    ],
)
def test_an_error_says_what_would_be_right(api: Client, path: str, status: int, says: str):
    answer = api.get(path)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json["detail"] and answer.json["status"] == status


def test_an_interval_tells_which_dataset_is_meant(api: Client):
    assert api.get("/candles/AAPL?interval=1d&limit=1").json["dataset"] == "stocks_1d"
    assert api.get("/candles/AAPL?interval=5m&limit=1").json["dataset"] == "stocks_5m"


def test_gaps_are_those_of_the_lake_by_page(api: Client):
    answer = api.get("/gaps/crypto_1m").json
    (gap,) = answer["gaps"]
    assert (gap["symbol"], gap["session"], gap["missing_bars"]) == ("BTC-USD", "2026-01-06", 10)
    assert gap["ranges"][0]["cause"] == "vendor_hole"
    assert (answer["expected"], answer["present"]) == (2 * 5 * 1440, 2 * 5 * 1440 - 10)


def test_sessions_have_figures_of_their_bars(desk: Desk, api: Client):
    answer = api.get("/api/analytics/intraday/BTC-USD?session=2026-01-07").json
    bars = rows_of(desk, "BTC-USD", datetime(2026, 1, 7, tzinfo=UTC), datetime(2026, 1, 8, tzinfo=UTC))
    assert answer["open"] == bars["o"][0] and answer["close"] == bars["c"][-1] and answer["high"] == bars["h"].max()
    assert answer["volume"] == pytest.approx(bars["v"].sum(), rel=1e-12)
    returns = bars["c"].log().diff().drop_nulls()
    assert answer["volatility"] == pytest.approx(returns.std(), rel=1e-9)
    daily = api.get("/api/analytics/daily/BTC-USD?sessions=2&end=2026-01-08").json
    assert [one["session"] for one in daily["sessions"]] == ["2026-01-06", "2026-01-07"]
    assert daily["sessions"][1]["return_close_close"] == pytest.approx(
        answer["close"] / daily["sessions"][0]["close"] - 1, rel=1e-12
    )
    months = api.get("/api/analytics/daily/AAPL?sessions=30").json
    assert len(months["sessions"]) == 30 and months["sessions"][-1]["session"] == "2021-12-31"


def test_everything_of_a_symbol_at_once(api: Client):
    data = api.get("/api/data/BTC-USD?limit=5").json
    assert data["count"] == 5 and data["latest"]["symbol"] == "BTC-USD"
    glance = api.get("/analytics/BTC-USD").json
    assert glance["session"]["session"] == "2026-01-09" and glance["latest"] == data["latest"]


def test_long_names_hold_the_same_numbers(api: Client):
    short = api.get(f"{BTC}?limit=2").json["bars"]
    long = api.get("/api/ohlc/BTC-USD?limit=2").json["bars"]
    names = {
        "t": "time",
        "o": "open",
        "h": "high",
        "l": "low",
        "c": "close",
        "v": "volume",
        "n": "trades",
        "vw": "vwap",
    }
    assert long == [{names[name]: value for name, value in bar.items()} for bar in short]


def test_signals_and_orders_have_each_row_once_over_pages(desk: Desk, api: Client):
    start = micros("2020-01-02T14:30:00Z")
    times = {name: [start + day * 86_400_000_000 for day in days] for name, days in
             {"AAPL": (0, 1, 2, 3, 4), "MSFT": (0, 3)}.items()}  # fmt: skip
    with desk.resources.hot.write() as store:
        for name, some in times.items():
            rows = [(time, row(time, {"signal": "hold", "reason": 'a "quoted", reason'})) for time in some]
            store.put_block("stocks_1d", "signals/cross_1d", name, date(2020, 1, 1), Block.of(rows))
        for number in range(7):
            order = f"cross_1d:AAPL:2020-01-0{number + 2}T14:30:00Z:entry"
            said = {"order_ref": order, "symbol": "AAPL" if number % 2 else "MSFT", "status": "filled"}
            store.put_fact(orjson.dumps(said), "orders", "cross_1d", order)
    found: dict[str, list[str]] = {"AAPL": [], "MSFT": []}
    cursor = ""
    while True:
        page = api.get(f"/signals/cross_1d?start=2020-01-01&limit=2{cursor}").json
        for name, rows in page["signals"].items():
            found[name] += [one["t"] for one in rows]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert found == {name: [iso(time) for time in some] for name, some in times.items()}
    seen, cursor = [], ""
    while True:
        page = api.get(f"/orders?limit=2&symbol=MSFT{cursor}").json
        seen += [one["order_ref"][19:24] for one in page["orders"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={quote(page['next'])}"
    assert seen == ["01-08", "01-06", "01-04", "01-02"]


def test_a_hot_answer_follows_the_store(desk: Desk, api: Client):
    path = "/candles/ETH-USD?session=2026-01-12"
    assert api.get(path).json["count"] == 0
    time = micros("2026-01-12T00:00:00Z")
    with desk.resources.hot.write() as store:
        store.add_rows("crypto_1m", "bars/1m", "ETH-USD", date(2026, 1, 12), [(time, row(time, {"c": 1.0}))])
    first = api.get(path)
    assert first.json["bars"] == [{"t": "2026-01-12T00:00:00Z", "c": 1.0}] and first.json["expected"] == 1
    with desk.resources.hot.write() as store:
        store.put_fact(b"1", "of", "something else")
    again = api.get(path, if_none_match=first.headers["etag"])
    assert again.status == 304
    with desk.resources.hot.write() as store:
        store.add_rows("crypto_1m", "bars/1m", "ETH-USD", date(2026, 1, 12), [(time, row(time, {"c": 2.0}))])
    assert api.get(path, if_none_match=first.headers["etag"]).json["bars"][0]["c"] == 2.0
    with desk.resources.hot.write() as store:
        store.delete_block("crypto_1m", "bars/1m", "ETH-USD", date(2026, 1, 12))
