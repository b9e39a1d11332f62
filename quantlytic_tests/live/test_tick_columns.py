"""Trades read from the bytes of their records: what the schema's own decoder reads, and faults where it finds them."""

from __future__ import annotations

import random

import numpy as np
import pytest

from quantlytic_assets.live.tick_columns import TickColumns, _walk, tick_columns
from quantlytic_assets.market_data.stream.messages import Trade
from quantlytic_assets.market_data.stream.ticks import encode_ticks, tick_frame
from quantlytic_assets.market_data.wire.avro_records import record_schema

SCHEMA = record_schema("market_tick")


def values(count: int, seed: int = 1) -> list[bytes]:
    """Records of trades with numbers of all lengths and signs, and prices that are none."""
    drawn = random.Random(seed)
    stream = [
        Trade(
            drawn.choice(("BTC-USD", "", "A", "S" * 63)),
            drawn.choice((-1, 1)) * drawn.getrandbits(drawn.randrange(54)),
            drawn.choice((-1, 1)) * drawn.getrandbits(54), drawn.choice((drawn.gauss(0, 1e9), float("nan"), 0.0)),
            drawn.uniform(0, 1e-9), "buy", drawn.getrandbits(40),
        )
        for _ in range(count)
    ]  # fmt: skip
    return encode_ticks(tick_frame(stream, drawn.choice(("coinbase", "v"))))


def assert_as_decoded(records: list[bytes]) -> None:
    columns, faults = tick_columns(records)
    rows, wrong = SCHEMA.decode(records)
    assert faults == sorted(wrong)
    assert columns.symbol == rows["symbol"].to_list()
    for name in TickColumns._fields[1:]:
        wanted = rows[name].to_physical().to_numpy()
        assert np.array_equal(getattr(columns, name), wanted, equal_nan=wanted.dtype == np.float64), name


@pytest.fixture
def plain_only(monkeypatch) -> None:
    """Let no record be decoded in the other way."""
    monkeypatch.setattr("quantlytic_assets.live.tick_columns._unusual", None)


@pytest.mark.usefixtures("plain_only")
@pytest.mark.parametrize("count", [1, 7, 500])
def test_plain_records_are_read_by_the_loop_alone(count):
    assert_as_decoded(values(count, count))


def long_text(record: bytes) -> bytes:
    """A record with a symbol of 200 characters in place of its own."""
    size = record[0] // 2
    return b"\x90\x03" + b"L" * 200 + record[1 + size :]


UNUSUAL = {
    "empty": b"",
    "rubbish": b"rubbish",
    "cut": values(1)[0][:-1],
    "too long": values(1)[0] + b"\0",
    "negative length": b"\x01" + values(1)[0][1:],
    "no text": b"\x04\xff\xfe" + values(1)[0][1 + values(1)[0][0] // 2 :],
    "umlaut": "\x04ä".encode() + values(1)[0][1 + values(1)[0][0] // 2 :],
    "endless number": b"\x02A" + b"\xff" * 30,
    "long number": b"\x02A" + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + b"\x02" + b"\0" * 16 + b"\0\0\0",
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_record_is_what_the_decoder_says_and_changes_none_beside_it(name):
    before, after = values(5, 2), values(5, 3)
    assert_as_decoded([*before, UNUSUAL[name], *after])
    assert_as_decoded([UNUSUAL[name]])


@pytest.mark.usefixtures("plain_only")
def test_long_text_is_plain():
    assert_as_decoded([*values(3), long_text(values(1, 4)[0])])


def test_bytes_by_chance_are_read_as_the_decoder_reads_them_or_left_to_it():
    drawn = random.Random(5)
    good = values(40, 6)
    for _ in range(300):
        record = bytearray(drawn.choice(good))
        for _ in range(drawn.randrange(1, 4)):
            record[drawn.randrange(len(record))] = drawn.randrange(256)
        assert_as_decoded([good[0], bytes(record), good[1]])


def test_the_loop_reads_no_byte_of_the_next_record():
    # The first one's last number goes on where the second one begins.
    one, two = values(2)
    joined = np.frombuffer(one[:-1] + b"\x80" + two, np.uint8)
    kinds, columns = np.zeros(8, dtype=np.int64), np.full(8, -1)
    kinds[:] = [{"string": 0, "long": 1, "double": 2}[kind] for _, kind, _ in SCHEMA.fields]
    ends = np.array([len(one), len(one) + len(two)])
    assert _walk(joined, ends, kinds, columns, np.empty((4, 2), dtype=np.int64), np.empty((2, 2), dtype=np.int64)) == 0
