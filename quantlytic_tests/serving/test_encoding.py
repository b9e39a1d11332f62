"""Rows as polars makes them are those that `rows.row` makes, byte by byte, and blocks are cut without being read."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import orjson
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from quantlytic_assets.serving.encoding import blocks, json_rows
from quantlytic_assets.serving.rows import Block, micros, row

NUMBERS = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1))
TEXTS = st.text(alphabet=st.one_of(st.sampled_from('",:{}[]\\nul \n'), st.characters(codec="utf-8")))


@given(
    st.lists(st.tuples(TIMES, NUMBERS, NUMBERS, st.one_of(st.none(), st.integers(-(2**53), 2**53)), TEXTS), max_size=9)
)
def test_polars_makes_the_rows_that_the_live_path_makes(rows):
    schema = {"t": pl.Datetime("us", "UTC"), "o": pl.Float64, "vw": pl.Float64, "n": pl.Int64, "reason": pl.String}
    aware = [(time.replace(tzinfo=UTC), *values) for time, *values in rows]
    made = json_rows(pl.DataFrame(aware, schema=schema, orient="row")).to_list()
    for (time, opened, average, trades, reason), text in zip(aware, made, strict=True):
        told = {"o": opened, "vw": average, "n": trades, "reason": reason}
        finite = {k: v for k, v in told.items() if not (isinstance(v, float) and math.isinf(v))}
        assert text.encode() == row(micros(time), finite)
        read = orjson.loads(text)
        assert read.get("o") == (opened if opened is not None and math.isfinite(opened) else None)


@given(st.lists(st.integers(0, 400), unique=True, max_size=30), st.data())
def test_a_block_is_cut_as_its_rows_are(minutes, data):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    frame = pl.DataFrame(
        {"symbol": "A", "open_time": [start + timedelta(minutes=minute) for minute in minutes], "c": minutes},
        schema={"symbol": pl.String, "open_time": pl.Datetime("us", "UTC"), "c": pl.Int64},
    )
    made = [
        Block(count, last, body.encode())
        for body, count, last in blocks(frame, ["symbol"], "open_time", ["c"])
        .select("body", "rows", "last")
        .iter_rows()
    ]
    block = made[0] if made else Block(0, -1, b"")
    rows = list(block)
    assert [time for time, _ in rows] == [micros(start + timedelta(minutes=minute)) for minute in sorted(minutes)]
    first, last = sorted(data.draw(st.tuples(st.integers(-5, 405), st.integers(-5, 405))))
    low, high = (micros(start + timedelta(minutes=minute)) for minute in (first, last))
    between = block.between(low, high)
    assert list(between) == [one for one in rows if low <= one[0] < high]
    assert (between.count, between.last) == (len(list(between)), max([time for time, _ in between], default=-1))
    count = data.draw(st.integers(0, 35))
    assert list(block.oldest(count)) == rows[:count]
    assert list(block.newest(count)) == rows[len(rows) - min(count, len(rows)) :]
    assert block.first == (rows[0][0] if rows else -1)
    parts = [block.oldest(count), Block(0, -1, b""), block.newest(max(0, len(rows) - count))]
    assert Block.joined(parts) == block
    backwards = orjson.loads(b"[" + block.reversed_body() + b"]")
    assert backwards == [orjson.loads(text) for _, text in reversed(rows)]
