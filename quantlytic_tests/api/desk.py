"""A small installation whose lake is filled by hand, its hot store by publishing, and its API served on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import uvicorn
import yaml

from quantlytic_assets import settings
from quantlytic_assets.api.app import make_app
from quantlytic_assets.calendars.sessions import expected_bars
from quantlytic_assets.resources import Resources, make_resources
from quantlytic_assets.schemas.clean import BARS, CORPORATE_ACTIONS, COVERAGE
from quantlytic_assets.services.rebuilding import publish_everything
from quantlytic_assets.settings import Settings
from quantlytic_assets.universe.loading import load_universe
from quantlytic_tests.dbt.parsing import give_parsed

FETCHED = datetime(2026, 6, 1, tzinfo=UTC)
UNIVERSE: dict[str, Any] = {
    "datasets": {
        "crypto_1m": {
            "calendar": "24/7", "interval": "1m", "first_session": "2026-01-05", "last_session": "2026-03-31",
            "vendors": ["sample"], "feature_intervals": ["5m", "1h"], "symbols": ["BTC-USD", "ETH-USD"],
        },
        "stocks_1d": {
            "calendar": "XNYS", "interval": "1d", "first_session": "2020-01-02", "last_session": "2021-12-31",
            "vendors": ["sample"], "symbols": ["AAPL", "MSFT"],
        },
        "stocks_5m": {
            "calendar": "XNYS", "interval": "5m", "first_session": "2026-01-05", "last_session": "2026-01-09",
            "vendors": ["sample"], "symbols": ["AAPL"],
        },
    },
    "strategies": {
        "cross_1d": {"dataset": "stocks_1d", "interval": "1d", "rule": {"ma_cross": {"fast": 5, "slow": 10}}},
    },
}  # fmt: skip


def settings_in(home: Path, universe: Mapping[str, Any] = UNIVERSE, **more: Any) -> Settings:
    """Settings of an installation with this universe."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / "universe.yaml"
    path.write_text(yaml.safe_dump(dict(universe), sort_keys=False))
    return Settings(universe=path, home=home / "data", **more)


def walk(grid: pl.DataFrame, dataset: str, symbol: str, seed: int, trades: bool = True) -> pl.DataFrame:
    """Rows of clean.bars at all times of a grid (session, open_time, close_time): a random walk, full precision."""
    drawn = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(drawn.normal(0, 1e-3, len(grid))))
    opened = close * np.exp(drawn.normal(0, 5e-4, len(grid)))
    rows = grid.select("session", "open_time", "close_time").with_columns(
        pl.lit(dataset).alias("dataset"),
        pl.lit(symbol).alias("symbol"),
        pl.Series("open", opened),
        pl.Series("high", np.maximum(opened, close) * 1.0001),
        pl.Series("low", np.minimum(opened, close) * 0.9999),
        pl.Series("close", close),
        pl.Series("volume", drawn.gamma(2, 50, len(grid))),
        pl.Series("trade_count", drawn.integers(1, 500, len(grid))) if trades else pl.lit(None).alias("trade_count"),
        pl.Series("vwap", (opened + close) / 2) if trades else pl.lit(None).alias("vwap"),
        pl.lit("sample").alias("vendor"),
        pl.lit(FETCHED).alias("fetched_at"),
        pl.lit("none").alias("adjustment"),
        pl.col("close_time").alias("available_at"),
        pl.lit([], dtype=pl.List(pl.String)).alias("flags"),
    )
    return rows.select(BARS.polars.names()).cast(BARS.polars)


def covered(
    bars: pl.DataFrame, missing: Mapping[tuple[str, date], tuple[datetime, datetime, str, int]]
) -> pl.DataFrame:
    """Rows of clean.coverage of these bars; `missing` by symbol and session: start, end, cause, and how many bars."""
    holes = [
        {"symbol": symbol, "session": day, "missing_bars": count, "cause": cause,
         "missing_ranges": [{"start": start, "end": end, "cause": cause}]}
        for (symbol, day), (start, end, cause, count) in missing.items()
    ]  # fmt: skip
    schema = {name: COVERAGE.polars[name] for name in ("symbol", "session", "missing_bars", "cause", "missing_ranges")}
    lacking = pl.DataFrame(holes, schema=schema)
    counted = bars.group_by("dataset", "symbol", "session").agg(pl.len().cast(pl.Int64).alias("present_bars"))
    rows = counted.join(lacking, on=["symbol", "session"], how="left").with_columns(
        pl.col("missing_bars").fill_null(0),
        pl.col("missing_ranges").fill_null(pl.lit([], dtype=COVERAGE.polars["missing_ranges"])),
        pl.lit(1).cast(pl.Int64).alias("attempts"),
        pl.lit(FETCHED).alias("checked_at"),
    )
    rows = rows.with_columns((pl.col("present_bars") + pl.col("missing_bars")).alias("expected_bars"))
    return rows.select(COVERAGE.polars.names()).cast(COVERAGE.polars)


@dataclass
class Desk:
    """The installation, and what was put into its lake by dataset."""

    resources: Resources
    bars: dict[str, pl.DataFrame] = field(default_factory=dict)

    @property
    def chosen(self) -> Settings:
        """The settings."""
        return self.resources.settings

    def fill(self, dataset: str, bars: pl.DataFrame, missing: Mapping[Any, Any] | None = None) -> None:
        """Put bars and their coverage into the lake in place of the dataset's."""
        self.bars[dataset] = bars
        mine = ("dataset = ?", [dataset])
        self.resources.lake.replace(
            [("clean.bars", *mine, bars), ("clean.coverage", *mine, covered(bars, missing or {}))]
        )

    def act(
        self, dataset: str, symbol: str, session: date, kind: str, value: float | None, new_symbol: str | None = None
    ) -> None:
        """Add a corporate action to the lake."""
        row = {
            "dataset": dataset, "symbol": symbol, "session": session, "kind": kind, "value": value,
            "new_symbol": new_symbol, "known_on": session, "adjustment": "none",
        }  # fmt: skip
        made = pl.DataFrame(
            [{**dict.fromkeys(CORPORATE_ACTIONS.polars.names()), **row}], schema=CORPORATE_ACTIONS.polars
        )
        self.resources.lake.replace([("clean.corporate_actions", "false", [], made)])

    def adjust(self) -> None:
        """Have dbt make the view of adjusted bars, as the feature assets do."""
        target = self.chosen.directory("dbt") / "target"
        give_parsed(target)
        environment = os.environ | self.resources.lake.dbt_environment()
        environment |= {"DBT_TARGET_PATH": str(target), "DBT_LOG_PATH": str(target)}
        project, dbt = str(settings.DBT_PROJECT), str(settings.PROGRAMS / "dbt")
        command = [dbt, "--no-use-colors", "run", "--project-dir", project, "--profiles-dir", project]
        command += ["--select", "adjusted_bars"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def publish(self) -> None:
        """Fill the hot store from the lake."""
        universe = load_universe(self.chosen.universe)
        publish_everything(self.resources, universe, universe.datasets.values())


def grid(dataset: str, first: date, last: date, universe: Mapping[str, Any] = UNIVERSE) -> pl.DataFrame:
    """The times at which a dataset of the universe has bars."""
    declared = universe["datasets"][dataset]
    return expected_bars(declared["calendar"], declared["interval"], first, last)


def make_desk(home: Path, minutes: int = 5, published: bool = True, **more: Any) -> Desk:
    """A desk with `minutes` sessions of crypto minutes, two years of two stocks, and a week of five minutes of one.

    BTC-USD lacks ten minutes of its second session, which its vendor has not.
    """
    desk = Desk(make_resources(settings_in(home, **more)))
    first = date(2026, 1, 5)
    times = grid("crypto_1m", first, first + timedelta(days=minutes - 1))
    bars = pl.concat([walk(times, "crypto_1m", symbol, seed) for seed, symbol in enumerate(("BTC-USD", "ETH-USD"))])
    hole = datetime(2026, 1, 6, 10, tzinfo=UTC), datetime(2026, 1, 6, 10, 10, tzinfo=UTC)
    lacking = (pl.col("symbol") == "BTC-USD") & (pl.col("open_time") >= hole[0]) & (pl.col("open_time") < hole[1])
    desk.fill("crypto_1m", bars.filter(~lacking), {("BTC-USD", date(2026, 1, 6)): (*hole, "vendor_hole", 10)})
    days = grid("stocks_1d", date(2020, 1, 2), date(2021, 12, 31))
    desk.fill("stocks_1d", pl.concat([walk(days, "stocks_1d", one, 7, trades=False) for one in ("AAPL", "MSFT")]))
    desk.fill("stocks_5m", walk(grid("stocks_5m", date(2026, 1, 5), date(2026, 1, 9)), "stocks_5m", "AAPL", 11))
    if published:
        desk.publish()
    return desk


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body read as JSON."""
        return json.loads(self.body)


class Client:
    """Asks a server."""

    def __init__(self, port: int):
        self.port = port
        self.base = f"http://127.0.0.1:{port}"

    def get(self, path: str, **headers: str) -> Answer:
        """GET; `_` in the names of headers is `-`."""
        return self.ask("GET", path, None, **headers)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Any method, with a JSON body where one is given."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            sent["content-type"] = "application/json"
        # A connection each: the server ends those that wait long.
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


@contextmanager
def serving(resources: Resources) -> Iterator[Client]:
    """The API of an installation, on a free port of loopback."""
    config = uvicorn.Config(make_app(resources), port=0, log_level="critical", http="httptools", loop="uvloop")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    patience = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive() and time.monotonic() < patience, "the API did not start"
        time.sleep(0.02)
    client = Client(server.servers[0].sockets[0].getsockname()[1])
    try:
        yield client
    finally:
        server.should_exit = True
        thread.join(timeout=30)
