"""Our statistics against the results that empyrical's own tests record: every call, none skipped."""

from __future__ import annotations

import json
import lzma
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from quantlytic_assets.trading.statistics import benchmark, extremes, ratios, returns, risk, rolling

CASES = Path(__file__).parents[2] / "data" / "engine" / "empyrical_stats.jsonl.xz"
RECORDED = 721


def recorded() -> list[dict]:
    with lzma.open(CASES, "rt") as lines:
        return [json.loads(line) for line in lines]


def array(value) -> np.ndarray:
    """A series, a frame, a list or a number as an array of floats."""
    values = value["values"] if isinstance(value, dict) else value
    found = np.array([float(one) for one in np.ravel(values)]) if np.size(values) else np.empty(0)
    if isinstance(value, dict) and "columns" in value:
        return found.reshape(len(value["index"]), len(value["columns"]))
    return found.reshape(np.shape(values))


def periods(inputs: dict) -> int:
    return returns.PERIODS[inputs.get("period", "daily")]


def beside(inputs: dict, second: str = "factor_returns") -> list[np.ndarray]:
    """Returns and what they are compared with, row by row: by index where there is one, else by place."""
    found = [inputs["returns"], inputs[second]]
    if not isinstance(found[1], dict | list):
        return [array(found[0]), array(found[1])]
    values = [array(one) for one in found]
    values = [one[:, 0] if one.ndim == 2 else one for one in values]
    places = [one["index"] if isinstance(one, dict) else list(range(len(one))) for one in found]
    every = sorted(set(places[0]) | set(places[1]), key=lambda one: int(one) if str(one).isdigit() else one)
    at = {place: number for number, place in enumerate(every)}
    aligned = np.full((2, len(every)), np.nan)
    for row, (place, one) in enumerate(zip(places, values, strict=True)):
        aligned[row, [at[each] for each in place]] = one
    return list(aligned)


CALLS = {
    "simple_returns": lambda i: returns.simple_returns(array(i["prices"])),
    "cum_returns": lambda i: returns.cum_returns(array(i["returns"]), i["starting_value"]),
    "cum_returns_final": lambda i: returns.cum_returns_final(array(i["returns"]), i["starting_value"]),
    "annual_return": lambda i: returns.annual_return(array(i["returns"]), periods(i)),
    "cagr": lambda i: returns.annual_return(array(i["returns"]), periods(i)),
    "annual_volatility": lambda i: risk.annual_volatility(array(i["returns"]), periods(i)),
    "max_drawdown": lambda i: risk.max_drawdown(array(i["returns"])),
    "downside_risk": lambda i: risk.downside_risk(
        array(i["returns"]), array(i.get("required_return", 0.0)), periods(i)
    ),
    "value_at_risk": lambda i: risk.value_at_risk(array(i["returns"]), i["cutoff"]),
    "conditional_value_at_risk": lambda i: risk.conditional_value_at_risk(array(i["returns"]), i["cutoff"]),
    "tail_ratio": lambda i: risk.tail_ratio(array(i["returns"])),
    "stability_of_timeseries": lambda i: risk.stability_of_timeseries(array(i["returns"])),
    "sharpe_ratio": lambda i: ratios.sharpe_ratio(*beside(i, "risk_free")),
    "sortino_ratio": lambda i: ratios.sortino_ratio(array(i["returns"]), array(i["required_return"]), periods(i)),
    "calmar_ratio": lambda i: ratios.calmar_ratio(array(i["returns"]), periods(i)),
    "omega_ratio": lambda i: ratios.omega_ratio(*beside(i, "risk_free"), i["required_return"]),
    "excess_sharpe": lambda i: ratios.excess_sharpe(*beside(i)),
    "alpha": lambda i: benchmark.alpha(*beside(i)),
    "alpha_aligned": lambda i: benchmark.alpha(*beside(i)),
    "beta": lambda i: benchmark.beta(*beside(i)),
    "beta_aligned": lambda i: benchmark.beta(*beside(i)),
    "capture": lambda i: benchmark.capture(array(i["returns"]), array(i["factor_returns"])),
    "up_capture": lambda i: benchmark.up_capture(*beside(i)),
    "down_capture": lambda i: benchmark.down_capture(*beside(i)),
    "up_down_capture": lambda i: benchmark.up_down_capture(*beside(i)),
    "batting_average": lambda i: benchmark.batting_average(*beside(i)),
    "gpd_risk_estimates_aligned": lambda i: extremes.gpd_risk_estimates(array(i["returns"])),
    "roll_sharpe_ratio": lambda i: rolling.roll_sharpe_ratio(array(i["arr"]), i["window"]),
    "roll_max_drawdown": lambda i: rolling.roll_max_drawdown(array(i["arr"]), i["window"]),
    "roll_alpha_beta": lambda i: rolling.roll_alpha_beta(*beside(i), i["window"]),
    "roll_up_capture": lambda i: rolling.roll_up_capture(*beside(i), i["window"]),
    "roll_down_capture": lambda i: rolling.roll_down_capture(*beside(i), i["window"]),
    "roll_up_down_capture": lambda i: rolling.roll_up_down_capture(*beside(i), i["window"]),
}


@pytest.fixture(scope="module")
def ran() -> Counter:
    return Counter()


@pytest.mark.parametrize("function", sorted(CALLS))
def test_a_function_gives_what_empyrical_gives(function: str, ran: Counter):
    differing = []
    for case in recorded():
        if case["function"] != function:
            continue
        ours, theirs = np.asarray(CALLS[function](case["inputs"]), dtype=float), array(case["result"])
        if ours.size == theirs.size == 0:
            same = True
        else:
            same = ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=1e-9, atol=1e-12, equal_nan=True)
        ran[function] += 1
        if not same:
            differing.append(f"{case['case']}: {ours.tolist()} instead of {theirs.tolist()}")
    assert ran[function] > 0
    assert differing == []


def test_every_recorded_call_was_made(ran: Counter, capsys):
    counts = Counter(case["function"] for case in recorded())
    assert counts.total() == RECORDED
    assert counts.keys() - CALLS.keys() == set()
    with capsys.disabled():
        print(
            f"\nempyrical: {ran.total()} of {RECORDED} calls, " + ", ".join(f"{n} {one}" for one, n in counts.items())
        )
    # Alone, this test can't tell.
    assert not ran or ran == counts
