"""`python -m quantlytic_tests.brokers.insync`: the tests of the broker with ib_insync in place of ib_async.

The two can't live in one environment, for both bring a package `eventkit`. So ib_insync gets an environment of its own,
in which everything else is this one's and ib_async can't be imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

# Read by Python when it starts: who asks for ib_async is told that it is not there.
_HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ib_async":
            raise ModuleNotFoundError("ib_async is hidden here", name=name)

sys.meta_path.insert(0, Hidden())
"""
_TESTED = ("quantlytic_tests/brokers",)


def make_environment(place: Path) -> Path:
    """An environment with ib_insync, this one's packages behind its own, and no ib_async; returns its Python."""
    venv.create(place, with_pip=True, symlinks=True)
    python = place / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "ib_insync"], check=True)
    known = "import sysconfig; print(sysconfig.get_path('purelib'))"
    found = subprocess.run([python, "-c", known], check=True, capture_output=True, text=True)
    own = Path(found.stdout.strip())
    (own / "hidden_ib_async.py").write_text(_HIDE)
    (own / "behind.pth").write_text(f"import hidden_ib_async\n{sysconfig.get_path('purelib')}\n")
    return python


def main() -> int:
    """Run the tests; their exit code."""
    checkout = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as place:
        python = make_environment(Path(place))
        named = "import quantlytic_assets.vendors.ibkr as i; print(i.ibkr_library().__name__)"
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        told = subprocess.run(
            [python, "-c", named], check=True, capture_output=True, text=True, env=environment, cwd=checkout
        )
        print(f"library: {told.stdout.strip()}", flush=True)
        assert told.stdout.strip() == "ib_insync"
        command = [python, "-m", "pytest", "-q", "-n", "0", *_TESTED, *sys.argv[1:]]
        return subprocess.run(command, env=environment, cwd=checkout, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
