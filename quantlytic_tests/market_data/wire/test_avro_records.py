"""Avro records by the batch: what fastavro writes and reads one by one, and nothing that runs into its neighbour."""

import io
import json
import random
from importlib.resources import files

import fastavro
import polars as pl
import pytest

from quantlytic_assets.calendars.intervals import TIME
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.wire.avro_records import RecordSchema, record_schema
from quantlytic_assets.market_data.wire.records import encode_bars
from quantlytic_tests.frames import make_bars, minutes, utc

AVRO = files("quantlytic_assets.market_data.wire") / "schemas"
BITS = pl.col(pl.Float64).reinterpret(dtype=pl.UInt64)


def plain(name):
    """The schema as fastavro takes it, with times as the whole numbers that they travel as."""
    text = (AVRO / f"{name}.avsc").read_text()
    return fastavro.parse_schema(json.loads(text.replace(', "logicalType": "timestamp-micros"', "")))


BAR = plain("bar")


def odd_bars(count=400, seed=1):
    """Bars with every kind of value that a field can have."""
    draw = random.Random(seed)
    whole = [0, 1, -1, 63, 64, -64, -65, 8_191, 8_192, 1 << 40, (1 << 62) - 1, (1 << 63) - 1, -(1 << 63), None]
    number = [None, 0.0, -0.0, 1.5, -1e308, 5e-324, float("inf"), float("-inf"), float("nan"), 1 / 3]
    text = ["", "A", "^TNX", "é", "😀" * 15, "x" * 63, "x" * 64, "y" * 200, "\x00", "\n", " "]
    columns = {
        "symbol": pl.Series([draw.choice(text) for _ in range(count)]),
        "vendor": pl.Series([draw.choice(text) for _ in range(count)]),
        "trade_count": pl.Series([draw.choice(whole) for _ in range(count)], dtype=pl.Int64),
        "open_time": pl.Series([draw.choice(whole[:-1]) for _ in range(count)], dtype=pl.Int64).cast(TIME),
        **{
            name: pl.Series([draw.choice(number) for _ in range(count)], dtype=pl.Float64)
            for name in ("open", "high", "low", "close", "volume", "vwap")
        },
    }
    return make_bars("A", minutes(utc("2025-05-10T00:00"), count)).with_columns(**columns)


def one_by_one(bars):
    """The same records as fastavro writes them."""
    return [value_of(row) for row in bars.with_columns(pl.col(TIME).to_physical()).iter_rows(named=True)]


def value_of(row):
    content = io.BytesIO()
    fastavro.schemaless_writer(content, BAR, row)
    return content.getvalue()


def identical(one, other):
    times = pl.col(TIME).to_physical()
    return one.with_columns(BITS, times).equals(other.with_columns(BITS, times))


def test_the_schema_of_a_bar_is_that_of_an_archived_row():
    assert record_schema("bar").polars == RAW_SCHEMA
    assert set(record_schema("bar").required) == {
        "symbol", "open_time", "close_time", "vendor", "fetched_at", "adjustment"
    }  # fmt: skip


def test_a_market_tick_has_its_fields_and_needs_all_of_them():
    schema = record_schema("market_tick").polars
    assert list(schema) == ["symbol", "trade_id", "time", "price", "size", "side", "vendor", "received_at"]
    assert (schema["trade_id"], schema["time"], schema["price"]) == (pl.Int64, TIME, pl.Float64)
    assert record_schema("market_tick").required == tuple(schema)


@pytest.mark.parametrize("name", ["bar", "market_tick"])
def test_every_schema_is_avro_and_says_what_each_field_is(name):
    definition = json.loads((AVRO / f"{name}.avsc").read_text())
    fastavro.parse_schema(definition)
    assert definition["name"] == name and definition["doc"]
    assert all(field["doc"] for field in definition["fields"])


def test_a_bar_in_json_is_valid_by_the_schema():
    values = encode_bars(odd_bars(), "json")
    assert fastavro.validation.validate_many([json.loads(value) for value in values], BAR)
    lacking = {name: value for name, value in json.loads(values[0]).items() if name != "vendor"}
    assert not fastavro.validate(lacking, BAR, raise_errors=False)


def test_records_are_what_fastavro_writes():
    bars = odd_bars()
    assert record_schema("bar").encode(bars) == one_by_one(bars)
    assert record_schema("bar").encode(bars[:1]) == one_by_one(bars[:1])
    assert record_schema("bar").encode(bars[:0]) == []


def test_rows_come_back_bit_for_bit():
    bars = odd_bars(count=10_000)
    back, faults = record_schema("bar").decode(one_by_one(bars))
    assert faults == {}
    assert back.schema == RAW_SCHEMA
    assert identical(back, bars)


def test_a_row_that_lacks_a_required_field_cannot_be_encoded():
    for name in record_schema("bar").required:
        with pytest.raises(ValueError, match=f"without its {name}"):
            record_schema("bar").encode(odd_bars(3).with_columns(pl.lit(None, RAW_SCHEMA[name]).alias(name)))


def test_ticks_come_back_as_they_were():
    ticks = pl.DataFrame(
        {
            "symbol": ["BTC-USD", "ETH-USD"],
            "trade_id": [1, 1 << 50],
            "time": [utc("2025-05-10T00:00:00.000001"), utc("2025-05-10T00:00")],
            "price": [0.1, 100_000.25],
            "size": [1e-8, 3.0],
            "side": ["buy", "unknown"],
            "vendor": ["binance", "coinbase"],
            "received_at": [utc("2025-05-10T00:00:01"), utc("2025-05-10T00:00:02")],
        },
        schema=record_schema("market_tick").polars,
    )
    back, faults = record_schema("market_tick").decode(record_schema("market_tick").encode(ticks))
    assert back.equals(ticks) and faults == {}


def spoilt(value, draw):
    """A record with something wrong with it, or not."""
    spot, end = sorted(draw.randrange(len(value) + 1) for _ in range(2))
    kind = draw.randrange(7)
    if kind == 0:
        return value[:spot] + bytes([draw.randrange(256)]) + value[spot + 1 :]
    if kind == 1:
        return value[:spot]
    if kind == 2:
        return value + draw.randbytes(draw.randrange(1, 20))
    if kind == 3:
        return draw.randbytes(draw.randrange(120))
    if kind == 4:
        return value[:spot] + draw.randbytes(draw.randrange(10)) + value[end:]
    if kind == 5:
        # A byte more here and one less there: the length is right.
        return value[:spot] + b"\x02" + value[spot : end - 1] + value[end:]
    return b""


def by_fastavro(value):
    """The fields of a record as fastavro reads them; None where it is none."""
    content = io.BytesIO(value)
    try:
        row = fastavro.schemaless_reader(content, BAR)
    except Exception:
        return None
    return row if content.tell() == len(value) else None


def test_what_becomes_of_a_record_does_not_depend_on_those_beside_it(capfd):
    draw = random.Random(20250510)
    schema, good = RecordSchema("bar"), one_by_one(odd_bars())
    rejected = 0
    for _ in range(60):
        share = draw.choice([0, 0.05, 0.3, 1])
        values = [spoilt(draw.choice(good), draw) if draw.random() < share else draw.choice(good) for _ in range(40)]
        rows, faults = schema.decode(values)
        alone = [schema.decode([value]) for value in values]
        assert faults == {at: wrong[0] for at, (_, wrong) in enumerate(alone) if wrong}
        assert identical(rows, pl.concat([row for row, _ in alone]))
        # fastavro is the judge of what is a record, and of what it says.
        read = {at: by_fastavro(value) for at, value in enumerate(values)}
        assert [at for at, row in read.items() if row is None] == sorted(faults)
        assert one_by_one(rows) == [value_of(row) for row in read.values() if row is not None]
        rejected += len(faults)
    assert rejected > 300
    # The fast reader panics, and says so, where it is given what is no record.
    assert "panicked" not in capfd.readouterr().err
