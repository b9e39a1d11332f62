"""`quantlytic explain`: an order back to the archive, and why there was none, from recorded days of two symbols."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
import yaml
from rich.console import Console

from quantlytic_assets.calendars.partitions import archive_keys, windows
from quantlytic_assets.commands.explain import show_explanation
from quantlytic_assets.commands.installation import Installation, UsageError
from quantlytic_assets.features.batch import compute
from quantlytic_assets.features.registry import Registry
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.schemas import features
from quantlytic_assets.schemas.clean import COVERAGE
from quantlytic_assets.schemas.ml import PREDICTIONS
from quantlytic_assets.services.clean import Cleaner
from quantlytic_assets.services.explain import explain_order
from quantlytic_assets.services.halts import ask_to_halt
from quantlytic_assets.services.paper_account import trade
from quantlytic_assets.services.provenance import bar_links
from quantlytic_assets.services.signals import write_signals
from quantlytic_assets.storage.accounts import Accounts
from quantlytic_assets.storage.import_records import ImportRecord, ImportRecords
from quantlytic_tests.frames import make_bars, make_dataset
from quantlytic_tests.storage.places import close_all
from quantlytic_tests.trading.backtest.histories import recorded

FIRST, BEGINS, LAST = date(2010, 10, 1), date(2011, 1, 3), date(2011, 5, 31)
# What the archive lacks of IBM at first, what it never gets, and what a vendor gave wrongly.
LATE, HOLE, WRONG = date(2011, 3, 15), date(2011, 3, 22), date(2011, 3, 24)
FETCHED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RULE = {"dataset": "daily", "interval": "1d", "rule": {"ma_cross": {"fast": 5, "slow": 20}}}
FAST = ["sma_5", "sma_20"]
UNIVERSE = {
    "datasets": {
        "daily": {
            "calendar": "XNYS", "interval": "1d", "first_session": FIRST, "last_session": date(2012, 12, 31),
            "features": ["core", "sma(5)"], "vendors": ["yahoo"],
            "symbols": ["AAPL", {"symbol": "IBM", "to": date(2011, 5, 20)}],
        },
    },
    "strategies": {
        "cross": RULE | {"exits": {"stop_loss": "4%"}},
        "poor": RULE | {"account": {"capital": 50}},
        "far": RULE | {
            "orders": {"type": "limit", "offset_bps": 3000, "time_in_force": "gtc"},
            "account": {"rebalance_band": "30%"},
        },
        "halts": RULE | {"risk": {"max_drawdown": "0.5%"}},
        "stopped": RULE | {"rule": "buy_and_hold"},
        "scored": {
            "dataset": "daily", "interval": "1d", "model": "logistic_regression", "features": FAST,
            "min_train_sessions": 20, "symbols": ["AAPL"], "retrain": "monthly",
        },
        "mix": {"dataset": "daily", "interval": "1d", "portfolio": {"cross": "60%", "scored": "40%"}},
        "holds": RULE | {"rule": "buy_and_hold"},
        "never": RULE | {"rule": "buy_and_hold"},
    },
}  # fmt: skip


def raw_bars() -> pl.DataFrame:
    """The recorded days as a vendor would give them, stamped at midnight."""
    days = recorded().bars.filter(pl.col("session").is_between(FIRST, LAST))
    given = {
        "vwap": pl.lit(None), "trade_count": pl.lit(None), "vendor": pl.lit("yahoo"), "fetched_at": pl.lit(FETCHED),
        "adjustment": pl.lit("none"),
    }  # fmt: skip
    wrong = (pl.col("session") == WRONG) & (pl.col("symbol") == "IBM")
    return days.with_columns(**given, high=pl.when(wrong).then(1.0).otherwise("high")).select(
        "session", *(pl.col(name).cast(dtype) for name, dtype in RAW_SCHEMA.items())
    )


class Desk:
    """An installation, and what is done to it."""

    def __init__(self, root):
        (root / "universe.yaml").write_text(yaml.safe_dump(UNIVERSE))
        self.installation = Installation()
        self.resources = self.installation.resources
        self.lake, self.dataset = self.resources.lake, self.installation.universe.datasets["daily"]
        with self.lake.transaction() as connection:
            for table, more in ((features.BARS, ""), (features.CLOSES, ""), (features.FAMILIES["trend"], FAST)):
                columns = "".join(f", {name} DOUBLE" for name in more)
                connection.execute(f"CREATE TABLE {table.name} ({table.ddl}{columns})")
            connection.execute(
                "CREATE VIEW features.indicators AS SELECT closes.*, sma_5, sma_20 FROM features.closes AS closes "
                "JOIN features.trend USING (dataset, symbol, session, interval, open_time)"
            )

    def fetch(self, bars: pl.DataFrame) -> None:
        """Archive these bars as an answer, clean all, and make features of them."""
        lander = self.resources.lander(self.dataset)
        lander.publish(bars.drop("session"))
        assert lander.land().rows == len(bars)
        keys = archive_keys(bars.select("open_time"), self.dataset)["partition"].unique()
        for window in windows(self.dataset, keys):
            Cleaner(self.resources, self.dataset).clean(window)
        clean = self.lake.query("SELECT * FROM clean.bars WHERE dataset = 'daily'").with_columns(
            interval=pl.lit("1d"), listing=pl.col("symbol"), shares=pl.lit(1.0), complete=pl.lit(True)
        )
        made = compute(clean, Registry().features(["sma(5)", "sma(20)"])).with_columns(
            history_bars=pl.lit(200, pl.Int32)
        )
        keys = [column.name for column in features.FAMILY_KEYS]
        self.lake.replace(
            [
                (features.BARS.name, "true", [], made.select(features.BARS.polars.names())),
                (features.CLOSES.name, "true", [], made.select(features.CLOSES.polars.names())),
                ("features.trend", "true", [], made.select(*keys, *FAST)),
            ]
        )

    def trade(self, name: str, first: date, before: date) -> None:
        strategy = self.installation.universe.strategies[name]
        write_signals(self.lake, strategy, first, before)
        trade(self.lake, self.resources.accounts, self.dataset, strategy, first, before)

    def predict(self, version: str) -> None:
        """Predict a week of Apple's with a model of this version."""
        bars = self.lake.query("SELECT * FROM features.bars WHERE symbol = 'AAPL'").filter(
            pl.col("session").is_between(BEGINS, date(2011, 1, 7))
        )
        trained = datetime(2010, 12, 30, tzinfo=UTC)
        rows = bars.with_columns(
            strategy=pl.lit("scored"), score=pl.lit(0.75), prediction=pl.lit(1), model_version=pl.lit(version),
            trained_through=pl.lit(trained),
        )  # fmt: skip
        self.lake.replace([(PREDICTIONS.name, "true", [], rows.select(PREDICTIONS.polars.names()))])

    def orders(self, name: str, status: str) -> list[str]:
        sql = "SELECT order_ref FROM trading.orders WHERE strategy = ? AND status = ? ORDER BY decision_time"
        return self.lake.query(sql, [name, status])["order_ref"].to_list()

    def told(self, what: str, session: date | None = None, at: datetime | None = None, symbol: str | None = None):
        """What the command prints for people."""
        text = io.StringIO()
        show_explanation(self.installation, Console(file=text, width=400), what, session, at, symbol, False)
        return text.getvalue()


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    root = tmp_path_factory.mktemp("explain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTLYTIC_UNIVERSE", str(root / "universe.yaml"))
        patch.setenv("QUANTLYTIC_HOME", str(root / "home"))
        made, bars = Desk(root), raw_bars()
        ibm = pl.col("symbol") == "IBM"
        made.fetch(bars.filter(~(ibm & pl.col("session").is_in([LATE, HOLE]))))
        hole = {"start": datetime(2011, 3, 22, 13, 30, tzinfo=UTC), "end": datetime(2011, 3, 22, 20, tzinfo=UTC)}
        covered = pl.DataFrame(
            [("daily", "IBM", HOLE, 1, 0, 1, "vendor_hole", [hole | {"cause": "vendor_hole"}], 3, FETCHED)],
            COVERAGE.polars, orient="row",
        )  # fmt: skip
        made.lake.replace([(COVERAGE.name, "true", [], covered)])
        for name in ("cross", "poor", "far", "halts"):
            made.trade(name, BEGINS, date(2011, 4, 1))
        asked = datetime(2011, 1, 1, 9, 30, tzinfo=UTC)
        ask_to_halt(Accounts(made.resources.state_url, clock=lambda: asked), "stopped", "anna", "earnings")
        made.trade("stopped", BEGINS, date(2011, 1, 15))
        # A day of IBM that a file brings when its time has been traded, and the days that follow.
        record = ImportRecord(
            "daily", datetime.now(UTC), "/data/ibm.csv", "f00d", ["IBM"], 1, 0, None, None, {}
        )  # fmt: skip
        made.imported = ImportRecords(made.resources.archive.store).create(record)
        moment = pl.lit(made.imported.imported_at, pl.Datetime("us", "UTC"))
        made.fetch(bars.filter(ibm, session=LATE).with_columns(fetched_at=moment, vendor=pl.lit("import")))
        made.trade("cross", date(2011, 3, 1), date(2011, 5, 27))
        made.predict("8")
        made.trade("scored", BEGINS, date(2011, 1, 15))
        made.trade("mix", BEGINS, date(2011, 1, 15))
        made.predict("9")
        made.trade("holds", LATE, date(2011, 4, 1))
        yield made
        close_all()


def explained(desk, capsys, what: str, **of_session):
    """The command's JSON."""
    asked = {"session": None, "at": None, "symbol": None} | of_session
    capsys.readouterr()
    show_explanation(desk.installation, Console(file=io.StringIO()), what, **asked, as_json=True)
    return json.loads(capsys.readouterr().out)


def links(answer, kind: str) -> list[dict]:
    return [one for one in answer["links"] if one["link"] == kind]


def test_a_filled_order_leads_back_to_the_archived_record_and_its_vendor(desk, capsys):
    order = "cross:AAPL:2011-01-03T21:00:00Z:entry"
    answer = explained(desk, capsys, order)
    assert (answer["status"], answer["filled"], answer["symbol"]) == ("filled", 151, "AAPL")
    assert [one["event"] for one in links(answer, "event")] == ["fill", "order_accepted"]
    fill = links(answer, "event")[0]
    assert (fill["price"], fill["left"]) == (pytest.approx(332.5 * 1.0002), 0) and fill[
        "time"
    ] == "2011-01-04T14:30:00+00:00"
    (decision,), (signal,) = links(answer, "decision"), links(answer, "signal")
    assert decision["weight"] == 1 and decision["id"].startswith("trading.events cross ")
    assert (signal["signal"], signal["decides_by"]) == ("buy", "ma_cross(fast=5, slow=20, kind=sma, short=False)")
    (read,) = links(answer, "features")
    assert read["values"].keys() == set(FAST) and read["values"]["sma_5"] > read["values"]["sma_20"]
    decided, filled = links(answer, "bar")
    assert (decided["bar"], filled["bar"]) == ("decided on", "filled at") and filled["open"] == 332.5
    clean, _ = links(answer, "clean_bars")
    assert clean["vendor"] == "yahoo" and clean["rows"][0]["close"] == decided["close"] == 329.73
    archived, _ = links(answer, "archive")
    archive = desk.resources.archive
    (held,) = [one for one in archive.objects("daily") if one.path == archived["id"]]
    record = archive.read([held]).filter(bus_offset=archived["first_bus_offset"])
    assert record.select("symbol", "close", "source_row").row(0) == ("AAPL", 329.73, archived["first_source_row"])
    assert archived["time"] and all(one["snapshot"] > 0 and one["written_at"] for one in (signal, read, decided, clean))
    vendor, _ = links(answer, "vendor")
    assert vendor["time"] == FETCHED.isoformat() and "is not kept" in vendor["note"]
    # Features were made again when the late bar came, signals of January were not.
    assert "after the order was recorded" in read["note"] and "after the order was recorded" not in signal["note"]
    said = desk.told(order)
    assert "buy 151 AAPL is filled" in said and archived["id"] in said and "sma_20" in said


def test_an_exit_leads_to_the_order_that_opened_its_position(desk, capsys):
    (order,) = [one for one in desk.orders("cross", "filled") if one.endswith(".stop")][:1]
    answer = explained(desk, capsys, order)
    (parent,) = links(answer, "order")
    assert parent["id"] == order.removesuffix(".stop") and parent["side"] == "buy" and answer["side"] == "sell"
    assert links(answer, "decision")[0]["weight"] == 1
    assert [one["bar"] for one in links(answer, "bar")] == ["decided on", "filled at"]


def test_a_rejected_order_says_why_and_what_it_rested_on(desk, capsys):
    answer = explained(desk, capsys, desk.orders("poor", "rejected")[0])
    assert (answer["status"], answer["reason"]) == ("rejected", "below_lot")
    (event,) = links(answer, "event")
    assert event["note"] == "the target is smaller than one lot" and event["time"] == answer["decision_time"]
    assert {"decision", "signal", "features", "bar", "clean_bars", "archive", "vendor"} <= {
        one["link"] for one in answer["links"]
    }


def test_a_bar_that_was_imported_leads_to_its_file(desk, capsys):
    answer = explained(desk, capsys, f"holds:IBM:{LATE}T20:00:00Z:entry")
    vendor = links(answer, "vendor")[0]
    assert vendor["id"] == f"import {desk.imported.id}" and vendor["file"] == "/data/ibm.csv"
    assert vendor["sha256"] == "f00d" and vendor["time"] == desk.imported.imported_at.isoformat()


def test_a_prediction_and_its_model_are_links_where_there_is_one(desk, capsys):
    answer = explained(desk, capsys, "scored:AAPL:2011-01-03T21:00:00Z:entry")
    (prediction,), (model,) = links(answer, "prediction"), links(answer, "model")
    assert (prediction["score"], prediction["trained_through"]) == (0.75, "2010-12-30T00:00:00+00:00")
    # The table has a newer version since; the order was decided with the one that is on record.
    assert prediction["model_version"] == "9" and model["id"] == "scored version 8"
    assert "no such version" in model["note"] and "the order was recorded" in prediction["note"]
    # The store of models is not made by asking.
    assert not desk.resources.models.exists()
    assert links(answer, "signal")[0]["decides_by"].startswith("logistic_regression read by model(")
    assert links(answer, "features")[0]["values"].keys() == set(FAST)


def test_an_order_of_a_portfolio_leads_to_what_each_member_decided_by(desk, capsys):
    answer = explained(desk, capsys, "mix:AAPL:2011-01-03T21:00:00Z:entry")
    said = links(answer, "signal")
    assert [one["id"].split()[1] for one in said] == ["mix", "cross", "scored"]
    assert said[0]["decides_by"] == "portfolio(cross=0.6, scored=0.4)" and "cross 30.0%" in said[0]["note"]
    assert [one["id"] for one in links(answer, "model")] == ["scored version 8"]
    assert len(links(answer, "prediction")) == 1 and len(links(answer, "features")) == 2


@pytest.mark.parametrize(
    ("strategy", "session", "symbol", "code", "words"),
    [
        ("cross", BEGINS, "AAPL", "traded", "buy 151 market is filled at 332.567"),
        ("cross", date(2011, 2, 16), "AAPL", "at_target", "151 are held, which is the target"),
        ("cross", LATE, "AAPL", "at_target", "nothing is held, and nothing is to be"),
        ("cross", LATE, "IBM", "seen_late", "after its time had been traded"),
        ("cross", HOLE, "IBM", "no_bar", "vendor_hole"),
        ("cross", WRONG, "IBM", "no_bar", "rejected as bad_ohlc"),
        ("cross", date(2011, 5, 23), "IBM", "not_in_universe", "does not belong to daily"),
        ("cross", date(2011, 5, 31), "AAPL", "not_traded_yet", "through the bar of 2011-05-26"),
        ("cross", date(2010, 11, 1), "AAPL", "before_account", "begins with 2011-01-03"),
        ("poor", BEGINS, "AAPL", "decision_rejected", "smaller than one lot"),
        ("poor", date(2011, 1, 5), "AAPL", "decision_rejected", "decided 2011-01-03 21:00"),
        ("far", BEGINS, "AAPL", "order_not_filled", "a later decision took its place"),
        ("far", date(2011, 1, 5), "AAPL", "order_working", "buy 151 limit of 2011-01-03 21:00"),
        ("halts", date(2011, 2, 16), "AAPL", "halted", "fell more than risk.max_drawdown"),
        ("stopped", BEGINS, "AAPL", "halted", "asked for by hand; anna asked at 2011-01-01 09:30 UTC: earnings"),
        ("scored", BEGINS, "AAPL", "traded", "300 of 303 filled at 332.567, its session ended"),
        ("scored", date(2011, 1, 11), "AAPL", "inputs_missing", "waits for its model's prediction"),
        ("never", BEGINS, "AAPL", "not_traded_yet", "trading.events has nothing of never"),
    ],
)  # fmt: skip
def test_a_session_is_explained_symbol_by_symbol(desk, capsys, strategy, session, symbol, code, words):
    answer = explained(desk, capsys, strategy, session=session, symbol=symbol)
    (bar,) = answer["bars"]
    assert (bar["symbol"], bar["answer"]) == (symbol, code) and words in bar["text"]


def test_bars_that_may_not_be_used_and_signals_that_are_not_there_are_told(desk, capsys):
    day, mine = date(2011, 1, 11), "symbol = 'AAPL' AND session = DATE '2011-01-11'"
    before = {name: desk.lake.query(f"SELECT * FROM {name} WHERE {mine}") for name in _CHANGED}

    def put(**frames):
        desk.lake.replace([(name, mine, [], {**before, **frames}[name]) for name in _CHANGED])
        return explained(desk, capsys, "cross", session=day, symbol="AAPL")["bars"][0]

    bars, clean, signals, trend = (before[name] for name in _CHANGED)
    try:
        assert put(**{"features.bars": bars.with_columns(complete=False)})["answer"] == "incomplete_bar"
        wrong = clean.with_columns(flags=pl.lit(["times_100"]))
        found = put(**{"features.bars": bars.with_columns(complete=False), "clean.bars": wrong})
        assert found["answer"] == "flagged_bar" and found["flags"] == ["times_100"]
        held = desk.lake.query(f"SELECT 1 FROM trading.orders WHERE strategy = 'cross' AND {mine}")
        assert held.is_empty() and put(**{"trading.signals": signals.clear()})["answer"] == "no_signal"
        hold = signals.with_columns(signal=pl.lit("hold"), reason=pl.lit("no target: what is held is kept"))
        assert put(**{"trading.signals": hold})["text"] == "no target: what is held is kept"
        change = {"features.trend": trend.with_columns(sma_20=pl.lit(None, pl.Float64)), "trading.signals": hold}
        assert put(**change)["text"].endswith("not defined yet: sma_20")
    finally:
        put()


_CHANGED = ("features.bars", "clean.bars", "trading.signals", "features.trend")


def test_without_a_session_the_last_one_traded_is_meant_and_a_time_means_its_bar(desk, capsys):
    answer = explained(desk, capsys, "cross")
    assert answer["session"] == "2011-05-26" and {one["symbol"] for one in answer["bars"]} == {"AAPL", "IBM"}
    at = explained(desk, capsys, "cross", at=datetime(2011, 1, 3, 22, tzinfo=UTC), symbol="AAPL")
    assert [one["open_time"] for one in at["bars"]] == ["2011-01-03T14:30:00+00:00"]
    closed = explained(desk, capsys, "cross", session=date(2011, 3, 26))
    assert closed["bars"] == [] and "the last session before it is 2011-03-25" in closed["why"]
    said = desk.told("halts", session=BEGINS)
    assert "halts on 2011-01-03" in said and "337 of 339 filled at 147.54" in said
    assert "halts:AAPL:2011-01-03T21:00:00Z:entry" in said
    assert "the last session before it is" in desk.told("halts", session=date(2011, 3, 26))


def test_what_there_is_not_is_said_with_what_there_is(desk):
    def refused(*asked):
        with pytest.raises(UsageError) as told:
            show_explanation(desk.installation, Console(file=io.StringIO()), *asked, as_json=True)
        return str(told.value)

    near = refused("cross:AAPL:2011-01-03T21:00:00Z:entri", None, None, None)
    assert "cross:AAPL:2011-01-03T21:00:00Z:entry" in near and "SELECT order_ref FROM trading.orders" in near
    assert "quantlytic sql" in refused("nobody:AAPL:2011-01-03T21:00:00Z:entry", None, None, None)
    assert "go with the name of a strategy" in refused("cross:x", BEGINS, None, None)
    assert "it has: AAPL, IBM" in refused("cross", None, None, "MSFT")
    assert "say which --session" in refused("never", None, None, None)
    assert "take one of them" in refused("cross", BEGINS, datetime(2011, 1, 3, tzinfo=UTC), None)


def test_an_order_of_a_strategy_that_is_gone_is_told_from_the_account_alone(desk):
    order = desk.orders("far", "cancelled")[0]
    kinds = [one.kind for one in explain_order(desk.resources, None, None, order).links]
    assert kinds == ["event", "event", "decision", "signal"]


def test_a_bar_of_many_bars_names_every_object_and_tells_them_together(desk):
    opens = [datetime(2025, 5, 10, 0, minute, tzinfo=UTC) for minute in range(0, 60, 5)]
    dataset = replace(make_dataset("24/7", "5m", first=FIRST, last=None, symbols=("BTC-USD",)), name="coins")
    later = FETCHED + timedelta(minutes=30)
    lander = desk.resources.lander(dataset)
    for some, fetched in ((opens[:6], FETCHED), (opens[6:], later)):
        lander.publish(make_bars("BTC-USD", some, "5m", fetched))
        lander.land()
    (window,) = windows(dataset, ["2025-05-10"])
    Cleaner(desk.resources, dataset).clean(window)
    names = features.BARS.polars.names()
    bar = dict.fromkeys(names) | {
        "symbol": "BTC-USD", "session": date(2025, 5, 10), "interval": "1h", "open_time": opens[0],
        "close_time": opens[0] + timedelta(hours=1),
    }  # fmt: skip
    _, clean, *objects, vendor = bar_links(desk.resources, dataset, bar, "decided on")
    assert clean.facts["bars"] == 12 and [row["open_time"] for row in clean.facts["rows"]] == opens
    assert [(one.kind, one.facts["first_bus_offset"], one.facts["last_bus_offset"]) for one in objects] == [
        ("archive", 0, 5),
        ("archive", 6, 11),
    ]
    assert (vendor.facts["answers"], vendor.facts["first_fetched_at"], vendor.time) == (2, FETCHED, later)
