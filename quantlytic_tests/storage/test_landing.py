"""Exactly once from bus to archive, whoever lands and whatever is killed."""

import io
import json
import random
import signal
import time

import obstore
import polars as pl
import pytest

from quantlytic_assets.market_data.bars import ARCHIVE_SCHEMA
from quantlytic_assets.market_data.wire.records import encode_bars
from quantlytic_assets.storage.bus import DEAD_LETTERS, bars_topic
from quantlytic_assets.storage.landing import TopicChanged
from quantlytic_tests.frames import make_bars, minutes, utc
from quantlytic_tests.storage.places import PROFILES, with_driver
from quantlytic_tests.storage.processes import HEADERS, land, land_and_die, land_at_once, make_lander, start, together
from quantlytic_tests.vendors.bodies import spoilt

TOPIC = bars_topic("sample_set")
BROKEN = [b"", b"not json", b'{"symbol": "A"}', b"\xff\xfe", b"[]"]


@pytest.fixture(params=[*PROFILES, "confluent"])
def place(request, tmp_path):
    """A fresh installation of each profile, and on the services with each driver of Kafka."""
    with with_driver(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def places(place):
    """Where a bus and an archive are."""
    return place / "bus", place / "archive"


def fill_bus(bus, batches=6):
    """Bars of three days and two symbols in several batches with broken and rejected records between; their number."""
    lander = make_lander(bus, bus)
    for batch in range(batches):
        begin = utc("2025-05-10T20:00").replace(day=10 + batch % 3)
        bars = pl.concat(make_bars(symbol, minutes(begin, 60, every=5)) for symbol in ("A", "B"))
        lander.publish(bars)
        lander.bus.publish(TOPIC, BROKEN[: 1 + batch % 5], ["A"] * (1 + batch % 5), HEADERS)
    rejected = pl.DataFrame(
        {"symbol": ["A"], "open_time": [None], "reason": ["unreadable_time"], "raw": ["x;y"], "line": [7]},
        schema_overrides={"open_time": ARCHIVE_SCHEMA["open_time"]},
    )
    lander.publish_rejected(rejected)
    return lander.bus.watermarks(TOPIC)[0][1]


def contents(archive):
    """Every object's bytes by path, the claims among them; but for the identity of the topic."""
    store = archive.resources.archive.store
    paths = [item["path"] for batch in obstore.list(store) for item in batch if "/topics/" not in item["path"]]
    return {path: bytes(obstore.get(store, path).bytes()) for path in paths}


def landed_offsets(archive):
    """All offsets that are in some object, each as often as it is there."""
    found = archive.resources.archive
    bars = found.read(found.objects("sample_set"))["bus_offset"].to_list()
    rejected = found.read_rejected("sample_set", found.rejected_objects("sample_set"))["bus_offset"].to_list()
    return sorted(bars + rejected)


def summary(landed):
    return landed.partitions, landed.rejected


def test_every_record_lands_in_exactly_one_object(places):
    end = fill_bus(places[0])
    landed = land(*places)
    assert landed_offsets(places[1]) == list(range(end))
    assert landed.rows == 720
    assert landed.rejected == end - 720
    assert sorted(landed.partitions) == ["2025-05-10", "2025-05-11", "2025-05-12", "2025-05-13"]


def test_objects_are_filed_by_partition_topic_and_offsets(places):
    fill_bus(places[0])
    land(*places)
    archive = make_lander(*places).archive
    for stored in archive.objects("sample_set"):
        frame = pl.read_parquet(io.BytesIO(bytes(obstore.get(archive.store, stored.path).bytes())))
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
    assert lander.landed_through(TOPIC, 0) == 201
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
def test_a_range_that_the_bus_does_not_hold_is_rejected_and_blocks_nothing(places, ranges):
    end = fill_bus(places[0])
    lander = make_lander(*places)
    with pytest.raises(LookupError):
        lander.land(ranges)
    assert contents(places[1]) == {}
    lander.land()
    assert landed_offsets(places[1]) == list(range(end))


def test_rejected_records_are_kept_with_their_reason_and_announced(places):
    fill_bus(places[0])
    lander = make_lander(*places)
    landed = lander.land()
    rejected = lander.archive.read_rejected("sample_set", lander.archive.rejected_objects("sample_set"))
    assert len(rejected) == landed.rejected
    assert set(rejected["dataset"]) == {"sample_set"}
    assert set(rejected["raw"]) >= {"not json", '{"symbol": "A"}', "\\xff\\xfe", "[]", "x;y"}
    imported = rejected.filter(pl.col("raw") == "x;y").row(0, named=True)
    assert (imported["reason"], imported["line"], imported["symbol"]) == ("unreadable_time", 7, "A")
    (marks,) = lander.bus.watermarks(DEAD_LETTERS).values()
    letters = lander.bus.read(DEAD_LETTERS, 0, *marks)
    told = [json.loads(value) for value in letters.values]
    assert [one["at"] for one in told] == letters.keys
    assert sorted(one["at"] for one in told) == sorted(f"{TOPIC}:0:{offset}" for offset in rejected["bus_offset"])
    assert sorted(one["reason"] for one in told) == sorted(rejected["reason"])


def test_a_topic_of_nothing_but_broken_records_lands_without_a_bar(places):
    lander = make_lander(*places)
    lander.bus.publish(TOPIC, BROKEN, ["A"] * 5, HEADERS)
    landed = lander.land()
    assert (landed.partitions, landed.rejected) == ({}, 5)
    assert landed_offsets(places[1]) == list(range(5))
    assert lander.landed_through(TOPIC, 0) == 5


def spoilt_records(encoding: str, draw: random.Random) -> list[bytes]:
    """Good records of both kinds, most of them with a few bytes or a JSON value changed."""
    bars = make_bars("A", minutes(utc("2025-05-10T00:00"), 250))
    records = []
    for value in encode_bars(bars, encoding):
        kind = draw.random()
        if encoding == "json" and kind < 0.6:
            value = spoilt(json.loads(value), draw)
        elif kind < 0.8:
            at = draw.randrange(len(value))
            value = value[:at] + draw.randbytes(draw.randrange(4)) + value[at + draw.randrange(4) :]
        records.append(value)
    return records


def test_each_of_a_thousand_spoilt_records_is_archived_or_rejected_with_its_reason(places):
    lander, draw, end = make_lander(*places), random.Random(11), 0
    headers = [
        {"encoding": "avro"}, {"encoding": "json"}, {"encoding": "avro", "version": "2"}, {"encoding": "\ud7ff"},
    ]  # fmt: skip
    for change in headers:
        values = spoilt_records("json" if change["encoding"] == "json" else "avro", draw)
        end += len(values)
        lander.bus.publish(TOPIC, values, ["A"] * len(values), HEADERS | change)
    landed = lander.land()
    assert end == landed.rows + landed.rejected == 1000
    assert landed_offsets(places[1]) == list(range(end))
    rejected = lander.archive.read_rejected("sample_set", lander.archive.rejected_objects("sample_set"))
    assert len(rejected) == landed.rejected > 500
    assert rejected["reason"].null_count() == 0 and rejected["reason"].str.len_chars().min() > 0


def test_two_outcomes_add_up(places):
    lander = make_lander(*places)
    lander.publish(make_bars("A", minutes(utc("2025-05-10T00:00"), 40)))
    first = lander.land()
    lander.publish(make_bars("A", minutes(utc("2025-05-10T23:50"), 20)))
    first.merge(lander.land())
    assert {key: entry["rows"] for key, entry in first.partitions.items()} == {"2025-05-10": 50, "2025-05-11": 10}
    assert first.partitions["2025-05-10"]["objects"] == 2
    assert summary(lander.land({0: (0, 60)})) == summary(first)


def test_landers_in_several_processes_land_each_record_once(place):
    bus = place / "bus"
    end = fill_bus(bus)
    land(bus, place / "alone")
    for attempt, ranges in enumerate([[None] * 4, [{0: (0, end)}, {0: (300, end)}, None, {0: (100, 700)}]]):
        archive = place / f"archive{attempt}"
        together(land_at_once, [(bus, archive, one) for one in ranges])
        assert landed_offsets(archive) == list(range(end))
    # All of them wanted everything, so they divided it as one alone does.
    assert contents(place / "archive0") == contents(place / "alone")


def test_a_landing_that_dies_before_or_after_any_object_is_finished_by_the_next(place):
    bus = place / "bus"
    end = fill_bus(bus)
    undisturbed = summary(land(bus, place / "undisturbed"))
    wanted = contents(place / "undisturbed")
    assert len(wanted) > 10
    # The topic's identity is one more.
    moments = [(puts, True) for puts in range(1, len(wanted) + 2)] + [(len(wanted) + 1, False)]
    for puts, before in moments if place.embedded else random.Random(5).sample(moments, 12):
        archive = place / f"{puts}{before}"
        process = start(land_and_die, bus, archive, puts, before)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        lander = make_lander(bus, archive)
        lander.land()
        assert contents(archive) == wanted, (puts, before)
        assert summary(lander.land({0: (0, end)})) == undisturbed


def test_a_landing_killed_at_random_moments_again_and_again_ends_as_an_undisturbed_one(place):
    bus = place / "bus"
    end = fill_bus(bus, batches=30)
    started = time.monotonic()
    land(bus, place / "undisturbed")
    usual = time.monotonic() - started
    draw = random.Random(17)
    for _ in range(20):
        process = start(land, bus, place / "archive")
        time.sleep(draw.uniform(0, usual / 2))
        process.kill()
        process.join()
    land(bus, place / "archive")
    assert contents(place / "archive") == contents(place / "undisturbed")
    assert landed_offsets(place / "archive") == list(range(end))


def test_what_a_killed_landing_announced_is_announced_again_under_the_same_key(places):
    fill_bus(places[0])
    # The first object of rejected records comes after their letters.
    process = start(land_and_die, *places, 1, True, ".parquet")
    process.join(60)
    bus = places[0].resources.bus
    told = bus.watermarks(DEAD_LETTERS)[0][1]
    assert told > 0
    land(*places)
    keys = bus.read(DEAD_LETTERS, 0, *bus.watermarks(DEAD_LETTERS)[0]).keys
    assert keys[:told] == keys[told : 2 * told]
    rejected = places[1].resources.archive
    offsets = rejected.read_rejected("sample_set", rejected.rejected_objects("sample_set"))["bus_offset"]
    assert set(keys) == {f"{TOPIC}:0:{offset}" for offset in offsets}


class TestALandingThatComesTooLate:
    """Retention has dropped records, or the topic is another one by now: what is left lands, what is gone is told."""

    @pytest.fixture
    def lander(self, places):
        return make_lander(*places, claim_records=10)

    def publish(self, lander, count, first=0):
        day = minutes(utc("2025-05-10T00:00"), first + count)
        lander.publish(make_bars("A", day[first:]))

    def lost(self, landed):
        return landed.lost, landed.lost_ranges

    def test_records_dropped_before_anybody_claimed_them_are_one_lost_range(self, places, lander):
        self.publish(lander, 100)
        lander.land({0: (0, 20)})
        places[0].delete_records(TOPIC, 57)
        landed = lander.land()
        assert self.lost(landed) == (37, [f"{TOPIC}:0:20-57"])
        assert landed.rows == 43
        assert landed_offsets(places[1]) == [*range(20), *range(57, 100)]
        assert lander.landed_through(TOPIC, 0) == 100
        # It is told once, and again only to whoever repeats the same range.
        assert self.lost(lander.land()) == (0, [])
        assert self.lost(lander.land({0: (20, 100)})) == (37, [f"{TOPIC}:0:20-57"])

    def test_of_a_claim_that_retention_has_reached_the_rest_is_landed(self, places, lander):
        self.publish(lander, 30)
        for first in (0, 10):
            lander.archive.claim("sample_set", TOPIC, 0, first, first + 10)
        places[0].delete_records(TOPIC, 13)
        landed = lander.land()
        assert self.lost(landed) == (13, [f"{TOPIC}:0:0-10", f"{TOPIC}:0:10-20"])
        assert landed_offsets(places[1]) == list(range(13, 30))

    def test_a_topic_that_is_made_anew_lands_from_its_start_beside_the_old_one(self, places, lander):
        self.publish(lander, 25)
        lander.land()
        places[0].delete_topic(TOPIC)
        wait_until_gone(lander.bus)
        self.publish(lander, 15, first=25)
        landed = lander.land()
        assert landed.rows == 15 and landed.lost == 0
        assert landed_offsets(places[1]) == sorted([*range(25), *range(15)])
        assert [one.path.split("/")[2] for one in lander.archive.objects("sample_set")][-1].startswith(f"{TOPIC}@1.0.")
        assert lander.landed_through(f"{TOPIC}@1", 0) == 15
        assert lander.land().claims == []
        rows = lander.archive.read(lander.archive.objects("sample_set"))
        assert rows["open_time"].n_unique() == 40

    def test_what_a_dead_landing_had_claimed_of_the_old_topic_is_told_to_be_lost(self, places, lander):
        self.publish(lander, 20)
        lander.land()
        self.publish(lander, 5, first=20)
        lander.archive.claim("sample_set", TOPIC, 0, 20, 25)
        places[0].delete_topic(TOPIC)
        wait_until_gone(lander.bus)
        self.publish(lander, 3, first=25)
        landed = lander.land()
        assert (landed.rows, *self.lost(landed)) == (3, 5, [f"{TOPIC}:0:20-25"])
        assert lander.land().lost == 0

    def test_a_range_asked_for_of_the_old_topic_is_told_to_be_lost(self, places, lander):
        self.publish(lander, 20)
        lander.land({0: (0, 10)})
        life = lander.source().life
        places[0].delete_topic(TOPIC)
        wait_until_gone(lander.bus)
        assert self.lost(lander.land({0: (10, 20)}, life)) == (10, [f"{TOPIC}:0:10-20"])
        self.publish(lander, 3, first=20)
        assert self.lost(lander.land({0: (10, 20)}, life)) == (0, [])
        assert lander.land().rows == 3

    def test_a_topic_replaced_between_claim_and_reading_is_not_mistaken_for_the_old_one(self, places, lander):
        self.publish(lander, 20)
        source = lander.source()
        claim = lander.archive.claim("sample_set", TOPIC, 0, 0, 10)
        places[0].delete_topic(TOPIC)
        wait_until_gone(lander.bus)
        self.publish(lander, 20, first=20)
        with pytest.raises(TopicChanged):
            lander._read(source, claim)
        landed = lander.land()
        assert (landed.rows, landed.lost) == (20, 10)


def wait_until_gone(bus):
    deadline = time.monotonic() + 30
    while bus.identity(TOPIC) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_is_done_long_ago_is_not_listed_again_and_yet_repeated_the_same(places):
    lander = make_lander(*places, claim_records=1)
    lander.publish(make_bars("A", minutes(utc("2025-05-10T00:00"), 120)))
    first = lander.land({0: (0, 60)})
    assert lander.archive.checkpoint("sample_set", TOPIC, 0) == 60
    assert lander.landed_through(TOPIC, 0) == 60
    assert summary(lander.land({0: (0, 60)})) == summary(first)
    lander.land()
    assert lander.archive.checkpoint("sample_set", TOPIC, 0) == 120
    assert landed_offsets(places[1]) == list(range(120))


@pytest.mark.parametrize("driver", ["services", "confluent"])
def test_several_bus_partitions_land_side_by_side(tmp_path, driver):
    with with_driver(driver, tmp_path, kafka_partitions=3) as place:
        lander = make_lander(place, place, claim_records=100)
        symbols = [f"S{i}" for i in range(12)]
        lander.publish(pl.concat(make_bars(symbol, minutes(utc("2025-05-10T00:00"), 50)) for symbol in symbols))
        landed = lander.land()
        assert landed.rows == 600
        assert {claim.partition for claim in landed.claims} == {0, 1, 2}
        rows = lander.archive.read(lander.archive.objects("sample_set"))
        assert rows.group_by("symbol").len()["len"].to_list() == [50] * 12
        marks = lander.bus.watermarks(TOPIC)
        assert {p: lander.landed_through(TOPIC, p) for p in marks} == {p: end for p, (_, end) in marks.items()}
