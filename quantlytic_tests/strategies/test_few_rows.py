"""A rule's expressions for a few rows: what polars says of them to the last digit, or left to polars."""

from __future__ import annotations

import random

import polars as pl
import pytest

from quantlytic_assets.strategies.few_rows import FewRows, Unusual
from quantlytic_assets.strategies.registry import Registry

A, B = pl.col("a"), pl.col("b")


def numbers(count: int, seed: int, lacking: float = 0.1) -> dict[str, list[float | None]]:
    chance = random.Random(seed)
    scale = chance.choice((0.01, 1.0, 100.0, 5e4))
    return {
        name: [None if chance.random() < lacking else round(chance.gauss(scale, scale), 4) for _ in range(count)]
        for name in ("a", "b")
    }


def asked(columns: dict, **expressions: pl.Expr) -> dict[str, list]:
    schema = dict.fromkeys(columns, pl.Float64)
    return pl.DataFrame(columns, schema=schema).select(**expressions).to_dict(as_series=False)


@pytest.mark.parametrize("rule", ["ma_cross", "rsi", "vote", "mean_reversion"])
def test_rules_of_the_library_say_of_a_few_rows_what_they_say_of_a_frame(rule):
    bound = Registry().bind(rule)
    chance = random.Random(rule)
    for count in (1, 2, 30):
        for _ in range(40):
            own = {
                name: [None if chance.random() < 0.1 else chance.uniform(0, 120) for _ in range(count)]
                for name in bound.reads
            }
            # polars divides a single row by a number in another way than many: it is asked for one more.
            more = {name: [*values, 7.0] for name, values in own.items()}
            wanted = bound.opinions_of(pl.DataFrame(more, schema=dict.fromkeys(own, pl.Float64))).head(count)
            assert bound.opinions_of_few(own) == wanted.to_dict(as_series=False)


@pytest.mark.parametrize("rule", ["momentum_rotation", "rebalance", "buy_and_hold"])
def test_rules_that_read_other_rows_or_no_numbers_are_left_to_polars(rule):
    bound = Registry().bind(rule)
    assert bound.opinions_of_few({name: [1.0] for name in bound.reads}) is None


EXPRESSIONS = {
    "comparisons": (A > B) & (A >= 0) | (B < 1) & (B <= A) | (A == B) & (A != 0.5),
    "arithmetic": (A + 2 * B - 0.1) / 3 + (A - B) * A,
    "division": A / (B * B + 1),
    "choice": pl.when(A > B).then(0.5).when(A < 0).then(-B),
    "clipped": ((A - 50) / 50).clip(-1, 1),
    "known": pl.when(A.is_null() | ~B.is_not_null()).then(-1.0).otherwise(A.sign()),
    "filled": A.fill_null(B).fill_null(0.25),
    "words": pl.format("100% of {}: {} or {}", pl.lit("it"), A.round(2), pl.when(A > B).then(pl.lit("%s")))
    .fill_null("nothing"),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPRESSIONS)
@pytest.mark.parametrize("seed", range(20))
def test_an_expression_says_what_polars_says(name, seed):
    expressions = {"target": EXPRESSIONS[name]}
    few = FewRows.of(expressions, ("a", "b"))
    assert few is not None
    columns = numbers(64, seed)
    assert str(few(columns)) == str(asked(columns, **expressions))


@pytest.mark.parametrize(
    "expression",
    [
        A.rank(), A.shift(1), A.sqrt(), A.cast(pl.Float32), A.round(2, mode="half_away_from_zero"), A % 2,
        pl.when(A > B).then(1).otherwise(0.5).cast(pl.String), pl.col("c"), A.sum(), pl.len(), A.gt("1"),
        pl.format("{}", A.is_null()), A.map_elements(abs, pl.Float64),
    ],
)  # fmt: skip
def test_what_is_not_known_is_left_to_polars(expression):
    assert FewRows.of({"target": expression}, ("a", "b")) is None


def test_what_is_answered_otherwise_than_by_polars_is_left_to_it():
    # polars makes 1.0 of a whole number beside a float.
    assert FewRows.of({"target": pl.when(A > B).then(1).otherwise(0.5)}, ("a", "b")) is None


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (A + B, float("inf")), (A + B, float("nan")), (A * B, 1e200), (A / B, 0.0), (A.round(2), 1e300),
        (pl.format("{}", A), 1e-7), (pl.format("{}", A), 1e16),
    ],
)  # fmt: skip
def test_numbers_that_need_care_are_left_to_polars(expression, value):
    few = FewRows.of({"target": expression}, ("a", "b"))
    assert few is not None and len(few({"a": [1.0], "b": [2.0]})["target"]) == 1
    with pytest.raises(Unusual):
        few({"a": [1.0, value], "b": [2.0, value]})


def test_targets_that_can_not_be_held_are_left_to_who_says_what_is_wrong():
    bound = Registry().bind({"rsi": {}})
    wrong = object.__new__(type(bound))
    wrong.__dict__.update(bound.__dict__)
    wrong.__dict__["_few"] = FewRows.of({"target": pl.col("rsi") / 10}, ("rsi",))
    assert wrong.opinions_of_few({"rsi": [5.0]}) == {"target": [0.5]}
    assert wrong.opinions_of_few({"rsi": [5.0, 30.0]}) is None


def test_it_is_tried_when_a_rule_is_prepared_and_not_when_rows_wait(monkeypatch):
    bound = Registry().bind("rsi")
    bound.prepare()
    monkeypatch.setattr(FewRows, "of", lambda *_: pytest.fail("tried again"))
    assert bound.opinions_of_few({"rsi": [20.0]}) is not None
