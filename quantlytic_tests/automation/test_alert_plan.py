"""What is told, and when again: turn by turn, each memory going through the cursor."""

from quantlytic_assets.automation.alert_plan import Alert, Told, delivered, due, take_in

STALE = Alert("stale:a", "a is stale", "look", "bars again")
HOLES = Alert("holes:a:2025-03-06", "holes", "which", "complete")
FAILED = Alert("run:1", "job failed", "see the UI")


def turn(told, alerts, now, count=2, left=None):
    """The messages of one turn, the memory after it, and what was given up."""
    told = Told.from_json(take_in(told, alerts, count).to_json())
    sending = due(told, now)
    told, given_up = delivered(told, left or {}, now)
    return [(one.title, one.body, one.to) for one in sending], Told.from_json(told.to_json()), given_up


def test_an_alert_is_told_once_and_once_more_when_it_is_mended():
    sent, told, _ = turn(Told(), [STALE], 0)
    assert sent == [("a is stale", "look", (1, 2))]
    sent, told, _ = turn(told, [STALE, HOLES], 60)
    assert sent == [("holes", "which", (1, 2))]
    sent, told, _ = turn(told, [HOLES], 120)
    assert sent == [("a is stale: mended", "bars again", (1, 2))]
    sent, told, _ = turn(told, [HOLES], 180)
    assert sent == []
    assert turn(told, [STALE, HOLES], 240)[0] == [("a is stale", "look", (1, 2))]


def test_an_event_is_told_once_and_never_mended():
    sent, told, _ = turn(Told(), [FAILED], 0)
    assert sent == [("job failed", "see the UI", (1, 2))]
    assert turn(told, [], 60)[0] == [] and told.standing == {}


def test_who_did_not_take_it_gets_it_later_after_growing_waits():
    sent, told, _ = turn(Told(), [STALE], 0, left={0: (2,)})
    now = 0
    for wait in (60, 120, 240):
        assert turn(told, [STALE], now + wait - 1)[0] == []
        now += wait
        sent, told, _ = turn(told, [STALE], now, left={0: (2,)})
        assert sent == [("a is stale", "look", (2,))]
    # What is new goes out at once, and what was mended meanwhile is told after what was wrong.
    sent, told, _ = turn(told, [HOLES], now + 1)
    assert [title for title, _, _ in sent] == ["holes", "a is stale: mended"]
    sent, told, _ = turn(told, [HOLES], now + 5_000)
    assert sent == [("a is stale", "look", (2,))]
    assert told.waiting == ()


def test_many_at_one_turn_are_one_message():
    many = [Alert(f"holes:a:{i}", f"session {i}", "lacks bars", "complete") for i in range(30)]
    sent, told, _ = turn(Told(), many, 0)
    ((title, body, _),) = sent
    assert title == "30 alerts" and body.splitlines()[29] == "session 29. lacks bars"
    assert len(told.standing) == 30
    assert turn(told, [], 60)[0][0][0] == "30 alerts"


def test_messages_for_an_address_that_never_answers_are_given_up_at_last_and_named():
    told, lost = Told(), []
    for i in range(210):
        one = Alert(f"run:{i}", f"run {i}", "failed")
        _, told, given_up = turn(told, [one], float(i), left=dict.fromkeys(range(300), (2,)))
        lost += given_up
    assert len(told.waiting) == 200 and len(lost) == 10 and {one.to for one in lost} == {(2,)}


def test_an_empty_cursor_is_nothing_told_yet():
    assert Told.from_json(None) == Told.from_json("") == Told()
    assert Told.from_json(Told(runs_until=5.5).to_json()) == Told(runs_until=5.5)
