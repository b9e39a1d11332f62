"""What is notified, and when again: turn by turn, each memory going through the cursor."""

from quantlytic_assets.automation.alert_plan import Alert, Notified, delivered, due, take_in

STALE = Alert("stale:a", "a is stale", "look", "bars again")
HOLES = Alert("holes:a:2025-03-06", "holes", "which", "complete")
FAILED = Alert("run:1", "job failed", "see the UI")


def turn(notified, alerts, now, count=2, left=None):
    """The messages of one turn, the memory after it, and what was given up."""
    notified = Notified.from_json(take_in(notified, alerts, count).to_json())
    sending = due(notified, now)
    notified, given_up = delivered(notified, left or {}, now)
    return [(one.title, one.body, one.to) for one in sending], Notified.from_json(notified.to_json()), given_up


def test_an_alert_is_told_once_and_once_more_when_it_is_mended():
    sent, notified, _ = turn(Notified(), [STALE], 0)
    assert sent == [("a is stale", "look", (1, 2))]
    sent, notified, _ = turn(notified, [STALE, HOLES], 60)
    assert sent == [("holes", "which", (1, 2))]
    sent, notified, _ = turn(notified, [HOLES], 120)
    assert sent == [("a is stale: mended", "bars again", (1, 2))]
    sent, notified, _ = turn(notified, [HOLES], 180)
    assert sent == []
    assert turn(notified, [STALE, HOLES], 240)[0] == [("a is stale", "look", (1, 2))]


def test_an_event_is_told_once_and_never_mended():
    sent, notified, _ = turn(Notified(), [FAILED], 0)
    assert sent == [("job failed", "see the UI", (1, 2))]
    assert turn(notified, [], 60)[0] == [] and notified.standing == {}


def test_who_did_not_take_it_gets_it_later_after_growing_waits():
    sent, notified, _ = turn(Notified(), [STALE], 0, left={0: (2,)})
    now = 0
    for wait in (60, 120, 240):
        assert turn(notified, [STALE], now + wait - 1)[0] == []
        now += wait
        sent, notified, _ = turn(notified, [STALE], now, left={0: (2,)})
        assert sent == [("a is stale", "look", (2,))]
    # What is new goes out at once, and what was mended meanwhile is told after what was wrong.
    sent, notified, _ = turn(notified, [HOLES], now + 1)
    assert [title for title, _, _ in sent] == ["holes", "a is stale: mended"]
    sent, notified, _ = turn(notified, [HOLES], now + 5_000)
    assert sent == [("a is stale", "look", (2,))]
    assert notified.waiting == ()


def test_many_at_one_turn_are_one_message():
    many = [Alert(f"holes:a:{i}", f"session {i}", "lacks bars", "complete") for i in range(30)]
    sent, notified, _ = turn(Notified(), many, 0)
    ((title, body, _),) = sent
    assert title == "30 alerts" and body.splitlines()[29] == "session 29. lacks bars"
    assert len(notified.standing) == 30
    assert turn(notified, [], 60)[0][0][0] == "30 alerts"


def test_messages_for_an_address_that_never_answers_are_given_up_at_last_and_named():
    notified, lost = Notified(), []
    for i in range(210):
        one = Alert(f"run:{i}", f"run {i}", "failed")
        _, notified, given_up = turn(notified, [one], float(i), left=dict.fromkeys(range(300), (2,)))
        lost += given_up
    assert len(notified.waiting) == 200 and len(lost) == 10 and {one.to for one in lost} == {(2,)}


def test_an_empty_cursor_is_nothing_told_yet():
    assert Notified.from_json(None) == Notified.from_json("") == Notified()
    assert Notified.from_json(Notified(runs_until=5.5).to_json()) == Notified(runs_until=5.5)
