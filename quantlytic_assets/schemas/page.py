"""docs/tables.md, written from the declarations of the tables and of the words in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from quantlytic_assets.features.columns import with_core
from quantlytic_assets.schemas.archive import BARS as ARCHIVED_BARS
from quantlytic_assets.schemas.lake import TABLES
from quantlytic_assets.schemas.ml import MODELS
from quantlytic_assets.schemas.table import Column, Table
from quantlytic_assets.schemas.trading import STATISTICS
from quantlytic_assets.schemas.vocabulary import CAUSES, FLAGS, ORDER_STATUSES

_WORDS: dict[str, tuple[str, Mapping[str, str]]] = {
    "Flags": ("What `flags` of `clean.bars` say of a bar that was kept.", FLAGS),
    "Causes": ("Why bars are missing, in `cause` and `missing_ranges` of `clean.coverage`.", CAUSES),
    "Statuses of orders": ("What `status` of `trading.orders` says.", ORDER_STATUSES),
}


def tables_page() -> str:
    """The text of docs/tables.md."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield "# Tables"
    yield ""
    yield "This page is written by `make generate` from `quantlytic_assets/schemas`: change the declaration there."
    yield ""
    yield "Times are UTC. Every table is in the lake but the last three: `archive.bars` are rows of archive objects,"
    yield "`mlflow.models` stand in MLflow's registry, `performance.statistics` in metadata of the asset."
    yield "`quantlytic sql` reads them; `quantlytic docs` and the Dagster UI show them with their lineage."
    for table in (*TABLES.values(), ARCHIVED_BARS, MODELS, STATISTICS):
        yield from _table(table)
    for title, (introduction, words) in _WORDS.items():
        yield from ("", f"## {title}", "", introduction, "", "| word | meaning |", "|---|---|")
        for word, meaning in words.items():
            yield f"| `{word}` | {meaning} |"


def _table(table: Table) -> Iterator[str]:
    yield from ("", f"## {table.name}", "", table.description, "")
    facts = [f"Written by `{table.writer}`."]
    if table.key:
        facts.append(f"Key: {', '.join(f'`{name}`' for name in table.key)}.")
    if table.partitioned_by:
        facts.append(f"Files are split by {', '.join(f'`{part}`' for part in table.partitioned_by)}.")
    yield " ".join(facts)
    yield from ("", "| column | type | null | description |", "|---|---|---|---|")
    for column in with_core(table).columns:
        told = " ".join(part for part in (column.documentation, _limits(column)) if part)
        yield f"| `{column.name}` | {column.sql_type} | {'yes' if column.nullable else ''} | {told} |"
    if table.rules:
        yield from ("", "Checked in every row:", "")
        for rule in table.rules:
            yield f"- {rule.statement.rstrip('.')}: `{rule.condition}`"


def _limits(column: Column) -> str:
    parts = [column.limits] if column.limits else []
    if column.allowed:
        parts.append(f"one of {', '.join(f'`{word}`' for word in column.allowed)}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""
