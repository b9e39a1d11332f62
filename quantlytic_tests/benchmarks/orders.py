"""How long it takes until a session's orders are confirmed, with the ledger and its writes before each one.

Baseline: the same orders handed to the library one after the other, without a ledger, against the same loopback TWS.
Both keep IB's 50 messages a second, which is most of the time.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from quantlytic_assets.brokers.protocol import Listing, OrderReport, Ticket, Traded
from quantlytic_tests.brokers.bench import APPLE, Bench

ORDERS = 50
WANTED_SECONDS = 5.0


def main() -> int:
    """Measure and print; 1 where it takes too long."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ORDERS
    names = [f"S{number}" for number in range(count)]
    instruments = [replace(APPLE, con_id=number + 1, symbol=name) for number, name in enumerate(names)]
    with tempfile.TemporaryDirectory() as root, Bench(Path(root), instruments).serving() as bench:
        bench.book.prices.update(dict.fromkeys(names, 50.0))
        broker = bench.broker()
        broker.connect()
        began = time.perf_counter()
        found = broker.listings([Traded(name, "XNYS") for name in names]).values()
        listings = [one for one in found if isinstance(one, Listing)]
        broker.place([Ticket(f"b:{one.traded.symbol}", one, 1, 1.0, "market", "day") for one in listings])
        confirmed: set[str] = set()
        while len(confirmed) < count:
            confirmed |= {one.order_ref for one in broker.reports(1.0) if isinstance(one, OrderReport)}
        alone = time.perf_counter() - began
        broker.close()
        desk = bench.desk()
        refs = [bench.write(name) for name in names]
        began = time.perf_counter()
        desk.settle_down(60)
        own = time.perf_counter() - began
        assert {bench.status(ref) for ref in refs} == {"filled"}
    print(f"{count} orders: library alone {alone:.2f} s, with the ledger {own:.2f} s, ratio {own / alone:.2f}")
    return 1 if own > WANTED_SECONDS * count / ORDERS else 0


if __name__ == "__main__":
    sys.exit(main())
