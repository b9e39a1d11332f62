"""`quantlytic gaps`: what is missing, why, and what will be done about it; as a list, as JSON or as a heat map."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import polars as pl
from rich.table import Table
from rich.text import Text

from quantlytic_assets.charts.bars import heat_cells
from quantlytic_assets.commands.gap_list import never_imported, stretches
from quantlytic_assets.commands.inspection import print_json
from quantlytic_assets.services.gaps import DECISIONS, decide
from quantlytic_assets.tables.coverage import coverage

if TYPE_CHECKING:
    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation
    from quantlytic_assets.universe.models import Dataset

# Cause → the letter that a cell shows (small where less than half is missing) and its colour.
_MARKS: dict[str, tuple[str, str]] = {
    "outage": ("O", "red"),
    "no_trade": ("T", "cyan"),
    "vendor_hole": ("H", "magenta"),
    "not_fetched": ("F", "yellow"),
    "unknown": ("U", "bright_black"),
    "never looked at": ("N", "yellow"),
}
_COMPLETE = ("·", "green")
_WIDEST_MAP = 120
_GONE = "nothing: the symbol is not in the universe on that session any more"

# What gaps are shown from: columns of clean.coverage.
_COLUMNS = (
    "dataset", "symbol", "session", "expected_bars", "missing_bars", "cause", "missing_ranges", "attempts",
)  # fmt: skip


def gap_rows(installation: Installation, dataset: str | None) -> list[dict[str, Any]]:
    """Each symbol and session with holes: dataset, symbol, session, missing_bars, cause, attempts, ranges, next.

    `next` says what will be done about it.
    """
    datasets = _datasets(installation, dataset)
    return [row for one in datasets for row in _rows(one, _coverage(installation, one), _decided(installation, one))]


def show_gaps(
    installation: Installation, out: Console, dataset: str | None, as_json: bool, heat_map: bool = False
) -> None:
    """Print the holes that coverage knows of, and how much it has not looked at yet."""
    datasets = _datasets(installation, dataset)
    found = {one.name: (_coverage(installation, one), _decided(installation, one)) for one in datasets}
    if as_json:
        print_json([row for one in datasets for row in _rows(one, *found[one.name])])
        return
    if heat_map:
        for one in datasets:
            _show_map(out, one, *found[one.name])
        return
    table = Table("dataset", "symbol", "sessions", "missing", "cause", "attempts", "ranges (UTC)", "next")
    unseen_of = {}
    for one in datasets:
        covered, decided = found[one.name]
        nothing = never_imported(one, covered, decided)
        others = pl.col("symbol").is_in(nothing["symbol"].implode()).not_()
        unseen_of[one.name] = _unseen(decided).filter(others)
        for row in [*stretches(_holes(one, covered, decided).filter(others)).to_dicts(), *nothing.to_dicts()]:
            alone = row["sessions"] == 1
            table.add_row(
                row["dataset"],
                row["symbol"],
                str(row["first"]) if alone else f"{row['first']} … {row['last']} ({row['sessions']:,})",
                f"{row['missing_bars']:,}",
                row["cause"],
                str(row["attempts"]),
                row["ranges"],
                row["next"],
            )
    out.print(table if table.row_count else "no holes known; coverage is what `quantlytic backfill` last saw")
    for one in datasets:
        for (decision,), unseen in unseen_of[one.name].group_by("decision", maintain_order=True):
            step = DECISIONS[str(decision)].format(dataset=one.name)
            out.print(
                f"{one.name}: {len(unseen):,} sessions of {unseen['symbol'].n_unique()} symbols not looked at yet, "
                f"{unseen['session'].min()} to {unseen['session'].max()}; {step}",
                highlight=False,
                soft_wrap=True,
            )


def _datasets(installation: Installation, dataset: str | None) -> list[Dataset]:
    return [installation.dataset(dataset)] if dataset else list(installation.universe.datasets.values())


def _coverage(installation: Installation, dataset: Dataset) -> pl.DataFrame:
    return coverage(installation.resources.lake, dataset.name, _COLUMNS)


def _decided(installation: Installation, dataset: Dataset) -> pl.DataFrame:
    return decide(installation.resources, dataset, datetime.now(UTC))


def _rows(dataset: Dataset, covered: pl.DataFrame, decided: pl.DataFrame) -> list[dict[str, Any]]:
    return _holes(dataset, covered, decided).drop("at", "expected_bars").to_dicts()


def _holes(dataset: Dataset, covered: pl.DataFrame, decided: pl.DataFrame) -> pl.DataFrame:
    """What `gap_list.stretches` takes: each symbol's session with holes, by session and symbol."""
    said = decided.select("symbol", "session", "decision")
    steps = {name: words.format(dataset=dataset.name) for name, words in DECISIONS.items()}
    step = pl.col("decision").replace_strict(steps, default=_GONE, return_dtype=pl.String)
    return (
        covered.with_columns(pl.int_range(pl.len()).over("symbol", order_by="session").alias("at"))
        .filter(pl.col("missing_bars") > 0)
        .join(said, on=["symbol", "session"], how="left", maintain_order="left")
        # Coverage of what has expired stays until the next maintenance; it is no gap.
        .filter(pl.col("decision").fill_null("") != "expired")
        .select(
            "dataset", "symbol", "session", "at", "expected_bars", "missing_bars", "cause", "attempts",
            pl.col("missing_ranges").alias("ranges"), step.alias("next"),
        )
    )  # fmt: skip


def _unseen(decided: pl.DataFrame) -> pl.DataFrame:
    """Sessions that are over and kept, and that coverage has not looked at since."""
    return decided.filter(~pl.col("looked_at"), pl.col("decision").is_in(["ask", "not_served", "no_vendor", "replay"]))


def _show_map(out: Console, dataset: Dataset, covered: pl.DataFrame, decided: pl.DataFrame) -> None:
    """A line a symbol, a cell a session, or several sessions where they don't fit: then the worst of them is shown."""
    unseen = _unseen(decided).select(
        "symbol", "session", pl.col("bars").alias("expected_bars"), pl.col("bars").alias("missing_bars"),
        pl.lit("never looked at").alias("cause"),
    )  # fmt: skip
    seen = covered.select(unseen.columns).join(unseen, on=["symbol", "session"], how="anti")
    both = pl.concat([seen, unseen])
    if both.is_empty():
        out.print(f"{dataset.name}: nothing is known of it yet", highlight=False)
        return
    symbols = both["symbol"].unique().sort().to_list()
    label = max(map(len, symbols)) + 1
    cells, days = heat_cells(both, max(10, min(_WIDEST_MAP, out.width - label)))
    first, last = both["session"].min(), both["session"].max()
    each = both["session"].n_unique() / len(days)
    per_cell = "a session" if each == 1 else f"about {each:.1f} sessions, the worst is shown"
    out.print(f"{dataset.name}, {first} to {last}; a cell is {per_cell}", highlight=False, soft_wrap=True)
    out.print(" " * label + _ruler(days), highlight=False, soft_wrap=True, no_wrap=True)
    by_symbol: dict[str, dict[int, tuple[str, str]]] = {}
    for symbol, column, share, cause in cells.select("symbol", "column", "share", "cause").iter_rows():
        by_symbol.setdefault(symbol, {})[column] = _mark(share, cause)
    for symbol in symbols:
        line = Text(symbol.ljust(label))
        for column in range(len(days)):
            line.append(*by_symbol.get(symbol, {}).get(column, (" ", "")))
        out.print(line, soft_wrap=True, no_wrap=True)
    legend = Text(" " * label).append("·", _COMPLETE[1]).append(" complete")
    for cause in [cause for cause in _MARKS if cause in set(cells["cause"].drop_nulls())]:
        letter, colour = _MARKS[cause]
        legend.append(f"  {letter}", colour).append(f" {cause}")
    out.print(legend.append("  (small: less than half is missing)"), soft_wrap=True)


def _mark(share: float, cause: str | None) -> tuple[str, str]:
    if not share or cause is None:
        return _COMPLETE
    letter, colour = _MARKS[cause]
    return (letter if share >= 0.5 else letter.lower()), colour


def _ruler(days: list[date]) -> str:
    """Days at the columns where they stand, as many as fit."""
    line = ""
    for column, day in enumerate(days):
        if column >= len(line) and (column == 0 or column % 20 == 0) and column + 10 <= max(10, len(days)):
            line = line.ljust(column) + day.isoformat()
    return line
