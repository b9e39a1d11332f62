"""What was taken back counts for no reader, on the disk and on real servers, whatever becomes of its objects."""

from dataclasses import replace
from datetime import date

import obstore
import polars as pl

from quantlytic_assets.imports.options import ImportOptions
from quantlytic_assets.services.imports import Chosen, Imports
from quantlytic_assets.storage.compaction import Compactor
from quantlytic_assets.storage.tombstones import RUNS_SCHEMA, joined_runs, offset_runs
from quantlytic_assets.universe.models import Instrument
from quantlytic_tests.imports.test_tables import HEADER, dataset
from quantlytic_tests.storage.compacting import DATASET, DAY, TOPIC, all_rows, fill, land_segment, segment

TEXT = HEADER + "2025-05-10 00:00,1,2,1,2,3\n2025-05-10 00:01,1,2,1,2,3\n2025-05-11 00:02,x,2,1,2,3\n"


def runs(*rows: tuple[str, int, int]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=RUNS_SCHEMA, orient="row")


def test_offsets_become_runs_and_runs_that_overlap_or_touch_become_one():
    rows = pl.DataFrame(
        {"source_object": ["d/partition=x/t.0.0-9.parquet"] * 4 + ["d/refused/t@1.2.0-9.parquet"]}
    ).with_columns(pl.Series("bus_offset", [3, 1, 2, 7, 2]))
    assert offset_runs(rows).rows() == [("t.0", 1, 4), ("t.0", 7, 8), ("t@1.2", 2, 3)]
    joined = joined_runs(runs(("b", 0, 1), ("a", 5, 9), ("a", 0, 3), ("a", 1, 2), ("a", 3, 4), ("a", 6, 7)))
    assert joined.rows() == [("a", 0, 4), ("a", 5, 9), ("b", 0, 1)]


def test_rows_under_a_tombstone_count_for_no_reader_whatever_is_compacted(place):
    archive = place.resources.archive
    fill(archive)
    before, objects = all_rows(archive), len(archive.objects(DATASET))
    usable_before = len(archive.usable_keys(archive.objects(DATASET)))
    # Some offsets of one segment go. The same offsets of another topic's life stay.
    archive.tombstones.add(DATASET, runs((f"{TOPIC}.0", 0, 30), (f"{TOPIC}.0", 2_000, 2_015)), {"what": "a test"})
    archive.tombstones.add(DATASET, runs((f"{TOPIC}.0", 20, 70), (f"{TOPIC}.1", 1_000, 1_080)), {})
    gone = (
        pl.col("bus_offset").is_between(0, 69)
        | pl.col("bus_offset").is_between(2_000, 2_014)
        | pl.col("bus_offset").is_between(1_000, 1_079)
    )
    left = before.filter(~gone)
    assert len(left) == len(before) - 165

    def check() -> None:
        assert all_rows(archive).equals(left)
        found = archive.objects(DATASET)
        usable = archive.usable_keys(found)
        assert len(usable) < usable_before
        assert len(usable.join(left, on=["symbol", "open_time"], how="anti")) == 0
        vendor = left["vendor"][0]
        assert len(archive.origins(found, vendor)) == len(left)
        assert len(archive.origins(found, vendor, taken_back=True)) == len(before)
        everything = archive.read(found, taken_back=True).sort("symbol", "open_time", "source_object", "source_row")
        assert everything.equals(before)

    check()
    assert len(archive.objects(DATASET)) == objects
    # Compaction neither loses such rows nor brings them back, and verifies them like all others.
    done = Compactor(archive, DATASET).run(lambda _: True)
    assert done.problems == [] and done.rows == len(before) and len(archive.objects(DATASET)) == 1
    check()
    # The same offsets of a topic that is made anew are other rows.
    land_segment(archive, DAY, 0, f"{TOPIC}@2")
    assert len(all_rows(archive)) == len(left) + len(segment(DAY, 0))


def test_an_import_is_found_taken_back_and_imported_again_and_what_it_rejected_goes_with_it(place, tmp_path):
    resources = place.resources
    mine = replace(dataset(), name=DATASET, first_session=date(2025, 5, 10), symbols=(Instrument("A"), Instrument("B")))
    path = tmp_path / "bars.csv"
    path.write_text(TEXT)
    imports = Imports(mine, resources.archive, resources.lander(mine), resources.lake)
    options = ImportOptions()

    def bring(symbol: str):
        record = imports.publish(path, imports.read(path, symbol, options), options)
        imports.lander.land()
        return record

    def rows() -> tuple[list[str], int]:
        archive = resources.archive
        rejected = archive.read_rejected(DATASET, archive.rejected_objects(DATASET))
        return sorted(archive.read(archive.objects(DATASET))["symbol"]), len(rejected)

    first, second = bring("A"), bring("B")
    assert [one.id for one in imports.of_file(str(path))] == [first.id, second.id]
    assert rows() == (["A", "A", "B", "B"], 2)
    found = imports.find(Chosen(imports=imports.of_file(first.id)))
    assert found.bars["symbol"].to_list() == ["A", "A"] and found.rejected["symbol"].to_list() == ["A"]
    tombstone = imports.take_back(found, {"what": first.id})
    assert rows() == (["B", "B"], 1)
    assert len(imports.find(Chosen(imports=[first]))) == 0
    assert len(imports.find(Chosen(imports=[first]), taken_back=True)) == 3
    # A tombstone is written once and never changed.
    assert obstore.head(resources.archive.store, tombstone)["size"] > 0
    # Without any name: what of a symbol was imported on some sessions. The row that was no bar has a time too.
    some = imports.find(Chosen(symbol="B", first=date(2025, 5, 11)))
    assert (len(some.bars), len(some.rejected)) == (0, 1)
    third = bring("A")
    assert third.imported_at > first.imported_at and rows() == (["A", "A", "B", "B"], 2)


def test_rejected_rows_of_before_they_said_their_import_are_read_beside_others(place):
    from quantlytic_assets.market_data.wire.records import REJECTED_SCHEMA
    from quantlytic_assets.storage.archive import Claim

    archive = place.resources.archive
    row = {"symbol": "A", "open_time": None, "reason": "bad_time", "raw": "x", "line": 2, "fetched_at": None}
    frame = pl.DataFrame([{**row, "bus_offset": 0}], schema=REJECTED_SCHEMA)
    archive.write(DATASET, "refused", Claim(TOPIC, 0, 0, 1), frame.drop("fetched_at"))
    archive.write(DATASET, "refused", Claim(TOPIC, 0, 1, 2), frame.with_columns(bus_offset=pl.lit(1, pl.Int64)))
    archive.tombstones.add(DATASET, runs((f"{TOPIC}.0", 0, 1)), {})
    rows = archive.read_rejected(DATASET, archive.rejected_objects(DATASET))
    assert rows["bus_offset"].to_list() == [1]
