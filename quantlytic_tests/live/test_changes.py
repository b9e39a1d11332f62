"""What a batch changes of the kept state, as one record and in its places."""

from __future__ import annotations

import pytest

from quantlytic_assets.live.changes import Changes
from quantlytic_assets.serving.hot_store import HotStore


@pytest.fixture
def hot(tmp_path):
    store = HotStore(tmp_path / "hot")
    yield store
    store.close()


def changed() -> Changes:
    found = Changes()
    found.put(b"one", "line", "1m", "Ä-USD", "1")
    found.put(bytes(range(256)), "line", "1m", "Ä-USD", "2")
    found.put(b"three", "line", "1m", "Ä-USD", "3")
    found.put(b"other", "line", "1m", "B", "1")
    found.put(b"", "untraded", "B", "7")
    found.delete_before("line", "1m", "Ä-USD", "2")
    found.put(b"again", "line", "1m", "Ä-USD", "3")
    found.delete("untraded", "B", "7")
    found.delete("untraded", "B", "8")
    return found


WANTED = {
    ("line", "1m", "B", "1"): b"other",
    ("line", "1m", "Ä-USD", "2"): bytes(range(256)),
    ("line", "1m", "Ä-USD", "3"): b"again",
}


def test_changes_are_written_in_their_order_and_twice_leaves_what_once_has_left(hot):
    for _ in range(2):
        with hot.write() as writer:
            changed().write(writer, "live", "d")
        with hot.read() as reader:
            assert dict(reader.states("live", "d")) == WANTED


def test_a_record_is_what_was_changed(hot):
    kept = changed().packed()
    found = Changes.unpacked(kept)
    assert len(found) == len(changed()) == 9 and found.packed() == kept
    with hot.write() as writer:
        found.write(writer, "live", "d")
    with hot.read() as reader:
        assert dict(reader.states("live", "d")) == WANTED


def test_no_change_is_an_empty_record():
    assert not Changes() and not Changes.unpacked(Changes().packed())
