"""Trades to minutes, batch by batch: the bars of a whole frame, whatever is late, comes twice or overtakes others."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest

from quantlytic_assets.live.minutes import GAPS, TAKEN, TOO_LATE, TWICE, Minutes
from quantlytic_assets.live.sources import Price, TickSource
from quantlytic_assets.market_data.stream.messages import MINUTE, Trade, micros
from quantlytic_assets.market_data.stream.ticks import TICK_HEADERS, encode_ticks, tick_frame
from quantlytic_assets.market_data.stream.trade_bars import bars_from_ticks
from quantlytic_assets.storage.bus import Records
from quantlytic_tests.frames import make_dataset, utc

START = micros(utc("2025-05-10T00:00:00"))
SYMBOLS = ("A-USD", "B-USD", "C-USD")
DATASET = make_dataset("24/7", "1m", first=date(2025, 5, 10), last=date(2025, 5, 20), symbols=SYMBOLS)


def trades(count: int, seed: int, seconds: float = 600.0) -> list[Trade]:
    """Trades of the three symbols in the order of their times; the last is silent most of the time."""
    drawn = random.Random(seed)
    numbers = dict.fromkeys(SYMBOLS, 1000)
    found = []
    for moment in sorted(drawn.uniform(0, seconds) for _ in range(count)):
        symbol = drawn.choices(SYMBOLS, (10, 5, 0.3))[0]
        numbers[symbol] += 1
        price, size = round(100 + drawn.gauss(0, 1), 2), round(drawn.uniform(0.0001, 3), 8)
        time = START + int(moment * 1e6)
        found.append(Trade(symbol, numbers[symbol], time, price, size, "buy", time + 1000))
    return found


def trade(symbol: str, number: int, after: int, price: float = 10.0, size: float = 1.0) -> Trade:
    """A trade so many microseconds after the start."""
    return Trade(symbol, number, START + after, price, size, "buy", 0)


def records(stream: list[Trade], first: int) -> Records:
    values = encode_ticks(tick_frame(stream, "venue"))
    return Records(list(range(first, first + len(values))), [one.symbol for one in stream], [""] * len(values), values)


def told(source: TickSource, batches: list[list[Trade]], restart: bool = False) -> tuple[pl.DataFrame, TickSource]:
    """What was said last of each minute, as bars_from_ticks has it.

    restart: after each batch another source takes up everything, or what was kept before and what has changed since.
    """
    said, at = {}, 0
    kept: list[bytes] = []
    for batch in batches:
        taken = source.take({0: records(batch, at)})
        at += len(batch)
        said |= {(bar.symbol, bar.open_time): bar for bar, _ in taken.bars}
        if restart:
            kept = [*kept, source.changes()] if 0 < len(kept) < 8 else [source.kept()]
            again = TickSource(DATASET, {})
            again.restore(kept[0], kept[1:])
            source = again
    said |= {(bar.symbol, bar.open_time): bar for bar, _ in source.idle(micros(datetime.now(UTC))).bars}
    rows = [(*key, *bar[5:12]) for key, bar in sorted(said.items())]
    names = ["symbol", "open_time", "open", "high", "low", "close", "volume", "vwap", "trade_count"]
    return pl.DataFrame(rows, schema=names, orient="row"), source


def wanted(stream: list[Trade]) -> pl.DataFrame:
    bars = bars_from_ticks(tick_frame(stream, "venue"), datetime.now(UTC)).sort("symbol", "open_time")
    return bars.with_columns(pl.col("open_time").dt.epoch("us")).select(
        "symbol", "open_time", "open", "high", "low", "close", "volume", "vwap", "trade_count"
    )


@pytest.mark.parametrize("seed", range(6))
def test_whatever_order_trades_come_in_their_bars_are_those_of_the_whole(seed):
    drawn = random.Random(seed)
    stream = trades(3000, seed)
    # Some are up to a minute and a half late, and some come twice.
    came = sorted(stream, key=lambda one: one.time + drawn.choice([0, 0, 0, 0, 1, 90]) * drawn.uniform(0, 1e6))
    for _ in range(200):
        first = drawn.randrange(len(came))
        came.insert(min(first + drawn.randrange(1, 50), len(came)), came[first])
    batches = []
    while came:
        size = drawn.choice([1, 7, 300])
        batches.append(came[:size])
        came = came[size:]
    found, source = told(TickSource(DATASET, {}), batches, restart=seed % 2 == 1)
    assert found.equals(wanted(stream))
    counts = source._minutes.counts
    assert counts[TAKEN] == len(stream) and counts[TWICE] == 200 and counts[TOO_LATE] == 0
    assert source._minutes.missing() == 0


def test_what_is_kept_is_taken_up_by_a_dataset_with_other_symbols():
    source = TickSource(DATASET, {})
    stream = [one for one in trades(400, 5, 90.0) if one.trade_id % 7]
    source.take({0: records(stream[:100], 0)})
    kept = [source.kept()]
    for first in range(100, len(stream), 50):
        source.take({0: records(stream[first : first + 50], first)})
        kept.append(source.changes())
    assert all(len(one) < len(kept[0]) for one in kept[1:])
    # Without one of them, with a new one, and in another order.
    symbols = ("C-USD", "D-USD", "B-USD")
    again = TickSource(make_dataset("24/7", "1m", first=date(2025, 5, 10), last=date(2025, 5, 20), symbols=symbols), {})
    again.restore(kept[0], kept[1:])
    clock = micros(datetime.now(UTC))
    bars = [(bar, trace) for bar, trace in source.idle(clock).bars if bar.symbol in symbols]
    assert bars and again.idle(clock).bars == bars
    numbers = [one.trade_id for one in stream if one.symbol == "B-USD"]
    assert again._minutes.missing() == max(numbers) - min(numbers) + 1 - len(numbers) > 10
    assert again.take({0: records(stream, len(stream))}).counts["twice"] == sum(one.symbol in symbols for one in stream)


def test_a_minute_is_over_with_the_first_trade_after_it_and_told_again_with_a_late_one():
    source = TickSource(DATASET, {})
    one = [trade("A-USD", 1, 1_000_000), trade("A-USD", 3, MINUTE, 12.0)]
    first = source.take({0: records(one, 0)})
    assert [(bar.open_time, bar.close, bar.final, trace) for bar, trace in first.bars] == [
        (START, 10.0, False, "ticks.sample_set:0:0")
    ]
    late = source.take({0: records([Trade("A-USD", 2, START + 5_000_000, 11.0, 2.0, "buy", 0)], 2)})
    assert [(bar.open_time, bar.close, bar.volume, trace) for bar, trace in late.bars] == [
        (START, 11.0, 3.0, "ticks.sample_set:0:2")
    ]
    assert source.take({0: records([one[0]], 3)}).bars == []
    assert source.prices() == {"A-USD": Price(12.0, 1.0, START + MINUTE)} and late.newest == START + MINUTE
    assert source.prices() == {}


def test_a_silent_symbol_has_minutes_without_a_bar_once_the_market_is_beyond_them():
    source = TickSource(DATASET, {})
    one = [Trade("B-USD", 1, START + 1, 5.0, 1.0, "sell", 0), Trade("A-USD", 1, START + 2, 10.0, 1.0, "buy", 0)]
    assert source.take({0: records(one, 0)}).bars == []
    taken = source.take({0: records([Trade("A-USD", 2, START + 3 * MINUTE + 2_000_000, 10.0, 1.0, "buy", 0)], 2)})
    assert [(bar.symbol, (bar.open_time - START) // MINUTE) for bar, _ in taken.bars] == [("A-USD", 0), ("B-USD", 0)]
    untraded = {(bar.symbol, (bar.open_time - START) // MINUTE) for bar in taken.untraded}
    assert untraded == {("A-USD", 1), ("A-USD", 2), ("B-USD", 1), ("B-USD", 2)}


def test_the_minute_in_which_reading_begins_is_left_out_and_so_is_what_the_lake_has():
    stream = [Trade("A-USD", i, START + i * 20_000_000, 10.0 + i, 1.0, "buy", 0) for i in range(9)]
    begun = TickSource(DATASET, {}).take({0: records(stream, 77)})
    assert [(bar.open_time - START) // MINUTE for bar, _ in begun.bars] == [1]
    known = TickSource(DATASET, {"A-USD": START}).take({0: records(stream, 0)})
    assert [(bar.open_time - START) // MINUTE for bar, _ in known.bars] == [1]


def test_what_is_no_trade_is_counted_and_left_out():
    wrong = [trade("X-USD", 1, 0), trade("A-USD", 2, 0, float("nan")), trade("A-USD", 3, 0, 1.0, -1.0)]
    stream = [trade("A-USD", 1, 0), *wrong]
    good = records(stream, 0)
    values = [*good.values, b"rubbish"]
    taken = TickSource(DATASET, {}).take({0: Records([0, 1, 2, 3, 4], [None] * 5, [""] * 5, values)})
    assert taken.counts["trades"] == 1 and taken.counts["rejected"] == 3 and taken.counts["malformed"] == 1


def test_a_batch_of_many_minutes_has_them_all():
    stream = [trade("A-USD", i, i * 30_000_000, 10.0 + i) for i in range(100)]
    taken = TickSource(DATASET, {}).take({0: records(stream, 0)})
    assert [(bar.open_time - START) // MINUTE for bar, _ in taken.bars] == list(range(49))
    assert taken.untraded == []


def test_more_gaps_than_are_remembered_lose_no_later_trade():
    minutes = Minutes(["A-USD"], {}, 0)
    count = 2 * GAPS
    numbers = np.arange(1, 2 * count, 2)
    same = np.zeros(count, dtype=np.int64)
    arrays = (same, numbers, np.full(count, START), np.full(count, 10.0), np.full(count, 1.0), same, same)
    minutes.take(*arrays, np.full(count, -1))
    assert minutes.counts[TAKEN] == count and 0 < minutes.missing() < count
    assert TICK_HEADERS["schema"] == "market_tick"
