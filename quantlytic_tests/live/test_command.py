"""`quantlytic live`: one process a dataset, ended cleanly, whose signals are there to be read."""

from __future__ import annotations

import copy
import signal
import time
from datetime import timedelta

import pytest

from quantlytic_assets.market_data.wire.records import BAR_HEADERS, encode_bars
from quantlytic_assets.resources import make_resources
from quantlytic_assets.storage.bus import bars_topic, signals_topic
from quantlytic_tests.end_to_end.installations import Installed
from quantlytic_tests.end_to_end.universes import CRYPTO_1M, EQUITIES_5M
from quantlytic_tests.frames import make_bars, utc

# A busy machine takes its time to start a process.
PATIENCE = 300
UNIVERSE = {
    "datasets": {"crypto_1m": {**copy.deepcopy(CRYPTO_1M), "feature_intervals": ["1m"]}, "equities_5m": EQUITIES_5M},
    "strategies": {"hold": {"dataset": "crypto_1m", "interval": "1m", "rule": "buy_and_hold"}},
}


@pytest.fixture
def installed(tmp_path) -> Installed:
    return Installed(tmp_path, UNIVERSE)


def test_it_runs_until_it_is_told_to_stop_and_is_the_only_one(installed):
    resources = make_resources(installed.settings())
    rows = make_bars("BTC-USD", [utc("2025-05-10T00:00:00") + timedelta(minutes=i) for i in range(5)])
    first = installed.start("live", "crypto_1m", "--trade")
    try:
        deadline = time.monotonic() + PATIENCE
        while resources.bus.identity(bars_topic("crypto_1m")) is None:
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        resources.bus.publish(bars_topic("crypto_1m"), encode_bars(rows), rows["symbol"].to_list(), BAR_HEADERS)
        while resources.bus.watermarks(signals_topic("hold")).get(0, (0, 0))[1] < 5:
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        second = installed.run("live", "crypto_1m").expect(1)
        assert "another process runs the live path of crypto_1m" in second.err
    finally:
        first.send_signal(signal.SIGTERM)
        out, err = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0, err
    assert "stopped after 5 records: 5 signals" in out and "Traceback" not in out + err
    assert "live path of crypto_1m" in installed.run("status").expect(0).out
    # The account went on with the bars.
    assert resources.accounts.last("hold") is not None


def test_what_can_t_be_live_is_said(installed):
    unknown, ticks = installed.run_in_turn([["live", "nothing"], ["live", "equities_5m", "--source", "ticks"]])
    assert "no dataset 'nothing'" in unknown.expect(2).err
    assert "take --source bars" in ticks.expect(2).err
