"""Start one of Dagster's programs once the code server answers: `python -m … PORT PROGRAM ARGUMENT…`.

The program is imported meanwhile, which takes seconds. Begun before the code server answers it would show an error.
"""

from __future__ import annotations

import socket
import sys
import time
from importlib.metadata import entry_points

# On a busy machine the code server takes that long to start.
PATIENCE_SECONDS = 300


def answers(port: int) -> bool:
    """Whether something listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main() -> None:
    """Import, wait, run."""
    port, program, *arguments = sys.argv[1:]
    (script,) = entry_points(group="console_scripts", name=program)
    run = script.load()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not answers(int(port)):
        if time.monotonic() > deadline:
            sys.exit(f"the code server did not answer on port {port} within {PATIENCE_SECONDS} seconds")
        time.sleep(0.1)
    sys.argv = [program, *arguments]
    sys.exit(run())


if __name__ == "__main__":
    main()
