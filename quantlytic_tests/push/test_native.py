"""The websocket's own protocol against a running server: snapshots, cursors, revisions, slow readers, wrong frames."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from quantlytic_assets.push.connection import Push, Unavailable
from quantlytic_assets.push.limits import PushLimits
from quantlytic_assets.serving.hot_store import HotStore
from quantlytic_assets.serving.rows import iso
from quantlytic_tests.push.desk import (
    CATALOG,
    KEY,
    MINUTE,
    START,
    Desk,
    Doorkeeper,
    add_bar,
    add_price,
    ask,
    desk,
    told,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[HotStore]:
    made = HotStore(tmp_path / "hot")
    yield made
    made.close()


@pytest.fixture
def here(store: HotStore) -> Iterator[Desk]:
    with desk(store) as made:
        yield made


def bars_of(message) -> list[tuple[str, int]]:
    return [(one["data"]["t"], one["data"]["revision"]) for one in message["items"] if one["channel"] == "bars"]


def test_a_snapshot_comes_first_and_updates_go_on_from_it(store: HotStore, here: Desk):
    with store.write() as to:
        for minute in range(5):
            add_bar(to, minute)
        add_price(to, 7.5)
    with here.connect() as client:
        welcome = told(client)
        assert (welcome["type"], welcome["scopes"]) == ("welcome", ["market:read", "trading:read"])
        ask(client, action="subscribe", id="a", dataset="crypto_1m", symbols=["BTC-USD"], intervals=["1m"], snapshot=3)
        snapshot = told(client, "snapshot")
        assert (snapshot["id"], snapshot["more"], snapshot["sequence"]) == ("a", False, 6)
        price, bars = snapshot["items"]
        assert price["rows"][0]["p"] == 7.5
        assert [one["t"] for one in bars["rows"]] == [iso(START + minute * MINUTE) for minute in (2, 3, 4)]
        with store.write() as to:
            add_bar(to, 5)
            add_bar(to, 5, "ETH-USD")
            add_bar(to, 5, revision=1, close=99.0)
        updates = told(client, "updates")
        assert bars_of(updates) == [(iso(START + 5 * MINUTE), 0), (iso(START + 5 * MINUTE), 1)]
        assert updates["items"][1]["data"]["c"] == 99.0
        assert (updates["sequence"], updates["dropped"]) == (9, 0)
        beat = told(client, "heartbeat")
        assert beat["sequence"] == 9
        assert 0 <= beat["ages"]["crypto_1m"]["BTC-USD"] < 60


def test_messagepack_says_the_same(store: HotStore, here: Desk):
    with here.connect("/stream?encoding=msgpack") as client:
        assert told(client)["type"] == "welcome"
        client.send(
            msgpack.packb({"action": "subscribe", "dataset": "crypto_1m", "symbols": "*", "channels": ["bars"]})
        )
        snapshot = told(client, "snapshot")
        assert {(one["symbol"], one["interval"]) for one in snapshot["items"]} == {
            ("BTC-USD", "1m"), ("BTC-USD", "5m"), ("ETH-USD", "1m"), ("ETH-USD", "5m"),
        }  # fmt: skip
        with store.write() as to:
            add_bar(to, 1)
        assert bars_of(told(client, "updates")) == [(iso(START + MINUTE), 0)]
        assert told(client, "heartbeat")["ages"]["crypto_1m"]["ETH-USD"] is None


def test_a_reader_that_is_cut_a_hundred_times_has_each_bar_once(store: HotStore, here: Desk):
    """While a writer appends; some of the bars are revisions, which come once too."""
    chance, written, stop = random.Random(7), [], threading.Event()

    def write() -> None:
        minute = 0
        while not stop.is_set():
            with store.write() as to:
                for _ in range(chance.randrange(1, 6)):
                    add_bar(to, minute)
                    written.append((iso(START + minute * MINUTE), 0))
                    if chance.random() < 0.1:
                        add_bar(to, minute, revision=1)
                        written.append((iso(START + minute * MINUTE), 1))
                    add_bar(to, minute, "ETH-USD")
                    minute += 1
            time.sleep(chance.random() * 0.01)

    writer = threading.Thread(target=write)
    got: list[tuple[str, int]] = []
    cursor, resumed = None, 0

    def subscribe(client) -> None:
        more = {"cursor": cursor} if cursor else {"snapshot": 0}
        ask(client, action="subscribe", dataset="crypto_1m", symbols=["BTC-USD"], channels=["bars"], **more)

    with here.connect() as client:
        subscribe(client)
        cursor = told(client, "snapshot")["cursor"]
    writer.start()
    try:
        for cut in range(100):
            client = here.connect()
            subscribe(client)
            until = time.monotonic() + chance.random() * 0.08
            with contextlib.suppress(TimeoutError):
                while (left := until - time.monotonic()) > 0:
                    message = told(client, patience=left)
                    resumed += message["type"] == "resumed"
                    assert message["type"] not in ("reset", "snapshot")
                    if message["type"] == "updates":
                        got += bars_of(message)
                    # Who is cut has read what it has read, and no more.
                    if message["type"] in ("updates", "heartbeat"):
                        cursor = message["cursor"]
            client.socket.close()
    finally:
        stop.set()
        writer.join()
    with here.connect() as client:
        subscribe(client)
        while len(got) < len(written):
            got += bars_of(told(client, "updates"))
    assert got == written
    assert resumed > 50 and len(written) > 200


@pytest.mark.parametrize("cursor", ["000000000000-3", "{epoch}-999999"])
def test_a_cursor_that_leads_nowhere_is_said_and_a_snapshot_follows(store: HotStore, here: Desk, cursor: str):
    with store.write() as to:
        add_bar(to, 0)
        epoch = to.epoch
    with here.connect() as client:
        ask(client, action="subscribe", dataset="crypto_1m", symbols="*", cursor=cursor.format(epoch=epoch))
        assert "a snapshot follows" in told(client, "reset")["reason"]
        assert told(client, "snapshot")["sequence"] == 1


def test_a_cursor_older_than_the_journal_is_said_and_a_snapshot_follows(store: HotStore, here: Desk):
    with store.write() as to:
        for number in range(2_000):
            to.tell(("latest", "crypto_1m", "BTC-USD"), b"{}", keep=500)
        epoch, oldest = to.epoch, to.oldest_sequence
    assert oldest > 1_000
    with here.connect() as client:
        ask(client, action="subscribe", dataset="crypto_1m", symbols="*", cursor=f"{epoch}-{oldest - 2}")
        assert "does not reach back" in told(client, "reset")["reason"]
        assert told(client, "snapshot")["sequence"] == 2_000
    with here.connect() as client:
        ask(client, action="subscribe", dataset="crypto_1m", symbols="*", cursor=f"{epoch}-{oldest - 1}", conflate_ms=0)
        assert told(client, "resumed")["sequence"] == oldest - 1
        numbers = []
        while len(numbers) < 2_000 - oldest + 1:
            numbers += [one["sequence"] for one in told(client, "updates")["items"]]
        assert numbers == list(range(oldest, 2_001))


def test_prices_are_conflated_and_final_bars_are_not(store: HotStore, here: Desk):
    with here.connect() as client:
        ask(client, action="subscribe", dataset="crypto_1m", symbols=["BTC-USD"], snapshot=0)
        told(client, "snapshot")
        with store.write() as to:
            for number in range(300):
                add_price(to, float(number))
                add_bar(to, number // 10, final=number % 10 == 9, revision=number % 10)
        updates = told(client, "updates")
        assert [one["data"]["p"] for one in updates["items"] if one["channel"] == "latest"] == [299.0]
        assert bars_of(updates) == [(iso(START + minute * MINUTE), 9) for minute in range(30)]
        assert updates["dropped"] == 299 + 270


def test_a_slow_reader_is_waited_for_and_loses_no_final_bar(store: HotStore, here: Desk):
    """It reads nothing while far more is written than sockets hold; another reader has everything meanwhile."""
    count = 6_000
    with here.connect(max_queue=1) as slow, here.connect() as quick:
        for client in (slow, quick):
            ask(client, action="subscribe", dataset="crypto_1m", symbols=["BTC-USD"], snapshot=0, conflate_ms=50)
            told(client, "snapshot")
        got: list[tuple[str, int]] = []
        for start in range(0, count, 50):
            with store.write() as to:
                for minute in range(start, start + 50):
                    add_bar(to, minute)
                    for price in range(5):
                        add_price(to, price * 1.5, size=float("1" * 100))
            while len(got) < start + 50:
                got += bars_of(told(quick, "updates"))
        assert len(got) == count
        late, dropped, prices = [], 0, 0
        while len(late) < count:
            message = told(slow, "updates")
            late += bars_of(message)
            dropped += message["dropped"]
            prices += sum(one["channel"] == "latest" for one in message["items"])
        assert late == got
        assert dropped + prices == 5 * count and dropped > 0
        assert told(slow, "heartbeat")["dropped"] == dropped


def test_subscriptions_come_and_go_without_a_bar_lost(store: HotStore, here: Desk):
    with here.connect() as client:
        ask(client, action="subscribe", id="btc", dataset="crypto_1m", symbols=["BTC-USD"], channels=["bars"])
        told(client, "snapshot")
        with store.write() as to:
            add_bar(to, 0)
        ask(client, action="subscribe", id="eth", dataset="crypto_1m", symbols=["ETH-USD"], channels=["bars"])
        seen = []
        while (message := told(client))["type"] != "snapshot":
            seen += bars_of(message) if message["type"] == "updates" else []
        assert seen == [(iso(START), 0)] and message["id"] == "eth"
        with store.write() as to:
            add_bar(to, 1)
            add_bar(to, 1, "ETH-USD")
        assert [one["symbol"] for one in told(client, "updates")["items"]] == ["BTC-USD", "ETH-USD"]
        ask(client, action="unsubscribe", id="btc")
        assert told(client, "unsubscribed")["ids"] == ["btc"]
        with store.write() as to:
            add_bar(to, 2)
            add_bar(to, 2, "ETH-USD")
        assert [one["symbol"] for one in told(client, "updates")["items"]] == ["ETH-USD"]
        ask(client, action="subscribe", dataset="crypto_1m", symbols="*", cursor=message["cursor"])
        assert "first subscription" in told(client, "error")["message"]


def test_signals_and_orders_of_a_strategy(store: HotStore, here: Desk):
    with here.connect() as client:
        ask(client, action="subscribe", strategies=["cross"])
        told(client, "snapshot")
        with store.write() as to:
            to.tell(("signals", "cross", "AAPL"), b'{"t":"2026-01-02T14:30:00Z","signal":"buy"}')
            to.tell(("orders", "cross"), b'{"id":"o1","status":"accepted"}')
            to.tell(("orders", "another"), b'{"id":"o2","status":"accepted"}')
        assert [(one["channel"], one["strategy"]) for one in told(client, "updates")["items"]] == [
            ("signals", "cross"), ("orders", "cross"),
        ]  # fmt: skip


def test_who_may_ask_and_for_what(store: HotStore):
    with desk(store, Doorkeeper(False, frozenset({"market:read"}))) as here:
        with here.connect() as client:
            assert "auth" in told(client)
            ask(client, action="subscribe", dataset="crypto_1m", symbols="*")
            assert told(client, "error")["code"] == "unauthenticated"
            ask(client, action="auth", key="ql_wrong")
            assert told(client, "error") == {"type": "error", "code": "auth", "message": "no such key"}
            ask(client, action="auth", key=KEY)
            assert told(client, "authenticated")["scopes"] == ["market:read"]
            ask(client, action="subscribe", strategies="*")
            assert "trading:read" in told(client, "error")["message"]
            ask(client, action="subscribe", dataset="crypto_1m", symbols="*")
            told(client, "snapshot")
        with here.connect(additional_headers={"Authorization": f"Bearer {KEY}"}) as client:
            assert told(client)["scopes"] == ["market:read"]


def test_who_sends_no_credential_is_closed(store: HotStore):
    limits = PushLimits(sign_in=0.05)
    with desk(store, Doorkeeper(False), limits) as here, here.connect() as client:  # noqa: SIM117
        with pytest.raises(ConnectionClosed, match="no credential"):
            for _ in range(100):
                told(client)


def test_connects_and_wrong_frames_are_limited(store: HotStore):
    with desk(store, limits=PushLimits(connects=2, wrong=3)) as here:
        with here.connect() as client:
            for _ in range(3):
                client.send("nonsense")
            with pytest.raises(ConnectionClosed, match="3 frames in a row"):
                for _ in range(10):
                    told(client)
        here.connect().close()
        with here.connect() as client, pytest.raises(ConnectionClosed, match="too many connects: try again in"):
            told(client)


@pytest.mark.parametrize(
    ("frame", "code", "says"),
    [
        ({"action": "subscribe", "dataset": "crypto"}, "dataset", "crypto_1m, equities_1m"),
        ({"action": "subscribe", "dataset": "crypto_1m"}, "symbols", "BTC-USD, ETH-USD"),
        ({"action": "subscribe", "dataset": "crypto_1m", "symbols": ["AAPL"]}, "symbols", "BTC-USD, ETH-USD"),
        ({"action": "subscribe", "dataset": "crypto_1m", "symbols": "*", "intervals": ["2m"]}, "intervals", "1m, 5m"),
        ({"action": "subscribe", "channels": ["news"]}, "channels", "bars, latest, features, signals, orders"),
        ({"action": "subscribe", "channels": ["signals"]}, "strategies", "cross"),
        ({"action": "subscribe", "dataset": "crypto_1m", "symbols": "*", "snapshot": -1}, "snapshot", "0 to 5000"),
        ({"action": "subscribe", "dataset": "crypto_1m", "symbols": "*", "cursor": "x"}, "cursor", "send back one"),
        ({"action": "subscribe", "symbol": "BTC-USD"}, "field", "symbols"),
        ({"action": "buy"}, "action", "auth, subscribe, unsubscribe, ping"),
        ({"action": "unsubscribe", "id": "no"}, "id", "there are: none"),
    ],
)
def test_a_wrong_frame_is_told_what_would_be_right(here: Desk, frame: dict, code: str, says: str):
    with here.connect() as client:
        ask(client, **frame)
        error = told(client, "error")
        assert error["code"] == code and says in error["message"]


@pytest.fixture(scope="module")
def open_line(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    store = HotStore(tmp_path_factory.mktemp("fuzzed") / "hot")
    # Heartbeats that nobody reads between the tests must not keep it from being closed.
    with desk(store) as here, here.connect(max_queue=None) as client:
        told(client, "welcome")
        yield client
    store.close()


SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=6,
)
NAMES = st.sampled_from([*CATALOG.markets, "BTC-USD", "AAPL", "cross", "*", "1m", "bars", "orders", "-1", "a-1"])
FIELDS = ("id", "dataset", "symbols", "channels", "intervals", "strategies", "snapshot", "conflate_ms", "cursor", "key")
LIKELY = st.fixed_dictionaries(
    {"action": st.sampled_from(["auth", "subscribe", "unsubscribe", "ping"]) | VALUES},
    optional={name: NAMES | st.lists(NAMES | SCALARS, max_size=4) | VALUES for name in FIELDS},
)


def _encoded(draw_binary: bool, value) -> str | bytes:
    try:
        return msgpack.packb(value) if draw_binary else orjson.dumps(value).decode()
    except (OverflowError, TypeError, ValueError):
        return repr(value)


FRAMES = st.one_of(
    st.builds(_encoded, st.booleans(), LIKELY), st.builds(_encoded, st.booleans(), VALUES),
    st.binary(max_size=200), st.text(st.characters(exclude_categories=["Cs"]), max_size=200),
)  # fmt: skip


# The server's thread draws masks and delays meanwhile.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(FRAMES, min_size=10, max_size=10))
def test_no_frame_breaks_a_connection(open_line, frames: list[str | bytes]):
    """A thousand frames; after each ten of them the connection answers, and what was wrong was said in words."""
    for frame in frames:
        open_line.send(frame)
    ask(open_line, action="ping")
    ask(open_line, action="ping", id="last")
    pongs = 0
    while pongs < 2:
        answer = told(open_line)
        if answer["type"] == "error":
            assert answer["message"] and "on our side" not in answer["message"]
        pongs = pongs + 1 if answer["type"] == "pong" else 0


def test_the_hub_starts_again_after_an_error(store: HotStore, here: Desk):
    with here.connect() as client:
        told(client)
        here.loop.call_soon_threadsafe(lambda: here.push._following.cancel())
        with pytest.raises(ConnectionClosed, match="connect again"):
            for _ in range(100):
                told(client)
    with here.connect() as client:
        ask(client, action="subscribe", dataset="crypto_1m", symbols="*")
        told(client, "snapshot")
    assert isinstance(here.push, Push)


def test_a_store_that_is_replaced_or_not_ready(tmp_path: Path):
    stores = [HotStore(tmp_path / "one"), HotStore(tmp_path / "two")]
    with stores[1].write() as to:
        add_bar(to, 0)
        second = to.epoch
    in_place = [stores[0]]
    with desk(lambda: in_place[-1]) as here:
        with here.connect() as client:
            ask(client, action="subscribe", dataset="crypto_1m", symbols="*")
            cursor = told(client, "snapshot")["cursor"]
            in_place.append(stores[1])
            with pytest.raises(ConnectionClosed, match="replaced; connect again"):
                for _ in range(100):
                    told(client)
        with here.connect() as client:
            assert told(client)["cursor"].startswith(second)
            ask(client, action="subscribe", dataset="crypto_1m", symbols="*", cursor=f"of-another-{cursor}")
            told(client, "reset")
            assert told(client, "snapshot")["sequence"] == 1
    for store in stores:
        store.close()

    def none():
        raise Unavailable("it is being filled")

    with desk(none) as here, here.connect() as client, pytest.raises(ConnectionClosed, match="it is being filled"):
        told(client)
