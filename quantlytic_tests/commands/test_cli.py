"""The command line itself: version, help, completion, widths, and what a light command does not load."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from quantlytic_assets import settings
from quantlytic_assets.cli import app
from quantlytic_assets.commands.inspection import run_sql
from quantlytic_assets.commands.installation import Installation

UNIVERSE = """
datasets:
  crypto_1m:
    {calendar: 24/7, interval: 1m, first_session: 2025-05-10, last_session: 2025-05-12, vendors: [sample], symbols: [A]}
  crystal_1d: {calendar: XNYS, interval: 1d, first_session: 2025-05-12, vendors: [], symbols: [AAPL]}
strategies:
  crossing: {dataset: crystal_1d, interval: 1d, model: logistic_regression}
"""
HEAVY = ("dagster", "mlflow", "sklearn", "kafka", "pandera", "matplotlib")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An installation with an empty lake, for this process and those that it starts."""
    (tmp_path / "universe.yaml").write_text(UNIVERSE)
    monkeypatch.setenv("QUANTLYTIC_UNIVERSE", str(tmp_path / "universe.yaml"))
    monkeypatch.setenv("QUANTLYTIC_HOME", str(tmp_path / "home"))
    return tmp_path


def loaded(*arguments: str) -> tuple[int, str, set[str]]:
    """Exit code, output and loaded modules of a command in a process of its own."""
    code = (
        "import sys\nfrom quantlytic_assets.cli import main\ncode = 0\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    code = end.code or 0\n"
        "print(code, *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    exit_code, *modules = done.stderr.splitlines()[-1].split()
    return int(exit_code), done.stdout, set(modules)


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        (("status",), ("exchange_calendars", "pandas")),
        # DuckDB itself loads pandas for the parameters of a query.
        (("gaps",), ("exchange_calendars",)),
        (("sql", "SELECT count(*) FROM clean.bars"), ("exchange_calendars", "pandas", "sqlalchemy", "numpy", "ruamel")),
        (("backfill", "crypto_1m", "--dry-run"), ()),
        # TA-Lib would load pandas.
        (("features", "rsi"), ("pandas",)),
        (("--help",), ("polars", "duckdb", "pydantic", "sqlalchemy")),
    ],
)
def test_a_command_that_only_looks_loads_nothing_heavy(home, arguments, more):
    (home / "universe.yaml").write_text(UNIVERSE.partition("strategies:")[0])
    # The first look makes the lake and keeps the sessions.
    assert loaded("status")[0] == 0
    code, _, modules = loaded(*arguments)
    assert code == 0
    assert not modules & {*HEAVY, *more}


def test_an_order_that_there_is_not_is_wrong_usage_and_loads_nothing_heavy(home):
    (home / "universe.yaml").write_text(UNIVERSE.partition("strategies:")[0])
    code, said, modules = loaded("explain", "crossing:AAPL:2025-05-12T20:00:00Z:entry", "--json")
    assert (code, said) == (2, "") and not modules & {*HEAVY}


def test_the_version_and_help_have_their_usual_options(home):
    version = CliRunner().invoke(app, ["--version"])
    assert (version.exit_code, version.stdout.split()[0]) == (0, "quantlytic")
    for arguments in (["-h"], ["gaps", "-h"], ["backfill", "-h"]):
        short, long = (CliRunner().invoke(app, [*arguments[:-1], option]) for option in ("-h", "--help"))
        assert (short.exit_code, short.stdout) == (0, long.stdout)


def complete(words: str, home: Path) -> list[str]:
    environment = {**os.environ, "_QUANTLYTIC_COMPLETE": "complete_bash", "COMP_WORDS": words}
    environment["COMP_CWORD"] = str(len(words.split(" ")) - 1)
    code = "from quantlytic_assets.cli import main; main([])"
    command = f"import sys; sys.argv[0] = 'quantlytic'; {code}"
    done = subprocess.run(
        [settings.PROGRAMS / "python", "-c", command], env=environment, capture_output=True, text=True, cwd=home
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("quantlytic ga", ["gaps"]),
        ("quantlytic gaps cry", ["crypto_1m", "crystal_1d"]),
        ("quantlytic backfill cr", ["crypto_1m", "crystal_1d", "crossing"]),
        ("quantlytic feed cros", []),
        ("quantlytic import x.csv --dataset cryp", ["crypto_1m"]),
    ],
)
def test_a_shell_completes_commands_and_names_of_the_universe(home, words, offered):
    # A mistake of the file is no reason to complete nothing.
    (home / "universe.yaml").write_text(UNIVERSE.replace("interval: 1d,", "interval: 7d,"))
    assert complete(words, home) == offered
    (home / "universe.yaml").write_text("datasets: {a: [}")
    assert complete(words, home) == (offered if words == "quantlytic ga" else [])


def test_completion_can_be_installed():
    assert "--install-completion" in CliRunner().invoke(app, ["--help"]).stdout


@pytest.mark.parametrize("width", [40, 100, 1_000_000])
def test_rows_fit_the_terminal_and_are_whole_when_piped(home, width):
    columns = ", ".join(f"'value {i} of a long row' AS column_{i}" for i in range(12))
    out = Console(file=io.StringIO(), width=width)
    run_sql(Installation(), out, f"SELECT {columns}", "table")
    lines = out.file.getvalue().splitlines()
    assert max(map(len, lines)) <= min(width, 400)
    if width == 100:
        assert any(line.split() == ["column_3", "value", "3", "of", "a", "long", "row"] for line in lines)
    if width == 1_000_000:
        assert sum("value 3 of a long row" in line and "value 11 of a long row" in line for line in lines) == 1
