"""What a PromQL expression uses and gives: names of metrics, labels asked of them, labels of the result."""

from __future__ import annotations

from collections.abc import Mapping

import promql_parser as promql

Labels = Mapping[str, frozenset[str]]


def result_labels(expression: str, known: Labels) -> frozenset[str]:
    """Labels that the result's series have.

    Raises `ValueError` for an expression that can't be parsed, and

    `LookupError` for a metric that is not known or a label that it does not have.
    """
    return _labels(promql.parse(expression), known)


def _labels(node: promql.Expr, known: Labels) -> frozenset[str]:
    if isinstance(node, promql.VectorSelector):
        if node.name not in known:
            raise LookupError(f"no metric {node.name}")
        has = known[node.name]
        _want([matcher.name for matcher in node.matchers.matchers], has, node.name)
        return has
    if isinstance(node, promql.MatrixSelector):
        return _labels(node.vector_selector, known)
    if isinstance(node, promql.AggregateExpr):
        inner = _labels(node.expr, known)
        if node.modifier is None:
            return frozenset()
        _want(node.modifier.labels, inner, str(node.expr))
        named = frozenset(node.modifier.labels)
        return named if str(node.modifier).startswith("by") else inner - named
    if isinstance(node, promql.BinaryExpr):
        left, right = _labels(node.lhs, known), _labels(node.rhs, known)
        matching = node.modifier.matching if node.modifier else None
        if matching is not None:
            _want(matching.labels, left, str(node.lhs))
            _want(matching.labels, right, str(node.rhs))
        return left or right
    if isinstance(node, promql.Call):
        vectors = [_labels(argument, known) for argument in node.args]
        return frozenset().union(*vectors)
    if isinstance(node, (promql.ParenExpr, promql.UnaryExpr)):
        return _labels(node.expr, known)
    if isinstance(node, promql.NumberLiteral):
        return frozenset()
    raise ValueError(f"{type(node).__name__} is not looked into here")


def _want(labels: list[str], has: frozenset[str], where: str) -> None:
    missing = set(labels) - has
    if missing:
        raise LookupError(f"{where} has no label {', '.join(sorted(missing))}")
