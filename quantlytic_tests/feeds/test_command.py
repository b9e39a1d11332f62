"""`quantlytic feed` as a process: started, killed at any moment, stopped, and asked for what there is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from quantlytic_assets.storage.bus import LocalBus
from quantlytic_tests.feeds.exchange import Exchange, Plan
from quantlytic_tests.feeds.feeding import (
    assert_true_bars,
    bars_published,
    minutes_of,
    recorded_minutes,
    ticks_published,
)
from quantlytic_tests.feeds.recorded import thinned, trades

OURS = {"BTC-USD": trades(), "QUIET-USD": thinned(500)}
COMMAND = [str(Path(sys.executable).parent / "quantlytic"), "feed"]
PATIENCE = 120


@pytest.fixture
def universe(tmp_path) -> Path:
    """Two datasets with a feed, one of them over, and one without."""
    common = {"calendar": "24/7", "interval": "1m", "first_session": "2024-01-01", "vendors": ["binance"]}
    quiet = {"symbol": "QUIET-USD", "names": {"binance": "QUIETUSDC"}}
    datasets = {
        "live": common | {"feed": "binance_trades", "symbols": ["BTC-USD", quiet]},
        "over": common | {"feed": "binance_klines", "symbols": ["BTC-USD"], "last_session": "2024-02-01"},
        "twice": common | {"feed": "binance_trades", "symbols": ["BTC-USD", "BTC-USDT"]},
        "gone": common | {"feed": "binance_trades", "symbols": [{"symbol": "BTC-USD", "to": "2024-02-01"}]},
        "other": common | {"symbols": ["BTC-USD"]},
    }
    path = tmp_path / "universe.yaml"
    path.write_text(yaml.safe_dump({"datasets": datasets}, sort_keys=False))
    return path


def environment(universe: Path, exchange: Exchange | None = None) -> dict[str, str]:
    own = {"QUANTLYTIC_UNIVERSE": str(universe), "QUANTLYTIC_HOME": str(universe.parent / "home")}
    if exchange is not None:
        own |= {"QUANTLYTIC_BINANCE_WS": exchange.ws, "QUANTLYTIC_BINANCE_REST": exchange.rest}
    return {name: text for name, text in os.environ.items() if not name.startswith("QUANTLYTIC_")} | own


def start(universe: Path, exchange: Exchange) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "live"],
        env=environment(universe, exchange),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(done: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def stop(process: subprocess.Popen[str], by: signal.Signals) -> str:
    process.send_signal(by)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    return said


def test_it_feeds_until_it_is_told_to_stop(universe):
    bus = LocalBus(universe.parent / "home" / "bus")
    with Exchange({"BTCUSDT": OURS["BTC-USD"], "QUIETUSDC": OURS["QUIET-USD"]}, 200).serving() as exchange:
        process = start(universe, exchange)
        wait_for(lambda: recorded_minutes(OURS) <= set(minutes_of(bars_published(bus))), process)
        lines = stop(process, signal.SIGTERM).splitlines()
    assert_true_bars(bars_published(bus), OURS)
    assert max(minutes_of(bars_published(bus)).values()) == 1
    assert len(ticks_published(bus)) == sum(map(len, OURS.values()))
    assert "live: 2 symbols from binance" in lines[0] and "stopped" in lines[-1] and "Traceback" not in "".join(lines)


def test_a_person_stops_it_too(universe):
    with Exchange({"BTCUSDT": OURS["BTC-USD"], "QUIETUSDC": OURS["QUIET-USD"]}, 200).serving() as exchange:
        process = start(universe, exchange)
        wait_for(lambda: exchange.connections > 0, process)
        assert "Traceback" not in stop(process, signal.SIGINT)


def test_killed_at_any_moment_it_loses_no_bar_and_changes_none(universe):
    bus = LocalBus(universe.parent / "home" / "bus")
    plans = [Plan(), Plan(after=1500, close=1001), Plan(after=1500, reset=True)]
    markets = {"BTCUSDT": OURS["BTC-USD"], "QUIETUSDC": OURS["QUIET-USD"]}
    with Exchange(markets, 40, plans=plans).serving() as exchange:
        # Something is left to do for the last one, however slow the machine.
        exchange.hold = exchange.begin + 8 * 60_000
        process = start(universe, exchange)
        for bars in (2, 6, 9):
            wait_for(lambda bars=bars: len(bars_published(bus)) >= bars, process)
            process.kill()
            process.communicate()
            process = start(universe, exchange)
        exchange.release()
        wait_for(lambda: recorded_minutes(OURS) <= set(minutes_of(bars_published(bus))), process)
        stop(process, signal.SIGTERM)
    assert_true_bars(bars_published(bus), OURS)
    # Each start has seen what the one before it had published.
    assert max(minutes_of(bars_published(bus)).values()) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("other", "other has no feed in"),
        ("over", "over has no symbol today"),
        ("gone", "gone has no symbol today"),
        ("twice", "twice can't be fed: BTC-USD and BTC-USDT are both BTCUSDT"),
        ("nobody", "no dataset 'nobody'"),
    ],
)
def test_what_can_t_be_fed_is_a_mistake_in_words(universe, name, said):
    command = [*COMMAND, name]
    ended = subprocess.run(command, env=environment(universe), capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 2
    assert said in ended.stderr and "Traceback" not in ended.stderr
    if name == "other":
        assert ended.stdout == ""
        assert "live, over, twice, gone" in ended.stderr


def test_an_address_that_is_none_is_a_mistake_in_words(universe):
    env = environment(universe) | {"QUANTLYTIC_BINANCE_WS": "stream.example.org"}
    ended = subprocess.run([*COMMAND, "live"], env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 2 and "is no address of a websocket" in ended.stderr
