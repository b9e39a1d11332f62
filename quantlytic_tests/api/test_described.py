"""The API against its own OpenAPI document: what is generated, right or wrong, gets documented answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from quantlytic_assets.api.access import SCOPES
from quantlytic_tests.api.desk import Client, Desk, make_desk, serving

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
CREDENTIALS = ("authorization", "x-api-key")
BOUNDED = settings(
    max_examples=7, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return make_desk(tmp_path_factory.mktemp("described"), minutes=2, api_auth="on", api_rate=None)


@pytest.fixture(scope="module")
def api(desk: Desk) -> Iterator[Client]:
    with serving(desk.resources) as client:
        yield client


def test_generated_requests_get_documented_answers(desk: Desk, api: Client):
    key, _ = desk.resources.api_keys.add("generated", SCOPES)
    schema = schemathesis.openapi.from_url(f"{api.base}/openapi.json")
    seen: dict[str, set[int]] = {}

    def ask(case: schemathesis.Case) -> None:
        # Wrong credentials are `test_access`'s business.
        kept = {name: value for name, value in (case.headers or {}).items() if name.lower() not in CREDENTIALS}
        case.headers = {**kept, "x-api-key": key}
        answer = case.call()
        case.validate_response(answer, checks=CHECKS)
        seen.setdefault(case.operation.label, set()).add(answer.status_code)

    for found in schema.get_all_operations():
        operation = found.ok()
        wrong = [GenerationMode.NEGATIVE] if any(operation.iter_parameters()) else []
        for mode in (GenerationMode.POSITIVE, *wrong):
            BOUNDED(given(case=operation.as_strategy(generation_mode=mode))(ask))()
    assert len(seen) == len({f"{method} {path}" for path, methods in api.get("/openapi.json").json["paths"].items()
                             for method in methods})  # fmt: skip
    assert 200 in set.union(*seen.values()) and 422 in set.union(*seen.values())


@pytest.mark.parametrize(
    "path",
    ["/prices/BTC-USD", "/candles/BTC-USD?session=2026-01-06", "/gaps/crypto_1m", "/analytics/BTC-USD", "/strategies",
     "/orders", "/positions", "/api/data/AAPL?dataset=stocks_1d", "/signals/cross_1d", "/metrics",
     "/v2/stocks/bars?symbols=AAPL&timeframe=1Day&start=2020-01-02&end=2020-02-01",
     "/v2/aggs/ticker/AAPL/range/1/day/2020-01-02/2020-02-01"],
)  # fmt: skip
def test_what_there_is_is_answered(desk: Desk, api: Client, path: str):
    key, _ = desk.resources.api_keys.add("plain", SCOPES)
    assert api.get(path, x_api_key=key).status == 200


def test_the_page_of_the_routes_has_them_all(api: Client):
    page = api.get("/docs").body.decode()
    for path in api.get("/openapi.json").json["paths"]:
        assert f"<code>{path}</code>" in page
    assert "<script" not in page and "https://" not in page
