"""Value at risk and expected shortfall beyond what has been seen, by the generalised Pareto distribution."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from quantlytic_assets.trading.statistics.returns import Floats, floats

# Where the search for a tail begins and ends: a loss of 20 % a period, then half of it each time.
_FIRST_THRESHOLD = 0.2
_LAST_THRESHOLD = 1e-9


class TailEstimate(NamedTuple):
    """The tail of the losses beyond a threshold; all zeros where no fat tail can be fitted.

    threshold, value_at_risk and expected_shortfall are losses a period as positive fractions; scale and shape are the
    distribution's parameters.
    """

    threshold: float = 0.0
    scale: float = 0.0
    shape: float = 0.0
    value_at_risk: float = 0.0
    expected_shortfall: float = 0.0


def gpd_risk_estimates(returns: ArrayLike, probability: float = 0.01) -> TailEstimate:
    """Value at risk and expected shortfall that a share `probability` of the losses exceeds.

    Peaks over threshold: losses beyond the highest threshold for which a distribution with a fat tail (shape > 0) fits
    by maximum likelihood. Formulas of Gilli and Këllezi 2006, pages 8 and 12, on losses only, as empyrical does; less
    than three returns give zeros.
    """
    values = floats(returns)
    if len(values) < 3:
        return TailEstimate()
    losses = -values[values < 0]
    threshold = _FIRST_THRESHOLD
    while threshold > _LAST_THRESHOLD:
        beyond = losses[losses >= threshold]
        if fitted := _fitted(beyond):
            scale, shape = fitted
            at_risk = 0.0
            if shape > 0:
                share = len(losses) / len(beyond) * probability
                at_risk = threshold + scale / shape * (share**-shape - 1)
            if at_risk > 0:
                rest = 1 - shape
                shortfall = at_risk / rest + (scale - shape * threshold) / rest if rest else 0.0
                return TailEstimate(threshold, scale, shape, at_risk, shortfall)
        threshold /= 2
    return TailEstimate()


def _fitted(losses: Floats) -> tuple[float, float] | None:
    """Scale and shape of greatest likelihood, None where there is no loss or the search does not end."""
    if len(losses) == 0:
        return None
    # scipy.optimize loads slowly, and few reports need a tail.
    from scipy.optimize import minimize

    found = minimize(_negative_log_likelihood, [1.0, 1.0], args=(losses,), method="Nelder-Mead")
    return (float(found.x[0]), float(found.x[1])) if found.success else None


def _negative_log_likelihood(parameters: Floats, losses: Floats) -> float:
    scale, shape = parameters
    if scale <= 0 or shape < 0:
        # Not a number the search could take for a likelihood.
        return float(np.finfo(np.float64).max)
    if shape == 0:
        return float(len(losses) * math.log(scale) + losses.sum() / scale)
    return float(len(losses) * math.log(scale) + (1 / shape + 1) * np.log(shape / scale * losses + 1).sum())
