"""Halts and resumptions by hand: when they take effect, that none is lost or doubled, what is said of an account."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.schemas.trading import EVENTS
from quantlytic_assets.services.halts import HaltError, ask_to_halt, ask_to_resume, standings
from quantlytic_assets.services.paper_account import Trades
from quantlytic_assets.trading.engine.settings import Risk
from quantlytic_tests.services.desk import FIRST, SETTINGS, STRATEGY, Desk, recorded_days

LAST = date(2011, 6, 1)
MONTHS = [FIRST, *(date(2011, month, 1) for month in range(2, 6)), LAST]
# A Saturday, a Sunday, and within a session twice: 11:00 in New York.
ASKED = [
    (datetime(2011, 2, 5, 12, tzinfo=UTC), True),
    (datetime(2011, 2, 20, 12, tzinfo=UTC), None),
    (datetime(2011, 3, 16, 15, tzinfo=UTC), False),
    (datetime(2011, 5, 3, 15, tzinfo=UTC), None),
]


def ask(desk: Desk, when: datetime, liquidate: bool | None) -> None:
    """Ask as `ASKED` says it: a halt where it is said what becomes of what is held, else a resumption."""
    desk.now, before = when, desk.now
    if liquidate is None:
        ask_to_resume(desk.accounts, "cross", "anna")
    else:
        ask_to_halt(desk.accounts, "cross", "anna", "earnings", liquidate)
    desk.now = before


def a_desk(root, asked=()) -> Desk:
    desk = Desk(root, recorded_days())
    desk.give(recorded_days().filter(pl.col("session") < LAST))
    for when, liquidate in asked:
        ask(desk, when, liquidate)
    return desk


@pytest.fixture(scope="module")
def free(tmp_path_factory) -> pl.DataFrame:
    """The events without any request."""
    desk = a_desk(tmp_path_factory.mktemp("free"))
    desk.trade(FIRST, LAST)
    return desk.events()


@pytest.fixture(scope="module")
def once(tmp_path_factory) -> Desk:
    """All asked for before anything is traded, then all traded in one call."""
    desk = a_desk(tmp_path_factory.mktemp("asked"), ASKED)
    desk.trade(FIRST, LAST)
    return desk


def test_a_halt_takes_effect_before_the_next_open_and_with_the_decision_on_a_bar_under_way(once, free):
    told = once.events()
    turns = told.filter(pl.col("kind").is_in(["halt", "resume"])).select("kind", "event_time", "reason").rows()
    assert turns == [
        ("halt", datetime(2011, 2, 7, 14, 30, tzinfo=UTC), "by_hand"),
        ("resume", datetime(2011, 2, 22, 14, 30, tzinfo=UTC), "by_hand"),
        ("halt", datetime(2011, 3, 16, 21, tzinfo=UTC), "by_hand"),
        ("resume", datetime(2011, 5, 3, 21, tzinfo=UTC), "by_hand"),
    ]
    assert [one.effective_at for one in once.accounts.requests("cross")] == [when for _, when, _ in turns]
    # What was before the first request is as if nobody had asked.
    before = told.filter(pl.col("session") < date(2011, 2, 7))
    assert len(before) > 5 and before.equals(free.head(len(before)))
    first, second = date(2011, 2, 7), date(2011, 3, 17)
    halted = pl.col("session").is_between(first, date(2011, 2, 22)) | pl.col("session").is_between(
        second, date(2011, 5, 3)
    )
    fills, entries = told.filter(kind="fill"), {"kind": "fill", "leg": "entry"}
    # Nothing is opened; what was held is sold at the first open, or kept with its stops.
    assert free.filter(halted, **entries).height > 1 and told.filter(halted, **entries).is_empty()
    sold = fills.filter(leg="liquidation")
    assert set(sold["session"]) == {first} and len(sold) > 0
    assert fills.filter(pl.col("session") > date(2011, 5, 3), leg="entry").height > 0


def test_partition_by_partition_and_asked_as_time_goes_on_are_the_same(once, tmp_path):
    months = a_desk(tmp_path / "months", ASKED)
    for first, following in zip(MONTHS, MONTHS[1:]):
        months.trade(first, following)
    assert months.events().equals(once.events())
    lived = a_desk(tmp_path / "lived")
    for when, liquidate in ASKED:
        # The bar that is under way is not there yet.
        lived.trade(FIRST, when.date())
        ask(lived, when, liquidate)
    lived.trade(FIRST, LAST)
    assert lived.events().equals(once.events())
    assert lived.accounts.last("cross") == once.accounts.last("cross")


def test_a_rerun_a_restart_and_a_step_that_fails_neither_lose_nor_double_a_request(once, tmp_path):
    assert once.trade(FIRST, LAST) == Trades("cross") and once.accounts.requests("cross", pending=True) == []
    desk = a_desk(tmp_path / "fails", ASKED[:1])
    desk.trade(FIRST, date(2011, 2, 1))
    stale = desk.accounts.last("cross")
    desk.trade(FIRST, date(2011, 2, 5))
    (request,) = desk.accounts.requests("cross", pending=True)
    nothing, sessions = EVENTS.without("strategy", "recorded_at").to_frame(), desk.accounts.sessions("cross").clear()
    assert not desk.accounts.advance("cross", stale, stale, nothing, sessions, {request.id: desk.now})
    assert desk.accounts.requests("cross", pending=True) == [request]
    for when, liquidate in ASKED[1:]:
        desk.trade(FIRST, when.date())
        ask(desk, when, liquidate)
    # A fresh start takes all of it in anew, each at its time.
    desk.accounts.reset("cross")
    assert len(desk.accounts.requests("cross", pending=True)) == len(ASKED)
    desk.trade(FIRST, LAST)
    assert desk.events().equals(once.events())


def test_what_is_said_of_an_account(tmp_path):
    desk = a_desk(tmp_path / "said")

    def said() -> str:
        return standings(desk.accounts, ["cross"])["cross"].said

    assert said() == "has not traded yet"
    with pytest.raises(HaltError, match="cross is not halted, so there is nothing to resume"):
        ask_to_resume(desk.accounts, "cross", "anna")
    ask(desk, *ASKED[0])
    assert said() == "halted, as anna asked at 2011-02-05 12:00 UTC: earnings; takes effect with the next bar"
    desk.trade(FIRST, date(2011, 2, 5))
    assert said().endswith("; takes effect with the next bar")
    desk.trade(FIRST, date(2011, 2, 9))
    assert said() == "halted, as anna asked at 2011-02-05 12:00 UTC: earnings"
    assert standings(desk.accounts, ["cross"])["cross"].since == datetime(2011, 2, 7, 14, 30, tzinfo=UTC)
    ask(desk, *ASKED[1])
    assert said() == "trading again, as anna asked at 2011-02-20 12:00 UTC; takes effect with the next bar"
    with pytest.raises(HaltError, match="not halted"):
        ask_to_resume(desk.accounts, "cross", "anna")
    desk.trade(FIRST, LAST)
    assert said() == "trading"


def test_a_halt_for_drawdown_is_resumed_by_hand(tmp_path):
    desk = a_desk(tmp_path / "drawdown")
    careful = replace(STRATEGY, settings=replace(SETTINGS, risk=Risk(max_position=0.6, max_drawdown=0.01)))
    desk.trade(FIRST, LAST, strategy=careful)
    (halt,) = desk.events().filter(kind="halt").iter_rows(named=True)
    found = standings(desk.accounts, ["cross"])["cross"]
    assert (found.halted, found.since, found.request) == ("max_drawdown", halt["event_time"], None)
    assert "drawdown beyond risk.max_drawdown" in found.said
    desk.now = datetime(2011, 5, 31, 22, tzinfo=UTC)
    ask_to_resume(desk.accounts, "cross", "anna", "it is over")
    desk.give(recorded_days().filter(pl.col("session") < LAST + timedelta(days=7)))
    desk.trade(LAST, LAST + timedelta(days=7), strategy=careful)
    resumed = desk.events().filter(kind="resume").select("reason", "event_time").rows()
    assert resumed == [("by_hand", datetime(2011, 6, 1, 14, 30, tzinfo=UTC))]
    assert standings(desk.accounts, ["cross"])["cross"].halted in (None, "max_drawdown")
