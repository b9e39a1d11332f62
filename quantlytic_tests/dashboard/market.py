"""A hot store with something to look at: bars, features, signals, an account, coverage with holes."""

from __future__ import annotations

import math
import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import orjson

from quantlytic_assets.serving.hot_store import HotStore, Writer
from quantlytic_assets.serving.rows import iso, micros, row

MINUTE = 60_000_000
UNIVERSE = """
datasets:
  crypto_1m:
    {calendar: 24/7, interval: 1m, first_session: 2026-01-01, vendors: [], feature_intervals: [1m, 5m],
     symbols: [BTC-USD, ETH-USD, SOL-USD, ADA-USD, XRP-USD]}
  equities_1d:
    {calendar: XNYS, interval: 1d, first_session: 2025-01-02, vendors: [], symbols: [AAPL, MSFT]}
strategies:
  cross:
    {dataset: crypto_1m, interval: 1m, rule: {ma_cross: {fast: 20, slow: 50}}}
"""
SYMBOLS = {"BTC-USD": 64_000.0, "ETH-USD": 3_100.0, "SOL-USD": 145.0, "ADA-USD": 0.45, "XRP-USD": 0.62}
END = datetime(2026, 1, 20, 12, 0, tzinfo=UTC)


def fill(store: HotStore, minutes: int = 700) -> None:
    """Minutes of walks up to `END`, and what follows from them."""
    chance = random.Random(3)
    with store.write() as to:
        for symbol, price in SYMBOLS.items():
            _walk(to, chance, symbol, price, minutes)
        _account(to, chance, minutes)
        _coverage(to, chance)
        # The store has all there is: the API fills one that does not say so from the lake.
        for name in ("crypto_1m", "equities_1d"):
            to.put_fact(b"{}", "dataset", name)


def _walk(to: Writer, chance: random.Random, symbol: str, price: float, minutes: int) -> None:
    closes: list[float] = []
    bars: dict[date, list[tuple[int, bytes]]] = {}
    features: dict[date, list[tuple[int, bytes]]] = {}
    signals: dict[date, list[tuple[int, bytes]]] = {}
    for number in range(minutes):
        start = END - timedelta(minutes=minutes - number)
        time, opens = micros(start), price
        price *= math.exp(chance.gauss(0.00002 * math.sin(number / 60), 0.0009))
        high, low = max(opens, price) * 1.0004, min(opens, price) * 0.9996
        closes.append(price)
        bars.setdefault(start.date(), []).append(
            (
                time,
                row(
                    time, {"o": opens, "h": high, "l": low, "c": price, "v": round(chance.expovariate(0.1), 3), "n": 9}
                ),
            )
        )
        fast, slow = (sum(closes[-n:]) / n if len(closes) >= n else None for n in (20, 50))
        up = [max(0.0, b - a) for a, b in zip(closes[-15:], closes[-14:])]
        down = [max(0.0, a - b) for a, b in zip(closes[-15:], closes[-14:])]
        rsi = 100 * sum(up) / (sum(up) + sum(down)) if len(closes) > 15 else None
        told = {"sma_20": fast, "sma_50": slow, "rsi_14": rsi}
        features.setdefault(start.date(), []).append((time, row(time, told)))
        said = "hold" if fast is None or slow is None else "buy" if fast > slow else "sell"
        signals.setdefault(start.date(), []).append((time, row(time, {"signal": said, "target": 1.0, "strength": 0.5})))
    for kind, rows in (("bars/1m", bars), ("features/1m", features), ("signals/cross", signals)):
        for day, some in rows.items():
            to.add_rows("crypto_1m", kind, symbol, day, some)
    put_price(to, symbol, price, END - timedelta(seconds=1))


def put_price(to: Writer, symbol: str, price: float, at: datetime, size: float = 0.5) -> None:
    """A trade, in the store and in the journal."""
    body = orjson.dumps({"t": iso(micros(at)), "p": price, "s": size, "source": "trade"})
    to.put_latest("crypto_1m", symbol, body)
    to.tell(("latest", "crypto_1m", symbol), body)


def put_bar(to: Writer, symbol: str, at: datetime, close: float, opens: float | None = None) -> None:
    """A final bar of a minute, in the store and in the journal."""
    opens = close if opens is None else opens
    values = {"o": opens, "h": max(opens, close), "l": min(opens, close), "c": close, "v": 3.0, "n": 4}
    body = row(micros(at), values)
    to.add_rows("crypto_1m", "bars/1m", symbol, at.date(), [(micros(at), body)])
    to.tell(("bars", "crypto_1m", "1m", symbol), body[:-1] + b',"revision":0,"final":true}')


def _account(to: Writer, chance: random.Random, minutes: int) -> None:
    value, curve = 100_000.0, []
    for number in range(120):
        value *= math.exp(chance.gauss(0.0008, 0.008))
        curve.append([(date(2025, 9, 22) + timedelta(days=number)).isoformat(), value])
    to.put_fact(orjson.dumps({"session": curve[-1][0], "equity": value}), "equity", "cross")
    to.put_fact(orjson.dumps(curve), "curve", "cross")
    held = [
        {"session": curve[-1][0], "symbol": "BTC-USD", "quantity": 0.35, "average_price": 63_200.0, "close": 64_010.0,
         "market_value": 22_403.5},
        {"session": curve[-1][0], "symbol": "SOL-USD", "quantity": 120, "average_price": 141.2, "close": 145.5,
         "market_value": 17_460.0},
    ]  # fmt: skip
    to.put_fact(orjson.dumps(held), "positions", "cross")
    for number in range(12):
        at = END - timedelta(minutes=minutes - 60 - 50 * number)
        side = "sell" if number % 2 else "buy"
        order = {
            "order_ref": f"cross-{number}", "strategy": "cross", "symbol": "BTC-USD", "side": side, "quantity": 0.35,
            "decision_time": at.isoformat(), "status": "filled",
            "fills": [
                {"fill_time": (at + timedelta(seconds=60)).isoformat(), "price": 64_000.0 + number, "quantity": 0.35}
            ],
        }  # fmt: skip
        to.put_fact(orjson.dumps(order), "orders", "cross", f"cross-{number}")


def _coverage(to: Writer, chance: random.Random) -> None:
    for symbol in SYMBOLS:
        for back in range(45, -1, -1):
            day = END.date() - timedelta(days=back)
            missing = chance.choice([0, 0, 0, 0, 0, 0, 0, 4, 60, 700])
            holes = [{"start": f"{day}T01:00:00Z", "end": f"{day}T02:00:00Z", "cause": "vendor_hole", "bars": missing}]
            fact = {"expected": 1440, "present": 1440 - missing, "missing": missing, "adjustment": "none",
                    "asof": iso(micros(END)), "holes": holes if missing else []}  # fmt: skip
            to.put_fact(orjson.dumps(fact), "coverage", "crypto_1m", symbol, day.isoformat())


def universe_in(directory: Path) -> Path:
    """The universe's file, written there."""
    path = directory / "universe.yaml"
    path.write_text(UNIVERSE)
    return path
