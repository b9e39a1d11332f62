"""What a version with three records a batch has left is served, put in its places and published once."""

from __future__ import annotations

import struct
from datetime import date

import orjson
import pytest

from quantlytic_assets.live import older_state
from quantlytic_assets.live.state import Message
from quantlytic_assets.serving.hot_store import HotStore
from quantlytic_tests.live.test_minutes import DATASET

PUT, DELETE, DELETE_BEFORE = range(3)
TIME = 1_746_000_000_000_000
COLUMNS = {"1m": ("sma_20", "rsi_14")}


@pytest.fixture
def hot(tmp_path):
    store = HotStore(tmp_path / "hot")
    yield store
    store.close()


def entry(what: int, *name: str, value: bytes = b"") -> bytes:
    key = "\0".join(name).encode()
    return struct.pack(">BHI", what, len(key), len(value)) + key + value


CHANGES = [
    entry(PUT, "line", "1m", "Ä-USD", "1", value=b"one") + entry(PUT, "line", "1m", "Ä-USD", "2", value=bytes(256)),
    entry(PUT, "line", "1m", "Ä-USD", "3", value=b"three") + entry(PUT, "untraded", "B", "7"),
    entry(DELETE_BEFORE, "line", "1m", "Ä-USD", "2") + entry(DELETE, "untraded", "B", "7"),
]
SERVED = [
    [
        "bars",
        "1m",
        "BTC-USD",
        "2025-04-30",
        TIME,
        [1.0, 2.0, 0.5, 1.5, 3.0, 4, None],
        {"revision": 0, "trace": "t:0:1"},
    ],
    ["features", "1m", "BTC-USD", "2025-04-30", TIME, [1.25, None], {"trace": "t:0:1"}],
]
OUTBOX = [["signals.a", "BTC-USD", "BTC-USD/1/0", '{"id": "BTC-USD/1/0"}']]


def test_what_is_left_is_taken_up_once(hot):
    with hot.write() as writer:
        for number, one in enumerate(CHANGES):
            writer.put_state(one, "live", DATASET.name, "changes", f"{number:020d}")
        writer.put_state(orjson.dumps(SERVED), "live", DATASET.name, "unserved", f"{0:020d}")
        writer.put_state(orjson.dumps(OUTBOX), "live", DATASET.name, "outbox")
    for _ in range(2):
        with hot.write() as writer:
            older_state.take_up(writer, DATASET, COLUMNS)
    with hot.read() as reader:
        kept = dict(reader.states("live", DATASET.name))
        assert older_state.outbox(reader, DATASET) == [
            Message("signals.a", "BTC-USD", "BTC-USD/1/0", b'{"id": "BTC-USD/1/0"}')
        ]
        told = [(one.channel[0], orjson.loads(one.body)) for one in reader.journal(0)]
        block = reader.block(DATASET.name, "bars/1m", "BTC-USD", date(2025, 4, 30))
    assert kept.pop(("outbox",)) and kept == {
        ("line", "1m", "Ä-USD", "2"): bytes(256),
        ("line", "1m", "Ä-USD", "3"): b"three",
    }
    assert [kind for kind, _ in told] == ["bars", "features"]
    assert told[0][1]["c"] == 1.5 and told[1][1]["sma_20"] == 1.25 and block is not None and block.count == 1
    with hot.write() as writer:
        older_state.forget_outbox(writer, DATASET)
        assert older_state.outbox(writer, DATASET) == []


def test_where_nothing_is_left_nothing_is_done(hot):
    with hot.write() as writer:
        older_state.take_up(writer, DATASET, COLUMNS)
        assert older_state.outbox(writer, DATASET) == [] and writer.sequence == 0
