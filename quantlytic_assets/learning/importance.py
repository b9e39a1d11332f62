"""What a fitted model goes by: coefficients where it has them, else what shuffling a feature costs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantlytic_assets.learning.models import SEED

if TYPE_CHECKING:
    import numpy as np
    from sklearn.pipeline import Pipeline

# Enough rows for an order of features, few enough that a training does not wait for it.
_ROWS, _REPEATS = 1500, 3


@dataclass(frozen=True)
class Importances:
    """A number a feature, in the order of the matrix; `kind` says which: `coefficient` or `permutation`.

    coefficient: of the standardised feature, in log odds of a rise; its sign is the direction. permutation: by how much
    the log loss of held-out rows grows when the feature is shuffled among them, the mean of some shuffles.
    """

    kind: str
    values: dict[str, float]


def importances(pipeline: Pipeline, matrix: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> Importances:
    """Importances of the features of a fitted pipeline.

    matrix: (n_rows, n_features) of rows that it was not fitted on; labels: (n_rows,), 0 or 1. Two calls give the same.
    """
    from sklearn.inspection import permutation_importance
    from threadpoolctl import threadpool_limits

    coefficients = getattr(pipeline[-1], "coef_", None)
    if coefficients is not None:
        return Importances("coefficient", dict(zip(names, map(float, coefficients[0]), strict=True)))
    step = -(-len(matrix) // _ROWS)
    # Dozens of short predictions: threads would wait for each other longer than they work.
    with threadpool_limits(1):
        found = permutation_importance(
            pipeline, matrix[::step], labels[::step], scoring="neg_log_loss", n_repeats=_REPEATS, random_state=SEED
        )
    return Importances("permutation", dict(zip(names, map(float, found.importances_mean), strict=True)))
