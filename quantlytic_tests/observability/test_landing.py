"""The figures of bus and archive say what really waits, was landed, rejected and lost, each record counted once."""

from datetime import date

import polars as pl
import pytest

from quantlytic_assets.observability.landing import LandedTally, archive_metrics, bus_metrics
from quantlytic_assets.storage.bus import bars_topic
from quantlytic_tests.frames import make_bars, make_dataset, minutes, utc
from quantlytic_tests.observability.figures import figures

DATASET = make_dataset(
    calendar="24/7", interval="1m", first=date(2025, 5, 10), last=date(2025, 5, 12), symbols=("A", "B")
)
NAME = DATASET.name
TOPIC = bars_topic(NAME)


@pytest.fixture
def parts(place):
    """What the exporter looks at, with what publishes and lands."""
    return place, place.resources, place.resources.lander(DATASET)


def publish(lander, begin, count):
    lander.publish(pl.concat(make_bars(symbol, minutes(utc(begin), count)) for symbol in ("A", "B")))


def looked(resources, lander):
    return figures(bus_metrics(resources.bus, resources.archive, lambda _: lander, [NAME, "other"]))


def test_what_is_published_waits_until_it_is_landed(parts):
    place, resources, lander = parts
    assert "quantlytic_bus_lag_records" not in looked(resources, lander)
    publish(lander, "2025-05-10T10:00", 30)
    labels = (NAME, TOPIC, "0")
    found = looked(resources, lander)
    assert found["quantlytic_bus_lag_records"] == {labels: 60} and found["quantlytic_bus_end_offset"] == {labels: 60}
    # Looking leaves no trace.
    assert resources.archive.lives(NAME, TOPIC) == []
    lander.land({0: (0, 20)})
    assert looked(resources, lander)["quantlytic_bus_lag_records"] == {labels: 40}
    lander.land()
    publish(lander, "2025-05-10T11:00", 1)
    assert looked(resources, lander)["quantlytic_bus_lag_records"] == {labels: 2}
    if not place.embedded:
        place.delete_topic(TOPIC)
        assert "quantlytic_bus_lag_records" not in looked(resources, lander)


def test_a_topic_made_anew_waits_from_its_first_record_on(parts):
    place, resources, lander = parts
    publish(lander, "2025-05-10T10:00", 10)
    lander.land()
    place.delete_topic(TOPIC)
    publish(lander, "2025-05-11T10:00", 3)
    assert looked(resources, lander)["quantlytic_bus_lag_records"] == {(NAME, TOPIC, "0"): 6}


def test_every_record_is_counted_once_whatever_became_of_it(parts, tmp_path):
    place, resources, lander = parts
    remembered = tmp_path / "metrics"
    tally = LandedTally(resources.archive, [NAME, "other"], remembered)

    def counted(by=tally):
        found = figures(by.metrics())
        names = ("landed_bars", "rejected_records", "lost_records")
        return tuple(found[f"quantlytic_{name}_total"][(NAME,)] for name in names)

    # All series are there from the beginning, so that a first loss is an increase.
    assert counted() == (0, 0, 0) and figures(tally.metrics())["quantlytic_lost_records_total"][("other",)] == 0
    publish(lander, "2025-05-10T10:00", 10)
    resources.bus.publish(TOPIC, [b"no bar", b""], ["A", "A"], {"schema": "bar", "version": "1", "encoding": "json"})
    lander.land()
    assert counted() == counted() == (20, 2, 0)
    publish(lander, "2025-05-10T11:00", 5)
    place.delete_records(TOPIC, 25)
    lander.land()
    assert counted() == (27, 2, 3)
    place.delete_topic(TOPIC)
    publish(lander, "2025-05-11T10:00", 4)
    lander.land()
    assert counted() == (35, 2, 3)
    # An exporter that is started again goes on, and counts what was landed meanwhile.
    publish(lander, "2025-05-11T11:00", 1)
    lander.land()
    assert counted(LandedTally(resources.archive, [NAME, "other"], remembered)) == (37, 2, 3)
    # Without its memory it reads everything again and comes to the same.
    assert counted(LandedTally(resources.archive, [NAME, "other"], tmp_path / "new")) == (37, 2, 3)
    stored = figures(archive_metrics(resources.archive, [NAME]))["quantlytic_archive_bytes"]
    assert stored[(NAME,)] == figures(tally.metrics())["quantlytic_landed_bytes_total"][(NAME,)]


def test_a_claim_is_read_once(parts, tmp_path, monkeypatch):
    _, resources, lander = parts
    tally = LandedTally(resources.archive, [NAME], tmp_path / "metrics")
    for hour in range(3):
        publish(lander, f"2025-05-10T1{hour}:00", 5)
        lander.land()
    tally.metrics()
    read = []
    whole = resources.archive._read_json
    monkeypatch.setattr(resources.archive, "_read_json", lambda path: read.append(path) or whole(path))
    tally.metrics()
    assert [path for path in read if "/claims/" in path] == []
    publish(lander, "2025-05-10T15:00", 5)
    lander.land()
    read.clear()
    tally.metrics()
    assert len([path for path in read if "/claims/" in path]) == 1


def test_a_claim_that_is_not_done_is_counted_when_it_is(parts, tmp_path):
    _, resources, lander = parts
    publish(lander, "2025-05-10T10:00", 5)
    life = lander.source().life
    resources.archive.claim(NAME, life, 0, 0, 4)
    tally = LandedTally(resources.archive, [NAME], tmp_path / "metrics")
    assert figures(tally.metrics())["quantlytic_landed_bars_total"] == {(NAME,): 0}
    lander.land()
    assert figures(tally.metrics())["quantlytic_landed_bars_total"] == {(NAME,): 10}
