from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from quantlytic_assets.learning.features import design_matrix, with_labels
from quantlytic_assets.learning.splits import NotEnoughHistory, holdout, training_rows
from quantlytic_tests.learning.frames import at, indicators, labels, weekdays


def labelled(count: int = 120, horizon: int = 1) -> pl.DataFrame:
    rows = indicators(count, ("AAA", "BBB"))
    return with_labels(design_matrix(rows, ("ret_1",)), labels(rows, horizon))


def test_a_label_that_is_known_only_after_the_cut_is_purged():
    sessions, frame = weekdays(120), labelled(horizon=10)
    cut = at(sessions[60], 0)
    kept = training_rows(frame, cut, 0, sessions)
    assert kept["available_at"].max() < kept["label_available_at"].max() < cut
    # Ten bars ahead: the last usable row is the one whose outcome session 59 told.
    assert kept["session"].max() == sessions[49]
    peeking = frame.with_columns(pl.col("available_at").alias("label_available_at"))
    assert training_rows(peeking, cut, 0, sessions)["session"].max() == sessions[59]


def test_a_row_right_at_the_cut_is_excluded():
    sessions = weekdays(120)
    frame = labelled().with_columns((pl.col("available_at") - timedelta(minutes=1)).alias("label_available_at"))
    moment = at(sessions[60], 21)
    assert training_rows(frame, moment, 0, sessions)["session"].max() == sessions[59]
    assert training_rows(frame, moment + timedelta(microseconds=1), 0, sessions)["session"].max() == sessions[60]
    outcome_at_cut = frame.with_columns(pl.lit(moment).alias("label_available_at"))
    assert training_rows(outcome_at_cut, moment + timedelta(hours=1), 0, sessions)["session"].max() == sessions[60]
    with pytest.raises(NotEnoughHistory):
        training_rows(outcome_at_cut, moment, 0, sessions)


@pytest.mark.parametrize("embargo", [0, 1, 5, 20])
def test_the_last_training_session_lies_the_embargo_before_the_cut(embargo):
    sessions, frame = weekdays(120), labelled()
    kept = training_rows(frame, at(sessions[60], 0), embargo, sessions)
    # Without an embargo the purge alone decides: the outcome of session 58 is known in 59.
    assert kept["session"].max() == sessions[min(58, 60 - embargo)]


def test_a_cut_on_a_closed_day_counts_from_the_next_session():
    sessions, frame = weekdays(120), labelled()
    monday = next(i for i in range(50, 60) if sessions[i].weekday() == 0)
    saturday = at(sessions[monday] - timedelta(days=2), 0)
    assert training_rows(frame, saturday, 5, sessions)["session"].max() == sessions[monday - 5]


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("embargo", [0, 4])
def test_wherever_the_cut_lies_nothing_from_after_it_is_seen_and_nothing_else_is_lost(horizon, embargo):
    sessions, frame = weekdays(120), labelled(horizon=horizon)
    order = {session: i for i, session in enumerate(sessions)}
    start, before = at(sessions[30], 0), 0
    for hours in range(0, 24 * 90, 7):
        cut = start + timedelta(hours=hours)
        cut_index = next((i for s, i in order.items() if s >= cut.date()), len(order))
        kept = training_rows(frame, cut, embargo, sessions)
        expected = [
            row
            for row in frame.iter_rows(named=True)
            if row["available_at"] < cut
            and row["label_available_at"] < cut
            and order[row["session"]] <= cut_index - embargo
        ]
        assert len(kept) == len(expected)
        assert kept["label_available_at"].max() < cut
        # A later cut never knows less.
        assert len(kept) >= before
        before = len(kept)


def test_too_little_history_says_how_much_there_is():
    sessions, frame = weekdays(120), labelled()
    message = r"26 sessions \(52 rows\).*before 2014-02-12.*504 are needed"
    with pytest.raises(NotEnoughHistory, match=message) as caught:
        training_rows(frame, datetime(2014, 2, 12, tzinfo=UTC), 5, sessions, 504)
    assert (caught.value.found, caught.value.needed) == (26, 504)
    with pytest.raises(NotEnoughHistory, match="^0 sessions"):
        training_rows(frame, datetime(2014, 1, 3, tzinfo=UTC), 5, sessions)


def test_a_cut_without_a_time_zone_is_rejected():
    with pytest.raises(ValueError, match="time zone"):
        training_rows(labelled(), datetime(2014, 5, 1), 0, weekdays(120))


def test_the_holdout_is_the_end_and_is_purged_and_embargoed_against_the_rest():
    sessions, frame = weekdays(120), labelled(100, horizon=7)
    fit, validate = holdout(frame, 3, sessions)
    distinct = frame["session"].unique().sort()
    assert validate["session"].unique().sort().to_list() == distinct.tail(round(len(distinct) * 0.2)).to_list()
    first = validate["session"].min()
    assert fit["label_available_at"].max() < validate["available_at"].min()
    assert int(sessions.search_sorted(first)) - int(sessions.search_sorted(fit["session"].max())) >= 3
    # Seven bars ahead outweigh three sessions of embargo.
    assert int(sessions.search_sorted(first)) - int(sessions.search_sorted(fit["session"].max())) == 8
