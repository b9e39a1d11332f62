"""What is done to installations, each once, so that several tests can look at the outcome.

A scenario gets a directory of its own and the installation `base` where it starts from that one. What must have come
of it is said in the tests.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from quantlytic_assets import settings
from quantlytic_assets.market_data.bars import RAW_SCHEMA
from quantlytic_assets.market_data.wire.records import BAR_HEADERS, encode_bars
from quantlytic_assets.storage.bus import LocalBus, bars_topic
from quantlytic_tests.end_to_end.installations import Done, Installed
from quantlytic_tests.end_to_end.universes import CRYPTO_1M, EQUITIES_1D, EQUITIES_5M, universe

# Another seed kills at other moments; the promises hold for all of them.
_SEED = 20250630

BASE = universe(strategies=True, equities_5m=EQUITIES_5M, equities_1d=EQUITIES_1D)
THIRD_SESSION = "2025-07-02"
LATE_SESSION = "2025-07-01"
LATE_CLOSE = 212.25


@dataclass
class Outcome:
    """An installation after a scenario, how each command ended, and what was noted on the way."""

    installed: Installed
    done: dict[str, Done] = field(default_factory=dict)
    noted: dict[str, object] = field(default_factory=dict)


def built(root: Path, profile: str = "embedded") -> Installed:
    """An intraday and a daily dataset with a strategy, backfilled at the same time by two processes."""
    installed = Installed(root, BASE, profile)
    for done in installed.run_all([["backfill", "equities_5m"], ["backfill", "equities_1d"]]):
        done.expect(0)
    return installed


def rebuilt(root: Path, base: Installed) -> Outcome:
    """The lake deleted, everything backfilled again from what else there is, by DuckDB with other threads."""
    installed = base.copied_to(root, with_lake=False)
    outcome = Outcome(installed)
    outcome.noted["before"] = installed.fingerprint("bus", "archive")
    names = ["equities_5m", "equities_1d"]
    commands = [["backfill", name] for name in names]
    outcome.done = dict(zip(names, installed.run_all(commands, QUANTLYTIC_DUCKDB_THREADS="2"), strict=True))
    outcome.noted["after"] = installed.fingerprint("bus", "archive")
    return outcome


_BACKFILL_EACH = """
from datetime import date
from rich.console import Console
from quantlytic_assets.commands.backfill import Backfill
from quantlytic_assets.commands.installation import Installation

installation = Installation()
for session in {sessions!r}:
    backfill = Backfill(installation, Console(quiet=True))
    day = date.fromisoformat(session)
    backfill.dataset(installation.universe.datasets["equities_5m"], day, day)
    assert not backfill.outcome.failures, backfill.outcome.failures
"""


def session_by_session(root: Path) -> Outcome:
    """Three sessions, one run each, in an order that is not theirs. One process, for most of a run is starting it."""
    installed = Installed(root, universe(equities_5m={**EQUITIES_5M, "last_session": THIRD_SESSION}))
    script = _BACKFILL_EACH.format(sessions=("2025-07-01", "2025-06-30", THIRD_SESSION))
    done = subprocess.run(
        [str(settings.PROGRAMS / "python"), "-c", script],
        env=installed.environment(),
        cwd=root,
        capture_output=True,
        text=True,
    )
    return Outcome(installed, {"all": Done(done.returncode, done.stdout, done.stderr)})


def killed(root: Path) -> Outcome:
    """A backfill killed in each layer in turn, then run to its end."""
    installed = Installed(root, universe(strategies=True, equities_1d=EQUITIES_1D))
    outcome = Outcome(installed)
    moment = random.Random(_SEED)
    kills = [
        ("equities_1d__raw_bars", 0.4, "equities_1d"),
        ("equities_1d__clean_bars", 0.6, "equities_1d"),
        ("equities_1d__coverage", 0.4, "equities_1d"),
        ("equities_1d__features", 5.0, "equities_1d"),
        ("momentum_1d__model", 3.0, "equities_1d"),
        ("momentum_1d__predictions", 1.0, "momentum_1d"),
        ("momentum_1d__paper_trades", 1.0, "momentum_1d"),
    ]
    outcome.noted["killed in"] = [
        step for step, most, name in kills if installed.kill_in(step, moment.uniform(0, most), "backfill", name)
    ]
    outcome.done["again"] = installed.run("backfill", "equities_1d")
    return outcome


def twice_at_once(root: Path) -> Outcome:
    """Two backfills of the same sessions, started together where nothing is yet."""
    installed = Installed(root, universe(equities_5m=EQUITIES_5M))
    first, second = installed.run_all([["backfill", "equities_5m"]] * 2, QUANTLYTIC_DUCKDB_THREADS="2")
    return Outcome(installed, {"first": first, "second": second})


def bar(symbol: str, open_time: datetime, close: float, **other: object) -> dict[str, object]:
    """A plausible five-minute bar as a feed would publish it."""
    fields = {
        "symbol": symbol,
        "open_time": open_time,
        "close_time": open_time + timedelta(minutes=5),
        "open": close - 0.1,
        "high": close + 0.5,
        "low": close - 0.5,
        "close": close,
        "volume": 1234.0,
        "vwap": None,
        "trade_count": None,
        "vendor": "feed",
        "fetched_at": datetime.now(UTC),
        "adjustment": "none",
    }
    return fields | other


RUBBISH = [
    b"",
    b"not json at all",
    b"[1, 2, 3]",
    b'{"symbol": "AAPL", "open": "dear"}',
    b"\xff\xfe\x00",
    b'{"symbol": null, "open_time": 1751290200000000}',
]
# A feed's bars of the first session: one for a minute that is there already, with other values, and one for each of
# the two ways in which a session may be none of the dataset's.
FED_CLOSE = 206.0
FED = datetime(2025, 6, 30, 14, 0, tzinfo=UTC)
BEFORE_THE_FIRST = datetime(2025, 6, 27, 14, 0, tzinfo=UTC)
AFTER_THE_LAST = datetime(2025, 7, 10, 14, 0, tzinfo=UTC)


def publish(installed: Installed, bars: list[dict[str, object]], rubbish: list[bytes] = ()) -> None:
    """Put bars on equities_5m's topic, with rubbish between them."""
    values = encode_bars(pl.DataFrame(bars, schema=RAW_SCHEMA))
    mixed = [value for i, good in enumerate(values) for value in (good, *rubbish[i :: len(values)])]
    LocalBus(installed.home / "bus").publish(bars_topic("equities_5m"), mixed, ["AAPL"] * len(mixed), BAR_HEADERS)


def fed(root: Path, base: Installed) -> Outcome:
    """A feed's rubbish among good bars, a symbol and a dataset added to the universe file, and a backfill of both."""
    installed = base.copied_to(
        root,
        with_lake=True,
        universe=universe(equities_5m={**EQUITIES_5M, "symbols": ["AAPL", "SPY", "MSFT"]}, crypto_1m=CRYPTO_1M),
    )
    good = [bar("AAPL", FED, FED_CLOSE), bar("AAPL", BEFORE_THE_FIRST, 201.0), bar("AAPL", AFTER_THE_LAST, 211.0)]
    publish(installed, good, RUBBISH)
    names = ["equities_5m", "crypto_1m"]
    return Outcome(installed, dict(zip(names, installed.run_all([["backfill", name] for name in names]), strict=True)))


def late(root: Path, base: Installed) -> Outcome:
    """A better bar for an old session imported and that session alone backfilled; then the lake rebuilt whole."""
    installed = base.copied_to(root, with_lake=True, universe=universe(equities_5m=EQUITIES_5M))
    outcome = Outcome(installed)
    file = root / "better.csv"
    file.write_text(
        "time,open,high,low,close,volume\n" + f"{LATE_SESSION}T14:00:00Z,211.0,213.0,210.5,{LATE_CLOSE},4321\n"
    )
    mine = "dataset = 'equities_5m'"
    outcome.noted["untouched"] = base.tables(mine)
    outcome.done["import"] = installed.run("import", str(file), "--dataset", "equities_5m", "--symbol", "AAPL")
    outcome.done["backfill"] = installed.run("backfill", "equities_5m", "--from", LATE_SESSION, "--to", LATE_SESSION)
    outcome.noted["mended"] = installed.tables(mine)
    shutil.rmtree(installed.home / "lake")
    outcome.done["rebuild"] = installed.run("backfill", "equities_5m")
    outcome.noted["rebuilt"] = installed.tables(mine)
    return outcome
