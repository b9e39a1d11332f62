"""When the lake is read for the live path: where it has changed, or rows are asked for; else it is left alone."""

from __future__ import annotations

import time
from datetime import date

import polars as pl
import pytest

from quantlytic_assets.live.graph_watch import Graph, GraphWatch, Since
from quantlytic_tests.storage.places import opened

SINCE = Since(date(2025, 5, 10), {})


class Reader:
    """What was asked for at each reading."""

    def __init__(self):
        self.asked: list[dict] = []

    def read(self, since: Since, again: dict) -> Graph:
        self.asked.append(again)
        return Graph(pl.DataFrame())


class Lake:
    """The snapshot's number of a real lake, and how often it was looked at."""

    def __init__(self, lake):
        self._lake = lake
        self.looks = 0

    def snapshot(self) -> int:
        self.looks += 1
        return self._lake.snapshot()


@pytest.fixture
def watched(tmp_path):
    with opened("embedded", tmp_path) as place:
        reader, lake = Reader(), Lake(place.resources.lake)
        watch = GraphWatch(reader, lake, 0.01, pytest.fail)
        watch.start()
        yield watch, reader, lake, place.resources.lake
        watch.stop()


def let_look(watch: GraphWatch, lake: Lake) -> None:
    """Wait until it has looked at the snapshot again and read what it wanted then, taking what it has found.

    The first look from here may have begun before what is asked for; that the second has read, the third shows.
    """
    until = lake.looks + 3
    while lake.looks < until:
        watch.take()
        time.sleep(0.005)


def test_a_lake_that_has_not_changed_is_not_read_again_unless_a_row_is_asked_for(watched):
    watch, reader, lake, real = watched
    watch.look(SINCE, {})
    let_look(watch, lake)
    assert reader.asked == [{}]
    # As the live path does every few seconds, whether a bar was revised or not.
    watch.look(SINCE, {"": set()})
    let_look(watch, lake)
    assert reader.asked == [{}]
    watch.look(SINCE, {"": {("A-USD", 1)}})
    let_look(watch, lake)
    assert reader.asked == [{}, {"": {("A-USD", 1)}}]
    real.connect().execute("CREATE TABLE lake.clean.another (i INTEGER)")
    let_look(watch, lake)
    assert reader.asked == [{}, {"": {("A-USD", 1)}}, {}]
