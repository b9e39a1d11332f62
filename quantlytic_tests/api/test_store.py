"""The API over a hot store that is missing, deleted or replaced while it runs."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from quantlytic_tests.api.desk import Answer, Client, make_desk, serving


def until_ready(api: Client, path: str = "/prices/BTC-USD") -> Answer:
    patience = time.monotonic() + 60
    while (answer := api.get(path)).status == 503:
        assert time.monotonic() < patience
        assert answer.headers["content-type"] == "application/problem+json" and answer.headers["retry-after"] == "5"
        time.sleep(0.05)
    return answer


def test_a_missing_store_is_filled_from_the_lake(tmp_path: Path):
    desk = make_desk(tmp_path, minutes=2, published=False)
    with serving(desk.resources) as api:
        first = api.get("/prices/BTC-USD")
        assert first.status == 503 and "being filled" in first.json["detail"]
        assert api.get("/healthz").json["status"] in ("filling", "ok")
        assert until_ready(api).status == 200
        assert api.get("/healthz").json["status"] == "ok"
        assert api.get("/candles/ETH-USD?session=2026-01-06").json["count"] == 1440


def test_a_store_that_is_deleted_is_made_anew(tmp_path: Path):
    desk = make_desk(tmp_path, minutes=2)
    with serving(desk.resources) as api:
        before = api.get("/candles/ETH-USD?session=2026-01-06")
        assert before.status == 200
        shutil.rmtree(desk.chosen.data / "hot")
        patience = time.monotonic() + 60
        while api.get("/healthz").json["status"] == "ok" and not (desk.chosen.data / "hot" / "data.mdb").exists():
            assert time.monotonic() < patience
            time.sleep(0.05)
        assert until_ready(api, "/candles/ETH-USD?session=2026-01-06").body == before.body


def test_a_store_that_can_t_be_read_is_told(tmp_path: Path):
    desk = make_desk(tmp_path, minutes=2, published=False)
    hot = desk.chosen.directory("hot")
    (hot / "data.mdb").write_bytes(b"not a store" * 1000)
    with serving(desk.resources) as api:
        answer = api.get("/prices/BTC-USD")
        assert answer.status == 503 and "quantlytic publish" in answer.json["detail"]
        assert api.get("/healthz").status == 503 and api.get("/healthz").json["status"] == "failed"
