"""What every bus promises, tried on each implementation."""

import json
import threading
import time

import pytest

from quantlytic_assets.storage.bus import DEAD_LETTERS, BusUnavailable, bars_topic, ticks_topic
from quantlytic_assets.storage.confluent_bus import ConfluentBus
from quantlytic_assets.storage.kafka_bus import KafkaBus, KafkaPlace
from quantlytic_tests.storage.places import PROFILES, opened, with_driver
from quantlytic_tests.storage.processes import HEADERS, publish_forever, publish_many, start, together

TOPIC = bars_topic("sample_set")


@pytest.fixture(params=[*PROFILES, "confluent"])
def place(request, tmp_path):
    """A fresh installation of each profile, and on the services with each driver of Kafka."""
    with with_driver(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def bus(place):
    """An empty bus of each implementation."""
    return place.resources.bus


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

    def test_a_topic_that_was_prepared_is_there_and_its_first_record_waits_for_no_topic(self, bus, monkeypatch):
        identity = None
        for _ in range(2):
            bus.prepare(TOPIC)
            assert set(bus.watermarks(TOPIC).values()) == {(0, 0)}
            assert identity in (None, bus.identity(TOPIC))
            identity = bus.identity(TOPIC)
        asked = []
        monkeypatch.setattr(bus, "create", asked.append)
        publish(bus, "a")
        assert asked == [] and bus.watermarks(TOPIC)[0] == (0, 1)

    def test_what_is_sent_is_there_in_order_once_it_was_waited_for(self, bus):
        sent = [
            bus.send(topic, [f"{number}".encode() for number in range(first, first + 50)], ["k"] * 50, HEADERS)
            for first in range(0, 500, 50)
            for topic in (TOPIC, DEAD_LETTERS)
        ]
        sent.append(bus.send(TOPIC, [], [], HEADERS))
        with pytest.raises(ValueError, match="2 values with 1 keys"):
            bus.send(TOPIC, [b"a", b"b"], ["a"], HEADERS)
        deadline = time.monotonic() + 30
        while not all(one.done() for one in sent):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for one in sent:
            one.wait()
        for topic in (TOPIC, DEAD_LETTERS):
            assert bus.read(topic, 0, 0, 500).values == [f"{number}".encode() for number in range(500)]

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

    def test_a_record_without_its_key_is_rejected_with_all_of_its_batch(self, bus):
        publish(bus, "a")
        with pytest.raises(ValueError, match="2 values with 1 keys"):
            bus.publish(TOPIC, [b"b", b"c"], ["b"], HEADERS)
        assert bus.watermarks(TOPIC) == {0: (0, 1)}

    def test_a_topic_can_be_made_before_anything_is_published(self, bus):
        assert bus.identity(TOPIC) is None
        bus.create(TOPIC)
        assert bus.watermarks(TOPIC) == {0: (0, 0)}
        identity = bus.identity(TOPIC)
        bus.create(TOPIC)
        publish(bus, "a")
        assert bus.identity(TOPIC) == identity
        assert bus.watermarks(TOPIC) == {0: (0, 1)}

    def test_a_topic_that_was_deleted_and_made_anew_is_another_one(self, place, bus):
        publish(bus, "a", "b")
        publish(bus, "z", topic=DEAD_LETTERS)
        first, other = bus.identity(TOPIC), bus.identity(DEAD_LETTERS)
        assert first != other
        place.delete_topic(TOPIC)
        wait_until(lambda: bus.identity(TOPIC) is None)
        assert bus.watermarks(TOPIC) == {}
        publish(bus, "c")
        assert bus.identity(TOPIC) not in (None, first)
        assert bus.identity(DEAD_LETTERS) == other
        assert bus.watermarks(TOPIC) == {0: (0, 1)}
        assert bus.read(TOPIC, 0, 0, 1).values == [b"c"]

    def test_what_was_fetched_of_a_topic_is_not_read_from_the_one_that_replaced_it(self, place, bus):
        publish(bus, *"abcdef")
        assert bus.read(TOPIC, 0, 0, 2).values == [b"a", b"b"]
        place.delete_topic(TOPIC)
        wait_until(lambda: bus.identity(TOPIC) is None)
        publish(bus, *"uvwxyz")
        assert bus.read(TOPIC, 0, 2, 4).values == [b"w", b"x"]

    def test_reads_in_any_order_give_what_they_are_asked_for(self, bus):
        publish(bus, *"abcdefgh")
        publish(bus, *"zyx", topic=DEAD_LETTERS)
        for topic, first, last, values in (
            (TOPIC, 0, 3, "abc"), (TOPIC, 3, 5, "de"), (TOPIC, 1, 3, "bc"), (TOPIC, 3, 4, "d"), (TOPIC, 6, 8, "gh"),
            (DEAD_LETTERS, 0, 1, "z"), (DEAD_LETTERS, 1, 3, "yx"), (TOPIC, 3, 6, "def"), (TOPIC, 0, 8, "abcdefgh"),
        ):  # fmt: skip
            assert bus.read(topic, 0, first, last).values == [value.encode() for value in values]

    def test_records_that_retention_has_dropped_are_said_not_to_be_there(self, place, bus):
        publish(bus, *"abcdef")
        place.delete_records(TOPIC, 4)
        assert bus.watermarks(TOPIC) == {0: (4, 6)}
        assert bus.read(TOPIC, 0, 4, 6).values == [b"e", b"f"]
        for first in (0, 3):
            with pytest.raises(LookupError):
                bus.read(TOPIC, 0, first, 6)

    def test_equal_headers_are_one_object(self, bus):
        publish(bus, "a", "b")
        bus.publish(TOPIC, [b"c"], ["c"], {"schema": "other"})
        one, two, three = bus.read(TOPIC, 0, 0, 3).headers
        assert one is two and three != one

    def test_a_tail_gives_what_is_new_and_waits_for_it(self, bus):
        bus.create(TOPIC)
        assert bus.tail(TOPIC, {0: 0}, 0) == {}
        publish(bus, "a", "b", "c")
        assert bus.tail(TOPIC, {0: 0}, 10)[0].values == [b"a", b"b", b"c"]
        assert bus.tail(TOPIC, {0: 3}, 0.05) == {}
        later = threading.Timer(0.2, lambda: publish(bus, "d"))
        later.start()
        records = bus.tail(TOPIC, {0: 3}, 20)[0]
        assert (records.offsets, records.values, records.keys) == ([3], [b"d"], ["d"])
        later.join()
        # It goes where it is sent, not on from where it was.
        assert bus.tail(TOPIC, {0: 1}, 10)[0].values[0] == b"b"
        assert bus.tail(TOPIC, {}, 0) == {}

    def test_a_tail_says_when_what_it_wants_is_gone(self, place, bus):
        publish(bus, *"abcdef")
        place.delete_records(TOPIC, 4)
        with pytest.raises(LookupError):
            bus.tail(TOPIC, {0: 2}, 10)
        assert bus.tail(TOPIC, {0: 4}, 10)[0].values == [b"e", b"f"]
        with_more = bus.tail(TOPIC, {0: 4}, 10)[0]
        without = bus.tail(TOPIC, {0: 4}, 10, only_values=True)[0]
        assert (without.offsets, without.values) == (with_more.offsets, with_more.values)
        assert len(without.keys) == len(without.headers) == 2 and with_more.headers[0]

    def test_a_record_may_have_no_key(self, bus):
        bus.publish(TOPIC, [b"a"], [None], HEADERS)
        assert bus.read(TOPIC, 0, 0, 1).keys == [None]


def wait_until(condition):
    """Deleting a topic takes a broker a moment."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_publishers_in_several_processes_lose_and_duplicate_nothing(place):
    together(publish_many, [(place, TOPIC, name, 25, 20) for name in ("p", "q", "r", "s")])
    bus = place.resources.bus
    assert bus.watermarks(TOPIC) == {0: (0, 2_000)}
    values = [value.decode() for value in bus.read(TOPIC, 0, 0, 2_000).values]
    for name in "pqrs":
        mine = [value for value in values if value.startswith(name)]
        assert mine == [f"{name}:{b}:{i}" for b in range(25) for i in range(20)]
    if place.embedded:
        # Here a batch is one transaction.
        batches = [value.rsplit(":", 1)[0] for value in values[::20]]
        assert [value.rsplit(":", 1)[0] for value in values] == [batch for batch in batches for _ in range(20)]


def test_the_first_publishers_of_a_topic_may_come_at_once(place):
    for attempt in range(25 if place.embedded else 4):
        apart = place / f"n{attempt}"
        together(publish_many, [(apart, TOPIC, name, 1, 3) for name in ("p", "q", "r", "s")])
        assert apart.resources.bus.watermarks(TOPIC) == {0: (0, 12)}


def test_a_publisher_that_is_killed_leaves_what_it_sent_once_and_in_order(place):
    bus, size, seen = place.resources.bus, 500, 0
    for attempt in range(8):
        process = start(publish_forever, place, TOPIC, size)
        before = bus.watermarks(TOPIC).get(0, (0, 0))[1]
        wait_until(lambda before=before: bus.watermarks(TOPIC).get(0, (0, 0))[1] >= before + 3 * size)
        time.sleep(0.0037 * attempt)
        process.kill()
        process.join()
        end = bus.watermarks(TOPIC)[0][1]
        values = [value.decode().split(":")[1:] for value in bus.read(TOPIC, 0, seen, end).values]
        assert values == [[str(i // size), str(i % size)] for i in range(len(values))]
        assert end >= before + 3 * size
        if place.embedded:
            # All of a batch or none of it.
            assert end % size == 0
        seen = end
    # And it goes on counting for the next one.
    publish(bus, "after")
    assert bus.watermarks(TOPIC) == {0: (0, end + 1)}


def test_reading_never_changes_what_is_on_disk(tmp_path):
    with opened("embedded", tmp_path) as place:
        bus = place.resources.bus
        publish(bus, "a", "b")
        before = {path.name: path.read_bytes() for path in bus.root.iterdir()}
        bus.watermarks(TOPIC)
        bus.read(TOPIC, 0, 0, 2)
        bus.identity("unknown")
        bus.watermarks("unknown")
        assert {path.name: path.read_bytes() for path in bus.root.iterdir()} == before


class TestKafka:
    """What only a bus of several partitions has, and what is said when there is none."""

    @pytest.fixture(params=["kafka-python", "confluent"])
    def place(self, request, tmp_path):
        with opened("services", tmp_path, kafka_partitions=3, kafka_driver=request.param) as found:
            yield found

    def test_the_drivers_mean_the_same_topic_and_put_a_key_into_the_same_partition(self, place):
        bus = place.resources.bus
        other = (ConfluentBus if isinstance(bus, KafkaBus) else KafkaBus)(bus.place)
        keys = [f"S{i}-USD" for i in range(60)]
        for one in (bus, other):
            one.publish(TOPIC, [b"x"] * len(keys), keys, HEADERS)
        assert bus.identity(TOPIC) == other.identity(TOPIC)
        marks = bus.watermarks(TOPIC)
        assert marks == other.watermarks(TOPIC)
        for partition, (first, last) in marks.items():
            records = bus.read(TOPIC, partition, first, last)
            assert records == other.read(TOPIC, partition, first, last)
            assert all(records.keys.count(key) == 2 for key in records.keys)
        other.close()

    def test_a_tail_follows_all_partitions(self, place):
        bus = place.resources.bus
        keys = [f"S{i % 20}" for i in range(900)]
        bus.publish(TOPIC, [str(i).encode() for i in range(900)], keys, HEADERS)
        marks = bus.watermarks(TOPIC)
        at, found = {partition: first for partition, (first, _) in marks.items()}, []
        while len(found) < 900:
            for partition, records in bus.tail(TOPIC, at, 5, most=100).items():
                assert records.offsets == list(range(at[partition], at[partition] + len(records)))
                at[partition] += len(records)
                found += records.values
        assert sorted(map(int, found)) == list(range(900))
        assert at == {partition: end for partition, (_, end) in marks.items()}
        assert bus.tail(TOPIC, at, 0.1) == {}

    def test_records_of_a_key_keep_their_order_in_one_partition(self, place):
        bus = place.resources.bus
        keys = [f"S{i % 20}" for i in range(2_000)]
        bus.publish(TOPIC, [f"{key}:{i}".encode() for i, key in enumerate(keys)], keys, HEADERS)
        marks = bus.watermarks(TOPIC)
        assert sorted(marks) == [0, 1, 2] and sum(end for _, end in marks.values()) == 2_000
        homes = {}
        for partition, (first, last) in marks.items():
            records = bus.read(TOPIC, partition, first, last)
            for key in set(records.keys):
                assert homes.setdefault(key, partition) == partition
                mine = [int(v.split(b":")[1]) for v, k in zip(records.values, records.keys, strict=True) if k == key]
                assert mine == sorted(mine)
        assert len(homes) == 20 and len(set(homes.values())) == 3

    def test_topics_are_made_with_the_retention_of_their_kind(self, place):
        from kafka.admin import ConfigResource

        bus, hours = place._kafka, {}
        for topic in (TOPIC, ticks_topic("m"), DEAD_LETTERS):
            place.resources.bus.create(topic)
            (found,) = bus._admin.describe_configs([ConfigResource("TOPIC", bus.place.name(topic))]).values()
            hours[topic] = found[bus.place.name(topic)]["retention.ms"]["value"]
        assert {topic: int(ms) for topic, ms in hours.items()} == {
            TOPIC: 168 * 3_600_000,
            ticks_topic("m"): 72 * 3_600_000,
            DEAD_LETTERS: -1,
        }

    @pytest.mark.parametrize("driver", [KafkaBus, ConfluentBus])
    def test_a_bus_that_does_not_answer_says_where_it_was_looked_for(self, monkeypatch, driver):
        monkeypatch.setattr(f"{driver.__module__}._PATIENCE_SECONDS", 1)
        bus = driver(KafkaPlace("127.0.0.1:9"))
        for call in (lambda: bus.watermarks(TOPIC), lambda: publish(bus, "a"), lambda: bus.identity(TOPIC)):
            with pytest.raises(BusUnavailable, match="127.0.0.1:9"):
                call()

    def test_a_topic_is_described_once_however_often_it_is_published_to(self, place, monkeypatch):
        bus, described = place.resources.bus, []
        publish(bus, "a")
        asked = bus._description
        monkeypatch.setattr(bus, "_description", lambda topic: described.append(topic) or asked(topic))
        for value in "bcdefghij":
            publish(bus, value)
        assert described == []
        assert sum(end for _, end in bus.watermarks(TOPIC).values()) == 10

    def test_reading_on_where_the_last_read_ended_fetches_nothing_twice(self, place, monkeypatch):
        bus = place._kafka
        bus.publish(TOPIC, [letter.encode() for letter in "abcdefgh"], ["one"] * 8, HEADERS)
        (partition,) = [partition for partition, (_, end) in bus.watermarks(TOPIC).items() if end]
        sought, seek = [], bus._consumer.seek
        monkeypatch.setattr(bus._consumer, "seek", lambda part, offset: sought.append(offset) or seek(part, offset))
        assert [bus.read(TOPIC, partition, first, first + 2).values[0] for first in (0, 2, 4)] == [b"a", b"c", b"e"]
        assert sought == [0]

    def test_a_topic_deleted_by_somebody_else_is_made_anew_by_the_next_record_and_has_nothing_twice(self, place):
        bus, other = place.resources.bus, KafkaBus(place.resources.bus.place)
        publish(bus, "a", "b")
        before = bus.identity(TOPIC)
        other._admin.delete_topics([other.place.name(TOPIC)])
        # The broker takes records for a moment more, which go with the topic.
        deadline = time.monotonic() + 60
        while other.identity(TOPIC) == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        publish(bus, "c", "d", "e")
        assert bus.identity(TOPIC) != before
        assert sum(end for _, end in bus.watermarks(TOPIC).values()) == 3
        other.close()
