"""Trades as rows and records: what goes onto the bus comes back, and anything else is rejected."""

import io
from datetime import UTC, datetime

import fastavro
import pytest

from quantlytic_assets.market_data.stream.messages import Trade, micros, moment
from quantlytic_assets.market_data.stream.ticks import (
    SIDES,
    TICK_HEADERS,
    TICK_SCHEMA,
    decode_ticks,
    encode_ticks,
    tick_frame,
)
from quantlytic_assets.market_data.wire.avro_records import record_schema

TIME = datetime(2024, 8, 8, 23, 54, 15, 342_123, tzinfo=UTC)
TRADES = [
    Trade("BTC-USD", 3_735_683_259, micros(TIME), 61837.63, 0.02, "sell", micros(TIME) - 1_270_000),
    Trade("ÄTH-USD", 1, micros(TIME) + 1, 1e-8, 123456789.125, "buy", micros(TIME)),
]


def test_times_are_whole_microseconds_both_ways():
    assert moment(micros(TIME)) == TIME
    assert micros(datetime(1970, 1, 1, tzinfo=UTC)) == 0


def test_trades_become_rows_in_their_order():
    frame = tick_frame(TRADES, "binance")
    assert frame.schema == TICK_SCHEMA
    assert frame.row(0) == ("BTC-USD", 3_735_683_259, TIME, 61837.63, 0.02, "sell", "binance", moment(TRADES[0][6]))
    assert tick_frame([], "binance").schema == TICK_SCHEMA


def test_rows_come_back_from_their_records():
    frame = tick_frame(TRADES, "binance")
    values = encode_ticks(frame)
    assert decode_ticks(values).equals(frame)
    assert decode_ticks([]).equals(frame.clear()) and encode_ticks(frame.clear()) == []


def test_a_record_is_avro_of_the_schema_that_the_headers_name():
    schema = record_schema(TICK_HEADERS["schema"])
    assert schema.polars == TICK_SCHEMA and set(schema.required) == set(TICK_SCHEMA)
    first = fastavro.schemaless_reader(
        io.BytesIO(encode_ticks(tick_frame(TRADES, "binance"))[0]), fastavro.parse_schema(schema.definition)
    )
    assert first == tick_frame(TRADES, "binance").row(0, named=True)
    assert {trade.side for trade in TRADES} <= set(SIDES)


@pytest.mark.parametrize("value", [b"", b"no avro", b'{"symbol": "A"}'])
def test_what_is_no_trade_is_rejected(value):
    good = encode_ticks(tick_frame(TRADES, "binance"))
    with pytest.raises(ValueError, match="1 of 3 records are no market tick; number 2"):
        decode_ticks([*good, value])
