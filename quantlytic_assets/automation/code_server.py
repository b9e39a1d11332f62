"""Dagster's own code server, which goes on looking after its runs where it was once unable to report one.

A code server looks twice a second for processes of runs that have ended without a word, and reports those runs as
failed. In Dagster the thread that does so ends with the first error. Were the database away for a quarter of a minute
in the wrong moment, the server would notice no death of a run any more, and go on to answer that the dead ones are at
work: they would stay `STARTED` until it is started again, and no other landing would follow them.
"""

from __future__ import annotations

import functools
import logging

from dagster._grpc.server import DagsterApiServer

_log = logging.getLogger(__name__)


def go_on_looking_after_runs() -> None:
    """Make this process's code server look again after an error. Runs that it could not report it reports then."""
    look = DagsterApiServer._check_for_orphaned_runs
    if hasattr(look, "__wrapped__"):
        return

    @functools.wraps(look)
    def look_and_go_on(server: DagsterApiServer) -> None:
        try:
            look(server)
        except Exception as error:  # whatever it is: a run is forgotten only when it is reported
            _log.warning("can't look after runs just now: %s: %s", type(error).__name__, error)

    DagsterApiServer._check_for_orphaned_runs = look_and_go_on
