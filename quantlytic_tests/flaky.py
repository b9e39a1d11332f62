"""Tells CI which tests failed, and after a second run of those which of them are flaky.

pytest writes down the tests of its last run that failed; `failed` prints them one a line, `compare` prints those of a
list that a later run has passed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")
# A machine that fails this many has another fault than a flaky test.
MOST = 40


def last_failed(path: Path = LAST_FAILED) -> list[str]:
    """The tests that failed in the last run, in the order of their names."""
    return sorted(json.loads(path.read_text())) if path.exists() else []


def flaky(first: list[str], second: list[str]) -> list[str]:
    """The tests that failed the first time and passed the second time. A failed file counts for all of its tests."""
    return [name for name in first if not any(name == other or name.startswith(f"{other}::") for other in second)]


def main(arguments: list[str]) -> int:
    """See the module. Prints nothing where more failed than is worth a second run."""
    if arguments[:1] == ["failed"]:
        found = last_failed()
        print("\n".join(found) if len(found) <= MOST else "")
        return 0
    found = flaky(arguments[1].splitlines(), last_failed())
    if found:
        print(f"FLAKY: {len(found)} tests failed once and passed when they were repeated. Mend them:")
        print("\n".join(f"  {name}" for name in found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
