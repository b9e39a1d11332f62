"""`quantlytic doctor`: each thing that must be right on this machine, checked, with how to mend what is not.

The servers of the services profile are asked in `service_checks`.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from typing import TYPE_CHECKING

from quantlytic_assets.commands.installation import CommandError
from quantlytic_assets.settings import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from quantlytic_assets.commands.installation import Installation

_PROGRAMS = ("dbt", "dagster-webserver", "dagster-daemon")
_FREE_BYTES = 2_000_000_000


def run_doctor(installation: Installation, out: Console) -> None:
    """Check everything, print a line each; raises `CommandError` when something is wrong.

    A wrong environment or universe is raised as such, with all its mistakes.
    """
    settings, universe = installation.settings, installation.universe
    out.print(f"ok    settings: profile {settings.profile}, data in {settings.data}", highlight=False, soft_wrap=True)
    strategies = len(universe.strategies)
    out.print(
        f"ok    universe: {universe.path}, {len(universe.datasets)} datasets, {strategies} strategies",
        highlight=False,
        soft_wrap=True,
    )
    checks: dict[str, Callable[[], str | None]] = {
        "python": _python,
        "programs": _programs,
        "dbt project": _dbt_project,
        "broker": lambda: _broker(installation),
        "vendors": lambda: _vendors(installation),
        "data directory": lambda: _data_directory(installation),
        "notifications": lambda: _notifications(installation),
    }
    # Opened only where the servers behind them answer: runs wait for those longer than anybody waits for a doctor.
    parts: dict[str, Callable[[], str | None]] = {
        "bus": lambda: _opens(lambda: installation.resources.bus.watermarks("doctor")),
        "archive": lambda: _opens(lambda: installation.resources.archive.objects("none")),
        "lake": lambda: _opens(lambda: installation.resources.lake.connect()),
        "state": lambda: _opens(lambda: installation.resources.attempts),
        "models": lambda: _opens(lambda: installation.resources.models),
        "dagster": lambda: _opens(lambda: installation.instance.get_runs_count()),
    }
    problems = {name: check() for name, check in checks.items()}
    services: dict[str, str | None] = {}
    if settings.profile == "services":
        from quantlytic_assets.commands.service_checks import service_problems

        services = service_problems(settings)
    if any(services.values()):
        _tell(out, {**problems, **services})
        unseen = ", ".join([*parts, "asset graph"])
        out.print(f"--    {unseen}: not looked at, they need these services", highlight=False, soft_wrap=True)
    else:
        problems |= {name: check() for name, check in {**parts, "asset graph": lambda: _graph(installation)}.items()}
        _tell(out, {**services, **problems})
    all_problems = {**problems, **services}
    wrong = sum(problem is not None for problem in all_problems.values())
    if wrong:
        raise CommandError(f"{wrong} of {len(all_problems)} checks failed")


def _tell(out: Console, problems: dict[str, str | None]) -> None:
    for name, problem in problems.items():
        out.print(
            f"{'ok   ' if problem is None else 'WRONG'} {name}" + (f": {problem}" if problem else ""),
            highlight=False,
            soft_wrap=True,
            markup=False,
        )


def _graph(installation: Installation) -> str | None:
    return _opens(lambda: installation.definitions.get_repository_def())


def _python() -> str | None:
    if sys.version_info[:2] in ((3, 11), (3, 12)):
        return None
    return f"Python {sys.version.split()[0]} runs; make the environment anew with 3.11: rm -rf .venv && make install"


def _programs() -> str | None:
    from pathlib import Path

    missing = [name for name in _PROGRAMS if not (Path(sys.executable).parent / name).exists()]
    missing += [name for name in ("talib", "duckdb", "mlflow") if importlib.util.find_spec(name) is None]
    return f"{', '.join(missing)} not installed here; run: make install" if missing else None


def _dbt_project() -> str | None:
    project = CHECKOUT / "dbt_project" / "dbt_project.yml"
    return None if project.is_file() else f"{project} is missing; run from a checkout of the project"


def _broker(installation: Installation) -> str | None:
    from quantlytic_assets.brokers.protocol import LiveAccount

    if not any(one.broker == "ibkr" for one in installation.universe.strategies.values()):
        return None
    if all(importlib.util.find_spec(name) is None for name in ("ib_async", "ib_insync")):
        return "broker: ibkr needs ib_async, which is not installed here; run: make install"
    try:
        installation.resources.broker_desk(installation.universe)
    except LiveAccount as error:
        return str(error)
    return None


def _vendors(installation: Installation) -> str | None:
    from quantlytic_assets.vendors.registry import missing_keys

    named = {name for dataset in installation.universe.datasets.values() for name in dataset.vendors}
    missing = missing_keys(sorted(named), installation.settings)
    return "; ".join(f"{name} has no key: set {variable}" for name, variable in missing.items()) or None


def _notifications(installation: Installation) -> str | None:
    unusable = installation.resources.notifier.unusable()
    if not unusable:
        return None
    return f"{', '.join(map(str, unusable))} can't be read; https://appriseit.com/services says how each is written"


def _data_directory(installation: Installation) -> str | None:
    path = installation.settings.data
    try:
        probe = installation.settings.directory("state") / ".doctor"
        probe.write_text("writable")
        probe.unlink()
    except OSError as error:
        return f"{path} can't be written ({error}); set QUANTLYTIC_HOME to a directory of yours"
    free = shutil.disk_usage(path).free
    if free < _FREE_BYTES:
        return f"{free / 1e9:.1f} GB free at {path}; 2 GB are wanted"
    return None


def _opens(open_it: Callable[[], object]) -> str | None:
    try:
        open_it()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
