"""The archive's own promises: claims are decided once, objects are written once, rows come back with their source."""

import io
from datetime import date

import obstore
import polars as pl
import pytest

from quantlytic_assets.market_data.bars import SOURCED_SCHEMA
from quantlytic_assets.storage.archive import Claim, earlier_lives, local_archive
from quantlytic_tests.frames import make_bars, minutes, utc

TOPIC = "bars.sample_set"


@pytest.fixture
def archive(place):
    return place.resources.archive


def with_offsets(bars, first=0):
    return bars.with_columns(pl.int_range(first, first + len(bars), dtype=pl.Int64, eager=True).alias("bus_offset"))


def some_bars(day="2025-05-10", count=5, first=0, **columns):
    return with_offsets(make_bars("A", minutes(utc(f"{day}T00:00"), count), **columns), first)


def test_whoever_claims_second_gets_the_first_s_range(archive):
    assert archive.claim("d", TOPIC, 0, 0, 100) == Claim(TOPIC, 0, 0, 100)
    assert archive.claim("d", TOPIC, 0, 0, 70) == Claim(TOPIC, 0, 0, 100)
    assert archive.claims("d", TOPIC, 0) == [Claim(TOPIC, 0, 0, 100)]


def test_claims_come_in_offset_order_and_know_what_landed(archive):
    for first in (0, 5, 100, 2_000, 10_000):
        archive.claim("d", TOPIC, 0, first, first + 5)
    archive.claim("d", TOPIC, 1, 0, 7)
    archive.claim("e", TOPIC, 0, 0, 9)
    archive.mark_done("d", Claim(TOPIC, 0, 5, 10), {"2025-05-10": {"rows": 5, "bytes": 9}})
    claims = archive.claims("d", TOPIC, 0)
    assert [claim.first for claim in claims] == [0, 5, 100, 2_000, 10_000]
    assert [claim.done for claim in claims] == [False, True, False, False, False]
    assert archive.with_landed("d", claims[1]).landed == {"2025-05-10": {"rows": 5, "bytes": 9}}
    with pytest.raises(FileNotFoundError):
        archive.with_landed("d", claims[0])
    for since in (0, 1, 5, 6, 100, 9_999, 10_000, 10_001):
        assert archive.claims("d", TOPIC, 0, since) == [claim for claim in claims if claim.first >= since]
        assert [one.done for one in archive.claims("d", TOPIC, 0, since)] == [
            claim.done for claim in claims if claim.first >= since
        ]


def test_an_object_is_written_once_and_its_true_size_reported(archive):
    claim = Claim(TOPIC, 0, 0, 5)
    size = archive.write("d", "partition=2025-05-10", claim, some_bars())
    (stored,) = archive.objects("d")
    assert (stored.path, stored.partition, stored.size) == (
        "d/partition=2025-05-10/bars.sample_set.0.0-5.parquet",
        "2025-05-10",
        size,
    )
    content = bytes(obstore.get(archive.store, stored.path).bytes())
    assert len(content) == size
    assert archive.write("d", "partition=2025-05-10", claim, some_bars(count=9)) == size
    assert bytes(obstore.get(archive.store, stored.path).bytes()) == content
    assert len(pl.read_parquet(io.BytesIO(content))) == 5


def test_objects_are_listed_by_partition_half_open_and_without_claims_and_rejected(archive):
    for day in ("2025-05-09", "2025-05-10", "2025-05-11"):
        archive.write("d", f"partition={day}", Claim(TOPIC, 0, 0, 5), some_bars(day))
    archive.write("d", "refused", Claim(TOPIC, 0, 0, 5), some_bars())
    archive.claim("d", TOPIC, 0, 0, 5)
    archive.write("dd", "partition=2025-05-10", Claim(TOPIC, 0, 0, 5), some_bars())
    assert [one.partition for one in archive.objects("d")] == ["2025-05-09", "2025-05-10", "2025-05-11"]
    assert [one.partition for one in archive.objects("d", date(2025, 5, 10), date(2025, 5, 11))] == ["2025-05-10"]
    assert [one.partition for one in archive.objects("d", None, date(2025, 5, 10))] == ["2025-05-09"]
    assert archive.rejected_objects("d") == ["d/refused/bars.sample_set.0.0-5.parquet"]
    assert archive.objects("unknown") == [] and archive.rejected_objects("unknown") == []


def test_rows_come_back_as_they_were_with_where_they_stand(archive):
    first = some_bars(count=3).with_columns(pl.lit(None, pl.Float64).alias("open"))
    second = some_bars("2025-05-11", count=2, first=3)
    archive.write("d", "partition=2025-05-10", Claim(TOPIC, 0, 0, 3), first)
    archive.write("d", "partition=2025-05-11", Claim(TOPIC, 0, 3, 5), second)
    rows = archive.read(archive.objects("d"))
    assert rows.schema == SOURCED_SCHEMA
    assert rows.sort("bus_offset").drop("source_object", "source_row").equals(pl.concat([first, second]))
    places = rows.sort("bus_offset").select("source_object", "source_row").rows()
    one, other = (stored.path for stored in archive.objects("d"))
    assert places == [(one, 0), (one, 1), (one, 2), (other, 0), (other, 1)]
    assert archive.read([]).schema == SOURCED_SCHEMA


def test_a_root_with_odd_characters_in_it_reads_back(tmp_path):
    archive = local_archive(str(tmp_path / "it's a [place] with = and é"))
    archive.write("d", "partition=2025-05-10", Claim(TOPIC, 0, 0, 5), some_bars())
    (source,) = archive.read(archive.objects("d"))["source_object"].unique()
    assert source == archive.objects("d")[0].path


@pytest.mark.parametrize(
    ("columns", "usable"),
    [
        ({}, True),
        ({"volume": 0.0}, True),
        # A vendor's rounding puts the close a hair above the high.
        ({"close": 101.0 * (1 + 1e-12), "open": 100.0, "high": 101.0, "low": 99.0}, True),
        ({"open": 100.0, "low": 99.0, "close": 102.0, "high": 101.0}, False),
        ({"open": 100.0, "low": 100.4, "close": 100.5, "high": 101.0}, False),
        ({"open": None}, False),
        ({"close": None}, False),
        ({"volume": None}, False),
        ({"volume": -1.0}, False),
        ({"low": 0.0}, False),
        ({"low": -99.0}, False),
    ],
)
def test_only_a_bar_with_a_full_set_of_consistent_prices_is_one_that_need_not_be_asked_for(archive, columns, usable):
    archive.write("d", "partition=2025-05-10", Claim(TOPIC, 0, 0, 1), some_bars(count=1, **columns))
    keys = archive.usable_keys(archive.objects("d"))
    assert keys.rows() == ([("A", utc("2025-05-10T00:00"))] if usable else [])


def test_a_key_archived_twice_counts_once_and_one_good_row_is_enough(archive):
    archive.write("d", "partition=2025-05-10", Claim(TOPIC, 0, 0, 5), some_bars())
    archive.write("d", "partition=2025-05-10", Claim(TOPIC, 0, 5, 10), some_bars(open=None))
    assert len(archive.usable_keys(archive.objects("d"))) == 5
    assert archive.usable_keys([]).is_empty()


def test_each_identity_of_a_topic_is_a_life_with_a_name_of_its_own(archive):
    assert [archive.life("d", TOPIC, one) for one in ("x", "y", "x", "z", "y")] == [
        TOPIC,
        f"{TOPIC}@1",
        TOPIC,
        f"{TOPIC}@2",
        f"{TOPIC}@1",
    ]
    assert archive.lives("d", TOPIC) == ["x", "y", "z"]
    assert archive.life("e", TOPIC, "z") == TOPIC
    assert earlier_lives(TOPIC) == [] and earlier_lives(f"{TOPIC}@2") == [TOPIC, f"{TOPIC}@1"]


def test_claims_of_a_life_are_apart_and_its_partitions_known(archive):
    archive.claim("d", TOPIC, 0, 0, 5)
    archive.claim("d", TOPIC, 10, 0, 5)
    archive.claim("d", f"{TOPIC}@1", 2, 0, 7)
    assert archive.claimed_partitions("d", TOPIC) == [0, 10]
    assert archive.claimed_partitions("d", f"{TOPIC}@1") == [2]
    assert archive.claims("d", f"{TOPIC}@1", 0) == []


def test_a_checkpoint_is_no_claim(archive):
    assert archive.checkpoint("d", TOPIC, 0) == 0
    archive.claim("d", TOPIC, 0, 0, 5)
    archive.set_checkpoint("d", TOPIC, 0, 5)
    assert archive.checkpoint("d", TOPIC, 0) == 5
    assert archive.claims("d", TOPIC, 0) == [Claim(TOPIC, 0, 0, 5)]
    assert archive.claims("d", TOPIC, 0, 5) == []
