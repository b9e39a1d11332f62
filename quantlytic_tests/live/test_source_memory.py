"""What a source remembers: whole now and then, changes in between, and taken up as it was at the last transaction."""

from __future__ import annotations

import pytest

from quantlytic_assets.live.source_memory import SourceMemory
from quantlytic_assets.live.sources import BarSource, TickSource
from quantlytic_assets.live.state import LiveState
from quantlytic_assets.market_data.stream.messages import MINUTE
from quantlytic_assets.serving.hot_store import HotStore
from quantlytic_tests.live.test_minutes import DATASET, START, records, trades


@pytest.fixture
def hot(tmp_path):
    store = HotStore(tmp_path / "hot")
    yield store
    store.close()


@pytest.fixture
def state():
    return LiveState(DATASET.name, "1")


def kept(hot: HotStore, state: LiveState) -> tuple[bytes | None, int]:
    """All of it as it was written last, and how many changes were written since."""
    with hot.read() as reader:
        return state.minutes(reader), len(state.changes_of_minutes(reader))


def test_all_of_it_is_written_first_and_again_when_no_signal_waits(hot, state):
    source = TickSource(DATASET, {})
    memory = SourceMemory(state, source)
    stream = trades(600, 3)
    found = []
    for number in range(40):
        source.take({0: records(stream[15 * number : 15 * number + 15], 15 * number)})
        with hot.write() as writer:
            memory.keep(writer, waited_for=5 <= number < 30)
        found.append(kept(hot, state))
    # 20 changes would be enough at 20; signals wait until 30.
    assert [count for _, count in found] == [*range(30), 0, *range(1, 10)]
    assert len({whole for whole, _ in found}) == 2
    again = TickSource(DATASET, {})
    with hot.read() as reader:
        SourceMemory(state, again).take_up(reader)
    end = START + 30 * MINUTE
    assert again.idle(end) == source.idle(end) and source.idle(end).newest > START
    assert again.take({0: records(stream, 600)}).counts["twice"] == 600


def test_changes_come_to_an_end_though_signals_always_wait(hot, state):
    source = TickSource(DATASET, {})
    memory = SourceMemory(state, source)
    counts = []
    with hot.write() as writer:
        for _ in range(900):
            memory.keep(writer, waited_for=True)
            counts.append(len(state.changes_of_minutes(writer)))
    assert max(counts) == 400 and counts.count(0) == 3


def test_a_process_that_goes_on_writes_all_of_it_before_changes(hot, state):
    # The second may have other symbols, by whose places its changes go.
    for _ in range(2):
        source = TickSource(DATASET, {})
        memory = SourceMemory(state, source)
        with hot.read() as reader:
            memory.take_up(reader)
        counts = []
        for _ in range(3):
            with hot.write() as writer:
                memory.keep(writer, waited_for=True)
            counts.append(kept(hot, state)[1])
        assert counts == [0, 1, 2]


def test_a_source_without_a_memory_keeps_nothing(hot, state):
    memory = SourceMemory(state, BarSource(DATASET, {}))
    for _ in range(3):
        with hot.write() as writer:
            memory.keep(writer, waited_for=False)
    assert kept(hot, state) == (None, 0)
