"""What every bus promises, tried on each implementation."""

import json
import time
from collections import Counter

import pytest

from quantlytic_assets.storage.bus import DEAD_LETTERS, LocalBus, bars_topic
from quantlytic_tests.storage.processes import HEADERS, publish_forever, publish_many, start, together

TOPIC = bars_topic("sample_set")


@pytest.fixture(params=["local"])
def bus(request, tmp_path):
    """An empty bus of each implementation."""
    return {"local": lambda: LocalBus(tmp_path / "bus")}[request.param]()


def publish(bus, *values, topic=TOPIC):
    bus.publish(topic, [value.encode() for value in values], list(values), HEADERS)


class TestEveryBus:
    """The contract between whoever publishes, the sensor and the landing code."""

    def test_offsets_are_dense_from_zero_and_never_change_their_record(self, bus):
        publish(bus, "a", "b")
        publish(bus, "c")
        ((partition, (first, last)),) = bus.watermarks(TOPIC).items()
        assert (first, last) == (0, 3)
        records = bus.read(TOPIC, partition, 0, 3)
        assert records.offsets == [0, 1, 2]
        assert records.values == [b"a", b"b", b"c"]
        assert records.keys == ["a", "b", "c"]
        assert [json.loads(header) for header in records.headers] == [HEADERS] * 3
        publish(bus, "d")
        assert bus.read(TOPIC, partition, 0, 3) == records
        assert len(bus.read(TOPIC, partition, 1, 4)) == 3

    def test_any_bytes_come_back(self, bus):
        values = [b"", b"\x00\xff", "é😀".encode(), b"x" * 1_000_000]
        bus.publish(TOPIC, values, ["k"] * 4, HEADERS)
        assert bus.read(TOPIC, 0, 0, 4).values == values

    def test_an_unknown_topic_has_no_watermarks(self, bus):
        assert bus.watermarks(TOPIC) == {}
        publish(bus, "a", topic=DEAD_LETTERS)
        assert bus.watermarks(TOPIC) == {}

    def test_publishing_nothing_leaves_nothing(self, bus):
        bus.publish(TOPIC, [], [], HEADERS)
        assert bus.watermarks(TOPIC) == {}

    def test_topics_count_by_themselves(self, bus):
        publish(bus, "a", "b")
        publish(bus, "z", topic=DEAD_LETTERS)
        assert bus.watermarks(TOPIC) == {0: (0, 2)}
        assert bus.watermarks(DEAD_LETTERS) == {0: (0, 1)}

    def test_an_empty_range_reads_as_nothing(self, bus):
        publish(bus, "a")
        assert len(bus.read(TOPIC, 0, 1, 1)) == 0

    @pytest.mark.parametrize(("partition", "first", "last"), [(0, 0, 4), (0, 3, 5), (0, 90, 91), (7, 0, 1)])
    def test_a_range_that_is_not_there_raises(self, bus, partition, first, last):
        publish(bus, "a", "b", "c")
        with pytest.raises(LookupError):
            bus.read(TOPIC, partition, first, last)

    def test_an_unknown_topic_cannot_be_read(self, bus):
        with pytest.raises(LookupError):
            bus.read(TOPIC, 0, 0, 1)

    def test_a_record_without_its_key_is_refused_with_all_of_its_batch(self, bus):
        publish(bus, "a")
        with pytest.raises(ValueError, match="zip"):
            bus.publish(TOPIC, [b"b", b"c"], ["b"], HEADERS)
        assert bus.watermarks(TOPIC) == {0: (0, 1)}


def test_publishers_in_several_processes_lose_and_duplicate_nothing(tmp_path):
    together(publish_many, [(tmp_path / "bus", TOPIC, name, 25, 20) for name in ("p", "q", "r", "s")])
    bus = LocalBus(tmp_path / "bus")
    assert bus.watermarks(TOPIC) == {0: (0, 2_000)}
    values = [value.decode() for value in bus.read(TOPIC, 0, 0, 2_000).values]
    assert Counter(values) == Counter(f"{n}:{b}:{i}" for n in "pqrs" for b in range(25) for i in range(20))
    # A batch stays together, and a publisher's batches stay in order.
    batches = [value.rsplit(":", 1)[0] for value in values[::20]]
    assert [value.rsplit(":", 1)[0] for value in values] == [batch for batch in batches for _ in range(20)]
    for name in "pqrs":
        assert [batch for batch in batches if batch.startswith(name)] == [f"{name}:{b}" for b in range(25)]


def test_the_first_publishers_of_a_topic_may_come_at_once(tmp_path):
    for attempt in range(25):
        together(publish_many, [(tmp_path / str(attempt), TOPIC, name, 1, 3) for name in ("p", "q", "r", "s")])
        assert LocalBus(tmp_path / str(attempt)).watermarks(TOPIC) == {0: (0, 12)}


def test_a_publisher_that_is_killed_leaves_all_of_a_batch_or_none_of_it(tmp_path):
    bus = LocalBus(tmp_path / "bus")
    size = 500
    for attempt in range(8):
        process = start(publish_forever, tmp_path / "bus", TOPIC, size)
        before = bus.watermarks(TOPIC).get(0, (0, 0))[1]
        deadline = time.monotonic() + 60
        while bus.watermarks(TOPIC).get(0, (0, 0))[1] < before + 3 * size and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(0.0037 * attempt)
        process.kill()
        process.join()
        end = bus.watermarks(TOPIC)[0][1]
        assert end >= before + 3 * size and end % size == 0
    values = [value.decode().rsplit(":", 1) for value in bus.read(TOPIC, 0, 0, end).values]
    assert [int(i) for _, i in values] == list(range(size)) * (end // size)
    assert len({batch for batch, _ in values}) == end // size
    # And it goes on counting for the next one.
    publish(bus, "after")
    assert bus.watermarks(TOPIC) == {0: (0, end + 1)}


def test_reading_never_changes_what_is_on_disk(tmp_path):
    bus = LocalBus(tmp_path / "bus")
    publish(bus, "a", "b")
    before = {path.name: path.read_bytes() for path in (tmp_path / "bus").iterdir()}
    bus.watermarks(TOPIC)
    bus.read(TOPIC, 0, 0, 2)
    bus.watermarks("unknown")
    assert {path.name: path.read_bytes() for path in (tmp_path / "bus").iterdir()} == before
