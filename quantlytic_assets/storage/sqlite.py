"""What every SQLite file of ours needs before several processes can share it."""

from __future__ import annotations

import sqlite3

from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

PATIENCE = 120.0


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


@retry(
    retry=retry_if_exception(_is_locked),
    wait=wait_random(0.005, 0.05),
    stop=stop_after_delay(PATIENCE),
    reraise=True,
)
def use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Let readers and a writer work side by side, and writers wait for each other (up to PATIENCE seconds).

    SQLite does not wait when two connections switch a new file at once, whatever the time-out: one of them is told
    that the file is locked, and has to try again.
    """
    connection.execute(f"PRAGMA busy_timeout={int(PATIENCE * 1000)}")
    connection.execute("PRAGMA journal_mode=WAL")
