"""The record of a batch: all that follows from it comes back, and it stays until it is written and published."""

from __future__ import annotations

from datetime import date
from math import isnan

import pytest

from quantlytic_assets.live import batches, publishing
from quantlytic_assets.live.bars import Bar, Revised
from quantlytic_assets.live.deciding import Said
from quantlytic_assets.live.lines import Row
from quantlytic_assets.live.pipeline import Made
from quantlytic_assets.live.state import LiveState
from quantlytic_assets.live.write_behind import WriteBehind
from quantlytic_assets.serving.hot_store import HotStore
from quantlytic_tests.live.test_minutes import DATASET, START

NAN = float("nan")
DAY = date(2025, 5, 10)


@pytest.fixture
def hot(tmp_path):
    store = HotStore(tmp_path / "hot")
    yield store
    store.close()


def made(minute: int = 0) -> Made:
    time = START + minute * 60_000_000
    one = Bar("BTC-USD", DAY, time, time + 1, time + 2, 0.1, 1e-9, 1 / 3, 1e22, 5.0, 2.5, 7, True, False)
    other = Bar("Ä-USD", DAY, time, time + 1, time + 2, 1.0, 2.0, 3.0, 4.0, 0.0)
    found = Made()
    found.bars = {"1m": [Revised(one, 0, "ticks.d:0:1"), Revised(other, 3, "graph")], "5m": [Revised(one, 1, "")]}
    found.rows = {"1m": [(Row(one, (1.5, 0.1 + 0.2)), "ticks.d:0:1"), (Row(other, (2.0, -0.0)), "")]}
    found.signals = [
        (Said("a", "BTC-USD", DAY, time, time + 2, "hold", 0.0, None, "sma(5) is „known“ not", 0), "1m", "ticks.d:0:1"),
        (Said("b", "BTC-USD", DAY, time, time + 2, "buy", 1 / 3, 0.5, "", 2), "1m", "graph"),
    ]
    found.untraded = [("C", time)]
    found.forgotten = [("1m", "BTC-USD", time - 1)]
    found.moved = [("1m", "BTC-USD", time, (time, (1.0, 2.0))), ("5m", "C", time, None)]
    found.late, found.revised = 1, 2
    return found


def test_what_is_kept_comes_back_of_the_same_types():
    found, wanted = batches.unpacked(batches.packed(made())), made()
    wanted.late = wanted.revised = 0
    assert found == wanted and repr(found) == repr(wanted)
    assert publishing.bar_messages("d", found) == publishing.bar_messages("d", wanted)
    assert publishing.signal_messages("d", found) == publishing.signal_messages("d", wanted)
    assert batches.unpacked(batches.packed(Made())) == Made()


def test_a_feature_that_is_not_defined_is_so_when_it_comes_back():
    one = made()
    one.rows["1m"][0] = (Row(one.bars["1m"][0].bar, (NAN, 1.0)), "")
    one.moved = [("1m", "C", 5, (4, (NAN,)))]
    found = batches.unpacked(batches.packed(one))
    first, second = found.rows["1m"][0][0].values
    assert isnan(first) and second == 1.0 and isnan(found.moved[0][3][1][0])


def behind(state: LiveState) -> WriteBehind:
    return WriteBehind(state, DATASET, {"1m": ("sma_20", "rsi_14")})


def numbers(hot: HotStore, state: LiveState) -> list[int]:
    with hot.read() as reader:
        return [number for number, _ in state.batches(reader)]


def test_a_record_stays_until_it_is_written_and_the_bus_has_it(hot):
    state = LiveState(DATASET.name, "1")
    one = behind(state)
    with hot.write() as writer:
        for minute in range(4):
            one.keep(writer, made(minute))
        one.keep(writer, Made())
        one.forget(writer, 3)
    assert one.next == len(one) == 4 and numbers(hot, state) == [0, 1, 2, 3]
    with hot.write() as writer:
        one.write(writer)
        one.forget(writer, 1)
    assert len(one) == 0 and numbers(hot, state) == [1, 2, 3]
    with hot.write() as writer:
        one.keep(writer, made(4))
        one.forget(writer, 5)
    assert numbers(hot, state) == [4]


def test_a_process_that_goes_on_writes_each_batch_once(hot):
    state = LiveState(DATASET.name, "1")
    one = behind(state)
    with hot.write() as writer:
        for minute in range(2):
            one.keep(writer, made(minute))
        one.write(writer)
        one.keep(writer, made(2))
    with hot.read() as reader:
        told = reader.sequence
    for _ in range(2):
        again = behind(state)
        with hot.write() as writer:
            waiting = again.take_up(writer)
        # All of them may lack on the bus; one was not written.
        assert [list(dict(batch.bars)["1m"])[0].bar.open_time for batch in waiting] == [
            START + minute * 60_000_000 for minute in range(3)
        ]
        with hot.read() as reader:
            assert reader.sequence == told + told // 2 and state.written(reader) == again.next == 3
    with hot.write() as writer:
        again.forget(writer, again.next)
    assert numbers(hot, state) == []
