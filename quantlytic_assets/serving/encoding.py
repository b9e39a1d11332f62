"""Frames to rows as they are served, by set operations: JSON text is made by polars, a whole frame at a time.

A row has the form of `rows.row`, byte by byte: times as `t`, values that are null or not finite left out, floats as
the shortest text that reads back as the same number.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

# A member that is null, with the comma before it. No text holds one: a quotation mark within it has a backslash.
_NULL_MEMBER = r',"[^"]*":null'


def iso_text(column: str) -> pl.Expr:
    """A column of times (UTC) as RFC 3339 text, as `rows.iso` writes them."""
    time = pl.col(column)
    fraction = time.dt.microsecond() != 0
    return (
        pl.when(fraction)
        .then(time.dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ"))
        .otherwise(time.dt.to_string("%Y-%m-%dT%H:%M:%SZ"))
    )


def members(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with its times and dates as text, ready to be made into JSON."""
    times = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Datetime)]
    days = [name for name, dtype in frame.schema.items() if dtype == pl.Date]
    return frame.with_columns(
        *(iso_text(name).alias(name) for name in times), *(pl.col(name).dt.to_string("%Y-%m-%d") for name in days)
    )


def json_rows(frame: pl.DataFrame) -> pl.Series:
    """Each row as a JSON object of its columns that are not null, in their order. The first must not be null."""
    floats = [name for name, dtype in frame.schema.items() if dtype in (pl.Float32, pl.Float64)]
    finite = frame.with_columns(pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in floats)
    text = members(finite).select(pl.struct(pl.all()).struct.json_encode())
    return text.to_series().str.replace_all(_NULL_MEMBER, "").alias("row")


def blocks(frame: pl.DataFrame, keys: Sequence[str], time: str, columns: Sequence[str]) -> pl.DataFrame:
    """One row a block: keys, `body` (rows joined by commas), `rows` (how many), `last` (microseconds since 1970).

    frame: has `keys`, `time` (UTC) and `columns`, whose names are those of the members. Blocks are in order of keys.
    """
    ordered = frame.sort(*keys, time)
    rows = json_rows(ordered.select(pl.col(time).alias("t"), *columns))
    return (
        ordered.select(*keys, pl.col(time).dt.epoch("us").alias("last"), rows)
        .group_by(keys, maintain_order=True)
        .agg(pl.col("row").str.join(",").alias("body"), pl.len().alias("rows"), pl.col("last").last())
    )
