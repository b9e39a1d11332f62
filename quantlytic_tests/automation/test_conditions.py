"""Which partitions follow their upstream by themselves."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from quantlytic_assets.automation.conditions import follow_any_upstream, follow_hourly, follow_upstream

DAYS = dg.DailyPartitionsDefinition("2025-03-01", end_date="2025-03-21")
DAY = "2025-03-12"


class Graph:
    """`above`, `below` that follows it but not `actions`, and `after` that follows `below`; ticks are 10 seconds apart.

    What is in `meanwhile` happens once, while `below` is at work and has read what it is made of.
    """

    def __init__(self, instance: dg.DagsterInstance, condition: dg.AutomationCondition):
        self.instance = instance
        self.meanwhile: list[Callable[[], object]] = []
        self.now = datetime.now(UTC).replace(minute=1)
        self._cursor = None

        @dg.asset(partitions_def=DAYS)
        def above() -> None: ...

        @dg.asset
        def actions() -> None: ...

        but_actions = condition.ignore(dg.AssetSelection.assets(actions))

        @dg.asset(partitions_def=DAYS, deps=[above, actions], automation_condition=but_actions)
        def below() -> None:
            while self.meanwhile:
                self.meanwhile.pop(0)()

        @dg.asset(partitions_def=DAYS, deps=[below], automation_condition=condition)
        def after() -> None: ...

        self.assets = [above, actions, below, after]
        self.definitions = dg.Definitions(assets=self.assets)

    def land(self, *days: str) -> None:
        """New data of `above`, as a landing run tells of it."""
        for day in days or (DAY,):
            self.instance.report_runless_asset_event(dg.AssetMaterialization("above", partition=day))

    def make(self, *names: str, day: str = DAY) -> None:
        """Materialize assets in one run."""
        selection = dg.AssetSelection.assets(*names)
        dg.materialize(self.assets, partition_key=day, instance=self.instance, selection=selection)

    def tick(self, seconds: float = 10) -> dict[str, list[str]]:
        """The partitions that are asked for, by asset."""
        self.now += timedelta(seconds=seconds)
        result = dg.evaluate_automation_conditions(
            self.definitions, self.instance, cursor=self._cursor, evaluation_time=self.now
        )
        self._cursor = result.cursor
        asked = {name: sorted(result.get_requested_partitions(dg.AssetKey(name))) for name in ("below", "after")}
        return {name: days for name, days in asked.items() if days}


@pytest.fixture
def graph(instance) -> Graph:
    """One that has had its first tick, and a day in which all is made."""
    graph = Graph(instance, follow_upstream())
    graph.land()
    graph.make("below", "after")
    assert graph.tick() == {}
    return graph


BOTH = {"below": [DAY], "after": [DAY]}


@pytest.mark.parametrize(
    ("keep", "followed"),
    [(None, ["2025-03-02", "2025-03-12", "2025-03-20"]), (timedelta(days=10), ["2025-03-12", "2025-03-20"])],
)
def test_late_data_of_an_old_session_is_followed_unless_it_has_expired(instance, keep, followed):
    graph = Graph(instance, follow_upstream(keep))
    assert graph.tick() == {}
    graph.land("2025-03-02", "2025-03-12", "2025-03-20")
    assert graph.tick() == {"below": followed, "after": followed}
    assert graph.tick() == {}


def test_what_comes_after_the_request_and_before_its_run_is_read_by_it(graph):
    graph.land()
    assert graph.tick() == BOTH
    graph.land()
    graph.make("below", "after")
    assert graph.tick() == {} and graph.tick() == {}


def test_what_comes_right_after_a_run_that_ended_before_the_next_tick_is_followed(graph):
    graph.land()
    assert graph.tick() == BOTH
    graph.make("below", "after")
    graph.land()
    assert graph.tick() == BOTH
    graph.make("below", "after")
    assert graph.tick() == {}


@pytest.mark.parametrize("ticks_meanwhile", [0, 1, 2])
def test_what_comes_while_the_run_is_at_work_is_followed_once_it_has_ended(graph, ticks_meanwhile):
    graph.land()
    assert graph.tick() == BOTH
    graph.meanwhile = [graph.land, *[lambda: asked.append(graph.tick())] * ticks_meanwhile]
    asked: list[dict] = []
    graph.make("below", "after")
    assert asked == [{}] * ticks_meanwhile
    assert graph.tick() == BOTH
    graph.make("below", "after")
    assert graph.tick() == {}


def test_a_run_of_a_person_that_makes_all_of_a_day_is_not_followed_unless_bars_came_meanwhile(graph):
    graph.make("above", "below", "after")
    assert graph.tick() == {}
    # One after the other, as a backfill in the UI may do it.
    for name in ("above", "below", "after"):
        graph.make(name)
    assert graph.tick() == {}
    graph.meanwhile = [graph.land]
    graph.make("above", "below", "after")
    assert graph.tick() == BOTH


def test_what_came_before_the_sensor_was_switched_on_is_made_once(instance):
    graph = Graph(instance, follow_upstream())
    graph.land("2025-03-02", "2025-03-03", "2025-03-04")
    graph.make("below", "after", day="2025-03-03")
    graph.make("below", "after", day="2025-03-04")
    graph.land("2025-03-03")
    days = ["2025-03-02", "2025-03-03"]
    assert graph.tick() == {"below": days, "after": days}
    assert graph.tick() == {}


def test_what_failed_is_tried_again_once_an_hour(graph):
    def fail() -> None:
        raise RuntimeError("the archive is away")

    graph.land(DAY, "2025-03-13")
    both = {name: [DAY, "2025-03-13"] for name in BOTH}
    assert graph.tick() == both
    for day in both["below"]:
        graph.meanwhile = [fail]
        with pytest.raises(RuntimeError):
            graph.make("below", "after", day=day)
    assert graph.tick() == {} and graph.tick(1800) == {}
    assert graph.tick(3600) == both and graph.tick() == {}
    for day in both["below"]:
        graph.make("below", "after", day=day)
    assert graph.tick(3600) == {}


def test_what_a_run_had_nothing_for_is_not_tried_again(graph):
    graph.land("2025-03-13")
    assert graph.tick() == {name: ["2025-03-13"] for name in BOTH}
    assert graph.tick(3600) == {}


def test_what_has_no_partitions_makes_none_of_them_new(graph):
    dg.materialize(graph.assets, instance=graph.instance, selection="actions")
    assert graph.tick() == {} and graph.tick(3600) == {}


@pytest.mark.parametrize("condition", [follow_any_upstream(), follow_hourly()])
def test_what_sums_up_many_partitions_follows_each_and_forgets_none(instance, condition):
    landed: list[Callable[[], None]] = []

    def land() -> None:
        instance.report_runless_asset_event(dg.AssetMaterialization("above", partition=DAY))

    @dg.asset(partitions_def=DAYS)
    def above() -> None: ...

    @dg.asset(deps=[dg.AssetDep(above, partition_mapping=dg.AllPartitionMapping())], automation_condition=condition)
    def total() -> None:
        while landed:
            landed.pop()()

    definitions, cursor, now = dg.Definitions(assets=[above, total]), None, datetime.now(UTC)

    def tick() -> int:
        nonlocal cursor, now
        now += timedelta(hours=1)
        result = dg.evaluate_automation_conditions(definitions, instance, cursor=cursor, evaluation_time=now)
        cursor = result.cursor
        return result.total_requested

    assert tick() == 0
    land()
    assert tick() == 1
    landed.append(land)
    dg.materialize([above, total], instance=instance, selection="total")
    assert tick() == 1
    dg.materialize([above, total], instance=instance, selection="total")
    assert tick() == 0
