"""The automatic review: each finding where it belongs, with its figures, and none where all is well."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.trading.review import FILL_COLUMNS, ROUND_TRIP_COLUMNS, Finding, Limits, review

OPEN = datetime(2024, 3, 1, 14, 30, tzinfo=UTC)


def fills(number: int = 40, **changes) -> pl.DataFrame:
    """Fills of 10 units a bar of 1,000; a change is a column's values at the first bars."""
    columns = {
        "symbol": ["AAA"] * number,
        "open_time": [OPEN + timedelta(days=one) for one in range(number)],
        "price": [100.0] * number,
        "quantity": [10.0] * number,
        "bar_volume": [1000.0] * number,
        "stale": [False] * number,
        "incomplete": [False] * number,
        "ambiguous": [False] * number,
    }
    for name, values in changes.items():
        columns[name][: len(values)] = values
    return pl.DataFrame(columns, schema_overrides={"quantity": pl.Float64, "bar_volume": pl.Float64})


def trips(profits=(10.0,) * 40, sessions=None) -> pl.DataFrame:
    days = sessions or [date(2024, 3, 1) + timedelta(days=one) for one in range(len(profits))]
    schema = {"symbol": pl.String, "session": pl.Date, "profit": pl.Float64}
    return pl.DataFrame({"symbol": ["AAA"] * len(profits), "session": days, "profit": profits}, schema)


def found(filled=None, closed=None, **options) -> list[Finding]:
    filled, closed = fills() if filled is None else filled, trips() if closed is None else closed
    return review(filled, closed, volume_cap=0.025, **options)


def test_nothing_is_found_where_all_is_well():
    assert found(parameters=1, total_return=0.5, doubled_costs_return=0.4) == []


def test_fills_on_bars_that_were_none():
    stale, incomplete = found(fills(stale=[False, True, True], incomplete=[True]))
    assert stale == Finding(
        "stale_fills", "error",
        "2 of 40 fills were on a price that had not changed for too long to be one, "
        "the first of AAA at 2024-03-02 14:30.",
    )  # fmt: skip
    assert (incomplete.code, incomplete.severity) == ("incomplete_fills", "error")
    assert incomplete.text.startswith("1 of 40 fills was on a bar that lacked part of its data")


def test_the_volume_of_a_bar_is_shared_by_its_fills():
    same_bar = fills(open_time=[OPEN, OPEN, OPEN], quantity=[10, -10, 10])
    assert found(same_bar) == [
        Finding(
            "over_volume_cap", "error",
            "1 of 38 traded bars took more than 2.5 % of the bar's volume; the worst was AAA at 2024-03-01 14:30 with "
            "3 % of it.",
        )
    ]  # fmt: skip
    assert found(fills(quantity=[25.0, 0.025 * 1000])) == []


def test_a_fill_without_volume_is_too_much():
    (one,) = found(fills(bar_volume=[0.0]))
    assert one.code == "over_volume_cap" and one.text.endswith("with no volume at all.")


def test_unknown_volume_is_said():
    assert found(fills(bar_volume=[None, None])) == [
        Finding("unknown_volume", "warning", "2 of 40 fills were on a bar of unknown volume.")
    ]


def test_the_share_of_ambiguous_bars_decides_how_grave_it_is():
    (one,) = found(fills(ambiguous=[True]))
    assert one.severity == "note" and one.text.startswith("1 of 40 fills (2.5 %) was in a bar that touched both")
    (many,) = found(fills(ambiguous=[True] * 10))
    assert many.severity == "warning" and many.text.startswith("10 of 40 fills (25 %) were")


@pytest.mark.parametrize(
    ("trades", "parameters", "said"),
    [
        (29, 0, "29 round trips for no searched parameter: fewer than 30"),
        (30, 0, None),
        (40, 2, "40 round trips for 2 searched parameters: fewer than 60"),
        (40, 1, None),
    ],
)
def test_a_search_needs_trades(trades: int, parameters: int, said: str | None):
    texts = [one.text for one in found(closed=trips([10.0] * trades), parameters=parameters)]
    assert texts == [] if said is None else texts[0].startswith(said)


def test_profit_from_one_trade():
    (one,) = found(closed=trips([400.0, *[10.0] * 30]))
    assert one.code == "one_trade"
    assert (
        "AAA closed on 2024-03-01, made 400.00 of the net profit of 700.00; the others together made 300.00" in one.text
    )
    assert found(closed=trips([-400.0, *[10.0] * 30])) == []


def test_profit_from_one_day():
    sessions = [date(2024, 3, 1)] * 20 + [date(2024, 3, 1) + timedelta(days=one) for one in range(1, 21)]
    (one,) = found(closed=trips([30.0] * 20 + [10.0] * 20, sessions))
    assert one.code == "one_day"
    assert "2024-03-01, closed 20 round trips with 600.00 of the net profit of 800.00; all others" in one.text


def test_doubled_costs():
    (lost,) = found(total_return=0.1, doubled_costs_return=-0.02)
    assert (lost.code, lost.severity) == ("costs", "error")
    assert lost.text.startswith("At doubled costs the return is -2 % instead of 10 %")
    (halved,) = found(total_return=0.1, doubled_costs_return=0.04)
    assert (halved.code, halved.severity) == ("costs", "warning")
    assert found(total_return=-0.1, doubled_costs_return=-0.2) == []


def test_the_gravest_comes_first():
    given = fills(ambiguous=[True], stale=[True], bar_volume=[None])
    severities = [one.severity for one in found(given, trips([5.0]))]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert len(severities) == 4


def test_limits_can_be_set():
    assert found(fills(ambiguous=[True] * 10), trips([1.0] * 5), limits=Limits(5, ambiguous=0.5))[0].severity == "note"


def test_an_account_that_never_traded():
    (one,) = found(fills(0), trips(()))
    assert (one.code, one.severity) == ("no_trades", "note")


@pytest.mark.parametrize("column", FILL_COLUMNS)
def test_a_fills_column_that_is_missing_is_said(column: str):
    with pytest.raises(ValueError, match=f"fills have no {column}"):
        found(fills().drop(column))


@pytest.mark.parametrize("column", ROUND_TRIP_COLUMNS)
def test_a_round_trips_column_that_is_missing_is_said(column: str):
    with pytest.raises(ValueError, match=f"round trips have no {column}"):
        found(closed=trips().drop(column))
