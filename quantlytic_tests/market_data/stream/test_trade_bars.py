"""Trades into bars: exactly the bars of the recorded trades, and never a wrong one that is not taken back."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.stream.messages import MINUTE, Announced, Message, Trade, moment
from quantlytic_assets.market_data.stream.ticks import tick_frame
from quantlytic_assets.market_data.stream.trade_bars import SIZE_DECIMALS, TradeBars, bars_from_ticks, rounded, vwap
from quantlytic_tests.feeds.recorded import Recorded, bars_of, thinned, trades

NOW = datetime(2024, 8, 9, 12, tzinfo=UTC)
SECOND = 1_000_000
START = 1_723_161_240_000_000
GRACE, PATIENCE = timedelta(seconds=2), timedelta(seconds=10)


def read(recorded: list[Recorded] | tuple[Recorded, ...], symbol: str = "BTC-USD") -> list[Trade]:
    """Recorded trades as a feed reads them."""
    return [
        Trade(
            symbol,
            one.number,
            one.time * 1000,
            float(one.price),
            float(one.size),
            "sell" if one.buyer_is_maker else "buy",
            one.written * 1000,
        )
        for one in recorded
    ]


def trade(number: int, seconds: float, price: float = 100.0, size: float = 1.0, symbol: str = "A") -> Trade:
    """A trade so many seconds after START."""
    time = START + int(seconds * SECOND)
    return Trade(symbol, number, time, price, size, "buy", time)


def said(one: Trade) -> Message:
    return Message(one.symbol, one.time, trades=(one,))


def heard(seconds: float, symbol: str = "A") -> Message:
    """The venue lives."""
    return Message(symbol, START + int(seconds * SECOND))


def builder(*symbols: str, connected: bool = True) -> TradeBars:
    bars = TradeBars("binance", dict.fromkeys(symbols or ("A",), START), GRACE, PATIENCE)
    if connected:
        bars.connected()
    return bars


def decide(bars: TradeBars, seconds: float) -> tuple[list[tuple[int, int]], list[int]]:
    """Decided at so many seconds after START: (minute's number, trades in it) of bars, numbers of wanted minutes."""
    decided = bars.decide(START + int(seconds * SECOND), NOW)
    built = [
        ((int(row["open_time"].timestamp()) * SECOND - START) // MINUTE, row["trade_count"])
        for row in decided.bars.iter_rows(named=True)
    ]
    return built, [(minute - START) // MINUTE for _, minute in decided.wanted]


def assert_like_recorded(bars: pl.DataFrame, recorded) -> None:
    truth = bars_of(recorded)
    assert bars.schema == RAW_SCHEMA
    assert bars["open_time"].dt.timestamp("ms").to_list() == sorted(truth)
    for row in bars.iter_rows(named=True):
        bar = truth[int(row["open_time"].timestamp() * 1000)]
        got = (row["open"], row["high"], row["low"], row["close"], row["volume"], row["trade_count"])
        assert got == (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.trades)
        assert row["vwap"] == pytest.approx(bar.quote_volume / bar.volume, rel=1e-11)
        assert bar.low <= row["vwap"] <= bar.high


class TestOfAFrame:
    """`bars_from_ticks`."""

    def test_recorded_trades_make_exactly_their_bars_to_the_last_digit(self):
        bars = bars_from_ticks(tick_frame(read(trades()), "binance"), NOW)
        assert len(bars) == 12
        assert_like_recorded(bars, trades())
        assert bars["vendor"].unique().to_list() == ["binance"] and bars["fetched_at"].unique().to_list() == [NOW]

    def test_order_and_repetition_make_no_difference(self):
        ticks = tick_frame(read(trades()), "binance")
        mixed = pl.concat([ticks, ticks.gather_every(7)]).sample(fraction=1, shuffle=True, seed=5)
        assert bars_from_ticks(mixed, NOW).equals(bars_from_ticks(ticks, NOW))

    def test_open_and_close_of_one_moment_go_by_the_number(self):
        ticks = tick_frame([trade(12, 1, 3.0), trade(10, 1, 1.0), trade(11, 1, 2.0)], "binance")
        assert bars_from_ticks(ticks, NOW).select("open", "close").row(0) == (1.0, 3.0)

    def test_equal_numbers_of_two_symbols_are_two_trades(self):
        ticks = tick_frame([trade(1, 0, symbol="A"), trade(1, 0, symbol="B")], "binance")
        assert bars_from_ticks(ticks, NOW)["symbol"].to_list() == ["A", "B"]

    def test_a_minute_without_trades_has_no_bar_and_its_neighbours_begin_on_the_minute(self):
        ticks = tick_frame([trade(1, 59.999999), trade(2, 120)], "binance")
        bars = bars_from_ticks(ticks, NOW)
        assert bars["open_time"].to_list() == [moment(START), moment(START + 2 * MINUTE)]
        assert bars["close_time"].to_list() == [moment(START + MINUTE), moment(START + 3 * MINUTE)]

    def test_no_trades_make_no_bars(self):
        assert bars_from_ticks(tick_frame([], "binance"), NOW).equals(pl.DataFrame(schema=RAW_SCHEMA))

    def test_sizes_add_up_to_what_they_say(self):
        ticks = tick_frame([trade(i, i / 10, size=0.1) for i in range(10)], "binance")
        assert bars_from_ticks(ticks, NOW)["volume"].item() == 1.0


class TestOfAStream:
    """`TradeBars`: one thing at a time."""

    def test_a_minute_is_built_when_the_venue_is_past_its_end_by_the_grace(self):
        bars = builder()
        bars.take(heard(-1))
        bars.take(said(trade(1, 10)))
        bars.take(said(trade(2, 61)))
        assert decide(bars, 61.9) == ([], [])
        assert decide(bars, 62) == ([(0, 1)], [])
        assert decide(bars, 63) == ([], [])

    def test_one_that_began_before_the_symbol_was_heard_of_is_wanted(self):
        bars = builder()
        bars.take(heard(1))
        bars.take(said(trade(1, 10)))
        bars.take(said(trade(2, 130)))
        assert decide(bars, 130) == ([], [0])

    def test_a_whole_minute_without_trades_is_neither_built_nor_wanted(self):
        bars = builder()
        bars.take(heard(-1))
        bars.take(heard(61))
        assert decide(bars, 62) == ([], [])

    def test_a_trade_is_new_once(self):
        bars = builder()
        assert len(bars.take(said(trade(1, 1)))) == 1
        assert bars.take(said(trade(1, 1))) == []
        assert bars.take(said(trade(1, 1, symbol="B"))) == [], "not of this feed"

    def test_a_missing_number_makes_the_minutes_wanted_in_which_it_can_have_been(self):
        bars = builder()
        bars.take(heard(-1))
        for one in (trade(1, 10), trade(2, 50), trade(4, 70), trade(5, 130)):
            bars.take(said(one))
        assert decide(bars, 132) == ([], [0, 1])
        bars.take(heard(190))
        assert decide(bars, 190) == ([(2, 1)], [])

    def test_a_number_that_comes_late_but_in_time_mends_it(self):
        bars = builder()
        bars.take(heard(-1))
        for one in (trade(1, 10), trade(3, 61)):
            bars.take(said(one))
        assert decide(bars, 62.5) == ([], []), "it may still come"
        assert len(bars.take(said(trade(2, 59)))) == 1
        assert decide(bars, 62.5) == ([(0, 2)], [])

    def test_the_middle_of_a_gap_leaves_two(self):
        bars = builder()
        bars.take(heard(-1))
        for one in (trade(1, 10), trade(7, 20), trade(4, 15), trade(2, 11), trade(3, 12), trade(6, 19)):
            assert len(bars.take(said(one))) == 1
        bars.take(heard(61))
        assert decide(bars, 62) == ([], [0])

    def test_a_trade_that_comes_after_its_bar_takes_the_bar_back(self):
        bars = builder()
        bars.take(heard(-1))
        bars.take(said(trade(1, 10)))
        bars.take(heard(61))
        assert decide(bars, 62) == ([(0, 1)], [])
        bars.take(said(trade(2, 59)))
        assert decide(bars, 65) == ([], [0])

    def test_a_gap_that_shows_after_the_bar_takes_it_back_once(self):
        bars = builder()
        bars.take(heard(-1))
        bars.take(said(trade(1, 10)))
        bars.take(heard(61))
        assert decide(bars, 62) == ([(0, 1)], [])
        bars.take(said(trade(3, 70)))
        assert decide(bars, 71) == ([], []), "it may be just late"
        assert decide(bars, 73) == ([], [0])
        assert decide(bars, 74) == ([], [])
        bars.take(heard(121))
        assert decide(bars, 122) == ([], [1])

    def test_the_venue_s_word_on_the_last_number_counts_without_a_further_trade(self):
        bars = builder()
        bars.take(heard(-1))
        bars.take(said(trade(1, 10)))
        bars.take(Message("A", START + 61 * SECOND, announced=(Announced("A", 2, START + 60 * SECOND - 1),)))
        assert decide(bars, 62) == ([], [0])

    def test_an_announced_trade_that_is_on_its_way_is_no_gap(self):
        bars = builder()
        bars.take(heard(-1))
        bars.take(said(trade(1, 10)))
        bars.take(Message("A", START + 30 * SECOND, announced=(Announced("A", 2, START + 30 * SECOND),)))
        bars.take(said(trade(2, 29.9)))
        bars.take(heard(61))
        assert decide(bars, 62) == ([(0, 2)], [])

    def test_trades_that_are_announced_and_never_come_are_missed_from_the_first(self):
        bars = builder()
        for seconds, last in ((-1, 5), (30, 9), (61, 9)):
            time = START + seconds * SECOND
            bars.take(Message("A", time, announced=(Announced("A", last, time),)))
        assert decide(bars, 62) == ([], [0])

    def test_the_first_trade_may_be_overtaken(self):
        bars = builder()
        bars.take(heard(-1))
        for one in (trade(12, 11), trade(10, 10), trade(11, 10.5)):
            assert len(bars.take(said(one))) == 1
        bars.take(heard(61))
        assert decide(bars, 62) == ([(0, 3)], [])

    def test_a_venue_that_counts_anew_is_followed(self):
        bars = builder()
        bars.take(heard(-1))
        bars.take(said(trade(1_000_000, 10)))
        bars.take(said(trade(1, 130)))
        assert len(bars.take(said(trade(2, 131)))) == 1
        bars.take(heard(241))
        assert decide(bars, 242) == ([], [0, 1, 2])
        bars.take(said(trade(3, 250)))
        bars.take(heard(301))
        assert decide(bars, 302) == ([(4, 1)], [])

    def test_a_broken_connection_makes_its_minutes_wanted(self):
        bars = builder()
        bars.take(heard(-1))
        bars.take(said(trade(1, 10)))
        bars.disconnected()
        assert decide(bars, 62) == ([], [0])
        bars.connected()
        bars.take(heard(70))
        bars.take(heard(121))
        assert decide(bars, 122) == ([], [1])
        bars.take(heard(181))
        assert decide(bars, 182) == ([], [])

    def test_a_break_over_which_the_numbers_go_on_is_none(self):
        bars = builder()
        bars.take(heard(-1))
        bars.take(said(trade(1, 10)))
        bars.disconnected()
        bars.connected()
        bars.take(said(trade(2, 50)))
        bars.take(heard(61))
        assert decide(bars, 62) == ([(0, 2)], [])

    @pytest.mark.parametrize("message", [said(trade(1, 10)), Message("A", None, announced=(Announced("A", 1, START),))])
    def test_nor_is_one_after_which_the_last_trade_is_still_the_last(self, message):
        bars = builder()
        bars.take(heard(-1))
        bars.take(said(trade(1, 10)))
        bars.disconnected()
        bars.connected()
        bars.take(message)
        bars.take(heard(61))
        assert decide(bars, 62) == ([(0, 1)], [])

    def test_a_connection_that_falls_silent_is_not_trusted(self):
        bars = builder()
        bars.take(heard(-1))
        bars.take(said(trade(1, 10)))
        assert decide(bars, 69) == ([], []), "something may still come"
        assert decide(bars, 70) == ([], [0])
        bars.take(said(trade(2, 71)))
        bars.take(heard(121))
        assert decide(bars, 122) == ([(1, 1)], []), "the numbers went on"

    def test_minutes_from_before_the_start_are_wanted_and_none_earlier(self):
        bars = builder("A", "B", connected=False)
        assert decide(bars, 182) == ([], [0, 1, 2, 0, 1, 2])

    def test_another_symbol_s_messages_show_that_time_goes_on(self):
        bars = builder("A", "B")
        bars.take(heard(-1))
        bars.take(said(trade(1, 10)))
        bars.take(heard(-1, "B"))
        bars.take(heard(61, "B"))
        assert decide(bars, 62) == ([(0, 1)], [])

    def test_each_symbol_has_its_own_numbers_and_gaps(self):
        bars = builder("A", "B")
        for symbol in "AB":
            bars.take(heard(-1, symbol))
            bars.take(said(trade(1, 10, symbol=symbol)))
        bars.take(said(trade(3, 20, symbol="B")))
        bars.take(heard(61))
        decided = bars.decide(START + 62 * SECOND, NOW)
        assert decided.bars["symbol"].to_list() == ["A"]
        assert decided.wanted == [("B", START)]


def mangled(stream: list[Trade], chance: random.Random) -> Iterator[Trade | str]:
    """Trades as a bad day brings them: lost, twice, late, and with breaks; `break` and `back` are the connection's."""
    waiting: list[tuple[int, Trade]] = []
    away = 0
    for i, one in enumerate(stream):
        for due, late in [entry for entry in waiting if entry[0] <= i]:
            yield late
            waiting.remove((due, late))
        if away:
            away -= 1
            if not away:
                yield "back"
            continue
        draw = chance.random()
        if draw < 0.01:
            continue
        if draw < 0.02:
            yield one
        if draw < 0.06:
            waiting.append((i + chance.randint(1, 4), one))
            continue
        if draw < 0.065:
            away = chance.randint(1, 8)
            yield "break"
            continue
        yield one
    yield from (late for _, late in waiting)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_a_stream_does_each_minute_is_right_or_wanted(seed):
    chance = random.Random(seed)
    recorded = thinned(chance.choice((15, 60, 300)))
    truth = bars_of(recorded)
    begin = recorded[0].time * 1000 // MINUTE * MINUTE
    bars = TradeBars("binance", {"A": begin}, GRACE, PATIENCE)
    bars.connected()
    bars.take(Message("A", begin))
    built: dict[int, tuple] = {}
    wanted: list[int] = []

    def decide_at(now: int) -> None:
        decided = bars.decide(now, NOW)
        for row in decided.bars.iter_rows(named=True):
            minute = int(row["open_time"].timestamp() * 1000)
            assert minute not in built, "built twice"
            built[minute] = tuple(row[name] for name in ("open", "high", "low", "close", "volume", "trade_count"))
        wanted.extend(minute // 1000 for _, minute in decided.wanted)

    now, connected = begin, True
    for event in mangled(read(recorded, "A"), chance):
        if isinstance(event, str):
            (bars.disconnected if event == "break" else bars.connected)()
            connected = event == "back"
            continue
        while now + SECOND < event.time:
            now += SECOND
            if connected:
                bars.take(Message("A", now))
            decide_at(now)
        bars.take(Message("A", event.time, trades=(event,)))
    if not connected:
        bars.connected()
    last = Announced("A", recorded[-1].number, recorded[-1].time * 1000)
    for _ in range(130):
        now += SECOND
        bars.take(Message("A", now, announced=(last,)))
        decide_at(now)
    assert set(truth) <= set(built) | set(wanted)
    for minute, got in built.items():
        bar = truth[minute]
        right = got == (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.trades)
        assert right or minute in wanted
    assert len(wanted) < 3 * 13, "a minute is not asked for over and over"
    assert any(minute not in wanted for minute in built) or len(recorded) < 100


def test_one_bar_is_rounded_to_the_bits_of_many():
    drawn = random.Random(11)
    sizes = [drawn.uniform(0, 5) * 10.0 ** drawn.randrange(-9, 10) for _ in range(30_000)]
    sizes += [drawn.randrange(10**10) / 1e8 + drawn.gauss(0, 1e-15) for _ in range(10_000)]
    sizes += [0.0, 4e-9, 5e-9, 1.5e-8, 2.5e-8, 1e13, 1e14, 1e300, float("inf")]
    prices = [drawn.uniform(1, 10) * 10.0 ** drawn.randrange(-14, 15) for _ in sizes]
    near = [10.0**power * (1 + step * 2**-52) for power in range(-12, 13) for step in range(-4, 5)]
    sizes, prices = sizes + [1.0] * len(near), prices + near
    sums = pl.DataFrame({"volume": sizes, "quote": [size * price for size, price in zip(sizes, prices, strict=True)]})
    volume = pl.col("volume").round(SIZE_DECIMALS)
    wanted = sums.select(volume, vwap(pl.col("quote"), volume).alias("vwap")).rows()
    found = [rounded(*row) for row in sums.rows()]
    assert [one for one in zip(found, wanted, strict=True) if repr(one[0]) != repr(one[1])] == []
