"""Where a bar comes from: features.bars → clean.bars → objects of the archive → what a vendor, feed or file gave.

Rows are found by their partition's folder, symbol and time. Nothing is scanned as a whole, and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from quantlytic_assets.calendars.partitions import next_month, partition_key
from quantlytic_assets.calendars.sessions import assign_sessions, session_table
from quantlytic_assets.imports.tables import VENDOR
from quantlytic_assets.schemas.clean import BARS as CLEAN_BARS
from quantlytic_assets.schemas.features import BARS as FEATURE_BARS
from quantlytic_assets.schemas.table import Table
from quantlytic_assets.storage.import_records import ImportRecords
from quantlytic_assets.storage.manifests import compaction_number, manifest_name
from quantlytic_assets.tables.bars import clean_bars
from quantlytic_assets.tables.select import Condition, equal
from quantlytic_assets.tables.snapshots import written

if TYPE_CHECKING:
    from quantlytic_assets.resources import Resources
    from quantlytic_assets.storage.archive import Archive
    from quantlytic_assets.universe.models import Dataset

_DAY = timedelta(days=1)
# What a row of clean.bars says beside its prices of where it is from.
_CLEAN = ("open_time", "close_time", "open", "high", "low", "close", "volume", "vendor", "fetched_at", "adjustment",
          "available_at", "flags")  # fmt: skip


@dataclass(frozen=True)
class Link:
    """One thing that a chain goes through.

    kind: order, event, decision, signal, prediction, model, features, bar, clean_bars, archive or vendor. id: what it
    is known by where it is kept. time: UTC, when it happened or was written; None where that is not known. facts: what
    it says. note: what one should know of it.
    """

    kind: str
    id: str
    time: datetime | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    note: str | None = None


def bar_links(resources: Resources, dataset: Dataset, bar: Mapping[str, Any], made_by: str) -> list[Link]:
    """The links from a row of features.bars back to what vendors gave.

    bar: all columns of the row. made_by: what it is the bar of, such as `decided on`.
    """
    symbol, interval = bar["symbol"], bar["interval"]
    row = (equal("dataset", dataset.name), equal("symbol", symbol), equal("interval", interval))
    at = Condition("session = ? AND open_time = ?", (bar["session"], bar["open_time"]))
    own = ("open", "high", "low", "close", "volume", "complete", "available_at")
    links = [
        Link(
            "bar",
            row_id(FEATURE_BARS, dataset.name, symbol, interval, bar["open_time"]),
            bar["open_time"],
            {"bar": made_by, "close_time": bar["close_time"], **{name: bar[name] for name in own}}
            | snapshots(resources, FEATURE_BARS, *row, at),
        )
    ]
    natives = native_bars(resources, dataset, symbol, bar["session"], bar["open_time"], bar["close_time"])
    if natives.is_empty():
        missing = (
            f"clean.bars has no row of it any more; run: quantlytic backfill {dataset.name} --from {bar['session']}"
        )
        return [*links, Link("clean_bars", row_id(CLEAN_BARS, dataset.name, symbol), None, note=missing)]
    within = Condition(
        "session = ? AND open_time BETWEEN ? AND ?",
        (bar["session"], natives["open_time"][0], natives["open_time"][-1]),
    )
    first = natives.row(0, named=True)
    links.append(
        Link(
            "clean_bars",
            row_id(CLEAN_BARS, dataset.name, symbol, first["open_time"]),
            first["open_time"],
            _told(natives) | snapshots(resources, CLEAN_BARS, row[0], row[1], within) | {"rows": natives.to_dicts()},
        )
    )
    return links + _archive_links(resources, dataset, symbol, bar["session"], natives)


def row_id(table: Table, *key: object) -> str:
    """What a row of the lake is known by: its table and its key."""
    words = (f"{one:%Y-%m-%dT%H:%M:%SZ}" if isinstance(one, datetime) else str(one) for one in key)
    return f"{table.name} {' '.join(words)}"


def snapshots(resources: Resources, table: Table, *conditions: Condition | None) -> dict[str, Any]:
    """The newest snapshot of the lake that wrote some of these rows, and when: `snapshot`, `written_at` (UTC)."""
    found = written(resources.lake, table, *conditions)
    return dict(found.row(0, named=True)) if len(found) else {}


def native_bars(
    resources: Resources, dataset: Dataset, symbol: str, session: date, start: datetime, end: datetime
) -> pl.DataFrame:
    """Rows of clean.bars of a symbol that open in [start, end), of one session, by time."""
    found = clean_bars(resources.lake, dataset.name, _CLEAN, since=session, before=session + _DAY, symbols=[symbol])
    return found.filter(pl.col("open_time").is_between(start, end, closed="left")).sort("open_time")


def archived(resources: Resources, dataset: Dataset, symbol: str, session: date) -> pl.DataFrame:
    """The archive's records of a symbol's session: SOURCED_SCHEMA, the `object` that holds each, and their `bar`.

    `bar` is the open time by which clean.bars knows it: that of a daily bar is its session's open, whatever hour the
    vendor stamped it with. By the time of fetching, then by offset: of records that say the same the last one counts.
    """
    archive = resources.archive
    first = date.fromisoformat(partition_key(dataset, session))
    last = next_month(first) if dataset.partition == "month" else first + _DAY
    found = assign_sessions(archive.records(archive.objects(dataset.name, first, last), symbol), dataset.calendar)
    bar = pl.col("open_time")
    if dataset.interval == "1d":
        bar = pl.lit(session_table(dataset.calendar, session, session)["open_time"][0])
    found = found.filter(pl.col("session") == session).with_columns(bar.alias("bar"))
    return found.drop("session").sort("fetched_at", "bus_offset")


def _told(natives: pl.DataFrame) -> dict[str, Any]:
    """What many rows of clean.bars say together; of one row, what it says."""
    if len(natives) == 1:
        return {name: value for name, value in natives.row(0, named=True).items() if name != "open_time"}
    return {
        "bars": len(natives),
        "last_open_time": natives["open_time"][-1],
        "vendor": natives["vendor"].unique().sort().to_list(),
        "first_fetched_at": natives["fetched_at"].min(),
        "fetched_at": natives["fetched_at"].max(),
        "adjustment": natives["adjustment"].unique().sort().to_list(),
        "flags": sorted({flag for flags in natives["flags"].to_list() for flag in flags}),
    }


def _archive_links(
    resources: Resources, dataset: Dataset, symbol: str, session: date, natives: pl.DataFrame
) -> list[Link]:
    """The objects that hold the records which became these bars, and who gave them."""
    records = archived(resources, dataset, symbol, session)
    by = ["bar", "vendor", "fetched_at"]
    same = records.join(natives.rename({"open_time": "bar"}).select(by), on=by, how="semi")
    # Of records that say the same the last one counts.
    same = same.unique(by, keep="last", maintain_order=True)
    if same.is_empty():
        note = "the archive holds no record of it that counts: it was taken back, or is kept no longer"
        return [Link("archive", f"{dataset.name}/partition={partition_key(dataset, session)}", None, note=note)]
    links = [_object_link(resources.archive, rows) for rows in same.partition_by("object", maintain_order=True)]
    sources = same.partition_by("vendor", "fetched_at", maintain_order=True)
    return links + _vendor_links(resources.archive, dataset.name, sources)


def _object_link(archive: Archive, rows: pl.DataFrame) -> Link:
    path = rows["object"][0]
    number = compaction_number(path)
    facts: dict[str, Any] = {
        "records": len(rows),
        **_span("bus_offset", rows),
        "landed_in": rows["source_object"].unique().sort().to_list(),
        **_span("source_row", rows),
    }
    if number is not None:
        facts["manifest"] = f"{path.rpartition('/')[0]}/{manifest_name(number)}"
    return Link("archive", path, archive.written_at(path), facts)


def _vendor_links(archive: Archive, dataset: str, answers: Sequence[pl.DataFrame]) -> list[Link]:
    """Who gave the records. answers: those of one vendor and one moment in each frame.

    A file has the record of its import. Of vendors and feeds, whose answers are many where a bar is made of many, one
    link tells all.
    """
    imports = ImportRecords(archive.store)
    links, others = [], dict[str, list[pl.DataFrame]]()
    for rows in answers:
        vendor, moment = rows["vendor"][0], rows["fetched_at"][0]
        record = imports.of(dataset, moment) if vendor == VENDOR else None
        if record is None:
            others.setdefault(vendor, []).append(rows)
            continue
        facts = {"vendor": vendor, "records": len(rows), "file": record.path, "sha256": record.sha256}
        links.append(Link("vendor", f"import {record.id}", moment, facts))
    note = "the answer itself is not kept: the archived record is all that is kept of it"
    for vendor, told in others.items():
        times = sorted(rows["fetched_at"][0] for rows in told)
        facts = {"vendor": vendor, "records": sum(map(len, told))}
        if len(times) > 1:
            facts |= {"answers": len(times), "first_fetched_at": times[0]}
        links.append(Link("vendor", f"{vendor} {times[-1]:%Y-%m-%dT%H:%M:%SZ}", times[-1], facts, note))
    return links


def _span(column: str, rows: pl.DataFrame) -> dict[str, Any]:
    """The first and the last number of a column."""
    return {f"first_{column}": rows[column].min(), f"last_{column}": rows[column].max()}
