"""Alpaca's stream, read by its own client, unmodified: through the API's application, JSON by hand beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from alpaca.data.live.crypto import CryptoDataStream
from alpaca.data.live.stock import StockDataStream
from websockets.sync.client import connect

from quantlytic_assets.api.app import make_app
from quantlytic_assets.resources import make_resources
from quantlytic_assets.serving.hot_store import HotStore
from quantlytic_assets.settings import Settings
from quantlytic_tests.push.desk import Doorkeeper, add_bar, add_price, desk, serving

START = datetime(2026, 1, 2, 14, 30, tzinfo=UTC)
UNIVERSE = """
datasets:
  crypto_1m:
    {calendar: 24/7, interval: 1m, first_session: 2025-05-10, vendors: [], symbols: [BTC-USD, ETH-USD],
     feature_intervals: [1m, 5m]}
  equities_1m:
    {calendar: XNYS, interval: 1m, first_session: 2025-06-04, vendors: [], symbols: [AAPL, MSFT]}
  equities_1d:
    {calendar: XNYS, interval: 1d, first_session: 2025-06-04, vendors: [], symbols: [AAPL, MSFT]}
strategies: {}
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[HotStore]:
    made = HotStore(tmp_path / "hot")
    yield made
    made.close()


@pytest.fixture
def api(tmp_path: Path, store: HotStore) -> Iterator[int]:
    (tmp_path / "universe.yaml").write_text(UNIVERSE)
    # The store has all there is: the API fills one that does not say so from the lake.
    with store.write() as to:
        for name in ("crypto_1m", "equities_1m", "equities_1d"):
            to.put_fact(b"{}", "dataset", name)
    settings = Settings(universe=tmp_path / "universe.yaml", home=tmp_path)
    with serving(make_app(make_resources(settings))) as (port, _):
        yield port


class Listening:
    """One of Alpaca's streams in a thread; what its handlers got."""

    def __init__(self, stream, store: HotStore):
        self.stream = stream
        self._store = store
        self.got: list[tuple[str, object]] = []
        self.begun = threading.Event()
        self._thread = threading.Thread(target=stream.run, daemon=True)

    def handler(self, name: str):
        async def take(what) -> None:
            self.begun.set()
            # Bars of before are those that find out whether the subscription is answered.
            if what.timestamp >= START:
                self.got.append((name, what))

        return take

    def __enter__(self) -> Listening:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.stream.stop()
        # It looks whether it is to stop when something comes.
        while self._thread.is_alive():
            with self._store.write() as to:
                add_bar(to, -1, "MSFT", dataset="equities_1m")
                add_bar(to, -1, "ETH-USD")
            self._thread.join(0.05)

    def wait(self, count: int) -> None:
        for _ in range(2_000):
            if len(self.got) >= count:
                return
            threading.Event().wait(0.01)
        raise AssertionError(self.got)

    def wait_until_subscribed(self) -> None:
        for number in range(400):
            with self._store.write() as to:
                add_bar(to, -1_000 + number, "MSFT", dataset="equities_1m")
                add_bar(to, -1_000 + number, "ETH-USD")
            if self.begun.wait(0.05):
                return
        raise AssertionError("nothing came")


def test_stock_bars_revisions_daily_bars_and_trades(api: int, store: HotStore):
    listening = Listening(StockDataStream("any", "any", url_override=f"ws://127.0.0.1:{api}/v2/iex"), store)
    listening.stream.subscribe_bars(listening.handler("bar"), "AAPL", "MSFT")
    listening.stream.subscribe_updated_bars(listening.handler("updated"), "*")
    listening.stream.subscribe_daily_bars(listening.handler("daily"), "AAPL")
    listening.stream.subscribe_trades(listening.handler("trade"), "MSFT")
    with listening:
        listening.wait_until_subscribed()
        with store.write() as to:
            add_bar(to, 1, "AAPL", dataset="equities_1m", close=101.5)
            add_bar(to, 1, "AAPL", revision=1, dataset="equities_1m", close=102.5)
            gone = b'{"t":"2026-01-02T14:30:00Z","deleted":true,"revision":1,"final":true}'
            to.tell(("bars", "equities_1m", "1m", "AAPL"), gone)
            add_bar(to, 1, "MSFT", dataset="equities_1m")
            add_bar(to, 1, "BTC-USD")
            add_bar(to, 0, "AAPL", dataset="equities_1d", interval="1d")
            add_bar(to, 0, "MSFT", dataset="equities_1d", interval="1d")
            add_price(to, 400.25, "MSFT", dataset="equities_1m", size=7)
            add_price(to, 100.0, "AAPL", dataset="equities_1m")
        listening.wait(5)
    words = [(name, one.symbol) for name, one in listening.got]
    assert words == [("bar", "AAPL"), ("updated", "AAPL"), ("bar", "MSFT"), ("daily", "AAPL"), ("trade", "MSFT")]
    bar, updated, _, daily, trade = (one for _, one in listening.got)
    assert (bar.timestamp, bar.open, bar.high, bar.low, bar.close) == (
        START + timedelta(minutes=1),
        1.0,
        2.0,
        0.5,
        101.5,
    )
    assert (bar.volume, bar.trade_count, bar.vwap) == (10.0, 3, 1.5)
    assert (updated.timestamp, updated.close) == (bar.timestamp, 102.5)
    assert daily.timestamp == START
    assert (trade.price, trade.size) == (400.25, 7)


def test_crypto_bars_with_slashes(api: int, store: HotStore):
    listening = Listening(CryptoDataStream("any", "any", url_override=f"ws://127.0.0.1:{api}/v1beta3/crypto/us"), store)
    listening.stream.subscribe_bars(listening.handler("bar"), "BTC/USD", "ETH/USD")
    with listening:
        listening.wait_until_subscribed()
        with store.write() as to:
            add_bar(to, 3)
            add_bar(to, 0, interval="5m")
            add_bar(to, 1, "AAPL", dataset="equities_1m")
            add_bar(to, 4)
        listening.wait(2)
    assert [(one.symbol, one.close) for _, one in listening.got] == [("BTC/USD", 3.0), ("BTC/USD", 4.0)]


def test_the_words_of_the_protocol(store: HotStore):
    with desk(store, Doorkeeper(False)) as here, connect(f"ws://127.0.0.1:{here.port}/v2/iex") as client:

        def said():
            return orjson.loads(client.recv(timeout=10))

        def ask(**frame):
            client.send(orjson.dumps(frame).decode())
            return said()

        assert said() == [{"T": "success", "msg": "connected"}]
        assert ask(action="subscribe", bars=["AAPL"])[0]["code"] == 401
        assert ask(action="auth", key="k", secret="wrong")[0]["code"] == 402
        assert ask(action="auth", key="k", secret="ql_key_of_the_tests") == [{"T": "success", "msg": "authenticated"}]
        assert ask(action="auth", key="k", secret="ql_key_of_the_tests")[0]["code"] == 403
        assert ask(action="subscribe", bars="AAPL")[0]["code"] == 400
        assert "no dataset" in ask(action="subscribe", bars=["BTC/USD"])[0]["msg"]
        answer = ask(action="subscribe", bars=["AAPL", "MSFT"], quotes=["AAPL"])[0]
        assert (answer["T"], answer["bars"], answer["quotes"]) == ("subscription", ["AAPL", "MSFT"], ["AAPL"])
        with store.write() as to:
            add_bar(to, 1, "AAPL", dataset="equities_1m")
        assert said() == [
            {"T": "b", "S": "AAPL", "o": 1.0, "h": 2.0, "l": 0.5, "c": 1.0, "v": 10.0, "n": 3, "vw": 1.5,
             "t": "2026-01-02T14:31:00Z"}
        ]  # fmt: skip
        assert ask(action="unsubscribe", bars=["AAPL"])[0]["bars"] == ["MSFT"]


def test_many_readers_end_with_their_server(store: HotStore):
    """Connections that are open when the server ends are closed, and nothing of theirs is left."""
    with desk(store) as here:
        clients = [here.connect("/v2/iex" if number % 2 else "/stream") for number in range(20)]
        assert len(here.push.open) == 20
    assert here.push.open == set()
    for client in clients:
        client.close()
