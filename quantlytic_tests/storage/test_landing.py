"""Exactly once from bus to archive, whoever lands and whatever is killed."""

import json
import random
import signal
import time

import obstore
import polars as pl
import pytest

from quantlytic_assets.market_data.bars import ARCHIVE_SCHEMA
from quantlytic_assets.storage.bus import DEAD_LETTERS, LocalBus, bars_topic
from quantlytic_tests.frames import make_bars, minutes, utc
from quantlytic_tests.storage.processes import HEADERS, land, land_and_die, land_at_once, make_lander, start, together

TOPIC = bars_topic("sample_set")
BROKEN = [b"", b"not json", b'{"symbol": "A"}', b"\xff\xfe", b"[]"]


@pytest.fixture
def places(tmp_path):
    """Directories of a bus and an archive."""
    return tmp_path / "bus", tmp_path / "archive"


def fill_bus(bus, batches=6):
    """Bars of three days and two symbols in several batches with broken and refused records between; their number."""
    lander = make_lander(bus, bus / "unused")
    for batch in range(batches):
        begin = utc("2025-05-10T20:00").replace(day=10 + batch % 3)
        bars = pl.concat(make_bars(symbol, minutes(begin, 60, every=5)) for symbol in ("A", "B"))
        lander.publish(bars)
        lander.bus.publish(TOPIC, BROKEN[: 1 + batch % 5], ["A"] * (1 + batch % 5), HEADERS)
    refused = pl.DataFrame(
        {"symbol": ["A"], "open_time": [None], "reason": ["unreadable_time"], "raw": ["x;y"], "line": [7]},
        schema_overrides={"open_time": ARCHIVE_SCHEMA["open_time"]},
    )
    lander.publish_refused(refused)
    return lander.bus.watermarks(TOPIC)[0][1]


def contents(archive):
    """Every object's bytes by path, the claims among them."""
    store = make_lander(archive, archive).archive.store
    return {
        item["path"]: bytes(obstore.get(store, item["path"]).bytes())
        for batch in obstore.list(store)
        for item in batch
    }


def landed_offsets(archive):
    """All offsets that are in some object, each as often as it is there."""
    found = make_lander(archive, archive).archive
    bars = found.read(found.objects("sample_set"))["bus_offset"].to_list()
    refused = found.read_refused("sample_set", found.refused_objects("sample_set"))["bus_offset"].to_list()
    return sorted(bars + refused)


def summary(landed):
    return landed.partitions, landed.refused


def test_every_record_lands_in_exactly_one_object(places):
    end = fill_bus(places[0])
    landed = land(*places)
    assert landed_offsets(places[1]) == list(range(end))
    assert landed.rows == 720
    assert landed.refused == end - 720
    assert sorted(landed.partitions) == ["2025-05-10", "2025-05-11", "2025-05-12", "2025-05-13"]


def test_objects_are_filed_by_partition_topic_and_offsets(places):
    fill_bus(places[0])
    land(*places)
    archive = make_lander(*places).archive
    for stored in archive.objects("sample_set"):
        frame = pl.read_parquet(archive.root + "/" + stored.path)
        first, last = stored.path.removesuffix(".parquet").rsplit(".", 1)[1].split("-")
        assert frame.schema == ARCHIVE_SCHEMA
        assert frame["bus_offset"].is_between(int(first), int(last) - 1).all()
        assert set(frame["open_time"].dt.strftime("%Y-%m-%d")) == {stored.partition}
        assert stored.path.split("/")[2].startswith("bars.sample_set.0.")


def test_what_was_published_is_what_is_read_back(places):
    lander = make_lander(*places)
    bars = pl.concat(make_bars(symbol, minutes(utc("2025-05-10T00:00"), 300)) for symbol in ("B", "A"))
    lander.publish(bars)
    lander.land()
    rows = lander.archive.read(lander.archive.objects("sample_set")).sort("bus_offset")
    assert rows.select(bars.columns).equals(bars.sort("open_time", "symbol"))


def test_a_repeated_landing_reports_the_same_and_writes_nothing(places):
    end = fill_bus(places[0])
    lander = make_lander(*places)
    first = lander.land({0: (0, end)})
    files, letters = contents(places[1]), lander.bus.watermarks(DEAD_LETTERS)
    again = lander.land({0: (0, end)})
    assert summary(again) == summary(first)
    assert again.claims == first.claims
    assert contents(places[1]) == files
    assert lander.bus.watermarks(DEAD_LETTERS) == letters
    nothing = lander.land()
    assert summary(nothing) == ({}, 0) and nothing.rows == 0 and nothing.claims == []
    assert contents(places[1]) == files


def test_landing_an_empty_bus_does_nothing(places):
    assert summary(land(*places)) == ({}, 0)
    assert contents(places[1]) == {}


def test_claims_go_on_where_the_last_one_ended(places):
    lander = make_lander(*places, claim_records=100)
    for count in (130, 1, 70):
        lander.publish(make_bars("A", minutes(utc("2025-05-10T00:00"), count)))
        lander.land()
    claims = lander.archive.claims("sample_set", TOPIC, 0)
    assert [(one.first, one.last) for one in claims] == [(0, 100), (100, 130), (130, 131), (131, 201)]
    assert lander.landed_through(0) == 201
    assert landed_offsets(places[1]) == list(range(201))


def test_a_range_is_landed_by_exactly_the_claims_that_hold_a_part_of_it(places):
    lander = make_lander(*places, claim_records=10)
    lander.publish(make_bars("A", minutes(utc("2025-05-10T00:00"), 30)))
    lander.land()
    for first, last, claims in [(0, 1, [0]), (9, 10, [0]), (10, 11, [10]), (9, 11, [0, 10]), (15, 30, [10, 20])]:
        landed = lander.land({0: (first, last)})
        assert [claim.first for claim in landed.claims] == claims, (first, last)
        assert landed.rows == 10 * len(claims)


def test_a_range_that_skips_unclaimed_records_lands_those_too(places):
    end = fill_bus(places[0])
    lander = make_lander(*places)
    lander.land({0: (end - 10, end)})
    assert landed_offsets(places[1]) == list(range(end))


def test_ranges_that_overlap_in_any_way_land_each_record_once(places):
    end = fill_bus(places[0])
    lander = make_lander(*places, claim_records=70)
    draw = random.Random(3)
    for _ in range(12):
        first = draw.randrange(end - 1)
        last = draw.randrange(first + 1, end + 1)
        landed = lander.land({0: (first, last)})
        claimed = [(claim.first, claim.last) for claim in landed.claims]
        assert min(claimed)[0] <= first and max(claimed)[1] >= last
    lander.land()
    assert landed_offsets(places[1]) == list(range(end))


@pytest.mark.parametrize("ranges", [{0: (0, 10_000)}, {3: (0, 1)}])
def test_a_range_that_the_bus_does_not_hold_is_refused_and_blocks_nothing(places, ranges):
    end = fill_bus(places[0])
    lander = make_lander(*places)
    with pytest.raises(LookupError):
        lander.land(ranges)
    assert contents(places[1]) == {}
    lander.land()
    assert landed_offsets(places[1]) == list(range(end))


def test_refused_records_are_kept_with_their_reason_and_announced(places):
    fill_bus(places[0])
    lander = make_lander(*places)
    landed = lander.land()
    refused = lander.archive.read_refused("sample_set", lander.archive.refused_objects("sample_set"))
    assert len(refused) == landed.refused
    assert set(refused["dataset"]) == {"sample_set"}
    assert set(refused["raw"]) >= {"not json", '{"symbol": "A"}', "\\xff\\xfe", "[]", "x;y"}
    imported = refused.filter(pl.col("raw") == "x;y").row(0, named=True)
    assert (imported["reason"], imported["line"], imported["symbol"]) == ("unreadable_time", 7, "A")
    (marks,) = lander.bus.watermarks(DEAD_LETTERS).values()
    letters = lander.bus.read(DEAD_LETTERS, 0, *marks)
    told = [json.loads(value) for value in letters.values]
    assert [one["at"] for one in told] == letters.keys
    assert sorted(one["at"] for one in told) == sorted(f"{TOPIC}:0:{offset}" for offset in refused["bus_offset"])
    assert sorted(one["reason"] for one in told) == sorted(refused["reason"])


def test_a_topic_of_nothing_but_broken_records_lands_without_a_bar(places):
    lander = make_lander(*places)
    lander.bus.publish(TOPIC, BROKEN, ["A"] * 5, HEADERS)
    landed = lander.land()
    assert (landed.partitions, landed.refused) == ({}, 5)
    assert landed_offsets(places[1]) == list(range(5))
    assert lander.landed_through(0) == 5


def test_two_outcomes_add_up(places):
    lander = make_lander(*places)
    lander.publish(make_bars("A", minutes(utc("2025-05-10T00:00"), 40)))
    first = lander.land()
    lander.publish(make_bars("A", minutes(utc("2025-05-10T23:50"), 20)))
    first.merge(lander.land())
    assert {key: entry["rows"] for key, entry in first.partitions.items()} == {"2025-05-10": 50, "2025-05-11": 10}
    assert first.partitions["2025-05-10"]["objects"] == 2
    assert summary(lander.land({0: (0, 60)})) == summary(first)


def test_landers_in_several_processes_land_each_record_once(tmp_path):
    bus = tmp_path / "bus"
    end = fill_bus(bus)
    land(bus, tmp_path / "alone")
    for attempt, ranges in enumerate([[None] * 4, [{0: (0, end)}, {0: (300, end)}, None, {0: (100, 700)}]]):
        archive = tmp_path / f"archive{attempt}"
        together(land_at_once, [(bus, archive, one) for one in ranges])
        assert landed_offsets(archive) == list(range(end))
    # All of them wanted everything, so they divided it as one alone does.
    assert contents(tmp_path / "archive0") == contents(tmp_path / "alone")


def test_a_landing_that_dies_before_or_after_any_object_is_finished_by_the_next(tmp_path):
    bus = tmp_path / "bus"
    end = fill_bus(bus)
    undisturbed = summary(land(bus, tmp_path / "undisturbed"))
    wanted = contents(tmp_path / "undisturbed")
    assert len(wanted) > 10
    moments = [(puts, True) for puts in range(1, len(wanted) + 1)] + [(len(wanted), False)]
    for puts, before in moments:
        archive = tmp_path / f"{puts}{before}"
        process = start(land_and_die, bus, archive, puts, before)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        lander = make_lander(bus, archive)
        lander.land()
        assert contents(archive) == wanted, (puts, before)
        assert summary(lander.land({0: (0, end)})) == undisturbed


def test_a_landing_killed_at_random_moments_again_and_again_ends_as_an_undisturbed_one(tmp_path):
    bus = tmp_path / "bus"
    end = fill_bus(bus, batches=30)
    started = time.monotonic()
    land(bus, tmp_path / "undisturbed")
    usual = time.monotonic() - started
    draw = random.Random(17)
    for _ in range(20):
        process = start(land, bus, tmp_path / "archive")
        time.sleep(draw.uniform(0, usual / 2))
        process.kill()
        process.join()
    land(bus, tmp_path / "archive")
    assert contents(tmp_path / "archive") == contents(tmp_path / "undisturbed")
    assert landed_offsets(tmp_path / "archive") == list(range(end))


def test_what_a_killed_landing_announced_is_announced_again_under_the_same_key(places):
    claims = -(-fill_bus(places[0]) // 250)
    # The first object comes after the claims and after its claim's letters.
    process = start(land_and_die, *places, claims + 1, True)
    process.join(60)
    bus = LocalBus(places[0])
    told = bus.watermarks(DEAD_LETTERS)[0][1]
    assert told > 0
    land(*places)
    keys = bus.read(DEAD_LETTERS, 0, *bus.watermarks(DEAD_LETTERS)[0]).keys
    assert keys[:told] == keys[told : 2 * told]
    refused = make_lander(*places).archive
    offsets = refused.read_refused("sample_set", refused.refused_objects("sample_set"))["bus_offset"]
    assert set(keys) == {f"{TOPIC}:0:{offset}" for offset in offsets}
