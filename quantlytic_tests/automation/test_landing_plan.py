"""What the bus sensor asks for, turn by turn."""

import json

from quantlytic_assets.automation.landing_plan import Asked, Request, Wait, next_request

LIFE = "bars.d"


def ask(asked, landed, ends, batch=100, now=1_000.0, life=LIFE):
    request, asked = next_request(asked, life, landed, ends, batch, now)
    # Every turn's memory goes through the cursor.
    return request, Asked.from_json(asked.to_json())


def test_nothing_published_asks_for_nothing():
    request, asked = ask(Asked(), {0: 0}, {0: 0})
    assert request is None and asked.seen == {0: 0}


def test_all_bus_partitions_with_something_new_are_one_request():
    request, _ = ask(Asked(), {0: 5, 1: 7, 2: 9}, {0: 8, 1: 7, 2: 10})
    assert request.ranges == {0: (5, 8), 2: (9, 10)}
    assert request.key == f"{LIFE}:0:5-8,2:9-10"


def test_a_backlog_is_taken_in_batches_without_gap_or_overlap():
    asked, landed, taken = Asked(), {0: 0}, []
    while (turn := ask(asked, landed, {0: 250}))[0]:
        request, asked = turn
        taken.append(request.ranges[0])
        landed = {0: request.ranges[0][1]}
    assert taken == [(0, 100), (100, 200), (200, 250)]


def test_what_others_have_landed_is_not_asked_for():
    request, _ = ask(Asked(life=LIFE, through={0: 10}), {0: 30}, {0: 40})
    assert request.ranges == {0: (30, 40)}


def test_a_range_whose_run_failed_is_asked_for_again_ever_later_under_a_new_key():
    first, asked = ask(Asked(), {0: 0}, {0: 10}, now=0.0)
    keys, moments, now = [first.key], [], 0.0
    while len(moments) < 8:
        now += 1
        request, asked = ask(asked, {0: 0}, {0: 10}, now=now)
        if isinstance(request, Request):
            assert request.ranges == {0: (0, 10)}
            keys.append(request.key)
            moments.append(now)
    assert len(set(keys)) == len(keys)
    waits = [later - sooner for sooner, later in zip([0.0, *moments], moments, strict=False)]
    assert waits == [15, 30, 60, 120, 240, 300, 300, 300]


def test_new_records_do_not_cut_the_wait_short_and_come_along():
    _, asked = ask(Asked(), {0: 0}, {0: 10}, now=0.0)
    request, asked = ask(asked, {0: 0}, {0: 12}, now=5.0)
    assert request == Wait(records=12, seconds=10.0)
    request, _ = ask(asked, {0: 0}, {0: 13}, now=15.0)
    assert request.ranges == {0: (0, 13)}


def test_a_success_after_failures_starts_the_count_anew():
    _, asked = ask(Asked(), {0: 0}, {0: 10}, now=0.0)
    _, asked = ask(asked, {0: 0}, {0: 10}, now=15.0)
    assert asked.tries == 1
    request, asked = ask(asked, {0: 10}, {0: 11}, now=20.0)
    assert request.ranges == {0: (10, 11)} and "#" not in request.key and asked.tries == 0


def test_another_life_of_the_topic_starts_with_nothing_asked():
    _, asked = ask(Asked(), {0: 0}, {0: 500}, now=0.0)
    request, asked = ask(asked, {0: 0}, {0: 3}, now=1.0, life=f"{LIFE}@1")
    assert request.ranges == {0: (0, 3)} and request.key.startswith(f"{LIFE}@1:")
    assert asked.life == f"{LIFE}@1"


def test_a_cursor_of_another_version_is_no_cursor():
    for cursor in (None, "", json.dumps({"0": 17}), json.dumps({})):
        assert Asked.from_json(cursor) == Asked()
