"""Writers of one dataset take turns from reading to replacing; writers of others, and readers, do not wait for them."""

import os
import signal
import time
from datetime import date

import polars as pl

from quantlytic_assets.storage import dbt_writes
from quantlytic_tests.storage.places import Place
from quantlytic_tests.storage.processes import lake_rows, start, together

DAY = date(2025, 3, 3)
PARTITIONED_BY = ("dataset", "year(session)")


def compute(place: Place, dataset: str) -> None:
    """What a dbt model does: read, compute from what was read, replace. Rows carry one more than those before."""
    os.environ.update(place.resources.lake.dbt_environment())
    connection = place.resources.lake.connect()
    dbt_writes.take_turn(connection, dataset)
    (version,) = connection.execute(
        "SELECT coalesce(max(close), 0)::INT + 1 FROM clean.bars WHERE dataset = ?", [dataset]
    ).fetchall()[0]
    rows = lake_rows(version, "A", DAY, 200).with_columns(pl.lit(dataset).alias("dataset"))
    dbt_writes.replace_by_frames(connection, "clean.bars", f"dataset = '{dataset}'", [rows], PARTITIONED_BY)


def compute_often(barrier, place: Place, datasets: list[str], times: int) -> None:
    place.resources.lake.connect()
    barrier.wait(60)
    for _ in range(times):
        for dataset in datasets:
            compute(place, dataset)


def stop_amid_turn(place: Place, dataset: str, ready) -> None:
    """Hold a dataset's turn until killed."""
    os.environ.update(place.resources.lake.dbt_environment())
    dbt_writes.take_turn(place.resources.lake.connect(), dataset)
    ready.touch()
    signal.pause()


def holding(place: Place, dataset: str):
    """A process amid its turn."""
    ready = place.settings.directory("lake") / "ready"
    process = start(stop_amid_turn, place, dataset, ready)
    deadline = time.monotonic() + 120
    while not ready.exists():
        assert time.monotonic() < deadline and process.is_alive()
        time.sleep(0.01)
    return process


def versions(place: Place) -> list[tuple]:
    found = "SELECT dataset, close::INT, count(*) FROM clean.bars GROUP BY ALL ORDER BY ALL"
    return place.resources.lake.query(found).rows()


def test_two_writers_of_one_dataset_see_each_other_s_rows(place):
    together(compute_often, [(place, ["one"], 5), (place, ["one"], 5)])
    # If both read before either has written, one of the two is lost.
    assert versions(place) == [("one", 10, 200)]


def test_writers_of_two_datasets_lose_nothing(place):
    together(compute_often, [(place, ["one"], 5), (place, ["two"], 5)])
    assert versions(place) == [("one", 5, 200), ("two", 5, 200)]


def test_a_writer_amid_its_turn_holds_up_its_own_dataset_only_and_lets_go_when_it_is_killed(place):
    holder = holding(place, "one")
    try:
        # Another dataset is written and read meanwhile.
        compute(place, "two")
        assert versions(place) == [("two", 1, 200)]
        waiting = start(compute, place, "one")
        compute(place, "two")
        compute(place, "two")
        assert waiting.is_alive() and versions(place) == [("two", 3, 200)]
    finally:
        holder.kill()
        holder.join()
    waiting.join(120)
    assert waiting.exitcode == 0
    assert versions(place) == [("one", 1, 200), ("two", 3, 200)]


def test_a_model_that_fails_ends_its_turn(place):
    lake = place.resources.lake
    compute(place, "one")
    dbt_writes.take_turn(lake.connect(), "one")
    try:
        with dbt_writes.model_turn():
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    with lake.dataset_lock("one"):
        assert versions(place) == [("one", 1, 200)]


def test_rows_after_the_range_replace_those_of_the_same_key(place):
    os.environ.update(place.resources.lake.dbt_environment())
    connection = place.resources.lake.connect()
    later = date(2025, 3, 4)

    def put(rows: pl.DataFrame) -> None:
        dbt_writes.replace_by_frames(
            connection,
            "clean.bars",
            f"dataset = 'sample_set' AND session = DATE '{DAY}'",
            [rows],
            PARTITIONED_BY,
            tail_of="sample_set",
            tail_since=later,
            tail_key=['"symbol"', '"open_time"'],
        )

    put(pl.concat([lake_rows(1, "A", DAY, 10), lake_rows(1, "A", later, 10)]))
    put(pl.concat([lake_rows(2, "A", DAY, 5), lake_rows(2, "A", later, 3)]))
    found = connection.execute("SELECT session, close::INT, count(*) FROM clean.bars GROUP BY ALL ORDER BY ALL")
    assert found.fetchall() == [(DAY, 2, 5), (later, 1, 7), (later, 2, 3)]
