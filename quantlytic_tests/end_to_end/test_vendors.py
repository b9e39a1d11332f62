"""A backfill from a vendor with limits, killed on the way: it goes on where it was and asks for nothing twice."""

import os
import signal
import time
from collections import Counter
from datetime import date

from quantlytic_assets.vendors.yahoo import YahooVendor
from quantlytic_tests.end_to_end.installations import Installed
from quantlytic_tests.end_to_end.universes import universe
from quantlytic_tests.vendors.yahoo_server import YahooServer

FIRST, LAST = date(2022, 1, 3), date(2023, 12, 29)
SYMBOLS = [f"S{number}" for number in range(8)]
TWO_YEARS = {
    "calendar": "XNYS",
    "interval": "1d",
    "first_session": FIRST.isoformat(),
    "last_session": LAST.isoformat(),
    "vendors": ["yahoo"],
    "symbols": SYMBOLS,
}


def test_a_killed_backfill_asks_for_nothing_twice_and_keeps_to_the_limits(tmp_path):
    split = {"S1": {date(2023, 6, 12): (4.0, 1.0)}}
    with YahooServer(SYMBOLS, first=FIRST, last=LAST, limits=[(60, 60)], latency=0.3, splits=split) as yahoo:
        installed = Installed(tmp_path, universe(two_years=TWO_YEARS))
        address = {"QUANTLYTIC_YAHOO_URL": yahoo.url}
        plan = installed.run("backfill", "two_years", "--dry-run", **address).expect(0)
        assert "8 requests to yahoo" in plan.out and "4,008 bars missing" in plan.out
        assert yahoo.requests == []
        kills = 0
        for answers in (2, 5):
            process = installed.start("backfill", "two_years", **address)
            patience = time.monotonic() + 120
            while len(yahoo.requests) < answers and time.monotonic() < patience:
                time.sleep(0.02)
            assert process.poll() is None
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
        done = installed.run("backfill", "two_years", **address).expect(0)
        asked = Counter(one.symbol for one in yahoo.requests)
        assert set(asked) == set(SYMBOLS) and yahoo.rejected == 0
        # What was being asked when the process was killed, and nothing else, is asked again.
        assert sum(asked.values()) <= len(SYMBOLS) + kills * YahooVendor.at_once
        assert "no holes" in done.out and "0 failures" in done.out
    counts = installed.rows("SELECT symbol, count(*) AS bars, any_value(vendor) AS vendor FROM clean.bars GROUP BY ALL")
    assert sorted(counts.rows()) == [(symbol, 501, "yahoo") for symbol in SYMBOLS]
