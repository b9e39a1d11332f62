"""Which of several reports of an action counts, and that none is lost silently."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from quantlytic_assets.market_data.actions.reconcile import ACTIONS_SCHEMA, CORPORATE_ACTIONS_SCHEMA, REASONS, reconcile

DAY = date(2014, 6, 9)


def told(*rows: dict) -> pl.DataFrame:
    filled = [
        {
            "symbol": "AAPL",
            "session": DAY,
            "kind": "split",
            "value": 7.0,
            "adjustment": "none",
            "vendor": "yahoo",
            "recorded_at": datetime(2020, 9, 1, tzinfo=UTC),
            "source_object": "d/actions/a.parquet",
            "source_row": i,
        }
        | row
        for i, row in enumerate(rows)
    ]
    return pl.DataFrame(filled, schema={**ACTIONS_SCHEMA, "source_object": pl.String, "source_row": pl.Int64})


def at(year: int) -> datetime:
    return datetime(year, 1, 2, tzinfo=UTC)


def test_the_newest_report_counts_and_an_import_before_all():
    rows = ({"value": 6.0, "recorded_at": at(2016)}, {"value": 7.0, "recorded_at": at(2018)}, {"recorded_at": at(2015)})
    assert reconcile(told(*rows[:2]), "d").actions["value"].to_list() == [7.0]
    reconciled = reconcile(told(*rows, {"value": 7.5, "vendor": "import", "recorded_at": at(2014)}), "d")
    assert reconciled.actions.select("value", "vendor").rows() == [(7.5, "import")]
    assert reconciled.actions.schema == CORPORATE_ACTIONS_SCHEMA
    assert reconciled.disputed["value"].sort().to_list() == [6.0, 7.0, 7.0, 7.5]
    shuffled = told(*rows, {"value": 7.5, "vendor": "import", "recorded_at": at(2014)}).reverse()
    assert reconcile(shuffled, "d").actions.equals(reconciled.actions)


def test_split_adjusted_dividends_become_cash_as_paid_and_then_agree_with_older_reports():
    dividend = {"kind": "dividend", "adjustment": "split", "session": date(2012, 8, 9)}
    reconciled = reconcile(
        told(
            {},
            {"session": date(2020, 8, 31), "value": 4.0},
            dividend | {"value": 2.65, "recorded_at": at(2013)},
            dividend | {"value": 0.378571, "recorded_at": at(2016)},
            dividend | {"value": 0.094643, "recorded_at": at(2021)},
            dividend | {"value": 2.65, "adjustment": "none", "recorded_at": at(2019), "vendor": "other"},
        ),
        "d",
    )
    assert reconciled.actions.filter(kind="dividend")["value"].item() == pytest.approx(2.65, rel=1e-5)
    assert reconciled.disputed.is_empty()


def test_a_dividend_on_its_split_s_own_day_is_left_as_told():
    reconciled = reconcile(told({}, {"kind": "dividend", "value": 0.47, "adjustment": "split"}), "d")
    assert reconciled.actions.filter(kind="dividend")["value"].item() == 0.47


def test_the_public_knew_on_the_day_or_when_it_was_told_before_that():
    ahead = datetime(2014, 4, 24, tzinfo=UTC)
    reconciled = reconcile(
        told({}, {"symbol": "B", "recorded_at": ahead}, {"symbol": "C", "known_on": date(2014, 4, 23)}), "d"
    )
    assert reconciled.actions["known_on"].to_list() == [DAY, ahead.date(), date(2014, 4, 23)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"symbol": None}, "no_symbol"),
        ({"symbol": " "}, "no_symbol"),
        ({"session": None}, "no_date"),
        ({"kind": "merger"}, "unknown_kind"),
        ({"kind": None}, "unknown_kind"),
        ({"value": None}, "bad_value"),
        ({"value": 0.0}, "bad_value"),
        ({"value": float("nan"), "kind": "dividend"}, "bad_value"),
        ({"value": float("inf")}, "bad_value"),
        ({"kind": "rename"}, "no_new_symbol"),
        ({"adjustment": "total"}, "unknown_adjustment"),
    ],
)
def test_a_report_that_can_t_be_used_is_rejected_with_its_reason_and_where_it_stands(row: dict, reason: str):
    reconciled = reconcile(told({"symbol": "GOOD"}, row), "d")
    assert reconciled.actions["symbol"].to_list() == ["GOOD"]
    (rejected,) = reconciled.rejected.to_dicts()
    assert (rejected["reason"], rejected["source_object"], rejected["source_row"]) == (reason, "d/actions/a.parquet", 1)
    assert reason in REASONS and rejected["raw"].startswith("{")


def test_renames_keep_their_new_symbol_and_contradict_each_other_by_it():
    rename = {"kind": "rename", "value": None, "symbol": "FB"}
    other = {"new_symbol": "MVRS", "recorded_at": at(2019)}
    reconciled = reconcile(told(rename | {"new_symbol": "META"}, rename | other), "d")
    assert reconciled.actions.select("new_symbol", "value").rows() == [("META", None)]
    assert len(reconciled.disputed) == 2


def test_only_a_user_takes_a_rename_back_and_can_tell_it_again():
    rename = {"kind": "rename", "value": None, "symbol": "FB", "new_symbol": "META", "vendor": "import"}
    back = rename | {"new_symbol": "", "recorded_at": at(2021)}
    reconciled = reconcile(told(rename, back), "d")
    assert reconciled.actions.is_empty() and reconciled.rejected.is_empty() and len(reconciled.disputed) == 2
    reconciled = reconcile(told(rename, back, rename | {"recorded_at": at(2022)}), "d")
    assert reconciled.actions["new_symbol"].to_list() == ["META"]
    reconciled = reconcile(told(rename, back | {"vendor": "yahoo"}), "d")
    assert reconciled.actions["new_symbol"].to_list() == ["META"]
    assert reconciled.rejected["reason"].to_list() == ["no_new_symbol"]


def test_nothing_told_is_nothing():
    reconciled = reconcile(told(), "d")
    assert reconciled.actions.is_empty() and reconciled.rejected.is_empty() and reconciled.disputed.is_empty()
