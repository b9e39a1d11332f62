"""Records as they come: the good ones exactly, the bad ones with their reason, none of them lost."""

import io
import json
import math
import random
import struct
from datetime import datetime
from importlib.resources import files

import fastavro
import polars as pl
import pytest

from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.wire.records import (
    BAR_HEADERS,
    JSON_BAR_HEADERS,
    REJECTED_HEADERS,
    REJECTED_SCHEMA,
    decode,
    encode_bars,
    encode_rejected,
)
from quantlytic_tests.frames import make_bars, minutes, utc

AVRO = json.dumps(BAR_HEADERS, sort_keys=True)
BAR = json.dumps(JSON_BAR_HEADERS, sort_keys=True)
REJECTED = json.dumps(REJECTED_HEADERS, sort_keys=True)
FIELDS = json.loads(encode_bars(make_bars("BTC-USD", [utc("2025-05-10T00:00")]), "json")[0])
GOOD = json.dumps(FIELDS).encode()
SCHEMA = files("quantlytic_assets.market_data.wire") / "schemas" / "bar.avsc"
# Times as the whole numbers that they travel as.
BY_FASTAVRO = json.loads(SCHEMA.read_text().replace(', "logicalType": "timestamp-micros"', ""))


ENCODINGS = pytest.mark.parametrize(("encoding", "header"), [("avro", AVRO), ("json", BAR)])


def changed(**fields):
    return json.dumps({**FIELDS, **fields}).encode()


def lacking(*names):
    return json.dumps({name: value for name, value in FIELDS.items() if name not in names}).encode()


def written(name, text):
    """A good record with one number spelled as given, which Python's own JSON would not write."""
    return json.dumps({**FIELDS, name: "@"}).replace('"@"', text).encode()


def decode_all(values, header=BAR):
    return decode(list(range(len(values))), [header] * len(values), values)


@ENCODINGS
def test_bars_come_back_exactly(encoding, header):
    draw = random.Random(11)
    patterns = [struct.unpack("<d", draw.randbytes(8))[0] for _ in range(2_000)]
    numbers = [one for one in patterns if math.isfinite(one)]
    numbers += [0.1, 1 / 3, -0.0, 5e-324, 1.7976931348623157e308, 2.0**53 + 2, 1e21, 1e-7, 123456789.123456789]
    bars = make_bars("BTC-USD", minutes(utc("2025-05-10T00:00"), len(numbers))).with_columns(
        pl.Series("close", numbers), pl.Series("vwap", numbers[::-1])
    )
    back = decode_all(encode_bars(bars, encoding), header)
    assert back.rejected.is_empty()
    assert back.bars.drop("bus_offset").equals(bars)
    bits = pl.col(pl.Float64).reinterpret(dtype=pl.UInt64)
    assert back.bars.select(bits).equals(bars.select(bits))
    assert back.bars["bus_offset"].to_list() == list(range(len(bars)))


@ENCODINGS
def test_nulls_microseconds_and_any_text_come_back(encoding, header):
    odd = ['"quoted"', "back\\slash", "new\nline", "tab\t", "\u2028", "é😀", "{[,:", "NaN", "^TNX", " "]
    bars = make_bars("x", [datetime.fromisoformat("2025-05-10T00:00:00.000001+00:00")] * len(odd)).with_columns(
        pl.Series("symbol", odd),
        *(pl.lit(None, RAW_SCHEMA[name]).alias(name) for name in ("open", "volume", "trade_count")),
    )
    assert decode_all(encode_bars(bars, encoding), header).bars.drop("bus_offset").equals(bars)


@ENCODINGS
def test_numbers_that_json_lacks_travel_as_null(encoding, header):
    bars = make_bars("A", minutes(utc("2025-05-10T00:00"), 3)).with_columns(
        pl.Series("open", [math.nan, math.inf, -math.inf])
    )
    back = decode_all(encode_bars(bars, encoding), header)
    assert back.rejected.is_empty()
    assert back.bars["open"].to_list() == [None] * 3


@ENCODINGS
def test_nothing_encodes_to_nothing(encoding, header):
    assert encode_bars(make_bars("A", []), encoding) == []
    nothing = decode_all([], header)
    assert nothing.bars.schema == {**RAW_SCHEMA, "bus_offset": pl.Int64}
    assert nothing.rejected.schema == REJECTED_SCHEMA
    assert nothing.bars.is_empty() and nothing.rejected.is_empty()


MALFORMED = {
    "empty": (b"", "malformed: not JSON"),
    "no value": (None, "malformed: not JSON"),
    "blank": (b"   ", "malformed: not JSON"),
    "text": (b"BTC-USD;1;2;3", "malformed: not JSON"),
    "cut off": (GOOD[:-5], "malformed: not JSON"),
    "two in one": (GOOD + GOOD, "malformed: not JSON"),
    "two in one, by carriage return": (GOOD + b"\r" + GOOD, "malformed: not JSON"),
    "rest after it": (GOOD + b" and more", "malformed: not JSON"),
    "not UTF-8": (GOOD.replace(b"BTC-USD", b"\xff\xfe"), "malformed: not JSON"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "malformed: not JSON"),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD, "malformed: not JSON"),
    "bare control character": (GOOD.replace(b"BTC", b"B\x00C"), "malformed: not JSON"),
    "NaN": (written("open", "NaN"), "malformed: not JSON"),
    "Infinity": (written("open", "-Infinity"), "malformed: not JSON"),
    "leading zero": (written("open", "01.5"), "malformed: not JSON"),
    "list": (b"[" + GOOD + b"]", "malformed: a JSON list"),
    "number": (b"17", "malformed: a JSON int"),
    "null": (b"null", "malformed: a JSON NoneType"),
    "deep": (b"[" * 100_000, "malformed: nested too deeply"),
    "deep extra field": (GOOD[:-1] + b',"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}", "malformed: nested too deeply"),
    "symbol missing": (lacking("symbol"), "malformed: symbol is missing"),
    "vendor null": (changed(vendor=None), "malformed: vendor is missing"),
    "fetched_at null": (changed(fetched_at=None), "malformed: fetched_at is missing"),
    "close_time null": (changed(close_time=None), "malformed: close_time is missing"),
    "adjustment null": (changed(adjustment=None), "malformed: adjustment is missing"),
    "symbol empty": (changed(symbol=""), "malformed: symbol is empty"),
    "symbol a number": (changed(symbol=3), "malformed: symbol is not text"),
    "symbol a list": (changed(symbol=["A"]), "malformed: symbol is not text"),
    "half a surrogate pair": (GOOD.replace(b"BTC-USD", b"\\ud800"), "malformed: symbol holds half a surrogate pair"),
    "price a text": (changed(open="1.5"), "malformed: open is not a number"),
    "price a flag": (changed(open=True), "malformed: open is not a number"),
    "price an object": (changed(open={"value": 1}), "malformed: open is not a number"),
    "price beyond doubles": (written("open", "1e400"), "malformed: open is too large a number"),
    "price of 400 digits": (written("open", "1" + "0" * 400), "malformed: open is too large a number"),
    "price of 5000 digits": (written("open", "1" * 5000), "malformed: open is too large a number"),
    "count a fraction": (changed(trade_count=1.5), "malformed: trade_count is not a whole number"),
    "count of 65 bits": (changed(trade_count=1 << 63), "malformed: trade_count is not a whole number"),
    "time a text": (changed(open_time="2025-05-10T00:00:00Z"), "malformed: open_time is not a number"),
    "time a fraction": (changed(open_time=1.5e15), "malformed: open_time is not a whole number"),
    "time in milliseconds": (
        changed(open_time=FIELDS["open_time"] * 1000, close_time=FIELDS["close_time"] * 1000),
        "malformed: open_time is not in microseconds",
    ),
    "time of 63 bits": (changed(fetched_at=(1 << 63) - 1), "malformed: fetched_at is not in microseconds"),
    "close before open": (changed(close_time=FIELDS["open_time"] - 1), "malformed: close_time is not after open_time"),
    "no length": (changed(close_time=FIELDS["open_time"]), "malformed: close_time is not after open_time"),
    "adjustment": (changed(adjustment="dividends"), "malformed: adjustment is neither"),
    "unfinished": (changed(fetched_at=FIELDS["close_time"] - 1), "unfinished: fetched before its close_time"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_bad_record_is_rejected_with_its_reason_and_the_good_ones_beside_it_land(kind):
    value, reason = MALFORMED[kind]
    # An empty record beside one that holds two would make their number come out right.
    back = decode([70, 71, 72, 75], [BAR] * 4, [GOOD, value, b"", GOOD])
    assert back.bars["bus_offset"].to_list() == [70, 75]
    assert back.rejected["bus_offset"].to_list() == [71, 72]
    assert back.rejected["reason"][0].startswith(reason)
    assert back.rejected["raw"][0] == (value or b"").decode("utf-8", "backslashreplace")


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_bad_record_alone_is_rejected_for_the_same_reason(kind):
    value, reason = MALFORMED[kind]
    back = decode([5], [BAR], [value])
    assert back.bars.is_empty()
    assert back.rejected["bus_offset"].to_list() == [5]
    assert back.rejected["reason"][0].startswith(reason)


@pytest.mark.parametrize(
    "value",
    [
        GOOD.replace(b",", b",\n"),
        b"  " + GOOD + b" \r\n",
        changed(exchange="XNAS", levels=[1, {"a": None}]),
        GOOD[:-1] + b',"note":"\\udfff"}',
        json.dumps({k: FIELDS[k] for k in reversed(FIELDS)}).encode(),
        written("open", str(FIELDS["open"]).rstrip("0").rstrip(".") + "e0"),
    ],
)
def test_what_says_the_same_in_other_words_is_the_same_bar(value):
    for beside in ([], [GOOD], [b"broken"]):
        back = decode_all([value, *beside])
        assert (
            back.bars.filter(pl.col("bus_offset") == 0)
            .drop("bus_offset")
            .equals(decode_all([GOOD]).bars.drop("bus_offset"))
        )


def test_prices_may_be_missing_for_cleaning_decides_about_those():
    row = decode_all([lacking("open", "volume")]).bars
    assert row.select("open", "volume").row(0) == (None, None)


def test_the_last_of_a_field_given_twice_counts_whatever_is_beside_it():
    twice = GOOD[:-1] + b',"open":7.0}'
    for beside in ([], [GOOD], [b"broken"]):
        assert decode_all([twice, *beside]).bars["open"][0] == 7.0


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", "malformed: headers are not JSON"),
        ("[" * 100_000, "malformed: headers are not JSON"),
        ("[1]", "malformed: the headers name no schema"),
        ("{}", "malformed: the headers name no schema"),
        ('{"schema": "trade", "version": "1"}', "malformed: the headers name no schema"),
        ('{"schema": ["bar"], "version": "1"}', "malformed: the headers name no schema"),
        ('{"schema": "bar", "version": "2", "encoding": "json"}', "unknown_version: bar version 2"),
        ('{"schema": "bar", "version": "1", "encoding": "xml"}', "unknown_version: bar version 1, xml"),
        ('{"schema": "bar", "version": "\\ud800"}', "unknown_version: bar version \\ud800"),
    ],
)
def test_a_record_whose_headers_cannot_be_read_is_rejected(header, reason):
    back = decode([1, 2, 3], [BAR, header, BAR], [GOOD, GOOD, GOOD])
    assert back.bars["bus_offset"].to_list() == [1, 3]
    assert back.rejected.select("bus_offset", "raw").row(0) == (2, GOOD.decode())
    assert back.rejected["reason"][0].startswith(reason)


def avro_with(**fields):
    """A good bar in Avro by another producer's hand, with changes."""
    content = io.BytesIO()
    fastavro.schemaless_writer(content, BY_FASTAVRO, {**FIELDS, **fields})
    return content.getvalue()


GOOD_AVRO = avro_with()
BAD_AVRO = {
    "empty": (b"", "malformed: not an Avro bar"),
    "no value": (None, "malformed: not an Avro bar"),
    "JSON": (GOOD, "malformed: not an Avro bar"),
    "cut off": (GOOD_AVRO[:-1], "malformed: not an Avro bar"),
    "cut off early": (GOOD_AVRO[:3], "malformed: not an Avro bar"),
    "rest after it": (GOOD_AVRO + b"x", "malformed: not an Avro bar (1 bytes too long)"),
    "two in one": (GOOD_AVRO * 2, "malformed: not an Avro bar"),
    "not UTF-8": (GOOD_AVRO.replace(b"BTC-USD", b"BTC\xffUSD"), "malformed: not an Avro bar"),
    "a union of three": (GOOD_AVRO.replace(b"\x02\x0e\x0asmall", b"\x04\x0e\x0asmall"), "malformed: not an Avro bar"),
    "text longer than there is": (b"\xfe\xff\xff\xff\x0f" + GOOD_AVRO[1:], "malformed: not an Avro bar"),
    "text of negative length": (b"\x03" + GOOD_AVRO[1:], "malformed: not an Avro bar"),
    "symbol empty": (avro_with(symbol=""), "malformed: symbol is empty"),
    "time in nanoseconds": (
        avro_with(open_time=FIELDS["open_time"] * 1000, close_time=FIELDS["close_time"] * 1000),
        "malformed: open_time is not in microseconds",
    ),
    "time of 63 bits": (avro_with(fetched_at=(1 << 63) - 1), "malformed: fetched_at is not in microseconds"),
    "no length": (avro_with(close_time=FIELDS["open_time"]), "malformed: close_time is not after open_time"),
    "adjustment": (avro_with(adjustment="dividends"), "malformed: adjustment is neither"),
    "unfinished": (avro_with(fetched_at=FIELDS["close_time"] - 1), "unfinished: fetched before its close_time"),
}


@pytest.mark.parametrize("kind", BAD_AVRO)
@pytest.mark.parametrize("beside", [[], [GOOD_AVRO], [GOOD_AVRO, b""]])
def test_a_bad_avro_record_is_rejected_with_its_reason_and_the_good_ones_beside_it_land(kind, beside):
    value, reason = BAD_AVRO[kind]
    back = decode_all([*beside, value, *beside], AVRO)
    at = len(beside)
    assert (back.rejected["bus_offset"] == at).any()
    told = back.rejected.filter(pl.col("bus_offset") == at).row(0, named=True)
    assert told["reason"].startswith(reason)
    assert told["raw"] == (value or b"").decode("utf-8", "backslashreplace")
    assert len(back.bars) == 2 * beside.count(GOOD_AVRO)
    assert back.bars.drop("bus_offset").n_unique() == min(1, len(back.bars))


def test_avro_by_another_producer_s_hand_is_the_same_bar():
    assert encode_bars(decode_all([GOOD]).bars) == [GOOD_AVRO]
    assert decode_all([GOOD_AVRO], AVRO).bars.equals(decode_all([GOOD]).bars)


def test_both_encodings_may_stand_side_by_side():
    back = decode([5, 6, 7, 8], [BAR, AVRO, BAR, AVRO], [GOOD, GOOD_AVRO, GOOD_AVRO, GOOD])
    assert back.bars["bus_offset"].to_list() == [5, 6]
    assert back.rejected["bus_offset"].to_list() == [7, 8]


def test_what_is_published_is_avro_and_its_headers_say_so():
    bars = make_bars("A", minutes(utc("2025-05-10T00:00"), 3))
    assert BAR_HEADERS["encoding"] == "avro"
    assert decode_all(encode_bars(bars), AVRO).bars.drop("bus_offset").equals(bars)


@pytest.mark.parametrize("encoding", ["avro", "json"])
def test_a_bad_record_among_very_many_costs_only_itself(encoding):
    header = {"avro": AVRO, "json": BAR}[encoding]
    bars = make_bars("A", minutes(utc("2025-05-10T00:00"), 20_000))
    values = encode_bars(bars, encoding)
    wrong = {0: b"", 7_999: b"x", 8_191: values[0] + b"\x00", 12_345: b"\x06\xff\xff\xff" + values[0][4:], 19_999: b"["}
    for at, value in wrong.items():
        values[at] = value
    back = decode_all(values, header)
    good = [at for at in range(20_000) if at not in wrong]
    assert back.rejected["bus_offset"].to_list() == list(wrong)
    assert back.bars["bus_offset"].to_list() == good
    assert back.bars.drop("bus_offset").equals(bars[good])


def test_rows_that_a_file_import_rejected_keep_its_reason_text_and_line():
    rejected = pl.DataFrame(
        {
            "symbol": ["A", "A", "A"],
            "open_time": [utc("2025-05-10T00:00"), None, None],
            "reason": ["bad_ohlc", "unreadable_time", "unreadable_time"],
            "raw": ["1;2;3", 'ab"c\n', "[{[{" * 1_000],
            "line": [2, 30, None],
            "fetched_at": [utc("2026-01-01T00:00"), utc("2026-01-01T00:00"), None],
        },
        schema={name: kind for name, kind in REJECTED_SCHEMA.items() if name != "bus_offset"},
    )
    back = decode_all(encode_rejected(rejected), REJECTED)
    assert back.bars.is_empty()
    assert back.rejected.drop("bus_offset").equals(rejected.select(REJECTED_SCHEMA.names()[:-1]))
    without = decode_all(encode_rejected(rejected.drop("fetched_at")), REJECTED)
    assert without.rejected.drop("fetched_at").equals(back.rejected.drop("fetched_at"))
    assert without.rejected["fetched_at"].null_count() == 3


@pytest.mark.parametrize(
    "value",
    [
        b"",
        None,
        b"[1]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"symbol": "A", "open_time": "abc", "reason": "r", "raw": "x", "line": 1}',
        b'{"symbol": "A", "open_time": 1.5, "reason": "r", "raw": "x", "line": 1}',
        b'{"symbol": ["A"], "open_time": 1, "reason": "r", "raw": "x", "line": 1}',
        b'{"symbol": "A", "open_time": 1, "reason": null, "raw": "x", "line": 1}',
        b'{"symbol": "A", "open_time": 1, "reason": "r", "raw": {}, "line": 1}',
        b'{"symbol": "A", "open_time": 1, "reason": "r", "raw": "x", "line": true}',
    ],
)
def test_a_rejected_row_that_is_none_is_kept_as_malformed(value):
    good = b'{"symbol": "A", "open_time": null, "reason": "r", "raw": "x", "line": 1}'
    back = decode_all([good, value, good], REJECTED)
    assert back.rejected["reason"].to_list() == ["r", "malformed: not a rejected row", "r"]
    assert back.rejected["raw"][1] == (value or b"").decode("utf-8", "backslashreplace")


def test_a_rejected_row_keeps_its_reason_although_its_time_or_text_cannot_be_kept():
    value = b'{"symbol": "\\ud800", "open_time": 99999999999999999999, "reason": "time", "raw": "x", "line": 9}'
    row = decode_all([value], REJECTED).rejected.row(0, named=True)
    assert (row["symbol"], row["open_time"], row["reason"], row["line"]) == ("\\ud800", None, "time", 9)


ODD_NUMBERS = (
    "1e999", "-1e999", "1e-999", "-0", "0.1e1", "1E5", ".5", "1.", "+1", "0x1", "Inf", "-NaN", "NaN", "1_0",
)  # fmt: skip
ODD_TEXT = (
    b"\\ud800", b"\\udfff", b"\\ud83d\\ude00", b"\\ude00\\ud83d", b"\\u0000", b"\xed\xa0\x80", b"\x7f", b"\\q",
)  # fmt: skip


def fuzzed(draw):
    """One record with something wrong with it, or not."""
    kind = draw.randrange(9)
    if kind == 0:
        return draw.randbytes(draw.randrange(80))
    if kind == 1:
        cut = sorted(draw.randrange(len(GOOD) + 1) for _ in range(2))
        return GOOD[: cut[0]] + draw.randbytes(draw.randrange(4)) + GOOD[cut[1] :]
    if kind == 2:
        depth = draw.randrange(1, 3_000)
        opening, closing = draw.choice([(b"[", b"]"), (b'{"a":', b"}")])
        return GOOD[:-1] + b',"x":' + opening * depth + b"1" + closing * depth + b"}"
    if kind == 3:
        number = draw.choice([*ODD_NUMBERS, "9" * draw.randrange(1, 5_000)])
        return written(draw.choice([*FIELDS, "extra"]), number)
    if kind == 4:
        again = json.dumps({draw.choice(list(FIELDS)): draw.choice([None, 1, True, [], ""])}).encode()
        return GOOD[:-1] + b"," + again[1:]
    if kind == 5:
        return GOOD.replace(draw.choice([b"BTC-USD", b"small", b"symbol", b"none", b"vwap"]), draw.choice(ODD_TEXT))
    if kind == 6:
        spot = draw.randrange(len(GOOD))
        return GOOD[:spot] + bytes([draw.randrange(256)]) + GOOD[spot + 1 :]
    if kind == 7:
        value = draw.choice([None, True, -1, 1 << 62, 1 << 70, 1.5, "", "x", [], {}, [[]], -(1 << 63)])
        return changed(**{draw.choice(list(FIELDS)): value})
    before = draw.choice([b"", b" ", b"\n", b"\r", b"\x0b", b"null", b"{}"])
    return before + draw.choice([GOOD, GOOD + GOOD, b"", GOOD + b"\n" + GOOD, GOOD + b"\x00"])


def test_a_thousand_spoilt_records_crash_nothing_and_each_is_a_bar_or_rejected():
    draw = random.Random(20250510)
    values = [GOOD if draw.random() < 0.2 else fuzzed(draw) for _ in range(1_000)]
    headers = [draw.choice([BAR] * 8 + [REJECTED, "{", "{}"]) for _ in values]
    together = decode(list(range(1_000)), headers, values)
    offsets = together.bars["bus_offset"].to_list() + together.rejected["bus_offset"].to_list()
    assert sorted(offsets) == list(range(1_000))
    assert together.rejected["reason"].null_count() == 0
    good = [i for i, value in enumerate(values) if value == GOOD and headers[i] == BAR]
    assert len(good) > 100 and set(good) <= set(together.bars["bus_offset"].to_list())
    # Frames that hold broken text would only fail where they are written.
    assert together.bars.write_ndjson() and together.rejected.write_ndjson()
    # What becomes of a record does not depend on the records beside it.
    alone = [decode([i], [headers[i]], [values[i]]) for i in range(1_000)]
    assert pl.concat([one.bars for one in alone]).equals(together.bars)
    assert pl.concat([one.rejected for one in alone]).equals(together.rejected)
