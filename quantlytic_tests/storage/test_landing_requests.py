"""What a landing asks of the object store: as much after ten thousand claims as after ten."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from math import ceil

import obstore
import pytest

from quantlytic_assets.storage.archive import Claim
from quantlytic_assets.storage.bus import bars_topic
from quantlytic_tests.frames import make_bars, minutes, utc
from quantlytic_tests.storage.places import opened
from quantlytic_tests.storage.processes import make_lander

DATASET = "sample_set"
TOPIC = bars_topic(DATASET)
# As many names as S3 puts into one answer to a listing.
_PAGE = 1_000


@pytest.fixture
def requests(monkeypatch):
    """Requests made of object stores, by kind; a long listing counts once a page."""
    counted = Counter()

    def count(kind, call):
        def counting(*arguments, **options):
            counted[kind] += 1
            return call(*arguments, **options)

        return counting

    def listing(*arguments, **options):
        items = [item for batch in whole(*arguments, **options) for item in batch]
        counted["list"] += max(1, ceil(len(items) / _PAGE))
        return [items]

    whole = obstore.list
    monkeypatch.setattr(obstore, "list", listing)
    for kind in ("get", "put", "head", "list_with_delimiter"):
        monkeypatch.setattr(obstore, kind, count(kind, getattr(obstore, kind)))
    return counted


def fill_claims(archive, number, partition=0, size=10):
    """Done claims from offset 0 on, and a checkpoint as far behind as landing lets it be."""
    landed = {"2025-05-10": {"rows": size, "bytes": 1_000}}

    def land(first):
        archive.mark_done(DATASET, archive.claim(DATASET, TOPIC, partition, first, first + size), landed)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(land, range(0, number * size, size)))
    archive.set_checkpoint(DATASET, TOPIC, partition, (number - 49) * size)


@pytest.mark.parametrize("number", [50, 10_000])
def test_a_tick_makes_at_most_five_requests_however_many_claims_there_are(place, requests, number):
    lander = make_lander(place / "bus", place)
    lander.publish(make_bars("A", minutes(utc("2025-05-10T00:00"), 5)))
    fill_claims(lander.archive, number)
    # The first look of all writes down whose offsets these are.
    lander.source()
    for _ in range(3):
        requests.clear()
        source = lander.source()
        assert lander.landed_through(source.life, 0) == 10 * number
        # The sensor has a new one each time.
        lander = make_lander(place / "bus", place)
        assert requests.total() <= 5, requests
    # The first listing after a start reads the checkpoint; after that the process knows where to begin.
    assert requests == {"list": 2, "get": 1}


def test_a_tick_over_three_bus_partitions_makes_five_requests(tmp_path, requests):
    with opened("embedded", tmp_path) as place:
        lander = make_lander(place, place)
        lander.publish(make_bars("A", minutes(utc("2025-05-10T00:00"), 5)))
        for partition in range(3):
            fill_claims(lander.archive, 60, partition)
            lander.landed_through(TOPIC, partition)
        lander.source()
        requests.clear()
        source = lander.source()
        assert [lander.landed_through(source.life, partition) for partition in range(3)] == [600, 600, 600]
        assert requests.total() <= 5, requests


def test_a_landing_run_makes_as_many_requests_after_many_claims_as_after_few(place, requests):
    made = []
    for name, number in (("few", 50), ("many", 500)):
        lander = make_lander(place / name, place / name, claim_records=10)
        lander.publish(make_bars("A", minutes(utc("2025-05-10T00:00"), 10 * number + 10)))
        fill_claims(lander.archive, number)
        lander.source()
        requests.clear()
        assert lander.land({0: (10 * number, 10 * number + 10)}).rows == 10
        made.append(dict(requests))
    assert made[0] == made[1]
    assert sum(made[0].values()) <= 10, made


def test_claims_that_were_done_before_names_said_so_are_read_as_before(place):
    archive = place.resources.archive
    landed = {"2025-05-10": {"rows": 10, "bytes": 1_000}}
    for first in (0, 10, 20):
        archive.claim(DATASET, TOPIC, 0, first, first + 10)
    for first in (0, 10):
        path = f"{DATASET}/claims/{TOPIC}.0/{first:020d}.done.json"
        obstore.put(archive.store, path, json.dumps({"landed": landed}).encode())
    claims = archive.claims(DATASET, TOPIC, 0)
    assert claims == [Claim(TOPIC, 0, first, first + 10) for first in (0, 10, 20)]
    assert [claim.done for claim in claims] == [True, True, False]
    assert archive.with_landed(DATASET, claims[1]).landed == landed
    assert archive.landed_through(DATASET, TOPIC, 0) == 20
    archive.mark_done(DATASET, claims[2], landed)
    assert archive.landed_through(DATASET, TOPIC, 0) == 30


def test_an_archive_that_was_replaced_is_looked_at_anew(place):
    archive = place.resources.archive
    fill_claims(archive, 60)
    assert archive.landed_through(DATASET, TOPIC, 0) == 600
    obstore.delete(archive.store, [item["path"] for batch in obstore.list(archive.store) for item in batch])
    assert archive.landed_through(DATASET, TOPIC, 0) == 0
    archive.claim(DATASET, TOPIC, 0, 0, 700)
    assert archive.landed_through(DATASET, TOPIC, 0) == 0


def test_what_another_process_lands_is_seen(place):
    archive, other = place.resources.archive, make_lander(place, place).archive
    fill_claims(archive, 60)
    assert archive.landed_through(DATASET, TOPIC, 0) == 600
    claim = other.claim(DATASET, TOPIC, 0, 600, 650)
    assert archive.landed_through(DATASET, TOPIC, 0) == 600
    other.mark_done(DATASET, claim, {})
    assert archive.landed_through(DATASET, TOPIC, 0) == 650
