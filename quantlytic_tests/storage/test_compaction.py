"""Compaction changes how rows are stored and nothing else, whoever else is at it and whatever is killed."""

import io
import random
import signal
import time
from datetime import date, timedelta

import obstore
import polars as pl
import pytest

from quantlytic_assets.calendars.sessions import session_table
from quantlytic_assets.market_data.quality.cleaning import clean
from quantlytic_assets.storage.archive import StoredObject
from quantlytic_assets.storage.compaction import Compactor
from quantlytic_assets.storage.manifests import ArchiveDamaged
from quantlytic_tests.frames import make_dataset
from quantlytic_tests.storage.compacting import (
    DATASET,
    DAY,
    TOPIC,
    all_rows,
    compact,
    compact_and_die,
    compact_at_once,
    compact_forever,
    fill,
    land_segment,
    lose_a_row,
    path_of,
    segment,
    watched,
)
from quantlytic_tests.storage.processes import start, together

HOUR = timedelta(hours=1)


@pytest.fixture
def archive(place):
    return place.resources.archive


def names(archive):
    """Everything that is stored in the partitions' folders."""
    return sorted(
        item["path"].removeprefix(f"{DATASET}/")
        for batch in obstore.list(archive.store, prefix=f"{DATASET}/")
        for item in batch
        if item["path"].startswith(f"{DATASET}/partition=")
    )


def live(archive):
    return [stored.path for stored in archive.objects(DATASET)]


def test_segments_become_one_object_with_the_same_rows_from_the_same_places(archive):
    paths = fill(archive)
    before = all_rows(archive)
    outcome = compact(archive)
    assert (outcome.partitions, outcome.merged, outcome.rows) == (1, 4, len(before))
    assert outcome.bytes_written < outcome.bytes_merged
    assert all_rows(archive).equals(before)
    assert set(before["source_object"]) == set(paths)
    for symbol, rows in before.partition_by("symbol", as_dict=True, include_key=True).items():
        records = archive.records(archive.objects(DATASET), symbol[0])
        assert set(records["object"]) == set(live(archive))
        assert (
            records.drop("object").sort("source_object", "source_row").equals(rows.sort("source_object", "source_row"))
        )
    (only,) = live(archive)
    assert only.startswith(f"{DATASET}/partition={DAY}/compacted-")


def test_a_compacted_object_is_laid_out_by_symbol_then_time(archive):
    fill(archive)
    compact(archive)
    rows = pl.read_parquet(io.BytesIO(obstore.get(archive.store, live(archive)[0]).bytes()))
    assert rows.select("symbol", "open_time").equals(rows.select("symbol", "open_time").sort("symbol", "open_time"))


def test_cleaning_a_compacted_partition_gives_the_same_bars_and_quarantine(archive):
    fill(archive)
    dataset = make_dataset("24/7", "1m", first=date(2025, 5, 1), last=date(2025, 5, 31), symbols=("A", "B"))
    sessions = session_table("24/7", date(2025, 5, 1), date(2025, 5, 20)).with_columns(partition=pl.lit(DAY))

    def cleaned():
        return clean(archive.read(archive.objects(DATASET)), dataset, sessions)

    for late in (3, 8):
        before = cleaned()
        assert "superseded" in set(before.quarantine["reason"])
        compact(archive)
        after = cleaned()
        assert after.bars.equals(before.bars)
        assert after.quarantine.equals(before.quarantine)
        land_segment(archive, DAY, late, partition=2)


def test_the_bars_that_need_not_be_asked_for_are_the_same(archive):
    fill(archive)
    before = archive.usable_keys(archive.objects(DATASET)).sort("symbol", "open_time")
    compact(archive)
    land_segment(archive, "2025-05-11", 0)
    land_segment(archive, DAY, 0, partition=5)
    objects = archive.objects(DATASET)
    assert len(objects) == 3
    for order in (objects, objects[::-1]):
        found = archive.usable_keys(order).sort("symbol", "open_time")
        assert found.filter(pl.col("open_time").dt.date() == date(2025, 5, 10)).equals(before)


def test_only_closed_partitions_are_merged_and_single_segments_are_not(archive):
    fill(archive, ("2025-05-09", "2025-05-10"))
    land_segment(archive, "2025-05-08", 0)
    before, changed = all_rows(archive), []
    Compactor(archive, DATASET).run(lambda key: key < "2025-05-10", changed.append)
    assert changed == ["2025-05-09"]
    assert [one.partition for one in archive.objects(DATASET)] == ["2025-05-08", "2025-05-09", *["2025-05-10"] * 4]
    assert all_rows(archive).equals(before)
    assert [one.partition for one in archive.objects(DATASET, date(2025, 5, 9), date(2025, 5, 10))] == ["2025-05-09"]


def test_segments_of_a_landing_that_is_not_done_are_left_alone(archive):
    fill(archive)
    undone = land_segment(archive, DAY, 5, done=False)
    # A topic that is gone has a half-done landing recorded as lost; its object was never finished either.
    claim = archive.claim(DATASET, TOPIC, 0, 9_000, 9_999)
    archive.write(DATASET, f"partition={DAY}", claim, segment(DAY, 9))
    archive.mark_done(DATASET, claim, {"lost": {"rows": 999}})
    before = all_rows(archive)
    outcome = compact(archive)
    assert outcome.left_alone == {undone, path_of(claim, DAY)}
    assert set(live(archive)) > {undone, path_of(claim, DAY)} and len(live(archive)) == 3
    assert all_rows(archive).equals(before)
    compact(archive)
    assert {undone, path_of(claim, DAY)} <= set(live(archive))
    assert all_rows(archive).equals(before)


def test_what_a_reader_has_listed_stays_there_for_the_time_of_grace(archive):
    fill(archive)
    listed, before = archive.objects(DATASET), all_rows(archive)
    compact(archive, grace=HOUR)
    assert compact(archive, grace=HOUR).deleted == 0
    assert archive.read(listed).sort("symbol", "open_time", "source_object", "source_row").equals(before)
    assert compact(archive).deleted == 4
    assert names(archive)[0].endswith(".parquet") and names(archive)[1].endswith("compacted-000001.json")
    assert len(names(archive)) == 2
    assert all_rows(archive).equals(before)


def test_compacting_again_changes_nothing(archive):
    fill(archive, ("2025-05-09", "2025-05-10"))
    compact(archive)
    compact(archive)
    touched = []
    with watched(lambda what, path, done: touched.append(path)):
        outcome = compact(archive)
    assert (touched, outcome.merged, outcome.deleted, outcome.problems) == ([], 0, 0, [])


def test_late_segments_are_merged_with_what_is_compacted_already(archive):
    fill(archive)
    compact(archive)
    compact(archive)
    late = land_segment(archive, DAY, 8)
    before = all_rows(archive)
    assert late in live(archive) and len(live(archive)) == 2
    outcome = compact(archive)
    assert outcome.merged == 2
    assert all_rows(archive).equals(before)
    compact(archive)
    assert [name.split("/")[1][:16] for name in names(archive)] == ["compacted-000002", "compacted-000002"]
    assert all_rows(archive).equals(before)
    assert late in set(all_rows(archive)["source_object"])


def test_a_landing_that_was_held_up_and_writes_its_segment_again_adds_nothing(archive):
    fill(archive)
    before = all_rows(archive)
    for _ in range(3):
        compact(archive)
    land_segment(archive, DAY, 8)
    compact(archive)
    compact(archive)
    with_late = all_rows(archive)
    # Its segment was merged two compactions ago, and deleted.
    again = land_segment(archive, DAY, 0)
    assert again not in live(archive)
    assert all_rows(archive).equals(with_late) and len(with_late) > len(before)
    assert compact(archive).deleted == 1
    assert all_rows(archive).equals(with_late)


def test_a_big_partition_is_merged_in_parts(archive):
    for number in range(12):
        land_segment(archive, DAY, number)
    before = all_rows(archive)
    # Two segments fit at once, and the object made of them counts as big.
    most = 2 * max(stored.size for stored in archive.objects(DATASET))
    compact(archive, most_bytes=most)
    assert 1 < len(live(archive)) < 12
    assert all_rows(archive).equals(before)
    touched = []
    compact(archive, most_bytes=most)
    with watched(lambda what, path, done: touched.append(path)):
        compact(archive, most_bytes=most)
    assert touched == []
    assert all_rows(archive).equals(before)


def test_settled_partitions_are_listed_without_reading_a_manifest(archive, monkeypatch):
    fill(archive, ("2025-05-09", "2025-05-10"))
    compact(archive)
    compact(archive)
    land_segment(archive, "2025-05-11", 0)
    monkeypatch.setattr(obstore, "get", None)
    assert len(archive.objects(DATASET)) == 3


# Faults ---------------------------------------------------------------------------------------------------------


def test_an_object_that_no_manifest_names_does_not_count_and_goes_in_the_end(archive):
    fill(archive)
    before = all_rows(archive)
    stray = f"{DATASET}/partition={DAY}/compacted-000001-0123456789abcdef.parquet"
    obstore.put(archive.store, stray, b"cut off")
    assert all_rows(archive).equals(before)
    compact(archive)
    assert all_rows(archive).equals(before)
    compact(archive)
    assert stray not in {f"{DATASET}/{name}" for name in names(archive)} and len(names(archive)) == 2
    assert all_rows(archive).equals(before)


def test_an_object_that_comes_out_wrong_replaces_nothing(archive, monkeypatch):
    fill(archive, ("2025-05-09", "2025-05-10"))
    before, put = all_rows(archive), obstore.put

    def spoilt(store, path, content, **options):
        if "2025-05-09/compacted-" in path and path.endswith(".parquet"):
            rows = pl.read_parquet(io.BytesIO(content))
            # One bit of one price of one row.
            one = pl.when(pl.int_range(pl.len()) == 17).then(pl.col("close") + 1e-14).otherwise("close")
            buffer = io.BytesIO()
            rows.with_columns(one).write_parquet(buffer)
            content = buffer.getvalue()
        return put(store, path, content, **options)

    monkeypatch.setattr(obstore, "put", spoilt)
    outcome = compact(archive)
    assert len(outcome.problems) == 1 and "2025-05-09/compacted-" in outcome.problems[0]
    assert [stored.partition for stored in archive.objects(DATASET)] == ["2025-05-09"] * 4 + ["2025-05-10"]
    assert all_rows(archive).equals(before)


def test_a_segment_that_lacks_rows_of_its_landing_is_a_problem_and_nothing_is_merged(archive):
    paths = fill(archive)
    lose_a_row(archive, paths[1])
    before = all_rows(archive)
    outcome = compact(archive)
    assert outcome.merged == 0
    assert outcome.problems == [f"{paths[1]} holds 79 rows, where its landing wrote 80"]
    assert all_rows(archive).equals(before)


def test_segments_are_kept_when_what_replaces_them_is_cut_off(archive):
    fill(archive)
    compact(archive, grace=HOUR)
    (only,) = live(archive)
    content = bytes(obstore.get(archive.store, only).bytes())
    obstore.put(archive.store, only, content[:-10])
    outcome = compact(archive)
    assert outcome.deleted == 0 and "cut off" in outcome.problems[0]
    assert len(names(archive)) == 6


def test_nobody_reads_on_when_a_compacted_object_is_gone(archive):
    fill(archive)
    compact(archive)
    (only,) = live(archive)
    obstore.delete(archive.store, only)
    with pytest.raises(ArchiveDamaged, match=only.rpartition("/")[2]):
        archive.objects(DATASET)
    with pytest.raises(ArchiveDamaged):
        compact(archive)
    assert len(names(archive)) == 5


def steps(archive):
    """How many puts and deletes it takes to merge a day's segments and delete them."""
    fill(archive)
    count = []
    with watched(lambda what, path, done: count.append(path)):
        compact(archive)
        compact(archive)
    return len(count) // 2


def test_a_compaction_killed_at_any_step_leaves_the_rows_as_they_were_and_is_finished_by_the_next(place):
    last = steps((place / "undisturbed").resources.archive)
    # After a step the store is as it is before the next one.
    for step, before in [*((step, True) for step in range(1, last + 1)), (last, False)]:
        own = place / f"step{step}{before}"
        archive = own.resources.archive
        fill(archive)
        wanted = all_rows(archive)
        process = start(compact_and_die, own, step, before)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        assert all_rows(archive).equals(wanted), (step, before)
        for _ in range(3):
            compact(archive)
            assert all_rows(archive).equals(wanted), (step, before)
        assert len(names(archive)) == 2


@pytest.mark.parametrize("done", [False, True])
def test_a_store_that_fails_at_any_step_loses_nothing(place, done):
    class StoreFailed(Exception):
        pass

    for step in range(1, steps((place / "undisturbed").resources.archive) + 1):
        archive = (place / f"step{step}").resources.archive
        fill(archive)
        wanted, count = all_rows(archive), 0

        def fail(what, path, finished, step=step):
            nonlocal count
            count += not finished
            if count == step and finished is done:
                raise StoreFailed

        with watched(fail), pytest.raises(StoreFailed):
            compact(archive)
            compact(archive)
        assert all_rows(archive).equals(wanted), step
        compact(archive)
        compact(archive)
        assert all_rows(archive).equals(wanted), step
        assert len(names(archive)) == 2


def test_compactions_killed_at_random_moments_lose_nothing(place):
    archive = place.resources.archive
    first = fill(archive)
    draw, known = random.Random(5), 0
    for _ in range(8):
        process = start(compact_forever, place)
        deadline = time.monotonic() + 60
        while len(archive.claims(DATASET, TOPIC, 7)) == known and time.monotonic() < deadline:
            time.sleep(0.01)
        # Somewhere in what comes after its first landing.
        time.sleep(draw.uniform(0, 0.2))
        process.kill()
        process.join()
        claims = archive.claims(DATASET, TOPIC, 7)
        known = len(claims)
        done = {path_of(claim, DAY) for claim in claims if claim.done}
        rows = all_rows(archive)
        assert rows.select("source_object", "source_row").is_unique().all()
        found = dict(rows.group_by("source_object").len().iter_rows())
        assert set(found.values()) == {80}
        # The segment of a landing that was killed may be there or not.
        assert {*first, *done} <= found.keys() <= {*first, *(path_of(claim, DAY) for claim in claims)}
    assert len(done) >= 4
    compact(archive)
    compact(archive)
    assert all_rows(archive).equals(rows)


# Several at once ------------------------------------------------------------------------------------------------


def interrupted(archive, interruption):
    """A compactor that, when it has written its object and before its manifest, lets something else happen."""

    class Interrupted(Compactor):
        def _verify(self, made, wanted):
            super()._verify(made, wanted)
            interruption()

    return Interrupted(archive, DATASET, grace=timedelta(0))


def test_of_two_compactions_at_once_the_second_gives_way(archive):
    fill(archive)
    before = all_rows(archive)
    outcome = interrupted(archive, lambda: compact(archive)).run(lambda key: True)
    assert outcome.merged == 0
    assert all_rows(archive).equals(before) and len(live(archive)) == 1
    compact(archive)
    assert all_rows(archive).equals(before) and len(names(archive)) == 2


def test_a_compaction_that_was_overtaken_by_one_with_more_segments_adds_nothing_twice(archive):
    fill(archive)

    def overtake():
        land_segment(archive, DAY, 6)
        compact(archive)

    interrupted(archive, overtake).run(lambda key: True)
    rows = all_rows(archive)
    assert len(rows) == 5 * 80 and rows.select("source_object", "source_row").is_unique().all()
    compact(archive)
    assert all_rows(archive).equals(rows) and len(names(archive)) == 2


def test_a_compaction_that_slept_while_its_manifest_s_number_came_and_went_changes_nothing(archive):
    fill(archive)

    def overtake():
        for number in (6, 7, 8):
            land_segment(archive, DAY, number)
            compact(archive)
            compact(archive)

    sleeper = interrupted(archive, overtake)
    sleeper.run(lambda key: True)
    rows = all_rows(archive)
    assert len(rows) == 7 * 80 and rows.select("source_object", "source_row").is_unique().all()
    assert "compacted-000003" in live(archive)[0]
    compact(archive)
    assert all_rows(archive).equals(rows) and len(names(archive)) == 2


def test_a_reader_whose_listing_was_overtaken_lists_again(archive, monkeypatch):
    fill(archive)
    before, listing = all_rows(archive), obstore.list
    stale = []

    def overtaken(store, prefix=None, **options):
        batches = [list(batch) for batch in listing(store, prefix=prefix, **options)]
        if not stale:
            stale.append(prefix)
            compact(archive, grace=HOUR)
            # As a directory may be listed: with the manifest that was written meanwhile, without its object.
            fresh = [item for batch in listing(store, prefix=prefix, **options) for item in batch]
            batches.append([item for item in fresh if item["path"].endswith("compacted-000001.json")])
        return batches

    monkeypatch.setattr(obstore, "list", overtaken)
    objects = archive.objects(DATASET)
    assert len(objects) == 1 and isinstance(objects[0], StoredObject)
    assert archive.read(objects).sort("symbol", "open_time", "source_object", "source_row").equals(before)


def test_compactions_in_several_processes_beside_landings_lose_nothing_and_double_nothing(place):
    archive = place.resources.archive
    fill(archive)
    together(compact_at_once, [(place, name, 4) for name in (1, 2, 3)])
    rows = all_rows(archive)
    assert len(rows) == 80 * (4 + 12)
    assert rows.select("source_object", "source_row").is_unique().all()
    compact(archive)
    compact(archive)
    assert all_rows(archive).equals(rows) and len(names(archive)) == 2
