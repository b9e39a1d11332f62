"""What the figures of an account say, in words."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from quantlytic_assets.trading.backtest.figures import Figures


def verdict(own: Figures, held: Figures, random_returns: np.ndarray, forecasts: Mapping[str, float]) -> list[str]:
    """What the figures say, in sentences that they carry.

    own, held: figures of the account and of buying and holding. random_returns: total returns of the same targets at
    random other times, empty where there are none. forecasts: how good a model's predictions were, beside naive ones.
    """
    gain, market = own["total_return"] or 0.0, held["total_return"] or 0.0
    said = [
        f"It made {gain:.1%}; buying the same symbols and holding them made {market:.1%}, so it did "
        f"{'better' if gain > market else 'worse' if gain < market else 'as well'} by {abs(gain - market):.1%}."
    ]
    if own["sharpe"] is not None and held["sharpe"] is not None:
        said.append(
            f"For its fluctuation it earned {_against(own['sharpe'], held['sharpe'])} (Sharpe ratio of a year)."
        )
    if len(random_returns):
        share = float((random_returns >= gain).mean())
        told = "the timing is more than luck" if share <= 0.05 else "the timing may be luck"
        said.append(f"{share:.0%} of its own targets at random other times made as much or more: {told}.")
    sure, trials = own.get("deflated_sharpe"), int(own.get("trials") or 1)
    if sure is not None:
        count = "this trial alone" if trials == 1 else f"the {trials:,} trials on record"
        said.append(f"That its Sharpe ratio is above zero, for {count}, has a probability of {sure:.1%}.")
    if (accuracy := forecasts.get("accuracy")) is not None:
        naive = max(value for name, value in forecasts.items() if name.endswith("_accuracy"))
        said.append(
            f"Of its forecasts {accuracy:.1%} were right; the best naive one was right in {naive:.1%}"
            f"{', so the model adds nothing to it' if accuracy <= naive else ''}."
        )
    if not own["round_trips"]:
        said.append("It closed no position: figures of trades say nothing.")
    return said


def _against(own: float, held: float) -> str:
    return f"{'more' if own > held else 'less'} than holding, {own:.2f} against {held:.2f}"
