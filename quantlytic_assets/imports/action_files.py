"""A user's CSV file of corporate actions read into rows of `actions`, with each row that can't be one set aside.

A pure function of the file's content. Strict on purpose: a wrong split bends every price before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from quantlytic_assets.imports.grids import TextGrid, read_grid
from quantlytic_assets.imports.times import StructuralFault
from quantlytic_assets.market_data.actions.reconcile import ACTIONS_SCHEMA, IMPORT
from quantlytic_assets.schemas.vocabulary import ACTION_KINDS

COLUMNS = ("symbol", "date", "kind", "value")
OPTIONAL = ("known",)
# `symbol` as the row gives it, for it may be all that is known of it.
REJECTED_SCHEMA = pl.Schema({"line": pl.Int64, "symbol": pl.String, "reason": pl.String, "raw": pl.String})

# What a symbol may look like: the same signs as in the universe.
_SYMBOL = r"^[\w^.=/:+\-&$#@!~*]{1,64}$"
# No symbol, so that a value that was forgotten is still rejected.
_NO_RENAME = "(none)"
_DATE = r"^\d{4}-\d{2}-\d{2}$"
_REPEATED = "repeated: an earlier line has this symbol, date and kind; two dividends of a day are one, their sum"
_WANTED = "the first line has to name the columns symbol,date,kind,value"


@dataclass(frozen=True)
class ImportedActions:
    """A file's rows: `actions` (ACTIONS_SCHEMA) and `rejected` (REJECTED_SCHEMA).

    Every one of the `read` rows is in exactly one of the two. A `line` counts from 1, the header's included.
    """

    actions: pl.DataFrame
    rejected: pl.DataFrame
    read: int


def read_actions(path: str | Path, recorded_at: datetime) -> ImportedActions:
    """Read symbol, date, kind, value and perhaps known from a CSV file or workbook, names in any case and order.

    `date` is the first session on which it has happened, `known` the day from which the public knew, both ISO dates. A
    split's value is new shares for one old (4 for 4:1, 0.1 for 1:10), a dividend's cash a share as paid, a rename's the
    new symbol, or `(none)` where there was none. The first of several rows for the same symbol, date and kind counts.
    Raises `StructuralFault` for a file that can't be read as a table of actions at all.
    """
    names, rows = _table(Path(path))
    at = {name: names.index(name) for name in (*COLUMNS, *OPTIONAL) if name in names}
    named = rows.with_columns(
        pl.col("cells").list.get(i, null_on_oob=True).str.strip_chars().alias(name) for name, i in at.items()
    )
    if "known" not in at:
        named = named.with_columns(pl.lit("").alias("known"))
    read = named.with_columns(
        pl.col("kind").str.to_lowercase().alias("kind"),
        _day("date").alias("session"),
        _day("known").alias("known_on"),
        pl.col("value").cast(pl.Float64, strict=False).alias("number"),
    )
    checked = read.with_columns(_reason(len(names)).alias("reason"))
    again = pl.col("reason").is_null() & (
        pl.int_range(pl.len()).over("symbol", "session", "kind", pl.col("reason").is_null()) > 0
    )
    checked = checked.with_columns(pl.when(again).then(pl.lit(_REPEATED)).otherwise("reason").alias("reason"))
    renamed = pl.col("kind") == "rename"
    actions = checked.filter(pl.col("reason").is_null()).select(
        "symbol",
        "session",
        "kind",
        pl.when(~renamed).then("number").alias("value"),
        pl.when(renamed & (pl.col("value") == _NO_RENAME))
        .then(pl.lit(""))
        .when(renamed)
        .then("value")
        .alias("new_symbol"),
        "known_on",
        pl.lit("none").alias("adjustment"),
        pl.lit(IMPORT).alias("vendor"),
        pl.lit(recorded_at.astimezone(UTC), ACTIONS_SCHEMA["recorded_at"]).alias("recorded_at"),
    )
    rejected = checked.filter(pl.col("reason").is_not_null()).match_to_schema(REJECTED_SCHEMA, extra_columns="ignore")
    return ImportedActions(actions.match_to_schema(ACTIONS_SCHEMA), rejected, len(checked))


def _table(path: Path) -> tuple[list[str], pl.DataFrame]:
    """The header's names in lower case, and each row's line, text and cells; blank lines are no rows."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StructuralFault(f"the file can't be read ({error.strerror})", "check its path and permissions") from error
    grid = read_grid(content)
    if not isinstance(grid, TextGrid):
        raise StructuralFault("the file is no table of text", "give a CSV file or an Excel workbook")
    names = [name.strip().lower() for name in grid.head()[0]]
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise StructuralFault(f"missing columns: {', '.join(missing)}; found: {', '.join(names[:30])}", _WANTED)
    doubled = [name for name in (*COLUMNS, *OPTIONAL) if names.count(name) > 1]
    if doubled:
        raise StructuralFault(f"columns that are there twice: {', '.join(doubled)}", "remove one of each")
    cells, _ = grid.fields(1)
    return names, pl.DataFrame([grid.lines[1:], grid.raw[1:], cells.alias("cells")])


def _day(name: str) -> pl.Expr:
    return pl.when(pl.col(name).str.contains(_DATE)).then(pl.col(name)).str.to_date("%Y-%m-%d", strict=False)


def _reason(columns: int) -> pl.Expr:
    """What is wrong with a row and what would be right, the first thing found; null for a good one."""
    kind, number = pl.col("kind"), pl.col("number")
    above_zero = (number.is_finite() & (number > 0)).fill_null(False)
    cash = above_zero | (number == 0).fill_null(False)
    rules = {
        f"wrong_field_count: {columns} are wanted": pl.col("cells").list.len() != columns,
        "bad_symbol: give letters, digits and ^.=/:+-&$#@!~*": ~pl.col("symbol").str.contains(_SYMBOL),
        "bad_date: write it as YYYY-MM-DD": ~pl.col("session").dt.year().is_between(1900, 2200).fill_null(False),
        f"bad_kind: take one of {', '.join(ACTION_KINDS)}": ~kind.is_in(ACTION_KINDS),
        "bad_value: a split's is new shares for one old, such as 4 for 4:1 or 0.1 for 1:10": (kind == "split")
        & ~above_zero,
        "bad_value: a dividend's is cash a share, 0 for none": (kind == "dividend") & ~cash,
        f"bad_value: a rename's is the new symbol, {_NO_RENAME} for none": (kind == "rename")
        & (pl.col("value") != _NO_RENAME)
        & ~pl.col("value").str.contains(_SYMBOL),
        "bad_known: write it as YYYY-MM-DD or leave it empty": (pl.col("known") != "") & pl.col("known_on").is_null(),
    }
    return pl.coalesce(pl.when(rule.fill_null(True)).then(pl.lit(reason)) for reason, rule in rules.items())
