import signal
import subprocess
import sys
from datetime import date

import polars as pl
import pytest
import sqlalchemy as sa

from quantlytic_assets.trading.orders import FILLS_SCHEMA, ORDERS_SCHEMA
from quantlytic_assets.trading.paper import OutOfOrder, trade
from quantlytic_assets.trading.simulated_broker import SimulatedBroker
from quantlytic_tests.trading.frames import FIRST_CREATED, daily, ledger_in, predict, real_case, rows_of, strategy

# Trades the real case. The broker takes a few sessions at a time, and dies by SIGKILL at the given call: before it has
# answered (orders written, not filled) or with its fills in hand (filled, not written).
TRADE = """
import os, signal, sys
from quantlytic_assets.trading.paper import trade
from quantlytic_assets.trading.simulated_broker import SimulatedBroker
from quantlytic_tests.trading.frames import ledger_in, real_case

directory, dies_at = sys.argv[1], int(sys.argv[2])
strategy, predictions, bars, sessions = real_case()

class Mortal(SimulatedBroker):
    sessions_at_once = 7
    calls = 0

    def submit(self, orders):
        self.calls += 1
        if self.calls == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().submit(orders)

print("ready", flush=True)
sys.stdin.readline()
trade(strategy, predictions, bars, ledger_in(directory), sessions, broker=Mortal(bars, strategy.costs))
"""


def start(directory, dies_at=0):
    command = [sys.executable, "-c", TRADE, str(directory), str(dies_at)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    strategy, predictions, bars, sessions = real_case()
    ledger = ledger_in(tmp_path_factory.mktemp("undisturbed"))
    trade(strategy, predictions, bars, ledger, sessions)
    return rows_of(ledger)


def test_a_rerun_changes_nothing_not_even_the_time_of_writing(tmp_path):
    strategy, predictions, bars, sessions = real_case()
    ledger = ledger_in(tmp_path)
    first = trade(strategy, predictions, bars, ledger, sessions)
    before = ledger.orders(strategy.name), ledger.fills(strategy.name)
    second = trade(strategy, predictions, bars, ledger, sessions)
    assert ledger.orders(strategy.name).equals(before[0])
    assert ledger.fills(strategy.name).equals(before[1])
    assert first.decided == len(sessions) and first.filled == len(before[1]) > 500
    assert (second.decided, second.filled, second.orders) == (0, 0, first.orders)
    assert before[0].schema == ORDERS_SCHEMA and before[1].schema == FILLS_SCHEMA
    # The last session's decisions wait for a bar that is not there yet.
    assert set(before[0].filter(status="open")["session"]) == {sessions[-1]}


def test_what_was_decided_stays_even_if_predictions_or_settings_change(tmp_path, undisturbed):
    strategy, predictions, bars, sessions = real_case()
    ledger = ledger_in(tmp_path)
    trade(strategy, predictions, bars, ledger, sessions)
    opposite = predictions.with_columns(1 - pl.col("prediction"))
    trade(strategy, opposite, bars.with_columns(pl.col("close") * 2), ledger, sessions)
    assert rows_of(ledger) == undisturbed


def test_month_by_month_gives_the_same_rows_as_all_at_once(tmp_path, undisturbed):
    strategy, predictions, bars, sessions = real_case()
    ledger = ledger_in(tmp_path)
    for month in sessions.dt.truncate("1mo").unique().sort():
        since = ledger.oldest_open_decision(strategy.name)
        mine = sessions.filter(sessions.dt.truncate("1mo") == month)
        known = bars.filter(pl.col("session") <= mine[-1], (pl.col("open_time") >= since) if since else pl.lit(True))
        trade(strategy, predictions.filter(pl.col("session").is_in(mine.implode())), known, ledger, mine)
    assert rows_of(ledger) == undisturbed


def test_an_order_without_a_next_bar_waits_and_is_filled_later(tmp_path):
    monday, tuesday, thursday = date(2015, 3, 2), date(2015, 3, 3), date(2015, 3, 5)
    bars = daily([("AAA", monday, 10.0, 10.0), ("BBB", tuesday, 5.0, 5.0), ("AAA", thursday, 12.0, 12.0)])
    predictions = predict(bars, [1, 0, 0])
    ledger = ledger_in(tmp_path)
    early = trade(strategy(), predictions, bars.filter(pl.col("session") < thursday), ledger, [monday, tuesday])
    assert (early.open, early.filled) == (1, 0)
    assert ledger.committed_before("momentum_1d", thursday).rows() == [("AAA", monday, 500.0)]
    assert ledger.fills("momentum_1d").is_empty()
    trade(strategy(), predictions, bars, ledger, [thursday])
    filled = ledger.fills("momentum_1d").select("session", "fill_session", "quantity")
    assert filled.rows() == [(monday, thursday, 500.0)]
    # Thursday's decision counted Monday's order although it was still open.
    assert ledger.open_orders("momentum_1d").select("side", "quantity").rows() == [("sell", 500.0)]


def test_an_earlier_session_that_was_never_traded_must_come_first(tmp_path):
    strategy, predictions, bars, sessions = real_case()
    ledger = ledger_in(tmp_path)
    message = f"20 sessions before {sessions[20]}.*{sessions[0]} to {sessions[19]}: run those first"
    with pytest.raises(OutOfOrder, match=message):
        trade(strategy, predictions, bars, ledger, [sessions[20]])
    part = predictions.filter(pl.col("session") == sessions[20])
    with pytest.raises(OutOfOrder, match="run those first"):
        trade(strategy, part, bars, ledger, [sessions[20]], predicted_sessions=sessions)
    assert rows_of(ledger) == ([], [], [])
    trade(strategy, predictions, bars, ledger, sessions[:20])
    assert trade(strategy, part, bars, ledger, [sessions[20]], predicted_sessions=sessions).decided == 1


def test_the_past_cannot_be_traded_once_later_sessions_are(tmp_path):
    strategy, predictions, bars, sessions = real_case()
    ledger = ledger_in(tmp_path)
    later = predictions.filter(pl.col("session") >= sessions[10])
    trade(strategy, later, bars, ledger, sessions[10:20])
    with pytest.raises(OutOfOrder, match=f"{sessions[0]} cannot be traded any more.*up to {sessions[19]}.*--restart"):
        trade(strategy, predictions, bars, ledger, sessions[:10])
    ledger.reset(strategy.name)
    trade(strategy, predictions, bars, ledger, sessions[:20])
    assert len(ledger.decided_sessions(strategy.name)) == 20


def test_a_session_without_an_order_counts_as_traded(tmp_path):
    strategy, predictions, bars, sessions = real_case()
    flat = predictions.with_columns(pl.lit(0).alias("prediction"))
    ledger = ledger_in(tmp_path)
    summary = trade(strategy, flat, bars, ledger, sessions)
    assert (summary.decided, summary.orders) == (len(sessions), 0)
    assert trade(strategy, predictions, bars, ledger, sessions).orders == 0


def test_no_sessions_are_no_trouble(tmp_path):
    strategy, predictions, bars, _ = real_case()
    assert trade(strategy, predictions.clear(), bars, ledger_in(tmp_path), []).sessions == 0


@pytest.mark.parametrize("dies_at", [1, 2, 40])
def test_an_error_between_order_and_fill_then_a_rerun_gives_identical_rows(tmp_path, undisturbed, dies_at):
    strategy, predictions, bars, sessions = real_case()

    class Failing(SimulatedBroker):
        sessions_at_once = 7
        calls = 0

        def submit(self, orders):
            self.calls += 1
            if self.calls == dies_at:
                raise ConnectionError("the line went dead")
            return super().submit(orders)

    ledger = ledger_in(tmp_path)
    with pytest.raises(ConnectionError):
        trade(strategy, predictions, bars, ledger, sessions, broker=Failing(bars, strategy.costs))
    assert len(ledger.open_orders(strategy.name)) > 0
    trade(strategy, predictions, bars, ledger, sessions)
    assert rows_of(ledger) == undisturbed


def test_an_error_while_fills_are_written_then_a_rerun_gives_identical_rows(tmp_path, undisturbed, monkeypatch):
    strategy, predictions, bars, sessions = real_case()
    ledger = ledger_in(tmp_path)

    def fail(_fills):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "record_fills", fail)
        with pytest.raises(OSError, match="disk full"):
            trade(strategy, predictions, bars, ledger, sessions)
    trade(strategy, predictions, bars, ledger, sessions)
    assert rows_of(ledger) == undisturbed


@pytest.mark.parametrize("dies_at", [1, 30])
def test_a_killed_process_then_a_rerun_gives_identical_rows(tmp_path, undisturbed, dies_at):
    victim = start(tmp_path, dies_at)
    victim.communicate("go\n", timeout=60)
    assert victim.returncode == -signal.SIGKILL
    strategy, predictions, bars, sessions = real_case()
    ledger = ledger_in(tmp_path)
    assert 0 < len(ledger.decided_sessions(strategy.name)) < len(sessions)
    assert len(ledger.open_orders(strategy.name)) > 0
    trade(strategy, predictions, bars, ledger, sessions)
    assert rows_of(ledger) == undisturbed


def test_three_processes_at_once_give_identical_rows(tmp_path, undisturbed):
    workers = [start(tmp_path) for _ in range(3)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=120)
        assert worker.returncode == 0
    assert rows_of(ledger_in(tmp_path)) == undisturbed


def test_a_second_record_of_a_session_or_a_fill_is_not_written(tmp_path):
    strategy, predictions, bars, sessions = real_case()
    ledger = ledger_in(tmp_path, clock=lambda: FIRST_CREATED)
    trade(strategy, predictions, bars, ledger, sessions[:5])
    before, orders, fills = rows_of(ledger), ledger.orders(strategy.name), ledger.fills(strategy.name)
    assert orders["created_at"].unique().to_list() == [FIRST_CREATED]
    assert ledger.record_decisions(strategy.name, [sessions[5], sessions[4]], orders) is False
    ledger.record_fills(fills.with_columns(pl.col("price") * 2))
    assert rows_of(ledger) == before


def test_a_faulty_order_is_an_error_and_leaves_its_session_undecided(tmp_path):
    strategy, predictions, bars, sessions = real_case()
    ledger = ledger_in(tmp_path)
    timeless = predictions.with_columns(pl.lit(None, pl.Datetime("us", "UTC")).alias("available_at"))
    with pytest.raises(sa.exc.IntegrityError, match="decision_time"):
        trade(strategy, timeless, bars, ledger, sessions[:5])
    assert rows_of(ledger) == ([], [], [])


def test_strategies_do_not_see_each_other(tmp_path):
    first, predictions, bars, sessions = real_case()
    other = strategy(name="other_1d", symbols=first.symbols, capital=50_000.0)
    ledger = ledger_in(tmp_path)
    trade(first, predictions, bars, ledger, sessions[:10])
    mine = rows_of(ledger)
    trade(other, predictions, bars, ledger, sessions[:10])
    ledger.reset("other_1d")
    assert rows_of(ledger) == mine
    assert rows_of(ledger, "other_1d") == ([], [], [])
