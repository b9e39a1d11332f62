"""No order goes to an account that could be a live one, at any moment and by any setting."""

import ast
from pathlib import Path

import pytest

import quantlytic_assets
from quantlytic_assets.brokers.paper_guard import PaperGuard
from quantlytic_assets.brokers.protocol import LiveAccount, OrderReport
from quantlytic_tests.brokers.bench import ACCOUNT, NOON

HOUSE = Path(quantlytic_assets.__file__).parent


@pytest.mark.parametrize(
    ("account", "allowed", "port", "said"),
    [
        (ACCOUNT, [ACCOUNT], 7496, "live session"),
        (ACCOUNT, [ACCOUNT], 4001, "live session"),
        (None, [ACCOUNT], 4002, "QUANTLYTIC_IBKR_ACCOUNT"),
        ("", [""], 4002, "QUANTLYTIC_IBKR_ACCOUNT"),
        ("U1234567", ["U1234567"], 4002, "no paper account"),
        ("DF1234567", ["DF1234567"], 4002, "no paper account"),
        ("DUM", ["DUM"], 4002, "no paper account"),
        ("du1234567", ["du1234567"], 4002, "no paper account"),
        (ACCOUNT, [], 4002, "allow-list"),
        (ACCOUNT, ["DU7654321"], 4002, "allow-list"),
        (ACCOUNT, [f" {ACCOUNT}"], 4002, "allow-list"),
    ],
)
def test_settings_that_could_lead_to_a_live_account_are_refused(account, allowed, port, said):
    with pytest.raises(LiveAccount, match=said):
        PaperGuard(account, allowed, port)


@pytest.mark.parametrize(
    ("managed", "account"),
    [
        (["U1234567"], ACCOUNT),
        ([ACCOUNT, "U1234567"], ACCOUNT),
        (["F1234567", ACCOUNT], ACCOUNT),
        ([], ACCOUNT),
        (["DU7654321"], ACCOUNT),
        ([ACCOUNT, "DU7654321"], "DU7654321"),
        ([ACCOUNT], ""),
        ([ACCOUNT], "U1234567"),
    ],
)
def test_an_order_for_accounts_like_these_is_refused(managed, account):
    guard = PaperGuard(ACCOUNT, [ACCOUNT], 4002)
    guard.check([ACCOUNT], ACCOUNT)
    with pytest.raises(LiveAccount, match="nothing is sent|settings allow"):
        guard.check(managed, account)


def test_a_live_account_that_was_seen_once_closes_the_guard_for_good():
    guard = PaperGuard(ACCOUNT, [ACCOUNT], 4002)
    guard.saw([ACCOUNT, "DF1234567"])
    guard.check([ACCOUNT, "DF1234567"], ACCOUNT)
    guard.saw(["U1234567"])
    with pytest.raises(LiveAccount, match="U1234567"):
        guard.check([ACCOUNT], ACCOUNT)


def test_there_is_one_place_from_which_an_order_goes_out_and_the_guard_is_before_it():
    found = [
        (path, function)
        for path in HOUSE.rglob("*.py")
        if "placeOrder" in path.read_text()
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and any(isinstance(one, ast.Attribute) and one.attr == "placeOrder" for one in ast.walk(function))
    ]
    assert [(path.name, function.name) for path, function in found] == [("ibkr.py", "_send")]
    called = [one.func.attr for one in ast.walk(found[0][1]) if isinstance(one, ast.Call) and hasattr(one.func, "attr")]
    assert called.index("check") < called.index("placeOrder")


@pytest.mark.parametrize("accounts", [["U1234567"], [ACCOUNT, "U7654321"], ["DU7654321"]])
def test_a_connection_that_is_not_to_the_paper_account_is_refused(bench, accounts):
    bench.book.accounts = accounts
    ref = bench.write()
    with pytest.raises(LiveAccount):
        bench.desk()
    assert bench.book.orders == [] and bench.status(ref) == "written"


def test_a_live_account_that_is_told_while_connected_stops_everything(bench):
    desk = bench.desk()
    first = bench.write()
    desk.settle_down(5)
    assert bench.status(first) == "filled"
    bench.book.rename_accounts("U1234567")
    ref = bench.write("IBM")
    # What was told is taken in before an answer to a question that is asked after it.
    with pytest.raises(LiveAccount, match="U1234567"):
        desk.settle_down(5)
    assert bench.book.refs() == [first]
    bench.book.rename_accounts(ACCOUNT)
    bench.write("BA")
    with pytest.raises(LiveAccount):
        desk.settle_down(5)
    # It was marked as sent before the guard looked; the book of another session says that it is not there.
    desk.close()
    other = bench.desk()
    other.settle_down(5)
    assert bench.sent(ref) == 1 and bench.status(ref) == "filled"


@pytest.mark.parametrize("where", ["value", "holding", "execution", "order"])
def test_a_live_account_in_any_message_stops_orders(bench, where):
    desk = bench.desk()
    bench.write(type="limit", limit=100.0, time_in_force="gtc")
    desk.settle_down(5)
    bench.book.slip_in(where, "U9999999")
    ref = bench.write("IBM")
    with pytest.raises(LiveAccount, match="U9999999"):
        desk.reconcile()
        desk.settle_down(5)
    assert ref not in bench.book.refs()


def test_the_account_of_an_order_is_always_named(bench):
    bench.book.accounts = ["DF1111111", ACCOUNT]
    bench.book.accounts.reverse()
    ref = bench.write()
    bench.desk().settle_down(5)
    (sent,) = bench.book.orders
    assert (sent.sent["account"], sent.sent["tif"], sent.ref) == (ACCOUNT, "DAY", ref)


def test_a_report_of_a_foreign_account_is_not_ours(bench):
    bench.book.accounts = [ACCOUNT, "DU7777777"]
    desk = bench.desk()
    ref = bench.write(time_in_force="gtc", type="limit", limit=100.0)
    desk.settle_down(5)
    foreign = OrderReport(ref, "cancelled", account="DU7777777")
    assert foreign.account != desk.broker.account
    bench.book.disguise(ref, "DU7777777")
    desk.reconcile()
    assert bench.now == NOON and bench.status(ref) == "working"
