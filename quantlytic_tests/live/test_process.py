"""One live path: what it does with late, wrong and repeated bars, with a kept state, and beside the graph."""

from __future__ import annotations

from datetime import date, timedelta

import orjson
import polars as pl
import pytest

from quantlytic_assets.live.process import LiveProcess
from quantlytic_assets.live.sources import TickSource
from quantlytic_assets.live.write_behind import WriteBehind
from quantlytic_assets.market_data.stream.messages import MINUTE, Trade, micros
from quantlytic_assets.market_data.stream.ticks import TICK_HEADERS, encode_ticks, tick_frame
from quantlytic_assets.market_data.wire.records import BAR_HEADERS, encode_bars
from quantlytic_assets.schemas.clean import BARS
from quantlytic_assets.storage.bus import (
    BusUnavailable,
    Sending,
    bars_topic,
    made_bars_topic,
    signals_topic,
    ticks_topic,
)  # fmt: skip
from quantlytic_assets.trading.engine.settings import EngineSettings
from quantlytic_assets.universe.models import Strategy
from quantlytic_tests.frames import make_bars, make_dataset, utc
from quantlytic_tests.live.running import bars_on, look
from quantlytic_tests.storage.places import opened

DATASET = make_dataset(
    "24/7", "1m", None, date(2025, 5, 10), None, ("A-USD", "B-USD"), name="tried_1m", feature_intervals=("1m", "5m"),
    features=("core", "obv", "beta(5, A-USD)", "zscore(ret_1)"),
)  # fmt: skip
STRATEGIES = [
    Strategy("hold", "tried_1m", "1m", ("A-USD", "B-USD"), "buy_and_hold", EngineSettings(1000.0), DATASET.features),
    Strategy("cross", "tried_1m", "5m", ("A-USD",), {"ma_cross": {"fast": 20, "slow": 50}}, EngineSettings(1000.0),
             DATASET.features),
]  # fmt: skip
START = utc("2025-05-10T00:00:00")


@pytest.fixture
def resources(tmp_path):
    with opened("embedded", tmp_path) as place:
        yield place.resources


def live(resources, **options) -> LiveProcess:
    process = LiveProcess(
        DATASET, STRATEGIES, resources.bus, resources.hot, resources.lake, {}, lambda _: None, **options
    )
    process.begin()
    return process


def publish(resources, *bars: pl.DataFrame) -> None:
    rows = pl.concat(bars)
    resources.bus.publish(bars_topic("tried_1m"), encode_bars(rows), rows["symbol"].to_list(), BAR_HEADERS)


def minutes(symbol: str, first: int, last: int, **columns) -> pl.DataFrame:
    return make_bars(symbol, [START + timedelta(minutes=i) for i in range(first, last)], **columns)


def run(process: LiveProcess) -> None:
    while process.step(0):
        pass


def values(resources, kind: str, symbol: str) -> dict[str, dict]:
    with resources.hot.read() as reader:
        block = reader.block("tried_1m", kind, symbol, START.date())
    return {} if block is None else {one["t"]: one for one in orjson.loads(b"[" + block.body + b"]")}


def test_a_late_bar_gives_the_longer_bar_and_the_features_that_it_would_have_given_in_time(tmp_path):
    found = []
    for name, parts in (("in_time", [(0, 40)]), ("late", [(0, 7), (8, 40), (7, 8)])):
        with opened("embedded", tmp_path / name) as place:
            process = live(place.resources)
            for first, last in parts:
                publish(place.resources, minutes("A-USD", first, last), minutes("B-USD", first, last))
                run(process)
            told = process.counts.told()
            assert told["late"] == (0 if name == "in_time" else 2)
            found.append([values(place.resources, kind, one) for kind in ("bars/5m", "features/1m", "features/5m")
                          for one in ("A-USD", "B-USD")])  # fmt: skip
            longer = bars_on(place.resources.bus, made_bars_topic("5m", "tried_1m"))
            assert len(longer) == 16 and longer["revision"].max() == 0
    in_time, late = found
    for mine, theirs in zip(in_time, late, strict=True):
        assert mine.keys() == theirs.keys()
        for time, row in mine.items():
            assert row.keys() == theirs[time].keys()
            assert all(
                theirs[time][name] == pytest.approx(value, rel=1e-9) for name, value in row.items() if name != "t"
            )


def test_a_bar_that_is_said_again_is_nothing_new_and_one_said_otherwise_is_a_revision(resources):
    process = live(resources)
    publish(resources, minutes("A-USD", 0, 12))
    run(process)
    before = len(bars_on(resources.bus, made_bars_topic("1m", "tried_1m")))
    publish(resources, minutes("A-USD", 0, 12))
    run(process)
    assert len(bars_on(resources.bus, made_bars_topic("1m", "tried_1m"))) == before == 12
    publish(resources, minutes("A-USD", 6, 7, high=150.0))
    run(process)
    told = bars_on(resources.bus, made_bars_topic("1m", "tried_1m"))
    assert told.filter(pl.col("revision") == 1)["id"].to_list() == ["A-USD/2025-05-10T00:06:00Z/1"]
    assert values(resources, "bars/1m", "A-USD")["2025-05-10T00:06:00Z"]["h"] == 150.0
    longer = bars_on(resources.bus, made_bars_topic("5m", "tried_1m")).filter(pl.col("revision") == 1)
    assert longer["high"].to_list() == [150.0]
    with resources.hot.read() as reader:
        (entry,) = [one for one in reader.journal(0) if one.channel == ("bars", "tried_1m", "5m", "A-USD")][-1:]
    said = orjson.loads(entry.body)
    assert said["revision"] == 1 and said["final"] and said["trace"] == "bars.tried_1m:0:24" and said["h"] == 150.0


def test_what_cleaning_rejects_is_counted_and_nothing_follows_from_it(resources):
    process = live(resources)
    wrong = [minutes("A-USD", 0, 1, low=999.0), minutes("A-USD", 1, 2, close=-1.0), minutes("X-USD", 2, 3)]
    publish(resources, *wrong, minutes("A-USD", 3, 4))
    resources.bus.publish(bars_topic("tried_1m"), [b"rubbish"], ["A-USD"], BAR_HEADERS)
    run(process)
    told = process.counts.told()
    assert told["rejected"] == 3 and told["malformed"] == 1 and told["records"] == 5
    assert list(values(resources, "bars/1m", "A-USD")) == ["2025-05-10T00:03:00Z"]


def test_a_new_process_goes_on_bit_by_bit(tmp_path):
    told = []
    for cuts in ((), (3, 11, 12, 29)):
        with opened("embedded", tmp_path / f"c{len(cuts)}") as place:
            process = live(place.resources)
            for minute in range(40):
                if minute in cuts:
                    process = live(place.resources)
                publish(place.resources, minutes("A-USD", minute, minute + 1), minutes("B-USD", minute, minute + 1))
                run(process)
            topics = [made_bars_topic("1m", "tried_1m"), made_bars_topic("5m", "tried_1m"), signals_topic("hold")]
            rows = [bars_on(place.resources.bus, topic) for topic in topics]
            told.append((rows, [values(place.resources, "features/1m", one) for one in ("A-USD", "B-USD")]))
    (calm, features), (cut, again) = told
    assert all(one.equals(other) for one, other in zip(calm, cut, strict=True))
    assert features == again


def test_records_that_were_committed_and_not_published_come_with_the_next_process(resources, monkeypatch):
    process = live(resources)
    publish(resources, minutes("A-USD", 0, 10))
    sent = []

    def die(topic, *arguments):
        sent.append(topic)
        if len(sent) == 2:
            raise RuntimeError("killed")
        return publishing(topic, *arguments)

    publishing = resources.bus.publish
    monkeypatch.setattr(resources.bus, "publish", die)
    with pytest.raises(RuntimeError, match="killed"):
        process.step(0)
    monkeypatch.undo()
    run(live(resources))
    for topic, count in ((made_bars_topic("1m", "tried_1m"), 10), (made_bars_topic("5m", "tried_1m"), 2)):
        found = bars_on(resources.bus, topic)
        assert found["id"].n_unique() == len(found) == count
    assert len(bars_on(resources.bus, signals_topic("hold"))) == 10


def test_transactions_that_were_under_way_when_a_process_was_killed_are_published_by_the_next(resources, monkeypatch):
    process = live(resources)

    def lost(*_):
        def wait():
            raise RuntimeError("killed")

        return Sending(wait, lambda: False)

    monkeypatch.setattr(resources.bus, "send", lost)
    for first in (0, 5, 10):
        publish(resources, minutes("A-USD", first, first + 5))
        process.step(0)
    publish(resources, minutes("A-USD", 15, 20))
    with pytest.raises(RuntimeError, match="killed"):
        process.step(0)
    monkeypatch.undo()
    run(live(resources))
    for topic, count in ((made_bars_topic("1m", "tried_1m"), 20), (signals_topic("hold"), 20)):
        found = bars_on(resources.bus, topic)
        assert found["id"].n_unique() == len(found) == count and found["open_time"].is_sorted()


def test_a_process_that_was_killed_before_a_batch_was_in_its_places_goes_on_from_the_same_state(tmp_path, monkeypatch):
    kept = []
    for killed in (False, True):
        with opened("embedded", tmp_path / str(killed)) as place:
            process = live(place.resources)
            for first in (0, 5):
                publish(place.resources, *(minutes(one, first, first + 5) for one in ("A-USD", "B-USD")))
                process.step(0)
            if killed:
                process = live(place.resources)
            run(process)
            publish(place.resources, minutes("A-USD", 8, 12, volume=7.0))
            run(process)
            run(live(place.resources))
            with place.resources.hot.read() as reader:
                state = dict(reader.states("live", "tried_1m"))
            kept.append({name: one for name, one in state.items() if name[0] in ("native", "line", "said", "untraded")})
    assert len(kept[0]) > 70 and kept[0] == kept[1]


def test_signals_do_not_wait_for_what_is_served_and_a_killed_process_serves_it_later(resources, monkeypatch):
    process = live(resources)
    publish(resources, minutes("A-USD", 0, 10))

    def die(*_):
        raise RuntimeError("killed")

    monkeypatch.setattr(WriteBehind, "write", die)
    process.step(0)
    with pytest.raises(RuntimeError, match="killed"):
        process.step(0)
    assert len(bars_on(resources.bus, signals_topic("hold"))) == 10
    assert values(resources, "bars/1m", "A-USD") == {}
    monkeypatch.undo()
    for _ in range(2):
        live(resources)
        with resources.hot.read() as reader:
            told = [one.channel[0] for one in reader.journal(0)]
        assert [told.count(kind) for kind in ("bars", "features", "signals")] == [12, 12, 12]
    assert len(values(resources, "bars/1m", "A-USD")) == len(values(resources, "features/1m", "A-USD")) == 10
    # Features that are not defined yet are left out, here as in what is served at once.
    assert "sma_20" not in values(resources, "features/1m", "A-USD")["2025-05-10T00:05:00Z"]


def test_of_many_bars_at_once_each_has_what_it_has_one_after_the_other(tmp_path):
    found = []
    for name, size in (("at_once", 1500), ("in_turn", 30)):
        with opened("embedded", tmp_path / name) as place:
            process = live(place.resources)
            for first in range(0, 1500, size):
                publish(place.resources, *(minutes(one, first, first + size) for one in ("A-USD", "B-USD")))
                run(process)
            signals = [bars_on(place.resources.bus, signals_topic(one)).drop("trace") for one in ("hold", "cross")]
            rows = [values(place.resources, f"features/{interval}", "A-USD") for interval in ("1m", "5m")]
            found.append((*(one.sort("symbol", "open_time") for one in signals), *rows))
    at_once, in_turn = found
    assert [len(one) for one in at_once] == [3000, 300, 1440, 288]
    assert at_once[0].equals(in_turn[0]) and at_once[1].equals(in_turn[1]) and at_once[2:] == in_turn[2:]


def test_while_the_bus_is_away_what_it_had_is_served(resources, monkeypatch):
    process = live(resources)
    publish(resources, minutes("A-USD", 0, 10))
    process.step(0)
    assert values(resources, "bars/1m", "A-USD") == {}

    def away(*_, **__):
        raise BusUnavailable("away")

    monkeypatch.setattr(resources.bus, "tail", away)
    asked = []

    def stopping() -> bool:
        asked.append(len(values(resources, "bars/1m", "A-USD")))
        return len(asked) > 1

    process.run(stopping)
    assert asked == [0, 10]


def test_another_declaration_begins_anew(resources):
    run_once = live(resources)
    publish(resources, minutes("A-USD", 0, 10))
    run(run_once)
    other = LiveProcess(
        DATASET, STRATEGIES[:1], resources.bus, resources.hot, resources.lake, {}, lambda _: None
    )  # fmt: skip
    other.begin()
    assert other.counts.records == 0
    run(other)
    assert other.counts.records == 10


def test_a_topic_that_was_made_anew_is_read_from_its_start(resources, tmp_path):
    process = live(resources)
    publish(resources, minutes("A-USD", 0, 5))
    run(process)
    for path in resources.settings.directory("bus").glob("bars.tried_1m.sqlite*"):
        path.unlink()
    publish(resources, minutes("A-USD", 5, 7))
    process = live(resources)
    run(process)
    assert len(values(resources, "bars/1m", "A-USD")) == 7


def gone(name: str) -> bool:
    raise OSError("gone")


def test_what_the_graph_has_otherwise_or_alone_is_corrected_and_counted(resources):
    process = live(resources)
    publish(resources, minutes("A-USD", 0, 10))
    run(process)
    rows = minutes("A-USD", 0, 12).with_columns(pl.when(pl.col("open_time") == START + timedelta(minutes=4)).then(777.0)
                                               .otherwise("high").alias("high"))  # fmt: skip
    clean = rows.with_columns(
        pl.lit("tried_1m").alias("dataset"), pl.lit(START.date()).alias("session"),
        pl.col("close_time").alias("available_at"), pl.lit([], pl.List(pl.String)).alias("flags"),
    ).select(BARS.polars.names()).cast(dict(BARS.polars))  # fmt: skip
    resources.lake.replace([("clean.bars", "true", [], clean)])
    # A look that fails half way has told nothing: the next one finds all of it.
    with pytest.raises(OSError, match="gone"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(resources.lake, "has_table", gone)
        look(process)
    graph = look(process)
    process.step(0)
    told = process.counts.told()
    assert (told["differing"], told["missing"], told["compared"]) == (1, 2, 12)
    assert values(resources, "bars/1m", "A-USD")["2025-05-10T00:04:00Z"]["h"] == 777.0
    assert values(resources, "bars/5m", "A-USD")["2025-05-10T00:00:00Z"]["h"] == 777.0
    process._tell_health()
    with resources.hot.read() as reader:
        health = orjson.loads(reader.fact("live", "tried_1m"))
    assert health["differing"] == 1 and health["behind"] == 0 and health["lag_ms"] > 0
    process._watch._fresh = graph
    process.step(0)
    assert process.counts.told()["differing"] == 1
    # What was told once is not looked at again, but for bars that are revised meanwhile.
    assert len(look(process).bars) == 0
    publish(resources, minutes("A-USD", 7, 8, high=500.0))
    run(process)
    assert process._revised == {("A-USD", micros(START + timedelta(minutes=7)))}
    assert len(look(process).bars) == 1
    process.step(0)
    assert process.counts.told()["differing"] == 2
    assert values(resources, "bars/1m", "A-USD")["2025-05-10T00:07:00Z"]["h"] != 500.0


def test_a_row_of_the_graph_that_is_forgotten_meanwhile_is_served_and_not_kept(resources):
    process = live(resources)
    publish(resources, minutes("A-USD", 0, 400))
    run(process)
    lines = process._pipeline.lines["1m"]
    kept = lines.rows(0, ["A-USD"])
    (newest,) = lines.kept("A-USD")[-1:]
    after = newest._replace(open_time=newest.open_time + MINUTE, available_at=newest.available_at + MINUTE)
    made = process._pipeline.take([(after, "here")], rows={"1m": [kept[0]]})
    # With one more bar the oldest row went, and it does not come back beside a hole.
    assert [row for row, trace in made.rows["1m"] if trace == "graph"] == [kept[0]]
    assert [row.bar.open_time for row in lines.rows(0, ["A-USD"])] == [
        *(row.bar.open_time for row in kept[1:]), after.open_time
    ]  # fmt: skip
    later = after._replace(open_time=after.open_time + MINUTE, available_at=after.available_at + MINUTE)
    process._pipeline.take([(later, "here")])
    assert len(lines.rows(0, ["A-USD"])) == len(kept)


def test_batches_from_which_nothing_follows_share_a_transaction(resources, monkeypatch):
    for seconds in ("process._COMMIT_EVERY", "bursts._QUIET", "bursts._LONGEST"):
        monkeypatch.setattr(f"quantlytic_assets.live.{seconds}", 60.0)
    process = live(resources, make_source=TickSource)

    def kept() -> tuple[int, int]:
        """How many records the kept state is of, by its offsets and by its counts."""
        with resources.hot.read() as reader:
            places, counts = process._state.places(reader), process._state.counts(reader)
        return sum(places[ticks_topic("tried_1m")].offsets.values()), counts.get("records", 0)

    def trade(number: int, seconds: int) -> None:
        one = Trade("A-USD", number, micros(START + timedelta(seconds=seconds)), 100.0, 1.0, "buy", 0)
        resources.bus.publish(ticks_topic("tried_1m"), encode_ticks(tick_frame([one], "x")), ["A-USD"], TICK_HEADERS)
        assert process.step(0) == 1

    trade(1, 1)
    assert kept() == (1, 1)
    trade(2, 2)
    trade(3, 3)
    assert kept() == (1, 1)
    # With the next minute comes a bar, and with it all that waited.
    trade(4, 61)
    assert kept() == (4, 4) and values(resources, "bars/1m", "A-USD") == {}
    trade(5, 62)
    assert kept() == (4, 4) and values(resources, "bars/1m", "A-USD") == {}
    # Nothing more comes, so that the bar is served.
    assert process.step(0) == 0
    assert kept() == (5, 5) and values(resources, "bars/1m", "A-USD")["2025-05-10T00:00:00Z"]["n"] == 3


def test_ticks_are_of_one_minute_bars():
    with pytest.raises(ValueError, match="sample_set has bars of 5m"):
        TickSource(make_dataset("XNYS", "5m"), {})
