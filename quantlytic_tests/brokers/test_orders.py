"""Orders through a desk, an ib_async connection and a TWS that goes wrong in every way that is known of it."""

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from quantlytic_assets.brokers.protocol import BrokerError
from quantlytic_assets.brokers.restarts import Restarts
from quantlytic_assets.services.broker_desk import on_tick
from quantlytic_tests.brokers.bench import ACCOUNT, APPLE, MEXICAN, NOON, Bench
from quantlytic_tests.brokers.tws_book import READ_ONLY

RESTART_SOON = datetime(2025, 3, 6, 4, 42, tzinfo=UTC)


def follow(desk, reached, seconds=10.0):
    """Takes turns until something is reached, which the broker brings about."""
    end = time.monotonic() + seconds
    while not reached() and time.monotonic() < end:
        desk.turn(0.05)
    assert reached()


# What becomes of an order ----------------------------------------------------------------------------------------


def test_a_market_order_is_filled_and_its_execution_and_commission_are_on_record(bench):
    ref = bench.write()
    bench.desk().settle_down(5)
    order, (fill,) = bench.order(ref), bench.fills(ref)
    assert (order.status, order.filled, order.attempts, order.account) == ("filled", 10, 1, ACCOUNT)
    assert (fill.quantity, fill.price, fill.commission, fill.currency, fill.side) == (10, 150.0, 1.0, "USD", 1)
    assert fill.executed_at == NOON and bench.sent(ref) == 1 and bench.agrees()


@pytest.mark.parametrize("version", [157, 163, 164, 166, 170, 176, 177, 178])
def test_every_version_of_the_protocol_is_understood(tmp_path, version):
    with Bench(tmp_path, version=version).serving() as bench:
        first, second = bench.write(), bench.write("IBM", -1, type="limit", limit=110.0, time_in_force="gtc")
        desk = bench.desk()
        desk.settle_down(5)
        assert (bench.status(first), bench.status(second)) == ("filled", "working")
        bench.call_back(second)
        desk.settle_down(5)
        assert bench.status(second) == "cancelled" and bench.book.order(second).status == "Cancelled"
        bench.desk(client_id=19)
        assert bench.agrees() and (bench.sent(first), bench.sent(second)) == (1, 1)


def test_a_limit_order_is_filled_in_parts_as_they_come(bench):
    ref = bench.write(quantity=100, type="limit", limit=149.0)
    bench.book.slices["AAPL"] = [(30, None), (50, 148.5), (20, None)]
    desk = bench.desk()
    desk.settle_down(5)
    assert bench.status(ref) == "working"
    for price, filled, status in ((148.9, 30, "working"), (148.8, 80, "working"), (148.7, 100, "filled")):
        bench.book.quote("AAPL", price)
        follow(desk, lambda told=filled, status=status: (bench.order(ref).filled, bench.status(ref)) == (told, status))
    assert [(one.quantity, one.price) for one in bench.fills(ref)] == [(30, 148.9), (50, 148.5), (20, 148.7)]
    # Of one second by the broker's clock, and told apart all the same.
    assert len({one.executed_at for one in bench.fills(ref)}) == 3 and bench.agrees()


def test_an_execution_that_is_told_again_and_again_counts_once(bench):
    bench.book.repeats = 5
    ref = bench.write()
    desk = bench.desk()
    desk.settle_down(5)
    desk.reconcile()
    bench.desk(client_id=19).reconcile()
    assert [one.quantity for one in bench.fills(ref)] == [10] and bench.agrees()


def test_a_corrected_execution_replaces_the_first_and_an_old_revision_does_not_come_back(bench):
    ref = bench.write()
    desk = bench.desk()
    desk.settle_down(5)
    stale = bench.fills(ref)[0]
    bench.book.correct(ref, 149.5)
    follow(desk, lambda: bench.fills(ref)[0].price == 149.5)
    assert bench.fills(ref)[0].execution_id.endswith(".02") and len(bench.fills(ref)) == 1
    assert bench.ledger.record_fills([stale]) == [] and bench.fills(ref)[0].price == 149.5


def test_an_execution_that_was_taken_back_while_nobody_was_connected_ends_its_order(bench):
    ref = bench.write(type="limit", limit=100.0, time_in_force="gtc")
    desk = bench.desk()
    desk.settle_down(5)
    desk.close()
    bench.book.fill(ref, 10, 99.5)
    bench.book.correct(ref, 99.5, 0)
    desk = bench.desk()
    desk.settle_down(5)
    assert (bench.status(ref), bench.fills(ref)[0].quantity) == ("filled", 0.0) and bench.agrees()
    # Nothing of it is waited for any more.
    assert not desk._waits() and not desk._lacks_executions() and bench.sent(ref) == 1


def test_a_commission_that_comes_late_is_added(bench):
    bench.book.late_charges = True
    ref = bench.write()
    desk = bench.desk()
    desk.settle_down(5)
    assert (bench.status(ref), bench.fills(ref)[0].commission) == ("filled", None)
    bench.book.charge_all()
    follow(desk, lambda: bench.fills(ref)[0].commission == 1.0)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (201, "Order rejected - reason:INSUFFICIENT SETTLED CASH"),
        (203, "The security is not available or allowed for this account"),
        (154, "Orders cannot be transmitted for a halted security"),
        (434, "The order size cannot be zero"),
    ],
)
def test_a_refused_order_is_rejected_with_the_brokers_words_and_not_sent_again(bench, code, text):
    bench.book.refusals["AAPL"] = (code, text)
    ref = bench.write()
    desk = bench.desk()
    desk.settle_down(5)
    assert bench.status(ref) == "rejected" and text in bench.order(ref).reason and str(code) in bench.order(ref).reason
    desk.close()
    bench.desk().settle_down(5)
    assert bench.sent(ref) == 1 and bench.book.held() == {}


def test_a_price_off_the_grid_that_ib_refuses_is_a_rejection(bench):
    # The contract says a cent, and a rule of the market says five.
    ref = bench.write(type="limit", limit=149.03)
    desk = bench.desk()
    bench.book.instruments[0] = replace(APPLE, tick=0.01)
    listing = desk.broker.listings([desk._traded(bench.order(ref))])
    assert next(iter(listing.values())).tick == 0.01
    bench.book.instruments[0] = replace(APPLE, tick=0.05)
    desk.settle_down(5)
    assert bench.status(ref) == "rejected" and bench.order(ref).reason.startswith("110 ") and bench.sent(ref) == 0


def test_prices_are_rounded_to_ticks_and_never_for_the_worse(bench):
    desk = bench.desk()
    buy = bench.write("BA", 1, type="limit", limit=199.98)
    sell = bench.write("BA", -1, type="limit", limit=200.01)
    stop = bench.write("BA", -1, type="stop", stop=190.02, time_in_force="gtc")
    desk.settle_down(5)
    sent = {one.ref: (one.sent["limit"], one.sent["aux"]) for one in bench.book.orders}
    assert (sent[buy][0], sent[sell][0], sent[stop][1]) == ("199.95", "200.05", "190.0")
    assert on_tick(1.1, 0.1, down=True) == 1.1 and on_tick(0.30000000000000004, 0.1, down=False) == 0.3


def test_a_read_only_api_rejects_orders_and_says_so(bench):
    bench.book.read_only = True
    ref = bench.write()
    bench.desk().settle_down(5)
    assert bench.status(ref) == "rejected" and READ_ONLY.split(".-")[0] in bench.order(ref).reason


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (10349, "Order TIF was set to DAY based on order preset."),
        (399, "Order Message:\nWarning: your order was repriced"),
        (404, "Order is held while securities are located"),
        (2109, "Order Event Warning: Attribute 'Outside Regular Trading Hours' is ignored"),
        (10167, "Displaying delayed market data"),
    ],
)
def test_a_notice_changes_nothing_and_leads_to_no_second_order(bench, code, text):
    bench.book.notices["AAPL"] = (code, text)
    ref = bench.write(type="limit", limit=140.0, time_in_force="gtc")
    desk = bench.desk()
    desk.settle_down(5)
    assert bench.status(ref) == "working" and bench.sent(ref) == 1
    assert code in {one.code for one in desk.notices}
    bench.book.quote("AAPL", 139.0)
    follow(desk, lambda: bench.status(ref) == "filled")
    assert bench.sent(ref) == 1 and bench.agrees()


def test_an_order_for_a_closed_market_waits_for_it(bench):
    bench.book.closed = True
    ref = bench.write()
    desk = bench.desk()
    desk.settle_down(5)
    assert bench.status(ref) == "working" and bench.book.order(ref).status == "PreSubmitted"
    bench.book.open_market()
    follow(desk, lambda: bench.status(ref) == "filled")
    assert bench.sent(ref) == 1


def test_an_order_of_the_day_that_is_not_filled_expires_with_it(bench):
    ref, kept = bench.write(type="limit", limit=100.0), bench.write("IBM", type="limit", limit=90, time_in_force="gtc")
    desk = bench.desk()
    desk.settle_down(5)
    bench.now = NOON + timedelta(hours=5)
    bench.book.close_market()
    follow(desk, lambda: bench.status(ref) == "expired")
    assert bench.status(kept) == "working"


def test_the_broker_may_cancel_an_order_and_nobody_sends_it_again(bench):
    ref = bench.write(type="limit", limit=100.0)
    desk = bench.desk()
    desk.settle_down(5)
    bench.book.cancel(ref, "margin")
    follow(desk, lambda: bench.status(ref) == "cancelled")
    assert "margin" in bench.order(ref).reason
    desk.close()
    bench.desk().settle_down(5)
    assert bench.sent(ref) == 1


def test_inactive_is_the_end_unless_the_order_waits_for_shares_to_borrow(bench):
    over = bench.write(type="limit", limit=100.0)
    waits = bench.write("IBM", -1, type="limit", limit=110.0)
    desk = bench.desk()
    desk.settle_down(5)
    bench.book.end(over, "Inactive")
    bench.book.hold(waits, "locate")
    follow(desk, lambda: bench.status(over) == "rejected" and bench.order(waits).held_for == "locate")
    assert bench.status(waits) == "working"
    bench.book.open_market()
    bench.book.quote("IBM", 111.0)
    follow(desk, lambda: bench.status(waits) == "filled")


def test_nothing_is_filled_while_a_symbol_is_halted(bench):
    bench.book.halted.add("AAPL")
    ref = bench.write()
    desk = bench.desk()
    desk.settle_down(2)
    assert bench.status(ref) == "working" and bench.book.held() == {}
    bench.book.halted.clear()
    bench.book.quote("AAPL", 151.0)
    follow(desk, lambda: bench.status(ref) == "filled")


def test_a_cancelled_order_is_over_when_the_broker_says_so(bench):
    ref = bench.write(type="limit", limit=100.0, quantity=10)
    bench.book.slices["AAPL"] = [(4, None), (6, None)]
    desk = bench.desk()
    desk.settle_down(5)
    bench.book.fill(ref, 4, 100.0)
    bench.call_back(ref)
    desk.settle_down(5)
    assert (bench.status(ref), bench.order(ref).filled) == ("cancelled", 4) and bench.agrees()


def test_a_cancellation_that_comes_too_late_leaves_a_filled_order(bench):
    ref = bench.write(type="limit", limit=100.0)
    desk = bench.desk()
    desk.settle_down(5)
    bench.call_back(ref)
    bench.book.fill(ref, 10, 100.0)
    desk.settle_down(5)
    assert bench.status(ref) == "filled" and bench.agrees()


def test_an_order_that_was_called_back_before_it_was_sent_never_is(bench):
    ref = bench.write()
    bench.call_back(ref)
    bench.desk().settle_down(5)
    assert bench.status(ref) == "cancelled" and bench.sent(ref) == 0


def test_a_working_order_is_changed_in_place(bench):
    ref = bench.write(type="limit", limit=100.0, time_in_force="gtc")
    desk = bench.desk()
    desk.settle_down(5)
    bench.want(replace(bench.order(ref), quantity=20.0, limit_price=101.0, revision=1))
    desk.settle_down(5)
    (order,) = bench.book.orders
    assert (order.quantity, float(order.sent["limit"]), order.status) == (20, 101, "Submitted")
    # A change that is refused leaves the order as it was.
    bench.book.refusals["AAPL"] = (110, "The price does not conform")
    bench.book.instruments[0] = replace(APPLE, tick=0.05)
    bench.want(replace(bench.order(ref), limit_price=101.03, revision=2))
    desk.settle_down(5)
    assert bench.status(ref) == "working" and bench.order(ref).reason.startswith("110 ")
    desk.settle_down(1)
    assert len(bench.book.orders) == 1


@pytest.mark.parametrize("lost", [True, False])
def test_a_change_that_is_lost_with_the_line_is_sent_again(bench, lost):
    ref = bench.write(type="limit", limit=100.0, time_in_force="gtc")
    desk = bench.desk()
    desk.settle_down(5)
    bench.want(replace(bench.order(ref), quantity=4.0, limit_price=101.0, revision=1))
    waits = bench.write(side=-1, quantity=1)
    if lost:
        bench.book.cut_before = 1
    else:
        bench.book.cut_after = 1
    follow(desk, lambda: bench.status(waits) == "filled")
    (order, other) = bench.book.orders
    assert (order.quantity, float(order.sent["limit"]), other.ref) == (4, 101, waits)
    # What reduces the position was sent when the change was confirmed, and not before.
    sent = [
        fields[fields.index(ref if ref in fields else waits)]
        for _, (kind, *fields) in bench.book.received
        if kind == "3"
    ]
    assert sent[-1] == waits and sent.count(waits) == 1 and bench.order(ref).sent_revision == 1


def test_nothing_of_a_symbol_is_sent_while_an_order_of_it_is_being_called_back(bench):
    old = bench.write(type="limit", limit=100.0)
    desk = bench.desk()
    desk.settle_down(5)
    bench.call_back(old)
    new = bench.write(side=-1)
    order = [kind for _, (kind, *_) in bench.book.received if kind in "34"]
    desk.settle_down(5)
    assert bench.status(old) == "cancelled" and bench.status(new) == "filled"
    order = [kind for _, (kind, *_) in bench.book.received if kind in ("3", "4")]
    assert order == ["3", "4", "3"]


def test_one_of_a_group_that_is_filled_cancels_the_others(bench):
    stop = bench.write(side=-1, type="stop", stop=140.0, time_in_force="gtc", group="g", leg="entry.stop")
    target = bench.write(side=-1, type="limit", limit=160.0, time_in_force="gtc", group="g", leg="entry.target")
    trail = bench.write(side=-1, type="trailing_stop", stop=142.5, trail=0.05, time_in_force="gtc", group="g",
                        leg="entry.trail")  # fmt: skip
    desk = bench.desk()
    desk.settle_down(5)
    assert {bench.status(one) for one in (stop, target, trail)} == {"working"}
    bench.book.quote("AAPL", 155.0)
    # 5 % below 155.
    bench.book.quote("AAPL", 147.0)
    follow(desk, lambda: bench.status(target) == "cancelled")
    follow(desk, lambda: bench.status(stop) == "cancelled")
    assert bench.status(trail) == "filled" and bench.agrees()


@pytest.mark.parametrize("kind", ["market_on_open", "market_on_close"])
def test_orders_for_the_open_and_the_close(bench, kind):
    bench.book.closed = kind == "market_on_open"
    ref = bench.write(type=kind)
    desk = bench.desk()
    desk.settle_down(5)
    assert bench.status(ref) == "working"
    (sent,) = bench.book.orders
    assert (sent.sent["type"], sent.sent["tif"]) == {
        "market_on_open": ("MKT", "OPG"),
        "market_on_close": ("MOC", "DAY"),
    }[kind]
    (bench.book.open_market if bench.book.closed else bench.book.close_market)()
    follow(desk, lambda: bench.status(ref) == "filled")


# What is refused here ------------------------------------------------------------------------------------------------


def test_parts_of_shares_are_refused_here(bench):
    ref = bench.write(quantity=1.5)
    bench.desk().settle_down(5)
    assert bench.status(ref) == "rejected" and "parts of a share" in bench.order(ref).reason and not bench.book.orders


def test_an_ambiguous_symbol_is_refused_with_what_names_it(tmp_path):
    with Bench(tmp_path, instruments=[APPLE, MEXICAN]).serving() as bench:
        ref = bench.write()
        bench.desk().settle_down(5)
        reason = bench.order(ref).reason
        assert bench.status(ref) == "rejected" and "ambiguous" in reason and "names: {ibkr:" in reason
        assert bench.book.orders == []


def test_an_unknown_symbol_is_refused(bench):
    ref, other = bench.write("NOPE"), bench.write("^GSPC")
    bench.desk().settle_down(5)
    assert "knows no contract" in bench.order(ref).reason and "no contract" in bench.order(other).reason
    assert {bench.status(ref), bench.status(other)} == {"rejected"}


def test_a_contract_in_another_currency_than_the_account_is_refused(bench):
    ref = bench.write("VOD")
    bench.desk().settle_down(5)
    assert bench.status(ref) == "rejected" and "GBP" in bench.order(ref).reason and bench.book.orders == []


def test_orders_above_the_buying_power_are_refused_and_reductions_are_not(bench):
    bench.book.cash = 1000.0
    first, second = bench.write(quantity=20), bench.write(quantity=20)
    out = bench.write("IBM", -1, quantity=30, leg="reduce")
    bench.desk().settle_down(5)
    # 4,000 to begin with, of which the first takes 3,000.
    assert bench.status(first) == "filled" and bench.status(second) == "rejected"
    assert "buying power" in bench.order(second).reason and bench.sent(out) == 1


def test_the_broker_has_the_last_word_on_buying_power(bench):
    desk = bench.desk()
    bench.book.cash = 100.0
    ref = bench.write(quantity=20)
    desk.settle_down(5)
    assert bench.status(ref) == "rejected" and bench.order(ref).reason.startswith("201 ")


def test_a_late_order_is_not_sent(bench):
    ref = bench.write(expires_at=NOON)
    bench.desk().settle_down(5)
    assert bench.status(ref) == "rejected" and bench.order(ref).reason.startswith("late") and bench.sent(ref) == 0


def test_nothing_is_sent_around_a_restart(bench):
    bench.now = RESTART_SOON
    ref = bench.write(expires_at=RESTART_SOON + timedelta(hours=1))
    desk = bench.desk()
    desk.turn(0.05)
    assert bench.status(ref) == "written" and bench.book.orders == []
    bench.now = RESTART_SOON + timedelta(minutes=15)
    desk.settle_down(5)
    assert bench.status(ref) == "filled"


@pytest.mark.parametrize(
    ("at", "near"),
    [
        ("2025-03-06T04:39", False), ("2025-03-06T04:40", True), ("2025-03-06T04:54", True),
        ("2025-03-06T04:55", False),
        ("2025-03-09T05:54", False), ("2025-03-09T05:56", True), ("2025-03-09T06:09", True),
        ("2025-03-09T06:10", False),
        # Daylight saving time has begun.
        ("2025-03-16T04:56", True), ("2025-03-16T05:09", True), ("2025-03-17T04:56", False), ("2025-03-12T03:46", True),
    ],
)  # fmt: skip
def test_restarts_are_by_the_clock_of_their_place(at, near):
    assert Restarts().near(datetime.fromisoformat(at).replace(tzinfo=UTC)) is near


def test_a_restart_around_midnight_is_near_on_both_sides_of_it():
    late = Restarts(datetime(2025, 1, 1, 23, 58).time(), "UTC")
    times = ("23:52", "23:53", "23:59", "00:00", "00:07", "00:08")
    near = [late.near(datetime.fromisoformat(f"2025-01-07T{one}").replace(tzinfo=UTC)) for one in times]
    assert near == [False, True, True, True, True, False]


# Breaks --------------------------------------------------------------------------------------------------------------


def test_an_order_that_was_lost_with_the_line_is_sent_again_once(bench):
    ref = bench.write()
    desk = bench.desk()
    bench.book.cut_before = 1
    desk.settle_down(10)
    assert bench.status(ref) == "filled" and bench.sent(ref) == 1 and bench.order(ref).attempts == 2 and bench.agrees()


def test_an_order_that_arrived_before_the_line_was_cut_is_not_sent_again(bench):
    ref = bench.write()
    desk = bench.desk()
    bench.book.cut_after = 1
    desk.settle_down(10)
    assert bench.status(ref) == "filled" and bench.sent(ref) == 1 and bench.order(ref).attempts == 1 and bench.agrees()


def test_a_fill_that_is_on_its_way_when_the_line_is_reset_is_found(bench):
    ref = bench.write(type="limit", limit=100.0, time_in_force="gtc")
    desk = bench.desk()
    desk.settle_down(5)
    bench.book.stealthy, bench.book.repeats = True, 0
    bench.book.fill(ref, 10, 99.5)
    bench.book.cut()
    follow(desk, lambda: bench.status(ref) == "filled")
    assert bench.fills(ref)[0].price == 99.5 and bench.fills(ref)[0].commission == 1.0 and bench.agrees()


@pytest.mark.parametrize("connecting", [True, False])
def test_a_line_that_is_cut_when_the_book_has_just_been_read_is_made_anew(bench, monkeypatch, connecting):
    desk = bench.desk()
    read = desk.broker.book

    def book():
        monkeypatch.undo()
        told = read()
        bench.book.cut()
        end = time.monotonic() + 10
        while desk.broker.connected and time.monotonic() < end:
            time.sleep(0.01)
        return told

    monkeypatch.setattr(desk.broker, "book", book)
    (desk.connect if connecting else desk.reconcile)()
    assert not desk.may_send
    ref = bench.write()
    desk.settle_down(10)
    assert bench.status(ref) == "filled" and bench.sent(ref) == 1


@pytest.mark.parametrize("arrived", [True, False])
def test_a_process_that_dies_with_an_order_in_doubt_leaves_it_to_the_next(bench, arrived):
    ref = bench.write()
    desk = bench.desk()
    if arrived:
        bench.book.auto_fill = False
        desk.settle_down(5)
        # The process dies before it writes down what it was told.
        bench.ledger.change({ref: {"status": "sent", "order_id": None, "permanent_id": None}})
    else:
        assert bench.ledger.mark_sent([ref], ACCOUNT) == [ref]
    desk.close()
    bench.desk().settle_down(5)
    bench.book.auto_fill = True
    assert bench.sent(ref) == 1 and bench.status(ref) == ("working" if arrived else "filled")


def test_an_order_of_an_earlier_day_without_a_trace_is_not_sent_again(bench):
    ref = bench.write(expires_at=NOON + timedelta(days=3))
    assert bench.ledger.mark_sent([ref], ACCOUNT) == [ref]
    bench.now = NOON + timedelta(days=1)
    bench.desk().settle_down(5)
    assert bench.status(ref) == "expired" and "earlier day" in bench.order(ref).reason and bench.sent(ref) == 0


def test_a_confirmed_order_that_vanished_is_shown_and_not_sent_again(bench):
    ref = bench.write(type="limit", limit=100.0, time_in_force="gtc")
    bench.desk().settle_down(5)
    bench.book.orders.clear()
    bench.desk(client_id=19).settle_down(5)
    assert bench.status(ref) == "cancelled" and "not in the broker's book" in bench.order(ref).reason
    assert bench.sent(ref) == 0


def test_an_order_of_the_day_that_ended_while_nobody_was_connected_has_expired(bench):
    ref = bench.write(type="limit", limit=100.0)
    desk = bench.desk()
    desk.settle_down(5)
    desk.close()
    bench.now = NOON + timedelta(days=1)
    bench.book.close_market()
    bench.book.next_day()
    bench.desk().settle_down(5)
    assert bench.status(ref) == "expired" and bench.sent(ref) == 1


def test_a_restart_in_the_middle_of_a_bracket_goes_on_where_it_was(bench):
    entry = bench.write(quantity=10)
    stop = bench.write(side=-1, type="stop", stop=140.0, time_in_force="gtc", group="g", leg="entry.stop")
    target = bench.write(side=-1, type="limit", limit=160.0, time_in_force="gtc", group="g", leg="entry.target")
    desk = bench.desk()
    # The line is cut when two of the three have been taken.
    taken = bench.book._answers

    def answers():
        if len(bench.book.orders) == 2:
            bench.book.cut_before, bench.book._answers = 1, taken
        return taken()

    bench.book._answers = answers
    desk.settle_down(10)
    desk.close()
    bench.book.quote("AAPL", 161.0)
    bench.desk().settle_down(5)
    assert [bench.sent(one) for one in (entry, stop, target)] == [1, 1, 1]
    assert [bench.status(one) for one in (entry, stop, target)] == ["filled", "cancelled", "filled"]
    assert bench.book.held() == {} and bench.agrees()


def test_a_frozen_gateway_is_left_and_the_order_is_not_sent_twice(bench):
    ref = bench.write(type="limit", limit=100.0)
    desk = bench.desk(seconds=0.5)
    desk.broker.listings([desk._traded(bench.order(ref))])
    bench.book.frozen = True
    desk.turn(0.05)
    assert bench.status(ref) == "sent"
    bench.now += timedelta(seconds=11)
    with pytest.raises(BrokerError, match="does not answer|did not answer"):
        desk.turn(0.05)
    assert bench.status(ref) == "sent"
    bench.book.frozen, desk.broker._seconds = False, 5.0
    desk.settle_down(5)
    assert bench.status(ref) == "working" and bench.sent(ref) == 1


def test_a_gateway_that_loses_what_it_is_sent_gets_it_again(bench):
    ref = bench.write()
    desk = bench.desk()
    desk.broker.listings([desk._traded(bench.order(ref))])
    bench.book.lost = True
    desk.turn(0.05)
    end = time.monotonic() + 10
    while not bench.book.ignored and time.monotonic() < end:
        time.sleep(0.01)
    bench.book.lost = False
    assert bench.status(ref) == "sent" and bench.sent(ref) == 0
    # As long as it may be on its way nothing is done.
    desk.reconcile()
    desk.turn(0.05)
    assert bench.status(ref) == "sent"
    bench.now += timedelta(seconds=11)
    desk.settle_down(5)
    assert bench.status(ref) == "filled" and bench.sent(ref) == 1


@pytest.mark.parametrize("back", [1101, 1102])
def test_nothing_is_sent_while_tws_has_lost_its_own_connection(bench, back):
    working = bench.write(type="limit", limit=100.0, time_in_force="gtc")
    desk = bench.desk()
    desk.settle_down(5)
    bench.book.say(1100, "Connectivity between IB and Trader Workstation has been lost.")
    follow(desk, lambda: not desk.broker.connected)
    ref = bench.write("IBM")
    bench.book.stealthy, bench.book.repeats = True, 0
    bench.book.fill(working, 10, 99.0)
    desk.turn(0.1)
    assert bench.status(ref) == "written" and bench.sent(ref) == 0 and bench.status(working) == "working"
    bench.book.stealthy, bench.book.repeats = False, 2
    bench.book.say(back, "Connectivity between IB and Trader Workstation has been restored")
    follow(desk, lambda: bench.status(ref) == "filled")
    # The fill that nobody told is found as well.
    assert bench.status(working) == "filled" and bench.agrees()


def test_an_order_id_that_was_used_before_is_a_mistake_of_the_id_and_not_of_the_order(bench):
    ref = bench.write()
    desk = bench.desk()
    # Another program has used ids of ours meanwhile.
    bench.book._next[18] = 1000
    desk.settle_down(10)
    assert bench.status(ref) == "filled" and bench.sent(ref) == 1 and bench.order(ref).attempts == 2


def test_messages_are_paced_below_the_fifty_a_second_that_tws_takes(bench):
    refs = [bench.write(quantity=1) for _ in range(60)]
    desk = bench.desk()
    client = desk.broker._line.client
    assert 0 < client.MaxRequests / client.RequestsInterval < 50
    desk.settle_down(20)
    assert bench.book.refs() == refs and {bench.status(one) for one in refs} == {"filled"}


def test_an_order_that_tws_did_not_take_for_too_many_messages_is_sent_again_once(bench):
    ref = bench.write()
    bench.book.untaken["AAPL"] = (100, "Max rate of messages per second has been exceeded")
    bench.desk().settle_down(10)
    assert bench.status(ref) == "filled" and bench.sent(ref) == 1 and bench.order(ref).attempts == 2


def test_a_client_id_that_another_program_has_is_said(bench):
    bench.book.taken = {18}
    with pytest.raises(BrokerError, match=r"326 .*QUANTLYTIC_IBKR_PAPER_CLIENT_ID"):
        bench.desk()


def test_a_gateway_that_is_not_there_is_said(bench):
    broker = bench.broker(seconds=1)
    broker._where = ("127.0.0.1", 9)
    with pytest.raises(BrokerError, match=r"paper session.*QUANTLYTIC_IBKR_PAPER_PORT"):
        broker.connect()
    with pytest.raises(BrokerError, match="not connected"):
        broker.book()


def test_executions_that_were_counted_and_not_told_are_asked_for(bench):
    bench.book.stealthy = True
    ref = bench.write()
    desk = bench.desk()
    desk.settle_down(10)
    assert bench.status(ref) == "filled" and len(bench.fills(ref)) == 1 and bench.agrees()


def test_a_line_that_is_cut_again_and_again_loses_and_doubles_nothing(bench):
    refs = [bench.write(("AAPL", "IBM")[n % 2], quantity=n + 1) for n in range(12)]
    desk = bench.desk()
    stop = threading.Event()

    def cutting():
        while not stop.wait(0.03):
            bench.book.cut()

    thread = threading.Thread(target=cutting)
    thread.start()
    try:
        end = time.monotonic() + 20
        while time.monotonic() < end and any(bench.status(one) != "filled" for one in refs):
            try:
                desk.turn(0.02)
            except BrokerError:
                continue
    finally:
        stop.set()
        thread.join()
    assert [bench.sent(one) for one in refs] == [1] * 12 and bench.agrees()


# What is not ours ----------------------------------------------------------------------------------------------------


def test_what_the_ledger_does_not_know_is_shown_and_not_touched(bench):
    bench.book.place_foreign("", "IBM", "BUY", 5, 90.0)
    bench.book.place_foreign("by hand", "AAPL", "BUY", 7, 155.0)
    desk = bench.desk()
    desk.settle_down(2)
    said = {(one.kind, one.text.split(",")[0]) for one in desk.unknown}
    assert said == {("order", "IBM buy 5"), ("execution", "AAPL bought 7 at 150")}
    assert [one.status for one in bench.book.orders] == ["Submitted", "Filled"]
    assert not [kind for _, (kind, *_) in bench.book.received if kind in ("3", "4", "58")]
    assert [one.symbol for one in desk.book.holdings] == ["AAPL"] and desk.book.values.equity is not None


def test_an_order_of_ours_that_another_client_id_sent_is_followed_and_not_doubled(bench):
    ref = bench.write(type="limit", limit=100.0, time_in_force="gtc")
    first = bench.desk()
    first.settle_down(5)
    first.close()
    second = bench.desk(client_id=19)
    second.settle_down(2)
    assert bench.status(ref) == "working" and bench.sent(ref) == 1
    bench.call_back(ref)
    second.turn(0.1)
    second.turn(0.1)
    # Only the one who sent it can cancel it, and that is said.
    assert bench.status(ref) == "working" and "another client id" in second.notices[-1].text
    second.close()
    bench.desk().settle_down(5)
    assert bench.status(ref) == "cancelled"


def test_fifty_orders_are_each_sent_once(tmp_path):
    names = [f"S{n}" for n in range(50)]
    instruments = [replace(APPLE, con_id=n + 1, symbol=name) for n, name in enumerate(names)]
    with Bench(tmp_path, instruments).serving() as bench:
        bench.book.prices.update(dict.fromkeys(names, 50.0))
        refs = [bench.write(name) for name in names]
        bench.desk().settle_down(20)
        assert {bench.status(one) for one in refs} == {"filled"} and bench.book.refs() == refs
        assert bench.agrees()
