"""The hot store: blocks of rows, facts, the journal, and what a transaction keeps together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from datetime import date
from multiprocessing.synchronize import Event
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantlytic_assets.serving.hot_store import HotStore, HotStoreError
from quantlytic_assets.serving.rows import Block, iso, micros, row
from quantlytic_tests.storage.processes import context

MINUTE = 60_000_000
START = micros("2026-01-02T14:30:00Z")
DAY = date(2026, 1, 2)


def bar(time: int, close: float = 1.5) -> tuple[int, bytes]:
    return time, row(time, {"o": 1.0, "h": 2.0, "l": 0.5, "c": close, "v": 10.0, "n": None, "vw": float("nan")})


def test_a_row_has_its_time_first_and_leaves_out_what_is_not_known():
    assert bar(START)[1] == b'{"t":"2026-01-02T14:30:00Z","o":1.0,"h":2.0,"l":0.5,"c":1.5,"v":10.0}'
    assert iso(START + 1500) == "2026-01-02T14:30:00.001500Z"


@given(st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), max_size=8), max_size=6))
def test_a_block_has_each_time_once_in_order_with_what_came_last(batches):
    block, expected = Block(0, -1, b""), {}
    for batch in batches:
        rows = dict(bar(START + minute * MINUTE, float(close)) for minute, close in batch)
        block = block.with_rows(rows.items())
        expected.update(rows)
    assert list(block) == sorted(expected.items())
    assert (block.count, block.last) == (len(expected), max(expected, default=-1))
    assert list(Block.unpacked(block.packed())) == list(block)
    first, last = START + 5 * MINUTE, START + 20 * MINUTE
    assert list(block.between(first, last)) == [one for one in sorted(expected.items()) if first <= one[0] < last]


@pytest.fixture
def store(tmp_path: Path):
    made = HotStore(tmp_path / "hot")
    yield made
    made.close()


def test_sessions_are_found_by_dataset_kind_and_symbol(store: HotStore):
    with store.write() as to:
        for symbol in ("A", "AB", "B"):
            for day in (1, 2, 5):
                to.add_rows("d", "bars/1m", symbol, date(2026, 1, day), [bar(START + day)])
        to.add_rows("d", "bars/1m/split", "A", DAY, [bar(START)])
        to.add_rows("e", "bars/1m", "A", DAY, [bar(START)])
    with store.read() as of:
        assert [session.day for session, _ in of.blocks("d", "bars/1m", "A")] == [1, 2, 5]
        assert [session.day for session, _ in of.blocks("d", "bars/1m", "A", date(2026, 1, 2), date(2026, 1, 5))] == [2]
        assert [session.day for session, _ in of.newest_blocks("d", "bars/1m", "A")] == [5, 2, 1]
        assert [session.day for session, _ in of.newest_blocks("d", "bars/1m", "B", date(2026, 1, 5))] == [2, 1]
        assert [session.day for session, _ in of.newest_blocks("e", "bars/1m", "A")] == [2]
        assert list(of.newest_blocks("e", "bars/1m", "Z")) == list(of.blocks("e", "bars/1m", "")) == []
    with store.write() as to:
        assert to.forget_blocks("d", "bars/1m", "A", before=date(2026, 1, 5)) == 2
    with store.read() as of:
        assert [session.day for session, _ in of.blocks("d", "bars/1m", "A")] == [5]
        assert len(list(of.blocks("d", "bars/1m", "AB"))) == 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 400), st.integers(1, 70), st.booleans()), max_size=25))
def test_rows_that_are_added_stand_in_one_block_however_they_came(store: HotStore, batches):
    place, days = ("d", "bars/1m", "A"), [date(2026, 1, 2 + day) for day in range(3)]
    expected: dict[date, dict[int, bytes]] = {}
    with store.write() as to:
        to.forget_blocks(*place)
        for number, (day, first, count, whole) in enumerate(batches):
            rows = dict(bar(START + minute * MINUTE, float(number)) for minute in range(first, first + count))
            session = days[day]
            if whole:
                to.put_block(*place, session, Block.of(list(rows.items())))
                expected[session] = rows
            else:
                to.add_rows(*place, session, rows.items())
                expected[session] = expected.get(session, {}) | rows
    told = {session: sorted(rows.items()) for session, rows in sorted(expected.items())}
    with store.read() as of:
        assert {session: list(block) for session, block in of.blocks(*place)} == told
        found = list(of.newest_blocks(*place))
        assert [session for session, _ in found] == list(told)[::-1]
        assert {session: list(block) for session, block in found} == told
        for session, rows in told.items():
            block = of.block(*place, session)
            assert (list(block), block.count, block.last) == (rows, len(rows), rows[-1][0])
        assert of.kinds("d") == ({"bars/1m": ["A"]} if told else {})
    with store.write() as to:
        assert to.forget_blocks(*place) == len(told)
        assert (list(to.blocks(*place)), to.kinds("d")) == ([], {})


def test_a_session_is_not_written_anew_with_each_row_that_comes(store: HotStore):
    # Rows of a day come minute by minute: the bytes that are written grow with the day, not with its square.
    written = []
    with store.write() as to:
        put, to._put = to._put, lambda database, key, value: (written.append(len(value)), put(database, key, value))
        for minute in range(1440):
            to.add_rows("d", "bars/1m", "A", DAY, [bar(START + minute * MINUTE)])
        whole = len(to.block("d", "bars/1m", "A", DAY).packed())
    assert sum(written) < 50 * whole


def test_the_journal_goes_on_and_forgets_its_oldest(store: HotStore):
    with store.read() as of:
        assert (of.sequence, of.oldest_sequence, of.journal(0)) == (0, 1, [])
    with store.write() as to:
        numbers = [to.tell(("bars", "d", "1m", "A"), orjson.dumps({"at": at}), keep=500) for at in range(3000)]
    assert numbers == list(range(1, 3001))
    with store.read() as of:
        assert (of.sequence, of.oldest_sequence) == (3000, 2501)
        entries = of.journal(2990, most=4)
        assert [one.sequence for one in entries] == [2991, 2992, 2993, 2994]
        assert entries[0].channel == ("bars", "d", "1m", "A")
        assert orjson.loads(entries[0].body) == {"at": 2990}
        assert len(of.epoch) == 12


def test_facts_and_state(store: HotStore):
    with store.write() as to:
        to.put_fact(b"1", "positions", "cross_1d", "A")
        to.put_fact(b"2", "positions", "cross_1d", "B")
        to.put_fact(b"3", "positions", "cross_1d_2", "A")
        to.put_state(b"x", "live", "d")
        to.put_latest("d", "A", b"{}")
        with pytest.raises(ValueError, match="zero byte"):
            to.put_fact(b"", "a\0b")
    with store.read() as of:
        assert list(of.facts("positions", "cross_1d")) == [(("A",), b"1"), (("B",), b"2")]
        assert (of.fact("positions", "none"), of.state("live", "d"), of.latest("d", "A")) == (None, b"x", b"{}")
    with store.write() as to:
        to.delete_fact("positions", "cross_1d", "A")
    with store.read() as of:
        assert list(of.facts("positions", "cross_1d")) == [(("B",), b"2")]


def test_a_block_that_raises_leaves_nothing(store: HotStore):
    with pytest.raises(RuntimeError), store.write() as to:
        to.put_fact(b"1", "a")
        to.tell(("a",), b"1")
        raise RuntimeError
    with store.read() as of:
        assert (of.fact("a"), of.sequence) == (None, 0)


def _write_and_die(path: Path) -> None:
    store = HotStore(path)
    with store.write() as to:
        to.put_fact(b"kept", "first")
    with store.write() as to:
        to.put_fact(b"lost", "second")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_writer_leaves_whole_transactions_and_lets_others_in(tmp_path: Path):
    child = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(tmp_path / "hot",))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    store = HotStore(tmp_path / "hot")
    with store.write() as to:
        to.put_fact(b"on", "third")
    with store.read() as of:
        assert (of.fact("first"), of.fact("second"), of.fact("third")) == (b"kept", None, b"on")
    store.close()


def test_a_reader_is_told_what_to_do_where_there_is_no_store(tmp_path: Path):
    with pytest.raises(HotStoreError, match="quantlytic publish"):
        HotStore(tmp_path / "none", readonly=True)


def _write_until_told(path: Path, begun: Event, told: Event) -> None:
    with HotStore(path).write() as to:
        to.put_fact(b"1", "first")
        begun.set()
        # Who waits for this transaction says so from another thread, which must not wait as well.
        assert told.wait(60)


def test_who_opens_the_store_while_another_process_writes_stops_no_thread(tmp_path: Path):
    forked = context()
    begun, told = forked.Event(), forked.Event()
    writer = forked.Process(target=_write_until_told, args=(tmp_path / "hot", begun, told))
    writer.start()
    assert begun.wait(60)
    found: list[bytes | None] = []

    def open_and_read() -> None:
        with HotStore(tmp_path / "hot").write() as to:
            found.append(to.fact("first"))

    opener = threading.Thread(target=open_and_read)
    opener.start()
    time.sleep(0.2)
    told.set()
    opener.join(60)
    writer.join(60)
    assert (found, writer.exitcode) == ([b"1"], 0)


def test_who_opens_the_store_while_a_thread_of_the_same_process_writes_does_not_wait(store: HotStore):
    with store.write() as to:
        opener = threading.Thread(target=HotStore, args=(store.path,))
        opener.start()
        opener.join(60)
        assert not opener.is_alive()
        to.put_fact(b"1", "first")
