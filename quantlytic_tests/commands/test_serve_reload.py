"""What `serve` says when the universe file has changed under it."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from quantlytic_assets.commands.serve import on_change
from quantlytic_assets.universe.watch import WatchedUniverse
from quantlytic_tests.end_to_end.universes import CRYPTO_1M, universe

LOADED = {"__typename": "WorkspaceLocationEntry", "locationOrLoadError": {"__typename": "RepositoryLocation"}}
BROKEN = {"__typename": "WorkspaceLocationEntry", "locationOrLoadError": {"__typename": "PythonError", "message": "no"}}


def watched(path: Path, interval: str = "1m") -> WatchedUniverse:
    path.write_text(yaml.safe_dump(universe(crypto_1m=CRYPTO_1M)))
    found = WatchedUniverse(path)
    path.write_text(yaml.safe_dump(universe(crypto_1m={**CRYPTO_1M, "interval": interval, "venue": "other"})))
    assert found.changed()
    return found


@contextmanager
def webserver(entry: dict) -> Iterator[tuple[int, list[dict]]]:
    """Answers as Dagster does to a reload; yields its port and what it was asked."""
    asked: list[dict] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            body = json.dumps({"data": {"reloadRepositoryLocation": entry}}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], asked
        finally:
            server.shutdown()
            thread.join()


def test_a_right_file_is_loaded_by_the_ui(tmp_path: Path):
    with webserver(LOADED) as (port, asked):
        assert "has loaded it again" in on_change(watched(tmp_path / "universe.yaml"), port)
    assert [request["variables"] for request in asked] == [{"name": "quantlytic"}]


def test_a_file_with_mistakes_is_told_and_not_loaded(tmp_path: Path):
    with webserver(LOADED) as (port, asked):
        said = on_change(watched(tmp_path / "universe.yaml", interval="7m"), port)
    assert asked == []
    assert "has mistakes" in said and "datasets.crypto_1m.interval" in said


def test_a_ui_that_cannot_load_it_or_does_not_answer_is_told(tmp_path: Path):
    with webserver(BROKEN) as (port, _):
        assert on_change(watched(tmp_path / "universe.yaml"), port).endswith("can't load it: no")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    assert "Deployment, Reload" in on_change(watched(tmp_path / "universe.yaml"), closed)
